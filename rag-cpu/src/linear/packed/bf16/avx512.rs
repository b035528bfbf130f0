//! Products for AVX-512: tiles of 6 rows and 64 outputs, whose sums are 24 of the 32 registers.

// Loops over registers go by index: closures are compiled without vectors.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::*;

use super::super::groups::Pair;
use super::super::{
    panels::Line,
    product::{Kernel, Rows, for_rows, rows_of_sums},
};

/// Lines of a step.
const WIDTH: usize = 4;

/// Steps that weights are brought near before they are multiplied: 4 KiB.
const AHEAD: usize = 16;

/// For processors with AVX-512 F.
pub const KERNEL: Kernel<f32, Pair, f32> = Kernel {
    rows: 6,
    width: WIDTH,
    inputs: 2,
    tile,
};

#[target_feature(enable = "avx512f")]
fn tile(x: Rows<'_, f32>, weights: &[Line<Pair>], sums: &mut [Line<f32>]) {
    for_rows!(x.count(), [1, 2, 3, 4, 5, 6], |R| tile_of::<R>(
        x, weights, sums
    ))
}

#[target_feature(enable = "avx512f")]
fn tile_of<const R: usize>(x: Rows<'_, f32>, weights: &[Line<Pair>], sums: &mut [Line<f32>]) {
    let (steps, _) = weights.as_chunks::<WIDTH>();
    let (x, stride) = (x.checked(R, 2 * steps.len()), x.stride());
    let sums = rows_of_sums(sums);
    let mut registers = load::<R>(sums);
    let upper = _mm512_set1_epi32(0xFFFF_0000_u32.cast_signed());
    for (i, step) in steps.iter().enumerate() {
        let mut first = [_mm512_setzero_ps(); WIDTH];
        let mut second = first;
        for line in 0..WIDTH {
            let later = step.as_ptr().wrapping_add(AHEAD * WIDTH + line);
            _mm_prefetch::<_MM_HINT_T0>(later.cast());
            // SAFETY: a line is 64 bytes, and aligned to as many.
            let pairs = unsafe { _mm512_load_si512(step[line].0.as_ptr().cast()) };
            first[line] = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs));
            second[line] = _mm512_castsi512_ps(_mm512_and_si512(pairs, upper));
        }
        for row in 0..R {
            // SAFETY: `checked` has found two numbers for each step in this row.
            let x = _mm512_set1_ps(unsafe { *x.add(row * stride + 2 * i) });
            for line in 0..WIDTH {
                registers[row][line] = _mm512_fmadd_ps(x, first[line], registers[row][line]);
            }
        }
        for row in 0..R {
            // SAFETY: as above.
            let x = _mm512_set1_ps(unsafe { *x.add(row * stride + 2 * i + 1) });
            for line in 0..WIDTH {
                registers[row][line] = _mm512_fmadd_ps(x, second[line], registers[row][line]);
            }
        }
    }
    store(registers, sums);
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load<const R: usize>(sums: &[[Line<f32>; WIDTH]; R]) -> [[__m512; WIDTH]; R] {
    let mut registers = [[_mm512_setzero_ps(); WIDTH]; R];
    for row in 0..R {
        for line in 0..WIDTH {
            // SAFETY: a line is 64 bytes, and aligned to as many.
            registers[row][line] = unsafe { _mm512_load_ps(sums[row][line].0.as_ptr()) };
        }
    }
    registers
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store<const R: usize>(registers: [[__m512; WIDTH]; R], sums: &mut [[Line<f32>; WIDTH]; R]) {
    for row in 0..R {
        for line in 0..WIDTH {
            // SAFETY: a line is 64 bytes, and aligned to as many.
            unsafe { _mm512_store_ps(sums[row][line].0.as_mut_ptr(), registers[row][line]) };
        }
    }
}
