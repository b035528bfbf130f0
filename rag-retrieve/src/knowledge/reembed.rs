//! The vectors of another encoder for the same passages.

use std::{
    fs, io,
    io::Write,
    ops::Range,
    path::{Path, PathBuf},
};

use ndarray::Array2;
use rag_core::{Passage, atomic::write_file};

use super::{
    KnowledgeBase, KnowledgeWriter, Manifest, SegmentEntry,
    build::{check_width, embed},
    files::{Verification, remove_unlisted, write_named_by_content},
    segment::Segment,
    writer::Open,
};
use crate::{
    encoder::Embedder,
    error::Result,
    index::{Rows, Storage},
};

/// Rows whose vectors are kept together, in case that the work is cut off.
const KEPT: usize = 4096;
/// Where they are kept, before digits that stand for the encoder.
const FOLDER: &str = ".embedding-";
const HASH: usize = blake3::OUT_LEN;

impl KnowledgeWriter {
    /// Replaces all vectors by those of another encoder, in one step when the last is there; `progress`
    /// hears how many passages are done. Changes not committed yet are committed first, and segments merged.
    ///
    /// Where it is cut off, the knowledge base is what it was, and the next call with the same encoder
    /// goes on where this one ended.
    ///
    /// # Errors
    /// Those of [`KnowledgeWriter::commit`], of the encoder, [`IndexError::NotFinite`](crate::IndexError::NotFinite)
    /// and [`IndexError::HalfRange`](crate::IndexError::HalfRange).
    pub fn reembed(
        &mut self,
        encoder: &(impl Embedder + ?Sized),
        storage: Storage,
        mut progress: impl FnMut(usize),
    ) -> Result<KnowledgeBase> {
        self.compact()?;
        let fingerprint = encoder.fingerprint()?;
        let digits = &blake3::hash(fingerprint.hash.as_bytes()).to_string()[..16];
        let kept = self.folder.join(format!("{FOLDER}{digits}"));
        fs::create_dir_all(&kept).map_err(rag_core::Error::io(&kept))?;
        let mut done = 0;
        let mut dimension = None;
        for open in &self.segments {
            for block in Block::all(&kept, open) {
                let kept = block.read()?;
                let is_kept = kept.is_some();
                let vectors = match kept {
                    Some(vectors) => vectors,
                    None => {
                        let passages = (block.rows.clone())
                            .map(|row| open.segment.passage(row))
                            .collect::<Result<Vec<Passage>>>()?;
                        embed(&passages, encoder, &mut |some| progress(done + some))?
                    }
                };
                check_width(&vectors, *dimension.get_or_insert(vectors.ncols()))?;
                // Vectors that cannot be stored are not kept either.
                Rows::new(vectors.clone(), storage)?;
                if !is_kept {
                    block.write(&vectors)?;
                }
                done += block.rows.len();
                progress(done);
            }
        }
        let mut segments = Vec::new();
        for open in &self.segments {
            let vectors = write_named_by_content(&self.folder, "vectors", "bin", |file| {
                for block in Block::all(&kept, open) {
                    let vectors = block.read().map_err(io::Error::other)?;
                    let vectors = vectors.ok_or_else(|| io::Error::other("removed meanwhile"))?;
                    let rows = Rows::new(vectors, storage).map_err(io::Error::other)?;
                    rows.encoded(KEPT)
                        .try_for_each(|rows| file.write_all(&rows))?;
                }
                Ok(())
            })?;
            segments.push(SegmentEntry {
                vectors,
                ..open.entry.clone()
            });
        }
        let manifest = Manifest {
            encoder: fingerprint,
            dimension: dimension.unwrap_or(self.manifest.dimension),
            storage,
            segments,
            ..self.manifest.clone()
        };
        let opened = (manifest.segments.iter())
            .map(|entry| Segment::open(&self.folder, entry, &manifest, Verification::Sizes))
            .collect::<Result<Vec<_>>>()?;
        self.put(manifest)?;
        for (open, opened) in self.segments.iter_mut().zip(opened) {
            open.segment = opened.segment;
        }
        remove_unlisted(&self.folder, &self.manifest);
        remove_kept(&self.folder);
        Ok(self.snapshot())
    }
}

/// Some rows of a segment, and the file that keeps their vectors meanwhile: f32 row after row, and a hash
/// over them.
struct Block {
    path: PathBuf,
    rows: Range<usize>,
}

impl Block {
    fn all(kept: &Path, open: &Open) -> impl Iterator<Item = Self> {
        let digits = &open.entry.passages.blake3[..16];
        (0..open.entry.count).step_by(KEPT).map(move |start| Self {
            path: kept.join(format!("{digits}-{start}")),
            rows: start..open.entry.count.min(start + KEPT),
        })
    }

    /// The vectors, if they are there and whole.
    fn read(&self) -> Result<Option<Array2<f32>>> {
        let bytes = match fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(rag_core::Error::io(&self.path))?,
        };
        let Some((bytes, hash)) = bytes.split_last_chunk::<HASH>() else {
            return Ok(None);
        };
        if blake3::hash(bytes) != *hash {
            return Ok(None);
        }
        let numbers = bytes.as_chunks().0.iter().copied().map(f32::from_le_bytes);
        let dimension = bytes.len() / size_of::<f32>() / self.rows.len();
        let shape = (self.rows.len(), dimension);
        Ok(Array2::from_shape_vec(shape, numbers.collect()).ok())
    }

    /// Keeps the vectors of the rows.
    fn write(&self, vectors: &Array2<f32>) -> Result<()> {
        let bytes: Vec<u8> = vectors
            .iter()
            .flat_map(|number| number.to_le_bytes())
            .collect();
        Ok(write_file(&self.path, |file| {
            file.write_all(&bytes)?;
            file.write_all(blake3::hash(&bytes).as_bytes())
        })?)
    }
}

/// Removes what was kept, for whichever encoder.
fn remove_kept(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(FOLDER)
            && let Err(error) = fs::remove_dir_all(entry.path())
        {
            tracing::warn!(%error, folder = %entry.path().display(), "a folder of no use any more stays");
        }
    }
}
