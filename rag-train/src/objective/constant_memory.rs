//! The gradient of the marginal likelihood in memory that does not grow with n_docs.
//!
//! The loss is a function of the scores s_z and of the targets' log-probabilities
//! t_{z,i} = log P(y_i|x,z,y_<i) alone. A pass without a graph computes them; their gradients, which
//! for `-log P(y|x)` are minus the document posterior (RAG-Token: the responsibilities), are a matter of
//! `[batch, n_docs, length]` numbers; and `Σ (∂L/∂t_{z,i}) t_{z,i}`, with the first factor held fixed, has the gradient
//! of L in the generator's parameters, document by document.
//!
//! Label smoothing of the mixture adds `-ε/V Σ_i Σ_v p_{i,v}`, `p_{i,v} = log Σ_z exp(w_{z,i} + l_{z,i,v})`,
//! with l the generator's log-probabilities of all words and w the log-weights of the mixture. It takes
//! one more pass without a graph for p, `[batch, length, vocabulary]`. With
//! `r_{z,i,v} = exp(w_{z,i} + l_{z,i,v} - p_{i,v})`, `∂p_{i,v}/∂l_{z,i,v} = r_{z,i,v}`; and since
//! `Σ_z r_{z,i,v} = 1`, what reaches whatever w is the log-softmax of is
//! `d_{z,i} = Σ_v r_{z,i,v} - V exp w_{z,i}`, which a document knows by itself.

use std::ops::Range;

use burn::{module::Module, tensor::Tensor};
use rag_core::marginal::{
    Compat, RagModel, log_prior, log_sum_exp, mixture_log_weights,
    transformers_uniform_log_likelihood,
};

use super::{
    joint::{Batch, JointModel},
    loss::{Backward, Beliefs, Losses, Objective, RetrieverLoss},
    tensors::{constant, gradient, leaf, slots},
};

/// The tensors that the loss is a function of.
struct Statistics {
    /// s, `[batch, n_docs]`.
    scores: Tensor<2>,
    /// t, `[batch, n_docs, length]`.
    tokens: Tensor<3>,
    /// Log-probabilities of all words at all targets, `[batch, n_docs]`.
    uniform: Tensor<2>,
}

/// The mixture over documents that targets are smoothed against.
struct Mixture {
    /// w, `[batch, n_docs, length]`.
    log_weights: Tensor<3>,
    /// p, `[batch, length, vocabulary]`.
    log_probs: Tensor<3>,
}

/// One batch on its way through the passes.
struct Passes<'a> {
    objective: &'a Objective,
    batch: &'a Batch,
    settings: Backward,
    chunks: Vec<Range<usize>>,
    vocabulary: usize,
}

pub(super) fn backward(
    objective: &Objective,
    model: &JointModel,
    batch: &Batch,
    questions: Tensor<2>,
    documents: usize,
    settings: Backward,
    accumulate: &mut impl FnMut(Tensor<1>),
) -> Beliefs {
    let passes = Passes {
        objective,
        batch,
        settings,
        chunks: slots(batch.n_docs(), documents).collect(),
        vocabulary: model.generator.vocabulary(),
    };
    // No parameter asks for a gradient, so no graph is kept; dropout stays on.
    let still = model.clone().set_require_grad(false);
    let (scores, of) = passes.statistics(model, &still, &questions);
    let mixture = passes
        .smooths_mixture()
        .then(|| passes.mixture(&still, &of));
    let losses = passes.losses(&of, mixture.as_ref());
    let beliefs = objective.beliefs(&losses, &of.scores, &of.tokens);

    let mut gradients = (losses.total().sum() * settings.weight).backward();
    let mut by_score = gradient(&of.scores, &mut gradients);
    let by_token = gradient(&of.tokens, &mut gradients);
    let by_uniform = passes
        .smooths_documents()
        .then(|| gradient(&of.uniform, &mut gradients));

    for slots in &passes.chunks {
        let (tokens, log_probs) = passes.predictions(model, slots);
        let mut loss = (tokens.clone() * of_slots(&by_token, slots)).sum();
        if let (Some(by_uniform), Some(log_probs)) = (&by_uniform, &log_probs) {
            let uniform = batch.targets.uniform_by_document(log_probs);
            loss = loss + (uniform * of_slots(by_uniform, slots)).sum();
        }
        if let (Some(mixture), Some(log_probs)) = (&mixture, log_probs) {
            let (share, reaching) = passes.smoothing(log_probs, tokens, mixture, slots);
            loss = loss + share;
            if objective.retriever == RetrieverLoss::Marginal {
                let more = of_slots(&by_score, slots) + reaching;
                by_score = by_score.slice_assign([0..more.dims()[0], slots.clone()], more);
            }
        }
        if model.context_encoder.is_some() {
            let vectors = passes.passage_vectors(model, slots);
            let scores = still.scores(batch, slots.clone(), constant(&questions), vectors);
            loss = loss + (scores * of_slots(&by_score, slots)).sum();
        }
        accumulate(loss);
    }
    accumulate((scores * by_score).sum());
    beliefs
}

