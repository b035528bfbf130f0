//! A knowledge base that changes.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use ndarray::Array2;
use rag_core::Passage;
use rayon::prelude::*;

use super::{
    KnowledgeBase, Manifest, SegmentEntry,
    build::{check_width, embed},
    check,
    files::{Lock, Verification, remove_unlisted},
    merge::{Merging, Source},
    segment::{self, LiveSegment, Segment},
    store::put_manifest,
};
use crate::{encoder::Embedder, error::Result, knowledge::error::KnowledgeError};

/// Segments of about one size that are merged; a size is as many times the one before.
const MERGED: usize = 8;
/// Passages that make no difference: segments of fewer than [`MERGED`] times as many are of one size.
const SMALL: usize = 1024;

/// Adds, changes and deletes passages of a folder's knowledge base.
///
/// Nothing is seen by others before [`KnowledgeWriter::commit`], which puts all changes in place in one
/// step; a crash leaves what was committed last. Who has the knowledge base open keeps what they opened.
/// There is one writer at a time.
///
/// Added passages become a segment of their own, and deleted ones are noted beside their segment. When
/// there are many segments of about the same size, or half of one is deleted, they are merged in the
/// background: from when the writer is opened, in time for its first commit, and after each commit.
///
/// ```no_run
/// # use rag_retrieve::{KnowledgeWriter, TextEncoder};
/// # use rag_core::Passage;
/// # fn example(encoder: TextEncoder) -> rag_retrieve::Result<()> {
/// let mut writer = KnowledgeWriter::open("knowledge")?;
/// writer.upsert(vec![Passage::new("news-7", "", "The bridge is open again.")], &encoder, |_| {})?;
/// writer.delete(&["news-3"]);
/// let knowledge = writer.commit()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct KnowledgeWriter {
    pub(super) folder: PathBuf,
    /// The manifest of the last commit.
    pub(super) manifest: Manifest,
    pub(super) segments: Vec<Open>,
    places: HashMap<String, Place>,
    merging: Option<Merging>,
    /// Whether nothing was committed yet: then the merge is waited for, since there may be no later commit.
    fresh: bool,
    /// The number of the next segment.
    next: usize,
    _lock: Lock,
}

/// A segment that may lose passages.
#[derive(Debug)]
pub(super) struct Open {
    number: usize,
    pub(super) entry: SegmentEntry,
    pub(super) segment: Arc<Segment>,
    pub(super) deleted: BTreeSet<u32>,
}

/// Where a passage is.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// Number of the segment.
    segment: usize,
    row: u32,
    /// Of what its vector is made of.
    text: Digest,
    /// Of all that is written of it.
    line: Digest,
}

/// Enough of a BLAKE3 hash to tell contents apart.
type Digest = [u8; 16];

/// Counts of passages that were added, changed, deleted and left as they were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Ids that are new.
    pub added: usize,
    /// Ids that have another content now.
    pub changed: usize,
    /// Ids that are gone.
    pub deleted: usize,
    /// Ids that are what they were.
    pub unchanged: usize,
    /// Of those added and changed, how many the encoder had to read: the others' texts were there already.
    pub embedded: usize,
}

