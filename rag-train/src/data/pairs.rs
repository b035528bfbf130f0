use std::{collections::HashSet, fs, path::Path};

use rag_core::Passage;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::id::id;
use crate::{
    error::{Error, Result},
    evaluate::{
        has_answer::has_answer,
        language::{Language, normalize},
    },
};

/// A question x with its answers y.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuestionAnswer {
    /// Unique within a file; empty where there is none.
    #[serde(default, deserialize_with = "id")]
    pub id: String,
    /// The question.
    pub question: String,
    /// Accepted answers; training uses the first.
    #[serde(alias = "answer", deserialize_with = "one_or_several")]
    pub answers: Vec<String>,
    /// The id or title of the passage that holds the answer, where that is known. Training does not
    /// look at it.
    #[serde(default, alias = "passage_id", deserialize_with = "optional_id")]
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

/// Reads a JSONL file of `{"question", "answers", "id"?, "passage"?}`. One answer may stand under
/// `answer`, as text or list; the passage may stand under `passage_id`, and ids may be numbers. Other
/// columns are passed over.
///
/// # Errors
/// [`Error::Line`] names the line that is not such an object, or has no answer, and the columns that
/// it has; [`Error::EmptyFile`].
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
        return Err(Error::EmptyFile {
            path: path.to_owned(),
        });
    }
    Ok(pairs)
}

fn parse(line: &str) -> Result<QuestionAnswer, String> {
    let pair: QuestionAnswer = serde_json::from_str(line).map_err(|error| {
        // The file's line is told already; serde counts within it.
        let reason = error
            .to_string()
            .replace(" at line 1 column ", " at column ");
        match columns(line) {
            Some(columns) => format!("{reason}, among the columns {columns}"),
            None => reason,
        }
    })?;
    if pair.question.trim().is_empty() {
        return Err("the question is empty".into());
    }
    match pair.answers.first() {
        Some(answer) if !answer.trim().is_empty() => Ok(pair),
        _ => Err("there is no answer".into()),
    }
}

/// The names of an object's columns.
fn columns(line: &str) -> Option<String> {
    let columns: Map<String, Value> = serde_json::from_str(line).ok()?;
    let names: Vec<_> = columns.keys().map(String::as_str).collect();
    Some(names.join(", "))
}

fn one_or_several<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a text or a list of texts as answers")]
    enum Answers {
        One(String),
        Several(Vec<String>),
    }
    Ok(match Answers::deserialize(deserializer)? {
        Answers::One(answer) => vec![answer],
        Answers::Several(answers) => answers,
    })
}

/// A missing or empty id names no passage.
fn optional_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Some(id(deserializer)?).filter(|id| !id.is_empty()))
}

/// Which held-out questions are training questions too, but for case, white space and punctuation:
/// what is measured on them says nothing of new questions. Positions in `heldout`, rising.
///
/// ```
/// use rag_train::{QuestionAnswer, leaks};
///
/// let train = [QuestionAnswer::new("Where is Paris?", "in France")];
/// let heldout = ["Where is Rome?", "where  is Paris"].map(|question| QuestionAnswer::new(question, ""));
/// assert_eq!(leaks(&train, &heldout), [1]);
/// ```
pub fn leaks(train: &[QuestionAnswer], heldout: &[QuestionAnswer]) -> Vec<usize> {
    // The rules for Chinese also serve other languages: they drop punctuation and nothing else.
    let key = |pair: &QuestionAnswer| normalize(&pair.question, Language::Chinese);
    let trained: HashSet<_> = train.iter().map(key).collect();
    let leaked = |&i: &usize| trained.contains(&key(&heldout[i]));
    (0..heldout.len()).filter(leaked).collect()
}
