//! Inner products of several rows with several others, in registers.

// Loops over registers go by index: closures and iterators over arrays are compiled without vectors.
#![allow(clippy::needless_range_loop)]

use pulp::Simd;

/// The inner products of each row of `x` with each row of `w`.
#[inline(always)]
pub(crate) fn dots<S: Simd, const R: usize, const C: usize>(
    simd: S,
    x: [&[f32]; R],
    w: [&[f32]; C],
) -> [[f32; C]; R] {
    dots_prefetching(simd, x, w, [&[]; C])
}

/// The same, while the rows that are read `next` are prefetched: a processor's own prefetcher stops at the end of a page
/// of memory, which one row may fill.
#[inline(always)]
pub(crate) fn dots_prefetching<S: Simd, const R: usize, const C: usize>(
    simd: S,
    x: [&[f32]; R],
    w: [&[f32]; C],
    next: [&[f32]; C],
) -> [[f32; C]; R] {
    let lanes = size_of::<S::f32s>() / size_of::<f32>();
    let whole = w[0].len() / lanes * lanes;
    let mut x_vectors: [&[S::f32s]; R] = [&[]; R];
    let mut w_vectors: [&[S::f32s]; C] = [&[]; C];
    for r in 0..R {
        x_vectors[r] = S::as_simd_f32s(&x[r][..whole]).0;
    }
    for c in 0..C {
        w_vectors[c] = S::as_simd_f32s(&w[c][..whole]).0;
    }
    let mut sums = [[simd.splat_f32s(0.0); C]; R];
    for i in 0..whole / lanes {
        for c in 0..C {
            if let Some(next) = next[c].get(i * lanes) {
                prefetch(next);
            }
        }
        for r in 0..R {
            let x = x_vectors[r][i];
            for c in 0..C {
                sums[r][c] = simd.mul_add_e_f32s(x, w_vectors[c][i], sums[r][c]);
            }
        }
    }
    let mut found = [[0.0; C]; R];
    for r in 0..R {
        for c in 0..C {
            found[r][c] = simd.reduce_sum_f32s(sums[r][c]);
            for i in whole..w[c].len() {
                found[r][c] += x[r][i] * w[c][i];
            }
        }
    }
    found
}

/// Asks for the cache line of a number.
#[inline(always)]
pub(crate) fn prefetch(number: &f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads and writes no memory of the program's, and SSE is in x86-64's baseline.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(std::ptr::from_ref(number).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = number;
}
