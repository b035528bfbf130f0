//! log P(y_i|x,z,y_<i) of given answers, by teacher forcing.

mod forced;
mod forcing;
#[cfg(test)]
mod tests;
mod tree;

pub use forced::{Forced, batch};
pub use forcing::{log_probs, target_log_probs};
pub(crate) use tree::{Given, token_log_probs};
