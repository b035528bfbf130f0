//! Products for AVX-VNNI, as processors without AVX-512 have it: tiles of 6 rows and 16 outputs, whose sums are 12 of the
//! 16 registers. `vpdpbusd` multiplies four unsigned bytes of activations with four signed weights, for 8 outputs, and
//! adds the four products, which is exact modulo 2³².

// Loops over registers go by index: closures are compiled without vectors.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::*;

use super::super::groups::Quad;
use super::super::{
    panels::Line,
    product::{Kernel, Rows, for_rows, rows_of_sums},
};

/// Registers of a line.
const PARTS: usize = 2;

/// Outputs of a register.
const LANES: usize = 8;

/// Lines that weights are brought near before they are multiplied: 2 KiB.
const AHEAD: usize = 32;

/// A kernel whose instruction has one of two encodings.
macro_rules! kernel {
    ($kernel:ident, $features:literal, $multiply_add:ident) => {
        pub const $kernel: Kernel<u8, Quad, i32> = {
            #[target_feature(enable = $features)]
            fn tile(x: Rows<'_, u8>, weights: &[Line<Quad>], sums: &mut [Line<i32>]) {
                for_rows!(x.count(), [1, 2, 3, 4, 5, 6], |R| tile_of::<R>(
                    x, weights, sums
                ))
            }

            #[target_feature(enable = $features)]
            fn tile_of<const R: usize>(
                x: Rows<'_, u8>,
                weights: &[Line<Quad>],
                sums: &mut [Line<i32>],
            ) {
                let (x, stride) = (x.checked(R, 4 * weights.len()), x.stride());
                let mut registers = [[_mm256_setzero_si256(); PARTS]; R];
                let sums = rows_of_sums::<_, R, 1>(sums);
                for row in 0..R {
                    for part in 0..PARTS {
                        let sums = sums[row][0].0[part * LANES..].as_ptr().cast();
                        // SAFETY: half a line is 32 bytes.
                        registers[row][part] = unsafe { _mm256_loadu_si256(sums) };
                    }
                }
                for (i, line) in weights.iter().enumerate() {
                    let later = std::ptr::from_ref(line).wrapping_add(AHEAD);
                    _mm_prefetch::<_MM_HINT_T0>(later.cast());
                    let mut weights = [_mm256_setzero_si256(); PARTS];
                    for part in 0..PARTS {
                        let quads = &line.0[part * LANES..];
                        // SAFETY: half a line is 32 bytes.
                        weights[part] = unsafe { _mm256_loadu_si256(quads.as_ptr().cast()) };
                    }
                    for row in 0..R {
                        let x = x.wrapping_add(row * stride + 4 * i).cast::<i32>();
                        // SAFETY: `checked` has found four bytes for each line in this row.
                        let x = _mm256_set1_epi32(unsafe { x.read_unaligned() });
                        for part in 0..PARTS {
                            let sums = registers[row][part];
                            registers[row][part] = $multiply_add(sums, x, weights[part]);
                        }
                    }
                }
                for row in 0..R {
                    for part in 0..PARTS {
                        let sums = sums[row][0].0[part * LANES..].as_mut_ptr().cast();
                        // SAFETY: half a line is 32 bytes.
                        unsafe { _mm256_storeu_si256(sums, registers[row][part]) };
                    }
                }
            }

            Kernel {
                rows: 6,
                width: 1,
                inputs: 4,
                tile,
            }
        };
    };
}

// For processors with AVX2 and AVX-VNNI.
kernel!(KERNEL, "avx2,avxvnni", _mm256_dpbusd_avx_epi32);

// The same instruction as processors with AVX-512 have it, with which these can test the kernel.
#[cfg(test)]
kernel!(
    ENCODED_FOR_AVX512,
    "avx2,avx512vnni,avx512vl",
    _mm256_dpbusd_epi32
);
