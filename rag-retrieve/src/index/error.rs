#[cfg(feature = "ann")]
use std::path::PathBuf;

/// Errors of vectors and of the indexes over vectors and words.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// Vectors of another dimension than the index, or of none.
    #[error("{what} have dimension {found}, expected {expected}; embed both with the same encoder")]
    Dimension {
        /// Whose vectors.
        what: &'static str,
        /// The dimension that would do.
        expected: String,
        /// The dimension that came.
        found: usize,
    },
    /// A vector or score that is NaN or infinite.
    #[error("{what} {row} is NaN or infinite, expected finite numbers; check its encoder")]
    NotFinite {
        /// Passage vector, query, or score of a query.
        what: &'static str,
        /// Its row, counted from 0.
        row: usize,
    },
    /// A number that half precision cannot hold.
    #[error(
        "passage vector {row} holds {value}, and f16 ends at ±65504; normalise the vectors, or store them as f32 and search them in f32"
    )]
    HalfRange {
        /// Row of the vector, counted from 0.
        row: usize,
        /// The number.
        value: f32,
    },
    /// A device could not compute a search.
    #[error("the device failed to search; it may be out of memory, try fewer vectors")]
    Device {
        /// The device's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The index over words could not be built or searched.
    #[error("the lexical index failed; it lives in memory, check that there is enough")]
    Lexical {
        /// The search engine's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The library of approximate search failed.
    #[cfg(feature = "ann")]
    #[error(
        "the graph of vectors failed; it lives in memory or in its file, check that there is enough of both"
    )]
    Graph {
        /// The library's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A graph with int8 codes would rank by the cosine instead of the inner product.
    #[cfg(feature = "ann")]
    #[error(
        "vector {row} has length {length}, int8 codes need length 1; use Code::F16, or an encoder that normalises"
    )]
    NotNormalised {
        /// Its row.
        row: usize,
        /// Its length.
        length: f32,
    },
    /// A graph that was built of other vectors.
    #[cfg(feature = "ann")]
    #[error(
        "the graph in {folder} was built of other vectors than those of the index; build it again"
    )]
    OtherVectors {
        /// The graph's folder.
        folder: PathBuf,
    },
}
