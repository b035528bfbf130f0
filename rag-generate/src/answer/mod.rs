pub(crate) mod assemble;

use std::fmt;

use rag_core::Passage;
use serde::{Deserialize, Serialize};

/// An answer y to a question x, with the passages z that it came from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// What was asked.
    pub question: String,
    /// The answer in words. Where a stop string ended it, what is before that string.
    pub text: String,
    /// log P(y|x): the natural logarithm of the answer's probability under the marginal, that of all its tokens: the end
    /// token, or those of a stop string, included.
    pub log_likelihood: f32,
    /// The probability that the answer is right, 0 to 1, by the model's
    /// [`Calibration`](crate::Calibration); `None` where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f32>,
    /// The tokens that were chosen, the end token or those of a stop string included.
    pub tokens: Vec<AnswerToken>,
    /// The retrieved passages, in the retriever's order.
    pub evidence: Vec<Evidence>,
}

/// A token of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AnswerToken {
    /// Its id.
    pub id: u32,
    /// The text that it adds; nothing where it is an end token, or beyond the beginning of a stop string.
    pub text: String,
    /// log P(y_i|x,y_<i).
    pub log_probability: f32,
    /// P(z|x,y_i,y_<i) of each passage: the token's share over passages; sums to 1. For RAG-Sequence,
    /// P(z|x,y).
    pub shares: Vec<f32>,
}

/// A retrieved passage, and how much it weighed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// The passage, with its source.
    pub passage: Passage,
    /// The inner product of question and passage, or what a prior or a reranker makes of it.
    pub score: f32,
    /// P(z|x), before the answer is known; sums to 1 over the passages.
    pub prior: f32,
    /// P(z|x,y), given the answer; sums to 1 over the passages.
    pub posterior: f32,
}

/// An answer that was accepted, or not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// At or above the threshold.
    Answered(Answer),
    /// Below it, with the best candidate inside.
    Abstained(Answer),
}

impl Answer {
    /// P(y|x).
    pub fn probability(&self) -> f32 {
        self.log_likelihood.exp()
    }

    /// The passage with the largest P(z|x,y).
    pub fn best_evidence(&self) -> Option<&Evidence> {
        self.evidence
            .iter()
            .max_by(|a, b| a.posterior.total_cmp(&b.posterior))
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.question)?;
        let probability = self.probability();
        // Long answers are improbable, however good.
        match probability < 0.0005 {
            true => write!(f, "→ {}   P(y|x) = {probability:.1e}", self.text)?,
            false => write!(f, "→ {}   P(y|x) = {probability:.3}", self.text)?,
        }
        match self.confidence {
            Some(confidence) => writeln!(f, "   confidence = {confidence:.3}")?,
            None => writeln!(f)?,
        }
        let mut evidence: Vec<_> = self.evidence.iter().collect();
        evidence.sort_by(|a, b| b.posterior.total_cmp(&a.posterior));
        for (i, evidence) in evidence.into_iter().enumerate() {
            write!(f, "  [{}] {evidence}", i + 1)?;
        }
        Ok(())
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Passage {
            id,
            title,
            text,
            source,
            metadata: _,
        } = &self.passage;
        write!(
            f,
            "P(z|x,y) = {:.3}  P(z|x) = {:.3}  ",
            self.posterior, self.prior
        )?;
        match source {
            Some(source) => writeln!(f, "{source}")?,
            None => writeln!(f, "{id}")?,
        }
        let beginning: String = text.chars().take(100).collect();
        let more = if beginning.len() < text.len() {
            "…"
        } else {
            ""
        };
        writeln!(f, "      {title}: {beginning}{more}")
    }
}
