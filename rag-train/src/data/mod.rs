//! Training data: question-answer pairs, and DPR's questions with passages for and against.

pub(crate) mod dpr;
mod id;
pub(crate) mod pairs;
pub(crate) mod unanswerable;
