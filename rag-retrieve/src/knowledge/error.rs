use std::path::PathBuf;

use super::fingerprint::Fingerprint;
use crate::filter::Filter;

/// Errors of a knowledge base, in memory or in a folder.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KnowledgeError {
    /// A folder without a knowledge base.
    #[error(
        "{folder} is not a knowledge base: it holds no manifest.json; make one of your documents with build_knowledge_base and save it"
    )]
    NotAKnowledgeBase {
        /// The folder.
        folder: PathBuf,
    },
    /// A knowledge base without passages.
    #[error("a knowledge base needs at least one passage, found none")]
    Empty,
    /// Another number of vectors than of passages.
    #[error(
        "expected one vector for each passage, found {passages} passages and {vectors} vectors"
    )]
    Counts {
        /// Passages given.
        passages: usize,
        /// Rows of vectors given.
        vectors: usize,
    },
    /// A number in the metadata that is NaN or infinite.
    #[error(
        "the passage {id:?} has {field} = {value}; expected a finite number, a text, true or false"
    )]
    Metadata {
        /// The passage.
        id: String,
        /// The field.
        field: String,
        /// Its value.
        value: rag_core::Value,
    },
    /// A position beyond the passages that there are.
    #[error("there is no passage {position}: the knowledge base holds {len}, counted from 0")]
    Position {
        /// The position that was asked for.
        position: usize,
        /// Passages there are.
        len: usize,
    },
    /// A passage that was deleted or changed between search and reading.
    #[error(
        "the passage at {position} was deleted or changed while it was read; search again, or write less often"
    )]
    Gone {
        /// Its position.
        position: usize,
    },
    /// An operation that reads all passages was asked of a knowledge base that a database keeps.
    #[error(
        "this reads all passages, and a database keeps those of the retriever; give it a knowledge base of this process (KnowledgeBase::open)"
    )]
    NotLocal,
    /// A filter on a field that no passage has.
    #[error("no passage has the field {field:?} of the filter; there is {}", known_fields(.known))]
    UnknownField {
        /// The filter's field.
        field: String,
        /// The fields that there are.
        known: Vec<String>,
    },
    /// A filter that leaves nothing to search.
    #[error("no passage matches {filter:?}; widen the filter")]
    NoMatch {
        /// The filter.
        filter: Filter,
    },
    /// The vectors were made by another encoder.
    #[error(
        "the knowledge base was encoded by {expected}, this encoder is {found}; load the encoder it was made with, or encode its passages again"
    )]
    OtherEncoder {
        /// The encoder in the manifest.
        expected: Fingerprint,
        /// The encoder at hand.
        found: Fingerprint,
    },
    /// A format that this version does not read.
    #[error(
        "{file} has format version {found}, this version of rag-retrieve reads {expected}; use the version that wrote it, or build the knowledge base again"
    )]
    FormatVersion {
        /// The manifest.
        file: PathBuf,
        /// The version that is read.
        expected: u32,
        /// The version of the file.
        found: u32,
    },
    /// A file that is shorter or longer than the manifest says.
    #[error(
        "{file} is damaged: expected {expected} bytes, found {found}; copy or build the knowledge base again"
    )]
    Size {
        /// The file.
        file: PathBuf,
        /// Bytes by the manifest.
        expected: u64,
        /// Bytes on disk.
        found: u64,
    },
    /// A file whose hash differs from the manifest's.
    #[error(
        "{file} is damaged: expected BLAKE3 {expected}, found {found}; copy or build the knowledge base again"
    )]
    Checksum {
        /// The file.
        file: PathBuf,
        /// Hash by the manifest.
        expected: String,
        /// Hash of the bytes on disk.
        found: String,
    },
    /// A file that contradicts itself or its manifest.
    #[error("{file} is damaged: {reason}; copy or build the knowledge base again")]
    Damaged {
        /// The file.
        file: PathBuf,
        /// The property that does not fit.
        reason: &'static str,
    },
    /// The thread that merges segments ended without a result.
    #[error("merging segments failed; nothing is lost, the segments stay as they are")]
    Merging,
    /// Another process saves to the same folder.
    #[error("another process saves to {folder}; wait for it, or save elsewhere")]
    Busy {
        /// The knowledge base.
        folder: PathBuf,
    },
}

fn known_fields(known: &[String]) -> String {
    if known.is_empty() {
        "no metadata at all".to_owned()
    } else {
        known.join(", ")
    }
}
