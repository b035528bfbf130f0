//! Several segments written as one, beside the work that goes on.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use super::{
    SegmentEntry,
    segment::{self, LiveSegment},
};
use crate::{
    error::{Error, Result},
    knowledge::error::KnowledgeError,
};

/// A merge that runs in a thread of its own, and ends when this is dropped.
#[derive(Debug)]
pub(super) struct Merging {
    sources: Vec<Source>,
    cancelled: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<SegmentEntry>>>,
}

/// A segment as it was when its merge began.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) number: usize,
    pub(super) rows: LiveSegment,
}

impl Merging {
    pub(super) fn begin(folder: PathBuf, sources: Vec<Source>) -> Self {
        let merged = sources.clone();
        let cancelled = Arc::<AtomicBool>::default();
        let cancel = cancelled.clone();
        Self {
            sources,
            cancelled,
            thread: Some(thread::spawn(move || merge(&folder, &merged, &cancel))),
        }
    }

    pub(super) fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// The sources, one after the other in the segment that was written.
    pub(super) fn wait(mut self) -> Result<(Vec<Source>, SegmentEntry)> {
        let thread = self.thread.take().expect("nobody has waited for it yet");
        let entry = thread
            .join()
            .map_err(|_| Error::Knowledge(KnowledgeError::Merging))??;
        Ok((std::mem::take(&mut self.sources), entry))
    }
}

impl Drop for Merging {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.cancelled.store(true, Ordering::Relaxed);
            let _ = thread.join();
        }
    }
}

fn merge(folder: &Path, sources: &[Source], cancelled: &AtomicBool) -> Result<SegmentEntry> {
    let rows: Vec<_> = sources.iter().map(|source| source.rows.rows()).collect();
    segment::write(
        folder,
        sources.iter().map(|source| source.rows.len()).sum(),
        || rows.iter().flat_map(|rows| rows.encoded(segment::ROWS)),
        || {
            let rows = (sources.iter()).flat_map(|Source { rows, .. }| {
                (0..rows.len()).map(move |at| (rows, rows.row(at)))
            });
            rows.map(|(rows, row)| match cancelled.load(Ordering::Relaxed) {
                true => Err(KnowledgeError::Merging.into()),
                false => rows.segment.line(row),
            })
        },
    )
}
