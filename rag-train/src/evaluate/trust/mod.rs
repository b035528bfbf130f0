//! How far a model's answers can be trusted: the confidences, abstention and provenance of held-out answers.

mod print;
#[cfg(test)]
mod tests;

use rag_generate::{Answer, Calibration, Signals};
use serde::{Deserialize, Serialize};

use super::{
    abstain::RiskCoverage,
    asked::{Asked, is_right},
    auroc::auroc,
    calibrate::{calibrate, calibrate_by},
    calibration::{Reliability, brier},
    provenance::Provenance,
    temperature::Temperature,
};
use crate::error::Result;

/// Bins of equal mass of a calibration error.
const BINS: usize = 10;

/// Shares of questions that a threshold answers.
const COVERAGES: [f64; 6] = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5];

/// The coverage whose accuracy stands beside the other measures of a confidence.
const COVERAGE: f64 = 0.7;

/// How far the answers of a model can be trusted: confidences fitted on some questions and measured on others.
///
/// It prints itself as Markdown, is JSON through serde, and is a page with charts by [`Trust::to_html`].
/// [`Trust::calibration`] is for [`Rag::with_calibration`](rag_generate::Rag::with_calibration).
///
/// ```no_run
/// use rag_generate::Rag;
/// use rag_train::{
///     QuestionAnswer,
///     evaluate::{Asked, Trust},
/// };
///
/// # fn run(rag: Rag, heldout: Vec<QuestionAnswer>) -> Result<(), Box<dyn std::error::Error>> {
/// let mut asked = Vec::new();
/// for pair in heldout {
///     let answer = rag.ask(&pair.question)?;
///     let mut question = Asked::new(pair, answer);
///     // Three more answers: without the right passage, and without one of those retrieved.
///     question.remove_passages(&rag)?;
///     question.leave_out(&rag)?;
///     asked.push(question);
/// }
/// let (fit, measure) = asked.split_at(asked.len() / 2);
/// let trust = Trust::of(fit, measure)?;
/// println!("{trust}");
/// trust.write_html("Held-out questions", "trust.html")?;
/// rag.with_calibration(trust.calibration()).save("calibrated")?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trust {
    /// Questions that confidences and thresholds were fitted to.
    pub fitted: usize,
    /// Questions that everything below was measured on.
    pub measured: usize,
    /// The share of them with an exact answer.
    pub exact_match: f64,
    /// One for each [`ConfidenceKind`], in their order.
    pub confidences: Vec<Confidence>,
    /// Of P(z|x,y), where the right passage was retrieved for questions of both parts.
    pub documents: Option<DocumentTrust>,
    /// The share of questions that are answered right though the passages that hold the answer were
    /// [removed](Asked::remove_passages), over the questions for which that is known.
    pub right_without_passage: Option<f64>,
    /// Of the answers.
    pub provenance: Provenance,
}

/// The signals that a confidence is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConfidenceKind {
    /// P(y|x) as it is.
    Probability,
    /// P(y|x) with a [`Temperature`].
    Temperature,
    /// The entropy of P(z|x,y) alone, in a logistic model.
    Entropy,
    /// P(y|x), the number of tokens and the entropy of P(z|x,y), in a logistic model.
    All,
}

/// A confidence on the questions that it was not fitted to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Confidence {
    /// Its signals.
    pub kind: ConfidenceKind,
    /// Its weights.
    pub calibration: Calibration,
    /// The reliability curve, in ten bins of equal mass.
    pub reliability: Reliability,
    /// Expected calibration error over these bins.
    pub calibration_error: f64,
    /// The Brier score.
    pub brier: f64,
    /// AUROC of right against wrong answers; `None` where all are right, or all wrong.
    pub auroc: Option<f64>,
    /// The risk-coverage curve.
    pub risk_coverage: RiskCoverage,
    /// The area under it.
    pub area: f64,
    /// Abstention at thresholds that answer 100 % to 50 % of the questions that were fitted to.
    pub abstention: Vec<Abstention>,
    /// AUROC of answers with their passages against those where the passages that hold the answer were removed, over
    /// the questions for which that is known.
    pub auroc_removed: Option<f64>,
}

