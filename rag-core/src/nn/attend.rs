//! Attention on the CPU without what tensors would keep between its steps: scores, softmax and weighted values of a
//! few queries at a time, for one head after the other.

// What is in registers goes by number: see `dots`.
#![allow(clippy::needless_range_loop)]

use std::{array::from_fn, ops::Range};

use burn::{backend::flex::FlexTensor, tensor::Tensor};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::{
    KeysValues,
    few_rows::{dots, prefetch},
    fused::{primitive, softmax_row, tensor},
};

#[cfg(target_arch = "x86_64")]
use super::fused::{Matrix, tiles};

/// Queries that are worked on at once, at most, without matrix units, which want few at a time anyway.
const QUERIES: usize = 128;

/// From so many queries on, it is worth to turn the keys around.
const MANY: usize = 8;

/// softmax(scale · Q Kᵀ + bias) V of every head, for `queries` `[rows, length, heads · d_head]`: in the same shape.
/// `bias` is `[rows | 1, heads | 1, length | 1, memory length]`. `None` where they are not f32 on the CPU, or want
/// gradients. Products of many queries may be `rounded` to bf16.
pub fn attend(
    queries: &Tensor<3>,
    memory: &KeysValues,
    bias: Option<&Tensor<4>>,
    scale: f64,
    rounded: bool,
) -> Option<Tensor<3>> {
    let [rows, length, inner] = queries.dims();
    let [_, heads, memory_length, d_head] = memory.keys.dims();
    if [rows, length, memory_length].contains(&0) {
        return None;
    }
    let queries = View::<3>::new(queries)?;
    let bias = match bias {
        Some(bias) => Some(View::<4>::new(bias)?),
        None => None,
    };
    let heads_of = Heads {
        keys: View::new(&memory.keys)?,
        values: View::new(&memory.values)?,
        bias,
        queries,
        scale: scale as f32,
        memory_length,
        d_head,
    };
    // Enough tasks for all cores: of some heads of few queries, or of queries that share keys and values.
    let tasks_of_row = (4 * rayon::current_num_threads()).div_ceil(rows);
    #[cfg(not(target_arch = "x86_64"))]
    let _ = rounded;
    if length < MANY {
        let y = of_few(&heads_of, [rows, length, heads], tasks_of_row);
        return Some(tensor(y, [rows, length, inner]));
    }
    let mut y = vec![0.0; rows * length * inner];
    let at_once = length.div_ceil(tasks_of_row);
    #[cfg(target_arch = "x86_64")]
    let tiled = length.min(memory_length) >= tiles::STRIPE && tiles::available();
    #[cfg(target_arch = "x86_64")]
    let at_once = match tiled {
        true => at_once.next_multiple_of(tiles::STRIPE),
        false => at_once.min(QUERIES),
    };
    #[cfg(not(target_arch = "x86_64"))]
    let at_once = at_once.min(QUERIES);
    y.par_chunks_mut(length * inner)
        .enumerate()
        .for_each(|(row, y)| {
            let tasks = y.par_chunks_mut(at_once * inner).enumerate();
            tasks.for_each(|(task, y)| {
                let task = Task {
                    of: &heads_of,
                    row,
                    heads: 0..heads,
                    first: task * at_once,
                    y,
                };
                #[cfg(target_arch = "x86_64")]
                if tiled {
                    return match rounded {
                        true => task.tiled::<1>(),
                        false => task.tiled::<3>(),
                    };
                }
                Arch::new().dispatch(task);
            });
        });
    Some(tensor(y, [rows, length, inner]))
}

