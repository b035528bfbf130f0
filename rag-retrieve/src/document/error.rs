use std::path::PathBuf;

use super::skipped::{Skipped, listed};

/// Errors of reading documents and cutting them into passages.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// A file or folder gave no passage at all.
    #[error("{path} gave no passage: expected text in files ending in {expected}, found {}", skipped_or_nothing(.skipped))]
    EmptyCorpus {
        /// The file or folder that was read.
        path: PathBuf,
        /// The extensions that are read.
        expected: &'static str,
        /// The files that were there.
        skipped: Vec<Skipped>,
    },
    /// A line of a `.jsonl` file is not a document.
    #[error(
        "{file}, line {line}: expected {{\"id\"?, \"title\"?, \"text\" or \"contents\"}} as one JSON object; mend or remove the line"
    )]
    JsonLine {
        /// The file.
        file: String,
        /// Counted from 1.
        line: usize,
        /// The parser's error; its column counts within the line.
        source: serde_json::Error,
    },
    /// A row of a `.csv` or `.tsv` file is not a document.
    #[error("{file}, line {line}: expected {expected}, found {found}; mend or remove the line")]
    TableLine {
        /// The file.
        file: String,
        /// Counted from 1.
        line: usize,
        /// The fields that the line should hold.
        expected: String,
        /// The fields that it holds.
        found: String,
    },
    /// Two passages have the same id.
    #[error("the id {id:?} belongs to both {first} and {second}; give every passage its own")]
    DuplicateId {
        /// The id.
        id: String,
        /// The passage that has it first.
        first: String,
        /// The passage that has it again.
        second: String,
    },
    /// A size of chunks that holds nothing, or an overlap as large as the chunk.
    #[error(
        "cannot cut chunks of {size} {unit} with an overlap of {overlap}: expected a size of at least 1 and an overlap below it"
    )]
    Chunking {
        /// The unit of the size: words, tokens or sentences.
        unit: &'static str,
        /// The size that was asked for.
        size: usize,
        /// The overlap that was asked for.
        overlap: usize,
    },
}

fn skipped_or_nothing(skipped: &[Skipped]) -> String {
    if skipped.is_empty() {
        "no file".to_owned()
    } else {
        listed(skipped)
    }
}
