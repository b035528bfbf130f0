//! The types that every crate of burn-rag uses: passages, tokens, transformer blocks, checkpoints in the
//! Hugging Face layout, and the marginal likelihood of Lewis et al. 2020 (arXiv 2005.11401).
//!
//! Nothing here knows how passages are found or answers decoded; see `rag-retrieve` and
//! `rag-generate`.

// But for one memory map.
#![deny(unsafe_code)]

pub mod atomic;
pub mod checkpoint;
pub mod cpu;
mod device;
mod error;
pub mod marginal;
pub mod nn;
pub mod parameters;
mod passage;
mod token_batch;
mod tokenizer;

pub use burn::tensor::Device;
pub use device::device;
pub use error::{Error, Result, report};
pub use passage::{Passage, Source, Value};
pub use token_batch::{TokenBatch, padded, slots};
pub use tokenizer::{Encoding, Tokenizer};
