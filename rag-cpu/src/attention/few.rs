//! Attention of few queries, as a step of decoding has them: tasks share the heads.

use rayon::prelude::*;

use super::{
    heads::{Heads, tasks_per_row},
    vectors::Task,
};

/// The heads' values, `[rows, length, heads · d_head]`.
pub(super) fn attend(of: &Heads, [rows, length, heads]: [usize; 3]) -> Vec<f32> {
    let heads_each = heads.div_ceil(tasks_per_row(rows));
    let groups = heads.div_ceil(heads_each);
    let parts: Vec<Vec<f32>> = (0..rows * groups)
        .into_par_iter()
        .map(|task| {
            let first = task % groups * heads_each;
            let heads = first..(first + heads_each).min(heads);
            let mut y = vec![0.0; length * heads.len() * of.d_head];
            of.processor.run(Task {
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
