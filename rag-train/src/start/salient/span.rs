use std::ops::Range;

use serde::{Deserialize, Serialize};

/// A stretch of text that knowledge of the world would fill in.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Span {
    /// Byte range within the text, on character boundaries.
    pub bytes: Range<usize>,
    /// Its kind.
    pub kind: SpanKind,
}

/// The kind of a [`Span`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SpanKind {
    /// A day, month, year, decade or century.
    Date,
    /// A person, place, organisation, people or work.
    Name,
    /// An amount, a share, a rank. In English without its unit, but with its currency, percent sign
    /// and scale (`$1.5 million`); in Chinese with the measure word that it needs (`6300公里`).
    Number,
}
