use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The risk-coverage curve: how many answers are wrong where the model answers only if it is sure (El-Yaniv and
/// Wiener 2010, Geifman and El-Yaniv 2017).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RiskCoverage {
    /// One for each confidence that occurs, highest first, so that coverage rises.
    pub points: Vec<RiskPoint>,
}

/// Answers of at least `threshold` are given, others are not.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RiskPoint {
    /// The least confidence that is answered.
    pub threshold: f64,
    /// The share of questions that are answered, above 0, to 1.
    pub coverage: f64,
    /// The share of given answers that are wrong, 0 to 1.
    pub risk: f64,
}

impl RiskCoverage {
    /// The curve of answers, each with its confidence and whether it was right. Confidences may be
    /// probabilities, logarithms or scores: only their order matters.
    ///
    /// # Errors
    /// [`Error::NoExamples`]; [`Error::Number`] for a confidence that is NaN.
    ///
    /// ```
    /// use rag_train::evaluate::RiskCoverage;
    ///
    /// let judged = [(0.9, true), (0.2, false), (0.7, true), (0.4, true)];
    /// let curve = RiskCoverage::of(&judged)?;
    /// let sure = curve.at_risk(0.1).ok_or("every threshold risks more")?;
    /// assert_eq!((sure.threshold, sure.coverage), (0.4, 0.75));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn of(judged: &[(f64, bool)]) -> Result<Self> {
        check_confidences(judged)?;
        let mut judged = judged.to_vec();
        judged.sort_by(|a, b| b.0.total_cmp(&a.0));
        let (mut answered, mut wrong) = (0, 0);
        let points = judged
            .chunk_by(|a, b| a.0 == b.0)
            .map(|equal| {
                answered += equal.len();
                wrong += equal.iter().filter(|(_, right)| !right).count();
                RiskPoint {
                    threshold: equal[0].0,
                    coverage: answered as f64 / judged.len() as f64,
                    risk: wrong as f64 / answered as f64,
                }
            })
            .collect();
        Ok(Self { points })
    }

    /// AURC, the area under the curve, 0 to 1, lower is better: the mean over all coverages 1/n, 2/n to
    /// 1 of the risk there. Answers of equal confidence cannot be told apart by a threshold and all
    /// have the risk of answering all of them.
    pub fn area(&self) -> f64 {
        let mut before = 0.0;
        let strips = self.points.iter().map(|point| {
            let width = point.coverage - before;
            before = point.coverage;
            width * point.risk
        });
        strips.sum()
    }

    /// The threshold that answers most questions with at most this risk; `None` where each risks more.
    /// It holds for the questions that it was chosen on; measure it on others.
    pub fn at_risk(&self, risk: f64) -> Option<&RiskPoint> {
        self.points.iter().rev().find(|point| point.risk <= risk)
    }

    /// The highest threshold that answers at least this share of questions; `None` for a share above 1. The accuracy
    /// of what is answered there is 1 less its risk.
    pub fn at_coverage(&self, coverage: f64) -> Option<&RiskPoint> {
        // 7 of 10 questions are 70 %, whatever 0.7 is in binary.
        self.points
            .iter()
            .find(|point| point.coverage >= coverage - 1e-9)
    }
}

/// Refuses no answers, and a confidence that is NaN.
pub(super) fn check_confidences(judged: &[(f64, bool)]) -> Result<()> {
    if judged.is_empty() {
        return Err(Error::NoExamples);
    }
    match judged
        .iter()
        .position(|(confidence, _)| confidence.is_nan())
    {
        None => Ok(()),
        Some(row) => Err(Error::Number {
            what: "confidence",
            row,
            found: f64::NAN,
            expected: "a number",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_curve_by_hand() {
        let judged = [(0.5, true), (0.9, true), (0.8, false), (0.1, false)];
        let curve = RiskCoverage::of(&judged).unwrap();
        let risks: Vec<_> = curve.points.iter().map(|point| point.risk).collect();
        assert_eq!(risks, [0.0, 0.5, 1.0 / 3.0, 0.5]);
        let coverages: Vec<_> = curve.points.iter().map(|point| point.coverage).collect();
        assert_eq!(coverages, [0.25, 0.5, 0.75, 1.0]);
        assert!((curve.area() - (0.0 + 0.5 + 1.0 / 3.0 + 0.5) / 4.0).abs() < 1e-12);
        assert_eq!(curve.at_risk(0.4).unwrap().threshold, 0.5);
        assert_eq!(curve.at_risk(0.0).unwrap().coverage, 0.25);
        assert_eq!(curve.at_risk(1.0).unwrap().coverage, 1.0);
        assert_eq!(curve.at_coverage(0.7).unwrap().threshold, 0.5);
        assert_eq!(curve.at_coverage(0.75).unwrap().threshold, 0.5);
        assert_eq!(curve.at_coverage(0.0).unwrap().threshold, 0.9);
        assert_eq!(curve.at_coverage(1.1), None);
    }

    #[test]
    fn equal_confidences_are_answered_together_in_any_order() {
        let judged = [(-1.0, true), (-1.0, false), (-3.0, true)];
        let mut turned = judged;
        turned.reverse();
        let curve = RiskCoverage::of(&judged).unwrap();
        assert_eq!(curve, RiskCoverage::of(&turned).unwrap());
        assert_eq!(curve.points.len(), 2);
        assert!((curve.area() - (2.0 / 3.0 * 0.5 + 1.0 / 3.0 * 1.0 / 3.0)).abs() < 1e-12);
        assert_eq!(curve.at_risk(0.2), None);
        // -0 and 0 are one confidence.
        let zeros = RiskCoverage::of(&[(0.0, true), (-0.0, false)]).unwrap();
        assert_eq!(zeros.points.len(), 1);
    }

    #[test]
    fn the_right_order_has_the_least_area() {
        let right_first = [(3.0, true), (2.0, true), (1.0, false)];
        let wrong_first = right_first.map(|(confidence, right)| (-confidence, right));
        let area = |judged: &[(f64, bool)]| RiskCoverage::of(judged).unwrap().area();
        assert!(area(&right_first) < area(&wrong_first));
        assert_eq!(area(&[(0.3, true), (0.2, true)]), 0.0);
        assert_eq!(area(&[(0.3, false), (0.2, false)]), 1.0);
    }

    #[test]
    fn nan_is_no_confidence() {
        let error = RiskCoverage::of(&[(0.5, true), (f64::NAN, true)]).unwrap_err();
        assert!(error.to_string().contains("confidence 1 is NaN"), "{error}");
        assert!(matches!(RiskCoverage::of(&[]), Err(Error::NoExamples)));
    }
}
