//! A [`Calibration`] fitted to judged answers: logistic regression of few numbers.

use ndarray::{Array1, Array2, Axis, concatenate};
use rag_generate::{Calibration, Signals};

use crate::error::{Error, Result};

/// The ridge: half of it times the square of each weight, of signals of standard deviation 1, is added to the loss. It
/// is little against some dozens of answers, and decides where they do not.
const RIDGE: f64 = 1.0;

/// Newton steps at most; some ten are usual.
const STEPS: usize = 100;

/// Fits the probability that an answer is right to its [`Signals`], by answers that were judged: log P(y|x), the number
/// of tokens and the entropy of P(z|x,y) in one logistic model.
///
/// It minimises the cross-entropy, with a small ridge, by Newton's method. The targets are Platt's (1999, section 2.2):
/// of n₊ right and n₋ wrong answers, the right ones count as (n₊ + 1) / (n₊ + 2), the wrong ones as 1 / (n₋ + 2). So the
/// weights are finite where a signal tells right from wrong without a mistake, and n answers that are all right give
/// each a confidence of (n + 1) / (n + 2). A signal that is the same for all answers has weight 0. The order
/// of the answers does not matter but for rounding.
///
/// ```
/// use rag_generate::Signals;
/// use rag_train::evaluate::calibrate;
///
/// let signals = |p: f64| Signals { log_likelihood: p.ln(), tokens: 3, entropy: 0.2 };
/// let judged: Vec<_> = (1..100).map(|i| (signals(f64::from(i) / 100.0), i % 10 + 20 < i)).collect();
/// let calibration = calibrate(&judged)?;
/// assert!(calibration.confidence(signals(0.9)) > 0.9);
/// assert!(calibration.confidence(signals(0.1)) < 0.2);
/// # Ok::<(), rag_train::Error>(())
/// ```
///
/// # Errors
/// [`Error::NoExamples`]; [`Error::Number`] for a signal that is not finite, or a positive log P(y|x).
pub fn calibrate(judged: &[(Signals, bool)]) -> Result<Calibration> {
    calibrate_by(judged, [true; 3])
}

/// Like [`calibrate`], by those [values](Signals::values) alone that are `used`; the others have weight 0.
pub(super) fn calibrate_by(judged: &[(Signals, bool)], used: [bool; 3]) -> Result<Calibration> {
    check(judged)?;
    let right: Vec<bool> = judged.iter().map(|(_, right)| *right).collect();
    let values = Array2::from_shape_fn((judged.len(), 3), |(row, signal)| {
        if used[signal] {
            judged[row].0.values()[signal]
        } else {
            0.0
        }
    });
    let (bias, weights) = logistic(values, &right);
    Ok(Calibration {
        bias,
        likelihood: weights[0],
        tokens: weights[1],
        entropy: weights[2],
    })
}

fn check(judged: &[(Signals, bool)]) -> Result<()> {
    if judged.is_empty() {
        return Err(Error::NoExamples);
    }
    for (row, (signals, _)) in judged.iter().enumerate() {
        let number = |what, found, expected| {
            Err(Error::Number {
                what,
                row,
                found,
                expected,
            })
        };
        // Sums of rounded probabilities may exceed 1 a little.
        if !(f64::MIN..=1e-3).contains(&signals.log_likelihood) {
            let expected = "a finite number of at most 0";
            return number("log-probability", signals.log_likelihood, expected);
        }
        if !signals.entropy.is_finite() {
            return number("entropy", signals.entropy, "a finite number");
        }
    }
    Ok(())
}

