//! The crate's error: one variant for each subsystem, whose own enum says what went wrong.

use std::fmt;

use rag_core::report;

#[cfg(any(feature = "postgres", feature = "milvus"))]
use crate::remote::error::RemoteError;
use crate::{
    document::error::DocumentError, encoder::error::EncoderError, index::error::IndexError,
    knowledge::error::KnowledgeError, retriever::error::RetrieverError,
};

/// Errors of everything between documents and retrieved passages.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Files, tokenizers, checkpoints: what lies below the retriever.
    #[error(transparent)]
    Core(#[from] rag_core::Error),
    /// Reading documents and cutting them into passages.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// Turning texts into vectors.
    #[error(transparent)]
    Encoder(#[from] EncoderError),
    /// Vectors, the indexes over them, and the index over words.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// Knowledge bases, in memory and in a folder.
    #[error(transparent)]
    Knowledge(#[from] KnowledgeError),
    /// Questions and the settings of a retriever.
    #[error(transparent)]
    Retriever(#[from] RetrieverError),
    /// Knowledge bases that a database keeps.
    #[cfg(any(feature = "postgres", feature = "milvus"))]
    #[error(transparent)]
    Remote(#[from] RemoteError),
}

impl Error {
    /// The failure of an [`Embedder`](crate::Embedder) of the user's own, such as that of its HTTP client.
    pub fn embedder(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Encoder(EncoderError::Embedder {
            source: source.into(),
        })
    }
}

/// Prints the message and its causes, since `main` prints the error that it returns with `Debug`.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        report(self, f)
    }
}

/// `std::result::Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
