//! Knowledge bases: passages, their vectors and the encoder they were made with.

mod build;
mod manifest;
mod store;

use std::{collections::BTreeMap, sync::Arc};

use ndarray::Array2;
use rag_core::Passage;

pub use build::build_knowledge_base;
pub use manifest::{FileEntry, Fingerprint, Manifest};

use crate::{
    document::distinct_ids,
    error::{Error, Result},
    index::{FlatIndex, Index, Storage},
};
use store::MappedPassages;

/// Passages and an exact index over their vectors, in memory or mapped from a folder.
///
/// A [`Hit::position`](crate::Hit::position) of the index is the position of the passage here.
/// Clones share everything.
///
/// ```
/// # use rag_core::Passage;
/// # use rag_retrieve::{Fingerprint, Index, KnowledgeBase, Storage};
/// # let folder = tempfile::tempdir()?;
/// use ndarray::array;
///
/// let passages = vec![Passage::new("1", "Hamlet", "To be, or not to be"), Passage::new("2", "Macbeth", "Out, out")];
/// let vectors = array![[1.0, 0.0], [0.0, 1.0]];
/// let encoder = Fingerprint::new("5ca1ab1e", "a test");
/// KnowledgeBase::new(passages, vectors, Storage::F32, encoder.clone())?.save(&folder)?;
///
/// let knowledge = KnowledgeBase::open(&folder)?;
/// knowledge.check_encoder(&encoder)?;
/// let hits = knowledge.index().search(array![[0.0, 1.0]].view(), 1)?;
/// assert_eq!(knowledge.passage(hits[0][0].position)?.title, "Macbeth");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct KnowledgeBase {
    manifest: Manifest,
    passages: Passages,
    index: FlatIndex,
}

#[derive(Clone, Debug)]
enum Passages {
    Memory(Arc<Vec<Passage>>),
    Mapped(MappedPassages),
}

impl KnowledgeBase {
    /// A knowledge base in memory, of `vectors: [passages, dimension]` that `encoder` made.
    ///
    /// # Errors
    /// [`Error::EmptyKnowledgeBase`], [`Error::Counts`], [`Error::DuplicateId`], and those of
    /// [`FlatIndex::new`].
    pub fn new(
        passages: Vec<Passage>,
        vectors: Array2<f32>,
        storage: Storage,
        encoder: Fingerprint,
    ) -> Result<Self> {
        if passages.is_empty() {
            return Err(Error::EmptyKnowledgeBase);
        }
        if passages.len() != vectors.nrows() {
            return Err(Error::Counts {
                passages: passages.len(),
                vectors: vectors.nrows(),
            });
        }
        distinct_ids(&passages)?;
        let index = FlatIndex::new(vectors, storage)?;
        Ok(Self {
            manifest: Manifest {
                format_version: manifest::FORMAT_VERSION,
                created_by: concat!("rag-retrieve ", env!("CARGO_PKG_VERSION")).to_owned(),
                count: passages.len(),
                dimension: index.dimension(),
                storage,
                encoder,
                files: BTreeMap::new(),
            },
            passages: Passages::Memory(Arc::new(passages)),
            index,
        })
    }

    /// Refuses an encoder other than the one that made the vectors.
    ///
    /// # Errors
    /// [`Error::Encoder`] where the hashes differ; descriptions are for people.
    pub fn check_encoder(&self, encoder: &Fingerprint) -> Result<()> {
        if encoder.hash == self.manifest.encoder.hash {
            return Ok(());
        }
        Err(Error::Encoder {
            expected: self.manifest.encoder.clone(),
            found: encoder.clone(),
        })
    }

    /// The passage at a position, parsed only now where it is mapped.
    ///
    /// # Errors
    /// [`Error::Position`]; [`Error::Damaged`] or [`Error::Core`] where an unverified file is not
    /// what was written.
    pub fn passage(&self, position: usize) -> Result<Passage> {
        let len = self.len();
        if position >= len {
            return Err(Error::Position { position, len });
        }
        match &self.passages {
            Passages::Memory(passages) => Ok(passages[position].clone()),
            Passages::Mapped(passages) => passages.get(position),
        }
    }

    /// All passages by position, each as [`KnowledgeBase::passage`] gives it.
    pub fn passages(&self) -> impl ExactSizeIterator<Item = Result<Passage>> + '_ {
        (0..self.len()).map(|position| self.passage(position))
    }

    /// The index over the passages' vectors.
    pub fn index(&self) -> &FlatIndex {
        &self.index
    }

    /// What the knowledge base says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Passages, and vectors.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Never: a knowledge base holds at least one passage.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn knowledge(ids: &[&str], rows: usize) -> Result<KnowledgeBase> {
        let passages = ids.iter().map(|id| Passage::new(*id, "", "text")).collect();
        let encoder = Fingerprint::new("a", "one");
        KnowledgeBase::new(passages, Array2::zeros((rows, 2)), Storage::F32, encoder)
    }

    #[test]
    fn passages_and_vectors_belong_together() {
        assert!(matches!(knowledge(&[], 0), Err(Error::EmptyKnowledgeBase)));
        assert!(matches!(
            knowledge(&["1", "2"], 3),
            Err(Error::Counts { .. })
        ));
        let error = knowledge(&["1", "2", "1"], 3).unwrap_err();
        assert!(
            error.to_string().contains("passage 0 and passage 2"),
            "{error}"
        );
    }

    #[test]
    fn a_passage_is_found_by_its_position() {
        let knowledge = knowledge(&["1", "2"], 2).unwrap();
        assert_eq!(knowledge.passage(1).unwrap().id, "2");
        assert!(matches!(
            knowledge.passage(2),
            Err(Error::Position { len: 2, .. })
        ));
    }

    #[test]
    fn another_encoder_is_refused_by_name() {
        let knowledge = knowledge(&["1"], 1).unwrap();
        knowledge
            .check_encoder(&Fingerprint::new("a", "renamed"))
            .unwrap();
        let error = knowledge
            .check_encoder(&Fingerprint::new("b", "two"))
            .unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains("one (a)") && message.contains("two (b)"),
            "{message}"
        );
    }
}