/// Bias and weights of a logistic model of `values` `[answers, signals]`.
fn logistic(values: Array2<f64>, right: &[bool]) -> (f64, Array1<f64>) {
    let answers = right.len() as f64;
    // Signals of mean 0 and standard deviation 1, so that the ridge means the same for each.
    let mean = values.sum_axis(Axis(0)) / answers;
    let mut centred = values - &mean;
    let deviation = (&centred * &centred).sum_axis(Axis(0)) / answers;
    let deviation = deviation.mapv(f64::sqrt);
    // A signal that is constant but for rounding stays out.
    let scale = Array1::from_iter(mean.iter().zip(&deviation).map(|(mean, deviation)| {
        if *deviation > 1e-9 * mean.abs().max(1e-9) {
            1.0 / deviation
        } else {
            0.0
        }
    }));
    centred *= &scale;
    let targets = platt(right);
    // The bias is the last weight, of a column of ones.
    let ones = Array2::ones((right.len(), 1));
    let rows = concatenate![Axis(1), centred, ones];
    let fitted = newton(&rows, &targets);
    let (weights, bias) = fitted.view().split_at(Axis(0), fitted.len() - 1);
    let weights = &weights * &scale;
    (bias[0] - weights.dot(&mean), weights)
}

/// The targets of right and wrong answers.
fn platt(right: &[bool]) -> Array1<f64> {
    let all_right = right.iter().filter(|right| **right).count() as f64;
    let all_wrong = right.len() as f64 - all_right;
    let of_right = (all_right + 1.0) / (all_right + 2.0);
    let of_wrong = 1.0 / (all_wrong + 2.0);
    (right.iter())
        .map(|&right| if right { of_right } else { of_wrong })
        .collect()
}

/// The weights of `rows` `[answers, weights]` with the least loss.
fn newton(rows: &Array2<f64>, targets: &Array1<f64>) -> Array1<f64> {
    let mut weights = Array1::zeros(rows.ncols());
    let mut before = loss(rows, targets, &weights);
    for _ in 0..STEPS {
        let probabilities = rows.dot(&weights).mapv(sigmoid);
        let gradient = gradient(rows, targets, &weights);
        if gradient
            .iter()
            .all(|slope| slope.abs() < 1e-10 * targets.len() as f64)
        {
            break;
        }
        let curvature = probabilities.mapv(|p| p * (1.0 - p));
        let mut hessian = rows.t().dot(&(rows * &curvature.insert_axis(Axis(1))));
        for signal in 0..rows.ncols() - 1 {
            hessian[[signal, signal]] += RIDGE;
        }
        let direction = solve(hessian, &gradient);
        // The loss is convex: a step that is short enough lowers it, but for rounding.
        let step = (0..50)
            .map(|halvings| 0.5f64.powi(halvings))
            .find_map(|length| {
                let tried = &weights - &(length * &direction);
                let after = loss(rows, targets, &tried);
                (after <= before * (1.0 + 1e-12)).then_some((tried, after))
            });
        let Some((tried, after)) = step else { break };
        (weights, before) = (tried, after);
    }
    weights
}

/// The cross-entropy with the ridge.
fn loss(rows: &Array2<f64>, targets: &Array1<f64>, weights: &Array1<f64>) -> f64 {
    let log_odds = rows.dot(weights);
    let entropies = log_odds.iter().zip(targets).map(|(&log_odds, target)| {
        log_odds.max(0.0) + (-log_odds.abs()).exp().ln_1p() - target * log_odds
    });
    let signals = weights.iter().take(weights.len() - 1);
    entropies.sum::<f64>() + RIDGE / 2.0 * signals.map(|weight| weight * weight).sum::<f64>()
}

/// The gradient of the [`loss`].
fn gradient(rows: &Array2<f64>, targets: &Array1<f64>, weights: &Array1<f64>) -> Array1<f64> {
    let mut gradient = rows.t().dot(&(rows.dot(weights).mapv(sigmoid) - targets));
    let bias = weights.len() - 1;
    for signal in 0..bias {
        gradient[signal] += RIDGE * weights[signal];
    }
    gradient
}

fn sigmoid(log_odds: f64) -> f64 {
    1.0 / (1.0 + (-log_odds).exp())
}

