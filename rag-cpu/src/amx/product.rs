//! Products of f32, each in three parts of bf16.

use rayon::prelude::*;

use super::{
    available::available,
    instructions::Bf16,
    kernel::Output,
    scratch::{OWN_TILES, SHARED_TILES, chunks, room},
    tile::{PANEL_ROWS, pack, pack_all, tiles_per_panel},
};
use crate::matrix::{Cores, Initial, Matrix};

/// Rows of the smaller matrix that all tasks read: what they need of it stays in the last-level cache.
const SHARED_ROWS: usize = 1024;

/// Rows of a task: packed, they stay in the second-level cache.
const PACKED_ROWS_PER_TASK: usize = 128;

/// Writes `initial + a b`, of numbers in three parts.
///
/// # Safety
/// `a.columns()` is `b.rows()`, and [`Initial::Bias`] has `b.columns()` elements. `y` is valid for writes of `a.rows()`
/// rows of `b.columns()` elements, `stride` apart, which do not overlap and which nobody else reads or writes meanwhile;
/// with [`Initial::Previous`] they are initialised.
pub(crate) unsafe fn write(
    a: Matrix<'_>,
    b: Matrix<'_>,
    y: *mut f32,
    stride: usize,
    initial: Initial<'_>,
    cores: Cores,
) {
    assert!(available(), "there are no matrix units");
    assert!(a.columns() > 0, "columns of a");
    let (inner, b) = (a.columns(), b.transposed());
    // The right factor is transposed when it is packed: that should be the smaller matrix.
    let transposed = a.rows() < b.rows();
    let (larger, smaller) = match transposed {
        true => (b, a),
        false => (a, b),
    };
    let (tasks, at_least) = match cores {
        Cores::One => (1, usize::MAX),
        Cores::All => (4 * rayon::current_num_threads(), 1),
    };
    let own = larger.rows().div_ceil(tasks).next_multiple_of(PANEL_ROWS);
    let own = own.min(PACKED_ROWS_PER_TASK);
    let output = Output {
        y,
        stride,
        scales: None,
        initial,
        transposed,
    };
    let mut memory = SHARED_TILES.take();
    for columns in chunks(inner) {
        let output = output.at_column(columns.start);
        let per_panel = tiles_per_panel::<3>(&columns);
        for row in (0..smaller.rows()).step_by(SHARED_ROWS) {
            let shared = row..smaller.rows().min(row + SHARED_ROWS);
            let tiles = room(&mut memory, shared.len().div_ceil(PANEL_ROWS) * per_panel);
            (tiles.par_chunks_exact_mut(per_panel).enumerate())
                .with_min_len(at_least)
                .for_each(|(i, tiles)| {
                    let rows = shared.start + i * PANEL_ROWS..shared.end;
                    pack::<3>(smaller, rows, columns.clone(), true, tiles);
                });
            let right = &*tiles;
            (0..larger.rows().div_ceil(own))
                .into_par_iter()
                .with_min_len(at_least)
                .for_each(|i| {
                    let rows = i * own..larger.rows().min((i + 1) * own);
                    let mut memory = OWN_TILES.take();
                    let left = room(&mut memory, rows.len().div_ceil(PANEL_ROWS) * per_panel);
                    pack_all::<3>(larger, rows.clone(), columns.clone(), false, left);
                    let right = (right, shared.clone());
                    // SAFETY: the matrix units are available; the rest is the caller's promise, of these rows (or, if it is
                    // transposed, columns), which are no other task's; elements are initialised by the first chunk.
                    unsafe { output.multiply::<Bf16<3>>((left, rows), right, per_panel) };
                    OWN_TILES.set(memory);
                });
        }
    }
    SHARED_TILES.set(memory);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn multiply(
        a: Matrix<'_>,
        b: Matrix<'_>,
        y: &mut [f32],
        stride: usize,
        initial: Initial<'_>,
        cores: Cores,
    ) {
        assert!(y.len() >= a.rows() * stride);
        // SAFETY: `y` has been checked to have room, and is borrowed.
        unsafe { write(a, b, y.as_mut_ptr(), stride, initial, cores) };
    }

    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        let number = |i: usize| ((i * 7919 + seed) as f32 * 0.618_034).fract() - 0.5;
        (0..count).map(number).collect()
    }

    /// Root mean square of what differs from exact sums, over theirs.
    fn error(y: &[f32], a: &[f32], b: &[f32], [rows, inner, columns]: [usize; 3]) -> f64 {
        let (mut errors, mut squares) = (0.0, 0.0);
        for i in 0..rows {
            for j in 0..columns {
                let product = |k| f64::from(a[i * inner + k]) * f64::from(b[j * inner + k]);
                let exact: f64 = (0..inner).map(product).sum();
                errors += (f64::from(y[i * columns + j]) - exact).powi(2);
                squares += exact * exact;
            }
        }
        (errors / squares).sqrt()
    }

    #[test]
    fn products_are_as_exact_as_f32() {
        for shape in [
            [32, 32, 32],
            [33, 100, 70],
            [1100, 37, 40],
            [45, 1100, 150],
            [1100, 40, 1060],
        ] {
            let [rows, inner, columns] = shape;
            let (a, b) = (numbers(rows * inner, 1), numbers(columns * inner, 2));
            let transposed = |x: &[f32]| -> Vec<f32> {
                let lines = x.len() / inner;
                let of = |i| x[i % lines * inner + i / lines];
                (0..x.len()).map(of).collect()
            };
            let (a_transposed, b_transposed) = (transposed(&a), transposed(&b));
            let a_rows = Matrix::new(&a, [rows, inner]);
            let b_rows = Matrix::new(&b, [columns, inner]).transposed();
            if !available() {
                return;
            }
            let a_columns = Matrix::new(&a_transposed, [inner, rows]).transposed();
            let b_columns = Matrix::new(&b_transposed, [inner, columns]);
            let mut found = vec![0.0; rows * columns];
            multiply(
                a_rows,
                b_rows,
                &mut found,
                columns,
                Initial::Zero,
                Cores::All,
            );
            let error = error(&found, &a, &b, shape);
            assert!(error < 5e-7, "{shape:?}: {error}");
            for (a, b, cores) in [
                (a_columns, b_rows, Cores::One),
                (a_rows, b_columns, Cores::All),
                (a_columns, b_columns, Cores::One),
            ] {
                let stride = columns + 3;
                let mut y = vec![2.0; rows * stride];
                multiply(a, b, &mut y, stride, Initial::Zero, cores);
                for (y, found) in y.chunks(stride).zip(found.chunks(columns)) {
                    assert_eq!(&y[..columns], found);
                    assert_eq!(&y[columns..], [2.0; 3]);
                }
                let row = numbers(columns, 3);
                let starts = [
                    (Initial::Previous, found.as_slice()),
                    (Initial::Bias(&row), &row),
                ];
                for (initial, before) in starts {
                    multiply(a, b, &mut y, stride, initial, cores);
                    for (i, y) in y.chunks(stride).enumerate() {
                        let of_row = i * columns..(i + 1) * columns;
                        let before = before.get(of_row.clone()).unwrap_or(&row);
                        for ((y, found), before) in y.iter().zip(&found[of_row]).zip(before) {
                            let expected = found + before;
                            assert!((y - expected).abs() <= 1e-6 * expected.abs().max(1.0));
                        }
                        assert_eq!(&y[columns..], [2.0; 3]);
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_not_finite_is_seen() {
        let (mut a, b) = (numbers(40 * 50, 1), numbers(60 * 50, 2));
        a[7 * 50 + 3] = f32::INFINITY;
        a[9 * 50 + 4] = f32::NAN;
        let a = Matrix::new(&a, [40, 50]);
        let b = Matrix::new(&b, [60, 50]).transposed();
        if !available() {
            return;
        }
        let mut y = vec![0.0; 40 * 60];
        multiply(a, b, &mut y, 60, Initial::Zero, Cores::All);
        for (row, y) in y.chunks(60).enumerate() {
            let finite = ![7, 9].contains(&row);
            assert!(y.iter().all(|y| y.is_finite() == finite), "row {row}");
        }
    }
}
