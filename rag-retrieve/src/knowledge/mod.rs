//! Passages, their vectors and the encoder they were made with: in memory, in a folder, in a database.

mod base;
mod build;
pub(crate) mod error;
mod fields;
mod files;
mod fingerprint;
mod manifest;
mod merge;
mod reembed;
mod segment;
mod store;
mod writer;

use std::{fmt, sync::Arc};

use ndarray::{Array2, ArrayView2};
use rag_core::Passage;

pub use base::KnowledgeBase;
pub use build::build_knowledge_base;
pub use error::KnowledgeError;
pub use fingerprint::Fingerprint;
pub use manifest::{FileEntry, Manifest, SegmentEntry};
pub use writer::{Changes, KnowledgeWriter};

pub(crate) use base::check;
#[cfg(any(feature = "postgres", feature = "milvus"))]
pub(crate) use build::{check_width, embed};

use crate::{
    error::Result,
    filter::Filter,
    index::{Hit, Index},
};

/// Passages and their vectors, in this process or in a database.
///
/// A position identifies a passage with its present text. Where passages change, the position of a removed passage is
/// not used again.
pub trait Knowledge: fmt::Debug + Send + Sync {
    /// The encoder that made the vectors.
    fn encoder(&self) -> &Fingerprint;

    /// Number of passages now.
    ///
    /// # Errors
    /// Where a database does not answer.
    fn count(&self) -> Result<usize>;

    /// The passages that match `filter`.
    ///
    /// # Errors
    /// [`KnowledgeError::UnknownField`] for a field that no passage has.
    fn select(&self, filter: &Filter) -> Result<Selection>;

    /// For each of `queries: [questions, dimension]` the `k` passages of highest inner product, best
    /// first, limited to `among` if it is given; all of them where there are fewer than `k`.
    ///
    /// # Errors
    /// Those of [`Index::search`].
    fn search(
        &self,
        queries: ArrayView2<f32>,
        k: usize,
        among: Option<&Selection>,
    ) -> Result<Vec<Vec<Hit>>>;

    /// The passages at positions, in their order.
    ///
    /// # Errors
    /// [`KnowledgeError::Position`]; [`KnowledgeError::Gone`] where one was
    /// deleted or changed since it was found.
    fn passages_at(&self, positions: &[usize]) -> Result<Vec<Passage>>;

    /// The vectors of passages at positions, `[positions, dimension]`.
    ///
    /// # Errors
    /// Those of [`Knowledge::passages_at`].
    fn vectors_at(&self, positions: &[usize]) -> Result<Array2<f32>>;

    /// The knowledge base, where it is in this process.
    fn local(&self) -> Option<&KnowledgeBase> {
        None
    }
}

/// The passages that match a filter.
#[derive(Clone, Debug)]
pub struct Selection {
    /// The filter.
    pub filter: Filter,
    /// How many matched when the selection was made.
    pub passages: usize,
    /// Their positions, rising; `None` where only a database knows them.
    pub positions: Option<Arc<[usize]>>,
}

impl Knowledge for KnowledgeBase {
    fn encoder(&self) -> &Fingerprint {
        &self.manifest.encoder
    }

    fn count(&self) -> Result<usize> {
        Ok(self.len())
    }

    fn select(&self, filter: &Filter) -> Result<Selection> {
        let positions = self.matching(filter)?;
        Ok(Selection {
            filter: filter.clone(),
            passages: positions.len(),
            positions: Some(positions.into()),
        })
    }

    fn search(
        &self,
        queries: ArrayView2<f32>,
        k: usize,
        among: Option<&Selection>,
    ) -> Result<Vec<Vec<Hit>>> {
        let positions = among.and_then(|among| among.positions.as_deref());
        self.index.search_among(queries, k, positions)
    }

    fn passages_at(&self, positions: &[usize]) -> Result<Vec<Passage>> {
        positions.iter().map(|&at| self.passage(at)).collect()
    }

    fn vectors_at(&self, positions: &[usize]) -> Result<Array2<f32>> {
        Ok(self.index.gather(positions))
    }

    fn local(&self) -> Option<&KnowledgeBase> {
        Some(self)
    }
}
