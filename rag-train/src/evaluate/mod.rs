//! How good answers and passages are, and how far a model's probabilities can be trusted.
//!
//! Everything but [`answers`], [`recall`] and [`Asked`] takes plain texts and numbers, whoever made them:
//!
//! - answers: [`exact_match`] and [`f1`] (SQuAD), [`bleu`] (sacrebleu), [`rouge`] (rouge-score),
//!   [`accuracy`], each by the tokens of a [`Language`];
//! - passages: [`has_answer`] and [`AnswerPatterns`], [`rankings`] and the measures that it averages;
//! - probabilities: [`Reliability`], [`brier`], [`auroc`], [`RiskCoverage`], [`Temperature`] and [`calibrate`];
//! - answers with their passages, as [`Asked`]: [`Trust`], all of that with abstention, and [`Provenance`].
//! - how far to trust any of these numbers: [`Interval`].

mod abstain;
pub(crate) mod answers;
mod asked;
mod auroc;
mod bleu;
mod calibrate;
mod calibration;
pub(crate) mod has_answer;
mod interval;
pub(crate) mod language;
pub(crate) mod measured;
mod provenance;
pub(crate) mod recall;
mod retrieval;
mod rouge;
pub(crate) mod table;
mod temperature;
pub(crate) mod text;
pub(crate) mod trust;

pub use abstain::{RiskCoverage, RiskPoint};
pub use answers::{AnswerScores, answers, language_of};
pub use asked::{Asked, LeftOut};
pub use auroc::auroc;
pub use bleu::{Bleu, bleu, sentence_bleu};
pub use calibrate::calibrate;
pub use calibration::{Reliability, ReliabilityBin, brier};
pub use has_answer::{AnswerPatterns, has_answer};
pub use interval::Interval;
pub use language::{Language, normalize};
pub use provenance::{Changed, Holds, Provenance, TokenShares};
pub use recall::recall;
pub use retrieval::{
    Ranking, RankingScores, ndcg, precision_at, rankings, recall_at, reciprocal_rank,
};
pub use rouge::{Overlap, Rouge, rouge};
pub use temperature::Temperature;
pub use text::{accuracy, exact_match, f1};
pub use trust::{Abstention, Confidence, ConfidenceKind, DocumentTrust, Trust};
