//! How good answers and passages are.

mod retrieval;
mod text;

use rag_generate::{Answer, Rag};
use rag_retrieve::Retriever;
use serde::{Deserialize, Serialize};

use crate::{Error, QuestionAnswer, Result};

pub use retrieval::ndcg;
pub use text::{exact_match, f1, normalize};

/// Scores of answers against accepted ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AnswerScores {
    /// Share of answers that equal an accepted one after normalisation, 0 to 1.
    pub exact_match: f64,
    /// Mean overlap of tokens with the closest accepted answer, 0 to 1.
    pub f1: f64,
    /// Questions that were asked.
    pub questions: usize,
}

/// Asks every question, tells `each` the answer, and compares it with the accepted ones.
///
/// # Errors
/// [`Error::NoExamples`]; those of [`Rag::ask`].
pub fn answers(
    rag: &Rag,
    pairs: &[QuestionAnswer],
    mut each: impl FnMut(&QuestionAnswer, &Answer),
) -> Result<AnswerScores> {
    if pairs.is_empty() {
        return Err(Error::NoExamples);
    }
    let mut scores = AnswerScores::default();
    for pair in pairs {
        let answer = rag.ask(&pair.question)?;
        let accepted: Vec<&str> = pair.answers.iter().map(String::as_str).collect();
        scores.exact_match += f64::from(u8::from(exact_match(&answer.text, &accepted)));
        scores.f1 += f1(&answer.text, &accepted);
        each(pair, &answer);
    }
    let questions = pairs.len() as f64;
    Ok(AnswerScores {
        exact_match: scores.exact_match / questions,
        f1: scores.f1 / questions,
        questions: pairs.len(),
    })
}

/// Recall@k: the share of questions for which a passage that holds the answer is among the best k,
/// for each k, 0 to 1.
///
/// # Errors
/// [`Error::NoExamples`]; those of [`Retriever::retrieve`].
pub fn recall(retriever: &Retriever, pairs: &[QuestionAnswer], ks: &[usize]) -> Result<Vec<f64>> {
    if pairs.is_empty() {
        return Err(Error::NoExamples);
    }
    let deepest = ks.iter().copied().max().unwrap_or(1);
    let retriever = retriever
        .clone()
        .top_k(deepest.min(retriever.knowledge().len()))?;
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
