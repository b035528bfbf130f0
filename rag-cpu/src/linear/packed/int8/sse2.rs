//! Products for x86-64 processors without AVX2: a row and 16 outputs at a time, whose sums are 8 of the 16 registers. A
//! register has four weights of 2 outputs, extended to 16 bits; `pmaddwd` adds two products each, which is exact, so
//! that each output has two sums. Every x86-64 processor has SSE2.

// Loops over registers go by index: closures are compiled without vectors.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::*;

use super::super::groups::Quad;
use super::super::{
    panels::Line,
    product::{Kernel, Rows, rows_of_sums},
};

/// Registers of 16 bytes in a line.
const PARTS: usize = 4;

/// Outputs of 16 bytes of weights.
const LANES: usize = 4;

/// For processors with SSE2.
pub const KERNEL: Kernel<i16, Quad, i32> = Kernel {
    rows: 1,
    width: 1,
    inputs: 4,
    tile,
};

#[target_feature(enable = "sse2")]
fn tile(x: Rows<'_, i16>, weights: &[Line<Quad>], sums: &mut [Line<i32>]) {
    let x = x.checked(1, 4 * weights.len());
    let mut registers = [[_mm_setzero_si128(); 2]; PARTS];
    for (i, line) in weights.iter().enumerate() {
        // SAFETY: `checked` has found four numbers for each line.
        let x = _mm_set1_epi64x(unsafe { x.add(4 * i).cast::<i64>().read_unaligned() });
        for part in 0..PARTS {
            let quads = &line.0[part * LANES..];
            // SAFETY: a quarter of a line is 16 bytes.
            let quads = unsafe { _mm_loadu_si128(quads.as_ptr().cast()) };
            let signs = _mm_cmpgt_epi8(_mm_setzero_si128(), quads);
            let first = _mm_madd_epi16(x, _mm_unpacklo_epi8(quads, signs));
            let second = _mm_madd_epi16(x, _mm_unpackhi_epi8(quads, signs));
            registers[part][0] = _mm_add_epi32(registers[part][0], first);
            registers[part][1] = _mm_add_epi32(registers[part][1], second);
        }
    }
    let [[line]] = rows_of_sums::<_, 1, 1>(sums);
    for part in 0..PARTS {
        let [first, second] = registers[part].map(|register| _mm_castsi128_ps(register));
        let even = _mm_castps_si128(_mm_shuffle_ps::<0b10_00_10_00>(first, second));
        let odd = _mm_castps_si128(_mm_shuffle_ps::<0b11_01_11_01>(first, second));
        let sums = line.0[part * LANES..].as_mut_ptr().cast();
        // SAFETY: a quarter of a line is 16 bytes.
        let before = unsafe { _mm_loadu_si128(sums) };
        let found = _mm_add_epi32(before, _mm_add_epi32(even, odd));
        // SAFETY: as above.
        unsafe { _mm_storeu_si128(sums, found) };
    }
}
