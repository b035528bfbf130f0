use std::{fmt, path::PathBuf};

/// What can go wrong while training or measuring.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Files, tokenizers, checkpoints.
    #[error(transparent)]
    Core(#[from] rag_core::Error),
    /// The retriever.
    #[error(transparent)]
    Retrieve(#[from] rag_retrieve::Error),
    /// The generator.
    #[error(transparent)]
    Generate(#[from] rag_generate::Error),
    /// A line of a file of pairs is not one.
    #[error(
        "{path}, line {line}: expected {{\"question\", \"answers\": [..] or \"answer\", \"id\"?, \"passage\" or \"passage_id\"?}}: {reason}; mend or remove the line"
    )]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// An entry of a file in DPR's layout is not one.
    #[error(
        "{path}, entry {entry}: expected a list of {{\"question\", \"answers\", \"positive_ctxs\": [{{\"title\", \"text\"}}, ..], \"hard_negative_ctxs\"?}}: {reason}; mend or remove the entry"
    )]
    Entry {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        entry: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A file without anything to train on or to measure.
    #[error("{path} holds no example; give at least one")]
    EmptyFile {
        /// The file.
        path: PathBuf,
    },
    /// Nothing to train on or to measure.
    #[error("there are no question-answer pairs; give at least one")]
    NoExamples,
    /// A setting that cannot be.
    #[error("{setting} = {found}: expected {expected}")]
    Setting {
        /// Field of the configuration.
        setting: &'static str,
        /// Its value.
        found: String,
        /// What would do.
        expected: &'static str,
    },
    /// The loss is no number.
    #[error(
        "the gradients of {steps} steps in a row were not finite (step {step}); lower the learning rate, or train in bf16 or f32"
    )]
    Diverged {
        /// The last of them.
        step: usize,
        /// How many.
        steps: usize,
    },
}

/// `main` prints the error that it returns with `Debug`, and should teach as well.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `std::result::Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
