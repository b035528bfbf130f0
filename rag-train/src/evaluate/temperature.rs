use rag_generate::{Calibration, calibration::log_odds};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The divisor of a model's log-probabilities with which they say how often it is right (Guo et al. 2017,
/// section 4.2). Above 1 it makes a model less sure, below 1 surer. It changes no ranking.
///
/// Fitted by the negative log-likelihood on held-out questions, between [`Temperature::LEAST`] and
/// [`Temperature::MOST`]; a model that is always right, or no better than chance, ends there. Where
/// nothing depends on it, it is 1.
///
/// Answers and documents have temperatures of their own:
///
/// ```
/// use rag_train::evaluate::{Reliability, Temperature};
///
/// // P(y|x) = 0.9, three of four times rightly.
/// let log_p = 0.9f64.ln();
/// let answers = [(log_p, true), (log_p, true), (log_p, true), (log_p, false)];
/// let temperature = Temperature::of_answers(&answers)?;
/// assert!((temperature.answer(log_p) - 0.75).abs() < 1e-6);
///
/// // log P(z|x,y) of the documents of each question, and which of them is right.
/// let documents = [(vec![-0.1, -2.4], 0), (vec![-0.2, -1.7], 0), (vec![-0.1, -2.4], 1)];
/// let temperature = Temperature::of_documents(&documents)?;
/// let judged = documents.map(|(scores, right)| {
///     let (best, probability) = temperature.best_document(&scores);
///     (probability, best == right)
/// });
/// println!("{}", Reliability::of(&judged, 15)?.expected_calibration_error());
/// # Ok::<(), rag_train::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Temperature(pub f64);

impl Default for Temperature {
    /// 1: probabilities as the model gives them.
    fn default() -> Self {
        Self(1.0)
    }
}

impl Temperature {
    /// The lowest that is looked at.
    pub const LEAST: f64 = 1e-3;
    /// The highest that is looked at.
    pub const MOST: f64 = 1e3;

    /// The temperature of P(y|x) as the probability that the answer is right,
    /// sigmoid(logit P(y|x) / T), from log P(y|x) of answers and whether each was right.
    ///
    /// # Errors
    /// [`Error::NoExamples`]; [`Error::Number`] for what is no log-probability.
    pub fn of_answers(judged: &[(f64, bool)]) -> Result<Self> {
        if judged.is_empty() {
            return Err(Error::NoExamples);
        }
        for (row, &(log_probability, _)) in judged.iter().enumerate() {
            // Sums of rounded probabilities may exceed 1 a little.
            if !(f64::MIN..=1e-3).contains(&log_probability) {
                return Err(Error::Number {
                    what: "log-probability",
                    row,
                    found: log_probability,
                    expected: "a finite number of at most 0",
                });
            }
        }
        let logits: Vec<(f64, f64)> = judged
            .iter()
            .map(|&(log_probability, right)| {
                (log_odds(log_probability), if right { 1.0 } else { -1.0 })
            })
            .collect();
        Ok(Self::least(|temperature| {
            logits
                .iter()
                .map(|(logit, sign)| softplus(-sign * logit / temperature))
                .sum()
        }))
    }

    /// The temperature of P(z|x,y), softmax(log-scores / T), from the log-scores `[n_docs]` of each
    /// question's documents and the place of the right one. Log-scores need not be normalised; they may
    /// be -∞ for documents that are not right.
    ///
    /// # Errors
    /// [`Error::NoExamples`]; [`Error::Number`] for a NaN, for ∞, for a right document that is not there
    /// or has -∞.
    pub fn of_documents<R: AsRef<[f64]>>(questions: &[(R, usize)]) -> Result<Self> {
        if questions.is_empty() {
            return Err(Error::NoExamples);
        }
        for (row, (scores, right)) in questions.iter().enumerate() {
            let scores = scores.as_ref();
            let is_wrong = |score: &&f64| score.is_nan() || **score == f64::INFINITY;
            if let Some(&found) = scores.iter().find(is_wrong) {
                return Err(Error::Number {
                    what: "a log-score of question",
                    row,
                    found,
                    expected: "a finite number or -∞",
                });
            }
            if !scores.get(*right).is_some_and(|score| score.is_finite()) {
                return Err(Error::Number {
                    what: "the right document of question",
                    row,
                    found: *right as f64,
                    expected: "the place of a document with a finite log-score",
                });
            }
        }
        Ok(Self::least(|temperature| {
            questions
                .iter()
                .map(|(scores, right)| {
                    let scores = scores.as_ref();
                    let (most, log_sum) = log_sum_exp(scores, temperature);
                    (most - scores[*right]) / temperature + log_sum
                })
                .sum()
        }))
    }

