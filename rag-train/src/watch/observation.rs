use std::collections::BTreeSet;

use rag_generate::calibration::entropy;
use serde::{Deserialize, Serialize};

use super::statistics::mean;

/// A step's retrieval, and the generator's use of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// The step, counted from 1.
    pub step: usize,
    /// Passages in the knowledge base.
    pub knowledge: usize,
    /// The step's questions.
    pub questions: Vec<QuestionObservation>,
    /// Negative log-likelihood per answer token, in nats.
    pub loss_per_token: f64,
    /// Mean cosine between the first and the present vectors of a fixed set of questions, where this
    /// step measured it.
    pub probe_cosine: Option<f64>,
    /// Recall@k of a fixed set of questions with the vectors of the index, 0 to 1, where this step
    /// measured it.
    pub recall_stored: Option<f64>,
    /// The same with vectors of passages computed now.
    pub recall_fresh: Option<f64>,
}

/// The passages that a question retrieved, the best first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct QuestionObservation {
    /// Its text or id: whatever is the same when it comes again.
    pub question: String,
    /// Positions in the knowledge base, `[n_docs]`.
    pub passages: Vec<usize>,
    /// P(z|x), `[n_docs]`.
    pub prior: Vec<f32>,
    /// P(z|x,y), `[n_docs]`.
    pub posterior: Vec<f32>,
}

impl Observation {
    /// Mean entropy of P(z|x) over the questions, in nats.
    pub fn prior_entropy(&self) -> f64 {
        let priors = self.questions.iter().map(|found| &found.prior);
        mean(priors.map(|prior| entropy(prior)))
    }

    /// Mean entropy of P(z|x,y) over the questions, in nats.
    pub fn posterior_entropy(&self) -> f64 {
        let posteriors = self.questions.iter().map(|found| &found.posterior);
        mean(posteriors.map(|posterior| entropy(posterior)))
    }

    /// Different passages that the questions retrieved.
    pub fn distinct_passages(&self) -> usize {
        distinct_passages(&self.questions)
    }
}

impl QuestionObservation {
    /// Whether its lists are of one length and finite.
    pub(super) fn is_whole(&self) -> bool {
        let n_docs = self.passages.len();
        n_docs > 0
            && [&self.prior, &self.posterior].iter().all(|list| {
                list.len() == n_docs && list.iter().all(|probability| probability.is_finite())
            })
    }
}

/// Different passages of all questions.
pub(super) fn distinct_passages<'a>(
    questions: impl IntoIterator<Item = &'a QuestionObservation>,
) -> usize {
    let passages = questions.into_iter().flat_map(|found| &found.passages);
    passages.collect::<BTreeSet<_>>().len()
}
