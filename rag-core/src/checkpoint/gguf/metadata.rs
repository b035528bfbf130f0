//! Metadata of a GGUF file, by key.

use super::{
    cursor::{Cursor, items, name_at},
    error::GgufError,
    value::{Array, Value},
};

type Result<T> = std::result::Result<T, GgufError>;

/// The metadata of a GGUF file. A getter returns `None` where the key is absent.
///
/// # Errors
/// Each getter: [`GgufError::Metadata`] where the value has another type.
#[derive(Clone, Copy, Debug)]
pub struct Metadata<'a> {
    file: &'a [u8],
    keys: &'a [usize],
}

impl<'a> Metadata<'a> {
    /// The metadata of `file`. `keys` holds the offset of each key, sorted by key.
    pub(super) fn new(file: &'a [u8], keys: &'a [usize]) -> Self {
        Self { file, keys }
    }

    /// The value of a key.
    pub(super) fn get(self, key: &str) -> Option<Value<'a>> {
        let file = self.file;
        let found = (self.keys).binary_search_by_key(&key, |at| name_at(file, *at));
        let at = self.keys[found.ok()?];
        Cursor::new(file, at).entry().ok().map(|(_, value)| value)
    }

    /// The keys, in order.
    pub fn keys(self) -> impl Iterator<Item = &'a str> {
        self.keys.iter().map(move |at| name_at(self.file, *at))
    }

    /// A text.
    pub fn text(self, key: &str) -> Result<Option<&'a str>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(found) => Err(GgufError::metadata(key, "a text", found)),
        }
    }

    /// A whole number of any width that is not negative. An array whose items are all the same number counts too.
    pub fn count(self, key: &str) -> Result<Option<usize>> {
        let value = self.get(key);
        let count = match value {
            None => return Ok(None),
            Some(Value::Unsigned(count)) => usize::try_from(count).ok(),
            Some(Value::Signed(count)) => usize::try_from(count).ok(),
            // Some models have an array with a number for each layer.
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

    /// An array, each item converted by `item`.
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
        let items: Result<Vec<T>> = items(array)
            .map(|value| {
                let value = value?;
                item(value).ok_or_else(|| GgufError::metadata(key, expected, Value::Array(array)))
            })
            .collect();
        items.map(Some)
    }
}

/// The number that all items of an array are.
fn same(array: Array<'_>) -> Option<usize> {
    let mut counts = items(array).map(|value| match value {
        Ok(Value::Unsigned(count)) => usize::try_from(count).ok(),
        Ok(Value::Signed(count)) => usize::try_from(count).ok(),
        _ => None,
    });
    let first = counts.next()??;
    counts.all(|count| count == Some(first)).then_some(first)
}
