//! Scores, softmax and weighted values of some queries, for one head after the other, on the processor's vectors.

// Loops over registers go by index: closures and iterators over arrays are compiled without vectors.
#![allow(clippy::needless_range_loop)]

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::heads::{Heads, Rows};
use crate::{activation::softmax_row, dots::dots};

/// From so many queries on, keys are transposed first: scores are then sums of whole vectors, and nothing is reduced
/// across lanes.
pub(super) const TRANSPOSE_FROM_QUERIES: usize = 8;

/// Queries, and keys or vectors of a value, that are multiplied with each other at once: their sums fit the registers.
const QUERIES_AT_ONCE: usize = 5;
const ROWS_AT_ONCE: usize = 4;

/// Some heads of the queries of a row from `first` on, as many as `y` `[queries, heads · d_head]` has room for.
pub(super) struct Task<'a> {
    pub of: &'a Heads,
    pub row: usize,
    pub heads: Range<usize>,
    pub first: usize,
    pub y: &'a mut [f32],
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
        let mut transposed = vec![
            0.0;
            if count < TRANSPOSE_FROM_QUERIES {
                0
            } else {
                d * padded
            }
        ];
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
            if count < TRANSPOSE_FROM_QUERIES {
                let rows = scores.chunks_exact_mut(padded).zip(queries.chunks_exact(d));
                for (scores, query) in rows {
                    score(simd, query, keys, &mut scores[..length]);
                    keys.next = &[];
                }
            } else {
                for j in 0..length {
                    for (i, key) in keys.elements[j * keys.stride..][..d].iter().enumerate() {
                        transposed[i * padded + j] = *key;
                    }
                }
                let transposed = Rows {
                    elements: &transposed,
                    next: &[],
                    stride: padded,
                    count: d,
                    width: padded,
                };
                weighted_sums(simd, &queries, d, &mut scores, padded, transposed);
            }
            for (i, scores) in scores.chunks_exact_mut(padded).enumerate() {
                let scores = &mut scores[..length];
                if let Some(bias) = &of.bias {
                    let bias = bias.of(row, head, first + i);
                    (scores.iter_mut().zip(bias)).for_each(|(score, bias)| *score += bias);
                }
                softmax_row(scores);
            }
            let values = of.rows(&of.values, row, head, next);
            weighted_sums(simd, &scores, padded, &mut y[place * d..], inner, values);
        }
    }
}

/// The inner products of a query with all keys.
#[inline(always)]
fn score<S: Simd>(simd: S, query: &[f32], keys: Rows<'_>, scores: &mut [f32]) {
    let whole = scores.len() / ROWS_AT_ONCE * ROWS_AT_ONCE;
    for j in (0..whole).step_by(ROWS_AT_ONCE) {
        let mut four = [query; ROWS_AT_ONCE];
        for (c, key) in four.iter_mut().enumerate() {
            *key = keys.row(j + c);
            keys.prefetch(j + c);
        }
        let [found] = dots::<S, 1, ROWS_AT_ONCE>(simd, [query], four);
        scores[j..j + ROWS_AT_ONCE].copy_from_slice(&found);
    }
    for j in whole..scores.len() {
        [[scores[j]]] = dots::<S, 1, 1>(simd, [query], [keys.row(j)]);
    }
}

/// For each row of weights, the sum of the rows that are weighted by it, to a row of `y`.
#[inline(always)]
fn weighted_sums<S: Simd>(
    simd: S,
    weights: &[f32],
    weights_stride: usize,
    y: &mut [f32],
    y_stride: usize,
    mut rows: Rows<'_>,
) {
    let count = weights.len() / weights_stride;
    for i in (0..count).step_by(QUERIES_AT_ONCE) {
        let weights = &weights[i * weights_stride..];
        let weights = |r: usize| &weights[r * weights_stride..][..rows.count];
        let y = &mut y[i * y_stride..];
        match count - i {
            1 => sums_of::<S, 1>(simd, [weights(0)], y, y_stride, rows),
            2 => sums_of::<S, 2>(simd, [weights(0), weights(1)], y, y_stride, rows),
            3 => {
                let weights = [weights(0), weights(1), weights(2)];
                sums_of::<S, 3>(simd, weights, y, y_stride, rows);
            }
            4 => {
                let weights = [weights(0), weights(1), weights(2), weights(3)];
                sums_of::<S, 4>(simd, weights, y, y_stride, rows);
            }
            _ => {
                let weights = [weights(0), weights(1), weights(2), weights(3), weights(4)];
                sums_of::<S, QUERIES_AT_ONCE>(simd, weights, y, y_stride, rows);
            }
        }
        rows.next = &[];
    }
}

#[inline(always)]
fn sums_of<S: Simd, const R: usize>(
    simd: S,
    weights: [&[f32]; R],
    y: &mut [f32],
    stride: usize,
    rows: Rows<'_>,
) {
    let lanes = size_of::<S::f32s>() / size_of::<f32>();
    let mut column = 0;
    while rows.width - column >= ROWS_AT_ONCE * lanes {
        columns::<S, R, ROWS_AT_ONCE>(simd, weights, &mut y[column..], stride, rows, column);
        column += ROWS_AT_ONCE * lanes;
    }
    if rows.width - column >= 2 * lanes {
        columns::<S, R, 2>(simd, weights, &mut y[column..], stride, rows, column);
        column += 2 * lanes;
    }
    if rows.width - column >= lanes {
        columns::<S, R, 1>(simd, weights, &mut y[column..], stride, rows, column);
        column += lanes;
    }
    for r in 0..R {
        for i in column..rows.width {
            y[r * stride + i] = 0.0;
            for j in 0..rows.count {
                y[r * stride + i] += weights[r][j] * rows.elements[j * rows.stride + i];
            }
        }
    }
}

/// C vectors of the sums, from column `first` on.
#[inline(always)]
fn columns<S: Simd, const R: usize, const C: usize>(
    simd: S,
    weights: [&[f32]; R],
    y: &mut [f32],
    stride: usize,
    rows: Rows<'_>,
    first: usize,
) {
    let lanes = size_of::<S::f32s>() / size_of::<f32>();
    let mut sums = [[simd.splat_f32s(0.0); C]; R];
    for j in 0..rows.count {
        if first == 0 {
            rows.prefetch(j);
        }
        let elements = &rows.row(j)[first..][..C * lanes];
        let elements = S::as_simd_f32s(elements).0;
        for r in 0..R {
            let weight = simd.splat_f32s(weights[r][j]);
            for c in 0..C {
                sums[r][c] = simd.mul_add_e_f32s(weight, elements[c], sums[r][c]);
            }
        }
    }
    for r in 0..R {
        let y = S::as_mut_simd_f32s(&mut y[r * stride..][..C * lanes]).0;
        y[..C].copy_from_slice(&sums[r]);
    }
}
