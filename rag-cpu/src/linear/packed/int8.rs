//! Weights in int8: products of integers from -127 to 127, with exact sums in i32, times the scales of the row and of
//! the output. All kernels give the same bits.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512_vnni;
#[cfg(target_arch = "x86_64")]
mod avx_vnni;
#[cfg_attr(all(target_arch = "x86_64", not(test)), expect(dead_code))]
mod portable;
#[cfg(target_arch = "x86_64")]
mod sse2;

use std::{iter::zip, ops::Range};

use rayon::prelude::*;

use super::{
    groups::Quad,
    panels::{LANES, Line, Panels},
    product::{self, Kernel, Rows, Sums},
};
use crate::{
    processor::Processor,
    quantise::{Integer, MOST_INPUTS, quantise},
};

/// Numbers that are worth rounding on another thread: about 10 µs.
const WORTH_A_THREAD: usize = 1 << 16;

/// How activations are multiplied.
#[derive(Clone, Copy, Debug)]
pub enum Chosen {
    /// As unsigned bytes, 128 above what they stand for: sums begin with -128 times the sum of the weights.
    Offset(Kernel<u8, Quad, i32>),
    /// As integers of 16 bits.
    Signed(Kernel<i16, Quad, i32>),
}

/// The kernel for a processor: see the [table](crate). It is only given to a processor that has its vectors.
pub fn choose(processor: Processor) -> Chosen {
    assert!(
        processor <= Processor::detected(),
        "this processor has no {processor}"
    );
    #[cfg(target_arch = "x86_64")]
    return match processor {
        Processor::Avx512 | Processor::Amx if is_x86_feature_detected!("avx512vnni") => {
            Chosen::Offset(avx512_vnni::KERNEL)
        }
        Processor::Avx512 | Processor::Amx => Chosen::Signed(avx512::KERNEL),
        Processor::Avx2 if is_x86_feature_detected!("avxvnni") => Chosen::Offset(avx_vnni::KERNEL),
        Processor::Avx2 => Chosen::Signed(avx2::KERNEL),
        Processor::Portable | Processor::Neon => Chosen::Signed(sse2::KERNEL),
    };
    #[cfg(not(target_arch = "x86_64"))]
    Chosen::Signed(portable::KERNEL)
}

/// Weights `[d_output, d_input]` of a linear layer.
#[derive(Clone, Debug)]
pub struct Int8Weights {
    panels: Panels<Quad>,
    d_input: usize,
    /// Of each output.
    scales: Vec<f32>,
    /// The initial sums of each output.
    starts: Vec<i32>,
    kernel: Chosen,
}

impl Int8Weights {
    /// Rounds and packs `weight`, row after row.
    ///
    /// # Panics
    ///
    /// With more than [`MOST_INPUTS`] inputs, whose sums may not be an i32.
    pub fn new(weight: &[f32], d_output: usize, d_input: usize, processor: Processor) -> Self {
        Self::with_kernel(processor, weight, d_output, d_input, choose(processor))
    }

    fn with_kernel(
        processor: Processor,
        weight: &[f32],
        d_output: usize,
        d_input: usize,
        kernel: Chosen,
    ) -> Self {
        assert_eq!(weight.len(), d_output * d_input, "numbers of the weight");
        assert!(
            d_input <= MOST_INPUTS,
            "{d_input} inputs are too many for sums in i32"
        );
        let steps = d_input.div_ceil(4);
        let mut quads = vec![[0; 4]; d_output * steps];
        let mut scales = vec![0.0; d_output];
        let mut starts = vec![0; d_output];
        let (width, offset) = match kernel {
            Chosen::Offset(kernel) => (kernel.width, 128),
            Chosen::Signed(kernel) => (kernel.width, 0),
        };
        if d_input > 0 {
            let rows = quads.par_chunks_mut(steps).zip(weight.par_chunks(d_input));
            let outputs = scales.par_iter_mut().zip(&mut starts);
            rows.zip(outputs)
                .for_each(|((quads, row), (scale, start))| {
                    *scale = quantise(processor, row, quads.as_flattened_mut());
                    let sum: i32 = quads.as_flattened().iter().copied().map(i32::from).sum();
                    // Sums of unsigned products wrap, as this does; what is left in the end fits.
                    *start = sum.wrapping_mul(-offset);
                });
        }
        Self {
            panels: Panels::new(&quads, d_output, steps, width),
            d_input,
            scales,
            starts,
            kernel,
        }
    }