impl KnowledgeWriter {
    /// Opens a folder that [`KnowledgeBase::save`] wrote, and checks every byte.
    ///
    /// # Errors
    /// [`KnowledgeError::Busy`] while there is another writer; those of [`KnowledgeBase::open`].
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        // A lock would make a folder of something else look like a knowledge base.
        KnowledgeBase::open_unverified(folder)?;
        let lock = Lock::of(folder)?;
        let knowledge = KnowledgeBase::open(folder)?;
        let mut writer = Self {
            folder: folder.to_owned(),
            segments: Vec::new(),
            places: HashMap::with_capacity(knowledge.len()),
            merging: None,
            fresh: true,
            next: 0,
            manifest: knowledge.manifest,
            _lock: lock,
        };
        for (part, entry) in knowledge.parts.iter().zip(&writer.manifest.segments) {
            let part = &part.rows;
            let rows: Vec<u32> = (0..part.len()).map(|at| part.row(at) as u32).collect();
            let number = writer.next;
            let placed = rows.par_iter().map(|&row| {
                let passage = part.segment.passage(row as usize)?;
                let line = part.segment.line(row as usize)?;
                let place = Place {
                    segment: number,
                    row,
                    text: text_digest(&passage),
                    line: digest(&line),
                };
                Ok((passage.id, place))
            });
            writer.places.extend(placed.collect::<Result<Vec<_>>>()?);
            let rows: HashSet<u32> = rows.into_iter().collect();
            writer.next += 1;
            writer.segments.push(Open {
                number,
                entry: entry.clone(),
                segment: part.segment.clone(),
                deleted: (0..entry.count as u32)
                    .filter(|row| !rows.contains(row))
                    .collect(),
            });
        }
        writer.merge_if_too_many();
        Ok(writer)
    }

    /// Adds passages, and puts them in the place of those that have the same ids. `encoder` reads only
    /// texts that are not there yet, and `progress` hears how many of these are done. Every call writes a
    /// segment: many passages at once are cheaper than one by one.
    ///
    /// # Errors
    /// [`KnowledgeError::OtherEncoder`] for another encoder than that of the knowledge base, [`DocumentError::DuplicateId`](crate::DocumentError::DuplicateId),
    /// [`KnowledgeError::Metadata`], those of the encoder, [`IndexError::Dimension`](crate::IndexError::Dimension), [`IndexError::NotFinite`](crate::IndexError::NotFinite),
    /// [`IndexError::HalfRange`](crate::IndexError::HalfRange), [`Error::Core`](crate::Error::Core) where a file cannot be written; nothing is changed then.
    pub fn upsert(
        &mut self,
        passages: Vec<Passage>,
        encoder: &(impl Embedder + ?Sized),
        mut progress: impl FnMut(usize),
    ) -> Result<Changes> {
        self.manifest.encoder.check(&encoder.fingerprint()?)?;
        check(&passages)?;
        let mut changes = Changes::default();
        let mut fresh = Vec::new();
        let mut digests = Vec::new();
        for passage in passages {
            let line = digest(&segment::line(&passage));
            match self.places.get(&passage.id) {
                Some(place) if place.line == line => {
                    changes.unchanged += 1;
                    continue;
                }
                Some(_) => changes.changed += 1,
                None => changes.added += 1,
            }
            digests.push((text_digest(&passage), line));
            fresh.push(passage);
        }
        if fresh.is_empty() {
            return Ok(changes);
        }
        let mut vectors = Array2::zeros((fresh.len(), self.manifest.dimension));
        let mut unread = Vec::new();
        let by_text: HashMap<Digest, Place> = (self.places.values())
            .map(|place| (place.text, *place))
            .collect();
        for (i, (text, _)) in digests.iter().enumerate() {
            match by_text.get(text) {
                Some(place) => {
                    let rows = self.segment(place.segment).segment.rows();
                    rows.copy(place.row as usize, vectors.row_mut(i));
                }
                None => unread.push(i),
            }
        }
        let texts: Vec<Passage> = unread.iter().map(|&i| fresh[i].clone()).collect();
        let embedded = embed(&texts, encoder, &mut progress)?;
        if !texts.is_empty() {
            check_width(&embedded, self.manifest.dimension)?;
        }
        for (&i, vector) in unread.iter().zip(embedded.rows()) {
            vectors.row_mut(i).assign(&vector);
        }
        changes.embedded = unread.len();
        self.append(fresh, vectors, digests)?;
        Ok(changes)
    }

    /// Writes passages as a segment, in the place of those of the same ids.
    fn append(
        &mut self,
        passages: Vec<Passage>,
        vectors: Array2<f32>,
        digests: Vec<(Digest, Digest)>,
    ) -> Result<()> {
        let ids: Vec<String> = passages.iter().map(|passage| passage.id.clone()).collect();
        let written = Segment::new(passages, vectors, self.manifest.storage)?;
        let entry = segment::write(
            &self.folder,
            written.len(),
            || written.rows().encoded(segment::ROWS),
            || (0..written.len()).map(|row| written.line(row)),
        )?;
        let number = self.insert(entry)?;
        for (row, (id, (text, line))) in (0..).zip(ids.into_iter().zip(digests)) {
            let place = Place {
                segment: number,
                row,
                text,
                line,
            };
            if let Some(old) = self.places.insert(id, place) {
                self.segment(old.segment).deleted.insert(old.row);
            }
        }
        Ok(())
    }

    /// Deletes the passages of these ids; returns how many there were. From the commit on nobody finds them;
    /// their texts leave the disk when their segment is merged, at the latest by [`KnowledgeWriter::compact`].
    pub fn delete(&mut self, ids: &[impl AsRef<str>]) -> usize {
        let mut deleted = 0;
        for id in ids {
            if let Some(place) = self.places.remove(id.as_ref()) {
                self.segment(place.segment).deleted.insert(place.row);
                deleted += 1;
            }
        }
        deleted
    }

    /// Makes the knowledge base hold exactly `passages`, such as a folder that was
    /// [read](crate::Documents::read) again: adds what is new, changes what has changed, deletes what is
    /// gone, and leaves the rest untouched.
    ///
    /// # Errors
    /// Those of [`KnowledgeWriter::upsert`].
    pub fn sync(
        &mut self,
        passages: Vec<Passage>,
        encoder: &(impl Embedder + ?Sized),
        progress: impl FnMut(usize),
    ) -> Result<Changes> {
        let kept: HashSet<String> = passages.iter().map(|passage| passage.id.clone()).collect();
        let mut changes = self.upsert(passages, encoder, progress)?;
        let gone: Vec<String> = (self.places.keys())
            .filter(|id| !kept.contains(*id))
            .cloned()
            .collect();
        changes.deleted = self.delete(&gone);
        Ok(changes)
    }

    /// Puts all changes in place in one step, and opens the result. Then begins to merge segments in the
    /// background where there are too many; the commit after puts that in place.
    ///
    /// # Errors
    /// [`KnowledgeError::Empty`] where all passages are deleted, [`Error::Core`](crate::Error::Core) where a file cannot be
    /// written; the folder holds what was committed before, and the changes are still here.
    pub fn commit(&mut self) -> Result<KnowledgeBase> {
        let finished = self.merging.as_ref().is_some_and(Merging::is_finished);
        if (finished || self.fresh)
            && let Err(error) = self.finish_merging()
        {
            tracing::warn!(%error, "segments could not be merged and stay as they are");
        }
        self.put_changes()?;
        self.fresh = false;
        self.merge_if_too_many();
        Ok(self.snapshot())
    }

    fn put_changes(&mut self) -> Result<()> {
        if self.places.is_empty() {
            return Err(KnowledgeError::Empty.into());
        }
        self.segments
            .retain(|open| open.deleted.len() < open.entry.count);
        let mut entries = Vec::new();
        for open in &self.segments {
            let mut entry = open.entry.clone();
            if open.deleted.len() != entry.deleted() {
                entry.deleted = Some(segment::write_deleted(&self.folder, &open.deleted)?);
            }
            entries.push(entry);
        }
        self.put(Manifest {
            count: self.places.len(),
            segments: entries,
            ..self.manifest.clone()
        })?;
        // The files that a merge writes are not listed yet.
        if self.merging.is_none() {
            remove_unlisted(&self.folder, &self.manifest);
        }
        Ok(())
    }

    /// Puts a manifest of the present segments in place.
    pub(super) fn put(&mut self, manifest: Manifest) -> Result<()> {
        put_manifest(&self.folder, &manifest)?;
        for (open, entry) in self.segments.iter_mut().zip(&manifest.segments) {
            open.entry = entry.clone();
        }
        self.manifest = manifest;
        Ok(())
    }

    /// Commits, and merges all segments into one without what is deleted.
    ///
    /// # Errors
    /// Those of [`KnowledgeWriter::commit`].
    pub fn compact(&mut self) -> Result<KnowledgeBase> {
        self.finish_merging()?;
        self.put_changes()?;
        if self.segments.len() > 1 || !self.segments[0].deleted.is_empty() {
            let all: Vec<usize> = self.segments.iter().map(|open| open.number).collect();
            self.begin_merging(&all);
            self.finish_merging()?;
            self.put_changes()?;
        }
        self.fresh = false;
        Ok(self.snapshot())
    }

    /// The knowledge base that a commit would give.
    pub(super) fn snapshot(&self) -> KnowledgeBase {
        let segments = (self.segments.iter()).map(Open::rows).collect();
        KnowledgeBase::of(self.manifest.clone(), segments)
    }

    /// Passages that would be committed.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether all passages are deleted.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    fn segment(&mut self, number: usize) -> &mut Open {
        let mut segments = self.segments.iter_mut();
        let found = segments.find(|open| open.number == number);
        found.expect("passages are placed in segments that are there")
    }

    /// Opens a segment that was written; returns its number.
    fn insert(&mut self, entry: SegmentEntry) -> Result<usize> {
        let opened = Segment::open(&self.folder, &entry, &self.manifest, Verification::Sizes)?;
        let number = self.next;
        self.next += 1;
        self.segments.push(Open {
            number,
            entry,
            segment: opened.segment,
            deleted: BTreeSet::new(),
        });
        Ok(number)
    }

    /// The segments that should become one: many of about one size, and those of which half is deleted.
    fn too_many(&self) -> Vec<usize> {
        let mut by_size: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        let mut chosen = BTreeSet::new();
        for open in &self.segments {
            let lives = open.entry.count - open.deleted.len();
            let size = (lives / SMALL).max(1).ilog(MERGED);
            by_size.entry(size).or_default().push(open.number);
            if lives <= open.deleted.len() {
                chosen.insert(open.number);
            }
        }
        let full = |numbers: &Vec<usize>| numbers.len() >= MERGED;
        chosen.extend(by_size.into_values().find(full).unwrap_or_default());
        chosen.into_iter().collect()
    }

    fn merge_if_too_many(&mut self) {
        let too_many = self.too_many();
        if self.merging.is_none() && !too_many.is_empty() {
            self.begin_merging(&too_many);
        }
    }

    /// Begins to write the segments of these numbers as one.
    fn begin_merging(&mut self, numbers: &[usize]) {
        let sources = (self.segments.iter())
            .filter(|open| numbers.contains(&open.number))
            .map(|open| Source {
                number: open.number,
                rows: open.rows(),
            });
        self.merging = Some(Merging::begin(self.folder.clone(), sources.collect()));
    }

    /// Waits for the merge that runs, if any, and puts its segment in the place of its sources.
    pub(super) fn finish_merging(&mut self) -> Result<()> {
        let Some(merging) = self.merging.take() else {
            return Ok(());
        };
        let (sources, entry) = merging.wait()?;
        let number = self.insert(entry)?;
        let mut lost = vec![true; self.segment(number).entry.count];
        let mut first = 0;
        let sources: HashMap<usize, (u32, Source)> = (sources.into_iter())
            .map(|source| {
                let begins = first;
                first += source.rows.len() as u32;
                (source.number, (begins, source))
            })
            .collect();
        for place in self.places.values_mut() {
            if let Some((first, source)) = sources.get(&place.segment) {
                place.segment = number;
                place.row = first + source.rows.rank(place.row);
                lost[place.row as usize] = false;
            }
        }
        // Deleted while it was merged.
        let lost = (0..).zip(lost).filter(|(_, lost)| *lost);
        self.segment(number).deleted = lost.map(|(row, _)| row).collect();
        self.segments
            .retain(|open| !sources.contains_key(&open.number));
        Ok(())
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            added,
            changed,
            deleted,
            unchanged,
            embedded,
        } = self;
        write!(
            f,
            "{added} added, {changed} changed, {deleted} deleted, {unchanged} unchanged; {embedded} embedded"
        )
    }
}

impl Open {
    fn rows(&self) -> LiveSegment {
        let deleted: Vec<u32> = self.deleted.iter().copied().collect();
        let live = match deleted.is_empty() {
            true => None,
            false => segment::live(self.entry.count, &deleted),
        };
        LiveSegment {
            segment: self.segment.clone(),
            live,
        }
    }
}

fn text_digest(passage: &Passage) -> Digest {
    digest(format!("{}\0{}", passage.title, passage.text).as_bytes())
}

fn digest(bytes: &[u8]) -> Digest {
    let hash = blake3::hash(bytes);
    *hash.as_bytes().first_chunk().expect("32 bytes")
}
