//! Passages and vectors that were written together.

use std::{
    borrow::Cow,
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use memmap2::Mmap;
use ndarray::Array2;
use rag_core::Passage;

use super::{
    FileEntry, Manifest, SegmentEntry,
    fields::Fields,
    files::{Verification, map_checked, write_named_by_content},
};
use crate::{
    error::{Error, Result},
    index::{Live, Rows, Storage},
    knowledge::error::KnowledgeError,
};

/// Rows that are written at a time.
pub(super) const ROWS: usize = 1024;

/// Passages and their vectors, row by row, of which none ever changes.
#[derive(Debug)]
pub(super) struct Segment {
    passages: Passages,
    rows: Rows,
    fields: OnceLock<Fields>,
}

/// The rows of a segment that are not deleted. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct LiveSegment {
    pub(super) segment: Arc<Segment>,
    pub(super) live: Live,
}

#[derive(Debug)]
enum Passages {
    Memory(Vec<Passage>),
    /// A line of JSON each.
    Mapped {
        path: PathBuf,
        lines: Arc<Mmap>,
        offsets: Arc<Mmap>,
    },
}

impl Segment {
    /// `vectors: [passages, dimension]`, one for each of `passages`.
    pub(super) fn new(
        passages: Vec<Passage>,
        vectors: Array2<f32>,
        storage: Storage,
    ) -> Result<Self> {
        Ok(Self {
            passages: Passages::Memory(passages),
            rows: Rows::new(vectors, storage)?,
            fields: OnceLock::new(),
        })
    }

    /// Maps the files of `entry`.
    pub(super) fn open(
        folder: &Path,
        entry: &SegmentEntry,
        manifest: &Manifest,
        verification: Verification,
    ) -> Result<LiveSegment> {
        let map = |entry| map_checked(folder, entry, verification);
        let vectors = Arc::new(map(&entry.vectors)?);
        let live = match &entry.deleted {
            Some(deleted) => {
                let numbers = map(deleted)?;
                let rows = numbers
                    .as_chunks()
                    .0
                    .iter()
                    .copied()
                    .map(u32::from_le_bytes);
                let live = live(entry.count, &rows.collect::<Vec<u32>>());
                Some(live.ok_or_else(|| {
                    Error::Knowledge(KnowledgeError::Damaged {
                        file: folder.join(&deleted.file),
                        reason: "its rows do not rise, or are not there",
                    })
                })?)
            }
            None => None,
        };
        let segment = Self {
            passages: Passages::Mapped {
                path: folder.join(&entry.passages.file),
                lines: Arc::new(map(&entry.passages)?),
                offsets: Arc::new(map(&entry.offsets)?),
            },
            rows: Rows::mapped(vectors, manifest.storage, manifest.dimension),
            fields: OnceLock::new(),
        };
        Ok(LiveSegment {
            segment: Arc::new(segment),
            live,
        })
    }

    /// The passage of a row below [`Segment::len`].
    pub(super) fn passage(&self, row: usize) -> Result<Passage> {
        match &self.passages {
            Passages::Memory(passages) => Ok(passages[row].clone()),
            Passages::Mapped { path, .. } => {
                let passage = serde_json::from_slice(&self.line(row)?);
                Ok(passage.map_err(rag_core::Error::json(path))?)
            }
        }
    }

    /// The passage of a row as a line of JSON.
    pub(super) fn line(&self, row: usize) -> Result<Cow<'_, [u8]>> {
        match &self.passages {
            Passages::Memory(passages) => Ok(Cow::Owned(line(&passages[row]))),
            Passages::Mapped {
                path,
                lines,
                offsets,
            } => {
                let offsets = offsets.as_chunks().0;
                let at = |row: usize| u64::from_le_bytes(offsets[row]) as usize;
                let line = lines.get(at(row)..at(row + 1));
                Ok(Cow::Borrowed(line.ok_or_else(|| {
                    Error::Knowledge(KnowledgeError::Damaged {
                        file: path.clone(),
                        reason: "its lines are not where the offsets say",
                    })
                })?))
            }
        }
    }

    /// The metadata of its passages, read when it is first asked for.
    pub(super) fn fields(&self) -> Result<&Fields> {
        if let Some(fields) = self.fields.get() {
            return Ok(fields);
        }
        let fields = Fields::of((0..self.len()).map(|row| self.passage(row)))?;
        Ok(self.fields.get_or_init(|| fields))
    }

    pub(super) fn rows(&self) -> &Rows {
        &self.rows
    }

    /// Rows, deleted ones included.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }
}

impl LiveSegment {
    pub(super) fn len(&self) -> usize {
        (self.live.as_ref()).map_or(self.segment.len(), |live| live.len())
    }

    /// The segment's row of those that live.
    pub(super) fn row(&self, at: usize) -> usize {
        self.live.as_ref().map_or(at, |live| live[at] as usize)
    }

    /// Which of those that live a row of the segment is.
    pub(super) fn rank(&self, row: u32) -> u32 {
        match &self.live {
            Some(live) => live.partition_point(|&live| live < row) as u32,
            None => row,
        }
    }

    pub(super) fn rows(&self) -> Rows {
        self.segment.rows.only(self.live.clone())
    }
}

/// A passage as it is written.
pub(super) fn line(passage: &Passage) -> Vec<u8> {
    let mut line = serde_json::to_vec(passage).expect("a passage is text, numbers and names");
    line.push(b'\n');
    line
}

/// Of `count` rows those that are not `deleted`; `None` where these do not rise or are not there.
pub(super) fn live(count: usize, deleted: &[u32]) -> Option<Arc<[u32]>> {
    let rise = deleted.is_sorted_by(|a, b| a < b);
    let there = deleted.last().is_none_or(|&last| (last as usize) < count);
    if !rise || !there {
        return None;
    }
    let mut deleted = deleted.iter().copied().peekable();
    let rows = (0..count as u32).filter(|row| deleted.next_if_eq(row).is_none());
    Some(rows.collect())
}

/// Writes `count` rows: vectors in blocks, and passages line by line. Both are asked for twice.
pub(super) fn write<'a, V, L>(
    folder: &Path,
    count: usize,
    vectors: impl Fn() -> V,
    lines: impl Fn() -> L,
) -> Result<SegmentEntry>
where
    V: Iterator<Item = Cow<'a, [u8]>>,
    L: Iterator<Item = Result<Cow<'a, [u8]>>>,
{
    let vectors = write_named_by_content(folder, "vectors", "bin", |file| {
        vectors().try_for_each(|rows| file.write_all(&rows))
    })?;
    let mut offsets = Vec::new();
    let passages = write_named_by_content(folder, "passages", "jsonl", |file| {
        let mut end = 0;
        offsets = vec![end];
        for line in lines() {
            let line = line.map_err(io::Error::other)?;
            file.write_all(&line)?;
            end += line.len() as u64;
            offsets.push(end);
        }
        Ok(())
    })?;
    let offsets = write_named_by_content(folder, "offsets", "bin", |file| {
        let mut numbers = offsets.iter();
        numbers.try_for_each(|offset| file.write_all(&offset.to_le_bytes()))
    })?;
    Ok(SegmentEntry {
        count,
        vectors,
        passages,
        offsets,
        deleted: None,
    })
}

/// Writes which rows are deleted.
pub(super) fn write_deleted(folder: &Path, deleted: &BTreeSet<u32>) -> Result<FileEntry> {
    write_named_by_content(folder, "deleted", "bin", |file| {
        let mut rows = deleted.iter();
        rows.try_for_each(|row| file.write_all(&row.to_le_bytes()))
    })
}