/// x of A x = b for a positive definite A, by Cholesky's L Lᵀ = A.
fn solve(mut a: Array2<f64>, b: &Array1<f64>) -> Array1<f64> {
    let n = b.len();
    for i in 0..n {
        for j in 0..=i {
            let known = (0..j).map(|k| a[[i, k]] * a[[j, k]]).sum::<f64>();
            let rest = a[[i, j]] - known;
            a[[i, j]] = if i == j {
                // A bias that rounding takes for certain has no curvature left.
                rest.max(f64::MIN_POSITIVE).sqrt()
            } else {
                rest / a[[j, j]]
            };
        }
    }
    let mut x = b.clone();
    for i in 0..n {
        let known = (0..i).map(|j| a[[i, j]] * x[j]).sum::<f64>();
        x[i] = (x[i] - known) / a[[i, i]];
    }
    for i in (0..n).rev() {
        let known = (i + 1..n).map(|j| a[[j, i]] * x[j]).sum::<f64>();
        x[i] = (x[i] - known) / a[[i, i]];
    }
    x
}

#[cfg(test)]
mod tests {
    use rag_generate::calibration::log_odds;

    use super::*;

    fn signals(log_likelihood: f64, tokens: usize, entropy: f64) -> Signals {
        Signals {
            log_likelihood,
            tokens,
            entropy,
        }
    }

