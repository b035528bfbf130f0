//! Products of matrices into memory of the caller's. Burn's CPU backend writes them to tensors that it clears, copies
//! to other memory, and then fills.

use std::ops::Range;

use gemm::{Parallelism, gemm};

#[cfg(target_arch = "x86_64")]
use super::tiles;

/// Numbers of a matrix, which has all of them.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    pub numbers: &'a [f32],
    rows: usize,
    columns: usize,
    /// From a row to the next, and from a column to the next: one of them is 1.
    pub strides: [usize; 2],
}

/// Who works on a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cores {
    /// Whoever asks for it, among many others.
    One,
    /// All, where it is large.
    All,
}

/// Multiplications from which on all cores share a product.
const SHARED: usize = 192 * 192 * 192;

/// Rows and columns of a result at a time. A product copies one of its matrices into the order of its kernel, which is
/// much where one side is a vocabulary.
const PIECE: usize = 8192;

impl<'a> Matrix<'a> {
    /// Row after row.
    pub fn new(numbers: &'a [f32], [rows, columns]: [usize; 2]) -> Self {
        Self::apart(numbers, [rows, columns], columns)
    }

    /// Rows whose beginnings are so far `apart`.
    pub fn apart(numbers: &'a [f32], [rows, columns]: [usize; 2], apart: usize) -> Self {
        check(numbers, [rows, columns], apart);
        Self {
            numbers,
            rows,
            columns,
            strides: [apart, 1],
        }
    }

    pub fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            strides: [self.strides[1], self.strides[0]],
            ..self
        }
    }

    /// Some of its rows.
    pub fn some(self, rows: Range<usize>) -> Self {
        assert!(rows.end <= self.rows, "rows {rows:?} of {}", self.rows);
        let first = rows.start * self.strides[0];
        Self {
            // Of no rows there may be none before them.
            numbers: self.numbers.get(first..).unwrap_or_default(),
            rows: rows.len(),
            ..self
        }
    }

    pub fn rows(self) -> usize {
        self.rows
    }

    pub fn columns(self) -> usize {
        self.columns
    }
}

/// Whether so many rows are in `numbers`.
fn check(numbers: &[f32], [rows, columns]: [usize; 2], apart: usize) {
    let before_last = rows.saturating_sub(1).checked_mul(apart);
    let needed = before_last.and_then(|before| before.checked_add(columns.min(rows * columns)));
    let found = numbers.len();
    assert!(
        needed.is_some_and(|needed| needed <= found),
        "{rows} rows of {columns} numbers, {apart} apart, in {found}"
    );
}

/// What a product is added to.
#[derive(Clone, Copy, Debug)]
pub enum Start<'a> {
    Nothing,
    /// The same in each row.
    Row(&'a [f32]),
    /// What is where it goes.
    Before,
}

impl<'a> Start<'a> {
    /// Of a linear layer, with no numbers for no bias.
    pub fn bias(numbers: &'a [f32]) -> Self {
        match numbers {
            [] => Self::Nothing,
            _ => Self::Row(numbers),
        }
    }
}

/// `start + a b`, row after row.
#[allow(unsafe_code)]
pub fn product(a: Matrix<'_>, b: Matrix<'_>, start: Start<'_>) -> Vec<f32> {
    assert!(!matches!(start, Start::Before), "there is nothing before");
    let count = a.rows * b.columns;
    let mut y = Vec::with_capacity(count);
    // SAFETY: there is room for all numbers, and all are written.
    unsafe {
        write(a, b, y.as_mut_ptr(), b.columns, start, Cores::All);
        y.set_len(count);
    }
    y
}

/// `y`, whose rows are so far `apart`, becomes `start + a b`.
#[allow(unsafe_code)]
pub fn multiply(
    a: Matrix<'_>,
    b: Matrix<'_>,
    y: &mut [f32],
    apart: usize,
    start: Start<'_>,
    cores: Cores,
) {
    check(y, [a.rows, b.columns], apart);
    assert!(
        a.rows <= 1 || b.columns <= apart,
        "rows of the product overlap"
    );
    // SAFETY: there is room for the product, which nobody else holds.
    unsafe { write(a, b, y.as_mut_ptr(), apart, start, cores) };
}