impl Passes<'_> {
    /// The scores with the graph of the question encoder and of the prior's weights, and everything as
    /// leaves of a graph of its own.
    fn statistics(
        &self,
        model: &JointModel,
        still: &JointModel,
        questions: &Tensor<2>,
    ) -> (Tensor<2>, Statistics) {
        let (mut vectors, mut tokens, mut uniform) = (Vec::new(), Vec::new(), Vec::new());
        for slots in &self.chunks {
            vectors.push(self.passage_vectors(still, slots));
            let (of_targets, log_probs) = self.predictions(still, slots);
            tokens.push(of_targets);
            if let Some(log_probs) = log_probs.filter(|_| self.smooths_documents()) {
                uniform.push(self.batch.targets.uniform_by_document(&log_probs));
            }
        }
        let vectors = Tensor::cat(vectors, 1);
        let all = 0..self.batch.n_docs();
        let scores = model.scores(self.batch, all, questions.clone(), vectors);
        let uniform = match uniform.is_empty() {
            true => scores.zeros_like(),
            false => Tensor::cat(uniform, 1),
        };
        let of = Statistics {
            scores: leaf(&scores),
            tokens: leaf(&Tensor::cat(tokens, 1)),
            uniform: leaf(&uniform),
        };
        (scores, of)
    }

    fn mixture(&self, still: &JointModel, of: &Statistics) -> Mixture {
        let prior = log_prior(constant(&of.scores));
        let log_weights = mixture_log_weights(self.objective.model, prior, constant(&of.tokens));
        let log_probs = self
            .chunks
            .iter()
            .fold(None, |mixed: Option<Tensor<4>>, slots| {
                let precision = self.objective.precision;
                let log_probs =
                    still.log_probs(self.batch, slots.clone(), precision, self.settings.seed);
                let joint = log_probs + of_slots(&log_weights, slots).unsqueeze_dim::<4>(3);
                let joint = log_sum_exp(joint, 1);
                Some(match mixed {
                    Some(mixed) => log_sum_exp(Tensor::cat(vec![mixed, joint], 1), 1),
                    None => joint,
                })
            });
        Mixture {
            log_weights,
            log_probs: log_probs.expect("there is a document").squeeze_dim(1),
        }
    }

    /// The losses, in the graph of the statistics; a mixture's share is a constant there.
    fn losses(&self, of: &Statistics, mixture: Option<&Mixture>) -> Losses {
        let targets = &self.batch.targets;
        let smoothing = self.objective.label_smoothing;
        let of_tokens = self
            .objective
            .of_tokens(of.scores.clone(), of.tokens.clone(), targets);
        let mut generator = of_tokens.generator * (1.0 - smoothing);
        if self.smooths_documents() {
            let prior = log_prior(self.objective.generator_scores(of.scores.clone()));
            let uniform = of.uniform.clone();
            let uniform =
                transformers_uniform_log_likelihood(prior, uniform, targets, self.vocabulary);
            generator = generator - uniform * (smoothing / self.vocabulary as f64);
        }
        if let Some(mixture) = mixture {
            let uniform = targets.uniform(mixture.log_probs.clone());
            generator = generator - uniform * (smoothing / self.vocabulary as f64);
        }
        Losses {
            generator,
            ..of_tokens
        }
    }

    /// The terms that smoothing adds to the loss of some documents, and to the gradient of their scores.
    fn smoothing(
        &self,
        log_probs: Tensor<4>,
        tokens: Tensor<3>,
        mixture: &Mixture,
        slots: &Range<usize>,
    ) -> (Tensor<1>, Tensor<2>) {
        let factor =
            -self.settings.weight * self.objective.label_smoothing / self.vocabulary as f64;
        let log_weights = of_slots(&mixture.log_weights, slots);
        let mask = self
            .batch
            .targets
            .mask
            .clone()
            .float()
            .unsqueeze_dim::<3>(1);
        let mixed = mixture.log_probs.clone().unsqueeze_dim::<4>(1);
        let shares = constant(&log_probs) + log_weights.clone().unsqueeze_dim::<4>(3) - mixed;
        let shares = shares.exp() * mask.clone().unsqueeze_dim::<4>(3);
        let by_weight = shares.clone().sum_dim(3).squeeze_dim::<3>(3)
            - log_weights.exp() * mask * self.vocabulary as f64;
        let mut loss = (log_probs * shares).sum();
        if self.objective.model == RagModel::Sequence {
            // w_{z,i} holds the tokens before i: t_{z,j} reaches the weights of all later ones.
            let later = by_weight.clone().sum_dim(2) - by_weight.clone().cumsum(2);
            loss = loss + (tokens * later).sum();
        }
        (loss * factor, by_weight.sum_dim(2).squeeze_dim(2) * factor)
    }

    fn predictions(
        &self,
        model: &JointModel,
        slots: &Range<usize>,
    ) -> (Tensor<3>, Option<Tensor<4>>) {
        let seed = self.settings.seed;
        (self.objective).predictions(model, self.batch, slots.clone(), seed)
    }

    fn passage_vectors(&self, model: &JointModel, slots: &Range<usize>) -> Tensor<3> {
        let precision = self.objective.precision;
        model.passage_vectors(self.batch, slots.clone(), precision, self.settings.seed)
    }

    /// Whether transformers' smoothing is asked for, which is of each document by itself.
    fn smooths_documents(&self) -> bool {
        let Objective { model, compat, .. } = self.objective;
        self.objective.label_smoothing > 0.0
            && (*model, *compat) == (RagModel::Sequence, Compat::HuggingFace)
    }

    fn smooths_mixture(&self) -> bool {
        self.objective.label_smoothing > 0.0 && !self.smooths_documents()
    }
}

/// Some of each question's documents.
fn of_slots<const D: usize>(all: &Tensor<D>, slots: &Range<usize>) -> Tensor<D> {
    all.clone().narrow(1, slots.start, slots.len())
}
