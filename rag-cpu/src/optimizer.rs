//! AdamW's step (Loshchilov and Hutter 2019, arXiv 1711.05101) in one pass.

use burn::{
    backend::{Flex, flex::FlexTensor},
    tensor::{DType, Element, Tensor},
};
use bytemuck::Pod;
use half::bf16;
use rayon::prelude::*;

use crate::{
    flex::{contiguous, primitive, slice},
    math::hashed,
    processor::Processor,
    tasks::{ELEMENTS_PER_TASK, owned},
};

/// The numbers of [`adamw`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWStep {
    /// η.
    pub learning_rate: f32,
    /// The first factor of the parameter: 1 − ηλ.
    pub decay: f32,
    /// β₁ and β₂.
    pub betas: [f32; 2],
    /// ε.
    pub epsilon: f32,
    /// The number of the step, counted from 1.
    pub time: i32,
}

/// AdamW's next parameter θ and moments m and v, from those before and the gradient g, all of one shape on the CPU
/// without gradients, in f32, or the moments in bf16:
///
/// m ← β₁ m + (1 − β₁) g, v ← β₂ v + (1 − β₂) g², θ ← (1 − ηλ) θ − η (m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + ε).
///
/// In bf16 a moment is rounded up or down at random, as often as it is near: v moves by a thousandth a step, which
/// the nearest of 8 significant bits would lose. The numbers are drawn by element and step.
pub fn adamw<const D: usize>(
    parameter: Tensor<D>,
    gradient: Tensor<D>,
    moments: [Tensor<D>; 2],
    step: AdamWStep,
) -> [Tensor<D>; 3] {
    let processor = Processor::current();
    let parameter = owned(processor, primitive(parameter));
    let gradient = contiguous(primitive(gradient));
    let moments = moments.map(primitive);
    let next = match moments[0].dtype() {
        DType::BF16 => adamw_with::<bf16>(processor, parameter, gradient, moments, step),
        _ => adamw_with::<f32>(processor, parameter, gradient, moments, step),
    };
    next.map(Tensor::from_primitive::<Flex>)
}

fn adamw_with<M: Moment + Element + Pod + Send + Sync>(
    processor: Processor,
    mut parameter: FlexTensor,
    gradient: FlexTensor,
    moments: [FlexTensor; 2],
    step: AdamWStep,
) -> [FlexTensor; 3] {
    let [mut first, mut second] = moments.map(|moment| match moment.as_slice::<M>() {
        Some(_) if moment.layout().start_offset() == 0 => moment,
        _ => moment.to_contiguous(),
    });
    let tasks = (parameter.storage_mut::<f32>()).par_chunks_mut(ELEMENTS_PER_TASK);
    let tasks = tasks
        .zip(first.storage_mut::<M>().par_chunks_mut(ELEMENTS_PER_TASK))
        .zip(second.storage_mut::<M>().par_chunks_mut(ELEMENTS_PER_TASK))
        .zip(slice(&gradient).par_chunks(ELEMENTS_PER_TASK))
        .enumerate();
    tasks.for_each(|(i, (((parameter, first), second), gradient))| {
        processor.vectorise(
            #[inline(always)]
            || {
                let start = i * ELEMENTS_PER_TASK;
                adamw_update(parameter, gradient, first, second, step, start);
            },
        );
    });
    [parameter, first, second]
}

/// A number that AdamW keeps between steps.
trait Moment: Copy {
    fn get(self) -> f32;
    /// `x` as it is kept; `random` decides where it is between two numbers.
    fn keep(x: f32, random: u32) -> Self;
}

impl Moment for f32 {
    #[inline(always)]
    fn get(self) -> f32 {
        self
    }

    #[inline(always)]
    fn keep(x: f32, _: u32) -> Self {
        x
    }
}

impl Moment for bf16 {
    #[inline(always)]
    fn get(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    /// Up as often as `x` is near the number above: right on average.
    #[inline(always)]
    fn keep(x: f32, random: u32) -> Self {
        Self::from_bits((x.to_bits().wrapping_add(random & 0xFFFF) >> 16) as u16)
    }
}

/// Updates elements, of which the slices hold those from index `start` on.
#[inline(always)]
fn adamw_update<M: Moment>(
    parameter: &mut [f32],
    gradient: &[f32],
    first: &mut [M],
    second: &mut [M],
    step: AdamWStep,
    start: usize,
) {
    let [beta_1, beta_2] = step.betas;
    let [scale_1, scale_2] = step.betas.map(|beta| 1.0 / (1.0 - beta.powi(step.time)));
    let seed = hashed(step.time as u32);
    let moments = first.iter_mut().zip(second);
    let elements = parameter.iter_mut().zip(gradient).zip(moments);
    for (i, ((p, &g), (first, second))) in elements.enumerate() {
        let m = beta_1 * first.get() + (1.0 - beta_1) * g;
        let v = beta_2 * second.get() + (1.0 - beta_2) * g * g;
        let update = m * scale_1 / ((v * scale_2).sqrt() + step.epsilon);
        *p = *p * step.decay - step.learning_rate * update;
        let random = hashed((start + i) as u32 ^ seed);
        *first = M::keep(m, random);
        *second = M::keep(v, random >> 16);
    }
}
