//! A feed-forward block of packed weights, whose hidden layer stays in the cache.

use std::cell::Cell;

use rayon::prelude::*;

use super::layer::{Layer, output, share_rows, to_rows};
use crate::{activation::gelu_in_place, matrix::Matrix, processor::Processor};

/// Rows of a hidden layer that a task computes at a time.
const ROWS_PER_TASK: usize = 128;

thread_local! {
    static HIDDEN: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// `down(gelu(up x))`, with their biases, of which an empty one stands for none. Tasks share the rows, and each has as much
/// of the hidden layer as stays in the second-level cache.
pub(crate) fn feed_forward<L: Layer>(
    processor: Processor,
    [up, down]: [&L; 2],
    [up_bias, down_bias]: [&[f32]; 2],
    x: Matrix<'_>,
) -> Vec<f32> {
    let ([d_hidden, d_input], [d_output, d_raised]) = (up.shape(), down.shape());
    assert_eq!(x.columns(), d_input, "inputs for these weights");
    assert_eq!(d_hidden, d_raised, "a hidden layer of one size");
    let (mut y, output) = output(down, x.rows(), down_bias);
    share_rows(x.rows(), ROWS_PER_TASK).for_each(|rows| {
        let mut hidden = HIDDEN.take();
        hidden.resize(rows.len() * d_hidden, 0.0);
        let to_hidden = to_rows(up, hidden.as_mut_ptr(), up_bias);
        // SAFETY: the hidden layer has room for these rows, and is this task's own.
        unsafe { up.multiply_rows(x.row_range(rows.clone()), to_hidden) };
        processor.vectorise(
            #[inline(always)]
            || gelu_in_place(&mut hidden),
        );
        let raised = Matrix::new(&hidden, [rows.len(), d_hidden]);
        // SAFETY: `y` has room for all rows, and these are no other task's.
        unsafe { down.multiply_rows(raised, output.at_row(rows.start)) };
        HIDDEN.set(hidden);
    });
    // SAFETY: `output` has made room for so many elements, and all of them have been written.
    unsafe { y.set_len(x.rows() * d_output) };
    y
}
