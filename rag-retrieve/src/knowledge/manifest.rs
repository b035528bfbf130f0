use std::path::Path;

use serde::{Deserialize, Serialize};

use super::fingerprint::Fingerprint;
use crate::{
    error::{Error, Result},
    index::Storage,
    knowledge::error::KnowledgeError,
};

pub(super) const FORMAT_VERSION: u32 = 2;

/// The description of a knowledge base: `manifest.json`. Replacing it in a folder is the moment when a new knowledge
/// base takes the place of the previous one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Of the folder's layout.
    pub format_version: u32,
    /// Crate and version that made the knowledge base.
    pub created_by: String,
    /// Passages, and vectors, without those that are deleted.
    pub count: usize,
    /// Numbers in each vector.
    pub dimension: usize,
    /// How the numbers are kept.
    pub storage: Storage,
    /// The encoder of the vectors.
    pub encoder: Fingerprint,
    /// The segments in the folder. Empty in memory.
    pub segments: Vec<SegmentEntry>,
}

/// Passages that were written together. Its files never change; what is deleted of it stands in a file
/// of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentEntry {
    /// Passages, and vectors, deleted ones included.
    pub count: usize,
    /// `[count, dimension]` numbers.
    pub vectors: FileEntry,
    /// A passage a line.
    pub passages: FileEntry,
    /// `[count + 1]` u64: where lines start, and the end.
    pub offsets: FileEntry,
    /// u32, rising: the rows that are deleted; `None` where none is.
    pub deleted: Option<FileEntry>,
}

impl SegmentEntry {
    /// How many rows are deleted.
    pub fn deleted(&self) -> usize {
        let bytes = self.deleted.as_ref().map_or(0, |deleted| deleted.bytes);
        bytes as usize / size_of::<u32>()
    }

    /// Its files.
    pub fn files(&self) -> impl Iterator<Item = &FileEntry> {
        [&self.vectors, &self.passages, &self.offsets]
            .into_iter()
            .chain(&self.deleted)
    }
}

/// A file of a knowledge base, named after its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Name in the folder.
    pub file: String,
    /// Length.
    pub bytes: u64,
    /// BLAKE3 hash of the content, in hexadecimal.
    pub blake3: String,
}

/// The manifest as it stands on disk, with a hash over itself.
#[derive(Serialize, Deserialize)]
struct Sealed<M> {
    blake3: String,
    manifest: M,
}

#[derive(Deserialize)]
struct Version {
    format_version: u32,
}

impl Fingerprint {
    /// Refuses another encoder than this, which made the vectors.
    ///
    /// # Errors
    /// [`KnowledgeError::OtherEncoder`] where the hashes differ; descriptions are for people.
    pub fn check(&self, found: &Self) -> Result<()> {
        if found.hash == self.hash {
            return Ok(());
        }
        Err(KnowledgeError::OtherEncoder {
            expected: self.clone(),
            found: found.clone(),
        }
        .into())
    }
}

impl Manifest {
    /// The content of `manifest.json`.
    pub(super) fn seal(&self) -> serde_json::Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec_pretty(&Sealed {
            blake3: self.hash()?,
            manifest: self,
        })?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    fn hash(&self) -> serde_json::Result<String> {
        Ok(blake3::hash(&serde_json::to_vec(self)?).to_string())
    }

    /// Reads `bytes`, the content of `path`, and finds any change to it.
    pub(super) fn unseal(path: &Path, bytes: &[u8]) -> Result<Self> {
        let json = |error| rag_core::Error::json(path)(error);
        let version: Sealed<Version> = serde_json::from_slice(bytes).map_err(json)?;
        if version.manifest.format_version != FORMAT_VERSION {
            return Err(KnowledgeError::FormatVersion {
                file: path.to_owned(),
                expected: FORMAT_VERSION,
                found: version.manifest.format_version,
            }
            .into());
        }
        let sealed: Sealed<Self> = serde_json::from_slice(bytes).map_err(json)?;
        let found = sealed.manifest.hash().map_err(json)?;
        if found != sealed.blake3 {
            return Err(KnowledgeError::Checksum {
                file: path.to_owned(),
                expected: sealed.blake3,
                found,
            }
            .into());
        }
        let damaged = |reason| {
            Error::Knowledge(KnowledgeError::Damaged {
                file: path.to_owned(),
                reason,
            })
        };
        if sealed.manifest.seal().map_err(json)? != bytes {
            return Err(damaged("it is not written as rag-retrieve writes it"));
        }
        sealed.manifest.check().map_err(damaged)?;
        Ok(sealed.manifest)
    }

