//! The folder of a knowledge base, and why a crash cannot lose it.
//!
//! ```text
//! manifest.json                         counts, encoder, segments, and hash of each file below and of itself
//! vectors-<first 16 of BLAKE3>.bin      [rows, dimension], rows of little-endian f32 or f16
//! passages-<first 16 of BLAKE3>.jsonl   a passage a line
//! offsets-<first 16 of BLAKE3>.bin      [rows + 1], little-endian u64: where lines start, and the end
//! deleted-<first 16 of BLAKE3>.bin      little-endian u32, rising: rows that are deleted
//! .lock                                 held while saving or changing
//! ```
//!
//! A segment is vectors, passages and offsets that were written together. Data files are written under
//! names of their own content, so none that the present manifest lists is ever touched; then
//! `manifest.json` is replaced in one step; then what is no longer listed is removed. Whenever it is cut
//! off, the folder holds one whole knowledge base, the previous or the new one.

use std::{fs, io, io::Write, path::Path};

use rag_core::atomic::write_file;

use super::{
    KnowledgeBase, Manifest,
    files::{Lock, Verification, remove_unlisted},
    segment::{self, Segment},
};
use crate::{
    error::{Error, Result},
    knowledge::error::KnowledgeError,
};

const MANIFEST: &str = "manifest.json";

impl KnowledgeBase {
    /// Writes the knowledge base to a folder, in the place of the one that may be there.
    ///
    /// A crash, at any moment, leaves the previous one or the new one, whole. Those who have the
    /// previous one open keep it.
    ///
    /// # Errors
    /// [`KnowledgeError::Busy`] while someone else saves to the folder or has a [`KnowledgeWriter`](super::KnowledgeWriter)
    /// of it; [`Error::Core`] where a file cannot
    /// be written, with the previous knowledge base untouched.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        let folder = folder.as_ref();
        fs::create_dir_all(folder).map_err(rag_core::Error::io(folder))?;
        let _lock = Lock::of(folder)?;
        let lines = || (0..self.len()).map(|position| self.line(position));
        let segment = segment::write(folder, self.len(), || self.index.encoded(), lines)?;
        let manifest = Manifest {
            segments: vec![segment],
            ..self.manifest.clone()
        };
        put_manifest(folder, &manifest)?;
        remove_unlisted(folder, &manifest);
        Ok(())
    }

    /// Opens a folder that [`KnowledgeBase::save`] wrote: maps its files and checks every byte of
    /// them against the manifest, on all cores.
    ///
    /// # Errors
    /// [`KnowledgeError::Size`], [`KnowledgeError::Checksum`], [`KnowledgeError::Damaged`] or [`Error::Core`] naming the file
    /// that is not what was written, [`KnowledgeError::FormatVersion`] for another version's folder,
    /// [`KnowledgeError::NotAKnowledgeBase`] for one of something else.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(folder.as_ref(), Verification::Full)
    }

    /// Opens a folder without reading its data: only the manifest and the files' sizes are checked.
    /// For knowledge bases so large that reading them once takes too long.
    ///
    /// # Errors
    /// As [`KnowledgeBase::open`], but that changed bytes in data files come to light late or not at
    /// all.
    pub fn open_unverified(folder: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(folder.as_ref(), Verification::Sizes)
    }

    fn open_with(folder: &Path, verification: Verification) -> Result<Self> {
        let path = folder.join(MANIFEST);
        open_settled(
            || match fs::read(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && folder.is_dir() => {
                    let folder = folder.to_owned();
                    Err(KnowledgeError::NotAKnowledgeBase { folder }.into())
                }
                read => Ok(read.map_err(rag_core::Error::io(&path))?),
            },
            |bytes| Self::load(folder, Manifest::unseal(&path, bytes)?, verification),
        )
    }

    fn load(folder: &Path, manifest: Manifest, verification: Verification) -> Result<Self> {
        let segments = (manifest.segments.iter())
            .map(|entry| Segment::open(folder, entry, &manifest, verification))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self::of(manifest, segments))
    }
}

/// The moment at which a new knowledge base takes the place of the previous one.
pub(super) fn put_manifest(folder: &Path, manifest: &Manifest) -> Result<()> {
    let path = folder.join(MANIFEST);
    manifest.check().map_err(|reason| {
        Error::Knowledge(KnowledgeError::Damaged {
            file: path.clone(),
            reason,
        })
    })?;
    Ok(write_file(&path, |file| file.write_all(&manifest.seal()?))?)
}