    /// The probability that an answer of this log P(y|x) is right: sigmoid(logit P(y|x) / T).
    pub fn answer(self, log_probability: f64) -> f64 {
        (-softplus(-log_odds(log_probability) / self.0)).exp()
    }

    /// Probabilities of documents `[n_docs]` from their log-scores: softmax(log-scores / T). At least
    /// one must be finite.
    pub fn documents(self, log_scores: &[f64]) -> Vec<f64> {
        let (most, log_sum) = log_sum_exp(log_scores, self.0);
        let probability = |score: &f64| ((score - most) / self.0 - log_sum).exp();
        log_scores.iter().map(probability).collect()
    }

    /// The place of the first document with the largest log-score, and its probability.
    pub fn best_document(self, log_scores: &[f64]) -> (usize, f64) {
        let probabilities = self.documents(log_scores);
        let first_best = |best: (usize, f64), (i, probability): (usize, f64)| {
            if probability > best.1 {
                (i, probability)
            } else {
                best
            }
        };
        probabilities
            .into_iter()
            .enumerate()
            .fold((0, 0.0), first_best)
    }

    /// Golden-section search over log T. The loss is convex in 1/T, so that it falls and then rises in
    /// log T as well.
    fn least(loss: impl Fn(f64) -> f64) -> Self {
        const STEPS: usize = 64;
        let golden = (5f64.sqrt() - 1.0) / 2.0;
        let at = |logarithm: f64| loss(logarithm.exp());
        let (mut low, mut high) = (Self::LEAST.ln(), Self::MOST.ln());
        let mut left = high - golden * (high - low);
        let mut right = low + golden * (high - low);
        let (mut loss_left, mut loss_right) = (at(left), at(right));
        for _ in 0..STEPS {
            if loss_left <= loss_right {
                high = right;
                (right, loss_right) = (left, loss_left);
                left = high - golden * (high - low);
                loss_left = at(left);
            } else {
                low = left;
                (left, loss_left) = (right, loss_right);
                right = low + golden * (high - low);
                loss_right = at(right);
            }
        }
        let found = ((low + high) / 2.0).exp();
        if loss(found) < loss(1.0) {
            Self(found)
        } else {
            Self::default()
        }
    }
}

impl From<Temperature> for Calibration {
    /// P(y|x) at that temperature as the probability that the answer is right, [`Temperature::answer`].
    fn from(temperature: Temperature) -> Self {
        Self {
            likelihood: 1.0 / temperature.0,
            ..Self::default()
        }
    }
}

/// log(1 + exp x).
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// The largest score m, and log Σ exp((score - m) / T).
fn log_sum_exp(scores: &[f64], temperature: f64) -> (f64, f64) {
    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = scores
        .iter()
        .map(|score| ((score - most) / temperature).exp())
        .sum();
    (most, sum.ln())
}

#[cfg(test)]
mod tests {
    use rag_generate::Signals;

    use super::*;

    fn close(found: f64, expected: f64) {
        assert!((found / expected - 1.0).abs() < 1e-6, "{found}, {expected}");
    }

    #[test]
    fn answers_of_one_probability_end_at_the_share_that_is_right() {
        // logit 0.9 = log 9, logit 0.75 = log 3: T = 2.
        let log_p = 0.9f64.ln();
        let judged = [(log_p, true), (log_p, true), (log_p, false), (log_p, true)];
        let temperature = Temperature::of_answers(&judged).unwrap();
        close(temperature.0, 2.0);
        close(temperature.answer(log_p), 0.75);
        // Unlikely answers too: logit 0.1 = -log 9, one of four is right.
        let judged = judged.map(|(_, right)| (0.1f64.ln(), !right));
        close(Temperature::of_answers(&judged).unwrap().0, 2.0);
    }

    #[test]
    fn documents_end_at_the_share_that_is_right() {
        // exp(s) / (exp(s) + 2) with s = log 16 / T is 2/3 at T = 2.
        let scores = [16f64.ln(), 0.0, 0.0];
        let questions = [(scores, 0), (scores, 0), (scores, 1)];
        let temperature = Temperature::of_documents(&questions).unwrap();
        close(temperature.0, 2.0);
        let probabilities = temperature.documents(&scores);
        close(probabilities[0], 2.0 / 3.0);
        close(probabilities.iter().sum(), 1.0);
        assert_eq!(temperature.best_document(&[0.0, 1.0, 1.0]).0, 1);
    }