    /// Refuses a manifest that contradicts itself, though its hash is right.
    pub(super) fn check(&self) -> std::result::Result<(), &'static str> {
        let product = |factors: [usize; 3]| {
            let factors = factors.into_iter().map(|factor| factor as u64);
            factors.fold(1, u64::saturating_mul)
        };
        if self.count == 0 || self.dimension == 0 {
            return Err("it says that there are no passages, or no numbers in a vector");
        }
        let mut count = 0;
        for segment in &self.segments {
            if segment.vectors.bytes
                != product([segment.count, self.dimension, self.storage.width()])
            {
                return Err("its vectors are not count × dimension numbers");
            }
            if segment.offsets.bytes
                != product([segment.count.saturating_add(1), size_of::<u64>(), 1])
            {
                return Err("its offsets are not count + 1 numbers");
            }
            let numbers =
                |deleted: &FileEntry| deleted.bytes.is_multiple_of(size_of::<u32>() as u64);
            if !segment.deleted.iter().all(numbers) || segment.deleted() > segment.count {
                return Err("its deleted rows are not numbers, or more than there were");
            }
            count += segment.count - segment.deleted();
        }
        if count != self.count {
            return Err("its segments do not hold as many passages as it says");
        }
        let plain = |name: &str| Path::new(name).file_name() == Some(name.as_ref());
        if !self.files().all(|entry| plain(&entry.file)) {
            return Err("it names a file outside its folder");
        }
        Ok(())
    }

    /// The files of all segments.
    pub fn files(&self) -> impl Iterator<Item = &FileEntry> {
        self.segments.iter().flat_map(SegmentEntry::files)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let entry = |file: &str, bytes| FileEntry {
            file: file.to_owned(),
            bytes,
            blake3: String::new(),
        };
        Manifest {
            format_version: FORMAT_VERSION,
            created_by: "test".to_owned(),
            count: 2,
            dimension: 3,
            storage: Storage::F16,
            encoder: Fingerprint::new("abc", "tiny “encoder”"),
            segments: vec![SegmentEntry {
                count: 3,
                vectors: entry("vectors.bin", 18),
                offsets: entry("offsets.bin", 32),
                passages: entry("passages.jsonl", 1),
                deleted: Some(entry("deleted.bin", 4)),
            }],
        }
    }

    #[test]
    fn any_changed_byte_is_found() {
        let path = Path::new("folder/manifest.json");
        let bytes = manifest().seal().unwrap();
        assert_eq!(Manifest::unseal(path, &bytes).unwrap(), manifest());
        for at in 0..bytes.len() {
            for change in [1, 2, 0x10, 0x20, 0x80] {
                let mut changed = bytes.clone();
                changed[at] ^= change;
                let error = Manifest::unseal(path, &changed).unwrap_err().to_string();
                assert!(error.contains("manifest.json"), "{error}");
            }
            assert!(Manifest::unseal(path, &bytes[..at]).is_err());
        }
        assert!(Manifest::unseal(path, &[&bytes[..], b" "].concat()).is_err());
    }

    #[test]
    fn a_newer_format_is_named() {
        let newer = Manifest {
            format_version: 3,
            ..manifest()
        };
        let error = Manifest::unseal(Path::new("m"), &newer.seal().unwrap()).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Knowledge(KnowledgeError::FormatVersion { found: 3, .. })
            ),
            "{error}"
        );
    }

    #[test]
    fn contradictions_are_refused() {
        let contradictions: [fn(&mut Manifest); 6] = [
            |m| m.count = 3,
            |m| m.dimension = 0,
            |m| m.segments[0].count = usize::MAX,
            |m| m.segments[0].deleted.as_mut().unwrap().bytes = 5,
            |m| m.segments[0].passages.file.insert_str(0, "../"),
            |m| m.segments.clear(),
        ];
        for contradict in contradictions {
            let mut manifest = manifest();
            contradict(&mut manifest);
            let error = Manifest::unseal(Path::new("m"), &manifest.seal().unwrap()).unwrap_err();
            assert!(
                matches!(error, Error::Knowledge(KnowledgeError::Damaged { .. })),
                "{error}"
            );
        }
    }

    #[test]
    fn fingerprints_are_shown_short() {
        let fingerprint = Fingerprint::new("0123456789abcdef", "facebook/dpr");
        assert_eq!(fingerprint.to_string(), "facebook/dpr (0123456789ab)");
    }
}
