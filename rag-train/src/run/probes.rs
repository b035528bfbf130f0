//! How far the retriever has moved since a run began.

use ndarray::Array2;
use rag_retrieve::{Embedder, Retriever, TextEncoder};

use crate::{data::pairs::QuestionAnswer, error::Result, evaluate::recall::recall};

/// Questions that tell how far the retriever has moved.
pub(crate) struct Probes {
    pairs: Vec<QuestionAnswer>,
    /// Their first vectors, `[probes, dimension]`.
    first: Array2<f32>,
}

impl Probes {
    /// At most `count` of `pairs`, evenly spread, as `encoder`, which has not been trained, sees them.
    pub(crate) fn new(
        encoder: &TextEncoder,
        pairs: &[QuestionAnswer],
        count: usize,
    ) -> Result<Self> {
        let stride = pairs.len().div_ceil(count.max(1));
        let pairs: Vec<_> = pairs.iter().step_by(stride).cloned().collect();
        let first = embed(encoder, &pairs)?;
        Ok(Self { pairs, first })
    }

    /// Mean cosine between the first vectors and those of `encoder`.
    pub(crate) fn cosine(&self, encoder: &TextEncoder) -> Result<f64> {
        let now = embed(encoder, &self.pairs)?;
        let cosines = self.first.rows().into_iter().zip(now.rows());
        let sum: f32 = cosines
            .map(|(a, b)| a.dot(&b) / (a.dot(&a) * b.dot(&b)).sqrt())
            .sum();
        Ok(f64::from(sum) / self.pairs.len() as f64)
    }

    /// Recall of as many passages as `retriever` retrieves.
    pub(crate) fn recall(&self, retriever: &Retriever) -> Result<f64> {
        Ok(recall(retriever, &self.pairs, &[retriever.n_docs()])?[0])
    }
}

fn embed(encoder: &TextEncoder, pairs: &[QuestionAnswer]) -> Result<Array2<f32>> {
    let questions: Vec<&str> = pairs.iter().map(|pair| pair.question.as_str()).collect();
    Ok(encoder.embed_questions(&questions)?)
}
