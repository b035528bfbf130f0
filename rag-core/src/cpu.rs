//! Settings of the CPU's kernels for a whole program.

#[cfg(feature = "flex")]
pub use rag_cpu::{Processor, UnknownProcessor, keep_freed_pages};

/// Does nothing in a build without the CPU's kernels.
#[cfg(not(feature = "flex"))]
pub fn keep_freed_pages() {}
