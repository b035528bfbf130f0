//! The log of a run while it goes: lines, events in a file, a page at its end.

use std::{fs, path::PathBuf};

use rag_generate::Rag;

use super::{config::TrainConfig, report::StepReport};
use crate::{
    data::pairs::QuestionAnswer,
    error::Result,
    evaluate::{answers::language_of, measured::Measured, text::exact_match},
    watch::{
        config::Action,
        example::{ExamplePassage, ExampleRow},
        metrics::{EvaluationMetrics, Event, MetricsLog, StepMetrics},
        observation::{Observation, QuestionObservation},
        progress::Bar,
        report::RunReport,
        warning::Warning,
    },
};

/// The events of a run, and its report, in the folder of its checkpoints.
const METRICS: &str = "metrics.jsonl";
const REPORT: &str = "report.html";

/// Questions of the report.
const EXAMPLES: usize = 10;

/// Writes down what happens in a run.
pub(crate) struct Diary {
    pub(crate) progress: Bar,
    folder: Option<PathBuf>,
    log: Option<MetricsLog>,
}

impl Diary {
    /// Goes on after `step` of `steps`.
    pub(crate) fn open(folder: Option<PathBuf>, step: usize, steps: usize) -> Result<Self> {
        let log = folder.as_ref().map(|folder| match step {
            0 => MetricsLog::create(folder.join(METRICS)),
            _ => MetricsLog::resume(folder.join(METRICS), step),
        });
        Ok(Self {
            progress: Bar::new(step, steps),
            log: log.transpose()?,
            folder,
        })
    }

    pub(crate) fn add(&mut self, event: Event) -> Result<()> {
        match &mut self.log {
            Some(log) => log.append(&event),
            None => Ok(()),
        }
    }

    pub(crate) fn warn(&mut self, step: usize, action: Action, warning: Warning) -> Result<()> {
        self.progress.say(&format!(
            "warning at step {step}, {}: {warning}; {action}",
            warning.kind()
        ));
        self.add(Event::Warning {
            step,
            action,
            warning,
        })
    }

    /// The page that a run ends with.
    pub(crate) fn report(
        &self,
        rag: &Rag,
        config: &TrainConfig,
        pairs: &[QuestionAnswer],
        heldout: &[QuestionAnswer],
    ) -> Result<()> {
        let Some(folder) = &self.folder else {
            return Ok(());
        };
        let asked = if heldout.is_empty() { pairs } else { heldout };
        let examples = asked.iter().take(EXAMPLES).map(|pair| example(rag, pair));
        let report = RunReport {
            title: "Training of retriever and generator".into(),
            model: format!(
                "RAG-{:?} over {} passages, {} for each question; {} training pairs, {} held out",
                rag.model(),
                rag.retriever.searched(),
                rag.retriever.n_docs(),
                pairs.len(),
                heldout.len()
            ),
            versions: vec![("burn-rag".into(), env!("CARGO_PKG_VERSION").into())],
            seed: config.seed,
            settings: serde_json::to_value(config).unwrap_or_default(),
            events: MetricsLog::read(folder.join(METRICS))?,
            trust: None,
            examples: examples.collect::<Result<_>>()?,
        };
        report.write(folder.join(REPORT))
    }
}

fn example(rag: &Rag, pair: &QuestionAnswer) -> Result<ExampleRow> {
    let answer = rag.ask(&pair.question)?;
    let passages = answer.evidence.into_iter().map(|evidence| ExamplePassage {
        gold: pair.is_answered_by(&evidence.passage),
        title: evidence.passage.title,
        text: evidence.passage.text,
        prior: evidence.prior,
        posterior: evidence.posterior,
    });
    Ok(ExampleRow {
        question: pair.question.clone(),
        accepted: pair.answers.clone(),
        exact: exact_match(&answer.text, &pair.answers, language_of(pair)),
        answer: answer.text,
        passages: passages.collect(),
    })
}

/// The observation of a step that a monitor looks at.
pub(crate) fn observation(
    step: &StepReport,
    pairs: &[&QuestionAnswer],
    knowledge: usize,
) -> Observation {
    let questions = pairs.iter().zip(&step.examples);
    Observation {
        step: step.step,
        knowledge,
        questions: questions
            .map(|(pair, seen)| QuestionObservation {
                question: pair.question.clone(),
                passages: seen.passages.clone(),
                prior: seen.prior.clone(),
                posterior: seen.posterior.clone(),
            })
            .collect(),
        loss_per_token: step.loss / step.tokens as f64,
        ..Observation::default()
    }
}

pub(crate) fn step_metrics(
    step: &StepReport,
    observation: &Observation,
    epoch: usize,
    skipped_steps: usize,
    seconds: f64,
) -> StepMetrics {
    StepMetrics {
        step: step.step,
        epoch,
        examples: step.examples.len(),
        tokens: step.tokens,
        loss: step.loss,
        loss_per_token: observation.loss_per_token,
        gradient_norm: step.taken.then_some(step.gradient_norm),
        learning_rate: step.learning_rate,
        retriever_learning_rate: step.retriever_learning_rate,
        loss_scale: step.loss_scale,
        taken: step.taken,
        skipped_steps,
        seconds,
        examples_per_second: step.examples.len() as f64 / seconds,
        prior_entropy: observation.prior_entropy(),
        posterior_entropy: observation.posterior_entropy(),
        distinct_passages: observation.distinct_passages(),
        resident_bytes: resident_bytes(),
    }
}

pub(crate) fn evaluation_metrics(
    measured: &Measured,
    step: usize,
    epoch: usize,
    seconds: f64,
) -> EvaluationMetrics {
    EvaluationMetrics {
        step,
        epoch,
        questions: measured.answers.questions,
        exact_match: measured.answers.exact_match,
        f1: measured.answers.f1,
        recall: vec![(1, measured.recall_1), (measured.n_docs, measured.recall)],
        loss_per_token: None,
        seconds,
    }
}

/// `VmRSS` of Linux.
fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let mut lines = status.lines();
    let size = lines.find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = size.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(1024 * kibibytes)
}
