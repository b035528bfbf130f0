use std::fmt;

use rag_generate::Rag;
use serde::{Deserialize, Serialize};

use super::{
    answers::{AnswerScores, answers},
    recall::recall,
};
use crate::{data::pairs::QuestionAnswer, error::Result};

/// The measurements of a model on pairs that it was not trained on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Of the answers.
    pub answers: AnswerScores,
    /// Share of questions whose best passage holds the answer.
    pub recall_1: f64,
    /// Share of questions for which one of the passages that are retrieved does.
    pub recall: f64,
    /// How many passages are.
    pub n_docs: usize,
    /// Share of questions for which the passage of the highest P(z|x,y) holds the answer.
    pub cited: f64,
}

/// A measure on held-out pairs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Mean F1 of the answers' tokens.
    #[default]
    F1,
    /// Share of exact answers.
    ExactMatch,
    /// Share of questions whose best passage holds the answer.
    Recall1,
}

impl Measured {
    /// Asks every question.
    ///
    /// # Errors
    /// [`crate::Error::NoExamples`]; those of [`Rag::ask`].
    pub fn of(rag: &Rag, pairs: &[QuestionAnswer]) -> Result<Self> {
        let n_docs = rag.retriever.n_docs();
        let recall = recall(&rag.retriever, pairs, &[1, n_docs])?;
        let mut cited = 0;
        let scores = answers(rag, pairs, |pair, answer| {
            let weights = answer.evidence.iter();
            let cites = weights.max_by(|a, b| a.posterior.total_cmp(&b.posterior));
            cited += usize::from(cites.is_some_and(|cites| pair.is_answered_by(&cites.passage)));
        })?;
        Ok(Self {
            answers: scores,
            recall_1: recall[0],
            recall: recall[1],
            n_docs,
            cited: cited as f64 / pairs.len() as f64,
        })
    }

    /// The one number.
    pub fn metric(&self, metric: Metric) -> f64 {
        match metric {
            Metric::F1 => self.answers.f1,
            Metric::ExactMatch => self.answers.exact_match,
            Metric::Recall1 => self.recall_1,
        }
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} held-out questions: EM {:.1} %  F1 {:.1} %  recall@1 {:.1} %  recall@{} {:.1} %  \
             cites right {:.1} %",
            self.answers.questions,
            100.0 * self.answers.exact_match,
            100.0 * self.answers.f1,
            100.0 * self.recall_1,
            self.n_docs,
            100.0 * self.recall,
            100.0 * self.cited
        )
    }
}
