//! Question and passages to an answer: BART, T5 and decoder-only generators, RAG-Token and RAG-Sequence decoding, and
//! where each answer came from.

#![forbid(unsafe_code)]

mod answer;
pub mod calibration;
mod checkpoint;
mod config;
pub mod decode;
mod error;
mod explain;
pub mod generator;
// Hidden: for rag-train's report alone.
#[doc(hidden)]
pub mod html;
mod language_model;
pub mod likelihood;
mod numbers;
pub mod plain;
mod prompt;
mod rag;
pub mod rag_sequence;
pub mod rag_token;
mod rank;
mod reader;
mod search;
mod stop;
mod template;

pub use answer::{Answer, AnswerToken, Evidence, Outcome};
pub use calibration::{Calibration, Signals};
pub use checkpoint::Checkpoint;
pub use config::RagConfig;
pub use error::{Error, Result};
pub use language_model::LanguageModel;
pub use prompt::pack;
pub use rag::Rag;
pub use rag_sequence::{SequenceDecoding, SequenceSettings};
pub use rank::{RankBy, Ranked, Threshold};
pub use reader::{Likelihood, Reader, TokenLikelihood};
pub use template::{PromptPart, Template, TemplateError};
