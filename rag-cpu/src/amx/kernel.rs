//! The instructions on tile registers, and where their sums go.

// Loops over registers go by index: closures are compiled without vectors.
#![allow(clippy::needless_range_loop)]

use std::{
    arch::{asm, x86_64::*},
    ops::Range,
};

use super::tile::{PANEL_ROWS, TILE_ROWS, Tile, transpose};
use crate::matrix::Initial;

#[cfg(test)]
use super::{available::emulated, emulation};

/// The sums of the products of two panels.
#[repr(C, align(64))]
pub(super) struct Sums(pub [[f32; PANEL_ROWS]; PANEL_ROWS]);

impl Sums {
    pub const ZEROS: Self = Self([[0.0; PANEL_ROWS]; PANEL_ROWS]);
}

/// Where a product goes: rows at `y` that are `stride` elements apart.
#[derive(Clone, Copy)]
pub(super) struct Output<'a> {
    pub y: *mut f32,
    pub stride: usize,
    pub initial: Initial<'a>,
    /// Whether the rows of the right operand are those of the product.
    pub transposed: bool,
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
    /// The matrix units are [`available`](super::available). `y` is valid for writes of `left_rows` × `right_rows` elements
    /// at its stride, or of `right_rows` × `left_rows` if it is transposed, which nobody else reads or writes meanwhile;
    /// with [`Initial::Previous`] they are initialised; with [`Initial::Bias`] there is a number for each column.
    #[target_feature(enable = "avx512f,avx512bw")]
    pub unsafe fn multiply<const P: usize>(
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
                unsafe { sum::<P>(left, right, &mut sums) };
                // SAFETY: the caller's promise; these rows and columns are among those of the product.
                unsafe { self.store(&sums, rows, columns.clone()) };
            }
        }
        // SAFETY: the caller's promise.
        unsafe { release() };
    }

    /// Stores sums at the first of these rows and columns, or columns and rows.
    ///
    /// # Safety
    /// As for [`Output::multiply`], of the first `PANEL_ROWS` of these rows and columns.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn store(&self, sums: &Sums, rows: Range<usize>, columns: Range<usize>) {
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
                // SAFETY: the row and its first column are among those that the caller promises to be within `y`.
                let y = unsafe { self.y.add(row * self.stride + columns.start) };
                let initial = match self.initial {
                    Initial::Zero => _mm512_setzero_ps(),
                    // SAFETY: there is a number for each column, and no other than `width` of them are read.
                    Initial::Bias(bias) => unsafe {
                        _mm512_maskz_loadu_ps(mask, bias.as_ptr().add(columns.start))
                    },
                    // SAFETY: `y` is valid for `width` numbers, and initialised, by the caller's promise.
                    Initial::Previous => unsafe { _mm512_maskz_loadu_ps(mask, y) },
                };
                let sums = _mm512_add_ps(_mm512_castsi512_ps(sums), initial);
                // SAFETY: `y` is valid for `width` numbers, by the caller's promise, and no others are written.
                unsafe { _mm512_mask_storeu_ps(y, mask, sums) };
            }
        }
    }
}

/// Multiplies the panels of integers of the rows of the left and the right operand, and hands each pair's sums, as i32, to
/// `store`, with the panels' indices.
///
/// # Safety
/// The matrix units are [`available`](super::available).
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn multiply_integers(
    left: &[Tile],
    right: &[Tile],
    per_panel: usize,
    mut store: impl FnMut([usize; 2], &Sums),
) {
    // SAFETY: the caller's promise.
    unsafe { configure() };
    let mut sums = Sums::ZEROS;
    for (i, right) in right.chunks_exact(per_panel).enumerate() {
        for (j, left) in left.chunks_exact(per_panel).enumerate() {
            // SAFETY: the caller's promise; the registers are laid out.
            unsafe { sum_integers(left, right, &mut sums) };
            store([j, i], &sums);
        }
    }
    // SAFETY: the caller's promise.
    unsafe { release() };
}

/// Gives this thread's tile registers back.
///
/// # Safety
/// The processor has AMX, and the system lends it to this process.
unsafe fn release() {
    #[cfg(test)]
    if emulated() {
        return;
    }
    // SAFETY: the caller's promise; nobody reads the registers after this.
    unsafe { asm!("tilerelease", options(nomem, nostack)) };
}

/// Lays out this thread's tile registers: all of them `TILE_ROWS` rows of 64 bytes.
///
/// # Safety
/// The processor has AMX, and the system lends it to this process.
unsafe fn configure() {
    #[repr(C, align(64))]
    struct Configuration([u8; 64]);
    #[cfg(test)]
    if emulated() {
        return;
    }
    let mut configuration = Configuration([0; 64]);
    configuration.0[0] = 1;
    for tile in 0..8 {
        configuration.0[16 + 2 * tile] = 64;
        configuration.0[48 + tile] = TILE_ROWS as u8;
    }
    // SAFETY: the caller's promise; the instruction reads the 64 bytes of the configuration, which palette 1 allows.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &configuration, options(readonly, nostack)) };
}

