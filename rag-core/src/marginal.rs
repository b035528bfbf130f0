//! The marginal likelihood of Lewis et al. 2020 (arXiv 2005.11401, section 2) as pure functions.
//!
//! With the retriever's P(z|x) over `n_docs` passages and the generator's P(y_i|x,z,y_<i),
//!
//! ```text
//! RAG-Sequence   P(y|x) = Σ_z P(z|x) Π_i P(y_i|x,z,y_<i)
//! RAG-Token      P(y|x) = Π_i Σ_z P(z|x) P(y_i|x,z,y_<i)
//! ```
//!
//! Everything is in log space and differentiable. `token_log_probs` are log P(y_i|x,z,y_<i) of the
//! answer's tokens, `[batch, n_docs, length]`, and must be 0 at padding, which then counts for
//! nothing.

use burn::tensor::{Int, Tensor, activation::log_softmax};
use serde::{Deserialize, Serialize};

/// Where the sum over passages stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RagModel {
    /// One passage explains the whole answer: the sum is outside the product.
    #[default]
    Sequence,
    /// Every token may come from another passage: the sum is inside the product.
    Token,
}

/// Whose convention the numbers follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compat {
    /// The equations above.
    #[default]
    Paper,
    /// As transformers computes it: RAG-Sequence adds log P(z|x) at the second target position (so
    /// that it is lost where an answer is one token long), and its label smoothing sums it over the
    /// vocabulary.
    HuggingFace,
}

/// log Σ exp along `dim`, which is kept with size 1.
pub fn log_sum_exp<const D: usize>(terms: Tensor<D>, dim: usize) -> Tensor<D> {
    let max = terms.clone().detach().max_dim(dim);
    (terms - max.clone()).exp().sum_dim(dim).log() + max
}

/// log P(z|x) of raw scores (inner products) over the retrieved passages, `[batch, n_docs]` to the
/// same: the softmax of equation 1 of DPR, restricted to the top `n_docs`.
pub fn log_prior(scores: Tensor<2>) -> Tensor<2> {
    log_softmax(scores, 1)
}

/// RAG-Sequence's log P(y|x), `[batch]`, of the log-prior `[batch, n_docs]` and the token
/// log-probabilities `[batch, n_docs, length]`.
///
/// ```
/// use rag_core::{device, marginal::sequence_log_likelihood};
/// use burn::tensor::Tensor;
///
/// let device = device("cpu")?;
/// let prior = Tensor::<2>::from_floats([[0.6, 0.4]], &device).log();
/// let tokens = Tensor::<3>::from_floats([[[0.5, 0.2], [0.1, 0.9]]], &device).log();
/// let likelihood: f32 = sequence_log_likelihood(prior, tokens).exp().into_scalar();
/// assert!((likelihood - (0.6 * 0.5 * 0.2 + 0.4 * 0.1 * 0.9)).abs() < 1e-6);
/// # Ok::<(), rag_core::Error>(())
/// ```
pub fn sequence_log_likelihood(log_prior: Tensor<2>, token_log_probs: Tensor<3>) -> Tensor<1> {
    let by_document = log_prior + token_log_probs.sum_dim(2).squeeze_dim(2);
    log_sum_exp(by_document, 1).squeeze_dim(1)
}

/// RAG-Token's log P(y_i|x,y_<i), `[batch, length]`, of the log-prior `[batch, n_docs]` and the
/// token log-probabilities `[batch, n_docs, length]`; their sum is log P(y|x).
///
/// ```
/// use rag_core::{device, marginal::token_log_likelihood};
/// use burn::tensor::Tensor;
///
/// let device = device("cpu")?;
/// let prior = Tensor::<2>::from_floats([[0.6, 0.4]], &device).log();
/// let tokens = Tensor::<3>::from_floats([[[0.5, 0.2], [0.1, 0.9]]], &device).log();
/// let likelihood: f32 = token_log_likelihood(prior, tokens).sum().exp().into_scalar();
/// let enumerated = (0.6 * 0.5 + 0.4 * 0.1) * (0.6 * 0.2 + 0.4 * 0.9);
/// assert!((likelihood - enumerated).abs() < 1e-6);
/// # Ok::<(), rag_core::Error>(())
/// ```
pub fn token_log_likelihood(log_prior: Tensor<2>, token_log_probs: Tensor<3>) -> Tensor<2> {
    let joint = log_prior.unsqueeze_dim::<3>(2) + token_log_probs;
    log_sum_exp(joint, 1).squeeze_dim(1)
}

