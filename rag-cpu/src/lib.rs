//! The CPU's kernels of burn-rag, by operation: each with its forward computation, its gradient and its recomputation. All
//! vector instructions, threads and `unsafe` code of the project are here, but for two memory maps.
//!
//! The functions take Burn's tensors. Those that return an `Option` leave to the caller's own operations what they do not
//! compute; the others say which tensors they take.
//!
//! # Which path runs when
//!
//! Each row of an operation is decided in one function named `choose`, from these columns. *Processor* is
//! [`Processor::current`]: what the processor has, capped by the environment variable `RAG_CPU`.
//!
//! | operation | rows or queries | processor | gradients | precision | path |
//! |---|---|---|---|---|---|
//! | product of matrices | rows, inner and columns ≥ 32 | AMX | either | f32 | tiles, numbers in three parts of bf16 |
//! | | any | AVX2, AVX-512, NEON; AMX where a side is shorter | either | f32 | the crate `gemm` |
//! | | any | portable | either | f32 | a blocked loop in plain Rust |
//! | linear layer | 1 to 48 rows | any | no | f32 | few rows: the weights are streamed from where they are |
//! | | more, or none | any | either | f32 | a product of matrices, as above |
//! | packed linear layer | up to 64 rows | AMX | no | bf16, int8 | tiles; tasks share the weights |
//! | | more than 64 rows | AMX | no | bf16, int8 | tiles; tasks share the rows |
//! | | any | AVX-512, AVX2, or plain Rust | no | bf16 | panels: weights become f32 in registers |
//! | | any | AVX-512 or AVX2 with VNNI | no | int8 | panels; products of unsigned and signed bytes |
//! | | any | AVX-512, AVX2, or portable (SSE2, plain Rust) | no | int8 | panels; products of 16 bits |
//! | feed-forward block, packed | more than 64 rows | AMX | no | bf16, int8 | tiles; the hidden layer stays in the cache |
//! | attention | up to 7 queries | any | no | f32 | vectors; tasks share the heads |
//! | | 8 queries and more | any | no | f32 | vectors; keys are transposed, tasks share the queries |
//! | | 32 queries and keys, and more | AMX | no | f32 | tiles, in three parts of bf16, or one where weights are packed |
//! | | any, keys not shared between rows | any | yes | f32 | products of matrices, one head of a row after the other |
//! | layer norm, GELU, softmax, log-softmax, dropout | any | any | either | f32 | one pass over all cores |
//! | log-probabilities of some words | any | any | either | f32 | products of matrices, 1,024 rows and 4,096 words at a time |
//! | mixture of contexts | any | any | no | f32 | two passes over all cores |
//! | AdamW | any | any | no | f32, moments also bf16 | one pass over all cores |
//!
//! The crate `gemm` looks for the processor's instructions itself: `RAG_CPU` chooses whether it is called, and not what it
//! then uses. Everything else is dispatched through [`Processor`] alone. Packed weights keep the layout, and with it the
//! kernel, of the processor that they were packed for.
//!
//! # What was measured
//!
//! On two threads of a Xeon with AVX-512 and AMX, 2026-11-22; `docs/decisions.md` of the project has the whole:
//!
//! - Products of `[800, 1024]` and `[1024, 4096]`: 443 to 576 GFLOP/s in tiles of three parts, 303 to 341 in `gemm`; the
//!   error over f64 is 2.6e-7 and 4.1e-7. Of `[64, 1024]` and `[1024, 4096]`: 294 to 305, and 153 to 164.
//! - 20 rows and weights of 240 MB: 133 to 157 GFLOP/s streamed, where `gemm` makes 20 to 60. With AVX2 kernels on the same
//!   machine, 110 to 122. Above 48 rows `gemm` is faster.
//! - bf16 weights as tiles: embedding with all-MiniLM-L6-v2 went from 107 to 117 passages a second against NumKong's
//!   kernels, which they replaced.
//!   Attention of 32 queries and more as tiles: from 148 to 165. The feed-forward block in the cache: from 174 to 186.
//! - int8 weights as tiles: not measured on a processor with AMX yet.
//! - The mixture in one pass: a RAG-Token answer with four beams of BART-base in int8 went from 508 to 428 ms.
//!
//! # Notes for whoever writes a kernel
//!
//! A closure that is dispatched to the processor's vectors has to be `#[inline(always)]`, and small: otherwise it is
//! compiled as a function of its own, for the target's baseline, silently. A large kernel is a `pulp::WithSimd` of its own.
//! Tests force each processor that the machine has with `with_processor`, and compare with f64.

mod activation;
#[cfg(target_arch = "x86_64")]
mod amx;
mod attention;
mod dots;
mod flex;
mod heap;
mod keep;
mod linear;
mod math;
mod matrix;
mod norm;
mod optimizer;
mod pass;
mod processor;
mod product;
mod quantise;
mod reduce;
mod tasks;
#[cfg(test)]
mod tests;
mod view;
mod vocabulary;
mod workers;

pub use activation::{Mask, dropout, gelu, softmax};
pub use attention::{Attention, attention};
pub use flex::{is_cpu, serves};
pub use heap::keep_freed_pages;
pub use keep::keep;
pub use linear::{Format, PackedWeights, linear, shared_memory};
pub use norm::{layer_norm, layer_norm_of_sum};
pub use optimizer::{AdamWStep, adamw};
pub use processor::{Processor, UnknownProcessor, with_processor};
pub use vocabulary::{LOGITS_AT_ONCE, log_mixture, log_softmax, word_log_probs};
pub use workers::among_workers;