    /// The weight packed for each kernel that this machine can run, with the kernel's name.
    #[cfg(test)]
    pub(crate) fn of_all_kernels(
        weight: &[f32],
        d_output: usize,
        d_input: usize,
    ) -> Vec<(&'static str, Self)> {
        let mut kernels = vec![("portable", Chosen::Signed(portable::KERNEL))];
        #[cfg(target_arch = "x86_64")]
        {
            let best = Processor::detected();
            let vnni = is_x86_feature_detected!("avx512vnni");
            let of_avx512 = Chosen::Offset(avx_vnni::ENCODED_FOR_AVX512);
            for (name, kernel, found) in [
                (
                    "avx2",
                    Chosen::Signed(avx2::KERNEL),
                    best >= Processor::Avx2,
                ),
                (
                    "avx_vnni",
                    Chosen::Offset(avx_vnni::KERNEL),
                    is_x86_feature_detected!("avxvnni"),
                ),
                (
                    "avx512",
                    Chosen::Signed(avx512::KERNEL),
                    best >= Processor::Avx512,
                ),
                (
                    "avx_vnni encoded for avx512",
                    of_avx512,
                    vnni && is_x86_feature_detected!("avx512vl"),
                ),
                (
                    "avx512_vnni",
                    Chosen::Offset(avx512_vnni::KERNEL),
                    best >= Processor::Avx512 && vnni,
                ),
            ] {
                if found {
                    kernels.push((name, kernel));
                }
            }
        }
        let packed = kernels.into_iter().map(|(name, kernel)| {
            (
                name,
                Self::with_kernel(Processor::detected(), weight, d_output, d_input, kernel),
            )
        });
        packed.collect()
    }

    /// `x Wᵀ + bias`, `[rows, d_input]` to `[rows, d_output]`.
    pub fn multiply(&self, processor: Processor, x: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
        if let Some(bias) = bias {
            assert_eq!(bias.len(), self.scales.len(), "a number for each output");
        }
        assert!(self.d_input > 0, "weights have inputs");
        assert_eq!(x.len() % self.d_input, 0, "whole rows");
        match &self.kernel {
            Chosen::Offset(kernel) => self.multiply_by(processor, kernel, x, bias),
            Chosen::Signed(kernel) => self.multiply_by(processor, kernel, x, bias),
        }
    }

    fn multiply_by<I: Integer>(
        &self,
        processor: Processor,
        kernel: &Kernel<I, Quad, i32>,
        x: &[f32],
        bias: Option<&[f32]>,
    ) -> Vec<f32> {
        let (rows, stride) = (x.len() / self.d_input, 4 * self.panels.steps());
        let mut integers = vec![I::ZERO; rows * stride];
        let mut row_scales = vec![0.0; rows];
        let each = integers.par_chunks_mut(stride).zip(&mut row_scales);
        let each = each.zip(x.par_chunks(self.d_input));
        each.with_min_len(WORTH_A_THREAD.div_ceil(stride))
            .for_each(|((integers, scale), x)| *scale = quantise(processor, x, integers));
        let x = Rows::new(&integers, rows, stride);
        let sums = Scaled {
            row_scales: &row_scales,
            scales: &self.scales,
            starts: &self.starts,
            bias,
        };
        product::multiply(processor, kernel, &self.panels, x, &sums)
    }

    /// The weights as they are multiplied, row after row: integers times the scale of their output.
    pub fn unpacked(&self) -> Vec<f32> {
        let (mut weight, scales) = self.integers();
        if self.d_input > 0 {
            for (row, scale) in zip(weight.chunks_exact_mut(self.d_input), scales) {
                row.iter_mut().for_each(|number| *number *= scale);
            }
        }
        weight
    }

    /// The integers, row after row, and the scale of each output.
    pub(super) fn integers(&self) -> (Vec<f32>, &[f32]) {
        let quads = self.panels.unpacked();
        let rows = quads
            .as_flattened()
            .chunks_exact((4 * self.panels.steps()).max(1));
        let integers = rows.flat_map(|row| row[..self.d_input].iter().copied().map(f32::from));
        (integers.collect(), &self.scales)
    }
}

/// Sums that stand for numbers when they are multiplied with two scales.
struct Scaled<'a> {
    row_scales: &'a [f32],
    scales: &'a [f32],
    starts: &'a [i32],
    bias: Option<&'a [f32]>,
}

impl Sums<i32> for Scaled<'_> {
    fn start(&self, panel: usize, sums: &mut [Line<i32>]) {
        sums.fill(Line::default());
        let starts = &self.starts[panel * sums.len() * LANES..];
        for (line, starts) in zip(sums, starts.chunks(LANES)) {
            line.0[..starts.len()].copy_from_slice(starts);
        }
    }

    #[inline(always)]
    fn finish(&self, row: usize, outputs: Range<usize>, sums: &[i32], y: &mut [f32]) {
        let row_scale = self.row_scales[row];
        for ((y, &sum), scale) in zip(zip(&mut *y, sums), &self.scales[outputs.clone()]) {
            *y = sum as f32 * (row_scale * scale);
        }
        if let Some(bias) = self.bias {
            for (y, bias) in zip(y, &bias[outputs]) {
                *y += bias;
            }
        }
    }
}