/// Opens what a manifest lists; again where that fails because a save has replaced the manifest, and
/// removed what it listed, since it was read.
fn open_settled<T>(
    read: impl Fn() -> Result<Vec<u8>>,
    open: impl Fn(&[u8]) -> Result<T>,
) -> Result<T> {
    let mut manifest = read()?;
    loop {
        let opened = open(&manifest);
        if opened.is_ok() {
            return opened;
        }
        let now = read()?;
        if now == manifest {
            return opened;
        }
        manifest = now;
    }
}

#[cfg(test)]
mod tests {
    use std::{
        process::{Command, Stdio},
        time::Duration,
    };

    use ndarray::Array2;
    use rag_core::Passage;

    use super::*;
    use crate::{
        index::{Index, Storage},
        knowledge::{Fingerprint, files::LOCK},
    };

    const CHILD: &str = "RAG_RETRIEVE_TEST_SAVES_TO";

    fn knowledge(count: usize, storage: Storage) -> KnowledgeBase {
        let passage = |n| Passage::new(format!("{count}-{n}"), "标题", format!("line\n{n}"));
        let vectors = Array2::from_shape_fn((count, 3), |(row, column)| (row * 3 + column) as f32);
        KnowledgeBase::new(
            (0..count).map(passage).collect(),
            vectors,
            storage,
            Fingerprint::new(format!("{count}"), "test"),
        )
        .unwrap()
    }

