//! Which pairs make the batches of an epoch.

use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};
use serde::{Deserialize, Serialize};

/// How pairs are put into batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// At random.
    #[default]
    Shuffled,
    /// At random among pairs of like length, so that little is padded.
    ByLength,
}

/// Batches that are sorted by length together.
const POOL: usize = 50;

/// The batches of an epoch, as positions among pairs of the given lengths: a function of seed and
/// epoch alone, so that a resumed epoch goes on where it was.
pub(crate) fn batches(
    order: Order,
    lengths: &[usize],
    batch_size: usize,
    seed: u64,
    epoch: usize,
) -> Vec<Vec<usize>> {
    let mut random = StdRng::seed_from_u64(seed.wrapping_add(epoch as u64));
    let mut positions: Vec<usize> = (0..lengths.len()).collect();
    positions.shuffle(&mut random);
    if order == Order::ByLength {
        for pool in positions.chunks_mut(POOL * batch_size) {
            pool.sort_by_key(|&i| lengths[i]);
        }
    }
    let mut batches: Vec<Vec<usize>> = positions.chunks(batch_size).map(<[_]>::to_vec).collect();
    if order == Order::ByLength {
        batches.shuffle(&mut random);
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_once_in_batches_of_like_length() {
        let lengths: Vec<usize> = (0..103).map(|i| i * 37 % 101).collect();
        for order in [Order::Shuffled, Order::ByLength] {
            let batches = batches(order, &lengths, 8, 1, 2);
            let mut seen: Vec<_> = batches.iter().flatten().copied().collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..103).collect::<Vec<_>>());
            let spread = |batch: &Vec<usize>| {
                let lengths = batch.iter().map(|&i| lengths[i]);
                lengths.clone().max().unwrap_or(0) - lengths.min().unwrap_or(0)
            };
            let widest = batches.iter().map(spread).max().unwrap_or(0);
            assert_eq!(widest <= 8, order == Order::ByLength, "{widest}");
        }
    }

    #[test]
    fn epochs_differ_and_repeat() {
        let batches = |epoch| batches(Order::Shuffled, &[1; 20], 4, 7, epoch);
        assert_eq!(batches(1), batches(1));
        assert_ne!(batches(1), batches(2));
    }
}