/// What few queries see, `[rows, length, heads · d_head]`: tasks share the heads.
fn of_few(of: &Heads, [rows, length, heads]: [usize; 3], tasks_of_row: usize) -> Vec<f32> {
    let heads_each = heads.div_ceil(tasks_of_row);
    let groups = heads.div_ceil(heads_each);
    let parts: Vec<Vec<f32>> = (0..rows * groups)
        .into_par_iter()
        .map(|task| {
            let first = task % groups * heads_each;
            let heads = first..(first + heads_each).min(heads);
            let mut y = vec![0.0; length * heads.len() * of.d_head];
            Arch::new().dispatch(Task {
                of,
                row: task / groups,
                heads,
                first: 0,
                y: &mut y,
            });
            y
        })
        .collect();
    let inner = heads * of.d_head;
    let mut y = vec![0.0; rows * length * inner];
    for (y, parts) in y.chunks_exact_mut(length * inner).zip(parts.chunks(groups)) {
        for (i, part) in parts.iter().enumerate() {
            let width = part.len() / length;
            let first = i * heads_each * of.d_head;
            for (y, part) in y.chunks_exact_mut(inner).zip(part.chunks_exact(width)) {
                y[first..first + width].copy_from_slice(part);
            }
        }
    }
    y
}

/// A tensor whose last dimension lies together, wherever the others are.
pub struct View<const D: usize> {
    tensor: FlexTensor,
    /// 0 where the dimension is 1, and stands for any other.
    pub strides: [usize; D],
}

impl<const D: usize> View<D> {
    fn new(tensor: &Tensor<D>) -> Option<Self> {
        primitive(tensor.clone()).map(Self::of)
    }

    pub fn of(mut tensor: FlexTensor) -> Self {
        let layout = tensor.layout();
        let strides = layout.strides();
        if strides[D - 1] != 1 || strides.iter().any(|&stride| stride < 0) {
            tensor = tensor.to_contiguous();
        }
        let layout = tensor.layout();
        let strides = from_fn(|i| match layout.shape()[i] {
            1 => 0,
            _ => layout.strides()[i] as usize,
        });
        Self { tensor, strides }
    }

    pub fn shape(&self) -> [usize; D] {
        from_fn(|i| self.tensor.layout().shape()[i])
    }

    /// The numbers from `[index.., 0]` on.
    #[inline(always)]
    pub fn from(&self, index: [usize; D]) -> &[f32] {
        let offset: usize = index
            .iter()
            .zip(self.strides)
            .map(|(i, stride)| i * stride)
            .sum();
        &self.tensor.storage()[self.tensor.layout().start_offset() + offset..]
    }
}

struct Heads {
    queries: View<3>,
    keys: View<4>,
    values: View<4>,
    bias: Option<View<4>>,
    scale: f32,
    memory_length: usize,
    d_head: usize,
}

impl Heads {
    /// The keys or values of a head, before those of the `next`.
    #[inline(always)]
    fn rows<'a>(
        &self,
        view: &'a View<4>,
        row: usize,
        head: usize,
        next: Option<usize>,
    ) -> Rows<'a> {
        Rows {
            numbers: view.from([row, head, 0, 0]),
            soon: match next {
                Some(next) => view.from([row, next, 0, 0]),
                None => &[],
            },
            apart: view.strides[2],
            count: self.memory_length,
            width: self.d_head,
        }
    }
}

/// Some heads of the queries of a row from `first` on, as many as `y` `[queries, heads · d_head]` has room for.
struct Task<'a> {
    of: &'a Heads,
    row: usize,
    heads: Range<usize>,
    first: usize,
    y: &'a mut [f32],
}

/// Queries, and keys or vectors of a value, that are multiplied with each other at once: their sums fit the
/// registers.
const X: usize = 5;
const W: usize = 4;

#[cfg(target_arch = "x86_64")]
impl Task<'_> {
    /// On matrix units, numbers in so many parts.
    fn tiled<const P: usize>(self) {
        let Self {
            of,
            row,
            heads,
            first,
            y,
        } = self;
        let (length, d) = (of.memory_length, of.d_head);
        let inner = heads.len() * d;
        let shape = [length, d];
        for (place, head) in heads.enumerate() {
            let queries = &of.queries.from([row, first, 0])[head * d..];
            let count = y.len() / inner;
            let operands = [
                Matrix::apart(queries, [count, d], of.queries.strides[1]),
                Matrix::apart(of.keys.from([row, head, 0, 0]), shape, of.keys.strides[2]),
                Matrix::apart(
                    of.values.from([row, head, 0, 0]),
                    shape,
                    of.values.strides[2],
                ),
            ];
            let weigh = |from: usize, scores: &mut [f32]| {
                Arch::new().dispatch(Weigh {
                    of,
                    row,
                    head,
                    first: first + from,
                    scores,
                });
            };
            tiles::attend::<P>(operands, weigh, &mut y[place * d..], inner);
        }
    }
}

