use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::{
    observation::{QuestionObservation, distinct_passages},
    statistics::{deviation, mean},
};

/// The passages that the last different questions retrieved; a question that comes again replaces itself.
///
/// All statistics are computed anew from here, so that a window read back from a checkpoint gives the
/// same numbers: 256 questions are nothing beside a training step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Window {
    questions: VecDeque<QuestionObservation>,
}

/// How many times likelier the passage at one rank makes the answers.
pub(super) struct Rank {
    /// Mean P(z|x).
    pub prior: f64,
    /// Mean P(z|x,y).
    pub posterior: f64,
    /// See [`log_odds`], of each question where it is finite.
    pub log_odds: Vec<f64>,
}

impl Window {
    /// Adds a question and forgets the oldest beyond `longest`.
    pub fn add(&mut self, question: &QuestionObservation, longest: usize) {
        self.questions
            .retain(|other| other.question != question.question);
        self.questions.push_back(question.clone());
        while self.questions.len() > longest {
            self.questions.pop_front();
        }
    }

    /// Questions.
    pub fn len(&self) -> usize {
        self.questions.len()
    }

    /// Passages of a question.
    pub fn n_docs(&self) -> usize {
        let lengths = self.questions.iter().map(|question| question.prior.len());
        lengths.max().unwrap_or(0)
    }

    /// The passage that is best for the most questions, and for how many.
    pub fn most_common_first(&self) -> (usize, usize) {
        let mut counts = BTreeMap::new();
        for question in &self.questions {
            *counts.entry(question.passages[0]).or_insert(0) += 1;
        }
        let most = counts.into_iter().max_by_key(|&(_, count)| count);
        most.unwrap_or((0, 0))
    }

    /// Different passages of all questions.
    pub fn distinct(&self) -> usize {
        distinct_passages(&self.questions)
    }

    /// The passages at a rank, counted from 0.
    pub fn rank(&self, rank: usize) -> Rank {
        let there = || (self.questions.iter()).filter(|question| rank < question.prior.len());
        Rank {
            prior: mean(there().map(|question| f64::from(question.prior[rank]))),
            posterior: mean(there().map(|question| f64::from(question.posterior[rank]))),
            log_odds: there()
                .filter_map(|question| log_odds(question, rank))
                .collect(),
        }
    }

    /// Of each question, the standard deviation of log P(y|x,z) between its passages, in nats.
    pub fn spreads(&self) -> Vec<f64> {
        let likelihoods = self.questions.iter().map(log_likelihoods);
        likelihoods
            .filter(|passages| passages.len() > 1)
            .map(|passages| deviation(&passages))
            .collect()
    }

    /// Mean KL(P(z|x,y) ‖ P(z|x)), in nats.
    pub fn divergence(&self) -> f64 {
        mean(self.questions.iter().map(|question| {
            let pairs = question.posterior.iter().zip(&question.prior);
            pairs
                .filter(|&(&posterior, &prior)| posterior > 0.0 && prior > 0.0)
                .map(|(&posterior, &prior)| {
                    let (posterior, prior) = (f64::from(posterior), f64::from(prior));
                    posterior * (posterior / prior).ln()
                })
                .sum()
        }))
    }
}

/// log P(y|x,z) of each passage but for a constant: log P(z|x,y) - log P(z|x), by Bayes. Passages whose
/// probability is too small for f32 are left out.
fn log_likelihoods(question: &QuestionObservation) -> Vec<f64> {
    let pairs = question.posterior.iter().zip(&question.prior);
    pairs
        .map(|(&posterior, &prior)| f64::from(posterior).ln() - f64::from(prior).ln())
        .filter(|ratio| ratio.is_finite())
        .collect()
}

/// Log of the posterior odds of the passage at `rank` over its prior odds: of how many times likelier the
/// answer is with that passage than with the others that were found, weighted by P(z|x).
///
/// It says what the passage is worth however sharp P(z|x) already is. `None` where a probability is too
/// small for f32.
fn log_odds(question: &QuestionObservation, rank: usize) -> Option<f64> {
    let odds = |probabilities: &[f32]| {
        // The sum of the others keeps the digits that 1 - p has lost where p is nearly 1.
        let others = probabilities.iter().enumerate();
        let others = others.filter(|&(other, _)| other != rank);
        f64::from(probabilities[rank]) / others.map(|(_, &p)| f64::from(p)).sum::<f64>()
    };
    let log = (odds(&question.posterior) / odds(&question.prior)).ln();
    log.is_finite().then_some(log)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(prior: &[f32], posterior: &[f32]) -> QuestionObservation {
        QuestionObservation {
            question: "x".into(),
            passages: (0..prior.len()).collect(),
            prior: prior.into(),
            posterior: posterior.into(),
        }
    }

    /// Likelihoods 0.8 and 0.2 under a prior of 0.5: the first passage makes the answer 4 times likelier,
    /// and does so as well where the prior is 0.9.
    #[test]
    fn odds_do_not_depend_on_the_prior() {
        for prior in [0.5, 0.9] {
            let first = prior * 0.8 / (prior * 0.8 + (1.0 - prior) * 0.2);
            let question = question(&[prior, 1.0 - prior], &[first, 1.0 - first]);
            assert!((log_odds(&question, 0).unwrap() - 4f64.ln()).abs() < 1e-5);
            assert!((log_odds(&question, 1).unwrap() + 4f64.ln()).abs() < 1e-5);
            // Two log-likelihoods that are log 4 apart deviate by half of it from their mean.
            let spread = deviation(&log_likelihoods(&question));
            assert!((spread - 4f64.ln() / 2.0).abs() < 1e-5);
        }
        assert_eq!(log_odds(&question(&[1.0, 0.0], &[1.0, 0.0]), 0), None);
        assert_eq!(log_odds(&question(&[1.0], &[1.0]), 0), None);
    }

    #[test]
    fn a_question_that_comes_again_replaces_itself() {
        let mut window = Window::default();
        let named = |name: &str, passage| QuestionObservation {
            question: name.into(),
            passages: vec![passage, 9],
            ..question(&[0.5, 0.5], &[0.5, 0.5])
        };
        for (name, passage) in [("a", 1), ("b", 2), ("a", 3), ("c", 3)] {
            window.add(&named(name, passage), 3);
        }
        assert_eq!((window.len(), window.distinct()), (3, 3));
        assert_eq!(window.most_common_first(), (3, 2));
        window.add(&named("d", 4), 3);
        assert_eq!((window.len(), window.distinct()), (3, 3), "b is forgotten");
    }

    #[test]
    fn divergence_by_hand() {
        let mut window = Window::default();
        window.add(&question(&[0.5, 0.5], &[1.0, 0.0]), 1);
        assert!((window.divergence() - 2f64.ln()).abs() < 1e-7);
    }
}
