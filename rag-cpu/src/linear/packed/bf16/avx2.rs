//! Products for AVX2: tiles of 6 rows and 16 outputs, whose sums are 12 of the 16 registers. One or two rows are multiplied
//! for 32 outputs at once: fewer sums would wait for each other.

// Loops over registers go by index: closures are compiled without vectors.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::*;

use super::super::groups::Pair;
use super::super::{
    panels::Line,
    product::{Kernel, Rows, for_rows, rows_of_sums},
};

/// Registers of a line.
const PARTS: usize = 2;

/// Outputs of a register.
const LANES: usize = 8;

/// Lines of a step.
const WIDTH: usize = 2;

/// Steps that weights are brought near before they are multiplied: 2 KiB.
const AHEAD: usize = 16;

/// For processors with AVX2 and FMA.
pub const KERNEL: Kernel<f32, Pair, f32> = Kernel {
    rows: 6,
    width: WIDTH,
    inputs: 2,
    tile,
};

#[target_feature(enable = "avx2,fma")]
fn tile(x: Rows<'_, f32>, weights: &[Line<Pair>], sums: &mut [Line<f32>]) {
    for_rows!(x.count(), [1, 2, 3, 4, 5, 6], |R| tile_of::<
        R,
        { lines_at_once(R) },
    >(x, weights, sums))
}

/// Lines that so many rows are multiplied with at once.
const fn lines_at_once(rows: usize) -> usize {
    if rows <= 2 { 2 } else { 1 }
}

/// `L` lines of all steps, and then the others.
#[target_feature(enable = "avx2,fma")]
fn tile_of<const R: usize, const L: usize>(
    x: Rows<'_, f32>,
    weights: &[Line<Pair>],
    sums: &mut [Line<f32>],
) {
    let (steps, _) = weights.as_chunks::<WIDTH>();
    let sums = rows_of_sums::<_, R, WIDTH>(sums);
    for first in (0..WIDTH).step_by(L) {
        lines_of::<R, L>(x, steps, first, sums);
    }
}

/// `L` lines of all steps, from the `first` of each on.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn lines_of<const R: usize, const L: usize>(
    x: Rows<'_, f32>,
    steps: &[[Line<Pair>; WIDTH]],
    first_line: usize,
    sums: &mut [[Line<f32>; WIDTH]; R],
) {
    let (x, stride) = (x.checked(R, 2 * steps.len()), x.stride());
    let mut registers = [[[_mm256_setzero_ps(); PARTS]; L]; R];
    for row in 0..R {
        for line in 0..L {
            for part in 0..PARTS {
                let sums = &sums[row][first_line + line].0[part * LANES..];
                // SAFETY: a line is two times 32 bytes, and aligned to 64.
                registers[row][line][part] = unsafe { _mm256_load_ps(sums.as_ptr()) };
            }
        }
    }
    let upper = _mm256_set1_epi32(0xFFFF_0000_u32.cast_signed());
    for (i, step) in steps.iter().enumerate() {
        let mut first = [[_mm256_setzero_ps(); PARTS]; L];
        let mut second = first;
        for line in 0..L {
            let later = step
                .as_ptr()
                .wrapping_add(AHEAD * WIDTH + first_line + line);
            _mm_prefetch::<_MM_HINT_T0>(later.cast());
            for part in 0..PARTS {
                let pairs = &step[first_line + line].0[part * LANES..];
                // SAFETY: a line is two times 32 bytes, and aligned to 64.
                let pairs = unsafe { _mm256_load_si256(pairs.as_ptr().cast()) };
                first[line][part] = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs));
                second[line][part] = _mm256_castsi256_ps(_mm256_and_si256(pairs, upper));
            }
        }
        for (input, weights) in [first, second].iter().enumerate() {
            for row in 0..R {
                // SAFETY: `checked` has found two numbers for each step in this row.
                let x = _mm256_set1_ps(unsafe { *x.add(row * stride + 2 * i + input) });
                for line in 0..L {
                    for part in 0..PARTS {
                        let sums = registers[row][line][part];
                        let sums = _mm256_fmadd_ps(x, weights[line][part], sums);
                        registers[row][line][part] = sums;
                    }
                }
            }
        }
    }
    for row in 0..R {
        for line in 0..L {
            for part in 0..PARTS {
                let sums = &mut sums[row][first_line + line].0[part * LANES..];
                // SAFETY: a line is two times 32 bytes, and aligned to 64.
                unsafe { _mm256_store_ps(sums.as_mut_ptr(), registers[row][line][part]) };
            }
        }
    }
}