/// Scores of a head's queries from `first` on, before they are scaled, to weights. See [`tiles::attend`].
#[cfg(target_arch = "x86_64")]
struct Weigh<'a> {
    of: &'a Heads,
    row: usize,
    head: usize,
    first: usize,
    scores: &'a mut [f32],
}

#[cfg(target_arch = "x86_64")]
impl WithSimd for Weigh<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Heads {
            memory_length,
            scale,
            bias,
            ..
        } = self.of;
        let rows = self
            .scores
            .chunks_exact_mut(tiles::row_of_scores(*memory_length));
        for (i, row) in rows.enumerate() {
            let (scores, beyond) = row.split_at_mut(*memory_length);
            beyond.fill(f32::NEG_INFINITY);
            match bias {
                Some(bias) => {
                    let bias = bias.from([self.row, self.head, self.first + i, 0]);
                    for (score, bias) in scores.iter_mut().zip(bias) {
                        *score = *score * scale + bias;
                    }
                }
                None => scores.iter_mut().for_each(|score| *score *= scale),
            }
            softmax_row(row);
        }
    }
}

impl WithSimd for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            of,
            row,
            heads,
            first,
            y,
        } = self;
        let (length, d) = (of.memory_length, of.d_head);
        let inner = heads.len() * d;
        let count = y.len() / inner;
        let mut queries = vec![0.0; count * d];
        // Rows end with whole vectors.
        let lanes = size_of::<S::f32s>() / size_of::<f32>();
        let padded = length.next_multiple_of(lanes);
        let mut scores = vec![0.0; count * padded];
        let mut turned = vec![0.0; if count < MANY { 0 } else { d * padded }];
        let last = heads.end - 1;
        for (place, head) in heads.enumerate() {
            let next = (head < last).then_some(head + 1);
            for (i, scaled) in queries.chunks_exact_mut(d).enumerate() {
                let query = &of.queries.from([row, first + i, 0])[head * d..][..d];
                scaled
                    .iter_mut()
                    .zip(query)
                    .for_each(|(y, x)| *y = x * of.scale);
            }
            let mut keys = of.rows(&of.keys, row, head, next);
            if count < MANY {
                let rows = scores.chunks_exact_mut(padded).zip(queries.chunks_exact(d));
                for (scores, query) in rows {
                    score(simd, query, keys, &mut scores[..length]);
                    keys.soon = &[];
                }
            } else {
                for j in 0..length {
                    for (i, key) in keys.numbers[j * keys.apart..][..d].iter().enumerate() {
                        turned[i * padded + j] = *key;
                    }
                }
                let turned = Rows {
                    numbers: &turned,
                    soon: &[],
                    apart: padded,
                    count: d,
                    width: padded,
                };
                mixed(simd, &queries, d, &mut scores, padded, turned);
            }
            for (i, scores) in scores.chunks_exact_mut(padded).enumerate() {
                let scores = &mut scores[..length];
                if let Some(bias) = &of.bias {
                    let bias = bias.from([row, head, first + i, 0]);
                    (scores.iter_mut().zip(bias)).for_each(|(score, bias)| *score += bias);
                }
                softmax_row(scores);
            }
            let values = of.rows(&of.values, row, head, next);
            mixed(simd, &scores, padded, &mut y[place * d..], inner, values);
        }
    }
}

/// Rows of a matrix, some numbers `apart`, and the rows that are read `soon`.
#[derive(Clone, Copy)]
struct Rows<'a> {
    numbers: &'a [f32],
    soon: &'a [f32],
    apart: usize,
    count: usize,
    width: usize,
}

