//! Attention on the CPU without what tensors would keep between its steps: scores, softmax and weighted values of a
//! few queries at a time, for one head after the other.

use std::array::from_fn;

use burn::{
    backend::flex::{FlexTensor, Layout},
    tensor::{Bytes, DType, Tensor},
};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::{
    KeysValues,
    few_rows::dots,
    fused::{primitive, softmax_row},
};

/// Queries that are worked on at once, at most.
const QUERIES: usize = 128;

/// From so many queries on, it is worth to turn the keys around.
const MANY: usize = 8;

/// softmax(scale · Q Kᵀ + bias) V of every head, for `queries` `[rows, length, heads · d_head]`: in the same shape.
/// `bias` is `[rows | 1, heads | 1, length | 1, memory length]`. `None` where they are not f32 on the CPU, or want
/// gradients.
pub fn attend(
    queries: &Tensor<3>,
    memory: &KeysValues,
    bias: Option<&Tensor<4>>,
    scale: f64,
) -> Option<Tensor<3>> {
    let [rows, length, inner] = queries.dims();
    let [_, heads, memory_length, d_head] = memory.keys.dims();
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
        heads,
        memory_length,
        d_head,
    };
    // Enough tasks for all cores, of queries that share keys and values.
    let tasks_of_row = (4 * rayon::current_num_threads()).div_ceil(rows);
    let at_once = length.div_ceil(tasks_of_row).min(QUERIES);
    let mut y = vec![0.0; rows * length * inner];
    y.par_chunks_mut(length * inner)
        .enumerate()
        .for_each(|(row, y)| {
            let tasks = y.par_chunks_mut(at_once * inner).enumerate();
            tasks.for_each(|(task, y)| {
                Arch::new().dispatch(Task {
                    of: &heads_of,
                    row,
                    first: task * at_once,
                    y,
                });
            });
        });
    let layout = Layout::contiguous([rows, length, inner].into());
    let y = FlexTensor::new(Bytes::from_elems(y), layout, DType::F32);
    Some(Tensor::from_primitive::<burn::backend::Flex>(y))
}

/// A tensor whose last dimension lies together, wherever the others are.
struct View<const D: usize> {
    tensor: FlexTensor,
    strides: [usize; D],
}

impl<const D: usize> View<D> {
    fn new(tensor: &Tensor<D>) -> Option<Self> {
        let mut tensor = primitive(tensor.clone())?;
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
        Some(Self { tensor, strides })
    }

    /// The numbers from `[index.., 0]` on.
    #[inline(always)]
    fn from(&self, index: [usize; D]) -> &[f32] {
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
    heads: usize,
    memory_length: usize,
    d_head: usize,
}

/// The queries of a row from `first` on, as many as `y` has room for.
struct Task<'a> {
    of: &'a Heads,
    row: usize,
    first: usize,
    y: &'a mut [f32],
}

/// Queries, and keys or vectors of a value, that are multiplied with each other at once: their sums fit the
/// registers.
const X: usize = 5;
const W: usize = 4;

impl WithSimd for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { of, row, first, y } = self;
        let (length, d) = (of.memory_length, of.d_head);
        let inner = of.heads * d;
        let count = y.len() / inner;
        let mut queries = vec![0.0; count * d];
        let mut scores = vec![0.0; count * length];
        let mut turned = vec![0.0; if count < MANY { 0 } else { d * length }];
        for head in 0..of.heads {
            for (i, scaled) in queries.chunks_exact_mut(d).enumerate() {
                let query = &of.queries.from([row, first + i, 0])[head * d..][..d];
                scaled
                    .iter_mut()
                    .zip(query)
                    .for_each(|(y, x)| *y = x * of.scale);
            }
            let keys = of.keys.from([row, head, 0, 0]);
            let stride = of.keys.strides[2];
            if count < MANY {
                for (scores, query) in scores.chunks_exact_mut(length).zip(queries.chunks_exact(d))
                {
                    score(simd, query, keys, stride, scores);
                }
            } else {
                for j in 0..length {
                    for (i, key) in keys[j * stride..][..d].iter().enumerate() {
                        turned[i * length + j] = *key;
                    }
                }
                mixed(
                    simd,
                    &queries,
                    &turned,
                    length,
                    [d, length, length],
                    &mut scores,
                );
            }
            for (i, scores) in scores.chunks_exact_mut(length).enumerate() {
                if let Some(bias) = &of.bias {
                    let bias = bias.from([row, head, first + i, 0]);
                    scores
                        .iter_mut()
                        .zip(bias)
                        .for_each(|(score, bias)| *score += bias);
                }
                softmax_row(scores);
            }
            let values = of.values.from([row, head, 0, 0]);
            let stride = of.values.strides[2];
            mixed(
                simd,
                &scores,
                values,
                stride,
                [length, d, inner],
                &mut y[head * d..],
            );
        }
    }
}

