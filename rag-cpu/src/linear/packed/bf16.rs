//! Weights in bf16: products of activations rounded to bf16, with sums in f32.
//!
//! The product of two bf16 is an f32 exactly, so a fused multiply-add and a product that is added give the same number,
//! and all kernels here give the same bits.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

use std::{iter::zip, ops::Range};

use rayon::prelude::*;

use super::{
    groups::{Pair, halves},
    panels::{Line, Panels},
    product::{self, Kernel, Rows, Sums},
    rounding::{bf16_bits, round_to_bf16},
};
use crate::processor::Processor;

/// Numbers that are worth rounding on another thread: about 10 µs.
const WORTH_A_THREAD: usize = 1 << 16;

/// The kernel for a processor: see the [table](crate). It is only given to a processor that has its vectors.
pub fn choose(processor: Processor) -> Kernel<f32, Pair, f32> {
    assert!(
        processor <= Processor::detected(),
        "this processor has no {processor}"
    );
    #[cfg(target_arch = "x86_64")]
    match processor {
        Processor::Avx512 | Processor::Amx => return avx512::KERNEL,
        Processor::Avx2 => return avx2::KERNEL,
        Processor::Portable | Processor::Neon => {}
    }
    portable::KERNEL
}

/// Weights `[d_output, d_input]` of a linear layer.
#[derive(Clone, Debug)]
pub struct Bf16Weights {
    panels: Panels<Pair>,
    d_input: usize,
    kernel: Kernel<f32, Pair, f32>,
}

impl Bf16Weights {
    /// Rounds and packs `weight`, row after row.
    pub fn new(weight: &[f32], d_output: usize, d_input: usize, processor: Processor) -> Self {
        assert_eq!(weight.len(), d_output * d_input, "numbers of the weight");
        let kernel = choose(processor);
        let steps = d_input.div_ceil(2);
        let mut pairs: Vec<Pair> = vec![0; d_output * steps];
        if d_input > 0 {
            let rows = pairs.par_chunks_mut(steps);
            let rows = rows.zip(weight.par_chunks(d_input));
            rows.for_each_init(Vec::new, |bits, (pairs, row)| {
                bits.resize(2 * steps, 0);
                bf16_bits(processor, row, &mut bits[..d_input]);
                for (pair, bits) in zip(pairs, bits.chunks_exact(2)) {
                    *pair = Pair::from(bits[0]) | Pair::from(bits[1]) << 16;
                }
            });
        }
        Self {
            panels: Panels::new(&pairs, d_output, steps, kernel.width),
            d_input,
            kernel,
        }
    }

    /// `x Wᵀ + bias`, `[rows, d_input]` to `[rows, d_output]`.
    pub fn multiply(&self, processor: Processor, x: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
        let d_output = self.panels.d_output();
        if let Some(bias) = bias {
            assert_eq!(bias.len(), d_output, "a number for each output");
        }
        assert!(self.d_input > 0, "weights have inputs");
        assert_eq!(x.len() % self.d_input, 0, "whole rows");
        let rows = x.len() / self.d_input;
        let (x, stride) = (self.rounded(processor, x), 2 * self.panels.steps());
        let (x, sums) = (Rows::new(&x, rows, stride), Added { bias });
        product::multiply(processor, &self.kernel, &self.panels, x, &sums)
    }

    /// The weights as they are multiplied, row after row.
    pub fn unpacked(&self) -> Vec<f32> {
        let pairs = self.panels.unpacked();
        let rows = pairs.chunks_exact(self.panels.steps().max(1));
        let numbers = rows.flat_map(|row| {
            let numbers = row.iter().flat_map(|pair| halves(*pair));
            numbers.take(self.d_input)
        });
        numbers.collect()
    }

    /// Rows of activations, rounded, each with a 0 more where its width is odd.
    fn rounded(&self, processor: Processor, x: &[f32]) -> Vec<f32> {
        let stride = 2 * self.panels.steps();
        let mut rounded = vec![0.0; x.len() / self.d_input * stride];
        let rows = rounded.par_chunks_mut(stride);
        let rows = rows.zip(x.par_chunks(self.d_input));
        rows.with_min_len(WORTH_A_THREAD.div_ceil(stride))
            .for_each(|(rounded, x)| round_to_bf16(processor, x, &mut rounded[..x.len()]));
        rounded
    }
}

/// Sums to which the bias is added.
struct Added<'a> {
    bias: Option<&'a [f32]>,
}

impl Sums<f32> for Added<'_> {
    fn start(&self, _: usize, sums: &mut [Line<f32>]) {
        sums.fill(Line::default());
    }

    #[inline(always)]
    fn finish(&self, _: usize, outputs: Range<usize>, sums: &[f32], y: &mut [f32]) {
        match self.bias {
            None => y.copy_from_slice(sums),
            Some(bias) => {
                for ((y, sum), bias) in zip(zip(y, sums), &bias[outputs]) {
                    *y = sum + bias;
                }
            }
        }
    }
}
