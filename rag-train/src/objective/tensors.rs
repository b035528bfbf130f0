//! Where a graph begins and ends, and what is read of it.

use std::ops::Range;

use burn::tensor::{Gradients, Tensor};

use crate::error::Result;

/// The tensor's values without its graph; `detach` would keep a leaf's wish for a gradient.
pub(super) fn constant<const D: usize>(tensor: &Tensor<D>) -> Tensor<D> {
    tensor.clone().set_require_grad(false)
}

/// The tensor's values, where the graph of a loss begins.
pub(super) fn leaf<const D: usize>(tensor: &Tensor<D>) -> Tensor<D> {
    tensor.clone().detach().require_grad()
}

/// The gradient of a leaf, as a constant where the leaf lives.
pub(super) fn gradient<const D: usize>(leaf: &Tensor<D>, gradients: &mut Gradients) -> Tensor<D> {
    let Some(gradient) = leaf.grad_remove(gradients) else {
        return leaf.zeros_like().set_require_grad(false);
    };
    let gradient = gradient.autodiff();
    match leaf.gradient_checkpointing_strategy() {
        Some(strategy) => gradient.with_gradient_checkpointing_strategy(strategy),
        None => gradient,
    }
}

/// The documents of each question, `at_a_time`.
pub(super) fn slots(n_docs: usize, at_a_time: usize) -> impl Iterator<Item = Range<usize>> {
    (0..n_docs)
        .step_by(at_a_time)
        .map(move |first| first..(first + at_a_time).min(n_docs))
}

/// The numbers of a tensor, row-major.
pub(crate) fn values<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>> {
    let values = tensor.try_into_vec_as();
    Ok(values.map_err(|error| rag_generate::Error::Execution(Box::new(error)))?)
}