impl<'a> Rows<'a> {
    #[inline(always)]
    fn row(self, i: usize) -> &'a [f32] {
        &self.numbers[i * self.apart..][..self.width]
    }

    /// Brings row i of those that are read soon near: where the heads of a token lie together, the next row of a head is
    /// in another page of memory, and no processor looks ahead so far.
    #[inline(always)]
    fn prefetch(self, i: usize) {
        if let Some(row) = self.soon.get(i * self.apart..) {
            let numbers = row.iter().take(self.width);
            numbers.step_by(64 / size_of::<f32>()).for_each(prefetch);
        }
    }
}

/// The inner products of a query with all keys.
#[inline(always)]
fn score<S: Simd>(simd: S, query: &[f32], keys: Rows<'_>, scores: &mut [f32]) {
    let whole = scores.len() / W * W;
    for j in (0..whole).step_by(W) {
        let mut four = [query; W];
        for (c, key) in four.iter_mut().enumerate() {
            *key = keys.row(j + c);
            keys.prefetch(j + c);
        }
        let [found] = dots::<S, 1, W>(simd, [query], four);
        scores[j..j + W].copy_from_slice(&found);
    }
    for j in whole..scores.len() {
        [[scores[j]]] = dots::<S, 1, 1>(simd, [query], [keys.row(j)]);
    }
}

/// Sums of rows: for each row of weights, which are some numbers apart as their sums in `y` are.
#[inline(always)]
fn mixed<S: Simd>(
    simd: S,
    weights: &[f32],
    weights_apart: usize,
    y: &mut [f32],
    y_apart: usize,
    mut rows: Rows<'_>,
) {
    let count = weights.len() / weights_apart;
    for i in (0..count).step_by(X) {
        let weights = &weights[i * weights_apart..];
        let weights = |r: usize| &weights[r * weights_apart..][..rows.count];
        let y = &mut y[i * y_apart..];
        match count - i {
            1 => mix::<S, 1>(simd, [weights(0)], y, y_apart, rows),
            2 => mix::<S, 2>(simd, [weights(0), weights(1)], y, y_apart, rows),
            3 => {
                let weights = [weights(0), weights(1), weights(2)];
                mix::<S, 3>(simd, weights, y, y_apart, rows);
            }
            4 => {
                let weights = [weights(0), weights(1), weights(2), weights(3)];
                mix::<S, 4>(simd, weights, y, y_apart, rows);
            }
            _ => {
                let weights = [weights(0), weights(1), weights(2), weights(3), weights(4)];
                mix::<S, X>(simd, weights, y, y_apart, rows);
            }
        }
        rows.soon = &[];
    }
}

#[inline(always)]
fn mix<S: Simd, const R: usize>(
    simd: S,
    weights: [&[f32]; R],
    y: &mut [f32],
    apart: usize,
    rows: Rows<'_>,
) {
    let lanes = size_of::<S::f32s>() / size_of::<f32>();
    let mut column = 0;
    while rows.width - column >= W * lanes {
        columns::<S, R, W>(simd, weights, &mut y[column..], apart, rows, column);
        column += W * lanes;
    }
    if rows.width - column >= 2 * lanes {
        columns::<S, R, 2>(simd, weights, &mut y[column..], apart, rows, column);
        column += 2 * lanes;
    }
    if rows.width - column >= lanes {
        columns::<S, R, 1>(simd, weights, &mut y[column..], apart, rows, column);
        column += lanes;
    }
    for r in 0..R {
        for i in column..rows.width {
            y[r * apart + i] = 0.0;
            for j in 0..rows.count {
                y[r * apart + i] += weights[r][j] * rows.numbers[j * rows.apart + i];
            }
        }
    }
}

