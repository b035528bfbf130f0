use std::{fs, path::Path};

use rag_core::Passage;
use serde::{Deserialize, Serialize};

use crate::{Error, Result, evaluate::has_answer};

/// A question x with its answers y.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuestionAnswer {
    /// Unique within a file; empty where there is none.
    #[serde(default)]
    pub id: String,
    /// The question.
    pub question: String,
    /// Accepted answers; training uses the first.
    pub answers: Vec<String>,
    /// The id or title of the passage that holds the answer, where that is known. Training does not
    /// look at it.
    #[serde(default, alias = "passage_id")]
    pub passage: Option<String>,
}

impl QuestionAnswer {
    /// A question with its answer.
    pub fn new(question: impl Into<String>, answer: impl Into<String>) -> Self {
        Self {
            id: String::new(),
            question: question.into(),
            answers: vec![answer.into()],
            passage: None,
        }
    }

    /// Whether a passage is the one that holds the answer; where that is not known, whether its text
    /// has an answer in it, as [`has_answer`] sees it.
    pub fn is_answered_by(&self, passage: &Passage) -> bool {
        match &self.passage {
            Some(gold) => *gold == passage.id || *gold == passage.title,
            None => has_answer(&passage.text, &self.answers),
        }
    }
}

/// Reads a JSONL file of `{"question", "answers", "id"?, "passage"?}`.
///
/// # Errors
/// [`Error::Line`] names the line that is not such an object, or has no answer;
/// [`Error::NoExamples`].
pub fn read_pairs(path: impl AsRef<Path>) -> Result<Vec<QuestionAnswer>> {
    let path = path.as_ref();
    let text = fs::read_to_string(path).map_err(rag_core::Error::io(path))?;
    let pairs = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(i, line)| {
            parse(line).map_err(|reason| Error::Line {
                path: path.to_owned(),
                line: i + 1,
                reason,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    if pairs.is_empty() {
        return Err(Error::NoExamples);
    }
    Ok(pairs)
}

fn parse(line: &str) -> std::result::Result<QuestionAnswer, String> {
    let pair: QuestionAnswer = serde_json::from_str(line).map_err(|error| error.to_string())?;
    if pair.question.trim().is_empty() {
        return Err("the question is empty".into());
    }
    match pair.answers.first() {
        Some(answer) if !answer.trim().is_empty() => Ok(pair),
        _ => Err("there is no answer".into()),
    }
}
