//! What is trained on: question-answer pairs, and DPR's questions with passages for and against.

mod dpr;
mod pairs;

use serde::{Deserialize, Deserializer};

pub use dpr::{DprExample, read_dpr, write_dpr};
pub use pairs::{QuestionAnswer, leaks, read_pairs};

/// An id, which some files write as a number; empty for null.
fn id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Id {
        Text(String),
        Number(serde_json::Number),
    }
    Ok(match Option::deserialize(deserializer)? {
        None => String::new(),
        Some(Id::Text(id)) => id,
        Some(Id::Number(id)) => id.to_string(),
    })
}