/// C vectors of the sums, from `first` on.
#[inline(always)]
fn columns<S: Simd, const R: usize, const C: usize>(
    simd: S,
    weights: [&[f32]; R],
    y: &mut [f32],
    apart: usize,
    rows: Rows<'_>,
    first: usize,
) {
    let lanes = size_of::<S::f32s>() / size_of::<f32>();
    let mut sums = [[simd.splat_f32s(0.0); C]; R];
    for j in 0..rows.count {
        if first == 0 {
            rows.prefetch(j);
        }
        let numbers = &rows.row(j)[first..][..C * lanes];
        let numbers = S::as_simd_f32s(numbers).0;
        for r in 0..R {
            let weight = simd.splat_f32s(weights[r][j]);
            for c in 0..C {
                sums[r][c] = simd.mul_add_f32s(weight, numbers[c], sums[r][c]);
            }
        }
    }
    for r in 0..R {
        let y = S::as_mut_simd_f32s(&mut y[r * apart..][..C * lanes]).0;
        y[..C].copy_from_slice(&sums[r]);
    }
}

#[cfg(test)]
pub mod tests {
    #![allow(clippy::unwrap_used)]

    use burn::tensor::{Tolerance, activation};

    use super::*;
    use crate::{
        device,
        nn::{MASKED, scattered},
    };

    /// One step after the other, as tensors, with some of the weights dropped.
    pub fn expected(
        queries: Tensor<3>,
        memory: &KeysValues,
        bias: Option<Tensor<4>>,
        scale: f64,
        drop: impl Fn(Tensor<4>) -> Tensor<4>,
    ) -> Tensor<3> {
        let [rows, length, inner] = queries.dims();
        let [_, heads, _, d_head] = memory.keys.dims();
        let queries = queries
            .reshape([rows, length, heads, d_head])
            .swap_dims(1, 2);
        let mut scores = queries.matmul(memory.keys.clone().swap_dims(2, 3)) * scale;
        if let Some(bias) = bias {
            scores = scores + bias;
        }
        let heads = drop(activation::softmax(scores, 3)).matmul(memory.values.clone());
        heads.swap_dims(1, 2).reshape([rows, length, inner])
    }

    #[test]
    fn heads_attend_as_tensors_do() {
        for [rows, length, heads, memory_length, d_head] in [
            [1, 1, 1, 1, 1],
            [3, 1, 2, 5, 64],
            [2, 4, 3, 160, 64],
            [5, 40, 2, 33, 64],
            [1, 300, 2, 300, 32],
            [2, 9, 4, 17, 80],
        ] {
            let queries = scattered([rows, length, heads * d_head]);
            // As attention makes them: the heads of a token lie together.
            let of_tokens = || scattered([rows, memory_length, heads, d_head]).swap_dims(1, 2);
            let memory = KeysValues {
                keys: of_tokens(),
                values: of_tokens(),
            };
            let hidden = scattered([rows, 1, 1, memory_length])
                .greater_elem(1.0)
                .float()
                * MASKED;
            let biases = [
                None,
                Some(hidden),
                Some(scattered([1, heads, length, memory_length])),
                Some(scattered([1, 1, length, memory_length])),
            ];
            for bias in biases {
                let found = attend(&queries, &memory, bias.as_ref(), 0.125, false).unwrap();
                let rounded = attend(&queries, &memory, bias.as_ref(), 0.125, true).unwrap();
                let expected = expected(queries.clone(), &memory, bias, 0.125, |weights| weights);
                let expected = expected.into_data();
                for (found, tolerance) in [(found, 1e-5), (rounded, 3e-2)] {
                    let tolerance = Tolerance::<f32>::rel_abs(10.0 * tolerance, tolerance);
                    found.into_data().assert_approx_eq(&expected, tolerance);
                }
            }
        }
    }

    #[test]
    fn gradients_go_another_way() {
        let device = device("cpu").unwrap().autodiff();
        let memory = KeysValues {
            keys: Tensor::zeros([1, 1, 2, 4], &device),
            values: Tensor::zeros([1, 1, 2, 4], &device),
        };
        assert!(
            attend(
                &Tensor::zeros([1, 2, 4], &device),
                &memory,
                None,
                1.0,
                false
            )
            .is_none()
        );
    }
}
