use std::{fmt, path::PathBuf};

use crate::{document::Skipped, knowledge::Fingerprint};

/// What can go wrong between documents and retrieved passages.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Files, tokenizers, checkpoints: what lies below the retriever.
    #[error(transparent)]
    Core(#[from] rag_core::Error),
    /// A folder that is none.
    #[error(
        "{folder} is not a knowledge base: it holds no manifest.json; make one of your documents with build_knowledge_base and save it"
    )]
    NotAKnowledgeBase {
        /// The folder.
        folder: PathBuf,
    },
    /// A question without a word in it.
    #[error("the question is empty; ask with at least one word")]
    EmptyQuestion,
    /// A question that the encoder cannot read whole.
    #[error(
        "the question has {tokens} tokens, its encoder reads {longest}; a question is never cut, ask a shorter one"
    )]
    QuestionTooLong {
        /// Of the question, special tokens included.
        tokens: usize,
        /// The encoder's limit.
        longest: usize,
    },
    /// More passages are asked for than there are.
    #[error(
        "n_docs is {n_docs}, there are {passages} passage(s) to search; ask for 1 to {passages}"
    )]
    TooFewPassages {
        /// Asked for.
        n_docs: usize,
        /// Passages there are.
        passages: usize,
    },
    /// A passage is not there any more.
    #[error(
        "the passage at {position} was deleted or changed while it was read; search again, or write less often"
    )]
    Gone {
        /// Where it was.
        position: usize,
    },
    /// What needs a knowledge base in this process is asked of one that a database keeps.
    #[error(
        "this looks at all passages, and a database keeps the retriever's; give it a knowledge base of this process (KnowledgeBase::open)"
    )]
    NotLocal,
    /// Two passages whose hashes begin alike, and a database that keeps both.
    #[error(
        "two passages of the database have the same position, which is a hash of them; change a character of one of them"
    )]
    SharedPosition,
    /// A database did not do what it was asked, however often.
    #[error("{engine} could not {doing}: {source}")]
    Database {
        /// Which.
        engine: &'static str,
        /// What it was asked.
        doing: &'static str,
        /// What it said last.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The address of a database cannot be understood.
    #[error("expected the address of a database as {expected}; {found}")]
    Address {
        /// Its form.
        expected: &'static str,
        /// What is wrong.
        found: String,
    },
    /// A name for a table or collection that databases do not take alike.
    #[error(
        "{name:?} cannot name a table: expected a letter, then letters of a to z, digits and underscores, 40 at most"
    )]
    TableName {
        /// The name.
        name: String,
    },
    /// A table that no knowledge base was made in.
    #[error("the database has no knowledge base {table:?}; make one with create")]
    NoTable {
        /// Its name.
        table: String,
    },
    /// A table that holds another knowledge base than was meant.
    #[error(
        "{table:?} has {what} {found}, expected {expected}; take another name, or drop it first"
    )]
    OtherTable {
        /// Its name.
        table: String,
        /// What differs.
        what: &'static str,
        /// As it is.
        found: String,
        /// As it should be.
        expected: String,
    },
    /// Text that a database cannot keep.
    #[error("the passage {id:?} cannot be kept: {reason}; mend its text or what is known of it")]
    Unkept {
        /// Its id.
        id: String,
        /// Why.
        reason: &'static str,
    },
    /// A part of a corpus that is none.
    #[error("shard {index} of {count}: expected one from 0 to below their count")]
    Shard {
        /// Which.
        index: usize,
        /// Of how many.
        count: usize,
    },
    /// A lexical index of other passages.
    #[error(
        "the lexical index ({found} passage(s)) is not of the knowledge base's passages ({expected}) in their order; make it of KnowledgeBase::passages"
    )]
    LexicalIndex {
        /// Passages of the knowledge base.
        expected: usize,
        /// Passages of the index.
        found: usize,
    },
    /// P(z|x) weighs what the retriever does not know.
    #[error(
        "the prior weighs {signal} by {weight}, and the retriever has none; give it one by Retriever::{give}, or set the weight to 0"
    )]
    NoSource {
        /// What is weighed.
        signal: &'static str,
        /// Its weight.
        weight: f32,
        /// The setter that gives it.
        give: &'static str,
    },
    /// λ of maximal marginal relevance.
    #[error("the diversity's λ is {lambda}; expected 0 (difference alone) to 1 (relevance alone)")]
    Lambda {
        /// Asked for.
        lambda: f32,
    },
    /// A file or folder gave no passage at all.
    #[error("no passage in {path}: expected text in files ending in {expected}, found {}", skipped_or_nothing(.skipped))]
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
        "{file}, line {line}: expected {{\"id\"?, \"title\"?, \"text\" or \"contents\"}} as one JSON object: {source}; mend or remove the line"
    )]
    JsonLine {
        /// The file.
        file: String,
        /// Counted from 1.
        line: usize,
        /// What the parser found; its column counts within the line.
        source: serde_json::Error,
    },
    /// A row of a `.csv` or `.tsv` file is not a document.
    #[error("{file}, line {line}: expected {expected}, found {found}; mend or remove the line")]
    TableLine {
        /// The file.
        file: String,
        /// Counted from 1.
        line: usize,
        /// What the line should hold.
        expected: String,
        /// What it holds.
        found: String,
    },
    /// Two passages have the same id.
    #[error("the id {id:?} belongs to both {first} and {second}; give every passage its own")]
    DuplicateId {
        /// The id.
        id: String,
        /// Where it stands first.
        first: String,
        /// Where it stands again.
        second: String,
    },
    /// Chunks that cannot be: without content, or that never advance.
    #[error(
        "chunks of {size} {unit} with an overlap of {overlap}: expected a size of at least 1 and an overlap below it"
    )]
    Chunking {
        /// What the size counts: words, tokens or sentences.
        unit: &'static str,
        /// Asked for.
        size: usize,
        /// Asked for.
        overlap: usize,
    },
    /// Vectors of another width than the index, or of none.
    #[error(
        "{what} of dimension {found}: expected {expected}; were both made by the same encoder?"
    )]
    Dimension {
        /// Whose vectors.
        what: &'static str,
        /// The dimension that would do.
        expected: String,
        /// The dimension that came.
        found: usize,
    },
    /// A vector or score that is NaN or infinite.
    #[error(
        "{what} {row} is NaN or infinite; expected finite numbers, look at the encoder that made it"
    )]
    NotFinite {
        /// Passage vector, query, or score of a query.
        what: &'static str,
        /// Its row, counted from 0.
        row: usize,
    },
    /// A device could not compute what was asked of it.
    #[error("the device failed: {source}; it may be out of memory, try fewer vectors")]
    Device {
        /// What it says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An index of other vectors.
    #[error(
        "the index holds {found} vectors of {found_dimension} numbers, the knowledge base {expected} of {dimension}; make it of KnowledgeBase::index"
    )]
    OtherIndex {
        /// Vectors of the knowledge base.
        expected: usize,
        /// Their numbers.
        dimension: usize,
        /// Vectors of the index.
        found: usize,
        /// Their numbers.
        found_dimension: usize,
    },
    /// A number that half precision cannot hold.
    #[error(
        "passage vector {row} holds {value}, f16 ends at ±65504; normalise the vectors, or store them as f32 where nothing is searched in f16"
    )]
    HalfRange {
        /// Row of the vector, counted from 0.
        row: usize,
        /// The number.
        value: f32,
    },
    /// A number in the metadata that is none.
    #[error(
        "the passage {id:?} has {field} = {value}; expected a finite number, a text, true or false"
    )]
    Metadata {
        /// The passage.
        id: String,
        /// The field.
        field: String,
        /// What it holds.
        value: rag_core::Value,
    },
    /// A filter on a field that no passage has.
    #[error("no passage has the field {field:?}, which the filter asks for; there is {}", known_fields(.known))]
    UnknownField {
        /// Asked for.
        field: String,
        /// The fields that there are.
        known: Vec<String>,
    },
    /// A filter that leaves nothing to search.
    #[error("no passage matches {filter:?}; widen the filter")]
    NoMatch {
        /// The filter.
        filter: crate::Filter,
    },
    /// A knowledge base of nothing.
    #[error("a knowledge base needs at least one passage, found none")]
    EmptyKnowledgeBase,
    /// There must be one vector for each passage.
    #[error(
        "expected one vector for each passage, found {passages} passages and {vectors} vectors"
    )]
    Counts {
        /// Passages given.
        passages: usize,
        /// Rows of vectors given.
        vectors: usize,
    },
    /// There is no passage at this position.
    #[error("there is no passage {position}: the knowledge base holds {len}, counted from 0")]
    Position {
        /// Asked for.
        position: usize,
        /// Passages there are.
        len: usize,
    },
    /// The knowledge base was made by another encoder.
    #[error(
        "the knowledge base was encoded by {expected}, this encoder is {found}; load the encoder it was made with, or encode its passages again"
    )]
    Encoder {
        /// Written in the manifest.
        expected: Fingerprint,
        /// The encoder at hand.
        found: Fingerprint,
    },
    /// The knowledge base is in a format that this version does not read.
    #[error(
        "{file} has format version {found}, this version of rag-retrieve reads {expected}; use the version that wrote it, or build the knowledge base again"
    )]
    FormatVersion {
        /// The manifest.
        file: PathBuf,
        /// Read here.
        expected: u32,
        /// Found there.
        found: u32,
    },
    /// A file of a knowledge base is shorter or longer than the manifest says.
    #[error(
        "{file} is damaged: expected {expected} bytes, found {found}; copy or build the knowledge base again"
    )]
    Size {
        /// The file.
        file: PathBuf,
        /// By the manifest.
        expected: u64,
        /// On disk.
        found: u64,
    },
    /// A file of a knowledge base is not what was written.
    #[error(
        "{file} is damaged: expected BLAKE3 {expected}, found {found}; copy or build the knowledge base again"
    )]
    Checksum {
        /// The file.
        file: PathBuf,
        /// By the manifest.
        expected: String,
        /// Of the bytes on disk.
        found: String,
    },
    /// A file of a knowledge base contradicts itself or its manifest.
    #[error("{file} is damaged: {reason}; copy or build the knowledge base again")]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What does not fit.
        reason: &'static str,
    },
    /// The thread that merges segments ended without a result.
    #[error("merging segments failed; nothing is lost, the segments stay as they are")]
    Merging,
    /// The library of approximate search could not do what was asked of it.
    #[cfg(feature = "ann")]
    #[error(
        "the graph of vectors failed: {source}; it lives in memory or in its file, is there enough of both?"
    )]
    Graph {
        /// What it says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A graph with int8 codes would rank by the cosine instead of the inner product.
    #[cfg(feature = "ann")]
    #[error(
        "vector {row} has length {length}, int8 codes need length 1; use Code::F16, or an encoder that normalises"
    )]
    NotNormalised {
        /// Its row.
        row: usize,
        /// Its length.
        length: f32,
    },
    /// A graph of other vectors.
    #[cfg(feature = "ann")]
    #[error("the graph in {folder} is of other vectors than the index at hand; build it again")]
    OtherVectors {
        /// Where the graph is.
        folder: PathBuf,
    },
    /// The lexical index could not be built or searched.
    #[error("the lexical index failed: {source}; it lives in memory, is there enough?")]
    Lexical {
        /// The search engine's answer.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another process is saving to the same folder.
    #[error("{folder} is being saved to by another process; wait for it, or save elsewhere")]
    Busy {
        /// The knowledge base.
        folder: PathBuf,
    },
}

/// `main` prints the error that it returns with `Debug`, and should teach as well.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `std::result::Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

fn skipped_or_nothing(skipped: &[Skipped]) -> String {
    if skipped.is_empty() {
        "no file".to_owned()
    } else {
        crate::document::listed(skipped)
    }
}

fn known_fields(known: &[String]) -> String {
    if known.is_empty() {
        "no metadata at all".to_owned()
    } else {
        known.join(", ")
    }
}
