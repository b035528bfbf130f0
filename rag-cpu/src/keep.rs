//! A tensor that is kept where activations are recomputed.

use burn::{backend::flex::FlexTensor, tensor::Tensor};

use crate::{
    pass::{Keeps, Pass, apply},
    processor::Processor,
};

/// The same tensor, which is kept for the backward pass also where activations are recomputed: a recomputation of what
/// comes after it begins here. It is for tensors that [serve](crate::serves), with gradients.
pub fn keep<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    apply(x, Keep)
}

#[derive(Clone, Copy, Debug)]
struct Keep;

impl Pass for Keep {
    const KEEPS: Keeps = Keeps::Nothing;
    const RECOMPUTED: bool = false;

    fn forward(self, _: Processor, x: FlexTensor) -> FlexTensor {
        x
    }

    fn gradient(self, _: Processor, _: Option<FlexTensor>, dy: FlexTensor) -> FlexTensor {
        dy
    }
}
