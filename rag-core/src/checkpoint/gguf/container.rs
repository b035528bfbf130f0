//! The container: a header of metadata and tensor descriptions, then the tensors' bytes.
//!
//! The whole header is checked once, by [`index`]. What stays in memory is where each key and each
//! description begins, 8 bytes for at least 14 in the file, so that no header makes the reader allocate
//! more than the file's own size; values are decoded when they are asked for.

use super::{
    blocks::TensorType,
    error::GgufError,
    metadata::{Array, Value, ValueType},
};

type Result<T> = std::result::Result<T, GgufError>;

/// Rows and columns and what they are stacked in: GGML's tensors have at most four dimensions.
const MOST_DIMENSIONS: usize = 4;
/// Longest key or name of a tensor, in bytes. llama.cpp's own end at 63.
const LONGEST_NAME: usize = 255;
/// Shortest key and value in the file, in bytes: length, one letter, type, one byte.
const SHORTEST_ENTRY: usize = 8 + 1 + 4 + 1;
/// Shortest description of a tensor, in bytes: length, one letter, one dimension, type, offset.
const SHORTEST_TENSOR: usize = 8 + 1 + 4 + 8 + 4 + 8;
const DEFAULT_ALIGNMENT: usize = 32;

/// Where things begin in the file.
#[derive(Clone, Debug)]
pub(super) struct Index {
    /// Each key, in the order of the keys.
    pub keys: Vec<usize>,
    /// Each tensor's description, in the order of the tensors' names.
    pub tensors: Vec<usize>,
    /// The tensors' bytes.
    pub data: usize,
}

/// A tensor as the header describes it.
#[derive(Clone, Debug)]
pub(super) struct Description<'a> {
    pub name: &'a str,
    /// Outermost first, as in PyTorch: the reverse of the file's order.
    pub shape: Vec<usize>,
    pub kind: TensorType,
    /// From [`Index::data`].
    pub offset: usize,
    pub length: usize,
}

/// The header's metadata: where each key begins, and where the metadata end.
pub(super) fn index_metadata(file: &[u8]) -> Result<(Vec<usize>, usize, usize)> {
    let mut cursor = Cursor { file, at: 0 };
    if file.get(..4) != Some(b"GGUF") {
        let found = String::from_utf8_lossy(&file[..file.len().min(4)]).into_owned();
        return Err(GgufError::Magic { found });
    }
    cursor.at = 4;
    match cursor.u32("the version")? {
        2 | 3 => {}
        found => return Err(GgufError::Version { found }),
    }
    let tensors = cursor.count("the number of tensors", SHORTEST_TENSOR)?;
    let entries = cursor.count("the number of metadata entries", SHORTEST_ENTRY)?;
    let mut keys = Vec::with_capacity(entries);
    for _ in 0..entries {
        keys.push(cursor.at);
        cursor.entry()?;
    }
    sort(file, &mut keys, "key")?;
    Ok((keys, tensors, cursor.at))
}

