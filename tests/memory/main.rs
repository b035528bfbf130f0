//! The memory that decoding takes.

#![allow(clippy::unwrap_used)]

mod beams;
#[path = "../common/mod.rs"]
mod common;
#[path = "../common/counting.rs"]
mod counting;