/// Log of the document posterior P(z|x,y) ∝ P(z|x) Π_i P(y_i|x,z,y_<i), `[batch, n_docs]`: how much
/// each passage explains the whole answer.
pub fn document_log_posterior(log_prior: Tensor<2>, token_log_probs: Tensor<3>) -> Tensor<2> {
    log_softmax(log_prior + token_log_probs.sum_dim(2).squeeze_dim(2), 1)
}

/// Log of RAG-Token's responsibilities P(z|x,y_i,y_<i) ∝ P(z|x) P(y_i|x,z,y_<i),
/// `[batch, n_docs, length]`: each token's share over passages.
pub fn token_log_responsibilities(log_prior: Tensor<2>, token_log_probs: Tensor<3>) -> Tensor<3> {
    log_softmax(log_prior.unsqueeze_dim::<3>(2) + token_log_probs, 1)
}

/// Log of the weights with which passages mix into the prediction of each token,
/// `[batch, n_docs, length]`: P(z|x) for RAG-Token, P(z|x,y_<i) for RAG-Sequence.
///
/// With them both models predict Σ_z w_{z,i} P(v|x,z,y_<i), whose product over the answer's tokens
/// is P(y|x).
pub fn mixture_log_weights(
    model: RagModel,
    log_prior: Tensor<2>,
    token_log_probs: Tensor<3>,
) -> Tensor<3> {
    let prior = log_prior.unsqueeze_dim::<3>(2);
    match model {
        RagModel::Token => prior.expand(token_log_probs.shape()),
        RagModel::Sequence => {
            let before = token_log_probs.clone().cumsum(2) - token_log_probs;
            log_softmax(prior + before, 1)
        }
    }
}

/// log P(y|x), `[batch]`.
pub fn log_likelihood(
    model: RagModel,
    log_prior: Tensor<2>,
    token_log_probs: Tensor<3>,
) -> Tensor<1> {
    match model {
        RagModel::Sequence => sequence_log_likelihood(log_prior, token_log_probs),
        RagModel::Token => token_log_likelihood(log_prior, token_log_probs)
            .sum_dim(1)
            .squeeze_dim(1),
    }
}

/// The inputs of the loss functions.
#[derive(Clone, Debug)]
pub struct Targets {
    /// The answer's tokens, `[batch, length]`; anything at padding.
    pub ids: Tensor<2, Int>,
    /// 1 at the answer's tokens, 0 at padding, `[batch, length]`.
    pub mask: Tensor<2, Int>,
    /// In [`Compat::HuggingFace`], the first target is a start token that RAG-Sequence leaves out.
    pub exclude_bos_score: bool,
}

impl Targets {
    /// log P(y_i|x,z,y_<i) of the targets, 0 at padding: `[batch, n_docs, length]` of the
    /// generator's log-probabilities `[batch, n_docs, length, vocabulary]`.
    pub fn token_log_probs(&self, log_probs: &Tensor<4>) -> Tensor<3> {
        let [batch, n_docs, length, _] = log_probs.dims();
        let ids = self
            .ids
            .clone()
            .reshape([batch, 1, length, 1])
            .expand([batch, n_docs, length, 1]);
        log_probs.clone().gather(3, ids).squeeze_dim::<3>(3) * self.mask_by_document()
    }

    /// Log-probabilities of all words at all targets under each document, `[batch, n_docs]` of the
    /// generator's log-probabilities `[batch, n_docs, length, vocabulary]`.
    pub fn uniform_by_document(&self, log_probs: &Tensor<4>) -> Tensor<2> {
        let by_token = log_probs.clone().sum_dim(3).squeeze_dim::<3>(3);
        (by_token * self.mask_by_document())
            .sum_dim(2)
            .squeeze_dim(2)
    }

