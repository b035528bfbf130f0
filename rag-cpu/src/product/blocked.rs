//! Products in plain Rust, for processors without AVX2.

use rayon::prelude::*;

use crate::matrix::{Cores, Initial, Matrix};

/// Rows and columns of the result whose sums are in registers.
const BLOCK: [usize; 2] = [4, 8];

/// Inner elements of a packed panel of the right matrix, which the first-level cache holds.
const INNER_PER_PANEL: usize = 256;

const ROWS_PER_TASK: usize = 64;

/// Makes `y`, whose rows are `stride` apart, `initial + a b`. The caller has checked the shapes.
pub fn multiply(
    a: Matrix<'_>,
    b: Matrix<'_>,
    y: &mut [f32],
    stride: usize,
    initial: Initial<'_>,
    cores: Cores,
) {
    let (rows, columns) = (a.rows(), b.columns());
    if rows * columns == 0 {
        return;
    }
    let stride = stride.max(columns);
    let y = &mut y[..(rows - 1) * stride + columns];
    let task = |(i, y): (usize, &mut [f32])| {
        let first = i * ROWS_PER_TASK;
        let rows = first..rows.min(first + ROWS_PER_TASK);
        multiply_rows(a.row_range(rows), b, y, stride, initial);
    };
    let rows_of_task = ROWS_PER_TASK * stride;
    match cores {
        Cores::All => y.par_chunks_mut(rows_of_task).enumerate().for_each(task),
        Cores::One => y.chunks_mut(rows_of_task).enumerate().for_each(task),
    }
}

fn multiply_rows(a: Matrix<'_>, b: Matrix<'_>, y: &mut [f32], stride: usize, initial: Initial<'_>) {
    let (rows, inner, columns) = (a.rows(), a.columns(), b.columns());
    for row in y.chunks_mut(stride) {
        // The last row ends with its columns.
        let row = &mut row[..columns];
        match initial {
            Initial::Zero => row.fill(0.0),
            Initial::Bias(bias) => row.copy_from_slice(bias),
            Initial::Previous => {}
        }
    }
    let mut panel = [[0.0; BLOCK[1]]; INNER_PER_PANEL];
    for first_inner in (0..inner).step_by(INNER_PER_PANEL) {
        let depth = INNER_PER_PANEL.min(inner - first_inner);
        for column in (0..columns).step_by(BLOCK[1]) {
            let width = BLOCK[1].min(columns - column);
            for (k, packed) in panel[..depth].iter_mut().enumerate() {
                let from = (first_inner + k) * b.strides[0] + column * b.strides[1];
                *packed = std::array::from_fn(|c| match c < width {
                    true => b.elements[from + c * b.strides[1]],
                    false => 0.0,
                });
            }
            for row in (0..rows).step_by(BLOCK[0]) {
                let height = BLOCK[0].min(rows - row);
                let sums = block(a, row, first_inner, &panel[..depth]);
                for (r, sums) in sums.iter().take(height).enumerate() {
                    let y = &mut y[(row + r) * stride + column..][..width];
                    y.iter_mut().zip(sums).for_each(|(y, sum)| *y += sum);
                }
            }
        }
    }
}

/// The products of some rows of `a` with a panel. Rows beyond the last repeat it.
fn block(
    a: Matrix<'_>,
    row: usize,
    first_inner: usize,
    panel: &[[f32; BLOCK[1]]],
) -> [[f32; BLOCK[1]]; BLOCK[0]] {
    let starts: [usize; BLOCK[0]] = std::array::from_fn(|r| {
        (row + r).min(a.rows() - 1) * a.strides[0] + first_inner * a.strides[1]
    });
    let mut sums = [[0.0; BLOCK[1]]; BLOCK[0]];
    for (k, packed) in panel.iter().enumerate() {
        for (sums, start) in sums.iter_mut().zip(starts) {
            let left = a.elements[start + k * a.strides[1]];
            for (sum, right) in sums.iter_mut().zip(packed) {
                *sum += left * right;
            }
        }
    }
    sums
}
