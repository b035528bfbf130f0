//! Metadata keys that begin with the architecture's name, such as `llama.block_count`.

use super::{architecture::Architecture, error::GgufError, metadata::Metadata};

type Result<T> = std::result::Result<T, GgufError>;

/// The metadata of one architecture. Each method takes a key without the architecture's name.
pub(super) struct Keys<'a> {
    metadata: Metadata<'a>,
    pub architecture: Architecture,
}

impl<'a> Keys<'a> {
    pub fn new(metadata: Metadata<'a>, architecture: Architecture) -> Self {
        Self {
            metadata,
            architecture,
        }
    }

    /// The whole key.
    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture.name())
    }

    /// A text.
    pub fn text(&self, key: &str) -> Result<Option<&'a str>> {
        self.metadata.text(&self.key(key))
    }

    /// A whole number that is not negative.
    pub fn count(&self, key: &str) -> Result<Option<usize>> {
        self.metadata.count(&self.key(key))
    }

    /// A number, whole or not.
    pub fn number(&self, key: &str) -> Result<Option<f64>> {
        self.metadata.number(&self.key(key))
    }

    /// The error about a value that is missing or out of range.
    pub fn wrong(&self, key: &str, expected: &str, found: impl ToString) -> GgufError {
        GgufError::metadata(&self.key(key), expected, found)
    }

    /// The error about a feature that this library lacks.
    pub fn unsupported(&self, key: &str, found: impl ToString, expected: &str) -> GgufError {
        GgufError::Unsupported {
            key: self.key(key),
            found: found.to_string(),
            expected: expected.to_owned(),
        }
    }

    /// A dimension of the model, from 1 to 2^24. It must be present.
    pub fn dimension(&self, key: &str) -> Result<usize> {
        match self.count(key)? {
            Some(count) if (1..=1 << 24).contains(&count) => Ok(count),
            Some(found) => Err(self.wrong(key, "a number from 1 to 2^24", found)),
            None => Err(self.wrong(key, "a number", "nothing")),
        }
    }
}