    /// Log-probabilities of all words at all targets, `[batch]` of log-probabilities
    /// `[batch, length, vocabulary]`.
    pub fn uniform(&self, log_probs: Tensor<3>) -> Tensor<1> {
        let by_token = log_probs.sum_dim(2).squeeze_dim::<2>(2);
        (by_token * self.mask.clone().float())
            .sum_dim(1)
            .squeeze_dim(1)
    }

    /// log P(z|x) `[batch, n_docs]` where transformers counts it: at the second target, and not at
    /// all where there is none.
    fn prior_at_second(&self, log_prior: Tensor<2>) -> Tensor<2> {
        let [_, length] = self.mask.dims();
        if length > 1 {
            log_prior * self.mask.clone().float().narrow(1, 1, 1)
        } else {
            log_prior * 0.0
        }
    }

    /// 1 at the answer's tokens, 0 at padding, `[batch, 1, length]`.
    pub fn mask_by_document(&self) -> Tensor<3> {
        self.mask.clone().float().unsqueeze_dim(1)
    }
}

/// The marginal negative log-likelihood of the targets, `[batch]`, of the log-prior `[batch, n_docs]`
/// and the token log-probabilities `[batch, n_docs, length]`.
pub fn token_negative_log_likelihood(
    model: RagModel,
    compat: Compat,
    log_prior: Tensor<2>,
    token_log_probs: Tensor<3>,
    targets: &Targets,
) -> Tensor<1> {
    if (model, compat) != (RagModel::Sequence, Compat::HuggingFace) {
        return -log_likelihood(model, log_prior, token_log_probs);
    }
    let length = token_log_probs.dims()[2];
    let scored = if targets.exclude_bos_score && length > 1 {
        token_log_probs.narrow(2, 1, length - 1)
    } else {
        token_log_probs
    };
    let by_document = scored.sum_dim(2).squeeze_dim(2) + targets.prior_at_second(log_prior);
    -log_sum_exp(by_document, 1).squeeze_dim(1)
}

/// The marginal negative log-likelihood with label smoothing, `[batch]`, of the log-prior
/// `[batch, n_docs]` and the generator's log-probabilities `[batch, n_docs, length, vocabulary]`.
///
/// In [`Compat::Paper`] the targets are smoothed against the mixture that predicts each token,
/// `(1-ε) (-log P(y|x)) + ε/V Σ_i Σ_v -log Σ_z w_{z,i} P(v|x,z,y_<i)`, with the weights of
/// [`mixture_log_weights`]. [`Compat::HuggingFace`] reproduces transformers' loss.
pub fn negative_log_likelihood(
    model: RagModel,
    compat: Compat,
    log_prior: Tensor<2>,
    log_probs: Tensor<4>,
    targets: &Targets,
    smoothing: f64,
) -> Tensor<1> {
    let tokens = targets.token_log_probs(&log_probs);
    let loss =
        token_negative_log_likelihood(model, compat, log_prior.clone(), tokens.clone(), targets);
    if smoothing == 0.0 {
        return loss;
    }
    let vocabulary = log_probs.dims()[3];
    let uniform = match (model, compat) {
        (RagModel::Sequence, Compat::HuggingFace) => {
            let by_document = targets.uniform_by_document(&log_probs);
            transformers_uniform_log_likelihood(log_prior, by_document, targets, vocabulary)
        }
        _ => {
            let weights = mixture_log_weights(model, log_prior, tokens).unsqueeze_dim::<4>(3);
            let predicted = log_sum_exp(log_probs + weights, 1).squeeze_dim::<3>(1);
            targets.uniform(predicted)
        }
    };
    loss * (1.0 - smoothing) - uniform * (smoothing / vocabulary as f64)
}

/// The uniform part of transformers' label smoothing of RAG-Sequence, `[batch]`: `log Σ_z` of the
/// log-probabilities of all words at all targets `[batch, n_docs]`
/// ([`Targets::uniform_by_document`]), with the log-prior `[batch, n_docs]` counted for each word.
pub fn transformers_uniform_log_likelihood(
    log_prior: Tensor<2>,
    by_document: Tensor<2>,
    targets: &Targets,
    vocabulary: usize,
) -> Tensor<1> {
    let prior = targets.prior_at_second(log_prior) * vocabulary as f64;
    log_sum_exp(by_document + prior, 1).squeeze_dim(1)
}

#[cfg(test)]
mod tests;
