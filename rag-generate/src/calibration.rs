//! How likely an answer is to be right, of what the model says of it.

use serde::{Deserialize, Serialize};

use crate::answer::Answer;

/// The numbers of an answer that tell how likely it is to be right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Signals {
    /// log P(y|x).
    pub log_likelihood: f64,
    /// The tokens of the answer, its end included.
    pub tokens: usize,
    /// The entropy of P(z|x,y) in nats: 0 where one passage has all of it, log `n_docs` where all have the same.
    pub entropy: f64,
}

/// The probability that an answer is right, a logistic model of its [`Signals`]:
///
/// ```text
/// P(right) = σ(bias + a · logit P(y|x) + b · tokens + c · H[P(z|x,y)])
/// ```
///
/// σ is the logistic function and H the entropy. With a = 1 / T and nothing else it is P(y|x) at temperature T. The
/// default is P(y|x) itself. rag-train's `evaluate::calibrate` fits the four numbers to answers that were judged; they
/// hold for the model, the settings and the kind of question that they were fitted on.
///
/// ```
/// use rag_generate::{Calibration, Signals};
///
/// let answer = Signals { log_likelihood: 0.9f64.ln(), tokens: 3, entropy: 0.5 };
/// assert!((Calibration::default().confidence(answer) - 0.9).abs() < 1e-12);
/// // σ(½ · log 9) = 3 / 4
/// let half = Calibration { likelihood: 0.5, ..Calibration::default() };
/// assert!((half.confidence(answer) - 0.75).abs() < 1e-12);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// The log-odds where everything else is 0.
    pub bias: f64,
    /// a, the weight of the log-odds of P(y|x).
    pub likelihood: f64,
    /// b, the weight of a token.
    pub tokens: f64,
    /// c, the weight of a nat of the entropy of P(z|x,y).
    pub entropy: f64,
}

impl Default for Calibration {
    /// P(y|x).
    fn default() -> Self {
        Self {
            bias: 0.0,
            likelihood: 1.0,
            tokens: 0.0,
            entropy: 0.0,
        }
    }
}

impl Calibration {
    /// The probability that an answer is right, 0 to 1; NaN where a signal is.
    pub fn confidence(&self, answer: Signals) -> f64 {
        let [likelihood, tokens, entropy] = answer.values();
        let log_odds = self.bias
            + self.likelihood * likelihood
            + self.tokens * tokens
            + self.entropy * entropy;
        1.0 / (1.0 + (-log_odds).exp())
    }
}

impl Signals {
    /// The numbers that the weights of a [`Calibration`] multiply, in their order.
    pub fn values(&self) -> [f64; 3] {
        [
            log_odds(self.log_likelihood),
            self.tokens as f64,
            self.entropy,
        ]
    }
}

impl Answer {
    /// The signals of how likely the answer is to be right.
    pub fn signals(&self) -> Signals {
        let posterior: Vec<f32> = self
            .evidence
            .iter()
            .map(|passage| passage.posterior)
            .collect();
        Signals {
            log_likelihood: f64::from(self.log_likelihood),
            tokens: self.tokens.len(),
            entropy: entropy(&posterior),
        }
    }
}

/// log(p / (1 - p)) from log p, finite but for NaN: no p is nearer to 1 than f64 can tell it from 1, and none is 0.
pub fn log_odds(log_probability: f64) -> f64 {
    // Unlike `max`, it keeps NaN.
    let log_probability = log_probability.clamp(f64::from(f32::MIN), f64::MAX);
    log_probability - (-log_probability.exp_m1()).max(f64::EPSILON).ln()
}

/// The entropy of a distribution in nats; NaN where a probability is.
pub fn entropy(probabilities: &[f32]) -> f64 {
    let terms = probabilities.iter().map(|&p| f64::from(p));
    terms.filter(|&p| p != 0.0).map(|p| -p * p.ln()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_odds_are_finite_and_rise() {
        assert!((log_odds(0.75f64.ln()) - 3f64.ln()).abs() < 1e-12);
        let rising = [
            f64::NEG_INFINITY,
            -1e6,
            -800.0,
            -1.0,
            -1e-7,
            -1e-17,
            0.0,
            1e-6,
        ];
        let found = rising.map(log_odds);
        assert!(found.iter().all(|odds| odds.is_finite()), "{found:?}");
        assert!(found.is_sorted(), "{found:?}");
        assert!(log_odds(f64::NAN).is_nan());
    }

    #[test]
    fn confidence_by_hand() {
        let calibration = Calibration {
            bias: 0.5,
            likelihood: 2.0,
            tokens: 0.25,
            entropy: -1.0,
        };
        let answer = Signals {
            log_likelihood: 0.5f64.ln(),
            tokens: 4,
            entropy: 0.5,
        };
        // 0.5 + 2 · 0 + 0.25 · 4 - 0.5 = 1
        assert!((calibration.confidence(answer) - 1.0 / (1.0 + (-1f64).exp())).abs() < 1e-12);
        let impossible = Signals {
            log_likelihood: f64::NEG_INFINITY,
            ..answer
        };
        assert_eq!(calibration.confidence(impossible), 0.0);
        let unknown = Signals {
            log_likelihood: f64::NAN,
            ..answer
        };
        assert!(calibration.confidence(unknown).is_nan());
    }

    #[test]
    fn entropy_by_hand() {
        assert_eq!(entropy(&[1.0, 0.0]), 0.0);
        assert!((entropy(&[0.5, 0.25, 0.25]) - 1.5 * 2f64.ln()).abs() < 1e-12);
        assert_eq!(entropy(&[]), 0.0);
        assert!(entropy(&[f32::NAN, 0.5]).is_nan());
    }
}
