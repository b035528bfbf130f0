//! `x Wᵀ + b` of few rows, as each step of decoding has them.
//!
//! Products of large matrices pack both of them into the order of the cache, which costs more than the product where the
//! weights meet few rows. Here the weights are streamed once from where they are.

// Loops over registers go by index: closures and iterators over arrays are compiled without vectors.
#![allow(clippy::needless_range_loop)]

use std::array::from_fn;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::{
    dots::{dots, dots_prefetching},
    processor::Processor,
};

/// Outputs that a task computes at least.
const OUTPUTS_PER_TASK: usize = 64;

/// `x Wᵀ + b` of `x` `[rows, d_input]` and `weight` `[d_output, d_input]`, without gaps: `[rows, d_output]`.
pub fn multiply(
    processor: Processor,
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    d_input: usize,
) -> Vec<f32> {
    let (rows, d_output) = (x.len() / d_input, weight.len() / d_input);
    let task = d_output
        .div_ceil(4 * rayon::current_num_threads())
        .max(OUTPUTS_PER_TASK);
    let parts: Vec<Vec<f32>> = weight
        .par_chunks(task * d_input)
        .map(|weight| {
            let columns = weight.len() / d_input;
            let mut y = vec![0.0; rows * columns];
            processor.run(Product {
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
    y
}

struct Product<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    d_input: usize,
    y: &'a mut [f32],
}

impl WithSimd for Product<'_> {
    type Output = ();

    /// Multiplies as many rows of x and of the weight at once as their sums have registers.
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
            // Each block of x prefetches its share of the next weights.
            let share = W.div_ceil((x.len() / X).max(1));
            for row in (0..whole).step_by(X) {
                let next: [&[f32]; W] = from_fn(|c| match c / share == row / X {
                    true => weight.get(first + W + c).copied().unwrap_or_default(),
                    false => &[],
                });
                let sums = dots_prefetching::<S, X, W>(simd, from_fn(|r| x[row + r]), w, next);
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
