//! Operations of one or two tensors: on the CPU, in f32, those of `rag-cpu`; elsewhere Burn's own.

use burn::{
    nn::Dropout,
    tensor::{Device, Int, Tensor, activation, module},
};

/// Whether the operations on a device are those of `rag-cpu`.
#[cfg_attr(not(feature = "flex"), expect(unused_variables))]
#[doc(hidden)]
pub fn fuses(device: &Device) -> bool {
    #[cfg(feature = "flex")]
    return rag_cpu::is_cpu(device);
    #[cfg(not(feature = "flex"))]
    false
}

/// x Φ(x) of every element (Hendrycks and Gimpel 2016).
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if rag_cpu::serves(&x) {
        return rag_cpu::gelu(x);
    }
    activation::gelu(x)
}

/// The softmax over the last dimension.
pub fn softmax<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if rag_cpu::serves(&x) {
        return rag_cpu::softmax(x);
    }
    activation::softmax(x, D - 1)
}

/// The logarithm of the softmax over the last dimension.
pub fn log_softmax<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if rag_cpu::serves(&x) {
        return rag_cpu::log_softmax(x);
    }
    activation::log_softmax(x, D - 1)
}

/// `cap · tanh(x / cap)` of every element, which stays between -cap and cap (Gemma 2, arXiv 2408.00118). No kernel of
/// `rag-cpu` has it: whoever caps scores or logits multiplies by Burn's own operations.
pub fn soft_cap<const D: usize>(x: Tensor<D>, cap: Option<f64>) -> Tensor<D> {
    match cap {
        Some(cap) => activation::tanh(x / cap) * cap,
        None => x,
    }
}

/// log Σ_z exp(w_z) softmax(logits_z) over the contexts of `logits` `[searches, contexts, hypotheses, words]`, with
/// w `[searches, contexts]`: `[searches, hypotheses, words]`, the mixture that RAG-Token decodes from. `None` where
/// the device or the format wants Burn's own operations, or gradients are asked for.
#[cfg_attr(not(feature = "flex"), expect(unused_variables))]
pub fn log_mixture(logits: &Tensor<4>, log_weights: &Tensor<2>) -> Option<Tensor<3>> {
    #[cfg(feature = "flex")]
    return rag_cpu::log_mixture(logits, log_weights);
    #[cfg(not(feature = "flex"))]
    None
}

/// log softmax(x Wᵀ + b) of some words: of `states` `[rows, d_input]`, `weight` `[vocabulary, d_input]` and `words`
/// `[rows, asked]`, `[rows, asked]`. The logits of the whole vocabulary are never in memory at once, in either direction.
/// `None` where the device or the format wants Burn's own operations.
///
/// # Panics
/// If a word is beyond the vocabulary.
#[cfg_attr(not(feature = "flex"), expect(unused_variables))]
pub fn word_log_probs(
    states: &Tensor<2>,
    weight: &Tensor<2>,
    bias: Option<&Tensor<1>>,
    words: &Tensor<2, Int>,
) -> Option<Tensor<2>> {
    #[cfg(feature = "flex")]
    return rag_cpu::word_log_probs(states, weight, bias, words);
    #[cfg(not(feature = "flex"))]
    None
}

/// Rows and words whose logits [`word_log_probs`] has in memory at once.
#[doc(hidden)]
pub const LOGITS_AT_ONCE: [usize; 2] = [1024, 4096];

#[cfg(feature = "flex")]
const _: () = assert!(
    LOGITS_AT_ONCE[0] == rag_cpu::LOGITS_AT_ONCE[0]
        && LOGITS_AT_ONCE[1] == rag_cpu::LOGITS_AT_ONCE[1]
);

/// The same tensor, which is kept for the backward pass also where activations are recomputed: a recomputation of what
/// comes after it begins here. Layers whose results are only ever added to need it, or it would begin with the
/// first of them.
#[doc(hidden)]
pub fn keep<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if rag_cpu::serves(&x) && x.device().is_autodiff() {
        return rag_cpu::keep(x);
    }
    x
}

/// Dropout, where the module trains and the device can.
pub fn dropout<const D: usize>(module: &Dropout, x: Tensor<D>) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if rag_cpu::serves(&x) {
        let probability = drops(module, &x.device());
        return match probability > 0.0 {
            true => {
                let mask = rag_cpu::Mask::draw(probability, &x.device());
                rag_cpu::dropout(x, mask)
            }
            false => x,
        };
    }
    module.forward(x)
}

/// The probability to drop an element: 0 where the module does not train, or the device does not.
#[cfg(feature = "flex")]
pub(super) fn drops(module: &Dropout, device: &Device) -> f64 {
    match module.training.is_enabled() && device.is_autodiff() {
        true => module.prob,
        false => 0.0,
    }
}

/// `x Wᵀ + b` of `[rows, d_input]` and `weight` `[d_output, d_input]`.
pub(super) fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if let Some(y) = rag_cpu::linear(&x, &weight, bias.as_ref()) {
        return y;
    }
    module::linear(x, weight.transpose(), bias)
}

/// Layer norm over the last dimension.
pub(super) fn layer_norm<const D: usize>(
    x: Tensor<D>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    epsilon: f64,
) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if rag_cpu::serves(&x) {
        return rag_cpu::layer_norm(x, gamma, beta, epsilon);
    }
    module::layer_norm(x, gamma, Some(beta), epsilon)
}

/// Layer norm of x + y over the last dimension.
pub(super) fn layer_norm_of_sum<const D: usize>(
    x: Tensor<D>,
    y: Tensor<D>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    epsilon: f64,
) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if rag_cpu::serves(&x) && rag_cpu::serves(&y) && !x.device().is_autodiff() {
        return rag_cpu::layer_norm_of_sum([x, y], gamma, beta, epsilon);
    }
    layer_norm(x + y, gamma, beta, epsilon)
}

#[cfg(feature = "flex")]
pub use rag_cpu::{AdamWStep, adamw};

#[cfg(not(feature = "flex"))]
pub use without_cpu::{AdamWStep, adamw};

/// No device of such a build [`fuses`].
#[cfg(not(feature = "flex"))]
mod without_cpu {
    #![allow(missing_docs)]

    use burn::tensor::Tensor;

    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct AdamWStep {
        pub learning_rate: f32,
        pub decay: f32,
        pub betas: [f32; 2],
        pub epsilon: f32,
        pub time: i32,
    }

    pub fn adamw<const D: usize>(
        _: Tensor<D>,
        _: Tensor<D>,
        _: [Tensor<D>; 2],
        _: AdamWStep,
    ) -> [Tensor<D>; 3] {
        unreachable!("no device of this build fuses")
    }
}
