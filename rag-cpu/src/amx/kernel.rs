//! Products of panels, and where they go.

// Loops over registers go by index: closures are compiled without vectors.
#![allow(clippy::needless_range_loop)]

use std::{arch::x86_64::*, ops::Range};

use super::{
    instructions::{Numbers, Sums, configure, release},
    tile::{PANEL_ROWS, TILE_ROWS, Tile, transpose},
};
use crate::matrix::Initial;

/// Where a product goes: rows at `y` that are `stride` elements apart.
#[derive(Clone, Copy)]
pub(crate) struct Output<'a> {
    pub y: *mut f32,
    pub stride: usize,
    /// Factors of the sums, if there are any, before they are added to `initial`.
    pub scales: Option<Scales<'a>>,
    pub initial: Initial<'a>,
    /// Whether the rows of the right operand are those of the product.
    pub transposed: bool,
}

/// Factors of each row and of each column of a product.
#[derive(Clone, Copy)]
pub(crate) struct Scales<'a> {
    pub rows: &'a [f32],
    pub columns: &'a [f32],
}

// SAFETY: an `Output` is a pointer, which only [`Output::multiply`] writes to; its caller promises that nobody else uses
// the elements that it writes.
unsafe impl Sync for Output<'_> {}

impl Output<'_> {
    /// The same from this row on.
    pub fn at_row(self, row: usize) -> Self {
        let y = self.y.wrapping_add(row * self.stride);
        Self { y, ..self }
    }

    /// The same for the inner columns from here on: they are added to the sums of those before.
    pub fn at_column(self, column: usize) -> Self {
        let initial = match column {
            0 => self.initial,
            _ => Initial::Previous,
        };
        Self { initial, ..self }
    }

    /// Multiplies the panels of these rows of the left and the right operand.
    ///
    /// # Safety
    /// The matrix units are [`available`](super::available), and multiply these numbers. `y` is valid for writes of `left_rows` × `right_rows` elements
    /// at its stride, or of `right_rows` × `left_rows` if it is transposed, which nobody else reads or writes meanwhile;
    /// with [`Initial::Previous`] they are initialised; with [`Initial::Bias`] there is a number for each column, and with
    /// [`Scales`] one for each row and each column.
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) unsafe fn multiply<N: Numbers>(
        &self,
        (left, left_rows): (&[Tile], Range<usize>),
        (right, right_rows): (&[Tile], Range<usize>),
        per_panel: usize,
    ) {
        // SAFETY: the caller's promise.
        unsafe { configure() };
        let mut sums = Sums::ZEROS;
        for (i, right) in right.chunks_exact(per_panel).enumerate() {
            let columns = right_rows.start + i * PANEL_ROWS..right_rows.end;
            for (j, left) in left.chunks_exact(per_panel).enumerate() {
                let rows = left_rows.start + j * PANEL_ROWS..left_rows.end;
                // SAFETY: the caller's promise; the registers are laid out.
                unsafe { N::sum(left, right, &mut sums) };
                // SAFETY: the caller's promise; these rows and columns are among those of the product.
                unsafe { self.store::<N>(&sums, rows, columns.clone()) };
            }
        }
        // SAFETY: the caller's promise; the sums are stored.
        unsafe { release() };
    }

    /// Stores sums at the first of these rows and columns, or columns and rows.
    ///
    /// # Safety
    /// As for [`Output::multiply`], of the first `PANEL_ROWS` of these rows and columns.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn store<N: Numbers>(&self, sums: &Sums, rows: Range<usize>, columns: Range<usize>) {
        for (row, column) in [
            (0, 0),
            (0, TILE_ROWS),
            (TILE_ROWS, 0),
            (TILE_ROWS, TILE_ROWS),
        ] {
            let mut quarter = [_mm512_setzero_si512(); TILE_ROWS];
            for i in 0..TILE_ROWS {
                let sums = &sums.0[row + i][column..][..TILE_ROWS];
                // SAFETY: the slice has the 16 numbers that are read.
                quarter[i] = unsafe { _mm512_loadu_si512(sums.as_ptr().cast()) };
            }
            let mut rows = rows.start + row..rows.end;
            let mut columns = columns.start + column..columns.end;
            if self.transposed {
                transpose(&mut quarter);
                (rows, columns) = (columns, rows);
            }
            let width = columns.len().min(TILE_ROWS);
            if width == 0 {
                continue;
            }
            let mask = (1_u32 << width).wrapping_sub(1) as u16;
            for (row, sums) in rows.zip(quarter) {
                // SAFETY: this function's processor has AVX-512 F.
                let mut sums = unsafe { N::floats(sums) };
                if let Some(scales) = self.scales {
                    let of_columns = scales.columns[columns.start..][..width].as_ptr();
                    // SAFETY: the slice has the `width` numbers that are read.
                    let scale = unsafe { _mm512_maskz_loadu_ps(mask, of_columns) };
                    let scale = _mm512_mul_ps(_mm512_set1_ps(scales.rows[row]), scale);
                    sums = _mm512_mul_ps(sums, scale);
                }
                // SAFETY: the row and its first column are among those that the caller promises to be within `y`.
                let y = unsafe { self.y.add(row * self.stride + columns.start) };
                let initial = match self.initial {
                    // Added to a number, -0 leaves it as it is, and 0 makes 0 of -0.
                    Initial::Zero => _mm512_set1_ps(-0.0),
                    // SAFETY: there is a number for each column, and no other than `width` of them are read.
                    Initial::Bias(bias) => unsafe {
                        _mm512_maskz_loadu_ps(mask, bias.as_ptr().add(columns.start))
                    },
                    // SAFETY: `y` is valid for `width` numbers, and initialised, by the caller's promise.
                    Initial::Previous => unsafe { _mm512_maskz_loadu_ps(mask, y) },
                };
                let sums = _mm512_add_ps(sums, initial);
                // SAFETY: `y` is valid for `width` numbers, by the caller's promise, and no others are written.
                unsafe { _mm512_mask_storeu_ps(y, mask, sums) };
            }
        }
    }
}