/// Instructions on tile registers, of which the first four accumulate a quarter of the sums each; 4 and 5 are for the rows
/// of the left panel, 6 and 7 for those of the right.
macro_rules! tiled {
    ($left:ident, $right:ident, $sums:ident, $tiles:literal, $($instruction:literal),+ $(,)?) => {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            $($instruction,)+
            "tilestored [{sums} + {sums_row}], tmm0",
            "tilestored [{sums} + {sums_row} + 64], tmm1",
            "tilestored [{sums} + {sums_row} + 2048], tmm2",
            "tilestored [{sums} + {sums_row} + 2112], tmm3",
            a = inout(reg) $left.as_ptr() => _,
            b = inout(reg) $right.as_ptr() => _,
            steps = inout(reg) $left.len() / $tiles => _,
            sums = in(reg) $sums,
            row = in(reg) size_of::<[u32; TILE_ROWS]>(),
            sums_row = in(reg) size_of::<[f32; PANEL_ROWS]>(),
            options(nostack),
        )
    };
}

/// The inner products of a panel's rows with another's. Of three parts, those of 2·0, 1·0, 1·1, 0·1, 0·2 and 0·0 are summed,
/// in an order in which each has an operand of the one before.
///
/// # Safety
/// The processor has AMX, which the system lends to this process, and [`configure`] has laid out this thread's tile
/// registers.
#[inline]
unsafe fn sum<const P: usize>(left: &[Tile], right: &[Tile], sums: &mut Sums) {
    assert!(
        left.len() == right.len() && left.len().is_multiple_of(2 * P) && !left.is_empty(),
        "panels of as many tiles"
    );
    #[cfg(test)]
    if emulated() {
        return emulation::sum::<P>(left, right, &mut sums.0);
    }
    match P {
        // SAFETY: the caller's promise, and: each of the `len / 2` steps loads the two tiles of either panel that it then
        // steps over; the sums have room for the four tiles that are stored.
        1 => unsafe {
            tiled!(
                left,
                right,
                sums,
                2,
                "2:",
                "tileloadd tmm4, [{a} + {row}]",
                "tileloadd tmm6, [{b} + {row}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{b} + {row} + 1024]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{a} + {row} + 1024]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {a}, 2048",
                "add {b}, 2048",
                "dec {steps}",
                "jnz 2b",
            );
        },
        // SAFETY: the same, with six tiles of either panel a step.
        _ => unsafe {
            tiled!(
                left,
                right,
                sums,
                6,
                "2:",
                "tileloadd tmm4, [{a} + {row} + 4096]",
                "tileloadd tmm6, [{b} + {row}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{b} + {row} + 1024]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{a} + {row} + 5120]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "tileloadd tmm4, [{a} + {row} + 2048]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{a} + {row} + 3072]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "tileloadd tmm6, [{b} + {row} + 2048]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tileloadd tmm7, [{b} + {row} + 3072]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "tileloadd tmm4, [{a} + {row}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{a} + {row} + 1024]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "tileloadd tmm6, [{b} + {row} + 4096]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tileloadd tmm7, [{b} + {row} + 5120]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "tileloadd tmm6, [{b} + {row}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tileloadd tmm7, [{b} + {row} + 1024]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {a}, 6144",
                "add {b}, 6144",
                "dec {steps}",
                "jnz 2b",
            );
        },
    }
}

/// The inner products of a panel's rows of int8 with another's, in i32: the bits of the sums.
///
/// # Safety
/// As for [`sum`].
#[inline]
unsafe fn sum_integers(left: &[Tile], right: &[Tile], sums: &mut Sums) {
    assert!(
        left.len() == right.len() && left.len().is_multiple_of(2) && !left.is_empty(),
        "panels of as many tiles"
    );
    #[cfg(test)]
    if emulated() {
        return emulation::sum_integers(left, right, &mut sums.0);
    }
    // SAFETY: the caller's promise, and: each of the `len / 2` steps loads the two tiles of either panel that it then steps
    // over; the sums have room for the four tiles that are stored.
    unsafe {
        tiled!(
            left,
            right,
            sums,
            2,
            "2:",
            "tileloadd tmm4, [{a} + {row}]",
            "tileloadd tmm6, [{b} + {row}]",
            "tdpbssd tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b} + {row} + 1024]",
            "tdpbssd tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{a} + {row} + 1024]",
            "tdpbssd tmm2, tmm5, tmm6",
            "tdpbssd tmm3, tmm5, tmm7",
            "add {a}, 2048",
            "add {b}, 2048",
            "dec {steps}",
            "jnz 2b",
        );
    }
}
