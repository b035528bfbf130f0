//! Distributions over a vocabulary.

mod log_softmax;
mod mixture;
mod word_log_probs;

pub use log_softmax::log_softmax;
pub use mixture::log_mixture;
pub use word_log_probs::{LOGITS_AT_ONCE, word_log_probs};
