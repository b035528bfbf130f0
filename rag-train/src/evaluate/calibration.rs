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
        if judged.is_empty() {
            return Err(Error::NoExamples);
        }
        let upper: Vec<f64> = (1..=bins).map(|i| i as f64 / bins as f64).collect();
        let mut members: Vec<Vec<(f64, bool)>> = vec![Vec::new(); bins];
        for (row, &(confidence, right)) in judged.iter().enumerate() {
            if !(0.0..=1.0).contains(&confidence) {
                return Err(Error::Number {
                    what: "confidence",
                    row,
                    found: confidence,
                    expected: "0 to 1",
                });
            }
            let bin = upper.partition_point(|&upper| upper < confidence);
            members[bin].push((confidence, right));
        }
        let bins = members
            .iter()
            .enumerate()
            .filter(|(_, members)| !members.is_empty())
            .map(|(i, members)| {
                let count = members.len();
                let right = members.iter().filter(|(_, right)| *right).count();
                let confidences = members.iter().map(|(confidence, _)| confidence);
                ReliabilityBin {
                    lower: if i == 0 { 0.0 } else { upper[i - 1] },
                    upper: upper[i],
                    count,
                    confidence: confidences.sum::<f64>() / count as f64,
                    accuracy: right as f64 / count as f64,
                }
            })
            .collect();
        Ok(Self { bins })
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
    fn what_is_no_confidence_is_refused() {
        for wrong in [1.5, -0.1, f64::NAN] {
            let error = Reliability::of(&[(0.5, true), (wrong, true)], 10).unwrap_err();
            assert!(error.to_string().contains("confidence 1 is"), "{error}");
        }
        assert!(matches!(Reliability::of(&[], 10), Err(Error::NoExamples)));
        let error = Reliability::of(&[(0.5, true)], 0).unwrap_err();
        assert!(matches!(error, Error::Setting { .. }));
    }
}
