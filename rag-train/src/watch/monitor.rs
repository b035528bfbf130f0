use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{
    config::{Action, MonitorConfig},
    observation::Observation,
    statistics::{deviation, mean, median},
    warning::{Warning, WarningKind},
    window::Window,
};
use crate::error::Result;

/// Looks at every step and warns where training goes wrong.
///
/// A warning comes once, and again only after what it is about has become better by a tenth than its
/// threshold. Serialised, a monitor goes into a checkpoint; read back, it warns as it would have.
///
/// The statistics, over the last different questions:
///
/// - **Collapse.** Either more than half of the questions have the same best passage, or together they
///   retrieve fewer than a twentieth of the passages that even search would find, M (1 - (1 - n_docs/M)^N)
///   for N questions and M passages. Neither is wrong by itself: where M is a few times n_docs any search
///   does so (below four times n_docs nothing is said), and questions may really share a passage. Such
///   a passage explains its answers. So collapse is only where the odds of the best passage hardly rise
///   from P(z|x) to P(z|x,y), in the median; unlike P(z|x,y) itself, this factor
///   P(y|x,z) / P(y|x, not z) does not depend on how sharp P(z|x) is.
/// - **Slot bias.** The mean P(z|x,y) of a rank is large and at least twice its mean P(z|x), and the factor by
///   which its odds rise is the same for all questions. A good retriever whose P(z|x) is flat has the
///   large mean too; there the factor varies by nats, with how hard each answer is to guess.
/// - **Ignored passages.** log P(z|x,y) - log P(z|x) is log P(y|x,z) but for a constant; its deviation
///   between the passages of a question is what reading them is worth. KL(P(z|x,y) ‖ P(z|x)) is
///   reported but does not decide: it vanishes as well where a good retriever is sure.
/// - **Stale index** and **query drift** are compared with their thresholds as they are measured.
///
/// Questions whose lists differ in length or are not finite are passed over, as are measurements that are not
/// finite.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Monitor {
    config: MonitorConfig,
    window: Window,
    active: BTreeSet<WarningKind>,
}

/// A warning to be, and how many times over its threshold it is.
type Measured = (f64, Warning);

/// Passages of the knowledge base for each passage of a question, below which sharing means nothing.
const SMALLEST_KNOWLEDGE: usize = 4;

/// Where a warning is over, in parts of its threshold.
const CALM: f64 = 0.9;

impl Monitor {
    /// A monitor that has seen nothing.
    ///
    /// # Errors
    /// [`crate::Error::Setting`].
    pub fn new(config: MonitorConfig) -> Result<Self> {
        config.check()?;
        Ok(Self {
            config,
            window: Window::default(),
            active: BTreeSet::new(),
        })
    }

    /// Looks at a step, and returns what is newly wrong.
    pub fn observe(&mut self, observation: &Observation) -> Vec<Warning> {
        for question in &observation.questions {
            if question.is_whole() {
                self.window.add(question, self.config.window);
            }
        }
        let mut measured = Vec::new();
        if self.window.len() >= self.config.fewest_questions {
            measured.extend(self.collapse(observation.knowledge));
            measured.extend(self.slot_bias());
            if observation.step > self.config.warmup_steps {
                measured.extend(self.ignored_passages(observation.loss_per_token));
            }
        }
        measured.extend(self.stale_index(observation));
        measured.extend(self.query_drift(observation));
        measured
            .into_iter()
            .filter_map(|measured| self.news(measured))
            .collect()
    }

    /// The action on a warning.
    pub fn action(&self, kind: WarningKind) -> Action {
        self.config.actions.get(&kind).copied().unwrap_or_default()
    }

    fn news(&mut self, (severity, warning): Measured) -> Option<Warning> {
        let kind = warning.kind();
        if severity > 1.0 {
            return self.active.insert(kind).then_some(warning);
        }
        if severity < CALM {
            self.active.remove(&kind);
        }
        None
    }

    fn collapse(&self, knowledge: usize) -> Option<Measured> {
        let n_docs = self.window.n_docs();
        if knowledge < SMALLEST_KNOWLEDGE * n_docs {
            return None;
        }
        let questions = self.window.len();
        let (passage, count) = self.window.most_common_first();
        let share = count as f64 / questions as f64;
        let distinct = self.window.distinct();
        let expected = expected_distinct(knowledge, n_docs, questions);
        let odds = median(self.window.rank(0).log_odds).unwrap_or(0.0).exp();
        let same = share / self.config.collapse_share;
        let few = self.config.collapse_distinct * expected / distinct as f64;
        let severity = same.max(few).min(self.config.collapse_odds / odds);
        Some((
            severity,
            Warning::Collapse {
                questions,
                share,
                passage,
                distinct,
                expected,
                odds,
            },
        ))
    }

    fn slot_bias(&self) -> Option<Measured> {
        let slots = (0..self.window.n_docs()).filter_map(|slot| {
            let rank = self.window.rank(slot);
            if rank.log_odds.len() < self.config.fewest_questions {
                return None;
            }
            let spread = deviation(&rank.log_odds);
            let severity = (rank.posterior / self.config.slot_posterior)
                .min(rank.posterior / (2.0 * rank.prior))
                .min(self.config.slot_spread / spread);
            Some((
                severity,
                Warning::SlotBias {
                    questions: rank.log_odds.len(),
                    rank: slot + 1,
                    posterior: rank.posterior,
                    prior: rank.prior,
                    spread,
                },
            ))
        });
        slots.max_by(|a, b| a.0.total_cmp(&b.0))
    }

    fn ignored_passages(&self, loss_per_token: f64) -> Option<Measured> {
        let spreads = self.window.spreads();
        if spreads.len() < self.config.fewest_questions {
            return None;
        }
        let spread = mean(spreads.iter().copied());
        Some((
            self.config.ignored_spread / spread,
            Warning::GeneratorIgnoresPassages {
                questions: spreads.len(),
                spread,
                divergence: self.window.divergence(),
                loss_per_token,
            },
        ))
    }

    fn stale_index(&self, observation: &Observation) -> Option<Measured> {
        let (stored, fresh) = (observation.recall_stored?, observation.recall_fresh?);
        let severity = (fresh - stored) / self.config.stale_recall;
        severity
            .is_finite()
            .then_some((severity, Warning::StaleIndex { stored, fresh }))
    }

    fn query_drift(&self, observation: &Observation) -> Option<Measured> {
        let cosine = observation.probe_cosine?;
        // From right angles on there is no telling how much too far it is.
        let severity = self.config.drift_cosine / cosine.max(0.0);
        cosine
            .is_finite()
            .then_some((severity, Warning::QueryDrift { cosine }))
    }
}

/// Passages that `questions` find together where each finds `n_docs` of `knowledge` at random.
fn expected_distinct(knowledge: usize, n_docs: usize, questions: usize) -> f64 {
    let (knowledge, n_docs) = (knowledge as f64, n_docs as f64);
    let missed = (1.0 - n_docs / knowledge).powf(questions as f64);
    knowledge * (1.0 - missed)
}
