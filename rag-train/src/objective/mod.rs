//! Objectives and their gradients: of all documents at once, or of a few at a time.

mod backward;
mod constant_memory;
pub(crate) mod joint;
pub(crate) mod loss;
pub(crate) mod prior;
pub(crate) mod tensors;
