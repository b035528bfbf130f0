use crate::{error::Result, remote::error::RemoteError};

/// One of several parts of a corpus, for machines that embed it together: each filters the passages by its
/// own shard, and no two take the same. Ids decide, so a part stays what it is when the corpus grows.
///
/// ```
/// # use rag_core::Passage;
/// # use rag_retrieve::remote::Shard;
/// # let passages = (0..100).map(|n| Passage::new(format!("{n}"), "", "text"));
/// let second = Shard::new(1, 3)?;
/// let mine: Vec<Passage> = passages.filter(|passage| second.holds(&passage.id)).collect();
/// # assert!((20..50).contains(&mine.len()));
/// # Ok::<(), rag_retrieve::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    index: usize,
    count: usize,
}

impl Shard {
    /// The shard `index`, from 0, of `count`.
    ///
    /// # Errors
    /// [`RemoteError::Shard`] where there is no such shard.
    pub fn new(index: usize, count: usize) -> Result<Self> {
        match index < count {
            true => Ok(Self { index, count }),
            false => Err(RemoteError::Shard { index, count }.into()),
        }
    }

    /// Whether the passage of this id belongs to it.
    pub fn holds(&self, id: &str) -> bool {
        let hash = blake3::hash(id.as_bytes());
        let first = u64::from_le_bytes(*hash.as_bytes().first_chunk().expect("32 bytes"));
        first % self.count as u64 == self.index as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn every_id_is_in_one_shard() {
        let shards: Vec<Shard> = (0..7).map(|index| Shard::new(index, 7).unwrap()).collect();
        for n in 0..1000 {
            let id = format!("标题-{n}");
            assert_eq!(shards.iter().filter(|shard| shard.holds(&id)).count(), 1);
        }
    }

    #[test]
    fn a_shard_that_is_not_there() {
        for (index, count) in [(3, 3), (0, 0)] {
            assert!(matches!(
                Shard::new(index, count),
                Err(Error::Remote(RemoteError::Shard { .. }))
            ));
        }
    }
}
