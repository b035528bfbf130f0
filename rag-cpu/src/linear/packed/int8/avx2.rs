//! Products for AVX2: tiles of 3 rows and 16 outputs, whose sums are 12 of the 16 registers. A register has four weights
//! of 4 outputs, extended to 16 bits; `vpmaddwd` adds two products each, which is exact, so that each output has two
//! sums.

// Loops over registers go by index: closures are compiled without vectors.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::*;

use super::super::groups::Quad;
use super::super::{
    panels::Line,
    product::{Kernel, Rows, for_rows, rows_of_sums},
};

/// Registers of a line.
const PARTS: usize = 4;

/// Outputs of a register.
const LANES: usize = 4;

/// Lines that weights are brought near before they are multiplied: 2 KiB.
const AHEAD: usize = 32;

/// For processors with AVX2.
pub const KERNEL: Kernel<i16, Quad, i32> = Kernel {
    rows: 3,
    width: 1,
    inputs: 4,
    tile,
};

#[target_feature(enable = "avx2")]
fn tile(x: Rows<'_, i16>, weights: &[Line<Quad>], sums: &mut [Line<i32>]) {
    for_rows!(x.count(), [1, 2, 3], |R| tile_of::<R>(x, weights, sums))
}

#[target_feature(enable = "avx2")]
fn tile_of<const R: usize>(x: Rows<'_, i16>, weights: &[Line<Quad>], sums: &mut [Line<i32>]) {
    let (x, stride) = (x.checked(R, 4 * weights.len()), x.stride());
    let mut registers = [[_mm256_setzero_si256(); PARTS]; R];
    for (i, line) in weights.iter().enumerate() {
        let later = std::ptr::from_ref(line).wrapping_add(AHEAD);
        _mm_prefetch::<_MM_HINT_T0>(later.cast());
        for part in 0..PARTS {
            let quads = &line.0[part * LANES..];
            // SAFETY: a quarter of a line is 16 bytes.
            let quads = unsafe { _mm_loadu_si128(quads.as_ptr().cast()) };
            let weights = _mm256_cvtepi8_epi16(quads);
            for row in 0..R {
                // SAFETY: `checked` has found four numbers for each line in this row.
                let x = unsafe { x.add(row * stride + 4 * i).cast::<i64>().read_unaligned() };
                let products = _mm256_madd_epi16(_mm256_set1_epi64x(x), weights);
                registers[row][part] = _mm256_add_epi32(registers[row][part], products);
            }
        }
    }
    let sums = rows_of_sums::<_, R, 1>(sums);
    for row in 0..R {
        for half in 0..2 {
            let [first, second] = [registers[row][2 * half], registers[row][2 * half + 1]];
            // The sums of outputs 0, 1, 4, 5, 2, 3, 6 and 7.
            let found = _mm256_hadd_epi32(first, second);
            let found = _mm256_permute4x64_epi64::<0b11_01_10_00>(found);
            let sums = sums[row][0].0[8 * half..].as_mut_ptr().cast();
            // SAFETY: half a line is 32 bytes.
            let before = unsafe { _mm256_loadu_si256(sums) };
            // SAFETY: as above.
            unsafe { _mm256_storeu_si256(sums, _mm256_add_epi32(before, found)) };
        }
    }
}
