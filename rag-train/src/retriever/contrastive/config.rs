use rag_core::nn::Precision;
use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    run::precision::trains_in,
};

/// Settings of contrastive training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContrastiveConfig {
    /// Passes over the examples.
    pub epochs: usize,
    /// Most questions of a step, which are told from each other's passages. An epoch is divided evenly,
    /// so that no step has far fewer negatives than another.
    pub batch_size: usize,
    /// Questions, or passages, whose activations are in memory at once; without dropout the gradient
    /// is the same for any number. Where it holds all texts of a step, none is encoded twice.
    pub micro_batch_size: usize,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// Share of the steps over which the learning rate rises.
    pub warmup: f64,
    /// Decoupled weight decay.
    pub weight_decay: f32,
    /// Largest global norm of a step's gradient.
    pub max_gradient_norm: f64,
    /// The divisor of the scores: 1 for inner products (DPR), about 0.05 for cosines, which encoders
    /// with [`Normalization::L2`](rag_retrieve::Normalization::L2) give (all-MiniLM).
    pub temperature: f64,
    /// Hard negatives of each question that join the batch: its first ones.
    pub hard_negatives: usize,
    /// The format of matrix products; parameters and optimiser stay f32.
    pub precision: Precision,
    /// Seed of the order of examples and of dropout.
    pub seed: u64,
}

impl Default for ContrastiveConfig {
    /// As DPR was trained (section 5), in micro-batches for a graphics card of 16 GB.
    fn default() -> Self {
        Self {
            epochs: 40,
            batch_size: 128,
            micro_batch_size: 32,
            learning_rate: 1e-5,
            warmup: 0.1,
            weight_decay: 0.0,
            max_gradient_norm: 1.0,
            temperature: 1.0,
            hard_negatives: 1,
            precision: Precision::F32,
            seed: 0,
        }
    }
}

impl ContrastiveConfig {
    pub(super) fn check(&self) -> Result<()> {
        let at_least_1 = "at least 1";
        let more_than_0 = "more than 0";
        let positive = f64::MIN_POSITIVE..f64::INFINITY;
        let counts = 1.0..f64::INFINITY;
        let share = "a share of the steps, 0 to 1";
        let settings = [
            ("epochs", self.epochs as f64, &counts, at_least_1),
            ("batch_size", self.batch_size as f64, &counts, at_least_1),
            (
                "micro_batch_size",
                self.micro_batch_size as f64,
                &counts,
                at_least_1,
            ),
            ("learning_rate", self.learning_rate, &(0.0..1.0), "0 to 1"),
            ("warmup", self.warmup, &(0.0..1.0), share),
            (
                "max_gradient_norm",
                self.max_gradient_norm,
                &positive,
                more_than_0,
            ),
            ("temperature", self.temperature, &positive, more_than_0),
        ];
        for (setting, found, range, expected) in settings {
            if !range.contains(&found) {
                return Err(Error::setting(setting, found, expected));
            }
        }
        trains_in(self.precision)
    }
}
