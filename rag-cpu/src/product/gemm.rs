//! Products by the crate gemm.

use ::gemm::{Parallelism, gemm};

use crate::matrix::{Cores, Initial, Matrix};

/// Rows and columns of a result at a time. gemm packs one of the matrices into the order of its kernel, which is much
/// where one side is a vocabulary.
const ROWS_AND_COLUMNS_AT_ONCE: usize = 8192;

/// Writes `initial + a b`.
///
/// # Safety
/// `a.columns()` is `b.rows()`, and [`Initial::Bias`] has `b.columns()` elements. `y` is valid for writes of `a.rows()`
/// rows of `b.columns()` elements, `stride` apart, which do not overlap and which nobody else reads or writes meanwhile;
/// with [`Initial::Previous`] they are initialised.
pub unsafe fn write(
    a: Matrix<'_>,
    b: Matrix<'_>,
    y: *mut f32,
    stride: usize,
    initial: Initial<'_>,
    cores: Cores,
) {
    const PIECE: usize = ROWS_AND_COLUMNS_AT_ONCE;
    let (rows, inner, columns) = (a.rows(), a.columns(), b.columns());
    let zeros;
    let first = match initial {
        Initial::Bias(bias) => Some(bias),
        Initial::Zero if inner == 0 => {
            zeros = vec![0.0; columns];
            Some(zeros.as_slice())
        }
        _ => None,
    };
    if let Some(first) = first {
        for row in 0..rows {
            // SAFETY: `y` has room for this row of `columns` elements, by the caller's promise; `first` has as many, and
            // does not overlap what nobody else reads.
            unsafe { y.add(row * stride).copy_from(first.as_ptr(), columns) };
        }
    }
    if inner == 0 {
        return;
    }
    let added = first.is_some() || matches!(initial, Initial::Previous);
    let parallelism = match cores {
        Cores::All => Parallelism::Rayon(0),
        Cores::One => Parallelism::None,
    };
    let signed = |strides: [usize; 2]| strides.map(|stride| stride as isize);
    let ([a_row, a_column], [b_row, b_column]) = (signed(a.strides), signed(b.strides));
    for row in (0..rows).step_by(PIECE) {
        for column in (0..columns).step_by(PIECE) {
            // SAFETY: a `Matrix` holds all its rows and columns at its strides, and the pieces are within them; `y` has
            // room for the piece by the caller's promise, and its elements are initialised where gemm adds to them.
            unsafe {
                gemm(
                    PIECE.min(rows - row),
                    PIECE.min(columns - column),
                    inner,
                    y.add(row * stride + column),
                    1,
                    stride as isize,
                    added,
                    a.elements.as_ptr().add(row * a.strides[0]),
                    a_column,
                    a_row,
                    b.elements.as_ptr().add(column * b.strides[1]),
                    b_column,
                    b_row,
                    1.0,
                    1.0,
                    false,
                    false,
                    false,
                    parallelism,
                );
            }
        }
    }
}
