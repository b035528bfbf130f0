use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How often answers of like confidence were right: a reliability curve (Guo et al. 2017, section 2).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reliability {
    /// Lowest confidence first. A bin that no answer fell into is left out.
    pub bins: Vec<ReliabilityBin>,
}

/// Answers with a confidence above `lower` and at most `upper`; in the lowest bin, also 0 itself.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReliabilityBin {
    /// Its lower edge, itself outside but for 0.
    pub lower: f64,
    /// Its upper edge, itself inside.
    pub upper: f64,
    /// Answers, at least one.
    pub count: usize,
    /// Their mean confidence.
    pub confidence: f64,
    /// The share of them that was right.
    pub accuracy: f64,
}

impl Reliability {
    /// Sorts answers, each with its confidence (0 to 1) and whether it was right, into bins of equal
    /// width between 0 and 1. Fifteen are usual.
    ///
    /// # Errors
    /// [`Error::NoExamples`]; [`Error::Setting`] for no bins; [`Error::Number`] for a confidence that is
    /// not within 0 and 1.
    ///
    /// ```
    /// use rag_train::evaluate::Reliability;
    ///
    /// let judged = [(0.9, true), (0.8, false), (0.3, false), (0.2, true)];
    /// let curve = Reliability::of(&judged, 2)?;
    /// assert_eq!(curve.bins[1].accuracy, 0.5);
    /// // 2/4 · |0.25 - 0.5| + 2/4 · |0.85 - 0.5|
    /// assert!((curve.expected_calibration_error() - 0.3).abs() < 1e-12);
    /// # Ok::<(), rag_train::Error>(())
    /// ```
    pub fn of(judged: &[(f64, bool)], bins: usize) -> Result<Self> {
        if bins == 0 {
            return Err(Error::setting("bins", bins, "at least 1"));
        }
        check_probabilities(judged)?;
        let upper: Vec<f64> = (1..=bins).map(|i| i as f64 / bins as f64).collect();
        let mut members: Vec<Vec<(f64, bool)>> = vec![Vec::new(); bins];
        for &(confidence, right) in judged {
            let bin = upper.partition_point(|&upper| upper < confidence);
            members[bin].push((confidence, right));
        }
        let bins = members
            .iter()
            .enumerate()
            .filter(|(_, members)| !members.is_empty())
            .map(|(i, members)| {
                let lower = if i == 0 { 0.0 } else { upper[i - 1] };
                ReliabilityBin::of(lower, upper[i], members)
            })
            .collect();
        Ok(Self { bins })
    }

    /// Sorts answers like [`Reliability::of`], into bins of equal mass: each has as many answers as the next, but for
    /// one, and for answers of equal confidence, which stay together. No bin hangs on a few answers, as those of equal
    /// width do where most answers are sure. Fewer bins come back where there are fewer confidences.
    ///
    /// # Errors
    /// Those of [`Reliability::of`].
    pub fn of_equal_mass(judged: &[(f64, bool)], bins: usize) -> Result<Self> {
        if bins == 0 {
            return Err(Error::setting("bins", bins, "at least 1"));
        }
        check_probabilities(judged)?;
        let mut judged = judged.to_vec();
        judged.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (mut found, mut begin, mut lower) = (Vec::new(), 0, 0.0);
        for bin in 1..=bins {
            // Where the bin would end, and on to the last answer of the same confidence.
            let end = bin * judged.len() / bins;
            if end <= begin {
                continue;
            }
            let upper = judged[end - 1].0;
            let end = begin + judged[begin..].partition_point(|answer| answer.0 <= upper);
            found.push(ReliabilityBin::of(lower, upper, &judged[begin..end]));
            (begin, lower) = (end, upper);
        }
        Ok(Self { bins: found })
    }

    /// Expected calibration error, 0 to 1: the distance between accuracy and mean confidence, averaged
    /// over answers, each standing for its bin (Guo et al. 2017, equation 3).
    pub fn expected_calibration_error(&self) -> f64 {
        let answers: usize = self.bins.iter().map(|bin| bin.count).sum();
        let distance =
            |bin: &ReliabilityBin| bin.count as f64 * (bin.accuracy - bin.confidence).abs();
        self.bins.iter().map(distance).sum::<f64>() / answers.max(1) as f64
    }
}

impl ReliabilityBin {
    /// The bin of these answers, at least one.
    fn of(lower: f64, upper: f64, members: &[(f64, bool)]) -> Self {
        let count = members.len();
        let right = members.iter().filter(|(_, right)| *right).count();
        let confidences = members.iter().map(|(confidence, _)| confidence);
        Self {
            lower,
            upper,
            count,
            confidence: confidences.sum::<f64>() / count as f64,
            accuracy: right as f64 / count as f64,
        }
    }
}

/// The Brier score of answers, each with its confidence (0 to 1) and whether it was right: the mean square of their
/// distance, 0 to 1, lower is better (Brier 1950). It is low for confidences that are calibrated and tell right from
/// wrong.
///
/// ```
/// use rag_train::evaluate::brier;
///
/// // (0.1² + 0.8²) / 2
/// assert!((brier(&[(0.9, true), (0.8, false)])? - 0.325).abs() < 1e-12);
/// # Ok::<(), rag_train::Error>(())
/// ```
///
/// # Errors
/// [`Error::NoExamples`]; [`Error::Number`] for a confidence that is not within 0 and 1.
pub fn brier(judged: &[(f64, bool)]) -> Result<f64> {
    check_probabilities(judged)?;
    let squares = judged.iter().map(|&(confidence, right)| {
        let distance = confidence - f64::from(u8::from(right));
        distance * distance
    });
    Ok(squares.sum::<f64>() / judged.len() as f64)
}

