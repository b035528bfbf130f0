//! Numbers packed into tiles.

// Loops over registers go by index: closures are compiled without vectors.
#![allow(clippy::needless_range_loop)]

use std::{arch::x86_64::*, ops::Range};

use super::available::available;
use crate::matrix::Matrix;

/// Rows of a tile, and pairs of numbers in each.
pub(super) const TILE_ROWS: usize = 16;

/// Columns of a matrix that its tiles hold: pairs of those that are `TILE_ROWS` apart.
pub(super) const TILE_COLUMNS: usize = 2 * TILE_ROWS;

/// Rows of either matrix that are multiplied at once: two tiles of each.
pub(crate) const PANEL_ROWS: usize = 2 * TILE_ROWS;

/// The contents of a tile register: 16 rows of 16 pairs of bf16, or of 16 groups of four int8.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Tile(pub [[u32; TILE_ROWS]; TILE_ROWS]);

impl Tile {
    pub const ZEROS: Self = Self([[0; TILE_ROWS]; TILE_ROWS]);

    /// Makes a tile of the right operand from one of the left, or the other way.
    #[target_feature(enable = "avx512f,avx512bw")]
    pub fn transpose(&mut self) {
        let mut rows = [_mm512_setzero_si512(); TILE_ROWS];
        for i in 0..TILE_ROWS {
            // SAFETY: a row of a tile is 64 bytes, and aligned to 64, as a tile is.
            rows[i] = unsafe { _mm512_load_si512(self.0[i].as_ptr().cast()) };
        }
        transpose(&mut rows);
        for i in 0..TILE_ROWS {
            // SAFETY: a row of a tile is 64 bytes, and aligned to 64, as a tile is.
            unsafe { _mm512_store_si512(self.0[i].as_mut_ptr().cast(), rows[i]) };
        }
    }
}

/// Tiles of a panel of these columns, of numbers in `P` parts.
pub(super) fn tiles_per_panel<const P: usize>(columns: &Range<usize>) -> usize {
    const { assert!(P == 1 || P == 3) };
    2 * P * columns.len().div_ceil(TILE_COLUMNS)
}

/// Packs the panels of these rows.
pub(super) fn pack_all<const P: usize>(
    matrix: Matrix<'_>,
    rows: Range<usize>,
    columns: Range<usize>,
    right: bool,
    tiles: &mut [Tile],
) {
    let per_panel = tiles_per_panel::<P>(&columns);
    for (i, tiles) in tiles.chunks_exact_mut(per_panel).enumerate() {
        let rows = rows.start + i * PANEL_ROWS..rows.end;
        pack::<P>(matrix, rows, columns.clone(), right, tiles);
    }
}

/// Packs the first panel of these rows, with zeros where they end: for each `TILE_COLUMNS` columns and each part two
/// tiles, transposed for the `right` operand.
pub(super) fn pack<const P: usize>(
    matrix: Matrix<'_>,
    rows: Range<usize>,
    columns: Range<usize>,
    right: bool,
    tiles: &mut [Tile],
) {
    assert!(available(), "there are no matrix units");
    let firsts = columns.clone().step_by(TILE_COLUMNS);
    for (tiles, first) in tiles.chunks_exact_mut(2 * P).zip(firsts) {
        for half in 0..2 {
            let rows = (rows.start + half * TILE_ROWS).min(rows.end)..rows.end;
            let block = matrix.row_range(rows).transposed();
            let block = block.row_range(first..columns.end).transposed();
            // SAFETY: `available` has found AVX-512 F and BW.
            unsafe { pack_tiles::<P>(block, right, &mut tiles[half..]) };
        }
    }
}

