//! Attention of many queries on matrix units: tasks share the queries of a row, whose keys and values each packs.

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::heads::{Heads, tasks_per_row};
use crate::{activation::softmax_row, amx, matrix::Matrix};

/// The heads' values, `[rows, length, heads · d_head]`, of numbers in `P` parts.
pub(super) fn attend<const P: usize>(of: &Heads, [rows, length, heads]: [usize; 3]) -> Vec<f32> {
    let inner = heads * of.d_head;
    let at_once = length.div_ceil(tasks_per_row(rows));
    let at_once = at_once.next_multiple_of(amx::PANEL_ROWS);
    let mut y = vec![0.0; rows * length * inner];
    let rows = y.par_chunks_mut(length * inner).enumerate();
    rows.for_each(|(row, y)| {
        let tasks = y.par_chunks_mut(at_once * inner).enumerate();
        tasks.for_each(|(task, y)| attend_some::<P>(of, row, 0..heads, task * at_once, y));
    });
    y
}

/// The values of the queries of a row from `first` on, as many as `y` `[queries, heads · d_head]` has room for.
fn attend_some<const P: usize>(
    of: &Heads,
    row: usize,
    heads: Range<usize>,
    first: usize,
    y: &mut [f32],
) {
    let (length, d) = (of.memory_length, of.d_head);
    let inner = heads.len() * d;
    let shape = [length, d];
    for (place, head) in heads.enumerate() {
        let queries = &of.queries.from([row, first, 0])[head * d..];
        let keys = of.keys.from([row, head, 0, 0]);
        let values = of.values.from([row, head, 0, 0]);
        let count = y.len() / inner;
        let operands = [
            Matrix::with_stride(queries, [count, d], of.queries.strides[1]),
            Matrix::with_stride(keys, shape, of.keys.strides[2]),
            Matrix::with_stride(values, shape, of.values.strides[2]),
        ];
        let weigh = |from: usize, scores: &mut [f32]| {
            of.processor.run(Weigh {
                of,
                row,
                head,
                first: first + from,
                scores,
            });
        };
        amx::attend::<P>(operands, weigh, &mut y[place * d..], inner);
    }
}

/// Scores of a head's queries from `first` on, before they are scaled, to weights. See [`amx::attend`].
struct Weigh<'a> {
    of: &'a Heads,
    row: usize,
    head: usize,
    first: usize,
    scores: &'a mut [f32],
}

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
            .chunks_exact_mut(amx::score_stride(*memory_length));
        for (i, row) in rows.enumerate() {
            let (scores, beyond) = row.split_at_mut(*memory_length);
            beyond.fill(f32::NEG_INFINITY);
            match bias {
                Some(bias) => {
                    let bias = bias.of(self.row, self.head, self.first + i);
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
