use rag_core::nn::Precision;
use rag_retrieve::Storage;
use serde::{Deserialize, Serialize};

use super::{
    layers::{Keeping, Moment},
    shape::Shape,
};
use crate::{
    error::{Error, Result},
    run::{activations::Activations, config::TrainConfig, optimizer::OptimizerKind},
};

/// The settings of a plan: the parts that train, and how much at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlanSettings {
    /// Questions whose activations are in memory at once: a micro-batch.
    pub batch: usize,
    /// Micro-batches of a step. Where there are several, the gradients of those before are held while
    /// the next is back-propagated.
    pub micro_batches: usize,
    /// Passages retrieved for a question.
    pub n_docs: usize,
    /// Contexts of a question whose activations are in memory at once; `None` holds all `n_docs`.
    pub documents_at_a_time: Option<usize>,
    /// Tokens of a context: passage and question.
    pub context_length: usize,
    /// Tokens of a question.
    pub question_length: usize,
    /// Tokens of an answer, with its end.
    pub answer_length: usize,
    /// The format of matrix products; parameters, gradients and optimiser are f32.
    pub precision: Precision,
    /// The parts of a forward pass that autodiff keeps.
    pub activations: Activations,
    /// The optimiser.
    pub optimizer: OptimizerKind,
    /// The parts that train; the rest is in memory without gradients.
    pub trained: Vec<Component>,
    /// Passages in the index.
    pub passages: usize,
    /// How the index stores its vectors.
    pub storage: Storage,
}

impl Default for PlanSettings {
    /// Joint training of question encoder and generator in f32, with the paper's five passages and
    /// contexts of 300 tokens.
    fn default() -> Self {
        Self {
            batch: 8,
            micro_batches: 1,
            n_docs: 5,
            documents_at_a_time: None,
            context_length: 300,
            question_length: 32,
            answer_length: 32,
            precision: Precision::F32,
            activations: Activations::Kept,
            optimizer: OptimizerKind::AdamW,
            trained: vec![Component::QuestionEncoder, Component::Generator],
            passages: 0,
            storage: Storage::F32,
        }
    }
}

/// A part of the model that is trained or frozen as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Component {
    /// Gives P(z|x).
    QuestionEncoder,
    /// Gives the vectors of the passages; as large as the question encoder.
    ContextEncoder,
    /// Gives P(y|x,z).
    Generator,
}

/// The setting that [`Plan::largest`](super::Plan::largest) looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vary {
    /// [`PlanSettings::batch`].
    Batch,
    /// [`PlanSettings::documents_at_a_time`].
    DocumentsAtATime,
    /// [`PlanSettings::context_length`].
    ContextLength,
    /// [`PlanSettings::n_docs`].
    NDocs,
}

impl PlanSettings {
    /// The settings that `config` has; the model, the lengths and the index stay as they are here.
    #[must_use]
    pub fn of(self, config: &TrainConfig) -> Self {
        let parts = [
            (config.question_encoder, Component::QuestionEncoder),
            (config.context_encoder, Component::ContextEncoder),
            (config.generator, Component::Generator),
        ];
        let trained = parts.into_iter().filter(|(part, _)| part.trains());
        let batch = config.micro_batch_size.min(config.batch_size);
        Self {
            batch,
            micro_batches: config.batch_size.div_ceil(batch),
            documents_at_a_time: config.documents_at_a_time,
            precision: config.precision,
            activations: config.activations,
            optimizer: config.optimizer,
            trained: trained.map(|(_, component)| component).collect(),
            ..self
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        let sizes = [
            ("batch", Some(self.batch)),
            ("micro_batches", Some(self.micro_batches)),
            ("n_docs", Some(self.n_docs)),
            ("documents_at_a_time", self.documents_at_a_time),
            ("context_length", Some(self.context_length)),
            ("question_length", Some(self.question_length)),
            ("answer_length", Some(self.answer_length)),
        ];
        match sizes.iter().find(|(_, size)| *size == Some(0)) {
            Some((setting, _)) => Err(Error::setting(setting, 0, "at least 1")),
            None => Ok(()),
        }
    }

    pub(super) fn keeping(&self, moment: Moment, fused: bool) -> Keeping {
        Keeping {
            precision: self.precision,
            activations: self.activations,
            moment,
            fused,
        }
    }

    /// Contexts of a question whose graph is in memory at once.
    pub(super) fn documents(&self) -> usize {
        self.documents_at_a_time
            .map_or(self.n_docs, |some| some.min(self.n_docs))
    }

    /// Whether gradients are held while others are made.
    pub(super) fn accumulates(&self) -> bool {
        self.micro_batches > 1 || self.documents() < self.n_docs
    }
}

impl Vary {
    pub(super) fn set(self, settings: &PlanSettings, value: usize) -> PlanSettings {
        let mut settings = settings.clone();
        match self {
            Self::Batch => settings.batch = value,
            Self::DocumentsAtATime => settings.documents_at_a_time = Some(value),
            Self::ContextLength => settings.context_length = value,
            Self::NDocs => settings.n_docs = value,
        }
        settings
    }

    /// The largest value that makes sense.
    pub(super) fn most(self, settings: &PlanSettings, shape: &Shape) -> usize {
        match self {
            Self::DocumentsAtATime => settings.n_docs,
            Self::ContextLength => {
                let longest = shape.longest_context(settings.answer_length);
                longest.unwrap_or(UNBOUNDED)
            }
            Self::NDocs if settings.passages > 0 => settings.passages,
            Self::Batch | Self::NDocs => UNBOUNDED,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::DocumentsAtATime => "documents_at_a_time",
            Self::ContextLength => "context_length",
            Self::NDocs => "n_docs",
        }
    }
}

/// Where nothing else bounds a setting.
const UNBOUNDED: usize = 1 << 20;
