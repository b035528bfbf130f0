//! Attention of many queries: tasks share the queries of a row.

use rayon::prelude::*;

use super::{
    heads::{Heads, tasks_per_row},
    vectors::Task,
};

/// Queries of a task at most: their scores stay in the cache.
const QUERIES_PER_TASK: usize = 128;

/// The heads' values, `[rows, length, heads · d_head]`.
pub(super) fn attend(of: &Heads, [rows, length, heads]: [usize; 3]) -> Vec<f32> {
    let inner = heads * of.d_head;
    let at_once = length.div_ceil(tasks_per_row(rows)).min(QUERIES_PER_TASK);
    let mut y = vec![0.0; rows * length * inner];
    let rows = y.par_chunks_mut(length * inner).enumerate();
    rows.for_each(|(row, y)| {
        let tasks = y.par_chunks_mut(at_once * inner).enumerate();
        tasks.for_each(|(task, y)| {
            of.processor.run(Task {
                of,
                row,
                heads: 0..heads,
                first: task * at_once,
                y,
            });
        });
    });
    y
}
