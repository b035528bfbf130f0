//! A run: `Trainer::run` loops over epochs (`epochs`), `Trainer::step` is one step from top to bottom (`step`), and
//! what is saved and resumed stands apart (`resume`, `state`).

pub(crate) mod activations;
mod adamw;
pub(crate) mod config;
mod diary;
mod epochs;
pub mod gradients;
mod index;
mod observe;
pub(crate) mod optimizer;
pub(crate) mod order;
pub(crate) mod precision;
mod prepare;
mod probes;
mod refresh;
pub(crate) mod report;
mod resume;
pub(crate) mod scaler;
pub(crate) mod schedule;
mod state;
mod step;
pub(crate) mod trainer;
