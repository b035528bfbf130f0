use std::{
    fmt::{self, Display},
    io::Write,
    path::Path,
};

use rag_core::atomic;
use rag_generate::html::{self, Escaped};
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

use super::{
    EvaluationMetrics, Event, ExampleRow,
    curves::Run,
    example::Section,
    number::{count, short},
};
use crate::Result;

/// A run as a page to read in a browser.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunReport {
    /// What the run is called.
    pub title: String,
    /// What was trained, in a line or two.
    pub model: String,
    /// Names and versions of the software.
    pub versions: Vec<(String, String)>,
    /// The seed of everything random.
    pub seed: u64,
    /// The settings, shown as a table with nested names joined by dots.
    pub settings: Value,
    /// What happened, as [`super::MetricsLog::read`] gives it.
    pub events: Vec<Event>,
    /// Questions with their answers; ten are shown.
    pub examples: Vec<ExampleRow>,
}

impl RunReport {
    /// One HTML file in UTF-8 that needs nothing else, for light and dark screens and for print.
    ///
    /// Curves over the steps (loss, held-out scores, recall, entropies of P(z|x) and P(z|x,y), different
    /// passages retrieved, gradient norms, learning rates) show their values where they are pointed
    /// at; warnings are numbered on all of them and explained above. Long runs are drawn with at most 600
    /// points a curve, peaks kept.
    pub fn to_html(&self) -> String {
        let body = Page {
            report: self,
            run: Run::new(&self.events),
        };
        html::page(&self.title, STYLE, body)
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

/// A report with its events by kind, as HTML.
struct Page<'a> {
    report: &'a RunReport,
    run: Run<'a>,
}

const EXAMPLES: usize = 10;

/// Warnings that are listed.
const WARNINGS: usize = 100;

impl Page<'_> {
    /// The run in a few numbers.
    fn summary(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps = &self.run.steps;
        let mut tiles = Vec::new();
        if let (Some(first), Some(last)) = (steps.first(), steps.last()) {
            let skipped = format!("epoch {}, {} skipped", last.epoch, last.skipped_steps);
            tiles.push(("Steps", count(steps.len()), skipped));
            let pairs: usize = steps.iter().map(|step| step.examples).sum();
            let seconds: f64 = steps.iter().map(|step| step.seconds).sum();
            let rate = format!("in steps, {} pairs/s", short(pairs as f64 / seconds));
            tiles.push(("Time", duration(seconds), rate));
            if let Some((_, loss)) = self.run.smoothed_loss().last() {
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
            let evaluations = self.run.evaluations.iter();
            let best = evaluations.max_by(|a, b| score(a).total_cmp(&score(b)));
            if let (Some(best), Some(last)) = (best, self.run.evaluations.last()) {
                let note = if best.step == last.step {
                    "at the last step".to_owned()
                } else {
                    format!("at step {}; {} now", count(best.step), percent(score(last)))
                };
                tiles.push((name, percent(score(best)), note));
            }
        }
        f.write_str("<div class=\"tiles\">\n")?;
        for (name, value, note) in tiles {
            writeln!(
                f,
                "<div><span class=\"soft\">{name}</span><b>{value}</b><span class=\"soft\">{note}</span></div>"
            )?;
        }
        f.write_str("</div>\n")
    }

    fn warnings(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let warnings = &self.run.warnings;
        if warnings.is_empty() {
            return f.write_str("<p class=\"soft\">None.</p>\n");
        }
        f.write_str("<ol class=\"warnings\">\n")?;
        for (i, (step, action, warning)) in warnings.iter().enumerate().take(WARNINGS) {
            writeln!(
                f,
                "<li><i class=\"badge\">{}</i><div><b>{}</b> <span class=\"soft\">step {}; {action}</span>\
                 <p dir=\"auto\">{}.</p></div></li>",
                i + 1,
                warning.kind(),
                count(*step),
                Escaped(&capitalised(&warning.to_string()))
            )?;
        }
        f.write_str("</ol>\n")?;
        match warnings.len().saturating_sub(WARNINGS) {
            0 => Ok(()),
            more => writeln!(
                f,
                "<p class=\"soft\">And {more} more, which the metrics file has.</p>"
            ),
        }
    }

    fn settings(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = self.report.versions.clone();
        rows.push(("seed".into(), self.report.seed.to_string()));
        flatten("", &self.report.settings, &mut rows);
        f.write_str("<div class=\"wide\"><table class=\"settings\">\n")?;
        for (name, value) in rows {
            let (name, value) = (Escaped(&name), Escaped(&value));
            writeln!(f, "<tr><th>{name}</th><td dir=\"auto\">{value}</td></tr>")?;
        }
        f.write_str("</table></div>\n")
    }
}

impl Display for Page<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.report;
        writeln!(f, "<h1 dir=\"auto\">{}</h1>", Escaped(&report.title))?;
        writeln!(
            f,
            "<p class=\"soft\" dir=\"auto\">{}</p>",
            Escaped(&report.model)
        )?;
        self.summary(f)?;
        f.write_str("<h2>Warnings</h2>\n")?;
        self.warnings(f)?;
        f.write_str("<h2>Curves</h2>\n<div class=\"charts\">\n")?;
        for chart in self.run.charts() {
            chart.fmt(f)?;
        }
        f.write_str("</div>\n<h2>Examples</h2>\n")?;
        if report.examples.is_empty() {
            f.write_str("<p class=\"soft\">None.</p>\n")?;
        }
        for example in report.examples.iter().take(EXAMPLES) {
            Section(example).fmt(f)?;
        }
        f.write_str("<h2>Settings</h2>\n")?;
        self.settings(f)
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

const STYLE: &str = r#":root { --alarm: hsl(22 90% 42%); --good: hsl(150 60% 30%); }
@media (prefers-color-scheme: dark) { :root { --alarm: hsl(30 90% 62%); --good: hsl(150 45% 60%); } }
main { max-width: 82rem; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; }
h2 { break-after: avoid; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .8rem; margin-top: 1.5rem; }
.tiles div, figure, .example, .warnings li { background: var(--card); border: 1px solid var(--line); border-radius: .4rem; break-inside: avoid; }
.tiles div { padding: .7rem 1rem; display: flex; flex-direction: column; }
.tiles b { font-size: 1.5rem; font-weight: 600; line-height: 1.4; font-variant-numeric: tabular-nums; }
.warnings { list-style: none; margin: 0; padding: 0; }
.warnings li { display: flex; gap: .8rem; padding: .8rem 1rem; margin-bottom: .6rem; border-left: 5px solid var(--alarm); }
.warnings p { margin: .2rem 0 0; max-width: 60rem; }
.warnings .badge { flex: none; align-self: flex-start; margin-top: .1rem; background: var(--alarm); color: var(--card); }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(30rem, 100%), 1fr)); gap: .8rem; }
figure { margin: 0; padding: .8rem 1rem .5rem; }
figcaption { display: flex; flex-wrap: wrap; gap: 0 1rem; align-items: baseline; }
figcaption h3 { flex: 1; margin: 0; white-space: nowrap; }
.key { display: flex; flex-wrap: wrap; gap: 0 1rem; font-size: .8rem; color: var(--soft); white-space: nowrap; }
.key i { display: inline-block; width: 1.1rem; height: .2rem; margin-right: .4rem; vertical-align: middle; background: hsl(var(--hue) 70% var(--deep)); }
.empty { margin: 1rem 0; }
svg { display: block; width: 100%; height: auto; margin-top: .3rem; overflow: visible; }
svg text { fill: var(--soft); font-size: 12px; font-variant-numeric: tabular-nums; }
.grid, .tick { stroke: var(--line); fill: none; }
.tick { stroke: var(--soft); }
.curve { fill: none; stroke: hsl(var(--hue) 70% var(--deep)); stroke-width: 1.6; stroke-linejoin: round; }
svg circle { fill: hsl(var(--hue) 70% var(--deep)); }
.place { fill: var(--ink); fill-opacity: 0; }
.place:hover { fill-opacity: .08; }
.skipped { stroke: var(--alarm); stroke-width: 2; }
.warning path, .refresh path { stroke: var(--alarm); stroke-dasharray: 4 3; pointer-events: none; }
.warning circle { fill: var(--alarm); }
.warning text { fill: var(--card); font-size: 11px; font-weight: 600; }
.refresh path { stroke: var(--soft); stroke-dasharray: 1 3; }
.refresh circle { fill: var(--line); }
.example { padding: 1rem 1.2rem; margin-bottom: .8rem; }
.example > p { margin: 0 0 .6rem; }
.verdict { font-size: .8rem; padding: 0 .4rem; border: 1px solid; border-radius: .7rem; }
.right { color: var(--good); }
.wrong { color: var(--alarm); }
.passage { display: grid; grid-template-columns: 1fr 18rem; gap: .2rem 1.5rem; padding: .5rem 0; border-top: 1px solid var(--line); }
.passage p { margin: .2rem 0 0; display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 2; overflow: hidden; }
.settings td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
@media (max-width: 40rem) { .passage { grid-template-columns: 1fr; } }
@media print { :root, body { font-size: 11px; } main { max-width: none; padding: 0; } .charts { grid-template-columns: 1fr 1fr; } svg, .key i, .badge { -webkit-print-color-adjust: exact; print-color-adjust: exact; } }
"#;
