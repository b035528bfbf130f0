use std::fmt;

use crate::{decode::DecodeError, template::error::TemplateError};

/// What can go wrong between a question and its answer.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Checkpoints, tokenizers, files.
    #[error(transparent)]
    Core(#[from] rag_core::Error),
    /// Documents, encoders, the knowledge base.
    #[error(transparent)]
    Retrieve(#[from] rag_retrieve::Error),
    /// Settings of the search, or a model that gives no numbers.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A template that does not write what it is given.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The question leaves no room for a passage.
    #[error(
        "the question, with the text that a template puts around it, has {tokens} tokens of the generator; a context holds \
         {longest} with its passage: ask a shorter question, or raise max_combined_length up to the model's positions"
    )]
    QuestionTooLong {
        /// The question's tokens.
        tokens: usize,
        /// Longest context.
        longest: usize,
    },
    /// The generator has no positions for so long an answer.
    #[error(
        "an answer of {tokens} tokens is asked for, the generator writes at most {longest}: \
         shorten the candidate, lower max_new_tokens or max_length, or, where the generator reads prompt and answer as \
         one text, max_combined_length"
    )]
    AnswerTooLong {
        /// The answer's tokens, start or end token included.
        tokens: usize,
        /// The generator's positions.
        longest: usize,
    },
    /// Nothing to choose from.
    #[error("no candidates were given; give at least one")]
    NoCandidates,
    /// No passages to answer from.
    #[error("no passages were given; give at least one, or retrieve them")]
    NoPassages,
    /// The model does not know how likely its answers are to be right.
    #[error(
        "expected a model with a calibration, which Threshold::Confidence compares, and found none; fit one to judged \
         answers and give it to Rag::with_calibration, or use another Threshold"
    )]
    NoCalibration,
    /// A device could not compute what was asked of it.
    #[error("the device failed; it may be out of memory, try fewer documents or beams")]
    Execution(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Prints the message and its causes, since `main` prints the error that it returns with `Debug`.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        rag_core::report(self, f)
    }
}

/// `std::result::Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
