//! A question to passages with P(z|x): encoders, exact search, lexical search, rerankers, and knowledge
//! bases on disk.

// But for one memory map.
#![deny(unsafe_code)]

mod chunk;
mod document;
pub mod encoder;
mod error;
mod filter;
mod fuse;
pub mod index;
pub mod knowledge;
mod lexical;
mod prior;
#[cfg(any(feature = "postgres", feature = "milvus"))]
pub mod remote;
pub mod rerank;
mod retriever;

pub use chunk::Chunking;
pub use document::{DocumentError, Documents, SkipReason, Skipped};
pub use encoder::{
    Embedder, Encoder, EncoderConfig, EncoderError, Normalization, Pooling, Role, TextEncoder,
};
pub use error::{Error, Result};
pub use filter::Filter;
pub use fuse::{Fusion, maximal_marginal_relevance, reciprocal_rank_fusion};
#[cfg(feature = "ann")]
pub use index::{Code, GraphIndex, GraphSettings};
pub use index::{DeviceIndex, FlatIndex, Hit, Index, IndexError, Storage};
pub use knowledge::{
    Changes, Fingerprint, Knowledge, KnowledgeBase, KnowledgeError, KnowledgeWriter, Manifest,
    Selection, build_knowledge_base,
};
pub use lexical::LexicalIndex;
pub use ndarray;
pub use prior::{PriorWeights, Relevance};
#[cfg(any(feature = "postgres", feature = "milvus"))]
pub use remote::RemoteError;
pub use rerank::{CrossEncoder, Reranker};
pub use retriever::{Retrieved, Retriever, RetrieverError};
