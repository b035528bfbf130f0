//! Decoding: from scores of the next token to answers.
//!
//! [`generate`] asks a model ([`NextToken`]) for scores, step by step, and searches as a [`GenerationConfig`] says:
//! greedy, sampling, or beam search, with the numbers of transformers 4.57. It knows nothing of tensors or devices; a
//! model that keeps caches follows its rows through the `parents` of each call.
//!
//! ```text
//! generate ── greedy.rs  one token a step, the best or a drawn one, streamed as it is decided
//!         └── beam.rs    num_beams hypotheses a search
//!                both:   Processors (penalties, bans, constraint, forced tokens, temperature, top-k, top-p)
//! ```

mod beam;
mod config;
mod constraint;
mod control;
mod error;
mod greedy;
mod hypothesis;
mod json;
mod next_token;
pub(crate) mod one_or_many;
mod processors;
mod sample;
mod scores;
#[cfg(test)]
mod tests;
mod validate;

pub use config::{EarlyStopping, GenerationConfig};
pub use constraint::AllowedAnswers;
pub use control::{AllowedTokens, Control, StopTokens};
pub use error::DecodeError;
pub use hypothesis::{Ending, Hypothesis};
pub use next_token::NextToken;

/// Runs `batch` independent searches in lockstep, each call of the model advancing all that have not ended.
///
/// One beam is greedy decoding, or sampling with `do_sample`; more are beam search. What comes back has one list for each
/// search, best answer first, with `num_return_sequences` answers; beam search gives fewer where fewer exist (a constraint
/// with two answers has only two). A search does not depend on which others run beside it.
///
/// ```
/// # use std::error::Error;
/// # use rag_generate::decode::{Control, GenerationConfig, NextToken, generate};
/// /// Counts upwards.
/// struct Counter;
///
/// impl NextToken for Counter {
///     fn vocabulary(&self) -> usize {
///         10
///     }
///     fn next(&mut self, _parents: &[usize], tokens: &[u32]) -> Result<Vec<f32>, Box<dyn Error + Send + Sync>> {
///         let likes = |token: u32| (0..10).map(move |next| if next == token + 1 { 5.0 } else { 0.0 });
///         Ok(tokens.iter().flat_map(|&token| likes(token)).collect())
///     }
/// }
///
/// let config = GenerationConfig::beams(3).with_decoder_start_token_id(2).with_eos_token_id(6);
/// let answers = generate(&mut Counter, 1, &config, Control::default())?;
/// assert_eq!(answers[0][0].tokens, [2, 3, 4, 5, 6]);
/// # Ok::<(), rag_generate::decode::DecodeError>(())
/// ```
///
/// # Errors
/// Settings that do not hold, a constraint or a model that fails, and searches that the settings leave no way on.
pub fn generate(
    model: &mut dyn NextToken,
    batch: usize,
    config: &GenerationConfig,
    control: Control<'_>,
) -> Result<Vec<Vec<Hypothesis>>, DecodeError> {
    config.validate()?;
    config.check_vocabulary(model.vocabulary())?;
    if control.stop.is_none() && !config.stop_strings.is_empty() {
        return Err(DecodeError::UnreadStopStrings);
    }
    if config.num_beams == 1 {
        greedy::greedy(model, batch, config, control)
    } else {
        beam::beam_search(model, batch, config, control)
    }
}
