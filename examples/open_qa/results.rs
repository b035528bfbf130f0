//! The numbers of a run: with intervals, as a row of a table, as a page.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use burn_rag::{
    core::{Error, checkpoint::read_json},
    prelude::*,
    train::{
        evaluate::{Asked, Interval, Reliability, RiskCoverage, Trust},
        watch::{EvaluationMetrics, Event, ExamplePassage, ExampleRow, MetricsLog, RunReport},
    },
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Failure,
    arguments::Recipe,
    judge::{Judged, Measured, file},
    output::Output,
    settings::AnswerFrom,
    train::TRAIN,
    trust::Halves,
};

/// The head of the table that [`Results::row`] is a row of.
pub const HEAD: &str = "\
| run | questions | EM | F1 | contains | recall@1 | recall@5 | recall@20 | log P(y\\|x) per token | ECE | AURC | training | answering |
|---|---|---|---|---|---|---|---|---|---|---|---|---|";

/// Bins of reliability.
const BINS: usize = 15;
/// Answers that the report shows.
const EXAMPLES: usize = 10;
/// Seed of the intervals: the same questions give the same intervals.
const SEED: u64 = 0;

/// The measurements of a run, and how it was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// The folder of the run, and what it answered from where that is not what it retrieved.
    pub run: String,
    /// Held-out questions.
    pub questions: usize,
    /// By name, each with its 95 % interval over questions: shares of 0 to 1, or nats.
    pub scores: BTreeMap<String, Interval>,
    /// How far P(y|x) can be trusted as it is, on all questions.
    pub confidence: Confidence,
    /// Confidences that were fitted to one half of the questions, measured on the other; `None` where they are all about
    /// one document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<Trust>,
    /// Time of all training steps, and of answering, with that of scoring the accepted answers.
    pub seconds: [f64; 2],
    /// The most memory of the process after a training step, where the system tells.
    pub most_bytes: Option<u64>,
    /// The settings of the run.
    pub settings: Value,
}

/// P(y|x) as a confidence, as it is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Confidence {
    /// Expected calibration error of P(y|x), 0 to 1.
    pub calibration_error: f64,
    /// Area under the risk-coverage curve, 0 to 1.
    pub risk_coverage_area: f64,
}

/// A number of some questions.
type Score = fn(&[&Judged]) -> f64;

const SCORES: [(&str, Score); 7] = [
    ("exact_match", |some| mean(some, |one| share(one.exact))),
    ("f1", |some| mean(some, |one| one.f1.into())),
    ("contains", |some| mean(some, |one| share(one.contains))),
    ("recall_1", |some| mean(some, |one| found(one, 1))),
    ("recall_5", |some| mean(some, |one| found(one, 5))),
    ("recall_20", |some| mean(some, |one| found(one, 20))),
    ("log_likelihood_per_token", |some| {
        let nats = mean(some, |one| one.accepted_log_likelihood.into());
        nats / mean(some, |one| one.accepted_tokens as f64)
    }),
];

impl Results {
    /// Those of a run, from its answers and the metrics of its training.
    pub fn of(
        name: &str,
        from: AnswerFrom,
        recipe: &Recipe,
        measured: &Measured,
        halves: &Halves,
        run: &Output,
    ) -> Result<Self, Failure> {
        let judged = &measured.judged;
        let mut scores = BTreeMap::new();
        for (name, score) in SCORES {
            scores.insert(name.to_owned(), Interval::bootstrap(judged, score, SEED)?);
        }
        let events = events(run)?;
        let steps = events.iter().filter_map(|event| match event {
            Event::Step(step) => Some(step),
            _ => None,
        });
        let given = match from {
            AnswerFrom::Retrieved => "",
            AnswerFrom::Gold => ", gold passage given",
        };
        Ok(Self {
            run: name.trim_start_matches("runs/").to_owned() + given,
            questions: judged.len(),
            scores,
            confidence: Confidence::of(judged)?,
            trust: halves.trust(judged)?,
            seconds: [
                steps.clone().fold(0.0, |sum, step| sum + step.seconds),
                measured.seconds,
            ],
            most_bytes: steps.filter_map(|step| step.resident_bytes).max(),
            settings: serde_json::to_value(recipe)?,
        })
    }

