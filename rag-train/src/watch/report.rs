use std::{io::Write, path::Path};

use maud::{Markup, html};
use rag_core::atomic;
use rag_generate::html::{badge, page};
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

use super::{
    EvaluationMetrics, Event, ExampleRow,
    charts::Run,
    number::{count, short},
    trust::section,
};
use crate::{Result, evaluate::trust::Trust};

const STYLE: &str = include_str!("report.css");

/// A run as a page for a browser.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunReport {
    /// The name of the run.
    pub title: String,
    /// The model that was trained, in a line or two.
    pub model: String,
    /// Names and versions of the software.
    pub versions: Vec<(String, String)>,
    /// The seed of everything random.
    pub seed: u64,
    /// The settings, shown as a table with nested names joined by dots.
    pub settings: Value,
    /// The events of the run, as [`super::MetricsLog::read`] gives them.
    pub events: Vec<Event>,
    /// How far the answers can be trusted, where that was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<Trust>,
    /// Questions with their answers; ten are shown.
    pub examples: Vec<ExampleRow>,
}

impl RunReport {
    /// One HTML file in UTF-8 that loads nothing else, for light and dark screens and for print.
    ///
    /// Curves over the steps (loss, held-out scores, recall, entropies of P(z|x) and P(z|x,y), different
    /// passages retrieved, gradient norms, learning rates) show their values where they are pointed
    /// at; warnings are numbered on all of them and explained above. Long runs are drawn with at most 600
    /// points a curve, peaks kept.
    pub fn to_html(&self) -> String {
        let run = Run::new(&self.events);
        let body = html! {
            h1 dir="auto" { (self.title) }
            p.soft dir="auto" { (self.model) }
            (summary(&run))
            h2 { "Warnings" }
            (warnings(&run))
            h2 { "Curves" }
            .charts { @for chart in run.charts() { (chart.figure()) } }
            @if let Some(trust) = &self.trust {
                h2 { "How far the answers can be trusted" }
                (section(trust))
            }
            h2 { "Examples" }
            @if self.examples.is_empty() { p.soft { "None." } }
            @for example in self.examples.iter().take(EXAMPLES) { (example.section()) }
            h2 { "Settings" }
            (settings(self))
        };
        page(&self.title, STYLE, body)
    }

    /// Writes the page to a file.
    ///
    /// # Errors
    /// [`rag_core::Error::Io`].
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        let page = self.to_html();
        atomic::write_file(path, |file| file.write_all(page.as_bytes()))?;
        Ok(())
    }
}

const EXAMPLES: usize = 10;

/// Warnings that are listed.
const WARNINGS: usize = 100;

/// The run in a few numbers.
fn summary(run: &Run<'_>) -> Markup {
    let steps = &run.steps;
    let mut tiles = Vec::new();
    if let (Some(first), Some(last)) = (steps.first(), steps.last()) {
        let skipped = format!("epoch {}, {} skipped", last.epoch, last.skipped_steps);
        tiles.push(("Steps", count(steps.len()), skipped));
        let pairs: usize = steps.iter().map(|step| step.examples).sum();
        let seconds: f64 = steps.iter().map(|step| step.seconds).sum();
        let rate = format!("in steps, {} pairs/s", short(pairs as f64 / seconds));
        tiles.push(("Time", duration(seconds), rate));
        if let Some((_, loss)) = run.smoothed_loss().last() {
            let begin = format!("nats, at first {}", short(first.loss_per_token));
            tiles.push(("Loss per token", short(*loss), begin));
        }
        if let Some(bytes) = steps.iter().filter_map(|step| step.resident_bytes).max() {
            let size = format!("{} GiB", short(bytes as f64 / GIB));
            tiles.push(("Memory", size, "at most".into()));
        }
    }
    type Score = fn(&EvaluationMetrics) -> f64;
    let scores: [(&str, Score); 2] = [
        ("Held-out exact match", |scores| scores.exact_match),
        ("Held-out F1", |scores| scores.f1),
    ];
    for (name, score) in scores {
        let evaluations = run.evaluations.iter();
        let best = evaluations.max_by(|a, b| score(a).total_cmp(&score(b)));
        if let (Some(best), Some(last)) = (best, run.evaluations.last()) {
            let note = if best.step == last.step {
                "at the last step".to_owned()
            } else {
                format!("at step {}; {} now", count(best.step), percent(score(last)))
            };
            tiles.push((name, percent(score(best)), note));
        }
    }
    html! {
        .tiles {
            @for (name, value, note) in tiles {
                div { span.soft { (name) } b { (value) } span.soft { (note) } }
            }
        }
    }
}

fn warnings(run: &Run<'_>) -> Markup {
    let listed = run.warnings.iter().enumerate().take(WARNINGS);
    let more = run.warnings.len().saturating_sub(WARNINGS);
    html! {
        @if run.warnings.is_empty() {
            p.soft { "None." }
        } @else {
            ol.warnings {
                @for (i, (step, action, warning)) in listed {
                    li {
                        (badge(i))
                        div {
                            b { (warning.kind()) } " " span.soft { "step " (count(*step)) "; " (action) }
                            p dir="auto" { (capitalised(&warning.to_string())) "." }
                        }
                    }
                }
            }
        }
        @if more > 0 {
            p.soft { "And " (more) " more, which the metrics file has." }
        }
    }
}

fn settings(report: &RunReport) -> Markup {
    let mut rows = report.versions.clone();
    rows.push(("seed".into(), report.seed.to_string()));
    flatten("", &report.settings, &mut rows);
    html! {
        .wide {
            table.settings {
                @for (name, value) in rows {
                    tr { th { (name) } td dir="auto" { (value) } }
                }
            }
        }
    }
}

const GIB: f64 = (1_u64 << 30) as f64;

/// Rows of a table for all values inside, their names joined by dots.
fn flatten(name: &str, value: &Value, rows: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (field, value) in fields {
                let dot = if name.is_empty() { "" } else { "." };
                flatten(&format!("{name}{dot}{field}"), value, rows);
            }
        }
        Value::Null if name.is_empty() => {}
        Value::String(text) => rows.push((name.to_owned(), text.clone())),
        Value::Number(number) => rows.push((name.to_owned(), shortest(number))),
        other => rows.push((name.to_owned(), other.to_string())),
    }
}

/// A number with the digits that it was written with: those of an f32 that became an f64 are its own.
fn shortest(number: &Number) -> String {
    match number.as_f64() {
        Some(wide) if number.is_f64() && f64::from(wide as f32) == wide => {
            (wide as f32).to_string()
        }
        _ => number.to_string(),
    }
}

fn duration(seconds: f64) -> String {
    let whole = seconds.round() as usize;
    match whole {
        0..60 => format!("{} s", short(seconds)),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(char::to_uppercase);
    first.into_iter().flatten().chain(letters).collect()
}