    /// Answers whose signals tell something of whether they are right, by a fixed sequence.
    fn judged() -> Vec<(Signals, bool)> {
        let mut state = 1_u64;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 40) as f64 / (1_u64 << 24) as f64
        };
        (0..80)
            .map(|_| {
                let of = signals(-3.0 * next(), 1 + (9.0 * next()) as usize, 1.6 * next());
                let odds = log_odds(of.log_likelihood) - of.entropy + 0.2 * of.tokens as f64;
                (of, next() < sigmoid(odds))
            })
            .collect()
    }

    /// The loss by its definition: cross-entropy with Platt's targets, and the ridge on weights of signals of standard
    /// deviation 1.
    fn loss_by_definition(judged: &[(Signals, bool)], model: [f64; 4]) -> f64 {
        let [bias, weights @ ..] = model;
        let n = judged.len() as f64;
        let right = judged.iter().filter(|(_, right)| *right).count() as f64;
        let mut loss = 0.0;
        for (of, is_right) in judged {
            let values = of.values();
            let odds: f64 = bias + (0..3).map(|i| weights[i] * values[i]).sum::<f64>();
            let p = 1.0 / (1.0 + (-odds).exp());
            let target = match is_right {
                true => (right + 1.0) / (right + 2.0),
                false => 1.0 / (n - right + 2.0),
            };
            loss -= target * p.ln() + (1.0 - target) * (1.0 - p).ln();
        }
        for (i, weight) in weights.into_iter().enumerate() {
            let mean = judged.iter().map(|(of, _)| of.values()[i]).sum::<f64>() / n;
            let square = |(of, _): &(Signals, bool)| (of.values()[i] - mean).powi(2);
            let variance = judged.iter().map(square).sum::<f64>() / n;
            loss += 0.5 * RIDGE * weight.powi(2) * variance;
        }
        loss
    }

    fn model(calibration: Calibration) -> [f64; 4] {
        let Calibration {
            bias,
            likelihood,
            tokens,
            entropy,
        } = calibration;
        [bias, likelihood, tokens, entropy]
    }

    #[test]
    fn the_slope_of_the_loss_is_zero_and_no_neighbour_is_lower() {
        let judged = judged();
        let fitted = model(calibrate(&judged).unwrap());
        let least = loss_by_definition(&judged, fitted);
        for i in 0..4 {
            let at = |step: f64| {
                let mut model = fitted;
                model[i] += step;
                loss_by_definition(&judged, model)
            };
            let slope = (at(1e-4) - at(-1e-4)) / 2e-4;
            assert!(slope.abs() < 1e-5, "{i}: {slope}");
            for step in [-1.0, -0.1, -0.01, 0.01, 0.1, 1.0] {
                assert!(at(step) > least, "{i}: {step}");
            }
        }
        assert!(fitted[1] > 0.0 && fitted[3] < 0.0, "{fitted:?}");
    }

    #[test]
    fn one_signal_alone_is_where_a_fine_grid_finds_it() {
        let judged = judged();
        let fitted = calibrate_by(&judged, [false, false, true]).unwrap();
        assert_eq!((fitted.likelihood, fitted.tokens), (0.0, 0.0));
        let mut best = (f64::INFINITY, 0.0, 0.0);
        for i in -75..=75 {
            for j in -75..=75 {
                let (bias, entropy) = (f64::from(i) / 50.0, f64::from(j) / 50.0);
                let loss = loss_by_definition(&judged, [bias, 0.0, 0.0, entropy]);
                if loss < best.0 {
                    best = (loss, bias, entropy);
                }
            }
        }
        let (_, bias, entropy) = best;
        assert!((fitted.bias - bias).abs() <= 0.02, "{fitted:?} {best:?}");
        assert!(
            (fitted.entropy - entropy).abs() <= 0.02,
            "{fitted:?} {best:?}"
        );
    }

    #[test]
    fn answers_that_are_all_right_or_all_wrong_follow_the_rule_of_succession() {
        for right in [true, false] {
            let judged: Vec<_> = judged().iter().map(|(of, _)| (*of, right)).collect();
            let calibration = calibrate(&judged).unwrap();
            let expected = if right { 81.0 / 82.0 } else { 1.0 / 82.0 };
            for (of, _) in judged {
                let found = calibration.confidence(of);
                assert!((found - expected).abs() < 1e-9, "{found}");
            }
        }
    }

    #[test]
    fn signals_without_mistakes_copies_and_constants_have_finite_weights() {
        // P(y|x) and entropy are one signal, twice; the number of tokens is the same for all.
        let judged: Vec<_> = (0..20)
            .map(|i| (signals(-0.7 - f64::from(i), 2, f64::from(i)), i < 10))
            .collect();
        let calibration = calibrate(&judged).unwrap();
        assert!(model(calibration).iter().all(|weight| weight.is_finite()));
        assert_eq!(calibration.tokens, 0.0);
        for (of, right) in &judged {
            assert_eq!(calibration.confidence(*of) > 0.5, *right, "{of:?}");
        }
        // A single answer has signals that are all constant.
        let one = calibrate(&judged[..1]).unwrap();
        assert!((one.confidence(judged[0].0) - 2.0 / 3.0).abs() < 1e-9);
        assert_eq!(one.likelihood, 0.0);
    }

    #[test]
    fn order_does_not_matter_and_extremes_are_numbers() {
        let mut judged = judged();
        judged.push((signals(-1e30, 100_000, 0.0), false));
        judged.push((signals(0.0, 1, 0.0), true));
        let forwards = calibrate(&judged).unwrap();
        judged.reverse();
        let backwards = calibrate(&judged).unwrap();
        for (of, _) in judged {
            let (one, other) = (forwards.confidence(of), backwards.confidence(of));
            assert!((one - other).abs() < 1e-6, "{one} {other}");
        }
    }

    #[test]
    fn what_is_no_signal_is_refused() {
        assert!(matches!(calibrate(&[]), Err(Error::NoExamples)));
        let good = (signals(-1.0, 1, 0.0), true);
        for wrong in [f64::NAN, f64::NEG_INFINITY, 0.5] {
            let error = calibrate(&[good, (signals(wrong, 1, 0.0), true)]).unwrap_err();
            assert!(error.to_string().contains("log-probability 1"), "{error}");
        }
        let error = calibrate(&[(signals(-1.0, 1, f64::NAN), true)]).unwrap_err();
        assert!(error.to_string().contains("entropy 0 is NaN"), "{error}");
    }
}
