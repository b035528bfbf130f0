//! The attention heads of a model.

use super::{error::GgufError, keys::Keys};

type Result<T> = std::result::Result<T, GgufError>;

/// The attention heads of each layer.
pub(super) struct Heads {
    /// Heads of queries.
    pub queries: usize,
    /// Heads of keys and values.
    pub keys: usize,
    /// Elements of a head.
    pub size: usize,
}

impl Heads {
    /// Reads and checks the numbers of heads.
    pub fn of(keys: &Keys<'_>) -> Result<Self> {
        let queries = keys.dimension("attention.head_count")?;
        let own = match keys.count("attention.head_count_kv")? {
            None => queries,
            Some(_) => keys.dimension("attention.head_count_kv")?,
        };
        let hidden = keys.dimension("embedding_length")?;
        let size = match keys.count("attention.key_length")? {
            Some(_) => keys.dimension("attention.key_length")?,
            None if hidden.is_multiple_of(queries) => hidden / queries,
            None => {
                return Err(keys.wrong("attention.head_count", "a divisor of the width", queries));
            }
        };
        if !queries.is_multiple_of(own) || !size.is_multiple_of(2) {
            return Err(keys.wrong(
                "attention.head_count_kv",
                "a divisor of the query heads, of even size",
                format!("{own} of {queries} heads of size {size}"),
            ));
        }
        for key in ["attention.value_length", "rope.dimension_count"] {
            if let Some(other) = keys.count(key)?
                && other != size
            {
                return Err(keys.unsupported(key, other, &format!("the keys' size {size}")));
            }
        }
        Ok(Self {
            queries,
            keys: own,
            size,
        })
    }
}
