//! A feed-forward block of packed weights, whose hidden layer stays in the cache.

use std::cell::Cell;

use rayon::prelude::*;

use super::{
    kernel::Output,
    weights::{Weights, shares},
};
use crate::{
    activation::gelu_in_place,
    matrix::{Initial, Matrix},
    processor::Processor,
};

/// Rows of a hidden layer that a task computes at a time.
const ROWS_PER_TASK: usize = 128;

thread_local! {
    static HIDDEN: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// `down(gelu(up x))`, with their biases. Tasks share the rows, and each has as much of the hidden layer as stays in the
/// second-level cache.
pub(crate) fn feed_forward(
    processor: Processor,
    [up, down]: [&Weights; 2],
    [up_bias, down_bias]: [&[f32]; 2],
    x: Matrix<'_>,
) -> Vec<f32> {
    assert_eq!(x.columns(), up.d_input, "inputs for these weights");
    assert_eq!(up.d_output, down.d_input, "a hidden layer of one size");
    up.check(up_bias);
    let (mut y, output) = down.output(x.rows(), down_bias);
    shares(x.rows(), ROWS_PER_TASK).for_each(|rows| {
        let mut hidden = HIDDEN.take();
        hidden.resize(rows.len() * up.d_output, 0.0);
        let to_hidden = Output {
            y: hidden.as_mut_ptr(),
            stride: up.d_output,
            initial: Initial::bias(up_bias),
            transposed: false,
        };
        // SAFETY: the hidden layer has room for these rows, and is this task's own.
        unsafe { up.multiply_rows(x.row_range(rows.clone()), to_hidden) };
        processor.run(
            #[inline(always)]
            || gelu_in_place(&mut hidden),
        );
        let raised = Matrix::new(&hidden, [rows.len(), up.d_output]);
        // SAFETY: `y` has room for all rows, and these are no other task's.
        unsafe { down.multiply_rows(raised, output.at_row(rows.start)) };
        HIDDEN.set(hidden);
    });
    // SAFETY: `output` has made room for so many elements, and all of them have been written.
    unsafe { y.set_len(x.rows() * down.d_output) };
    y
}
