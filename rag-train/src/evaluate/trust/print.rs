//! A [`Trust`] in sentences and tables.

use std::fmt;

use super::{Abstention, COVERAGE, Confidence, ConfidenceKind, Trust};
use crate::evaluate::table::{Table, or_dash, percent};

impl Trust {
    /// The measurements, and P(z|x,y), in sentences.
    pub(crate) fn sentences(&self) -> Vec<String> {
        let mut sentences = vec![format!(
            "Fitted to {} questions and measured on {} others, of which {} % are answered exactly.",
            self.fitted,
            self.measured,
            percent(self.exact_match)
        )];
        if let Some(right) = self.right_without_passage {
            sentences.push(format!(
                "With the passages that hold the answer removed, {} % are.",
                percent(right)
            ));
        }
        if let Some(documents) = self.documents {
            sentences.push(format!(
                "Of {} questions whose right passage was retrieved, the passage of the highest P(z|x,y) is right for \
                 {} %; its calibration error is {} %, and {} % at temperature {:.2}.",
                documents.questions,
                percent(documents.accuracy),
                percent(documents.before),
                percent(documents.after),
                documents.temperature.0
            ));
        }
        sentences
    }

    /// The measures of each confidence.
    pub(crate) fn confidence_table(&self) -> Table {
        let at = format!("exact at {:.0} %, %", 100.0 * COVERAGE);
        let mut table = Table::new([
            "confidence",
            "ECE, %",
            "Brier",
            "AUROC",
            "AURC",
            &at,
            "AUROC, passage removed",
        ]);
        let three = |value: f64| format!("{value:.3}");
        table.rows.extend(self.confidences.iter().map(|confidence| {
            let accuracy = confidence.risk_coverage.at_coverage(COVERAGE);
            vec![
                confidence.kind.to_string(),
                percent(confidence.calibration_error),
                three(confidence.brier),
                or_dash(confidence.auroc, three),
                three(confidence.area),
                or_dash(accuracy.map(|point| 1.0 - point.risk), percent),
                or_dash(confidence.auroc_removed, three),
            ]
        }));
        table
    }

    /// The effect of abstaining, by the confidences that rank answers differently.
    pub(crate) fn abstention_table(&self) -> Table {
        let mut table = Table::new([
            "confidence",
            "answered of those fitted, %",
            "threshold",
            "answered, %",
            "exact of these, %",
            "abstained, passage removed, %",
        ]);
        // A temperature changes no ranking: its thresholds do what those of P(y|x) do.
        let ranks = |confidence: &&Confidence| confidence.kind != ConfidenceKind::Probability;
        for confidence in self.confidences.iter().filter(ranks) {
            let row = |abstention: &Abstention| {
                vec![
                    confidence.kind.to_string(),
                    format!("{:.0}", 100.0 * abstention.wanted),
                    format!("{:.3}", abstention.threshold),
                    percent(abstention.coverage),
                    or_dash(abstention.exact_match, percent),
                    or_dash(abstention.abstained_removed, percent),
                ]
            };
            table.rows.extend(confidence.abstention.iter().map(row));
        }
        table
    }
}

impl fmt::Display for ConfidenceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Probability => "P(y|x)",
            Self::Temperature => "P(y|x), temperature",
            Self::Entropy => "entropy of P(z|x,y)",
            Self::All => "P(y|x), tokens and entropy",
        })
    }
}

/// Markdown.
impl fmt::Display for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.sentences().join(" "))?;
        write!(f, "{}{}", self.confidence_table(), self.abstention_table())?;
        write!(f, "{}", self.provenance)
    }
}
