//! The settings of a run.

use std::{ops::Range, path::PathBuf};

use burn::module::Module;
use rag_core::nn::Precision;
use serde::{Deserialize, Serialize};

use super::{
    activations::Activations,
    optimizer::OptimizerKind,
    order::Order,
    precision::trains_in,
    schedule::{Decay, Schedule},
};
use crate::{
    error::{Error, Result},
    evaluate::measured::Metric,
    objective::loss::RetrieverLoss,
    watch::config::{Action, MonitorConfig},
};

/// Settings of a fine-tuning run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrainConfig {
    /// Passes over the pairs.
    pub epochs: usize,
    /// Pairs of a step.
    pub batch_size: usize,
    /// Pairs whose activations are in memory at once; the gradient is the same for any number.
    pub micro_batch_size: usize,
    /// Passages of each pair whose activations are in memory at once; the gradient is the same for
    /// any number, and memory does not grow with n_docs, for one more forward pass. `None` keeps all.
    pub documents_at_a_time: Option<usize>,
    /// The parts of a forward pass that autodiff keeps.
    pub activations: Activations,
    /// How pairs are put into batches.
    pub order: Order,
    /// The optimiser.
    pub optimizer: OptimizerKind,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// Whether the question encoder trains, and how fast: a generator that knows nothing yet teaches
    /// a good retriever to forget.
    pub question_encoder: Part,
    /// Whether the passages' encoder trains; the knowledge base then follows it as `index` says.
    pub context_encoder: Part,
    /// Whether the weights of P(z|x) train, and how fast, where the retriever has its own.
    pub prior: Part,
    /// Whether the generator trains, and how fast.
    pub generator: Part,
    /// How the passages' vectors follow their encoder, where it trains.
    pub index: IndexRefresh,
    /// Share of the steps over which the learning rate rises.
    pub warmup: f64,
    /// How it falls from there.
    pub decay: Decay,
    /// Decoupled weight decay.
    pub weight_decay: f32,
    /// Largest global norm of a step's gradient.
    pub max_gradient_norm: f64,
    /// ε of label smoothing, 0 for none.
    pub label_smoothing: f64,
    /// The loss that teaches the retriever.
    pub retriever_loss: RetrieverLoss,
    /// The format of matrix products; parameters and optimiser stay f32.
    pub precision: Precision,
    /// Seed of the order of pairs and of dropout.
    pub seed: u64,
    /// Epochs between two measurements on the held-out pairs; 0 measures at the end only.
    pub evaluate_every: usize,
    /// The measure by which the best checkpoint is chosen and a run stops early.
    pub metric: Metric,
    /// Measurements in a row without a better one after which the run ends; `None` never does.
    pub patience: Option<usize>,
    /// The warnings, and the action on each.
    pub monitor: MonitorConfig,
    /// Where the run's files go: the checkpoints `last`, which a run resumes from, and, with held-out
    /// pairs, `best`; `metrics.jsonl`, an event a line; `report.html` at the end. `None` writes none.
    pub checkpoints: Option<PathBuf>,
    /// Steps between two writings of `last`; 0 writes it after each epoch only.
    pub checkpoint_every: usize,
}

/// Whether a part of the model trains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Stays as it is, without dropout.
    Frozen,
    /// Trains at the run's learning rate.
    #[default]
    Trained,
    /// Trains at a highest learning rate of its own.
    TrainedAt(f64),
}

/// How the knowledge base follows a passage encoder that trains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IndexRefresh {
    /// Steps between two embeddings of all passages, which run in the background; 0 embeds them at
    /// the end only.
    pub every: usize,
    /// Steps that an embedding may take; after them training waits for it. The new vectors replace the
    /// old after exactly so many, that a run can be repeated.
    pub delay: usize,
    /// Passages that the old vectors find for each question, of which those that the encoder as it is
    /// now scores highest are trained on; `None` trusts the old vectors.
    pub rescore: Option<usize>,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            epochs: 10,
            batch_size: 8,
            micro_batch_size: 8,
            documents_at_a_time: None,
            activations: Activations::Kept,
            order: Order::Shuffled,
            optimizer: OptimizerKind::AdamW,
            learning_rate: 3e-5,
            question_encoder: Part::Trained,
            context_encoder: Part::Frozen,
            prior: Part::TrainedAt(0.01),
            generator: Part::Trained,
            index: IndexRefresh::default(),
            warmup: 0.1,
            decay: Decay::Linear,
            weight_decay: 0.001,
            max_gradient_norm: 0.1,
            label_smoothing: 0.0,
            retriever_loss: RetrieverLoss::Marginal,
            precision: Precision::F32,
            seed: 0,
            evaluate_every: 1,
            metric: Metric::F1,
            patience: None,
            monitor: MonitorConfig::default(),
            checkpoints: None,
            checkpoint_every: 0,
        }
    }
}

