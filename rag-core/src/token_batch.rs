use std::ops::Range;

use burn::tensor::{Device, Int, Tensor, TensorData};

/// Token ids of several texts, padded on the right to the longest.
#[derive(Clone, Debug)]
pub struct TokenBatch {
    /// `[rows, length]`.
    pub ids: Tensor<2, Int>,
    /// 1 at tokens, 0 at padding, `[rows, length]`.
    pub mask: Tensor<2, Int>,
}

impl TokenBatch {
    /// Pads `rows` with `pad`; a batch of empty rows has length 1.
    pub fn new<R: AsRef<[u32]>>(rows: &[R], pad: u32, device: &Device) -> Self {
        let length = padded_length(rows);
        let mask = rows
            .iter()
            .flat_map(|row| (0..length).map(|i| i64::from(i < row.as_ref().len())))
            .collect::<Vec<_>>();
        Self {
            ids: padded(rows, pad, device),
            mask: Tensor::from_data(TensorData::new(mask, [rows.len(), length]), device),
        }
    }

    /// Rows and padded length.
    pub fn dims(&self) -> [usize; 2] {
        self.ids.dims()
    }

    /// The rows from `start`, `count` of them, at the same padded length.
    pub fn narrow(&self, start: usize, count: usize) -> Self {
        Self {
            ids: self.ids.clone().narrow(0, start, count),
            mask: self.mask.clone().narrow(0, start, count),
        }
    }

    /// The rows `slots` of each group of `group` rows; see [`slots`].
    pub fn slots(&self, group: usize, slots: Range<usize>) -> Self {
        Self {
            ids: self::slots(&self.ids, group, slots.clone()),
            mask: self::slots(&self.mask, group, slots),
        }
    }
}

/// The rows `slots` of each group of `group` rows, `[groups · slots, length]`, such as some of the
/// contexts of every question.
pub fn slots(rows: &Tensor<2, Int>, group: usize, slots: Range<usize>) -> Tensor<2, Int> {
    let [count, length] = rows.dims();
    if slots == (0..group) {
        return rows.clone();
    }
    let groups = count / group;
    rows.clone()
        .reshape([groups, group, length])
        .narrow(1, slots.start, slots.len())
        .reshape([groups * slots.len(), length])
}

/// `rows` as one tensor `[rows, longest]`, padded on the right.
pub fn padded<R: AsRef<[u32]>>(rows: &[R], pad: u32, device: &Device) -> Tensor<2, Int> {
    let length = padded_length(rows);
    let ids = rows
        .iter()
        .flat_map(|row| {
            let row = row.as_ref();
            let padding = std::iter::repeat_n(pad, length - row.len());
            row.iter().copied().chain(padding).map(i64::from)
        })
        .collect::<Vec<_>>();
    Tensor::from_data(TensorData::new(ids, [rows.len(), length]), device)
}

fn padded_length<R: AsRef<[u32]>>(rows: &[R]) -> usize {
    rows.iter()
        .map(|row| row.as_ref().len())
        .max()
        .unwrap_or(0)
        .max(1)
}
