//! Files that were left out, and why.

use std::fmt;

/// The extensions that are read.
pub(super) const EXTENSIONS: &str = ".txt, .md, .markdown, .html, .htm, .pdf, .jsonl, .csv, .tsv, each also with .gz or .zst behind";

/// A file that was left out, wholly or in part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The path as [`Source::file`](rag_core::Source::file) would have it.
    pub file: String,
    /// Why.
    pub reason: SkipReason,
}

/// Why a file was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SkipReason {
    /// Its extension is none of those that are read.
    Unsupported,
    /// It is not UTF-8 text.
    NotUtf8,
    /// It holds nothing but white space, headings or a table's header.
    NoText,
    /// It was read, but for rows whose text is empty.
    EmptyRows {
        /// How many.
        rows: usize,
        /// The first of them, counted from 1.
        first_line: usize,
    },
    /// It was read, but for pages that could not be.
    UnreadPages {
        /// How many.
        pages: usize,
        /// The first of them, counted from 1.
        first_page: usize,
        /// Why that one could not.
        reason: String,
    },
    /// It is not what its extension says, or cut off.
    Malformed {
        /// Its fault.
        reason: String,
    },
    /// This build cannot read it.
    NeedsFeature {
        /// The feature that the crate must be built with.
        feature: &'static str,
    },
    /// It links to a folder; links are followed to files only.
    FolderLink,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.file, self.reason)
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsupported => write!(f, "not one of {EXTENSIONS}"),
            Self::NotUtf8 => f.write_str("not UTF-8"),
            Self::NoText => f.write_str("no text in it"),
            Self::EmptyRows { rows, first_line } => {
                write!(f, "{rows} without text, the first in line {first_line}")
            }
            Self::UnreadPages {
                pages,
                first_page,
                reason,
            } => write!(
                f,
                "{pages} unread, the first on page {first_page}: {reason}"
            ),
            Self::Malformed { reason } => write!(f, "malformed: {reason}"),
            Self::NeedsFeature { feature } => {
                write!(f, "needs a build with the feature `{feature}`")
            }
            Self::FolderLink => f.write_str("a link to a folder"),
        }
    }
}

/// The first few of what was skipped.
pub(super) fn listed(skipped: &[Skipped]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<String> = skipped.iter().take(SHOWN).map(Skipped::to_string).collect();
    let more = if skipped.len() > SHOWN { ", …" } else { "" };
    shown.join(", ") + more
}
