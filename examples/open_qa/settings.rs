//! The settings that are compared.

use std::fmt;

use burn_rag::{
    core::marginal::RagModel,
    train::{Part, RetrieverLoss},
};
use clap::ValueEnum;
use serde::Serialize;

/// How the language model is trained, and what it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Setting {
    /// Not at all: as it was given
    ZeroShot,
    /// On the passages that are found, one after the other in one prompt, as most pipelines do; it answers from such a prompt
    Concatenated,
    /// On the passage that answers the question; it answers from those that are found
    Gold,
    /// RAG-Sequence, retriever frozen
    Sequence,
    /// RAG-Token, retriever frozen
    Token,
    /// Question encoder and prior train too
    QuestionEncoder,
    /// Question encoder, prior and passages' encoder train too, and the index follows
    BothEncoders,
    /// As question-encoder, taught by EMDR², beside RAG-Token
    Emdr2,
}

/// How the encoder is tuned before everything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Negatives {
    /// On a hard negative a question, and the other questions' passages
    Mined,
    /// On the other questions' passages alone
    InBatch,
    /// Not at all
    Untuned,
}

/// The passages that held-out questions are answered from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum AnswerFrom {
    /// Those that are found
    Retrieved,
    /// The one that answers the question: how well the language model reads
    Gold,
}

impl Setting {
    /// Where the sum over passages stands, unless something else is asked for.
    pub fn model(self) -> RagModel {
        match self {
            // Of one passage both are the same. Together, RAG-Token's questions are answered faster.
            Self::ZeroShot | Self::Concatenated | Self::Token | Self::Emdr2 => RagModel::Token,
            Self::Gold | Self::Sequence | Self::QuestionEncoder | Self::BothEncoders => {
                RagModel::Sequence
            }
        }
    }

    /// Whether question encoder and prior train.
    pub fn trains_questions(self) -> bool {
        matches!(
            self,
            Self::QuestionEncoder | Self::BothEncoders | Self::Emdr2
        )
    }

    /// Whether the passages' encoder trains; `rate` is how fast.
    pub fn context_encoder(self, rate: f64) -> Part {
        match self {
            Self::BothEncoders => Part::TrainedAt(rate),
            _ => Part::Frozen,
        }
    }

    /// The loss that teaches the retriever.
    pub fn retriever_loss(self) -> RetrieverLoss {
        match self {
            Self::Emdr2 => RetrieverLoss::Emdr2,
            _ => RetrieverLoss::Marginal,
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        argument(self, f)
    }
}

impl fmt::Display for Negatives {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        argument(self, f)
    }
}

/// The name on the command line.
fn argument(value: &impl ValueEnum, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match value.to_possible_value() {
        Some(value) => f.write_str(value.get_name()),
        None => Ok(()),
    }
}
