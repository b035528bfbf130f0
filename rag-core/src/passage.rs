use std::ops::Range;

use serde::{Deserialize, Serialize};

/// A passage z: the unit that is retrieved, packed into a context and cited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passage {
    /// Unique within a knowledge base.
    pub id: String,
    /// The title of the document or section; empty where there is none.
    pub title: String,
    /// The passage itself, a verbatim slice of its source where [`Passage::source`] is set.
    pub text: String,
    /// Where the text stands, for citations; `None` for passages made in memory.
    pub source: Option<Source>,
}

/// A place in a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The document's path as it was given, with `/` between folders.
    pub file: String,
    /// Byte range of the passage's text within the file.
    pub bytes: Range<usize>,
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
}
