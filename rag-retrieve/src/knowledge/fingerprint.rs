use std::fmt;

use serde::{Deserialize, Serialize};

/// Which encoder: two with the same hash give the same vectors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Over all that decides a vector: weights, tokenizer, pooling, normalisation.
    pub hash: String,
    /// For people, such as a model's name or folder.
    pub description: String,
}

impl Fingerprint {
    /// A fingerprint of these two.
    pub fn new(hash: impl Into<String>, description: impl Into<String>) -> Self {
        Self {
            hash: hash.into(),
            description: description.into(),
        }
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short: String = self.hash.chars().take(12).collect();
        write!(f, "{} ({short})", self.description)
    }
}
