//! The loss of a batch as a function of a model's scores and log-probabilities.

use std::ops::Range;

use burn::tensor::{Tensor, activation::log_softmax};
use rag_core::{
    marginal::{
        Compat, RagModel, Targets, document_log_posterior, log_prior, log_sum_exp,
        negative_log_likelihood, token_negative_log_likelihood,
    },
    nn::Precision,
};
use serde::{Deserialize, Serialize};

use super::{
    joint::{Batch, DropoutSeed, JointModel},
    tensors::{constant, slots},
};

/// The function that is minimised.
#[derive(Clone, Copy, Debug, Default)]
pub struct Objective {
    /// Where the sum over passages stands.
    pub model: RagModel,
    /// Whose convention the loss follows.
    pub compat: Compat,
    /// ε of label smoothing.
    pub label_smoothing: f64,
    /// The loss that teaches the retriever.
    pub retriever: RetrieverLoss,
    /// The format of matrix products.
    pub precision: Precision,
}

/// The loss that teaches the retriever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetrieverLoss {
    /// The marginal likelihood itself, as in the paper.
    #[default]
    Marginal,
    /// EMDR² (Sachan et al. 2021, arXiv 2106.05346, equation 7): `-log Σ_z P(z|x) sg[P(y|x,z)]`, the
    /// whole answer's likelihood under each passage, also where the generator is RAG-Token's. For
    /// RAG-Sequence it is the marginal likelihood's own gradient.
    Emdr2,
    /// Perplexity distillation (Izacard et al. 2022, arXiv 2208.03299, section 2.2):
    /// `KL(softmax_z(log P(y|x,z) / τ) ‖ P(z|x))`, with the mean log-probability of the answer's tokens,
    /// whatever the retriever thought before.
    PerplexityDistillation {
        /// τ.
        temperature: f64,
    },
}

/// The terms that a step minimises, for each answer.
#[derive(Clone, Debug)]
pub struct Losses {
    /// Marginal negative log-likelihood, smoothed, `[batch]`, in nats.
    pub generator: Tensor<1>,
    /// The retriever's own loss `[batch]`, where it has one; the other then does not reach the scores.
    pub retriever: Option<Tensor<1>>,
}

/// The distributions of the batch's questions over their passages, and how well the answers were predicted.
#[derive(Clone, Debug)]
pub struct Beliefs {
    /// Marginal negative log-likelihood of each answer, smoothed, `[batch]`, in nats.
    pub losses: Tensor<1>,
    /// log P(z|x), `[batch, n_docs]`.
    pub log_prior: Tensor<2>,
    /// log P(z|x,y), `[batch, n_docs]`.
    pub log_posterior: Tensor<2>,
}

/// The tensors that the losses are functions of, with the graphs of the models.
pub(super) struct Forward {
    /// `[batch, n_docs]`.
    pub scores: Tensor<2>,
    /// The targets' log-probabilities, `[batch, n_docs, length]`.
    pub tokens: Tensor<3>,
    /// Those of all words, `[batch, documents, length, vocabulary]` a time, where they are smoothed.
    pub log_probs: Vec<Tensor<4>>,
}

/// How a batch is back-propagated.
#[derive(Clone, Copy, Debug)]
pub struct Backward {
    /// Contexts of each question whose activations are in memory at once; `None` for all of
    /// them.
    pub documents_at_a_time: Option<usize>,
    /// Factors of the losses before they are summed.
    pub weight: f64,
    /// Draws the dropout masks.
    pub seed: DropoutSeed,
}

impl Objective {
    /// The losses in one graph. The contexts run `documents` at a time where it is given, which
    /// decides how dropout masks are drawn, but the graph holds them all.
    pub fn joint(
        &self,
        model: &JointModel,
        batch: &Batch,
        questions: Tensor<2>,
        documents: Option<usize>,
        seed: DropoutSeed,
    ) -> (Losses, Beliefs) {
        let Forward {
            scores,
            tokens,
            log_probs,
        } = self.forward(model, batch, questions, documents, seed);
        let losses = match log_probs.is_empty() {
            true => self.of_tokens(scores.clone(), tokens.clone(), &batch.targets),
            false => {
                let generator = negative_log_likelihood(
                    self.model,
                    self.compat,
                    log_prior(self.generator_scores(scores.clone())),
                    Tensor::cat(log_probs, 1),
                    &batch.targets,
                    self.label_smoothing,
                );
                Losses {
                    generator,
                    retriever: self.retriever_loss(&scores, &tokens, &batch.targets),
                }
            }
        };
        let beliefs = self.beliefs(&losses, &scores, &tokens);
        (losses, beliefs)
    }

