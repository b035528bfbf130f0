//! How good answers and passages are, and how far a model's probabilities can be trusted.
//!
//! Everything but [`answers`] and [`recall`] takes plain texts and numbers, whoever made them:
//!
//! - answers: [`exact_match`] and [`f1`] (SQuAD), [`bleu`] (sacrebleu), [`rouge`] (rouge-score),
//!   [`accuracy`], each by the tokens of a [`Language`];
//! - passages: [`has_answer`] and [`AnswerPatterns`], [`rankings`] and the measures that it averages;
//! - probabilities: [`Reliability`], [`Temperature`], [`RiskCoverage`].

mod abstain;
mod bleu;
mod calibration;
mod has_answer;
mod language;
mod retrieval;
mod rouge;
mod temperature;
mod text;

use rag_generate::{Answer, Rag};
use rag_retrieve::Retriever;
use serde::{Deserialize, Serialize};

use crate::{Error, QuestionAnswer, Result};

pub use abstain::{RiskCoverage, RiskPoint};
pub use bleu::{Bleu, bleu, sentence_bleu};
pub use calibration::{Reliability, ReliabilityBin};
pub use has_answer::{AnswerPatterns, has_answer};
pub use language::{Language, normalize};
pub use retrieval::{
    Ranking, RankingScores, ndcg, precision_at, rankings, recall_at, reciprocal_rank,
};
pub use rouge::{Overlap, Rouge, rouge};
pub use temperature::Temperature;
pub use text::{accuracy, exact_match, f1};

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

/// Asks every question, tells `each` the answer, and compares it with the accepted ones: as Chinese where
/// the question or an accepted answer is, by [`Language::of`], else as English.
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
        let language = language(pair);
        let exact = exact_match(&answer.text, &pair.answers, language);
        scores.exact_match += f64::from(u8::from(exact));
        scores.f1 += f1(&answer.text, &pair.answers, language);
        each(pair, &answer);
    }
    let questions = pairs.len() as f64;
    Ok(AnswerScores {
        exact_match: scores.exact_match / questions,
        f1: scores.f1 / questions,
        questions: pairs.len(),
    })
}

/// The data choose the language and not the model's answer, so that no answer changes its own measure.
pub(crate) fn language(pair: &QuestionAnswer) -> Language {
    let mut texts = [&pair.question].into_iter().chain(&pair.answers);
    if texts.any(|text| Language::of(text) == Language::Chinese) {
        Language::Chinese
    } else {
        Language::English
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_choose_the_language() {
        let of = |question: &str, answer: &str| language(&QuestionAnswer::new(question, answer));
        assert_eq!(of("《红楼梦》有多少回？", "120"), Language::Chinese);
        assert_eq!(of("Where does the Yangtze end?", "上海"), Language::Chinese);
        assert_eq!(
            of("What does 北京 mean?", "northern capital"),
            Language::English
        );
    }
}
