//! Retrieval-augmented generation in Rust on Burn.

pub use burn;
pub use rag_core as core;
pub use rag_generate as generate;
pub use rag_retrieve as retrieve;
pub use rag_train as train;