    pub(super) fn forward(
        &self,
        model: &JointModel,
        batch: &Batch,
        questions: Tensor<2>,
        documents: Option<usize>,
        seed: DropoutSeed,
    ) -> Forward {
        let n_docs = batch.n_docs();
        let mut vectors = Vec::new();
        let mut tokens = Vec::new();
        let mut log_probs = Vec::new();
        for slots in slots(n_docs, documents.unwrap_or(n_docs)) {
            vectors.push(model.passage_vectors(batch, slots.clone(), self.precision, seed));
            let (of_targets, of_words) = self.predictions(model, batch, slots, seed);
            tokens.push(of_targets);
            log_probs.extend(of_words);
        }
        Forward {
            scores: model.scores(batch, 0..n_docs, questions, Tensor::cat(vectors, 1)),
            tokens: Tensor::cat(tokens, 1),
            log_probs,
        }
    }

    /// The targets' log-probabilities `[batch, slots, length]` under some documents, and those of all words,
    /// `[batch, slots, length, vocabulary]`, where they are smoothed.
    pub(super) fn predictions(
        &self,
        model: &JointModel,
        batch: &Batch,
        slots: Range<usize>,
        seed: DropoutSeed,
    ) -> (Tensor<3>, Option<Tensor<4>>) {
        if self.label_smoothing == 0.0 {
            let of_targets = model.target_log_probs(batch, slots, self.precision, seed);
            return (of_targets, None);
        }
        let of_words = model.log_probs(batch, slots, self.precision, seed);
        (batch.targets.token_log_probs(&of_words), Some(of_words))
    }

    /// The losses without label smoothing, of the scores `[batch, n_docs]` and the targets'
    /// log-probabilities `[batch, n_docs, length]`.
    pub(super) fn of_tokens(
        &self,
        scores: Tensor<2>,
        tokens: Tensor<3>,
        targets: &Targets,
    ) -> Losses {
        Losses {
            retriever: self.retriever_loss(&scores, &tokens, targets),
            generator: token_negative_log_likelihood(
                self.model,
                self.compat,
                log_prior(self.generator_scores(scores)),
                tokens,
                targets,
            ),
        }
    }

    /// The scores as the generator's loss sees them.
    pub(super) fn generator_scores(&self, scores: Tensor<2>) -> Tensor<2> {
        match self.retriever {
            RetrieverLoss::Marginal => scores,
            _ => constant(&scores),
        }
    }

    fn retriever_loss(
        &self,
        scores: &Tensor<2>,
        tokens: &Tensor<3>,
        targets: &Targets,
    ) -> Option<Tensor<1>> {
        let answer = constant(tokens).sum_dim(2).squeeze_dim::<2>(2);
        let prior = log_prior(scores.clone());
        match self.retriever {
            RetrieverLoss::Marginal => None,
            RetrieverLoss::Emdr2 => Some(-log_sum_exp(prior + answer, 1).squeeze_dim(1)),
            RetrieverLoss::PerplexityDistillation { temperature } => {
                let length = targets.mask.clone().float().sum_dim(1).clamp_min(1.0);
                let wanted = log_softmax(answer / length / temperature, 1);
                let divergence = wanted.clone().exp() * (wanted - prior);
                Some(divergence.sum_dim(1).squeeze_dim(1))
            }
        }
    }

    pub(super) fn beliefs(
        &self,
        losses: &Losses,
        scores: &Tensor<2>,
        tokens: &Tensor<3>,
    ) -> Beliefs {
        let log_prior = log_prior(constant(scores));
        Beliefs {
            losses: constant(&losses.generator),
            log_posterior: document_log_posterior(log_prior.clone(), constant(tokens)),
            log_prior,
        }
    }
}

impl Losses {
    /// The sum that is minimised, `[batch]`.
    pub fn total(self) -> Tensor<1> {
        match self.retriever {
            Some(retriever) => self.generator + retriever,
            None => self.generator,
        }
    }
}
