use std::{borrow::Cow, sync::Arc};

use ndarray::Array2;
use rag_core::{Passage, Value};

use super::{
    error::KnowledgeError,
    fields::check_fields,
    fingerprint::Fingerprint,
    manifest::{FORMAT_VERSION, Manifest},
    segment::{LiveSegment, Segment},
};
use crate::{
    document::distinct_ids,
    error::{Error, Result},
    filter::Filter,
    index::{FlatIndex, Index, Storage},
};

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
    pub(super) manifest: Manifest,
    pub(super) parts: Vec<Part>,
    pub(super) index: FlatIndex,
}

/// A segment in a knowledge base.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) rows: LiveSegment,
    /// Position of the first of them.
    start: usize,
}

impl KnowledgeBase {
    /// A knowledge base in memory, of `vectors: [passages, dimension]` that `encoder` made.
    ///
    /// # Errors
    /// [`KnowledgeError::Empty`], [`KnowledgeError::Counts`], [`DocumentError::DuplicateId`](crate::DocumentError::DuplicateId), and those of
    /// [`FlatIndex::new`].
    pub fn new(
        passages: Vec<Passage>,
        vectors: Array2<f32>,
        storage: Storage,
        encoder: Fingerprint,
    ) -> Result<Self> {
        if passages.is_empty() {
            return Err(KnowledgeError::Empty.into());
        }
        if passages.len() != vectors.nrows() {
            return Err(KnowledgeError::Counts {
                passages: passages.len(),
                vectors: vectors.nrows(),
            }
            .into());
        }
        check(&passages)?;
        let segment = Segment::new(passages, vectors, storage)?;
        let manifest = Manifest {
            format_version: FORMAT_VERSION,
            created_by: concat!("rag-retrieve ", env!("CARGO_PKG_VERSION")).to_owned(),
            count: segment.len(),
            dimension: segment.rows().dimension(),
            storage,
            encoder,
            segments: Vec::new(),
        };
        let segment = LiveSegment {
            segment: Arc::new(segment),
            live: None,
        };
        Ok(Self::of(manifest, vec![segment]))
    }

    /// The rows of `segments` that live, one after the other.
    pub(super) fn of(manifest: Manifest, segments: Vec<LiveSegment>) -> Self {
        let index = FlatIndex::of(segments.iter().map(LiveSegment::rows));
        let mut start = 0;
        let parts = segments.into_iter().map(|rows| {
            let part = Part { start, rows };
            start += part.rows.len();
            part
        });
        Self {
            index,
            manifest,
            parts: parts.collect(),
        }
    }

    /// Refuses an encoder other than the one that made the vectors.
    ///
    /// # Errors
    /// [`KnowledgeError::OtherEncoder`] where the hashes differ; descriptions are for people.
    pub fn check_encoder(&self, encoder: &Fingerprint) -> Result<()> {
        self.manifest.encoder.check(encoder)
    }

    /// The passage at a position, parsed only now where it is mapped.
    ///
    /// # Errors
    /// [`KnowledgeError::Position`]; [`KnowledgeError::Damaged`] or [`Error::Core`] where an unverified file is not
    /// what was written.
    pub fn passage(&self, position: usize) -> Result<Passage> {
        let (segment, row) = self.place(position)?;
        segment.passage(row)
    }

    /// The passage at a position as a line of JSON.
    pub(super) fn line(&self, position: usize) -> Result<Cow<'_, [u8]>> {
        let (segment, row) = self.place(position)?;
        segment.line(row)
    }

    /// Segment and row of a position.
    fn place(&self, position: usize) -> Result<(&Segment, usize)> {
        let len = self.len();
        if position >= len {
            return Err(KnowledgeError::Position { position, len }.into());
        }
        let after = self.parts.partition_point(|part| part.start <= position);
        let part = &self.parts[after - 1];
        Ok((&part.rows.segment, part.rows.row(position - part.start)))
    }

    /// The positions of the passages that `filter` means, rising. What is known of passages is read
    /// when this is first asked, and kept.
    ///
    /// # Errors
    /// [`KnowledgeError::UnknownField`] for a field that no passage has; those of [`KnowledgeBase::passage`].
    pub fn matching(&self, filter: &Filter) -> Result<Vec<usize>> {
        let fields = (self.parts.iter())
            .map(|part| part.rows.segment.fields())
            .collect::<Result<Vec<_>>>()?;
        check_fields(filter, fields.iter().flat_map(|fields| fields.names()))?;
        let mut positions = Vec::new();
        for (Part { rows, start }, fields) in self.parts.iter().zip(fields) {
            let matching = fields.matching(filter);
            let matching = (0..rows.len()).filter(|&at| matching[rows.row(at)]);
            positions.extend(matching.map(|at| start + at));
        }
        Ok(positions)
    }

    /// All passages by position, each as [`KnowledgeBase::passage`] gives it.
    pub fn passages(&self) -> impl ExactSizeIterator<Item = Result<Passage>> + '_ {
        (0..self.len()).map(|position| self.passage(position))
    }

    /// The index over the passages' vectors.
    pub fn index(&self) -> &FlatIndex {
        &self.index
    }

    /// The manifest: counts, encoder and segments.
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

/// Refuses passages that could not be told apart or written.
pub(crate) fn check(passages: &[Passage]) -> Result<()> {
    distinct_ids(passages)?;
    for passage in passages {
        for (field, value) in &passage.metadata {
            if matches!(value, Value::Number(number) if !number.is_finite()) {
                return Err(Error::Knowledge(KnowledgeError::Metadata {
                    id: passage.id.clone(),
                    field: field.clone(),
                    value: value.clone(),
                }));
            }
        }
    }
    Ok(())
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
        assert!(matches!(
            knowledge(&[], 0),
            Err(Error::Knowledge(KnowledgeError::Empty))
        ));
        assert!(matches!(
            knowledge(&["1", "2"], 3),
            Err(Error::Knowledge(KnowledgeError::Counts { .. }))
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
            Err(Error::Knowledge(KnowledgeError::Position { len: 2, .. }))
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
