//! Metadata of a GGUF file, by key.

use std::fmt;

use super::{container::Cursor, error::GgufError};

type Result<T> = std::result::Result<T, GgufError>;

/// The types of values, by their number in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ValueType {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    Text,
    Array,
    U64,
    I64,
    F64,
}

impl ValueType {
    pub fn from_id(id: u32) -> Option<Self> {
        use ValueType::*;
        let all = [
            U8, I8, U16, I16, U32, I32, F32, Bool, Text, Array, U64, I64, F64,
        ];
        all.get(id as usize).copied()
    }

    /// Bytes of the value; of a text, those of its length.
    pub fn shortest(self) -> usize {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 | Self::Text => 8,
            Self::Array => 12,
        }
    }
}

/// A value as it lies in the file.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Flag(bool),
    Text(&'a str),
    Array(Array<'a>),
}

/// Values of one type, one after another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Array<'a> {
    pub kind: ValueType,
    pub length: usize,
    pub bytes: &'a [u8],
}

impl<'a> Array<'a> {
    fn values(self) -> impl Iterator<Item = Result<Value<'a>>> {
        let mut cursor = Cursor {
            file: self.bytes,
            at: 0,
        };
        (0..self.length).map(move |_| cursor.value(self.kind, "an array"))
    }
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 80;
        match self {
            Self::Unsigned(value) => write!(f, "{value}"),
            Self::Signed(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value}"),
            Self::Flag(value) => write!(f, "{value}"),
            Self::Text(text) => {
                let shown: String = text.chars().take(SHOWN).collect();
                write!(f, "{shown:?}")
            }
            Self::Array(array) => write!(f, "an array of {} {:?}", array.length, array.kind),
        }
    }
}

/// The metadata of a GGUF file. A getter returns `None` where the key is absent.
///
/// # Errors
/// Each getter: [`GgufError::Metadata`] where the value has another type.
#[derive(Clone, Copy, Debug)]
pub struct Metadata<'a> {
    pub(super) file: &'a [u8],
    pub(super) keys: &'a [usize],
}

impl<'a> Metadata<'a> {
    pub(super) fn get(self, key: &str) -> Option<Value<'a>> {
        let file = self.file;
        let found = self.keys.binary_search_by_key(&key, |at| {
            Cursor { file, at: *at }.text("a key").unwrap_or_default()
        });
        let at = self.keys[found.ok()?];
        Cursor { file, at }.entry().ok().map(|(_, value)| value)
    }

    /// The keys, in order.
    pub fn keys(self) -> impl Iterator<Item = &'a str> {
        (self.keys.iter()).filter_map(move |at| {
            let mut cursor = Cursor {
                file: self.file,
                at: *at,
            };
            cursor.text("a key").ok()
        })
    }

    /// A text.
    pub fn text(self, key: &str) -> Result<Option<&'a str>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(found) => Err(GgufError::metadata(key, "a text", found)),
        }
    }

    /// A whole number that is not negative, of any width.
    pub fn count(self, key: &str) -> Result<Option<usize>> {
        let value = self.get(key);
        let count = match value {
            None => return Ok(None),
            Some(Value::Unsigned(count)) => usize::try_from(count).ok(),
            Some(Value::Signed(count)) => usize::try_from(count).ok(),
            // Some models give a number for each layer: one number, where all are the same.
            Some(Value::Array(array)) => same(array),
            Some(_) => None,
        };
        match (count, value) {
            (Some(count), _) => Ok(Some(count)),
            (None, Some(found)) => Err(GgufError::metadata(key, "a whole number", found)),
            (None, None) => Ok(None),
        }
    }

    /// A number, whole or not.
    pub fn number(self, key: &str) -> Result<Option<f64>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Float(value)) if value.is_finite() => Ok(Some(value)),
            Some(Value::Unsigned(value)) => Ok(Some(value as f64)),
            Some(Value::Signed(value)) => Ok(Some(value as f64)),
            Some(found) => Err(GgufError::metadata(key, "a finite number", found)),
        }
    }

    /// True or false.
    pub fn flag(self, key: &str) -> Result<Option<bool>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Flag(flag)) => Ok(Some(flag)),
            Some(found) => Err(GgufError::metadata(key, "true or false", found)),
        }
    }

    /// A list of texts.
    pub fn texts(self, key: &str) -> Result<Option<Vec<&'a str>>> {
        self.list(key, "a list of texts", |value| match value {
            Value::Text(text) => Some(text),
            _ => None,
        })
    }

    /// A list of numbers, whole or not.
    pub fn numbers(self, key: &str) -> Result<Option<Vec<f32>>> {
        self.list(key, "a list of numbers", |value| match value {
            Value::Float(value) => Some(value as f32),
            Value::Unsigned(value) => Some(value as f32),
            Value::Signed(value) => Some(value as f32),
            _ => None,
        })
    }

    fn list<T>(
        self,
        key: &str,
        expected: &str,
        item: impl Fn(Value<'a>) -> Option<T>,
    ) -> Result<Option<Vec<T>>> {
        let array = match self.get(key) {
            None => return Ok(None),
            Some(Value::Array(array)) => array,
            Some(found) => return Err(GgufError::metadata(key, expected, found)),
        };
        let items: Result<Vec<T>> = (array.values())
            .map(|value| {
                let value = value?;
                item(value).ok_or_else(|| GgufError::metadata(key, expected, Value::Array(array)))
            })
            .collect();
        items.map(Some)
    }
}

fn same(array: Array<'_>) -> Option<usize> {
    let mut counts = array.values().map(|value| match value {
        Ok(Value::Unsigned(count)) => usize::try_from(count).ok(),
        Ok(Value::Signed(count)) => usize::try_from(count).ok(),
        _ => None,
    });
    let first = counts.next()??;
    counts.all(|count| count == Some(first)).then_some(first)
}
