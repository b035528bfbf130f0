//! The report of a run, of its steps and epochs.

use serde::{Deserialize, Serialize};

use crate::{
    error::Result,
    evaluate::measured::Measured,
    objective::{loss::Beliefs, tensors::values},
};

/// The report of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// One entry an epoch.
    pub epochs: Vec<Epoch>,
    /// Steps that were skipped because their gradients were not finite.
    pub skipped_steps: usize,
    /// How many times the passages were embedded again.
    pub index_generation: usize,
}

/// The report of an epoch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Marginal negative log-likelihood per answer token, in nats.
    pub loss_per_token: f64,
    /// Mean global norm of the gradients before clipping.
    pub gradient_norm: f64,
    /// Pairs per second.
    pub examples_per_second: f64,
    /// On the held-out pairs, where they were measured.
    pub heldout: Option<Measured>,
}

/// The report of a step.
#[derive(Clone, Debug, PartialEq)]
pub struct StepReport {
    /// Counted from 1.
    pub step: usize,
    /// Summed marginal negative log-likelihood of the answers, in nats.
    pub loss: f64,
    /// Answer tokens.
    pub tokens: usize,
    /// The global norm of the gradients before clipping.
    pub gradient_norm: f64,
    /// The learning rate of the generator.
    pub learning_rate: f64,
    /// The learning rate of the question encoder.
    pub retriever_learning_rate: f64,
    /// The factor of the loss; other than 1 in f16.
    pub loss_scale: f64,
    /// Whether the parameters moved.
    pub taken: bool,
    /// Where NaN or infinity began, if anywhere in the gradients.
    pub not_finite: Option<String>,
    /// One entry a pair.
    pub examples: Vec<ExampleReport>,
}

/// A pair in a step's report.
#[derive(Clone, Debug, PartialEq)]
pub struct ExampleReport {
    /// Marginal negative log-likelihood of the answer, in nats.
    pub loss: f64,
    /// Tokens of the answer.
    pub tokens: usize,
    /// Positions of the passages in the knowledge base, best first.
    pub passages: Vec<usize>,
    /// P(z|x) of each.
    pub prior: Vec<f32>,
    /// P(z|x,y) of each.
    pub posterior: Vec<f32>,
}

/// The sums of an epoch up to now.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct SoFar {
    loss: f64,
    tokens: usize,
    pairs: usize,
    norms: f64,
    taken: usize,
    seconds: f64,
}

/// One entry a pair of what a micro-batch believed.
pub(crate) fn reports(
    beliefs: Beliefs,
    positions: Vec<Vec<usize>>,
    tokens: Vec<usize>,
) -> Result<Vec<ExampleReport>> {
    let losses = values(beliefs.losses)?;
    let prior = values(beliefs.log_prior.exp())?;
    let posterior = values(beliefs.log_posterior.exp())?;
    let examples = positions.into_iter().zip(tokens).enumerate();
    Ok(examples
        .map(|(i, (passages, tokens))| {
            let own = i * passages.len()..(i + 1) * passages.len();
            ExampleReport {
                loss: f64::from(losses[i]),
                tokens,
                passages,
                prior: prior[own.clone()].to_vec(),
                posterior: posterior[own].to_vec(),
            }
        })
        .collect())
}

impl SoFar {
    pub(crate) fn add(&mut self, step: &StepReport, seconds: f64) {
        self.loss += step.loss;
        self.tokens += step.tokens;
        self.pairs += step.examples.len();
        if step.taken {
            self.norms += step.gradient_norm;
            self.taken += 1;
        }
        self.seconds += seconds;
    }

    pub(crate) fn message(&self, epoch: usize, epochs: usize) -> String {
        let (loss, speed) = (
            self.loss / self.tokens as f64,
            self.pairs as f64 / self.seconds,
        );
        format!("epoch {epoch}/{epochs}  {loss:.3} nats/token  {speed:.1} pairs/s")
    }

    pub(crate) fn epoch(self) -> Epoch {
        Epoch {
            loss_per_token: self.loss / self.tokens as f64,
            gradient_norm: self.norms / self.taken.max(1) as f64,
            examples_per_second: self.pairs as f64 / self.seconds,
            heldout: None,
        }
    }
}

impl Epoch {
    pub(crate) fn line(&self, number: usize, epochs: usize) -> String {
        let mut line = format!(
            "epoch {number}/{epochs}  {:.3} nats/token  gradient norm {:.2}  {:.1} pairs/s",
            self.loss_per_token, self.gradient_norm, self.examples_per_second
        );
        if let Some(measured) = self.heldout {
            line += &format!("  {measured}");
        }
        line
    }
}
