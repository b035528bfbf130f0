use std::{cmp::Ordering, collections::BTreeMap, fmt, ops::Range};

use serde::{Deserialize, Serialize};

/// A passage z: the unit that is retrieved, packed into a context and cited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passage {
    /// Unique within a knowledge base.
    pub id: String,
    /// The title of the document or section; empty where there is none.
    pub title: String,
    /// The passage itself.
    pub text: String,
    /// Where the text stands, for citations; `None` for passages made in memory.
    pub source: Option<Source>,
    /// Further fields by name, such as language, date and author. Filters read them, encoders do not.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, Value>,
}

/// The value of a metadata field. Values of one kind are ordered, texts by their characters, so that dates in ISO 8601
/// (`2024-05-31`) are in the order of time.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// True or false.
    Flag(bool),
    /// Any finite number, kept as f64: whole ones are exact up to 2⁵³.
    Number(f64),
    /// Any other text, such as a date.
    Text(String),
}

/// A place in a document. Displays as `file, bytes 10–200`, or `file, page 3`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The document's path as it was given, with `/` between folders.
    pub file: String,
    /// Byte range of the passage within the file, decompressed where it is compressed.
    pub bytes: Range<usize>,
    /// The page, counted from 1, where the file has pages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<usize>,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, bytes, page } = self;
        match page {
            Some(page) => write!(f, "{file}, page {page}"),
            None => write!(f, "{file}, bytes {}–{}", bytes.start, bytes.end),
        }
    }
}

impl Passage {
    /// A passage made in memory, without a source.
    pub fn new(id: impl Into<String>, title: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            title: title.into(),
            text: text.into(),
            source: None,
            metadata: BTreeMap::new(),
        }
    }

    /// Sets a metadata field.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.metadata.insert(name.into(), value.into());
        self
    }

    /// Title and text in one string, for encoders without a title of its own.
    pub fn titled(&self) -> String {
        format!("{} {}", self.title, self.text).trim().to_owned()
    }
}

impl Ord for Value {
    fn cmp(&self, other: &Self) -> Ordering {
        let kind = |value: &Self| match value {
            Self::Flag(_) => 0,
            Self::Number(_) => 1,
            Self::Text(_) => 2,
        };
        match (self, other) {
            (Self::Flag(a), Self::Flag(b)) => a.cmp(b),
            // -0 is 0.
            (Self::Number(a), Self::Number(b)) => (a + 0.0).total_cmp(&(b + 0.0)),
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            _ => kind(self).cmp(&kind(other)),
        }
    }
}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Value {}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => flag.fmt(f),
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => write!(f, "{text:?}"),
        }
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<i32> for Value {
    fn from(number: i32) -> Self {
        Self::Number(number.into())
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number as f64)
    }
}

impl From<f32> for Value {
    fn from(number: f32) -> Self {
        Self::Number(number.into())
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}
