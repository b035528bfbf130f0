//! Where to start without a checkpoint or without pairs: a model from nothing, a retriever from passages,
//! and questions made of documents.

pub(crate) mod bootstrap;
pub mod inverse_cloze;
pub mod salient;
pub(crate) mod scratch;
mod tokenizers;
