use std::{
    fmt,
    fs::File,
    io::{BufReader, Write},
    path::Path,
};

use rag_core::{Passage, atomic::write_file};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error as _, SeqAccess, Visitor},
};

use super::id::id;
use crate::error::{Error, Result};

/// A question with passages for and against: what a retriever is trained on by itself (Karpukhin et
/// al. 2020, arXiv 2004.04906), an entry of DPR's JSON files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DprExample {
    /// The question.
    pub question: String,
    /// Accepted answers; may be empty, a retriever does not look at them.
    #[serde(default)]
    pub answers: Vec<String>,
    /// Passages that answer the question, at least one; `positive_ctxs` in a file.
    #[serde(rename = "positive_ctxs", with = "contexts")]
    pub positives: Vec<Passage>,
    /// Passages that do not, of no particular kind; `negative_ctxs` in a file.
    #[serde(rename = "negative_ctxs", with = "contexts", default)]
    pub negatives: Vec<Passage>,
    /// Passages that do not, but that a retriever takes for answers; `hard_negative_ctxs` in a file.
    #[serde(rename = "hard_negative_ctxs", with = "contexts", default)]
    pub hard_negatives: Vec<Passage>,
}

impl DprExample {
    /// A question with a passage that answers it.
    pub fn new(question: impl Into<String>, positive: Passage) -> Self {
        Self {
            question: question.into(),
            answers: Vec::new(),
            positives: vec![positive],
            negatives: Vec::new(),
            hard_negatives: Vec::new(),
        }
    }

    fn check(&self) -> Result<(), &'static str> {
        if self.question.trim().is_empty() {
            return Err("the question is empty");
        }
        if self.positives.is_empty() {
            return Err("positive_ctxs is empty, an example needs a passage that answers it");
        }
        Ok(())
    }
}

/// Reads a JSON file in DPR's layout, a list of `{"question", "answers"?, "positive_ctxs",
/// "negative_ctxs"?, "hard_negative_ctxs"?}` whose contexts are `{"title"?, "text", "passage_id" or
/// "psg_id"?}`; what else there is, such as scores, is passed over.
///
/// # Errors
/// [`Error::Entry`] names the entry that is not such an object or has no positive passage;
/// [`Error::EmptyFile`]; [`rag_core::Error::Io`].
pub fn read_dpr(path: impl AsRef<Path>) -> Result<Vec<DprExample>> {
    let path = path.as_ref();
    let file = File::open(path).map_err(rag_core::Error::io(path))?;
    let mut json = serde_json::Deserializer::from_reader(BufReader::new(file));
    let mut examples = Vec::new();
    let read = json
        .deserialize_seq(Entries(&mut examples))
        .and_then(|()| json.end());
    match read {
        Err(error) if error.is_io() => Err(rag_core::Error::io(path)(error.into()).into()),
        Err(source) => Err(Error::Entry {
            path: path.to_owned(),
            entry: examples.len() + 1,
            source,
        }),
        Ok(()) if examples.is_empty() => Err(Error::EmptyFile {
            path: path.to_owned(),
        }),
        Ok(()) => Ok(examples),
    }
}

/// Writes what [`read_dpr`] reads; the passages' [`Passage::source`] is not in the layout.
///
/// # Errors
/// [`rag_core::Error::Io`].
pub fn write_dpr(path: impl AsRef<Path>, examples: &[DprExample]) -> Result<()> {
    write_file(path, |file| {
        serde_json::to_writer_pretty(&mut *file, examples)?;
        file.write_all(b"\n")
    })?;
    Ok(())
}

/// Keeps the entries as they are read, so that a failure knows how many there were before it.
struct Entries<'a>(&'a mut Vec<DprExample>);

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while let Some(example) = entries.next_element::<DprExample>()? {
            example.check().map_err(A::Error::custom)?;
            self.0.push(example);
        }
        Ok(())
    }
}

/// Passages as DPR writes them.
mod contexts {
    use super::{Deserialize, Deserializer, Passage, Result, Serialize, Serializer, id};

    #[derive(Serialize, Deserialize)]
    struct Context {
        #[serde(default, deserialize_with = "id")]
        title: String,
        text: String,
        #[serde(default, alias = "psg_id", deserialize_with = "id")]
        passage_id: String,
    }

    pub(super) fn serialize<S: Serializer>(
        passages: &[Passage],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(passages.iter().map(|passage| Context {
            title: passage.title.clone(),
            text: passage.text.clone(),
            passage_id: passage.id.clone(),
        }))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<Passage>, D::Error> {
        let contexts = Vec::<Context>::deserialize(deserializer)?;
        let passages = contexts
            .into_iter()
            .map(|context| Passage::new(context.passage_id, context.title, context.text));
        Ok(passages.collect())
    }
}
