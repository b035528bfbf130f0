use std::fmt;

use serde::{Deserialize, Serialize};

use super::number::{self, count, short};

/// A problem of a run. Displayed, it says what was seen, why it matters and what to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Warning {
    /// The retriever finds the same passages whatever is asked.
    Collapse {
        /// Different questions that were looked at.
        questions: usize,
        /// Share of them whose best passage is `passage`, 0 to 1.
        share: f64,
        /// The most common best passage, by its position in the knowledge base.
        passage: usize,
        /// Different passages that the questions retrieved together.
        distinct: usize,
        /// The number that `distinct` would be if passages were found evenly.
        expected: f64,
        /// How many times likelier the best passage makes the answer than the others do (median).
        odds: f64,
    },
    /// The document posterior prefers one rank by the same factor for every question.
    SlotBias {
        /// Different questions that were looked at.
        questions: usize,
        /// The rank, counted from 1.
        rank: usize,
        /// Mean P(z|x,y) at that rank.
        posterior: f64,
        /// Mean P(z|x) at that rank.
        prior: f64,
        /// Standard deviation between questions of the log of that factor, in nats.
        spread: f64,
    },
    /// The answer is as likely with one passage as with another.
    GeneratorIgnoresPassages {
        /// Different questions that were looked at.
        questions: usize,
        /// Mean standard deviation of log P(y|x,z) between the passages of a question, in nats.
        spread: f64,
        /// Mean KL(P(z|x,y) ‖ P(z|x)), in nats.
        divergence: f64,
        /// Negative log-likelihood per answer token of the step, in nats.
        #[serde(deserialize_with = "number::or_nan")]
        loss_per_token: f64,
    },
    /// The passages' vectors are older than the encoder, and it shows.
    StaleIndex {
        /// Recall with the vectors of the index, 0 to 1.
        stored: f64,
        /// Recall with vectors computed now, 0 to 1.
        fresh: f64,
    },
    /// The question encoder has moved far from where it began.
    QueryDrift {
        /// Mean cosine between the vectors of the same questions then and now.
        cosine: f64,
    },
    /// A tensor holds NaN or infinity.
    NotFinite {
        /// Which one.
        tensor: String,
        /// The questions of the batch, or their ids.
        batch: Vec<String>,
    },
}

/// The kinds of [`Warning`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum WarningKind {
    /// See [`Warning::Collapse`].
    Collapse,
    /// See [`Warning::SlotBias`].
    SlotBias,
    /// See [`Warning::GeneratorIgnoresPassages`].
    GeneratorIgnoresPassages,
    /// See [`Warning::StaleIndex`].
    StaleIndex,
    /// See [`Warning::QueryDrift`].
    QueryDrift,
    /// See [`Warning::NotFinite`].
    NotFinite,
}

impl Warning {
    /// Which kind it is.
    pub fn kind(&self) -> WarningKind {
        match self {
            Self::Collapse { .. } => WarningKind::Collapse,
            Self::SlotBias { .. } => WarningKind::SlotBias,
            Self::GeneratorIgnoresPassages { .. } => WarningKind::GeneratorIgnoresPassages,
            Self::StaleIndex { .. } => WarningKind::StaleIndex,
            Self::QueryDrift { .. } => WarningKind::QueryDrift,
            Self::NotFinite { .. } => WarningKind::NotFinite,
        }
    }
}

impl fmt::Display for WarningKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Collapse => "retrieval collapse",
            Self::SlotBias => "slot bias",
            Self::GeneratorIgnoresPassages => "generator ignores passages",
            Self::StaleIndex => "stale index",
            Self::QueryDrift => "query drift",
            Self::NotFinite => "not finite",
        })
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Collapse {
                questions,
                share,
                passage,
                distinct,
                expected,
                odds,
            } => write!(
                f,
                "the retriever finds the same passages whatever is asked: of the last {questions} questions, \
                 {} have the passage at position {passage} first; together they retrieved {} different \
                 passages, where an even search finds {}; and the first passage makes the answer only {} \
                 times as likely as the others do. Training on passages that do not depend on the question \
                 teaches the generator to do without them. Freeze the retriever or lower its learning rate, \
                 and go back to a checkpoint from before this began",
                Percent(*share),
                count(*distinct),
                short(expected.round()),
                short(*odds),
            ),
            Self::SlotBias {
                questions,
                rank,
                posterior,
                prior,
                spread,
            } => write!(
                f,
                "the generator credits rank {rank} whatever is asked: over the last {questions} questions \
                 P(z|x,y) is {} there on average where P(z|x) is {}, and the factor between them varies by \
                 only {} nats. A generator that reads its passages credits whichever holds the answer; the \
                 retriever now learns from a preference that says nothing. Check that contexts are in the \
                 order of their passages and differ in more than their padding, and freeze the retriever \
                 until the generator reads",
                short(*posterior),
                short(*prior),
                short(*spread),
            ),
            Self::GeneratorIgnoresPassages {
                questions,
                spread,
                divergence,
                loss_per_token,
            } => {
                write!(
                    f,
                    "the generator ignores the passages: over the last {questions} questions the \
                     log-likelihood of an answer differs by {} nats between passages on average, and \
                     KL(P(z|x,y) ‖ P(z|x)) is {} nats. The retriever learns nothing from such answers. ",
                    short(*spread),
                    short(*divergence),
                )?;
                if *loss_per_token < KNOWN_BY_HEART {
                    write!(
                        f,
                        "With {} nats per token the answers are known by heart: train on more pairs or for \
                         fewer epochs",
                        short(*loss_per_token)
                    )
                } else {
                    write!(
                        f,
                        "With {} nats per token it has yet to learn to read: check that the passages hold the \
                         answers (recall), freeze the retriever meanwhile, and give the generator more steps \
                         or a higher learning rate",
                        short(*loss_per_token)
                    )
                }
            }
            Self::StaleIndex { stored, fresh } => write!(
                f,
                "the index is stale: recall is {} with its vectors and would be {} with vectors of the encoder \
                 as it is now. Questions are compared with what the passages used to be. Refresh the index, \
                 or do so more often",
                Percent(*stored),
                Percent(*fresh),
            ),
            Self::QueryDrift { cosine } => write!(
                f,
                "the question encoder has drifted: vectors of the same questions have a mean cosine of {} \
                 with those at the beginning. Passages were embedded to be found from there. Compare recall \
                 with that of the first evaluation; if it fell, lower the retriever's learning rate or \
                 freeze it, or refresh the index where the passages' encoder trains too",
                short(*cosine)
            ),
            Self::NotFinite { tensor, batch } => {
                write!(
                    f,
                    "{tensor} holds NaN or infinity. The step cannot be taken, and where it was, the parameters \
                     are lost. In f16, let the loss scale fall or train in bf16 or f32; otherwise lower the \
                     learning rate. The batch: "
                )?;
                for (i, question) in batch.iter().take(QUESTIONS_SHOWN).enumerate() {
                    write!(f, "{}{question:?}", if i == 0 { "" } else { ", " })?;
                }
                match batch.len().saturating_sub(QUESTIONS_SHOWN) {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
        }
    }
}

/// Nats per token below which a generator hardly ever errs: a mean probability of 0.95.
const KNOWN_BY_HEART: f64 = 0.05;

const QUESTIONS_SHOWN: usize = 8;

struct Percent(f64);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} %", 100.0 * self.0)
    }
}
