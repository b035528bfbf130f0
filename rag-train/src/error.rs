use std::{fmt, path::PathBuf};

use burn::store::RecordError;

use crate::plan::size::Size;

/// Errors of training and measuring.
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
        /// Its fault.
        reason: String,
    },
    /// An entry of a file in DPR's layout is not one.
    #[error(
        "{path}, entry {entry}: expected a list of {{\"question\", \"answers\", \"positive_ctxs\": [{{\"title\", \"text\"}}, ..], \"hard_negative_ctxs\"?}}; mend or remove the entry"
    )]
    Entry {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        entry: usize,
        /// Its fault.
        source: serde_json::Error,
    },
    /// A file without anything to train on or to measure.
    #[error("{path} holds no example; give at least one")]
    EmptyFile {
        /// The file.
        path: PathBuf,
    },
    /// A line of a metrics file is not an event.
    #[error(
        "{path}, line {line}: expected an event such as {{\"event\": \"step\", ..}}; remove the line, or begin a new file"
    )]
    Metrics {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Its fault.
        source: serde_json::Error,
    },
    /// Nothing to train on or to measure.
    #[error("there are no question-answer pairs; give at least one")]
    NoExamples,
    /// A pair that cannot be trained on.
    #[error("pair {number} ({question:?}) cannot be trained on; mend or remove it")]
    Pair {
        /// Counted from 1.
        number: usize,
        /// Its question.
        question: String,
        /// Its fault.
        source: Box<Error>,
    },
    /// A pair has no answer.
    #[error("there is no answer: expected at least one that is not empty")]
    NoAnswer,
    /// A checkpoint of another run.
    #[error(
        "{folder} holds another run: its {what} is {expected}, this one's {found}; go on with the run's own settings and pairs, or begin a new run in another folder"
    )]
    OtherRun {
        /// The checkpoint.
        folder: PathBuf,
        /// The property that differs.
        what: String,
        /// Its value in the checkpoint.
        expected: String,
        /// Its value in the run that should go on.
        found: String,
    },
    /// Nothing to go on from.
    #[error("{folder} holds no run to go on with; begin one, or set `checkpoints` to its folder")]
    NoRun {
        /// Where it was looked for.
        folder: PathBuf,
    },
    /// The state of a run cannot be written or read.
    #[error("cannot write or read {path}; the run's folder must be writable and unchanged")]
    Record {
        /// The file.
        path: PathBuf,
        /// Burn's error.
        source: RecordError,
    },
    /// Passages could not be embedded in the background.
    #[error(
        "embedding the passages again panicked; train with less memory, or with index.every = 0"
    )]
    Embedding,
    /// Documents of which no question can be made.
    #[error(
        "no name, number or date to ask for in {passages} passages; give longer passages in English or Chinese, or lower `min_words`"
    )]
    NoSpans {
        /// Passages that were searched.
        passages: usize,
    },
    /// A question would be trained against no other passage than its own.
    #[error(
        "there is no negative for the question {question:?}: its batch holds no passage but its own; give hard negatives, or a batch_size of at least 2 and examples with different passages (the same id is the same passage)"
    )]
    NoNegatives {
        /// The question.
        question: String,
    },
    /// A setting that cannot be.
    #[error("{setting} = {found}: expected {expected}")]
    Setting {
        /// Field of the configuration.
        setting: &'static str,
        /// Its value.
        found: String,
        /// The values that are accepted.
        expected: &'static str,
    },
    /// A number to be measured is none that can be.
    #[error("{what} {row} is {found}: expected {expected}")]
    Number {
        /// The kind of number.
        what: &'static str,
        /// Its place among those that were given, counted from 0.
        row: usize,
        /// The number.
        found: f64,
        /// The values that are accepted.
        expected: &'static str,
    },
    /// An answer that should be a regular expression is none.
    #[error("expected answers that are regular expressions; correct them, or compare texts")]
    Pattern(#[source] regex::Error),
    /// LoRA was asked for projections that a model does not have.
    #[error(
        "target_modules: no projection of the {part} is called {found:?}; its projections end in {available}"
    )]
    TargetModules {
        /// `generator` or `question_encoder`.
        part: &'static str,
        /// The name that was asked for.
        found: String,
        /// The last parts of the names that there are.
        available: String,
    },
    /// A model has other adapters than it should, or none.
    #[error("the {part} has {found}, expected {expected}")]
    Adapters {
        /// `generator` or `question_encoder`.
        part: &'static str,
        /// The adapters that it has.
        found: String,
        /// The adapters that it should have.
        expected: String,
    },
    /// Training takes more memory than there is.
    #[error(
        "training takes {needed} even with {setting} = 1, and {limit} were given; most of it is {dominant} ({bytes}): reduce that first"
    )]
    DoesNotFit {
        /// The setting that was varied.
        setting: &'static str,
        /// The memory that its smallest value takes.
        needed: Size,
        /// The memory that there is.
        limit: Size,
        /// The part that takes most.
        dominant: &'static str,
        /// How much that takes.
        bytes: Size,
    },
    /// The loss is no number.
    #[error(
        "the gradients of {steps} steps in a row were not finite (step {step}): the first tensor with NaN or infinity is {tensor}, with the questions {questions:?}; lower the learning rate, or train in bf16 or f32"
    )]
    Diverged {
        /// The last of them.
        step: usize,
        /// How many.
        steps: usize,
        /// Where it begins.
        tensor: String,
        /// The questions of the step.
        questions: Vec<String>,
    },
}

/// Prints the message and its causes, since `main` prints the error that it returns with `Debug`.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        rag_core::report(self, f)
    }
}

/// `std::result::Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn setting(
        setting: &'static str,
        found: impl ToString,
        expected: &'static str,
    ) -> Self {
        Self::Setting {
            setting,
            found: found.to_string(),
            expected,
        }
    }

    pub(crate) fn record(path: PathBuf) -> impl FnOnce(RecordError) -> Self {
        |source| Self::Record { path, source }
    }
}
