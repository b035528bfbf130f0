use super::abstain::check_confidences;
use crate::error::Result;

/// AUROC, the area under the receiver operating characteristic: how likely it is that of a right and a wrong answer,
/// drawn at random, the right one has the higher confidence; equal confidences count half (Hanley and McNeil 1982). 0.5
/// is chance, 1 a confidence that tells all right answers from all wrong ones. `None` where all are right, or all wrong.
///
/// Confidences may be probabilities, logarithms or scores: only their order matters.
///
/// ```
/// use rag_train::evaluate::auroc;
///
/// // Of four pairs, three are in order.
/// let judged = [(0.9, true), (0.6, false), (0.4, true), (0.2, false)];
/// assert_eq!(auroc(&judged)?, Some(0.75));
/// # Ok::<(), rag_train::Error>(())
/// ```
///
/// # Errors
/// [`Error::NoExamples`](crate::Error::NoExamples); [`Error::Number`](crate::Error::Number) for a confidence that is NaN.
pub fn auroc(judged: &[(f64, bool)]) -> Result<Option<f64>> {
    check_confidences(judged)?;
    let mut judged = judged.to_vec();
    judged.sort_by(|a, b| a.0.total_cmp(&b.0));
    // Twice the pairs in order, so that halves stay whole numbers.
    let (mut wrong, mut right, mut in_order) = (0_u64, 0_u64, 0_u64);
    for equal in judged.chunk_by(|a, b| a.0 == b.0) {
        let of_right = equal.iter().filter(|(_, right)| *right).count() as u64;
        let of_wrong = equal.len() as u64 - of_right;
        in_order += of_right * (2 * wrong + of_wrong);
        right += of_right;
        wrong += of_wrong;
    }
    let pairs = right * wrong;
    Ok((pairs > 0).then(|| in_order as f64 / (2 * pairs) as f64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn every_pair_counted() {
        let judged: Vec<_> = (0..60_i32)
            .map(|i| (f64::from(i * i * 7 % 23), i * 5 % 11 < 4))
            .collect();
        let (mut sum, mut pairs) = (0.0, 0.0);
        for right in judged.iter().filter(|one| one.1) {
            for wrong in judged.iter().filter(|one| !one.1) {
                pairs += 1.0;
                sum += match right.0.total_cmp(&wrong.0) {
                    std::cmp::Ordering::Greater => 1.0,
                    std::cmp::Ordering::Equal => 0.5,
                    std::cmp::Ordering::Less => 0.0,
                };
            }
        }
        let found = auroc(&judged).unwrap().unwrap();
        assert!((found - sum / pairs).abs() < 1e-12);
        let turned: Vec<_> = judged.iter().map(|&(c, right)| (-c, right)).collect();
        assert!((auroc(&turned).unwrap().unwrap() - (1.0 - found)).abs() < 1e-12);
    }

    #[test]
    fn perfect_equal_and_one_sided() {
        assert_eq!(auroc(&[(-1.0, false), (0.0, true)]).unwrap(), Some(1.0));
        assert_eq!(auroc(&[(0.5, false), (0.5, true)]).unwrap(), Some(0.5));
        assert_eq!(auroc(&[(-0.0, false), (0.0, true)]).unwrap(), Some(0.5));
        assert_eq!(auroc(&[(0.5, true), (0.6, true)]).unwrap(), None);
        assert_eq!(auroc(&[(0.5, false)]).unwrap(), None);
        assert!(matches!(auroc(&[]), Err(Error::NoExamples)));
        assert!(auroc(&[(f64::NAN, true)]).is_err());
    }
}
