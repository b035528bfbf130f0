//! The GGUF container: a header with metadata and descriptions of tensors, then the tensors' bytes.
//!
//! [`Header::read`] and [`Container::read`] check the whole header once. Memory then holds only the offset of each
//! key and each description, 8 bytes for at least 14 in the file: no header makes the reader allocate more than the
//! file's own size. Values are decoded on request.

use std::ops::Range;

use bytes::Bytes;

use super::{
    cursor::{Cursor, name_at},
    description::Description,
    error::GgufError,
    metadata::Metadata,
    value::Value,
};

type Result<T> = std::result::Result<T, GgufError>;

/// Fewest bytes of a key and its value: length, one letter, type, one byte.
const SHORTEST_ENTRY: usize = 8 + 1 + 4 + 1;
/// Fewest bytes of a tensor's description: length, one letter, number of dimensions, one dimension, type, offset.
const SHORTEST_TENSOR: usize = 8 + 1 + 4 + 8 + 4 + 8;
/// Alignment of tensors, in bytes, where the metadata do not say.
const DEFAULT_ALIGNMENT: usize = 32;

/// The first part of the header: the metadata.
pub(super) struct Header {
    /// The offset of each key, sorted by key.
    keys: Vec<usize>,
    /// How many tensors the second part describes.
    tensors: usize,
    /// The offset of the second part.
    end: usize,
}

impl Header {
    /// Reads and checks the metadata of a file.
    pub fn read(file: &[u8]) -> Result<Self> {
        if file.get(..4) != Some(b"GGUF") {
            let found = String::from_utf8_lossy(&file[..file.len().min(4)]).into_owned();
            return Err(GgufError::Magic { found });
        }
        let mut cursor = Cursor::new(file, 4);
        match cursor.u32("the version")? {
            2 | 3 => {}
            found => return Err(GgufError::Version { found }),
        }
        let tensors = cursor.count("the number of tensors", SHORTEST_TENSOR)?;
        let entries = cursor.count("the number of metadata entries", SHORTEST_ENTRY)?;
        let mut keys = Vec::with_capacity(entries);
        for _ in 0..entries {
            keys.push(cursor.offset());
            cursor.entry()?;
        }
        sort(file, &mut keys, "key")?;
        let end = cursor.offset();
        Ok(Self { keys, tensors, end })
    }

    /// The metadata; `file` is the one that [`Header::read`] has read.
    pub fn metadata<'a>(&'a self, file: &'a [u8]) -> Metadata<'a> {
        Metadata::new(file, &self.keys)
    }
}

/// A file whose header is checked.
#[derive(Clone)]
pub(super) struct Container {
    file: Bytes,
    /// The offset of each key, sorted by key.
    keys: Vec<usize>,
    /// The offset of each tensor's description, sorted by the tensor's name.
    tensors: Vec<usize>,
    /// The offset of the first tensor.
    data: usize,
}

impl Container {
    /// Reads and checks the second part of a header, the descriptions of the tensors.
    pub fn read(file: Bytes, header: Header) -> Result<Self> {
        let alignment = alignment(header.metadata(&file).get("general.alignment"))?;
        let mut cursor = Cursor::new(&file, header.end);
        let mut tensors = Vec::with_capacity(header.tensors);
        let mut end = 0_usize;
        for _ in 0..header.tensors {
            tensors.push(cursor.offset());
            let found = Description::read(&mut cursor)?;
            // llama.cpp asks for tensors without gaps too. The check detects every changed offset.
            if Some(found.offset) != end.checked_next_multiple_of(alignment) {
                return Err(GgufError::damaged(format!(
                    "tensor {} begins at {}, the one before ends at {end}",
                    found.name, found.offset
                )));
            }
            end = (found.offset.checked_add(found.length)).ok_or_else(|| {
                GgufError::damaged(format!("tensor {} is larger than any file", found.name))
            })?;
        }
        let data = match cursor.offset().checked_next_multiple_of(alignment) {
            // Without tensors nothing need follow the header.
            _ if tensors.is_empty() => file.len(),
            Some(data) if data.checked_add(end).is_some_and(|end| end <= file.len()) => data,
            _ => {
                return Err(GgufError::Truncated {
                    what: "its tensors".into(),
                });
            }
        };
        sort(&file, &mut tensors, "tensor")?;
        Ok(Self {
            file,
            keys: header.keys,
            tensors,
            data,
        })
    }

    /// The metadata, by llama.cpp's keys.
    pub fn metadata(&self) -> Metadata<'_> {
        Metadata::new(&self.file, &self.keys)
    }

    /// How many tensors the file has.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// The descriptions of all tensors, sorted by name.
    pub fn descriptions(&self) -> impl Iterator<Item = Result<Description<'_>>> {
        self.tensors.iter().map(|at| self.description_at(*at))
    }

    /// The description of the tensor `name`.
    pub fn description(&self, name: &str) -> Result<Option<Description<'_>>> {
        let found = (self.tensors).binary_search_by_key(&name, |at| name_at(&self.file, *at));
        let found = found.ok().map(|at| self.description_at(self.tensors[at]));
        found.transpose()
    }

    /// The bytes of a tensor.
    pub fn tensor_bytes(&self, tensor: &Description<'_>) -> Bytes {
        let start = self.data + tensor.offset;
        self.file.slice(start..start + tensor.length)
    }

    /// Where bytes of the file stand in it.
    pub fn place_of(&self, bytes: &Bytes) -> Range<usize> {
        let start = bytes.as_ptr().addr() - self.file.as_ptr().addr();
        start..start + bytes.len()
    }

    fn description_at(&self, at: usize) -> Result<Description<'_>> {
        Description::read(&mut Cursor::new(&self.file, at))
    }
}

/// The alignment of tensors, in bytes; `value` is that of `general.alignment`.
pub(super) fn alignment(value: Option<Value<'_>>) -> Result<usize> {
    let key = "general.alignment";
    match value {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(Value::Unsigned(found)) if found.is_power_of_two() && found <= 1 << 20 => {
            Ok(found as usize)
        }
        Some(found) => Err(GgufError::metadata(key, "a power of two up to 2^20", found)),
    }
}

/// Sorts offsets by the names that begin there. Two equal names are an error.
fn sort(file: &[u8], offsets: &mut [usize], what: &str) -> Result<()> {
    let name = |at: usize| name_at(file, at);
    offsets.sort_unstable_by_key(|at| name(*at));
    match offsets.windows(2).find(|two| name(two[0]) == name(two[1])) {
        Some(two) => Err(GgufError::damaged(format!(
            "the {what} {:?} is there twice",
            name(two[0])
        ))),
        None => Ok(()),
    }
}
