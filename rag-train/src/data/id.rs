//! Ids in files of questions and passages.

use serde::{Deserialize, Deserializer};

/// An id, which some files write as a number; empty for null.
pub(super) fn id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
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