    fn same(a: &KnowledgeBase, b: &KnowledgeBase) {
        assert_eq!(a.manifest().encoder, b.manifest().encoder);
        assert_eq!(a.index().storage(), b.index().storage());
        let passages = |base: &KnowledgeBase| base.passages().collect::<Result<Vec<_>>>().unwrap();
        assert_eq!(passages(a), passages(b));
        assert_eq!(a.index().rows(0..a.len()), b.index().rows(0..b.len()));
        let queries = Array2::from_elem((2, 3), 0.5);
        let search = |base: &KnowledgeBase| base.index().search(queries.view(), 4).unwrap();
        assert_eq!(search(a), search(b));
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn mapped_equals_in_memory() {
        for storage in [Storage::F32, Storage::F16] {
            let folder = tempfile::tempdir().unwrap();
            let memory = knowledge(7, storage);
            memory.save(&folder).unwrap();
            let mapped = KnowledgeBase::open(&folder).unwrap();
            same(&memory, &mapped);
            same(&memory, &KnowledgeBase::open_unverified(&folder).unwrap());

            let files = names(folder.path());
            mapped.save(&folder).unwrap(); // onto itself
            assert_eq!(names(folder.path()), files);
            same(&memory, &KnowledgeBase::open(&folder).unwrap());
        }
    }

    #[test]
    fn a_new_one_replaces_the_old_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["vectors-mine.bin", "notes.txt", ".writing-cut-off"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        knowledge(2, Storage::F32).save(&folder).unwrap();
        let old = KnowledgeBase::open(&folder).unwrap();
        knowledge(3, Storage::F16).save(&folder).unwrap();
        same(&old, &knowledge(2, Storage::F32));
        same(
            &KnowledgeBase::open(&folder).unwrap(),
            &knowledge(3, Storage::F16),
        );
        let names = names(folder.path());
        assert_eq!(names.len(), 5 + 2, "{names:?}");
        assert!(names.contains(&"vectors-mine.bin".to_owned()));
    }

    #[test]
    fn any_changed_byte_is_found_and_its_file_named() {
        let folder = tempfile::tempdir().unwrap();
        knowledge(2, Storage::F16).save(&folder).unwrap();
        for name in names(folder.path()).iter().filter(|name| *name != LOCK) {
            let path = folder.path().join(name);
            let bytes = fs::read(&path).unwrap();
            let refuses = |changed: &[u8]| {
                fs::write(&path, changed).unwrap();
                let error = KnowledgeBase::open(&folder).unwrap_err().to_string();
                assert!(error.contains(name.as_str()), "{error}");
            };
            for at in 0..bytes.len() {
                let mut changed = bytes.clone();
                changed[at] ^= 1;
                refuses(&changed);
            }
            refuses(&bytes[..bytes.len() - 1]);
            refuses(&[]);
            refuses(&[&bytes[..], &[0]].concat());
            fs::remove_file(&path).unwrap();
            let error = KnowledgeBase::open(&folder).unwrap_err().to_string();
            assert!(error.contains(name.as_str()), "{error}");
            fs::write(&path, &bytes).unwrap();
        }
        KnowledgeBase::open(&folder).unwrap();
    }

    #[test]
    fn damage_in_an_unverified_file_is_an_error_not_a_panic() {
        let folder = tempfile::tempdir().unwrap();
        knowledge(2, Storage::F32).save(&folder).unwrap();
        for part in ["offsets", "passages"] {
            let names = names(folder.path());
            let name = names.iter().find(|name| name.starts_with(part)).unwrap();
            let path = folder.path().join(name);
            let bytes = fs::read(&path).unwrap();
            fs::write(&path, vec![0xff; bytes.len()]).unwrap();
            let opened = KnowledgeBase::open_unverified(&folder).unwrap();
            assert!(opened.passages().all(|passage| passage.is_err()));
            fs::write(&path, bytes).unwrap();
        }
    }

    #[test]
    fn two_savers_do_not_meet() {
        let folder = tempfile::tempdir().unwrap();
        let held = Lock::of(folder.path()).unwrap();
        let error = knowledge(2, Storage::F32).save(&folder).unwrap_err();
        assert!(
            matches!(error, Error::Knowledge(KnowledgeError::Busy { .. })),
            "{error}"
        );
        drop(held);
        knowledge(2, Storage::F32).save(&folder).unwrap();
    }

    #[test]
    fn readers_of_a_folder_being_replaced_see_one_or_the_other() {
        let folder = tempfile::tempdir().unwrap();
        knowledge(2, Storage::F32).save(&folder).unwrap();
        std::thread::scope(|scope| {
            let saving = scope.spawn(|| {
                for round in 0..20 {
                    knowledge(3 + round, Storage::F32).save(&folder).unwrap();
                }
            });
            while !saving.is_finished() {
                let opened = KnowledgeBase::open(&folder).unwrap();
                same(&opened, &knowledge(opened.len(), Storage::F32));
            }
        });
    }

    #[test]
    fn a_manifest_replaced_under_a_reader_is_read_again() {
        let replaced_after = |reads: usize| {
            let count = std::cell::Cell::new(0);
            move || {
                count.set(count.get() + 1);
                Ok(vec![u8::from(count.get() > reads)])
            }
        };
        let open = |manifest: &[u8]| match manifest {
            [0] => Err(KnowledgeError::Empty.into()),
            _ => Ok("new"),
        };
        assert_eq!(open_settled(replaced_after(1), open).unwrap(), "new");
        assert!(open_settled(replaced_after(2), open).is_err());
    }

    /// The process that [`a_killed_save_leaves_a_whole_knowledge_base`] kills; nothing by itself.
    #[test]
    fn saves_until_killed() {
        let Some(folder) = std::env::var_os(CHILD) else {
            return;
        };
        for round in 0.. {
            knowledge(40 + round % 3, Storage::F32)
                .save(&folder)
                .unwrap();
        }
    }

    #[test]
    fn a_killed_save_leaves_a_whole_knowledge_base() {
        let folder = tempfile::tempdir().unwrap();
        knowledge(40, Storage::F32).save(&folder).unwrap();
        let test = module_path!().split_once("::").unwrap().1.to_owned() + "::saves_until_killed";
        let mut interrupted = 0;
        let mut wait = 3;
        for _ in 0..30 {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args([test.as_str(), "--exact", "--nocapture"])
                .env(CHILD, folder.path())
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            wait = wait * 37 % 61;
            std::thread::sleep(Duration::from_millis(10 + wait));
            child.kill().unwrap();
            child.wait().unwrap();
            interrupted += usize::from(names(folder.path()).len() != 5);
            let opened = KnowledgeBase::open(&folder).unwrap();
            same(&opened, &knowledge(opened.len(), Storage::F32));
        }
        assert!(
            interrupted > 0,
            "no save was cut off half-way; the test shows nothing"
        );
        knowledge(40, Storage::F32).save(&folder).unwrap();
        assert_eq!(names(folder.path()).len(), 5);
    }
}