    #[test]
    fn only_the_scale_of_scores_matters() {
        let questions = [
            (vec![2.0, 1.0, -1.0, 0.5], 0),
            (vec![0.3, 0.1], 1),
            (vec![-1.0, 4.0, 3.5], 1),
            (vec![1.0, f64::NEG_INFINITY, 2.5], 0),
        ];
        let temperature = Temperature::of_documents(&questions).unwrap().0;
        let scaled = questions.map(|(scores, right)| {
            let scores: Vec<_> = scores.iter().map(|score| 7.0 * score - 40.0).collect();
            (scores, right)
        });
        close(
            Temperature::of_documents(&scaled).unwrap().0,
            7.0 * temperature,
        );
    }

    #[test]
    fn no_other_temperature_is_more_likely() {
        let judged: Vec<_> = (1..40)
            .map(|i| (-f64::from(i * i) / 50.0, i * 7 % 40 > i))
            .collect();
        let Temperature(best) = Temperature::of_answers(&judged).unwrap();
        let loss = |temperature: f64| -> f64 {
            let probability = |log_p| Temperature(temperature).answer(log_p);
            judged
                .iter()
                .map(|&(log_p, right)| {
                    let p = probability(log_p);
                    -(if right { p } else { 1.0 - p }).ln()
                })
                .sum()
        };
        for factor in [0.5, 0.9, 0.999, 1.001, 1.1, 2.0] {
            assert!(loss(best) < loss(best * factor), "{best} · {factor}");
        }
    }

    #[test]
    fn what_is_always_right_or_never_ends_at_the_ends() {
        let sure = [(0.9f64.ln(), true), (0.0, true), (1e-6, true)];
        close(
            Temperature::of_answers(&sure).unwrap().0,
            Temperature::LEAST,
        );
        let wrong = sure.map(|(log_p, _)| (log_p, false));
        close(
            Temperature::of_answers(&wrong).unwrap().0,
            Temperature::MOST,
        );
        let undecided = [(vec![2.0, 2.0], 0), (vec![3.0], 0)];
        assert_eq!(Temperature::of_documents(&undecided).unwrap().0, 1.0);
    }

    #[test]
    fn a_temperature_is_a_calibration() {
        let temperature = Temperature(1.7);
        for log_likelihood in [-40.0, -2.0, -0.1, 0.0] {
            let answer = Signals {
                log_likelihood,
                tokens: 5,
                entropy: 1.0,
            };
            close(
                Calibration::from(temperature).confidence(answer),
                temperature.answer(log_likelihood),
            );
        }
    }

    #[test]
    fn temperature_1_changes_nothing_and_extremes_stay_numbers() {
        let unchanged = Temperature::default();
        close(unchanged.answer(0.3f64.ln()), 0.3);
        close(unchanged.answer(-300.0), (-300f64).exp());
        close(unchanged.answer(0.0), 1.0);
        assert_eq!(Temperature(1e-3).answer(-300.0), 0.0);
        let documents = Temperature(1e-3).documents(&[-900.0, -901.0, f64::NEG_INFINITY]);
        assert_eq!(documents, [1.0, 0.0, 0.0]);
    }

    #[test]
    fn what_is_no_score_is_refused() {
        for wrong in [f64::NAN, f64::NEG_INFINITY, 0.5] {
            assert!(
                Temperature::of_answers(&[(wrong, true)]).is_err(),
                "{wrong}"
            );
        }
        let nan = ([0.0, f64::NAN], 0);
        let missing = ([0.0, 0.0], 2);
        let impossible = ([0.0, f64::NEG_INFINITY], 1);
        for wrong in [nan, missing, impossible] {
            let error = Temperature::of_documents(&[([0.0, 1.0], 0), wrong]).unwrap_err();
            assert!(error.to_string().contains("question 1 is"), "{error}");
        }
        assert!(matches!(
            Temperature::of_answers(&[]),
            Err(Error::NoExamples)
        ));
        assert!(matches!(
            Temperature::of_documents::<[f64; 1]>(&[]),
            Err(Error::NoExamples)
        ));
    }
}