/// The effect of answering only with a confidence of at least a threshold.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Abstention {
    /// The share of the fitted questions that it answers at least.
    pub wanted: f64,
    /// The threshold, for [`Threshold::Confidence`](rag_generate::Threshold::Confidence).
    pub threshold: f64,
    /// The share of the measured questions that it answers.
    pub coverage: f64,
    /// The share of these answers that are exact; `None` where there are none.
    pub exact_match: Option<f64>,
    /// The share of questions that it abstains from where the passages that hold the answer were removed; `None` where
    /// that is not known.
    pub abstained_removed: Option<f64>,
}

/// How far P(z|x,y) can be trusted: the passage of the highest, and whether it is the right one. Of questions for which
/// the right passage was retrieved.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DocumentTrust {
    /// Questions that it was measured on.
    pub questions: usize,
    /// The share of them for which the passage of the highest P(z|x,y) is right.
    pub accuracy: f64,
    /// The temperature that was fitted.
    pub temperature: Temperature,
    /// Expected calibration error as it is, over ten bins of equal mass.
    pub before: f64,
    /// The same with the temperature.
    pub after: f64,
}

impl Trust {
    /// Fits confidences, thresholds and temperatures to the questions of `fit`, and measures them on those of `measure`,
    /// which should be others: halves of a held-out set, apart by document where several questions are of one.
    ///
    /// # Errors
    /// [`Error::NoExamples`](crate::Error::NoExamples) where either is empty;
    /// [`Error::Number`](crate::Error::Number) for an answer without a finite log P(y|x).
    pub fn of(fit: &[Asked], measure: &[Asked]) -> Result<Self> {
        let fitted = judged(fit);
        let log_likelihoods: Vec<_> = (fitted.iter())
            .map(|(signals, right)| (signals.log_likelihood, *right))
            .collect();
        let temperature = Temperature::of_answers(&log_likelihoods)?;
        let confidences = [
            (ConfidenceKind::Probability, Calibration::default()),
            (ConfidenceKind::Temperature, temperature.into()),
            (
                ConfidenceKind::Entropy,
                calibrate_by(&fitted, [false, false, true])?,
            ),
            (ConfidenceKind::All, calibrate(&fitted)?),
        ];
        let confidences = confidences
            .map(|(kind, calibration)| Confidence::of(kind, calibration, fit, measure))
            .into_iter()
            .collect::<Result<_>>()?;
        let removed: Vec<_> = (measure.iter())
            .filter_map(|asked| Some(is_right(&asked.pair, asked.removed.as_ref()?)))
            .collect();
        Ok(Self {
            fitted: fit.len(),
            measured: measure.len(),
            exact_match: mean(measure.iter().map(Asked::is_right)).unwrap_or_default(),
            confidences,
            documents: DocumentTrust::of(fit, measure)?,
            right_without_passage: mean(removed.into_iter()),
            provenance: Provenance::of(measure)?,
        })
    }

    /// The calibration by all signals.
    pub fn calibration(&self) -> Calibration {
        let all = |confidence: &&Confidence| confidence.kind == ConfidenceKind::All;
        let found = self.confidences.iter().find(all);
        found.map_or_else(Calibration::default, |all| all.calibration)
    }
}

/// The signals of each answer, and whether it is right.
fn judged(asked: &[Asked]) -> Vec<(Signals, bool)> {
    (asked.iter())
        .map(|asked| (asked.answer.signals(), asked.is_right()))
        .collect()
}

/// The share that is true; `None` of nothing.
fn mean(of: impl ExactSizeIterator<Item = bool>) -> Option<f64> {
    let count = of.len();
    let is = of.filter(|is| *is).count();
    (count > 0).then(|| is as f64 / count as f64)
}

