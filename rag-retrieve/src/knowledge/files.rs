//! Files named after their content, and the lock of their folder.

use std::{
    fs::{self, File, TryLockError},
    io::{self, BufWriter, Write},
    path::Path,
};

use memmap2::Mmap;
use rag_core::atomic::write_file;

use super::{FileEntry, Manifest};
use crate::{error::Result, knowledge::error::KnowledgeError};

pub(super) const LOCK: &str = ".lock";
const DIGITS: usize = 16;
const WRITE_BUFFER: usize = 1 << 20;

/// How much of a file is looked at when it is opened.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Verification {
    Full,
    Sizes,
}

/// Writes what `write` gives, which must be the same each time: once to learn its hash and so its
/// name, once to the file.
pub(super) fn write_named_by_content(
    folder: &Path,
    part: &str,
    extension: &str,
    mut write: impl FnMut(&mut dyn Write) -> io::Result<()>,
) -> Result<FileEntry> {
    let mut digest = BufWriter::with_capacity(WRITE_BUFFER, Digest::default());
    write(&mut digest)
        .and_then(|()| digest.flush())
        .map_err(rag_core::Error::io(folder.join(part)))?;
    let Digest { hasher, bytes } = digest.get_ref();
    let blake3 = hasher.finalize().to_string();
    let file = format!("{part}-{}.{extension}", &blake3[..DIGITS]);
    write_file(folder.join(&file), |file| write(file))?;
    Ok(FileEntry {
        file,
        bytes: *bytes,
        blake3,
    })
}

#[derive(Default)]
struct Digest {
    hasher: blake3::Hasher,
    bytes: u64,
}

impl Write for Digest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hasher.update_rayon(bytes);
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(super) fn map_checked(
    folder: &Path,
    entry: &FileEntry,
    verification: Verification,
) -> Result<Mmap> {
    let path = &folder.join(&entry.file);
    let file = File::open(path).map_err(rag_core::Error::io(path))?;
    let found = file.metadata().map_err(rag_core::Error::io(path))?.len();
    if found != entry.bytes {
        return Err(KnowledgeError::Size {
            file: path.to_owned(),
            expected: entry.bytes,
            found,
        }
        .into());
    }
    let map = map(&file).map_err(rag_core::Error::io(path))?;
    if verification == Verification::Full {
        let found = blake3::Hasher::new()
            .update_rayon(&map)
            .finalize()
            .to_string();
        if found != entry.blake3 {
            return Err(KnowledgeError::Checksum {
                file: path.to_owned(),
                expected: entry.blake3.clone(),
                found,
            }
            .into());
        }
    }
    Ok(map)
}

/// `unsafe`, since Rust cannot know that nobody changes the file under the map.
/// Files of a knowledge base are written under another name, moved into place and never changed
/// after; they are only removed, which leaves a map as it was. Who edits or truncates one by other
/// means while it is open breaks this.
#[allow(unsafe_code)]
fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: as above, the file does not change while it is mapped.
    unsafe { Mmap::map(file) }
}

/// The lock of a folder, held until it is dropped, or the process ends, however it ends.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Lock {
    pub(super) fn of(folder: &Path) -> Result<Self> {
        let path = folder.join(LOCK);
        let mut options = File::options();
        let file = options.write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(rag_core::Error::io(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(KnowledgeError::Busy {
                folder: folder.to_owned(),
            }
            .into()),
            // Some network file systems have no locks.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                Ok(Self(file))
            }
            Err(TryLockError::Error(error)) => Err(rag_core::Error::io(&path)(error).into()),
        }
    }
}

impl Drop for Lock {
    /// Closing the file would do, but for a process that another thread is just starting: it holds
    /// a copy of the file until it runs its own program.
    fn drop(&mut self) {
        if let Err(error) = self.0.unlock() {
            tracing::debug!(%error, "the lock of a knowledge base is left to the system");
        }
    }
}

/// Removes what earlier saves left. The new knowledge base is in place, so what cannot be removed
/// now waits for the next save.
pub(super) fn remove_unlisted(folder: &Path, manifest: &Manifest) {
    let listed = |name: &str| manifest.files().any(|entry| entry.file == name);
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if is_ours(&name)
            && !listed(&name)
            && let Err(error) = fs::remove_file(entry.path())
        {
            tracing::warn!(%error, file = %entry.path().display(), "a file of no use any more stays");
        }
    }
}

fn is_ours(name: &str) -> bool {
    let named_by_content = |part: &str, extension: &str| {
        let digits = name
            .strip_prefix(part)
            .and_then(|name| name.strip_suffix(extension));
        digits.is_some_and(|digits| {
            digits.len() == DIGITS && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
        })
    };
    name.starts_with(".writing-")
        || named_by_content("vectors-", ".bin")
        || named_by_content("passages-", ".jsonl")
        || named_by_content("offsets-", ".bin")
        || named_by_content("deleted-", ".bin")
}
