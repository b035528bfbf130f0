//! The logarithm of the softmax over the last dimension.

use burn::{backend::flex::FlexTensor, tensor::Tensor};

use crate::{
    flex::width,
    math::{exp, flushed},
    pass::{Keeps, Pass, apply},
    processor::Processor,
    reduce::{highest, sum},
    tasks::{each_task, each_task_with},
};

/// The logarithm of the softmax over the last dimension of a tensor that [`serves`](crate::serves).
pub fn log_softmax<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    apply(x, LogSoftmax)
}

#[derive(Clone, Copy, Debug)]
struct LogSoftmax;

impl Pass for LogSoftmax {
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
                    let log_total = log_sum_exp(row);
                    for x in row {
                        *x -= log_total;
                    }
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
        let y = kept.expect("log-softmax keeps its output");
        let width = width(&dy);
        each_task_with(
            processor,
            dy,
            &y,
            width,
            #[inline(always)]
            |dy, y| {
                for (dy, y) in dy.chunks_exact_mut(width).zip(y.chunks_exact(width)) {
                    row_gradient(dy, y);
                }
            },
        )
    }
}

/// log Σ eˣ.
#[inline(always)]
pub(super) fn log_sum_exp(row: &[f32]) -> f32 {
    let highest = highest(row);
    highest + sum(row, |x| exp(x - highest)).ln()
}

/// dL/dx = dL/dy − eʸ Σ dL/dy.
#[inline(always)]
fn row_gradient(dy: &mut [f32], y: &[f32]) {
    let total = sum(dy, |dy| dy);
    if total != 0.0 {
        for (dy, y) in dy.iter_mut().zip(y) {
            *dy = flushed(*dy - total * exp(*y));
        }
    }
}