/// The descriptions of `count` tensors, of which the first begins at `start`.
pub(super) fn index_tensors(
    file: &[u8],
    start: usize,
    count: usize,
    alignment: usize,
) -> Result<(Vec<usize>, usize)> {
    let mut cursor = Cursor { file, at: start };
    let mut tensors = Vec::with_capacity(count);
    let mut end = 0_usize;
    for _ in 0..count {
        tensors.push(cursor.at);
        let found = cursor.description()?;
        // As llama.cpp asks: the tensors follow each other. Whatever changes an offset is seen.
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
    let data = cursor.at.checked_next_multiple_of(alignment);
    let whole = data.and_then(|data| data.checked_add(end));
    match (data, whole) {
        _ if count == 0 => sort(file, &mut tensors, "tensor").map(|()| (tensors, file.len())),
        (Some(data), Some(whole)) if whole <= file.len() => {
            sort(file, &mut tensors, "tensor")?;
            Ok((tensors, data))
        }
        _ => Err(GgufError::Truncated {
            what: "its tensors".into(),
        }),
    }
}

/// The alignment of tensors, in bytes: a power of two.
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

/// Sorts by the names that begin at each place. No name may be there twice.
fn sort(file: &[u8], places: &mut [usize], what: &str) -> Result<()> {
    let name = |at: usize| Cursor { file, at }.text("a name").unwrap_or_default();
    places.sort_unstable_by_key(|at| name(*at));
    match places.windows(2).find(|two| name(two[0]) == name(two[1])) {
        Some(two) => Err(GgufError::damaged(format!(
            "the {what} {:?} is there twice",
            name(two[0])
        ))),
        None => Ok(()),
    }
}

/// A place in the file from which values are read.
pub(super) struct Cursor<'a> {
    pub file: &'a [u8],
    pub at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize, what: &str) -> Result<&'a [u8]> {
        let rest = self.file.get(self.at..).unwrap_or_default();
        let bytes = rest.get(..length).ok_or_else(|| GgufError::Truncated {
            what: what.to_owned(),
        })?;
        self.at += length;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, what)?);
        Ok(array)
    }

    fn u32(&mut self, what: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    /// A number of things of at least `size` bytes that are still to come.
    fn count(&mut self, what: &str, size: usize) -> Result<usize> {
        let count = u64::from_le_bytes(self.array(what)?);
        let rest = self.file.len() - self.at;
        match usize::try_from(count) {
            Ok(count) if count <= rest / size => Ok(count),
            _ => Err(GgufError::Truncated {
                what: format!("what {what} announces, {count}"),
            }),
        }
    }

    pub fn text(&mut self, what: &str) -> Result<&'a str> {
        let length = self.count(what, 1)?;
        let bytes = self.take(length, what)?;
        std::str::from_utf8(bytes).map_err(|_| GgufError::damaged(format!("{what} is not UTF-8")))
    }

    /// A text short enough to be shown in an error.
    fn name(&mut self, what: &str) -> Result<&'a str> {
        match self.text(what)? {
            name if (1..=LONGEST_NAME).contains(&name.len()) => Ok(name),
            name => Err(GgufError::damaged(format!(
                "{what} has {} bytes",
                name.len()
            ))),
        }
    }

    /// A key and its value.
    pub fn entry(&mut self) -> Result<(&'a str, Value<'a>)> {
        let key = self.name("a key")?;
        let kind = self.kind(key)?;
        let value = match kind {
            ValueType::Array => {
                let kind = self.kind(key)?;
                let length = self.count(key, kind.shortest())?;
                let start = self.at;
                match kind {
                    ValueType::Array => {
                        return Err(GgufError::damaged(format!("{key} is an array of arrays")));
                    }
                    ValueType::Text => {
                        for _ in 0..length {
                            let length = self.count(key, 1)?;
                            self.take(length, key)?;
                        }
                    }
                    _ => {
                        self.take(length * kind.shortest(), key)?;
                    }
                }
                Value::Array(Array {
                    kind,
                    length,
                    bytes: &self.file[start..self.at],
                })
            }
            kind => self.value(kind, key)?,
        };
        Ok((key, value))
    }

    fn kind(&mut self, key: &str) -> Result<ValueType> {
        let id = self.u32(key)?;
        ValueType::from_id(id)
            .ok_or_else(|| GgufError::damaged(format!("{key} has the unknown value type {id}")))
    }

    /// A value that is no array.
    pub fn value(&mut self, kind: ValueType, key: &str) -> Result<Value<'a>> {
        Ok(match kind {
            ValueType::U8 => Value::Unsigned(u8::from_le_bytes(self.array(key)?).into()),
            ValueType::U16 => Value::Unsigned(u16::from_le_bytes(self.array(key)?).into()),
            ValueType::U32 => Value::Unsigned(u32::from_le_bytes(self.array(key)?).into()),
            ValueType::U64 => Value::Unsigned(u64::from_le_bytes(self.array(key)?)),
            ValueType::I8 => Value::Signed(i8::from_le_bytes(self.array(key)?).into()),
            ValueType::I16 => Value::Signed(i16::from_le_bytes(self.array(key)?).into()),
            ValueType::I32 => Value::Signed(i32::from_le_bytes(self.array(key)?).into()),
            ValueType::I64 => Value::Signed(i64::from_le_bytes(self.array(key)?)),
            ValueType::F32 => Value::Float(f32::from_le_bytes(self.array(key)?).into()),
            ValueType::F64 => Value::Float(f64::from_le_bytes(self.array(key)?)),
            ValueType::Bool => Value::Flag(self.array::<1>(key)? != [0]),
            ValueType::Text => Value::Text(self.text(key)?),
            ValueType::Array => return Err(GgufError::damaged(format!("{key} is an array"))),
        })
    }

    /// What the header says of a tensor.
    pub fn description(&mut self) -> Result<Description<'a>> {
        let name = self.name("a tensor's name")?;
        let dimensions = self.u32(name)? as usize;
        if !(1..=MOST_DIMENSIONS).contains(&dimensions) {
            return Err(GgufError::damaged(format!(
                "tensor {name} has {dimensions} dimensions"
            )));
        }
        let mut shape = Vec::with_capacity(dimensions);
        for _ in 0..dimensions {
            let dimension = u64::from_le_bytes(self.array(name)?);
            shape.push(usize::try_from(dimension).unwrap_or(usize::MAX));
        }
        let columns = shape[0];
        shape.reverse();
        let id = self.u32(name)?;
        let kind = TensorType::from_id(id).ok_or_else(|| GgufError::TensorType {
            tensor: name.to_owned(),
            found: TensorType::name_of(id),
            known: TensorType::known(),
        })?;
        let offset = u64::from_le_bytes(self.array(name)?);
        let rows = (shape[..dimensions - 1].iter())
            .try_fold(1_usize, |rows, dimension| rows.checked_mul(*dimension));
        let length = rows.and_then(|rows| {
            let row = (columns / kind.elements()).checked_mul(kind.bytes())?;
            // The elements too must be countable.
            rows.checked_mul(columns)?.checked_mul(size_of::<f32>())?;
            rows.checked_mul(row)
        });
        match (length, usize::try_from(offset)) {
            (Some(length), Ok(offset)) if length > 0 && columns.is_multiple_of(kind.elements()) => {
                Ok(Description {
                    name,
                    shape,
                    kind,
                    offset,
                    length,
                })
            }
            _ => Err(GgufError::damaged(format!(
                "tensor {name} has the shape {shape:?} in blocks of {}",
                kind.elements()
            ))),
        }
    }
}
