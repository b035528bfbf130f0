//! The charts of a run: which values each shows.

use super::{
    Action, EvaluationMetrics, Event, StepMetrics, Warning,
    axis::Scale,
    chart::{Across, Chart, Mark},
    curve::{Curve, Points, smoothed},
};

/// The events of a run, by kind.
#[derive(Default)]
pub(super) struct Run<'a> {
    pub steps: Vec<&'a StepMetrics>,
    pub evaluations: Vec<&'a EvaluationMetrics>,
    pub warnings: Vec<(usize, Action, &'a Warning)>,
    /// Warnings, by their number in the list, and refreshes of the index.
    marks: Vec<Mark>,
    /// First and last step.
    range: (usize, usize),
}

/// Warnings and refreshes that are marked; more could not be told apart.
const MARKS: usize = 100;

impl<'a> Run<'a> {
    pub fn new(events: &'a [Event]) -> Self {
        let steps = || events.iter().map(Event::step);
        let mut run = Self {
            range: (steps().min().unwrap_or(0), steps().max().unwrap_or(0)),
            ..Self::default()
        };
        for event in events {
            match event {
                Event::Step(metrics) => run.steps.push(metrics),
                Event::Evaluation(metrics) => run.evaluations.push(metrics),
                Event::Warning {
                    step,
                    action,
                    warning,
                } => {
                    run.warnings.push((*step, *action, warning));
                    run.marks.push(Mark {
                        step: *step,
                        number: Some(run.warnings.len()),
                        text: warning.kind().to_string(),
                    });
                }
                Event::Refresh { step, generation } => run.marks.push(Mark {
                    step: *step,
                    number: None,
                    text: format!("the index was refreshed, generation {generation}"),
                }),
                Event::Checkpoint { .. } => {}
            }
        }
        run.marks.truncate(MARKS);
        run
    }

    /// All figures of a report.
    pub fn charts(&self) -> Vec<Chart<'_>> {
        vec![
            self.chart(
                "Loss per token",
                "nats per answer token; faint: each step",
                Scale::Linear,
                [
                    self.noisy("training", 0, |step| step.loss_per_token),
                    vec![Curve::new("held out", 1, self.heldout_loss())],
                ]
                .concat(),
            ),
            self.chart(
                "Held-out answers",
                "share of questions",
                Scale::Share,
                vec![
                    Curve::new("F1", 0, self.of_evaluations(|scores| scores.f1)),
                    Curve::new(
                        "exact match",
                        1,
                        self.of_evaluations(|scores| scores.exact_match),
                    ),
                ],
            ),
            self.chart(
                "Held-out recall",
                "share of questions",
                Scale::Share,
                self.recall(),
            ),
            self.chart(
                "Entropy over passages",
                "nats, mean over questions; faint: each step",
                Scale::Linear,
                [
                    self.noisy("P(z|x)", 0, |step| step.prior_entropy),
                    self.noisy("P(z|x,y)", 1, |step| step.posterior_entropy),
                ]
                .concat(),
            ),
            self.chart(
                "Different passages retrieved",
                "passages in a step; faint: each step",
                Scale::Count,
                self.noisy("different passages", 0, |step| {
                    step.distinct_passages as f64
                }),
            ),
            Chart {
                skipped: self.skipped(),
                ..self.chart(
                    "Gradient norm",
                    "before clipping; faint: each step; ticks below: skipped steps",
                    Scale::Log,
                    self.norms(),
                )
            },
            self.chart(
                "Speed",
                "question-answer pairs per second; faint: each step",
                Scale::Linear,
                self.noisy("pairs per second", 0, |step| step.examples_per_second),
            ),
            self.chart(
                "Learning rate",
                "of a step",
                Scale::Linear,
                vec![
                    Curve::new("generator", 0, self.of_steps(|step| step.learning_rate)),
                    Curve::new(
                        "retriever",
                        1,
                        self.of_steps(|step| step.retriever_learning_rate),
                    ),
                ],
            ),
        ]
    }

    /// The loss per token, smoothed.
    pub fn smoothed_loss(&self) -> Points {
        smoothed(&self.of_steps(|step| step.loss_per_token))
    }

    /// Values of single steps, faint, and their smoothed mean.
    fn noisy(&self, name: &str, hue: usize, value: impl Fn(&StepMetrics) -> f64) -> Vec<Curve> {
        let points = self.of_steps(value);
        let mean = Curve::new(format!("{name}, mean"), hue, smoothed(&points));
        Curve::with_mean(name, mean, points)
    }

    /// Norms of gradients and their geometric mean, in which one large norm does not outweigh a hundred
    /// others.
    fn norms(&self) -> Vec<Curve> {
        let norms = self.of_steps(|step| step.gradient_norm.unwrap_or(f64::NAN));
        let logs: Points = norms
            .iter()
            .map(|&(step, norm)| (step, norm.ln()))
            .collect();
        let mean = smoothed(&logs).into_iter();
        let mean = mean.map(|(step, log)| (step, log.exp())).collect();
        let mean = Curve::new("geometric mean", 0, mean);
        Curve::with_mean("gradient norm", mean, norms)
    }

    fn chart(
        &self,
        title: &'static str,
        unit: &'static str,
        scale: Scale,
        curves: Vec<Curve>,
    ) -> Chart<'_> {
        Chart {
            title,
            unit,
            scale,
            across: Across::Steps(self.range.0, self.range.1),
            curves,
            marks: &self.marks,
            skipped: Vec::new(),
        }
    }

    /// Recall@k for each k of the last evaluation; the smallest k is the most opaque.
    fn recall(&self) -> Vec<Curve> {
        let last = self.evaluations.last();
        let ks = last.map_or(&[][..], |last| last.recall.as_slice());
        let curves = ks.iter().enumerate().map(|(i, &(k, _))| {
            let points = self.evaluations.iter().filter_map(|scores| {
                let recall = scores.recall.iter().find(|recall| recall.0 == k)?;
                Some((scores.step as f64, recall.1))
            });
            let opacity = 1.0 - 0.7 * i as f64 / ks.len() as f64;
            Curve::new(format!("recall@{k}"), 0, points.collect()).with_opacity(opacity)
        });
        curves.collect()
    }

    fn heldout_loss(&self) -> Points {
        let scores = self.evaluations.iter();
        scores
            .filter_map(|scores| Some((scores.step as f64, scores.loss_per_token?)))
            .collect()
    }

    fn skipped(&self) -> Vec<usize> {
        let steps = self.steps.iter();
        steps
            .filter(|step| !step.taken)
            .map(|step| step.step)
            .collect()
    }

    fn of_steps(&self, value: impl Fn(&StepMetrics) -> f64) -> Points {
        let steps = self.steps.iter();
        steps.map(|step| (step.step as f64, value(step))).collect()
    }

    fn of_evaluations(&self, value: impl Fn(&EvaluationMetrics) -> f64) -> Points {
        let scores = self.evaluations.iter();
        scores
            .map(|scores| (scores.step as f64, value(scores)))
            .collect()
    }
}
