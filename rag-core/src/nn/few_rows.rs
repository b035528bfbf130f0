//! `x Wᵀ + b` of few rows on the CPU, as each step of decoding has them.
//!
//! Matrix products for large matrices copy both of them into the order that suits the cache, which costs more than
//! the product where the weights meet few rows. Here the weights are read once from where they are, in the order in
//! which they are.

// What is in registers goes by number: see `dots`.
#![allow(clippy::needless_range_loop)]

use std::array::from_fn;

use burn::{backend::flex::FlexTensor, tensor::Tensor};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::fused::{elements, tensor};

/// Above so many rows, a product for large matrices is faster.
pub const FEW: usize = 48;

/// Outputs that a task computes at least.
const TASK: usize = 64;

/// `[rows, d_input]` and `[d_output, d_input]` to `[rows, d_output]`; `None` where they are not f32 on the CPU with
/// whole rows.
pub fn linear(x: &Tensor<2>, weight: &Tensor<2>, bias: Option<&Tensor<1>>) -> Option<Tensor<2>> {
    let [rows, d_input] = x.dims();
    let [d_output, _] = weight.dims();
    if rows == 0 || rows > FEW {
        return None;
    }
    let [x, weight] = [elements(x.clone())?, elements(weight.clone())?];
    let (x, weight): (&[f32], &[f32]) = (x.as_slice()?, weight.as_slice()?);
    let bias = match bias {
        Some(bias) => Some(elements(bias.clone())?),
        None => None,
    };
    let bias = bias.as_ref().and_then(FlexTensor::as_slice::<f32>);
    let task = d_output
        .div_ceil(4 * rayon::current_num_threads())
        .max(TASK);
    let parts: Vec<Vec<f32>> = weight
        .par_chunks(task * d_input)
        .map(|weight| {
            let columns = weight.len() / d_input;
            let mut y = vec![0.0; rows * columns];
            Arch::new().dispatch(Product {
                x,
                weight,
                d_input,
                y: &mut y,
            });
            y
        })
        .collect();
    let mut y = vec![0.0; rows * d_output];
    for (i, part) in parts.iter().enumerate() {
        let first = i * task;
        let columns = part.len() / rows;
        for (y, part) in y.chunks_exact_mut(d_output).zip(part.chunks_exact(columns)) {
            let y = &mut y[first..first + columns];
            y.copy_from_slice(part);
            if let Some(bias) = bias {
                y.iter_mut()
                    .zip(&bias[first..])
                    .for_each(|(y, bias)| *y += bias);
            }
        }
    }
    Some(tensor(y, [rows, d_output]))
}

struct Product<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    d_input: usize,
    y: &'a mut [f32],
}

impl WithSimd for Product<'_> {
    type Output = ();

    /// As many rows of x and of the weight at once as their sums have registers.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match S::REGISTER_COUNT {
            32.. => self.in_blocks::<S, 5, 5>(simd),
            _ => self.in_blocks::<S, 4, 3>(simd),
        }
    }
}

impl Product<'_> {
    #[inline(always)]
    fn in_blocks<S: Simd, const X: usize, const W: usize>(self, simd: S) {
        let columns = self.weight.len() / self.d_input;
        let x: Vec<&[f32]> = self.x.chunks_exact(self.d_input).collect();
        let weight: Vec<&[f32]> = self.weight.chunks_exact(self.d_input).collect();
        let blocks = weight.len() / W * W;
        let whole = x.len() / X * X;
        for first in (0..blocks).step_by(W) {
            let w: [&[f32]; W] = from_fn(|c| weight[first + c]);
            // Each block of x brings its share of the next weights near.
            let share = W.div_ceil((x.len() / X).max(1));
            for row in (0..whole).step_by(X) {
                let soon: [&[f32]; W] = from_fn(|c| match c / share == row / X {
                    true => weight.get(first + W + c).copied().unwrap_or_default(),
                    false => &[],
                });
                let sums = dots_before::<S, X, W>(simd, from_fn(|r| x[row + r]), w, soon);
                for (r, sums) in sums.iter().enumerate() {
                    self.y[(row + r) * columns + first..][..W].copy_from_slice(sums);
                }
            }
            for row in whole..x.len() {
                let [sums] = dots::<S, 1, W>(simd, [x[row]], w);
                self.y[row * columns + first..][..W].copy_from_slice(&sums);
            }
        }
        for column in blocks..columns {
            for (row, x) in x.iter().enumerate() {
                let [[sum]] = dots::<S, 1, 1>(simd, [x], [weight[column]]);
                self.y[row * columns + column] = sum;
            }
        }
    }
}

/// The inner products of each with each. Loops over what is in registers go by number: closures are compiled for a
/// processor without its vectors.
#[inline(always)]
pub fn dots<S: Simd, const R: usize, const C: usize>(
    simd: S,
    x: [&[f32]; R],
    w: [&[f32]; C],
) -> [[f32; C]; R] {
    dots_before(simd, x, w, [&[]; C])
}

/// The same, before rows that are read `soon`: processors look ahead within a page of memory, which a row may fill.
#[inline(always)]
fn dots_before<S: Simd, const R: usize, const C: usize>(
    simd: S,
    x: [&[f32]; R],
    w: [&[f32]; C],
    soon: [&[f32]; C],
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
            if let Some(soon) = soon[c].get(i * lanes) {
                prefetch(soon);
            }
        }
        for r in 0..R {
            let x = x_vectors[r][i];
            for c in 0..C {
                sums[r][c] = simd.mul_add_f32s(x, w_vectors[c][i], sums[r][c]);
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

/// Asks for what is around a number to be brought near.
#[inline(always)]
#[allow(unsafe_code)]
pub fn prefetch(number: &f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: it changes no memory, and the address is that of a number.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(std::ptr::from_ref(number).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = number;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use burn::tensor::{Tolerance, module};

    use super::*;
    use crate::{device, nn::scattered};

    #[test]
    fn few_rows_are_multiplied_as_many_are() {
        let device = device("cpu").unwrap();
        for (rows, d_output, d_input) in [
            (1, 1, 1),
            (20, 300, 64),
            (FEW, 7, 37),
            (3, 131, 100),
            (7, 4, 16),
        ] {
            let x = scattered([rows, d_input]);
            let weight = scattered([d_output, d_input]);
            let bias = scattered([d_output]);
            for bias in [None, Some(bias)] {
                let found = linear(&x, &weight, bias.as_ref()).unwrap();
                let expected = module::linear(x.clone(), weight.clone().transpose(), bias);
                let tolerance = Tolerance::<f32>::rel_abs(1e-4, 1e-4);
                found
                    .into_data()
                    .assert_approx_eq(&expected.into_data(), tolerance);
            }
        }
        let many = Tensor::<2>::zeros([FEW + 1, 4], &device);
        assert!(linear(&many, &Tensor::zeros([2, 4], &device), None).is_none());
    }
}