    /// Writes `results.json`, and `report.html` with the curves of training and the first answers.
    pub fn write(
        &self,
        rag: &Rag,
        measured: &Measured,
        from: AnswerFrom,
        run: &Output,
    ) -> Result<(), Failure> {
        let mut events = events(run)?;
        let last = events.iter().rev().find_map(|event| match event {
            Event::Step(step) => Some((step.step, step.epoch)),
            _ => None,
        });
        let (step, epoch) = last.unwrap_or_default();
        let estimate = |name: &str| self.scores[name].estimate;
        events.push(Event::Evaluation(EvaluationMetrics {
            step,
            epoch,
            questions: self.questions,
            exact_match: estimate("exact_match"),
            f1: estimate("f1"),
            recall: [1, 5, 20]
                .map(|k| (k, estimate(&format!("recall_{k}"))))
                .to_vec(),
            loss_per_token: Some(-estimate("log_likelihood_per_token")),
            seconds: measured.seconds,
        }));
        let examples = measured.judged.iter().take(EXAMPLES).map(example);
        let seed = self.settings["seed"].as_u64().unwrap_or_default();
        let report = RunReport {
            title: self.run.clone(),
            model: format!(
                "RAG-{:?} over {} passages, {} for each question; {} held-out questions",
                rag.model(),
                rag.retriever.searched(),
                rag.retriever.n_docs(),
                self.questions
            ),
            versions: vec![("burn-rag".into(), env!("CARGO_PKG_VERSION").into())],
            seed,
            settings: self.settings.clone(),
            events,
            trust: self.trust.clone(),
            examples: examples.collect(),
        };
        report.write(run.path(&file("report", from).replace(".json", ".html")))?;
        run.write(&file("results", from), self)
    }

    /// A row of the table that [`HEAD`] begins.
    pub fn row(&self) -> String {
        let scores = SCORES.iter().map(|(name, _)| {
            let Interval {
                estimate,
                low,
                high,
            } = self.scores.get(*name).copied().unwrap_or_default();
            match name.starts_with("log") {
                true => format!("{estimate:.2} ({low:.2} to {high:.2})"),
                false => format!(
                    "{:.1} ({:.1} to {:.1})",
                    100.0 * estimate,
                    100.0 * low,
                    100.0 * high
                ),
            }
        });
        let scores: Vec<String> = scores.collect();
        let Confidence {
            calibration_error,
            risk_coverage_area,
        } = self.confidence;
        let [training, answering] = self.seconds;
        format!(
            "| {} | {} | {} | {calibration_error:.3} | {risk_coverage_area:.3} | {training:.0} s | {answering:.0} s |",
            self.run,
            self.questions,
            scores.join(" | ")
        )
    }
}

impl Confidence {
    fn of(judged: &[Judged]) -> Result<Self, Failure> {
        let probability = |one: &Judged| one.asked.answer.signals().log_likelihood.exp().min(1.0);
        let judged: Vec<(f64, bool)> = (judged.iter())
            .map(|one| (probability(one), one.exact))
            .collect();
        Ok(Self {
            calibration_error: Reliability::of(&judged, BINS)?.expected_calibration_error(),
            risk_coverage_area: RiskCoverage::of(&judged)?.area(),
        })
    }
}

/// An answer with its passages, for the report.
fn example(judged: &Judged) -> ExampleRow {
    let Asked { pair, answer, .. } = &judged.asked;
    let passages = answer.evidence.iter().map(|evidence| ExamplePassage {
        title: evidence.passage.title.clone(),
        text: evidence.passage.text.clone(),
        prior: evidence.prior,
        posterior: evidence.posterior,
        gold: evaluate::has_answer(&evidence.passage.text, &pair.answers),
    });
    ExampleRow {
        question: pair.question.clone(),
        accepted: pair.answers.clone(),
        answer: answer.text.clone(),
        exact: judged.exact,
        passages: passages.collect(),
    }
}

/// One table of all results in output folders, in the order of their names.
pub fn table(outputs: &[PathBuf]) -> Result<String, Failure> {
    let mut rows = Vec::new();
    for output in outputs {
        let before = rows.len();
        for run in entries(&output.join("runs"))? {
            for from in [AnswerFrom::Retrieved, AnswerFrom::Gold] {
                let path = run.join(file("results", from));
                if path.is_file() {
                    rows.push(read_json::<Results>(path)?.row());
                }
            }
        }
        if rows.len() == before {
            return Err(format!(
                "{}: no run in it has results; give an output folder of open_qa",
                output.display()
            )
            .into());
        }
    }
    Ok(format!("{HEAD}\n{}", rows.join("\n")))
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = fs::read_dir(folder).map_err(Error::io(folder))?;
    let entries = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut entries = entries
        .collect::<Result<Vec<_>, _>>()
        .map_err(Error::io(folder))?;
    entries.sort();
    Ok(entries)
}

/// The events of training, where there was some.
fn events(run: &Output) -> Result<Vec<Event>, Failure> {
    let path = run.path(TRAIN).join("metrics.jsonl");
    Ok(match path.is_file() {
        true => MetricsLog::read(path)?,
        false => Vec::new(),
    })
}

fn mean(some: &[&Judged], of: impl Fn(&Judged) -> f64) -> f64 {
    some.iter().map(|one| of(one)).sum::<f64>() / some.len() as f64
}

fn share(right: bool) -> f64 {
    f64::from(u8::from(right))
}

/// Whether a passage that answers is among the best `k`.
fn found(one: &Judged, k: usize) -> f64 {
    share(one.rank.is_some_and(|rank| rank <= k))
}
