//! A [`Trust`] as a page, and as a part of the page of a run.

use std::{io::Write, path::Path};

use maud::{Markup, html};
use rag_core::atomic;
use rag_generate::html::page;

use super::{
    axis::Scale,
    chart::{Across, Chart},
    curve::Curve,
};
use crate::{
    Result,
    evaluate::{
        table::Table,
        trust::{Confidence, Trust},
    },
};

const STYLE: &str = include_str!("report.css");

impl Trust {
    /// One HTML file in UTF-8 that loads nothing else: reliability and risk-coverage curves of each confidence, and the
    /// tables.
    pub fn to_html(&self, title: &str) -> String {
        let body = html! {
            h1 dir="auto" { (title) }
            (section(self))
        };
        page(title, STYLE, body)
    }

    /// Writes the page to a file.
    ///
    /// # Errors
    /// [`rag_core::Error::Io`].
    pub fn write_html(&self, title: &str, path: impl AsRef<Path>) -> Result<()> {
        let page = self.to_html(title);
        atomic::write_file(path, |file| file.write_all(page.as_bytes()))?;
        Ok(())
    }
}

/// Curves and tables.
pub(super) fn section(trust: &Trust) -> Markup {
    html! {
        @for sentence in trust.sentences() { p { (sentence) } }
        .charts { @for chart in charts(trust) { (chart.figure()) } }
        h3 { "Confidences" }
        (table(&trust.confidence_table()))
        h3 { "Abstention" }
        (table(&trust.abstention_table()))
        h3 { "Provenance" }
        (table(&trust.provenance.table()))
        @for sentence in trust.provenance.sentences() { p { (sentence) } }
    }
}

fn charts(trust: &Trust) -> [Chart<'static>; 2] {
    let curves = |points: fn(&Confidence) -> Vec<(f64, f64)>| -> Vec<Curve> {
        let confidences = trust.confidences.iter().enumerate();
        confidences
            .map(|(i, confidence)| Curve::new(confidence.kind.to_string(), i, points(confidence)))
            .collect()
    };
    let mut reliability = curves(|confidence| {
        let bins = confidence.reliability.bins.iter();
        bins.map(|bin| (bin.confidence, bin.accuracy)).collect()
    });
    let calibrated = vec![(0.0, 0.0), (1.0, 1.0)];
    reliability.push(Curve::new("calibrated", reliability.len(), calibrated).with_opacity(0.3));
    let risk = curves(|confidence| {
        let points = confidence.risk_coverage.points.iter();
        points.map(|point| (point.coverage, point.risk)).collect()
    });
    let chart = |title, unit, name, curves| Chart {
        title,
        unit,
        scale: Scale::Share,
        across: Across::Share(name),
        curves,
        marks: &[],
        skipped: Vec::new(),
    };
    [
        chart(
            "Reliability",
            "exact answers of a bin; bins of equal mass",
            "mean confidence",
            reliability,
        ),
        chart(
            "Risk and coverage",
            "wrong answers of those given",
            "questions answered",
            risk,
        ),
    ]
}

fn table(table: &Table) -> Markup {
    html! {
        .wide {
            table {
                tr { @for name in &table.head { th { (name) } } }
                @for row in &table.rows {
                    tr {
                        @for (i, cell) in row.iter().enumerate() {
                            @if i == 0 { th { (cell) } } @else { td { (cell) } }
                        }
                    }
                }
            }
        }
    }
}
