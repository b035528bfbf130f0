//! Products on the matrix units for bf16 and int8 of x86-64 (AMX).
//!
//! The 24 bits of an f32 are those of three bf16 whose sum it is; of the products of these parts, the six that reach into
//! the digits of an f32 are summed, in f32 (Henry, Tang and Heinecke 2019, arXiv 1904.06376). That is faster than the
//! processor's vectors are, and nearer to the exact sum. In one part, numbers are rounded to bf16.
//!
//! In three parts, what is not finite becomes NaN, and numbers below 1e-33 lose digits.
//!
//! In int8, each row is rounded as [`quantise`](crate::quantise::quantise) does, and sums are exact, in i32. The speed in int8
//! is not measured on a processor with AMX yet.
//!
//! A matrix is packed into panels of [`PANEL_ROWS`] rows, and a panel into tiles, which the tile registers hold. In tests
//! on a processor with AVX-512 and without AMX, the instructions on tile registers are emulated.

mod attention;
mod available;
mod bf16;
#[cfg(test)]
mod emulation;
mod feed_forward;
mod instructions;
mod int8;
mod kernel;
mod layer;
mod product;
mod scratch;
mod tile;

pub(crate) use attention::{attend, score_stride};
pub(crate) use available::{available, int8_available};
pub(crate) use bf16::Bf16Weights;
pub(crate) use feed_forward::feed_forward;
pub(crate) use int8::Int8Weights;
pub(crate) use layer::{Layer, ROWS_TO_SHARE_WEIGHTS, linear};
pub(crate) use product::write as write_product;
pub(crate) use tile::PANEL_ROWS;
