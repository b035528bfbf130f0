//! GELU, x Φ(x) (Hendrycks and Gimpel 2016, arXiv 1606.08415).

use burn::{backend::flex::FlexTensor, tensor::Tensor};

use crate::{
    math::{flushed, normal},
    pass::{Keeps, Pass, apply},
    processor::Processor,
    tasks::{each_task, each_task_with},
};

/// x Φ(x) of every element of a tensor that [`serves`](crate::serves).
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    apply(x, Gelu)
}

#[derive(Clone, Copy, Debug)]
struct Gelu;

impl Pass for Gelu {
    const KEEPS: Keeps = Keeps::Input;
    const RECOMPUTED: bool = true;

    fn forward(self, processor: Processor, x: FlexTensor) -> FlexTensor {
        each_task(
            processor,
            x,
            1,
            #[inline(always)]
            |_, x| gelu_in_place(x),
        )
    }

    fn gradient(
        self,
        processor: Processor,
        kept: Option<FlexTensor>,
        dy: FlexTensor,
    ) -> FlexTensor {
        let x = kept.expect("GELU keeps its input");
        each_task_with(processor, dy, &x, 1, gelu_gradient)
    }
}

#[inline(always)]
pub(crate) fn gelu_in_place(x: &mut [f32]) {
    for x in x {
        *x *= normal(*x).0;
    }
}

/// dL/dx of dL/dy: Φ(x) + x φ(x).
#[inline(always)]
fn gelu_gradient(dy: &mut [f32], x: &[f32]) {
    for (dy, &x) in dy.iter_mut().zip(x) {
        let (cumulative, density) = normal(x);
        *dy = flushed(*dy * (cumulative + x * density));
    }
}
