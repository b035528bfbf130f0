//! How often a retriever finds a passage that holds the answer.

use rag_retrieve::Retriever;

use crate::{
    data::pairs::QuestionAnswer,
    error::{Error, Result},
};

/// Recall@k: the share of questions for which a passage that holds the answer
/// ([`QuestionAnswer::is_answered_by`]) is among the best k, for each k, 0 to 1. Where the right
/// passage is not known, this is DPR's top-k accuracy (Karpukhin et al. 2020).
///
/// # Errors
/// [`Error::NoExamples`]; those of [`Retriever::retrieve`].
pub fn recall(retriever: &Retriever, pairs: &[QuestionAnswer], ks: &[usize]) -> Result<Vec<f64>> {
    if pairs.is_empty() {
        return Err(Error::NoExamples);
    }
    let deepest = ks.iter().copied().max().unwrap_or(1);
    let retriever = retriever.clone().top_k(deepest.min(retriever.searched()))?;
    let mut found = vec![0; ks.len()];
    for pairs in pairs.chunks(256) {
        let questions: Vec<&str> = pairs.iter().map(|pair| pair.question.as_str()).collect();
        for (pair, passages) in pairs.iter().zip(retriever.retrieve(&questions)?) {
            let rank = passages
                .iter()
                .position(|found| pair.is_answered_by(&found.passage));
            for (count, &k) in found.iter_mut().zip(ks) {
                *count += usize::from(rank.is_some_and(|rank| rank < k));
            }
        }
    }
    let questions = pairs.len() as f64;
    Ok(found
        .into_iter()
        .map(|count| count as f64 / questions)
        .collect())
}
