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
        "{path}, line {line}: expected {{\"question\", \"answers\": [..]}}: {reason}; mend or remove the line"
    )]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A line of a metrics file is not an event.
    #[error(
        "{path}, line {line}: expected an event such as {{\"event\": \"step\", ..}}: {reason}; remove the line, or begin a new file"
    )]
    Metrics {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
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
