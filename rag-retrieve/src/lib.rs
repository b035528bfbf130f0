//! A question to passages with P(z|x): encoders, exact search, lexical search, and knowledge bases on
//! disk.

mod chunk;
mod document;
pub mod encoder;
mod error;
pub mod index;
pub mod knowledge;
mod lexical;
mod retriever;

pub use chunk::Chunking;
pub use document::{Documents, SkipReason, Skipped};
pub use encoder::{Embedder, Encoder, EncoderConfig, Normalization, Pooling, Role, TextEncoder};
pub use error::{Error, Result};
pub use index::{FlatIndex, Hit, Index, Storage};
pub use knowledge::{Fingerprint, KnowledgeBase, Manifest};
pub use lexical::LexicalIndex;
pub use retriever::{Retrieved, Retriever, build_knowledge_base};