impl Confidence {
    fn of(
        kind: ConfidenceKind,
        calibration: Calibration,
        fit: &[Asked],
        measure: &[Asked],
    ) -> Result<Self> {
        let confidence = |answer: &Answer| calibration.confidence(answer.signals());
        let of = |asked: &[Asked]| -> Vec<(f64, bool)> {
            (asked.iter())
                .map(|asked| (confidence(&asked.answer), asked.is_right()))
                .collect()
        };
        let measured = of(measure);
        // The same questions, each with and without its passages.
        let removed: Vec<(f64, f64)> = (measure.iter())
            .filter_map(|asked| {
                let removed = confidence(asked.removed.as_ref()?);
                Some((confidence(&asked.answer), removed))
            })
            .collect();
        let with = removed.iter().map(|pair| (pair.0, true));
        let without = removed.iter().map(|pair| (pair.1, false));
        let told_apart: Vec<_> = with.chain(without).collect();
        let thresholds = RiskCoverage::of(&of(fit))?;
        let abstention = COVERAGES.into_iter().filter_map(|wanted| {
            let threshold = thresholds.at_coverage(wanted)?.threshold;
            let answered = measured.iter().filter(|answer| answer.0 >= threshold);
            let answered: Vec<bool> = answered.map(|answer| answer.1).collect();
            Some(Abstention {
                wanted,
                threshold,
                coverage: answered.len() as f64 / measured.len() as f64,
                exact_match: mean(answered.into_iter()),
                abstained_removed: mean(removed.iter().map(|pair| pair.1 < threshold)),
            })
        });
        let abstention = abstention.collect();
        let reliability = Reliability::of_equal_mass(&measured, BINS)?;
        let risk_coverage = RiskCoverage::of(&measured)?;
        Ok(Self {
            kind,
            calibration,
            calibration_error: reliability.expected_calibration_error(),
            reliability,
            brier: brier(&measured)?,
            auroc: auroc(&measured)?,
            area: risk_coverage.area(),
            risk_coverage,
            abstention,
            auroc_removed: match told_apart.is_empty() {
                true => None,
                false => auroc(&told_apart)?,
            },
        })
    }
}

impl DocumentTrust {
    fn of(fit: &[Asked], measure: &[Asked]) -> Result<Option<Self>> {
        let (fitted, measured) = (documents(fit), documents(measure));
        if fitted.is_empty() || measured.is_empty() {
            return Ok(None);
        }
        let targets: Vec<_> = (fitted.into_iter())
            .map(|(log_posterior, right)| (log_posterior, right[0]))
            .collect();
        let temperature = Temperature::of_documents(&targets)?;
        let best = |temperature: Temperature| -> Vec<(f64, bool)> {
            (measured.iter())
                .map(|(log_posterior, right)| {
                    let (best, probability) = temperature.best_document(log_posterior);
                    (probability.min(1.0), right.contains(&best))
                })
                .collect()
        };
        let error = |temperature| -> Result<f64> {
            let curve = Reliability::of_equal_mass(&best(temperature), BINS)?;
            Ok(curve.expected_calibration_error())
        };
        let right = best(temperature).into_iter().map(|(_, right)| right);
        Ok(Some(Self {
            questions: measured.len(),
            accuracy: mean(right).unwrap_or_default(),
            temperature,
            before: error(Temperature::default())?,
            after: error(temperature)?,
        }))
    }
}

/// log P(z|x,y) of the passages of each question, and the places of those that hold the right answer, that of the
/// highest P(z|x,y) first. Questions without such a passage are left out.
fn documents(asked: &[Asked]) -> Vec<(Vec<f64>, Vec<usize>)> {
    let of = asked.iter().filter_map(|asked| {
        let evidence = &asked.answer.evidence;
        let holds = |z: &usize| asked.pair.is_answered_by(&evidence[*z].passage);
        let mut right: Vec<usize> = (0..evidence.len()).filter(holds).collect();
        right.sort_by(|&a, &b| evidence[b].posterior.total_cmp(&evidence[a].posterior));
        // Rounded to 0, it is not impossible.
        let log = |posterior: f32| f64::from(posterior.max(f32::MIN_POSITIVE)).ln();
        let log_posterior = evidence.iter().map(|passage| log(passage.posterior));
        (!right.is_empty()).then(|| (log_posterior.collect(), right))
    });
    of.collect()
}
