//! Indexes over passage vectors: which rows have the largest inner products with a query.

mod device;
pub(crate) mod error;
mod flat;
#[cfg(feature = "ann")]
mod graph;
mod rows;

use std::{cmp::Ordering, fmt};

use ndarray::ArrayView2;

pub use device::DeviceIndex;
pub use error::IndexError;
pub use flat::FlatIndex;
#[cfg(feature = "ann")]
pub use graph::{Code, GraphIndex, GraphSettings};
pub use rows::Storage;
pub(crate) use rows::{Live, Rows};

use crate::error::Result;

/// Maximum inner product search over vectors of one dimension.
pub trait Index: fmt::Debug + Send + Sync {
    /// Vectors in the index.
    fn len(&self) -> usize;

    /// Numbers in each vector.
    fn dimension(&self) -> usize;

    /// For each of `queries: [questions, dimension]` the `k` hits of highest score, best first,
    /// among equals the lower position; all of them where the index holds fewer than `k`.
    ///
    /// # Errors
    /// [`IndexError::Dimension`] for queries of another dimension, [`IndexError::NotFinite`] for a query, or
    /// a score, that is NaN or infinite.
    fn search(&self, queries: ArrayView2<f32>, k: usize) -> Result<Vec<Vec<Hit>>> {
        self.search_among(queries, k, None)
    }

    /// Like [`Index::search`], of the vectors at the positions `among`, which rise; of all for `None`.
    ///
    /// # Errors
    /// Those of [`Index::search`].
    ///
    /// # Panics
    /// If a position is not below [`Index::len`], as slicing does.
    fn search_among(
        &self,
        queries: ArrayView2<f32>,
        k: usize,
        among: Option<&[usize]>,
    ) -> Result<Vec<Vec<Hit>>>;

    /// Whether the index holds no vector.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A vector that was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// Row of the vector, and position of its passage in the knowledge base.
    pub position: usize,
    /// Its inner product with the query, as it is: neither normalised nor scaled.
    pub score: f32,
}

impl Hit {
    /// Best first: by falling score, then by rising position.
    pub fn rank(&self, other: &Self) -> Ordering {
        let by_score = other.score.total_cmp(&self.score);
        by_score.then(self.position.cmp(&other.position))
    }
}

/// Refuses queries that an index of this dimension cannot answer.
pub(crate) fn check_queries(queries: ArrayView2<f32>, dimension: usize) -> Result<()> {
    if queries.ncols() != dimension {
        return Err(IndexError::Dimension {
            what: "queries",
            expected: dimension.to_string(),
            found: queries.ncols(),
        }
        .into());
    }
    let finite = |query: ndarray::ArrayView1<f32>| query.iter().all(|value| value.is_finite());
    match queries.rows().into_iter().position(|query| !finite(query)) {
        Some(row) => Err(IndexError::NotFinite { what: "query", row }.into()),
        None => Ok(()),
    }
}

/// Refuses scores that left the range of f32.
pub(crate) fn check_scores(found: &[Vec<Hit>]) -> Result<()> {
    let overflown = |hits: &Vec<Hit>| hits.iter().any(|hit| !hit.score.is_finite());
    match found.iter().position(overflown) {
        Some(row) => Err(IndexError::NotFinite {
            what: "a score of query",
            row,
        }
        .into()),
        None => Ok(()),
    }
}