/// The inner products of a query with all keys.
#[inline(always)]
fn score<S: Simd>(simd: S, query: &[f32], keys: &[f32], stride: usize, scores: &mut [f32]) {
    let d = query.len();
    let whole = scores.len() / W * W;
    for j in (0..whole).step_by(W) {
        let mut four = [query; W];
        for (c, key) in four.iter_mut().enumerate() {
            *key = &keys[(j + c) * stride..][..d];
        }
        let [found] = dots::<S, 1, W>(simd, [query], four);
        scores[j..j + W].copy_from_slice(&found);
    }
    for j in whole..scores.len() {
        [[scores[j]]] = dots::<S, 1, 1>(simd, [query], [&keys[j * stride..][..d]]);
    }
}

/// For each row of `length` weights, the sum of values `[length, d]` with these weights.
#[inline(always)]
fn mixed<S: Simd>(
    simd: S,
    weights: &[f32],
    values: &[f32],
    stride: usize,
    [length, d, apart]: [usize; 3],
    y: &mut [f32],
) {
    let count = weights.len() / length;
    for i in (0..count).step_by(X) {
        let (weights, y) = (&weights[i * length..], &mut y[i * apart..]);
        match count - i {
            1 => mix::<S, 1>(simd, weights, values, stride, [length, d, apart], y),
            2 => mix::<S, 2>(simd, weights, values, stride, [length, d, apart], y),
            3 => mix::<S, 3>(simd, weights, values, stride, [length, d, apart], y),
            4 => mix::<S, 4>(simd, weights, values, stride, [length, d, apart], y),
            _ => mix::<S, X>(simd, weights, values, stride, [length, d, apart], y),
        }
    }
}

/// Sums of values, weighted by R rows, to rows of `y` that are `apart`.
#[inline(always)]
fn mix<S: Simd, const R: usize>(
    simd: S,
    weights: &[f32],
    values: &[f32],
    stride: usize,
    [length, d, apart]: [usize; 3],
    y: &mut [f32],
) {
    let lanes = size_of::<S::f32s>() / size_of::<f32>();
    let group = W * lanes;
    let whole = d / group * group;
    for column in (0..whole).step_by(group) {
        let mut sums = [[simd.splat_f32s(0.0); W]; R];
        for j in 0..length {
            let value = S::as_simd_f32s(&values[j * stride + column..][..group]).0;
            for r in 0..R {
                let weight = simd.splat_f32s(weights[r * length + j]);
                for c in 0..W {
                    sums[r][c] = simd.mul_add_f32s(weight, value[c], sums[r][c]);
                }
            }
        }
        for r in 0..R {
            let y = S::as_mut_simd_f32s(&mut y[r * apart + column..][..group]).0;
            for c in 0..W {
                y[c] = sums[r][c];
            }
        }
    }
    for r in 0..R {
        let y = &mut y[r * apart + whole..][..d - whole];
        y.fill(0.0);
        for j in 0..length {
            let weight = weights[r * length + j];
            let value = &values[j * stride + whole..][..d - whole];
            for i in 0..y.len() {
                y[i] += weight * value[i];
            }
        }
    }
}