impl Default for IndexRefresh {
    fn default() -> Self {
        Self {
            every: 100,
            delay: 20,
            rescore: None,
        }
    }
}

impl Part {
    /// Whether it moves.
    pub fn trains(self) -> bool {
        self != Self::Frozen
    }

    pub(crate) fn peak(self, run: f64) -> f64 {
        match self {
            Self::Frozen => 0.0,
            Self::Trained => run,
            Self::TrainedAt(own) => own,
        }
    }

    /// Parameters that ask for gradients, or that do not, with dropout off.
    pub(crate) fn prepare<M: Module>(self, module: M) -> M {
        if self.trains() {
            module
        } else {
            module.freeze()
        }
    }
}

impl TrainConfig {
    /// Steps of a run over `pairs` pairs: all batches of all epochs.
    pub(super) fn steps(&self, pairs: usize) -> usize {
        self.epochs * pairs.div_ceil(self.batch_size)
    }

    /// The share of each part's highest learning rate, from 0 to 1, at each of `steps` steps.
    pub(super) fn schedule(&self, steps: usize) -> Schedule {
        Schedule {
            peak: 1.0,
            warmup: (steps as f64 * self.warmup).ceil() as usize,
            steps,
            decay: self.decay,
        }
    }

    /// Refuses settings that cannot be; `has_prior` where P(z|x) has weights to train.
    pub(crate) fn check(&self, has_prior: bool) -> Result<()> {
        let positive = [
            ("epochs", self.epochs),
            ("batch_size", self.batch_size),
            ("micro_batch_size", self.micro_batch_size),
            ("documents_at_a_time", self.documents_at_a_time.unwrap_or(1)),
            ("patience", self.patience.unwrap_or(1)),
            ("index.rescore", self.index.rescore.unwrap_or(1)),
        ];
        for (setting, found) in positive {
            if found == 0 {
                return Err(Error::setting(setting, found, "at least 1"));
            }
        }
        if self.index.every > 0 && self.index.delay >= self.index.every {
            return Err(Error::setting(
                "index.delay",
                self.index.delay,
                "less than index.every",
            ));
        }
        trains_in(self.precision)?;
        self.monitor.check()?;
        let refreshes = (self.monitor.actions.values()).any(|&done| done == Action::RefreshIndex);
        if refreshes && !self.context_encoder.trains() {
            return Err(Error::setting(
                "monitor.actions",
                "refresh_index",
                "a passage encoder that trains: vectors of a frozen one stay the same",
            ));
        }
        let prior = if has_prior { self.prior } else { Part::Frozen };
        if ![
            self.question_encoder,
            self.context_encoder,
            prior,
            self.generator,
        ]
        .iter()
        .any(|part| part.trains())
        {
            return Err(Error::setting(
                "generator",
                "frozen",
                "a part of the model that trains",
            ));
        }
        let temperature = match self.retriever_loss {
            RetrieverLoss::PerplexityDistillation { temperature } => temperature,
            _ => 1.0,
        };
        const POSITIVE: Range<f64> = f64::MIN_POSITIVE..f64::INFINITY;
        let rate = self.learning_rate;
        let ranges = [
            ("learning_rate", rate, 0.0..1.0, "0 to 1"),
            (
                "question_encoder",
                self.question_encoder.peak(rate),
                0.0..1.0,
                "a rate of 0 to 1",
            ),
            (
                "context_encoder",
                self.context_encoder.peak(rate),
                0.0..1.0,
                "a rate of 0 to 1",
            ),
            ("prior", self.prior.peak(rate), 0.0..1.0, "a rate of 0 to 1"),
            (
                "generator",
                self.generator.peak(rate),
                0.0..1.0,
                "a rate of 0 to 1",
            ),
            (
                "warmup",
                self.warmup,
                0.0..1.0,
                "a share of the steps, 0 to 1",
            ),
            ("label_smoothing", self.label_smoothing, 0.0..1.0, "0 to 1"),
            (
                "max_gradient_norm",
                self.max_gradient_norm,
                POSITIVE,
                "more than 0",
            ),
            (
                "retriever_loss",
                temperature,
                POSITIVE,
                "a temperature of more than 0",
            ),
        ];
        for (setting, found, range, expected) in ranges {
            if !range.contains(&found) {
                return Err(Error::setting(setting, found, expected));
            }
        }
        Ok(())
    }
}