/// Writes all numbers of the product, and reads them first from where they go if they [start](Start::Before) there.
#[allow(unsafe_code)]
unsafe fn write(
    a: Matrix<'_>,
    b: Matrix<'_>,
    y: *mut f32,
    apart: usize,
    start: Start<'_>,
    cores: Cores,
) {
    let (rows, inner, columns) = (a.rows, a.columns, b.columns);
    assert_eq!(inner, b.rows, "columns of a, rows of b");
    if let Start::Row(row) = start {
        assert_eq!(row.len(), columns, "as many numbers as columns");
    }
    let cores = match rows * inner * columns >= SHARED {
        true => cores,
        false => Cores::One,
    };
    #[cfg(target_arch = "x86_64")]
    if tiles::serve(a, b) {
        // SAFETY: the caller's.
        return unsafe { tiles::write(a, b, y, apart, start, cores) };
    }
    let zeros;
    let before = match start {
        Start::Row(row) => Some(row),
        Start::Nothing if inner == 0 => {
            zeros = vec![0.0; columns];
            Some(zeros.as_slice())
        }
        _ => None,
    };
    if let Some(before) = before {
        for row in 0..rows {
            // SAFETY: there is room for the row.
            unsafe { y.add(row * apart).copy_from(before.as_ptr(), columns) };
        }
    }
    if inner == 0 {
        return;
    }
    let added = before.is_some() || matches!(start, Start::Before);
    let parallelism = match cores {
        Cores::All => Parallelism::Rayon(0),
        Cores::One => Parallelism::None,
    };
    let signed = |strides: [usize; 2]| strides.map(|stride| stride as isize);
    let ([a_row, a_column], [b_row, b_column]) = (signed(a.strides), signed(b.strides));
    for row in (0..rows).step_by(PIECE) {
        for column in (0..columns).step_by(PIECE) {
            // SAFETY: the matrices have been checked to hold their rows and columns, whichever of them lie together,
            // and `y`, which nobody else holds, to have room for the product.
            unsafe {
                gemm(
                    PIECE.min(rows - row),
                    PIECE.min(columns - column),
                    inner,
                    y.add(row * apart + column),
                    1,
                    apart as isize,
                    added,
                    a.numbers.as_ptr().add(row * a.strides[0]),
                    a_column,
                    a_row,
                    b.numbers.as_ptr().add(column * b.strides[1]),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_those_of_rows_and_columns() {
        let number = |i: usize| ((i * 37) % 23) as f32 - 11.0;
        for [rows, inner, columns] in [
            [1, 1, 1],
            [3, 4, 5],
            [7, 0, 2],
            [200, 210, 220],
            [PIECE + 1, 0, PIECE + 1],
            [2, 3, PIECE + 1],
            [PIECE + 1, 3, 2],
        ] {
            let a: Vec<f32> = (0..rows * inner).map(number).collect();
            let b: Vec<f32> = (0..inner * columns).map(number).collect();
            let expected = |i: usize, j: usize| -> f32 {
                (0..inner)
                    .map(|k| a[i * inner + k] * b[k * columns + j])
                    .sum()
            };
            let turned: Vec<f32> = (0..columns * inner)
                .map(|i| b[i % inner * columns + i / inner])
                .collect();
            let matrix = Matrix::new(&a, [rows, inner]);
            let other = Matrix::new(&turned, [columns, inner]).transposed();
            let row: Vec<f32> = (0..columns).map(number).collect();
            for (b, start) in [
                (Matrix::new(&b, [inner, columns]), Start::Nothing),
                (other, Start::Before),
                (other, Start::Row(&row)),
            ] {
                let mut y = vec![3.0; rows * columns];
                multiply(matrix, b, &mut y, columns, start, Cores::All);
                for (i, found) in y.iter().enumerate() {
                    let before = match start {
                        Start::Nothing => 0.0,
                        Start::Row(row) => row[i % columns],
                        Start::Before => 3.0,
                    };
                    assert_eq!(*found, before + expected(i / columns, i % columns));
                }
                if !matches!(start, Start::Before) {
                    assert_eq!(product(matrix, b, start), y);
                }
            }
        }
    }
}