/// Packs the first `TILE_ROWS` rows and `TILE_COLUMNS` columns of a block into every second tile.
#[target_feature(enable = "avx512f,avx512bw")]
fn pack_tiles<const P: usize>(block: Matrix<'_>, right: bool, tiles: &mut [Tile]) {
    let rows = block.rows().min(TILE_ROWS);
    let columns = block.columns().min(TILE_COLUMNS);
    let [row, column] = block.strides;
    let copy;
    let (elements, [row, column]) = match rows * columns == TILE_ROWS * TILE_COLUMNS {
        true => (block.elements, [row, column]),
        false => {
            copy = with_zeros(block, [rows, columns]);
            (&copy[..], [TILE_COLUMNS, 1])
        }
    };
    let row_major = column == 1;
    for i in 0..TILE_ROWS {
        let (first, second) = match row_major {
            true => (i * row, i * row + TILE_ROWS),
            false => (i * column, (i + TILE_ROWS) * column),
        };
        let (x, y) = (
            &elements[first..][..TILE_ROWS],
            &elements[second..][..TILE_ROWS],
        );
        // SAFETY: both slices have the 16 numbers that are read.
        let (x, y) = unsafe { (_mm512_loadu_ps(x.as_ptr()), _mm512_loadu_ps(y.as_ptr())) };
        let parts: [_; P] = split(x, y);
        for part in 0..P {
            let row = tiles[2 * part].0[i].as_mut_ptr();
            // SAFETY: a row of a tile is 64 bytes, and aligned to 64, as a tile is.
            unsafe { _mm512_store_si512(row.cast(), parts[part]) };
        }
    }
    if row_major == right {
        for tile in tiles.iter_mut().step_by(2).take(P) {
            tile.transpose();
        }
    }
}

/// A copy of a block that does not fill its tiles.
#[cold]
fn with_zeros(block: Matrix<'_>, [rows, columns]: [usize; 2]) -> [f32; TILE_ROWS * TILE_COLUMNS] {
    let mut copy = [0.0; TILE_ROWS * TILE_COLUMNS];
    let [row, column] = block.strides;
    for i in 0..rows {
        for j in 0..columns {
            copy[i * TILE_COLUMNS + j] = block.elements[i * row + j * column];
        }
    }
    copy
}

/// The parts of two numbers, side by side. Without its last 16 bits a number is a bf16; the rest of it has as many bits
/// less. A single part is rounded.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn split<const P: usize>(mut x: __m512, mut y: __m512) -> [__m512i; P] {
    if P == 1 {
        return [pairs(rounded(x), rounded(y)); P];
    }
    let mut parts = [_mm512_setzero_si512(); P];
    for part in 0..P {
        parts[part] = pairs(x, y);
        (x, y) = (rest(x), rest(y));
    }
    parts
}

/// To the nearest number whose last 16 bits do not count, or to the even one of two.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn rounded(x: __m512) -> __m512 {
    let bits = _mm512_castps_si512(x);
    // NaN stays NaN, whatever its bits.
    let is_nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(x, x);
    let nan = _mm512_or_si512(bits, _mm512_set1_epi32(0x0040_0000));
    let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
    let half = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF));
    let nearest = _mm512_add_epi32(bits, half);
    _mm512_castsi512_ps(_mm512_mask_mov_epi32(nearest, is_nan, nan))
}

/// The remainder without the first 16 bits.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn rest(x: __m512) -> __m512 {
    let part = _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(!0xFFFF));
    _mm512_sub_ps(x, _mm512_castsi512_ps(part))
}

/// The first 16 bits of x and of y, x below.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn pairs(x: __m512, y: __m512) -> __m512i {
    let low = _mm512_srli_epi32::<16>(_mm512_castps_si512(x));
    _mm512_mask_blend_epi16(0xAAAA_AAAA, low, _mm512_castps_si512(y))
}

/// Transposes 16 × 16 numbers of 32 bits: every two, four, eight, and all.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn transpose(x: &mut [__m512i; TILE_ROWS]) {
    let mut y = *x;
    for i in (0..TILE_ROWS).step_by(2) {
        y[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
        y[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
    }
    for i in (0..TILE_ROWS).step_by(4) {
        for j in 0..2 {
            x[i + 2 * j] = _mm512_unpacklo_epi64(y[i + j], y[i + j + 2]);
            x[i + 2 * j + 1] = _mm512_unpackhi_epi64(y[i + j], y[i + j + 2]);
        }
    }
    for i in [0, 1, 2, 3, 8, 9, 10, 11] {
        y[i] = _mm512_shuffle_i32x4::<0x88>(x[i], x[i + 4]);
        y[i + 4] = _mm512_shuffle_i32x4::<0xDD>(x[i], x[i + 4]);
    }
    for i in 0..8 {
        x[i] = _mm512_shuffle_i32x4::<0x88>(y[i], y[i + 8]);
        x[i + 8] = _mm512_shuffle_i32x4::<0xDD>(y[i], y[i + 8]);
    }
}
