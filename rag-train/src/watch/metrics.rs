use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use rag_core::Error as CoreError;
use serde::{Deserialize, Serialize};

use super::{config::Action, number, warning::Warning};
use crate::error::{Error, Result};

/// The metrics of a training step.
///
/// A number that is not finite is `null` in JSON, and NaN when it is read back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StepMetrics {
    /// Counted from 1.
    pub step: usize,
    /// Counted from 1.
    pub epoch: usize,
    /// Question-answer pairs of this step.
    pub examples: usize,
    /// Answer tokens of this step.
    pub tokens: usize,
    /// Marginal negative log-likelihood of the step's answers, summed, in nats.
    #[serde(deserialize_with = "number::or_nan")]
    pub loss: f64,
    /// The same per answer token.
    #[serde(deserialize_with = "number::or_nan")]
    pub loss_per_token: f64,
    /// Global norm of the gradient before clipping; `None` where the step was skipped.
    pub gradient_norm: Option<f64>,
    /// Learning rate of the generator.
    #[serde(deserialize_with = "number::or_nan")]
    pub learning_rate: f64,
    /// Learning rate of the retriever.
    #[serde(deserialize_with = "number::or_nan")]
    pub retriever_learning_rate: f64,
    /// The factor of the loss, for f16.
    #[serde(deserialize_with = "number::or_nan")]
    pub loss_scale: f64,
    /// Whether the parameters moved; a step whose gradient is not finite is skipped.
    pub taken: bool,
    /// Steps skipped since the run began.
    pub skipped_steps: usize,
    /// Time that the step took.
    #[serde(deserialize_with = "number::or_nan")]
    pub seconds: f64,
    /// Pairs per second.
    #[serde(deserialize_with = "number::or_nan")]
    pub examples_per_second: f64,
    /// Mean entropy of P(z|x) over the step's questions, in nats.
    #[serde(deserialize_with = "number::or_nan")]
    pub prior_entropy: f64,
    /// Mean entropy of P(z|x,y), in nats.
    #[serde(deserialize_with = "number::or_nan")]
    pub posterior_entropy: f64,
    /// Different passages among all that the step's questions retrieved.
    pub distinct_passages: usize,
    /// Memory of the process, where the system tells.
    pub resident_bytes: Option<u64>,
}

/// The metrics of a measurement on held-out pairs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EvaluationMetrics {
    /// The step after which it was measured.
    pub step: usize,
    /// Its epoch.
    pub epoch: usize,
    /// Held-out questions.
    pub questions: usize,
    /// Share of answers that equal an accepted one, 0 to 1.
    #[serde(deserialize_with = "number::or_nan")]
    pub exact_match: f64,
    /// Mean overlap of tokens with the closest accepted answer, 0 to 1.
    #[serde(deserialize_with = "number::or_nan")]
    pub f1: f64,
    /// Recall@k, 0 to 1, for each k.
    pub recall: Vec<(usize, f64)>,
    /// Marginal negative log-likelihood per answer token, in nats.
    pub loss_per_token: Option<f64>,
    /// Time that the measurement took.
    #[serde(deserialize_with = "number::or_nan")]
    pub seconds: f64,
}

/// A line of a [`MetricsLog`]; the field `event` says which.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// A training step.
    Step(StepMetrics),
    /// A measurement.
    Evaluation(EvaluationMetrics),
    /// A monitor, or the trainer, warned.
    Warning {
        /// The step that showed it.
        step: usize,
        /// The action that was taken.
        action: Action,
        /// The warning.
        warning: Warning,
    },
    /// The passages' vectors were computed anew.
    Refresh {
        /// The last step before it.
        step: usize,
        /// How many times the index has been replaced.
        generation: usize,
    },
    /// A checkpoint was written.
    Checkpoint {
        /// The last step that is in it.
        step: usize,
    },
}

impl Event {
    /// The step that the event belongs to.
    pub fn step(&self) -> usize {
        match self {
            Self::Step(metrics) => metrics.step,
            Self::Evaluation(metrics) => metrics.step,
            Self::Warning { step, .. } | Self::Refresh { step, .. } | Self::Checkpoint { step } => {
                *step
            }
        }
    }
}

/// A file of events in the order in which they happened, one JSON object a line (`metrics.jsonl`).
///
/// A line counts once its line end is written: what a killed process left after the last one is
/// passed over when reading and removed when resuming.
#[derive(Debug)]
pub struct MetricsLog {
    path: PathBuf,
    file: File,
}

impl MetricsLog {
    /// Begins an empty log, in place of one that stands there.
    ///
    /// # Errors
    /// [`rag_core::Error::Io`].
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_owned();
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(CoreError::io(folder))?;
        }
        let file = File::create(&path).map_err(CoreError::io(&path))?;
        Ok(Self { path, file })
    }

    /// Goes on with a log for a run that resumes from its checkpoint after `step`; begins an empty one
    /// where there is none.
    ///
    /// Removes the events that the interrupted run wrote after that checkpoint, as the resumed one writes
    /// them again: all that follows the last [`Event::Checkpoint`] of `step` or, where that line is missing,
    /// all events of later steps.
    ///
    /// # Errors
    /// [`rag_core::Error::Io`]; [`Error::Metrics`] names a line that is no event.
    pub fn resume(path: impl AsRef<Path>, step: usize) -> Result<Self> {
        let path = path.as_ref().to_owned();
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Self::create(path),
            read => read.map_err(CoreError::io(&path))?,
        };
        let mut kept = 0;
        let mut checkpoint = None;
        for (number, line) in lines(&bytes).enumerate() {
            let event = parse(line, number, &path)?;
            if event.step() > step {
                break;
            }
            kept += line.len() + 1;
            if event == (Event::Checkpoint { step }) {
                checkpoint = Some(kept);
            }
        }
        let kept = checkpoint.unwrap_or(kept);
        let file = OpenOptions::new()
            .append(true)
            .open(&path)
            .map_err(CoreError::io(&path))?;
        file.set_len(kept as u64).map_err(CoreError::io(&path))?;
        Ok(Self { path, file })
    }

    /// Adds a line, and hands it to the system at once.
    ///
    /// # Errors
    /// [`rag_core::Error::Io`].
    pub fn append(&mut self, event: &Event) -> Result<()> {
        let mut line = serde_json::to_vec(event).map_err(CoreError::json(&self.path))?;
        line.push(b'\n');
        // One write without a buffer: nothing is left behind in a process that is killed.
        self.file
            .write_all(&line)
            .map_err(CoreError::io(&self.path))?;
        Ok(())
    }

    /// All events of a log, in their order.
    ///
    /// # Errors
    /// [`rag_core::Error::Io`]; [`Error::Metrics`] names a line that is no event.
    pub fn read(path: impl AsRef<Path>) -> Result<Vec<Event>> {
        let path = path.as_ref();
        let bytes = fs::read(path).map_err(CoreError::io(path))?;
        lines(&bytes)
            .enumerate()
            .map(|(number, line)| parse(line, number, path))
            .collect()
    }
}

/// Whole lines without their ends. In bytes: a torn line may end inside a character.
fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let whole = bytes.iter().rposition(|&byte| byte == b'\n');
    bytes[..whole.unwrap_or(0)]
        .split(|&byte| byte == b'\n')
        .filter(move |_| whole.is_some())
}

/// The event of a line, whose number counts from 0.
fn parse(line: &[u8], number: usize, path: &Path) -> Result<Event> {
    serde_json::from_slice(line).map_err(|source| Error::Metrics {
        path: path.to_owned(),
        line: number + 1,
        source,
    })
}
