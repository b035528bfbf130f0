//! The softmax over the last dimension.

use burn::{backend::flex::FlexTensor, tensor::Tensor};

use crate::{
    flex::width,
    math::{exp, flushed},
    pass::{Keeps, Pass, apply},
    processor::Processor,
    reduce::{highest, sum_of_both, sum_of_new},
    tasks::{each_task, each_task_with},
};

/// The softmax over the last dimension of a tensor that [`serves`](crate::serves).
pub fn softmax<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    apply(x, Softmax)
}

#[derive(Clone, Copy, Debug)]
struct Softmax;

impl Pass for Softmax {
    const KEEPS: Keeps = Keeps::Output;
    const RECOMPUTED: bool = false;

    fn forward(self, processor: Processor, x: FlexTensor) -> FlexTensor {
        let width = width(&x);
        each_task(
            processor,
            x,
            width,
            #[inline(always)]
            |_, x| {
                for row in x.chunks_exact_mut(width) {
                    softmax_row(row);
                }
            },
        )
    }

    fn gradient(
        self,
        processor: Processor,
        kept: Option<FlexTensor>,
        dy: FlexTensor,
    ) -> FlexTensor {
        let y = kept.expect("softmax keeps its output");
        let width = width(&dy);
        each_task_with(
            processor,
            dy,
            &y,
            width,
            #[inline(always)]
            |dy, y| {
                for (dy, y) in dy.chunks_exact_mut(width).zip(y.chunks_exact(width)) {
                    softmax_row_gradient(dy, y);
                }
            },
        )
    }
}

#[inline(always)]
pub(crate) fn softmax_row(row: &mut [f32]) {
    let highest = highest(row);
    let scale = 1.0 / sum_of_new(row, |x| exp(x - highest));
    for x in row {
        *x = flushed(*x * scale);
    }
}

/// dL/dx = y (dL/dy − Σ y dL/dy).
#[inline(always)]
pub(crate) fn softmax_row_gradient(dy: &mut [f32], y: &[f32]) {
    let mean = sum_of_both(dy, y, |dy, y| dy * y);
    for (dy, y) in dy.iter_mut().zip(y) {
        *dy = flushed(y * (*dy - mean));
    }
}
