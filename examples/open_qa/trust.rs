//! The held-out questions in two halves: one to fit confidences to, one to measure them on.

use std::collections::HashMap;

use burn_rag::{
    prelude::*,
    train::evaluate::{Asked, Trust},
};
use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};

use super::{Failure, corpus::Corpus, judge::Judged};

/// Places of questions. Those about one document are in one half.
pub struct Halves {
    fit: Vec<usize>,
    measure: Vec<usize>,
    /// Of those to measure on, the ones that are asked again with passages missing.
    again: Vec<usize>,
}

impl Halves {
    /// Puts each document into the half that has fewer questions when it comes up; at most `again` questions are asked
    /// again, and those of a smaller number are among those of a larger one.
    pub fn of(questions: &[QuestionAnswer], corpus: &Corpus, again: usize) -> Self {
        let mut halves = [Vec::new(), Vec::new()];
        let mut half_of = HashMap::new();
        for (at, pair) in questions.iter().enumerate() {
            let smaller = usize::from(halves[1].len() < halves[0].len());
            let half = *half_of.entry(corpus.document(pair)).or_insert(smaller);
            halves[half].push(at);
        }
        let [fit, measure] = halves;
        let mut drawn = measure.clone();
        drawn.shuffle(&mut StdRng::seed_from_u64(0));
        drawn.truncate(again);
        Self {
            fit,
            measure,
            again: drawn,
        }
    }

    /// Places of the questions that are asked again with passages missing.
    pub fn again(&self) -> &[usize] {
        &self.again
    }

    /// Confidences fitted to one half and measured on the other; `None` where a half is empty.
    pub fn trust(&self, judged: &[Judged]) -> Result<Option<Trust>, Failure> {
        if self.measure.is_empty() {
            eprintln!(
                "warning: all questions are about one document, so that confidences cannot be fitted to one half and \
                 measured on the other"
            );
            return Ok(None);
        }
        let asked = |&at: &usize| {
            let asked = judged[at].asked.clone();
            match self.again.contains(&at) {
                true => asked,
                // An earlier call may have asked more of them again.
                false => Asked::new(asked.pair, asked.answer),
            }
        };
        let [fit, measure] =
            [&self.fit, &self.measure].map(|places| places.iter().map(asked).collect::<Vec<_>>());
        Ok(Some(Trust::of(&fit, &measure)?))
    }
}