/// Refuses no answers, and what is no probability.
fn check_probabilities(judged: &[(f64, bool)]) -> Result<()> {
    if judged.is_empty() {
        return Err(Error::NoExamples);
    }
    let is_wrong = |(confidence, _): &(f64, bool)| !(0.0..=1.0).contains(confidence);
    match judged.iter().position(is_wrong) {
        None => Ok(()),
        Some(row) => Err(Error::Number {
            what: "confidence",
            row,
            found: judged[row].0,
            expected: "0 to 1",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_belongs_to_the_bin_below() {
        let judged = [
            (0.0, false),
            (0.25, true),
            (0.26, true),
            (0.5, false),
            (1.0, true),
        ];
        let curve = Reliability::of(&judged, 4).unwrap();
        let counts: Vec<_> = curve
            .bins
            .iter()
            .map(|bin| (bin.lower, bin.upper, bin.count, bin.accuracy))
            .collect();
        assert_eq!(
            counts,
            [
                (0.0, 0.25, 2, 0.5),
                (0.25, 0.5, 2, 0.5),
                (0.75, 1.0, 1, 1.0)
            ]
        );
        assert_eq!(curve.bins[0].confidence, 0.125);
        // 2/5 · 0.375 + 2/5 · 0.12 + 1/5 · 0
        assert!((curve.expected_calibration_error() - 0.198).abs() < 1e-12);
    }

    #[test]
    fn one_bin_compares_the_means_and_sure_mistakes_cost_1() {
        let judged = [(0.2, true), (0.6, false)];
        let curve = Reliability::of(&judged, 1).unwrap();
        assert!((curve.expected_calibration_error() - 0.1).abs() < 1e-12);
        let wrong = Reliability::of(&[(1.0, false), (0.0, true)], 10).unwrap();
        assert_eq!(wrong.expected_calibration_error(), 1.0);
        let right = Reliability::of(&[(1.0, true), (0.0, false)], 10).unwrap();
        assert_eq!(right.expected_calibration_error(), 0.0);
    }

    #[test]
    fn bins_of_equal_mass_by_hand() {
        let judged = [
            (0.1, false),
            (0.2, true),
            (0.9, true),
            (0.8, false),
            (0.8, true),
            (0.95, true),
        ];
        let mut turned = judged;
        turned.reverse();
        let curve = Reliability::of_equal_mass(&judged, 3).unwrap();
        assert_eq!(curve, Reliability::of_equal_mass(&turned, 3).unwrap());
        let bins: Vec<_> = (curve.bins.iter())
            .map(|bin| (bin.lower, bin.upper, bin.count, bin.accuracy))
            .collect();
        let expected = [(0.0, 0.2, 2, 0.5), (0.2, 0.8, 2, 0.5), (0.8, 0.95, 2, 1.0)];
        assert_eq!(bins, expected);
        // 1/3 · (0.35 + 0.3 + 0.075)
        assert!((curve.expected_calibration_error() - 0.725 / 3.0).abs() < 1e-12);
        // Equal confidences are not divided, whatever the number of bins.
        let equal = Reliability::of_equal_mass(&[(0.5, true); 7], 3).unwrap();
        assert_eq!(equal.bins.len(), 1);
        assert_eq!(equal.bins[0].count, 7);
        let many = Reliability::of_equal_mass(&judged, 100).unwrap();
        assert_eq!(many.bins.len(), 5);
        assert_eq!(many.bins.iter().map(|bin| bin.count).sum::<usize>(), 6);
        let zero = Reliability::of_equal_mass(&[(0.0, false), (1.0, true)], 2).unwrap();
        assert_eq!(zero.expected_calibration_error(), 0.0);
    }

    #[test]
    fn brier_of_sure_answers_is_the_share_that_is_wrong() {
        assert_eq!(
            brier(&[(1.0, true), (1.0, false), (0.0, false)]).unwrap(),
            1.0 / 3.0
        );
        assert_eq!(brier(&[(0.5, true), (0.5, false)]).unwrap(), 0.25);
    }

    #[test]
    fn what_is_no_confidence_is_refused() {
        for wrong in [1.5, -0.1, f64::NAN] {
            let error = Reliability::of(&[(0.5, true), (wrong, true)], 10).unwrap_err();
            assert!(error.to_string().contains("confidence 1 is"), "{error}");
            assert!(Reliability::of_equal_mass(&[(wrong, true)], 10).is_err());
            assert!(brier(&[(wrong, true)]).is_err());
        }
        assert!(matches!(brier(&[]), Err(Error::NoExamples)));
        assert!(matches!(
            Reliability::of_equal_mass(&[], 3),
            Err(Error::NoExamples)
        ));
        assert!(Reliability::of_equal_mass(&[(0.5, true)], 0).is_err());
        assert!(matches!(Reliability::of(&[], 10), Err(Error::NoExamples)));
        let error = Reliability::of(&[(0.5, true)], 0).unwrap_err();
        assert!(matches!(error, Error::Setting { .. }));
    }
}
