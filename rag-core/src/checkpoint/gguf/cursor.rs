//! Decoding of the header: every read checks that the file is long enough.

use super::{
    error::GgufError,
    value::{Array, Value, ValueType},
};

type Result<T> = std::result::Result<T, GgufError>;

/// Longest key or tensor name, in bytes. llama.cpp allows 63.
const LONGEST_NAME: usize = 255;

/// An offset in the file from which values are read one after another.
pub(super) struct Cursor<'a> {
    file: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// A cursor at the offset `at`, in bytes.
    pub fn new(file: &'a [u8], at: usize) -> Self {
        Self { file, at }
    }

    /// The offset of the next byte.
    pub fn offset(&self) -> usize {
        self.at
    }

    /// Reads `length` bytes. `what` names them in errors.
    fn take(&mut self, length: usize, what: &str) -> Result<&'a [u8]> {
        let rest = self.file.get(self.at..).unwrap_or_default();
        let bytes = rest.get(..length).ok_or_else(|| GgufError::Truncated {
            what: what.to_owned(),
        })?;
        self.at += length;
        Ok(bytes)
    }

    /// Reads `N` bytes.
    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, what)?);
        Ok(array)
    }

    /// Reads a `u32`.
    pub fn u32(&mut self, what: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    /// Reads a `u64`.
    pub fn u64(&mut self, what: &str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// Reads how many items of at least `size` bytes follow, and checks that the rest of the file can hold them.
    pub fn count(&mut self, what: &str, size: usize) -> Result<usize> {
        let count = self.u64(what)?;
        let rest = self.file.len() - self.at;
        match usize::try_from(count) {
            Ok(count) if count <= rest / size => Ok(count),
            _ => Err(GgufError::Truncated {
                what: format!("what {what} announces, {count}"),
            }),
        }
    }

    /// Reads a text after its length.
    pub fn text(&mut self, what: &str) -> Result<&'a str> {
        let length = self.count(what, 1)?;
        let bytes = self.take(length, what)?;
        std::str::from_utf8(bytes).map_err(|_| GgufError::damaged(format!("{what} is not UTF-8")))
    }

    /// Reads a text that is short enough for an error message.
    pub fn name(&mut self, what: &str) -> Result<&'a str> {
        match self.text(what)? {
            name if (1..=LONGEST_NAME).contains(&name.len()) => Ok(name),
            name => Err(GgufError::damaged(format!(
                "{what} has {} bytes",
                name.len()
            ))),
        }
    }

    /// Reads a key and its value.
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

    /// Reads the type of the value of `key`.
    fn kind(&mut self, key: &str) -> Result<ValueType> {
        let id = self.u32(key)?;
        ValueType::from_id(id)
            .ok_or_else(|| GgufError::damaged(format!("{key} has the unknown value type {id}")))
    }

    /// Reads a value that is not an array.
    fn value(&mut self, kind: ValueType, key: &str) -> Result<Value<'a>> {
        Ok(match kind {
            ValueType::U8 => Value::Unsigned(u8::from_le_bytes(self.array(key)?).into()),
            ValueType::U16 => Value::Unsigned(u16::from_le_bytes(self.array(key)?).into()),
            ValueType::U32 => Value::Unsigned(self.u32(key)?.into()),
            ValueType::U64 => Value::Unsigned(self.u64(key)?),
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
}

/// Decodes the text at the offset `at` of a header that is checked already: a key or a tensor's name.
pub(super) fn name_at(file: &[u8], at: usize) -> &str {
    Cursor::new(file, at).text("a name").unwrap_or_default()
}

/// Decodes the items of an array.
pub(super) fn items(array: Array<'_>) -> impl Iterator<Item = Result<Value<'_>>> {
    let mut cursor = Cursor::new(array.bytes, 0);
    (0..array.length).map(move |_| cursor.value(array.kind, "an array"))
}
