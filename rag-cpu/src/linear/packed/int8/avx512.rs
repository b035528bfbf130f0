//! Products for AVX-512 without VNNI: tiles of 6 rows and 32 outputs, whose sums are 24 of the 32 registers. A register
//! has four weights of 8 outputs, extended to 16 bits; `vpmaddwd` adds two products each, which is exact, so that each
//! output has two sums.

// Loops over registers go by index: closures are compiled without vectors.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::*;

use super::super::groups::Quad;
use super::super::{
    panels::Line,
    product::{Kernel, Rows, for_rows, rows_of_sums},
};

/// Lines of a step.
const WIDTH: usize = 2;

/// Registers of a step.
const PARTS: usize = 4;

/// Outputs of a register.
const LANES: usize = 8;

/// Steps that weights are brought near before they are multiplied: 2 KiB.
const AHEAD: usize = 16;

/// For processors with AVX-512 F and BW.
pub const KERNEL: Kernel<i16, Quad, i32> = Kernel {
    rows: 6,
    width: WIDTH,
    inputs: 4,
    tile,
};

#[target_feature(enable = "avx512f,avx512bw")]
fn tile(x: Rows<'_, i16>, weights: &[Line<Quad>], sums: &mut [Line<i32>]) {
    for_rows!(x.count(), [1, 2, 3, 4, 5, 6], |R| tile_of::<R>(
        x, weights, sums
    ))
}

#[target_feature(enable = "avx512f,avx512bw")]
fn tile_of<const R: usize>(x: Rows<'_, i16>, weights: &[Line<Quad>], sums: &mut [Line<i32>]) {
    let (steps, _) = weights.as_chunks::<WIDTH>();
    let (x, stride) = (x.checked(R, 4 * steps.len()), x.stride());
    let mut registers = [[_mm512_setzero_si512(); PARTS]; R];
    for (i, step) in steps.iter().enumerate() {
        for line in 0..WIDTH {
            let later = step.as_ptr().wrapping_add(AHEAD * WIDTH + line);
            _mm_prefetch::<_MM_HINT_T0>(later.cast());
        }
        for part in 0..PARTS {
            let quads = &step[part / 2].0[part % 2 * LANES..];
            // SAFETY: half a line is 32 bytes.
            let quads = unsafe { _mm256_loadu_si256(quads.as_ptr().cast()) };
            let weights = _mm512_cvtepi8_epi16(quads);
            for row in 0..R {
                // SAFETY: `checked` has found four numbers for each step in this row.
                let x = unsafe { x.add(row * stride + 4 * i).cast::<i64>().read_unaligned() };
                let products = _mm512_madd_epi16(_mm512_set1_epi64(x), weights);
                registers[row][part] = _mm512_add_epi32(registers[row][part], products);
            }
        }
    }
    let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    let odd = _mm512_or_si512(even, _mm512_set1_epi32(1));
    let sums = rows_of_sums::<_, R, WIDTH>(sums);
    for row in 0..R {
        for line in 0..WIDTH {
            let [first, second] = [registers[row][2 * line], registers[row][2 * line + 1]];
            let found = _mm512_add_epi32(
                _mm512_permutex2var_epi32(first, even, second),
                _mm512_permutex2var_epi32(first, odd, second),
            );
            let sums = sums[row][line].0.as_mut_ptr().cast();
            // SAFETY: a line is 64 bytes, and aligned to as many.
            let before = unsafe { _mm512_load_si512(sums) };
            // SAFETY: as above.
            unsafe { _mm512_store_si512(sums, _mm512_add_epi32(before, found)) };
        }
    }
}
