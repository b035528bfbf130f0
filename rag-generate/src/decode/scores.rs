use std::cmp::Ordering;

use rayon::prelude::*;

use super::error::DecodeError;
use super::next_token::NextToken;

/// Asks the model for the scores `[rows, V]` of the next tokens, and checks that they are scores.
pub(super) fn ask(
    model: &mut dyn NextToken,
    parents: &[usize],
    tokens: &[u32],
) -> Result<Vec<f32>, DecodeError> {
    let vocabulary = model.vocabulary();
    let scores = model.next(parents, tokens).map_err(DecodeError::Model)?;
    if scores.len() != parents.len() * vocabulary {
        return Err(DecodeError::ScoresShape {
            rows: parents.len(),
            vocabulary,
            found: scores.len(),
        });
    }
    let rows = scores.par_chunks_exact(vocabulary).enumerate();
    let invalid = rows.find_map_first(|(row, scores)| {
        // All of them without a branch first: as a rule there is none.
        let sound = scores
            .iter()
            .fold(true, |sound, &score| sound & (score < f32::INFINITY));
        let token = || {
            let mut scores = scores.iter();
            scores.position(|score| score.is_nan() || *score == f32::INFINITY)
        };
        if sound { None } else { Some((row, token()?)) }
    });
    match invalid {
        Some((row, token)) => Err(DecodeError::InvalidScore {
            row,
            token,
            value: scores[row * vocabulary + token],
        }),
        None => Ok(scores),
    }
}

/// ln Σ exp of the scores, summed in f64; -inf where all scores are.
pub(super) fn log_sum_exp(scores: &[f32]) -> f64 {
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if largest == f32::NEG_INFINITY {
        return f64::NEG_INFINITY;
    }
    let sum: f64 = scores
        .iter()
        .map(|&score| f64::from((score - largest).exp()))
        .sum();
    f64::from(largest) + sum.ln()
}

/// Turns scores into log-probabilities in place. Scores that are all -inf stay so.
pub(super) fn log_softmax(scores: &mut [f32]) {
    let total = log_sum_exp(scores);
    if total > f64::NEG_INFINITY {
        scores
            .iter_mut()
            .for_each(|score| *score = (f64::from(*score) - total) as f32);
    }
}

/// From so many on, inserting each into its place would move too many others.
const MANY: usize = 1024;

/// The `count` highest scores with their places, highest first and of equals the first; never a -inf, so there may be fewer.
///
/// One pass over the scores, of which all but a few are dismissed by a single comparison; where many are asked for, a sort.
pub(super) fn top_k(scores: impl IntoIterator<Item = f32>, count: usize) -> Vec<(usize, f32)> {
    if count > MANY {
        let scores = scores.into_iter().enumerate();
        let mut best: Vec<_> = scores
            .filter(|(_, score)| *score > f32::NEG_INFINITY)
            .collect();
        best.sort_by(|a, b| b.1.partial_cmp(&a.1).unwrap_or(Ordering::Equal));
        best.truncate(count);
        return best;
    }
    let mut best: Vec<(usize, f32)> = Vec::new();
    for (place, score) in scores.into_iter().enumerate() {
        let bar = if best.len() < count {
            f32::NEG_INFINITY
        } else {
            best.last().map_or(f32::INFINITY, |last| last.1)
        };
        if score > bar {
            let rank = best.partition_point(|other| other.1 >= score);
            best.truncate(count - 1);
            best.insert(rank, (place, score));
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: f32 = f32::NEG_INFINITY;

    #[test]
    fn log_softmax_is_a_distribution_even_of_extremes() {
        let mut scores = [1e6_f32, 1e6, -1e30, NONE];
        log_softmax(&mut scores);
        assert_eq!(scores[0], scores[1]);
        assert!((f64::from(scores[0]) + std::f64::consts::LN_2).abs() < 1e-6);
        assert_eq!(scores[3], NONE);

        let mut nothing = [NONE; 3];
        log_softmax(&mut nothing);
        assert_eq!(nothing, [NONE; 3]);
    }

    #[test]
    fn top_k_is_the_head_of_a_stable_sort() {
        for length in [200, 2 * MANY] {
            let scores: Vec<f32> = (0..length).map(|i| (i * 7919 % 31) as f32 - 15.0).collect();
            let mut sorted: Vec<(usize, f32)> = scores.iter().copied().enumerate().collect();
            sorted.sort_by(|a, b| b.1.total_cmp(&a.1));
            for count in [0, 1, 2, 50, 199, 200, 300, MANY, MANY + 1, 3 * MANY] {
                assert_eq!(
                    top_k(scores.iter().copied(), count),
                    sorted[..count.min(length)],
                    "{count}"
                );
            }
        }
    }

    #[test]
    fn top_k_never_takes_what_is_ruled_out() {
        assert_eq!(top_k([NONE, 1.0, NONE, 2.0], 3), [(3, 2.0), (1, 1.0)]);
        assert_eq!(
            top_k([NONE, 1.0, NONE, 2.0], MANY + 1),
            [(3, 2.0), (1, 1.0)]
        );
        assert!(top_k([NONE, NONE], 1).is_empty());
    }
}
