//! Matrices in f32 whose elements somebody else holds, and how products of them are made.

use std::ops::Range;

/// A view of `[rows, columns]` elements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matrix<'a> {
    pub elements: &'a [f32],
    rows: usize,
    columns: usize,
    /// Elements from a row to the next, and from a column to the next: one of them is 1.
    pub strides: [usize; 2],
}

impl<'a> Matrix<'a> {
    /// Row-major, without gaps.
    pub fn new(elements: &'a [f32], [rows, columns]: [usize; 2]) -> Self {
        Self::with_stride(elements, [rows, columns], columns)
    }

    /// Row-major, rows `stride` elements apart.
    pub fn with_stride(elements: &'a [f32], [rows, columns]: [usize; 2], stride: usize) -> Self {
        check(elements, [rows, columns], stride);
        Self {
            elements,
            rows,
            columns,
            strides: [stride, 1],
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

    pub fn row_range(self, rows: Range<usize>) -> Self {
        assert!(rows.end <= self.rows, "rows {rows:?} of {}", self.rows);
        let first = rows.start * self.strides[0];
        Self {
            // An empty range at the end may begin beyond the last element.
            elements: self.elements.get(first..).unwrap_or_default(),
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

/// Panics unless `elements` holds so many rows, `stride` apart.
pub(crate) fn check(elements: &[f32], [rows, columns]: [usize; 2], stride: usize) {
    let before_last = rows.saturating_sub(1).checked_mul(stride);
    let needed = before_last.and_then(|before| before.checked_add(columns.min(rows * columns)));
    let found = elements.len();
    assert!(
        needed.is_some_and(|needed| needed <= found),
        "{rows} rows of {columns} elements, {stride} apart, in {found}"
    );
}

/// The initial value of a product.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Initial<'a> {
    Zero,
    /// The same row, in each row.
    Bias(&'a [f32]),
    /// The elements that the product overwrites.
    Previous,
}

impl<'a> Initial<'a> {
    /// The bias of a linear layer, which is empty where it has none.
    pub fn bias(elements: &'a [f32]) -> Self {
        match elements {
            [] => Self::Zero,
            _ => Self::Bias(elements),
        }
    }
}

/// Which cores compute a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cores {
    /// The calling thread, which is one of many that compute products.
    One,
    /// All, where the product is large.
    All,
}
