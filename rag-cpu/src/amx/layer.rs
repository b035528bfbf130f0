//! Linear layers whose weights are packed in tiles, and how tasks share them.

use std::ops::Range;

use rayon::prelude::*;

use super::{kernel::Output, tile::PANEL_ROWS};
use crate::matrix::{Initial, Matrix};

/// Rows up to which tasks share the weights instead of the rows.
pub(crate) const ROWS_TO_SHARE_WEIGHTS: usize = 64;

/// Weights `[d_output, d_input]` in tiles.
pub(crate) trait Layer: Sync {
    /// `[d_output, d_input]`.
    fn shape(&self) -> [usize; 2];

    /// Rows of a task at most: packed, they stay in the second-level cache.
    fn rows_per_task(&self) -> usize;

    /// Multiplies all rows on this thread.
    ///
    /// # Safety
    /// `output` is valid for writes of `x.rows()` rows of `d_output` elements, which nobody else reads or writes meanwhile,
    /// and is not [`Initial::Previous`] or they are initialised.
    unsafe fn multiply_rows(&self, x: Matrix<'_>, output: Output<'_>);

    /// Multiplies all rows with tasks that share the weights.
    ///
    /// # Safety
    /// As for [`Layer::multiply_rows`].
    unsafe fn multiply_few(&self, x: Matrix<'_>, output: Output<'_>);
}

/// `x Wᵀ + bias`; an empty bias stands for none.
pub(crate) fn linear(layer: &impl Layer, x: Matrix<'_>, bias: &[f32]) -> Vec<f32> {
    let [d_output, d_input] = layer.shape();
    assert_eq!(x.columns(), d_input, "inputs for these weights");
    let (mut y, output) = output(layer, x.rows(), bias);
    if x.rows() <= ROWS_TO_SHARE_WEIGHTS {
        // SAFETY: `y` has room for the product, and nobody else has it.
        unsafe { layer.multiply_few(x, output) };
    } else {
        share_rows(x.rows(), layer.rows_per_task()).for_each(|rows| {
            let (x, output) = (x.row_range(rows.clone()), output.at_row(rows.start));
            // SAFETY: `y` has room for all rows, and these are no other task's.
            unsafe { layer.multiply_rows(x, output) };
        });
    }
    // SAFETY: `output` has made room for so many elements, and all of them have been written.
    unsafe { y.set_len(x.rows() * d_output) };
    y
}

/// Room for the product of so many rows, and where it goes.
pub(super) fn output<'a>(
    layer: &impl Layer,
    rows: usize,
    bias: &'a [f32],
) -> (Vec<f32>, Output<'a>) {
    let [d_output, _] = layer.shape();
    let mut y = Vec::with_capacity(rows * d_output);
    let output = to_rows(layer, y.as_mut_ptr(), bias);
    (y, output)
}

/// Rows of outputs without gaps.
pub(super) fn to_rows<'a>(layer: &impl Layer, y: *mut f32, bias: &'a [f32]) -> Output<'a> {
    let [d_output, _] = layer.shape();
    assert!(
        bias.is_empty() || bias.len() == d_output,
        "a bias of {} numbers for {d_output} outputs",
        bias.len(),
    );
    Output {
        y,
        stride: d_output,
        scales: None,
        initial: Initial::bias(bias),
        transposed: false,
    }
}

/// The rows of tasks, of so many at most, shared evenly among threads.
pub(super) fn share_rows(rows: usize, most: usize) -> impl ParallelIterator<Item = Range<usize>> {
    let panels = rows.div_ceil(PANEL_ROWS);
    let threads = rayon::current_num_threads();
    let tasks = (rows.div_ceil(most).next_multiple_of(threads)).min(panels);
    share(panels, tasks).map(move |panels| rows_of(&panels, rows))
}

/// The panels of weights of tasks.
pub(super) fn share_weights(d_output: usize) -> impl ParallelIterator<Item = Range<usize>> {
    let panels = d_output.div_ceil(PANEL_ROWS);
    share(panels, panels.min(4 * rayon::current_num_threads()))
}

/// The rows of these panels, of a matrix of so many rows.
pub(super) fn rows_of(panels: &Range<usize>, rows: usize) -> Range<usize> {
    panels.start * PANEL_ROWS..rows.min(panels.end * PANEL_ROWS)
}

/// Panels shared evenly among tasks.
fn share(panels: usize, tasks: usize) -> impl ParallelIterator<Item = Range<usize>> {
    let tasks_of = (0..tasks).into_par_iter();
    tasks_of.map(move |i| i * panels / tasks..(i + 1) * panels / tasks)
}
