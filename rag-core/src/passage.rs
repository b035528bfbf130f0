use std::{fmt, ops::Range};

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
        }
    }

    /// Title and text as one, for those who read no titles.
    pub fn titled(&self) -> String {
        format!("{} {}", self.title, self.text).trim().to_owned()
    }
}
