use std::ops::Range;

use burn::tensor::{Device, Int, Tensor, TensorData};
use rag_core::nn::MASKED;

/// Positions of the tokens that a decoder reads at once, and which tokens each of them sees.
#[derive(Clone, Debug)]
pub struct Places {
    /// Positions of the tokens that are read.
    pub read: Positions,
    /// Positions of the tokens that they may see: those in the cache, then those that are read.
    pub seen: Positions,
    /// [`MASKED`] where a token does not see another, else 0: `[rows | 1, 1, read, seen]`. `None` where all see all.
    pub bias: Option<Tensor<4>>,
}

/// A position for each row and token, `[rows, length]`, or `[1, length]` where all rows have the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Positions {
    rows: usize,
    length: usize,
    /// Row-major.
    numbers: Vec<usize>,
}

impl Places {
    /// `length` tokens, one after the other, that follow `past` cached ones, in every row.
    pub fn after(past: usize, length: usize, device: &Device) -> Self {
        // A single new token sees everything.
        let sees = |token: usize, other: usize| other <= past + token;
        let bias = (length > 1).then(|| bias([length, past + length], sees, device));
        Self {
            read: (past..past + length).into(),
            seen: (0..past + length).into(),
            bias,
        }
    }

    /// Tokens of a tree: each follows its parent, which stands before it in the list, and sees its ancestors. Its position
    /// is its depth.
    pub fn tree(parents: &[Option<usize>], device: &Device) -> Self {
        let count = parents.len();
        let mut depths = Vec::with_capacity(count);
        let mut sees = vec![false; count * count];
        for (node, parent) in parents.iter().enumerate() {
            if let Some(parent) = *parent {
                sees.copy_within(parent * count..(parent + 1) * count, node * count);
            }
            sees[node * count + node] = true;
            depths.push(parent.map_or(0, |parent| depths[parent] + 1));
        }
        let bias = bias(
            [count, count],
            |node, other| sees[node * count + other],
            device,
        );
        Self {
            seen: depths.clone().into(),
            read: depths.into(),
            bias: Some(bias),
        }
    }

    /// The same tokens where row r begins at position `starts[r]`, not at 0: after prompts of different lengths.
    #[must_use]
    pub fn starting_at(self, starts: &[usize]) -> Self {
        Self {
            read: self.read.shifted(starts),
            seen: self.seen.shifted(starts),
            bias: self.bias,
        }
    }
}

impl Positions {
    /// Rows, or 1 where all have the same positions, and tokens a row.
    pub fn dims(&self) -> [usize; 2] {
        [self.rows, self.length]
    }

    /// The positions of row `row`.
    ///
    /// # Panics
    /// If there is no such row; where all rows have the same positions, every row has them.
    pub fn row(&self, row: usize) -> &[usize] {
        let row = if self.rows == 1 { 0 } else { row };
        &self.numbers[row * self.length..(row + 1) * self.length]
    }

    /// All positions, row-major.
    pub fn numbers(&self) -> &[usize] {
        &self.numbers
    }

    /// The positions, each with `offset` added, as indices `[rows | 1, length]` of an embedding.
    pub fn indices(&self, offset: usize, device: &Device) -> Tensor<2, Int> {
        let numbers = self.numbers.iter();
        let numbers: Vec<i64> = numbers.map(|number| (number + offset) as i64).collect();
        Tensor::from_data(TensorData::new(numbers, self.dims()), device)
    }

    fn shifted(&self, starts: &[usize]) -> Self {
        let rows = starts.iter().enumerate();
        Self {
            rows: starts.len(),
            length: self.length,
            numbers: rows
                .flat_map(|(row, start)| self.row(row).iter().map(move |number| start + number))
                .collect(),
        }
    }
}

impl From<Vec<usize>> for Positions {
    /// The same in all rows.
    fn from(numbers: Vec<usize>) -> Self {
        Self {
            rows: 1,
            length: numbers.len(),
            numbers,
        }
    }
}

impl From<Range<usize>> for Positions {
    /// The same in all rows.
    fn from(range: Range<usize>) -> Self {
        range.collect::<Vec<_>>().into()
    }
}

fn bias(
    [read, seen]: [usize; 2],
    sees: impl Fn(usize, usize) -> bool,
    device: &Device,
) -> Tensor<4> {
    let hides = |token: usize, other: usize| {
        if sees(token, other) {
            0.0
        } else {
            MASKED as f32
        }
    };
    let bias: Vec<f32> = (0..read)
        .flat_map(|token| (0..seen).map(move |other| (token, other)))
        .map(|(token, other)| hides(token, other))
        .collect();
    Tensor::from_data(TensorData::new(bias, [1, 1, read, seen]), device)
}

#[cfg(test)]
mod tests {
    use rag_core::{TokenBatch, device, nn::Precision, padded};

    use super::*;
    use crate::generator::{Generator, fixtures};

    #[test]
    fn each_row_may_start_where_it_will() {
        let device = device("cpu").unwrap();
        let places = Places::after(2, 3, &device).starting_at(&[0, 5]);
        assert_eq!(places.read.dims(), [2, 3]);
        assert_eq!(places.read.row(0), [2, 3, 4]);
        assert_eq!(places.read.row(1), [7, 8, 9]);
        assert_eq!(places.seen.row(1), [5, 6, 7, 8, 9]);
        let tree = Places::tree(&[None, Some(0), Some(0)], &device).starting_at(&[4]);
        assert_eq!(tree.read.row(0), [4, 5, 5]);
        // Where all rows have the same positions, any row has them.
        assert_eq!(Positions::from(0..2).row(9), [0, 1]);
    }

    #[test]
    fn rows_with_positions_of_their_own_are_as_each_alone() {
        let device = device("cpu").unwrap();
        for fixture in fixtures::ALL {
            let (config, generator) = fixture.generator(fixtures::Tiny::default(), 3);
            let contexts = TokenBatch::new(&[[3, 4, 5], [6, 7, 8]], config.pad(), &device);
            let memory = generator.encode(&contexts, Precision::F32);
            let rows = [[2_u32, 9, 10, 4], [2, 5, 11, 3]];
            let starts = [1, 6];
            let states = |generator: &Generator, rows: &[[u32; 4]], starts: &[usize], first| {
                let memory = memory.narrow(first, rows.len());
                let places = Places::after(0, 4, &device).starting_at(starts);
                let ids = padded(rows, config.pad(), &device);
                let states = generator.states(ids, &places, &memory, None, Precision::F32);
                states.into_data().iter::<f32>().collect::<Vec<_>>()
            };
            let together = states(&generator, &rows, &starts, 0);
            let alone: Vec<f32> = (0..2)
                .flat_map(|row| states(&generator, &rows[row..=row], &starts[row..=row], row))
                .collect();
            assert_eq!(together.len(), alone.len());
            for (together, alone) in together.iter().zip(&alone) {
                let name = fixture.name;
                assert!(
                    (together - alone).abs() < 1e-4,
                    "{name}: {together} {alone}"
                );
            }
        }
    }
}
