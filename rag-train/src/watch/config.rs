use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::warning::WarningKind;
use crate::error::{Error, Result};

/// When a [`Monitor`](super::Monitor) warns, and what is to be done then.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MonitorConfig {
    /// Different questions that statistics are taken over, the last ones.
    pub window: usize,
    /// Different questions below which there are no statistics.
    pub fewest_questions: usize,
    /// Steps before the generator can be expected to read.
    pub warmup_steps: usize,
    /// Collapse: largest share of questions with the same best passage.
    pub collapse_share: f64,
    /// Collapse: smallest number of different passages, as a share of what an even search finds.
    pub collapse_distinct: f64,
    /// Collapse: how many times likelier the best passage must make the answer than the others do for
    /// questions to share it rightly. Jeffreys calls evidence of more than 10 strong.
    pub collapse_odds: f64,
    /// Slot bias: largest mean P(z|x,y) of a rank.
    pub slot_posterior: f64,
    /// Slot bias: smallest standard deviation of that rank's log-odds between questions, in nats.
    pub slot_spread: f64,
    /// Ignored passages: smallest mean standard deviation of log P(y|x,z) between the passages of a
    /// question, in nats. Dropout alone makes a difference where it is on in what is observed.
    pub ignored_spread: f64,
    /// Stale index: largest loss of recall against fresh vectors.
    pub stale_recall: f64,
    /// Steps between two measurements of query drift; 0 measures none.
    pub probe_every: usize,
    /// Questions of the training data that drift and staleness are measured on.
    pub probes: usize,
    /// Query drift: smallest cosine between the probes' first vectors and their present ones, above 0.
    pub drift_cosine: f64,
    /// The action on each kind of warning; [`Action::Warn`] for those that are not listed.
    pub actions: BTreeMap<WarningKind, Action>,
}

impl Default for MonitorConfig {
    fn default() -> Self {
        Self {
            window: 256,
            fewest_questions: 32,
            warmup_steps: 100,
            collapse_share: 0.5,
            collapse_distinct: 0.05,
            collapse_odds: 10.0,
            slot_posterior: 0.8,
            slot_spread: 0.5,
            ignored_spread: 0.1,
            stale_recall: 0.05,
            probe_every: 50,
            probes: 32,
            drift_cosine: 0.5,
            actions: BTreeMap::new(),
        }
    }
}

/// The action of the training loop on a warning, beside telling it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Nothing.
    #[default]
    Warn,
    /// The retriever's parameters stay as they are from now on.
    FreezeRetriever,
    /// The passages' vectors are computed anew.
    RefreshIndex,
    /// The run ends after a checkpoint.
    Stop,
}

/// The action in words, as one that was taken.
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Warn => "nothing was done",
            Self::FreezeRetriever => "the retriever was frozen",
            Self::RefreshIndex => "the index was refreshed",
            Self::Stop => "the run was stopped",
        })
    }
}

impl MonitorConfig {
    /// Whether every setting can be.
    ///
    /// # Errors
    /// [`Error::Setting`].
    pub fn check(&self) -> Result<()> {
        if self.fewest_questions < 2 {
            return Err(Error::setting(
                "fewest_questions",
                self.fewest_questions,
                "at least 2, as fewer have no spread",
            ));
        }
        if self.window < self.fewest_questions {
            return Err(Error::setting(
                "window",
                self.window,
                "at least fewest_questions",
            ));
        }
        let thresholds = [
            ("collapse_share", self.collapse_share),
            ("collapse_distinct", self.collapse_distinct),
            ("collapse_odds", self.collapse_odds),
            ("slot_posterior", self.slot_posterior),
            ("slot_spread", self.slot_spread),
            ("ignored_spread", self.ignored_spread),
            ("stale_recall", self.stale_recall),
            ("drift_cosine", self.drift_cosine),
        ];
        for (setting, found) in thresholds {
            if !(found > 0.0 && found.is_finite()) {
                return Err(Error::setting(setting, found, "more than 0"));
            }
        }
        Ok(())
    }
}
