//! How good answers and passages are, and how far a model's probabilities can be trusted.
//!
//! Everything but [`answers`] and [`recall`] takes plain texts and numbers, whoever made them:
//!
//! - answers: [`exact_match`] and [`f1`] (SQuAD), [`bleu`] (sacrebleu), [`rouge`] (rouge-score),
//!   [`accuracy`], each by the tokens of a [`Language`];
//! - passages: [`has_answer`] and [`AnswerPatterns`], [`rankings`] and the measures that it averages;
//! - probabilities: [`Reliability`], [`Temperature`], [`RiskCoverage`];
//! - how far to trust any of these numbers: [`Interval`].

mod abstain;
pub(crate) mod answers;
mod bleu;
mod calibration;
pub(crate) mod has_answer;
mod interval;
pub(crate) mod language;
pub(crate) mod measured;
pub(crate) mod recall;
mod retrieval;
mod rouge;
mod temperature;
pub(crate) mod text;

pub use abstain::{RiskCoverage, RiskPoint};
pub use answers::{AnswerScores, answers, language_of};
pub use bleu::{Bleu, bleu, sentence_bleu};
pub use calibration::{Reliability, ReliabilityBin};
pub use has_answer::{AnswerPatterns, has_answer};
pub use interval::Interval;
pub use language::{Language, normalize};
pub use recall::recall;
pub use retrieval::{
    Ranking, RankingScores, ndcg, precision_at, rankings, recall_at, reciprocal_rank,
};
pub use rouge::{Overlap, Rouge, rouge};
pub use temperature::Temperature;
pub use text::{accuracy, exact_match, f1};
