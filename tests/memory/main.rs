//! The memory that loading a generator and decoding with it take.

#![allow(clippy::unwrap_used)]

mod beams;
#[path = "../common/mod.rs"]
mod common;
#[path = "../common/counting.rs"]
mod counting;
mod files;
mod loading;
mod random;
#[path = "../../benches/common/random_model.rs"]
mod random_model;
