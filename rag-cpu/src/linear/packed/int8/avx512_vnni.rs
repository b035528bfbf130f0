//! Products for AVX-512 with VNNI: tiles of 6 rows and 64 outputs, whose sums are 24 of the 32 registers. `vpdpbusd`
//! multiplies four unsigned bytes of activations with four signed weights, for 16 outputs, and adds the four products,
//! which is exact modulo 2³².

// Loops over registers go by index: closures are compiled without vectors.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::*;

use super::super::groups::Quad;
use super::super::{
    panels::Line,
    product::{Kernel, Rows, for_rows, rows_of_sums},
};

/// Lines of a step.
const WIDTH: usize = 4;

/// Steps that weights are brought near before they are multiplied: 4 KiB.
const AHEAD: usize = 16;

/// For processors with AVX-512 F and VNNI.
pub const KERNEL: Kernel<u8, Quad, i32> = Kernel {
    rows: 6,
    width: WIDTH,
    inputs: 4,
    tile,
};

#[target_feature(enable = "avx512f,avx512vnni")]
fn tile(x: Rows<'_, u8>, weights: &[Line<Quad>], sums: &mut [Line<i32>]) {
    for_rows!(x.count(), [1, 2, 3, 4, 5, 6], |R| tile_of::<R>(
        x, weights, sums
    ))
}

#[target_feature(enable = "avx512f,avx512vnni")]
fn tile_of<const R: usize>(x: Rows<'_, u8>, weights: &[Line<Quad>], sums: &mut [Line<i32>]) {
    let (steps, _) = weights.as_chunks::<WIDTH>();
    let (x, stride) = (x.checked(R, 4 * steps.len()), x.stride());
    let mut registers = [[_mm512_setzero_si512(); WIDTH]; R];
    let sums = rows_of_sums::<_, R, WIDTH>(sums);
    for row in 0..R {
        for line in 0..WIDTH {
            let sums = sums[row][line].0.as_ptr().cast();
            // SAFETY: a line is 64 bytes, and aligned to as many.
            registers[row][line] = unsafe { _mm512_load_si512(sums) };
        }
    }
    for (i, step) in steps.iter().enumerate() {
        let mut weights = [_mm512_setzero_si512(); WIDTH];
        for line in 0..WIDTH {
            let later = step.as_ptr().wrapping_add(AHEAD * WIDTH + line);
            _mm_prefetch::<_MM_HINT_T0>(later.cast());
            // SAFETY: a line is 64 bytes, and aligned to as many.
            weights[line] = unsafe { _mm512_load_si512(step[line].0.as_ptr().cast()) };
        }
        for row in 0..R {
            // SAFETY: `checked` has found four bytes for each step in this row.
            let x = unsafe { x.add(row * stride + 4 * i).cast::<i32>().read_unaligned() };
            let x = _mm512_set1_epi32(x);
            for line in 0..WIDTH {
                let sums = registers[row][line];
                registers[row][line] = _mm512_dpbusd_epi32(sums, x, weights[line]);
            }
        }
    }
    for row in 0..R {
        for line in 0..WIDTH {
            let sums = sums[row][line].0.as_mut_ptr().cast();
            // SAFETY: a line is 64 bytes, and aligned to as many.
            unsafe { _mm512_store_si512(sums, registers[row][line]) };
        }
    }
}
