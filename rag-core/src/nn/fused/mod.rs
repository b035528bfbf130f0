//! Linear layers, attention, and what stands between them: GELU, softmax, layer norm and dropout; and AdamW's step.
//!
//! Burn's CPU backend makes these, where gradients are asked for, of elementwise passes on one core, and keeps
//! what is between the passes. Here they are one pass each on all cores, forward and backward; dropout keeps no
//! mask, but draws it again. On other devices, and in other formats than f32, they are Burn's own.

#[cfg(feature = "flex")]
mod attention;
#[cfg(feature = "flex")]
mod cpu;
#[cfg(feature = "flex")]
mod kernels;
#[cfg(feature = "flex")]
mod mixture;
#[cfg(feature = "flex")]
mod product;
#[cfg(all(feature = "flex", target_arch = "x86_64"))]
pub mod tiles;
#[cfg(feature = "flex")]
mod words;

use burn::{
    nn::Dropout,
    tensor::{Device, Int, Tensor, activation, module},
};

#[cfg(feature = "flex")]
use {
    attention::Settings,
    burn::{backend::flex::FlexTensor, tensor::DType},
    cpu::Pass,
    words::Asked,
};

use super::KeysValues;

#[cfg(feature = "flex")]
pub(super) use kernels::{largest, softmax_row, vectorised};
#[cfg(all(feature = "flex", target_arch = "x86_64"))]
pub(super) use product::Matrix;

/// Whether the functions here are one pass each on a device.
#[cfg(feature = "flex")]
pub fn fuses(device: &Device) -> bool {
    *device == Device::flex()
}

/// Whether the functions here are one pass each on a device.
#[cfg(not(feature = "flex"))]
pub fn fuses(_: &Device) -> bool {
    false
}

#[cfg(feature = "flex")]
fn takes<const D: usize>(x: &Tensor<D>) -> bool {
    x.dtype() == DType::F32 && fuses(&x.device())
}

/// A tensor as the CPU has it, where nobody asks for gradients.
#[cfg(feature = "flex")]
pub(super) fn flex<const D: usize>(x: Tensor<D>) -> Option<FlexTensor> {
    let plain = fuses(&x.device()) && !x.device().is_autodiff();
    plain.then(|| cpu::primitive(x))
}

/// The same of numbers in f32.
#[cfg(feature = "flex")]
pub(super) fn primitive<const D: usize>(x: Tensor<D>) -> Option<FlexTensor> {
    flex(x).filter(|x| x.dtype() == DType::F32)
}

/// And with one row after the other.
#[cfg(feature = "flex")]
pub(super) fn elements<const D: usize>(x: Tensor<D>) -> Option<FlexTensor> {
    primitive(x).map(cpu::contiguous)
}

/// The CPU's tensor of these numbers.
#[cfg(feature = "flex")]
pub(super) fn tensor<const D: usize>(elements: Vec<f32>, shape: [usize; D]) -> Tensor<D> {
    Tensor::from_primitive::<burn::backend::Flex>(cpu::of_elements(elements, shape.into()))
}

/// x Φ(x) of every element (Hendrycks and Gimpel 2016).
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if takes(&x) {
        return cpu::pass(x, Pass::Gelu);
    }
    activation::gelu(x)
}

/// The softmax over the last dimension.
pub fn softmax<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if takes(&x) {
        return cpu::pass(x, Pass::Softmax);
    }
    activation::softmax(x, D - 1)
}

/// The logarithm of the softmax over the last dimension.
pub fn log_softmax<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if takes(&x) {
        return cpu::pass(x, Pass::LogSoftmax);
    }
    activation::log_softmax(x, D - 1)
}

/// log Σ_z exp(w_z) softmax(logits_z) over the contexts of `logits` `[searches, contexts, hypotheses, words]`, with
/// w `[searches, contexts]`: `[searches, hypotheses, words]`, the mixture that RAG-Token decodes from. `None` where
/// the device or the format wants Burn's own operations, or gradients are asked for.
#[cfg_attr(not(feature = "flex"), expect(unused_variables))]
pub fn log_mixture(logits: &Tensor<4>, log_weights: &Tensor<2>) -> Option<Tensor<3>> {
    #[cfg(feature = "flex")]
    {
        let shape = logits.dims();
        let (logits, log_weights) = (elements(logits.clone())?, elements(log_weights.clone())?);
        let (logits, log_weights) = (logits.as_slice()?, log_weights.as_slice()?);
        let [searches, _, hypotheses, words] = shape;
        if !logits.is_empty() {
            let mixed = mixture::log_mixture(logits, log_weights, shape);
            return Some(tensor(mixed, [searches, hypotheses, words]));
        }
    }
    None
}

/// Rows and words whose logits [`word_log_probs`] has in memory at once.
pub const LOGITS_AT_ONCE: [usize; 2] = [1024, 4096];

/// log softmax(x Wᵀ + b) of some words: of `states` `[rows, d_input]`, `weight` `[vocabulary, d_input]` and `words`
/// `[rows, asked]`, `[rows, asked]`. The logits of the whole vocabulary are never there at once, in either direction.
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
    {
        let taken = takes(states) && takes(weight) && bias.is_none_or(takes);
        let [rows, of_each] = words.dims();
        if taken && rows * of_each > 0 {
            let words = words.to_data();
            let words = words.iter::<i64>().map(|word| word as usize).collect();
            let asked = Asked { words, of_each };
            return Some(cpu::words(
                states.clone(),
                weight.clone(),
                bias.cloned(),
                asked,
            ));
        }
    }
    None
}

/// The same tensor, which is kept for the backward pass also where activations are computed again: a computation of
/// what comes after it begins here. Layers whose results are only ever added to need it, or it would begin with the
/// first of them.
pub fn keep<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if takes(&x) && x.device().is_autodiff() {
        return cpu::pass(x, Pass::Keep);
    }
    x
}

/// Dropout, where the module trains and the device can.
pub fn dropout<const D: usize>(module: &Dropout, x: Tensor<D>) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if takes(&x) {
        return match drops(module, &x.device()) {
            Some((probability, seed)) => cpu::pass(x, Pass::Dropout(probability, seed)),
            None => x,
        };
    }
    module.forward(x)
}

/// The probability to drop an element, and the seed of a mask, where the module trains.
#[cfg(feature = "flex")]
fn drops(module: &Dropout, device: &Device) -> Option<(f32, [u32; 2])> {
    let drops = module.training.is_enabled() && device.is_autodiff() && module.prob > 0.0;
    drops.then(|| (module.prob as f32, cpu::seed(device)))
}

/// `x Wᵀ + b` of `[rows, d_input]` and `weight` `[d_output, d_input]`.
pub(super) fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if takes(&x) && takes(&weight) && bias.as_ref().is_none_or(takes) {
        return cpu::linear(x, weight, bias);
    }
    module::linear(x, weight.transpose(), bias)
}

/// softmax(scale · Q Kᵀ + bias) V of every head, for `queries` `[rows, length, heads · d_head]`: in the same shape, with
/// `dropout` of the weights. `bias` is `[rows | 1, heads | 1, length | 1, memory length]`. `None` where the device or
/// the format wants Burn's own operations, rows share keys and values, or there is nothing to attend to.
#[cfg_attr(not(feature = "flex"), expect(unused_variables))]
pub(super) fn attention(
    queries: &Tensor<3>,
    memory: &KeysValues,
    bias: Option<&Tensor<4>>,
    dropout: &Dropout,
    scale: f64,
) -> Option<Tensor<3>> {
    #[cfg(feature = "flex")]
    {
        let KeysValues { keys, values } = memory;
        let taken = takes(queries) && takes(keys) && takes(values) && bias.is_none_or(takes);
        let [rows, length, _] = queries.dims();
        let [memory_rows, _, memory_length, _] = keys.dims();
        if taken && rows == memory_rows && ![rows, length, memory_length].contains(&0) {
            let dropout = drops(dropout, &queries.device());
            let scale = scale as f32;
            let settings = Settings { scale, dropout };
            let (queries, memory) = (queries.clone(), memory.clone());
            return Some(cpu::attention(queries, memory, bias.cloned(), settings));
        }
    }
    None
}

/// Layer norm over the last dimension.
pub(super) fn layer_norm<const D: usize>(
    x: Tensor<D>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    epsilon: f64,
) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if takes(&x) {
        return cpu::normalised(x, gamma, beta, epsilon);
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
    if takes(&x) && takes(&y) && !x.device().is_autodiff() {
        return cpu::sum_normalised([x, y], gamma, beta, epsilon);
    }
    layer_norm(x + y, gamma, beta, epsilon)
}

/// The numbers of [`adamw`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWStep {
    /// η.
    pub learning_rate: f32,
    /// What the parameter is multiplied with first: 1 − ηλ.
    pub decay: f32,
    /// β₁ and β₂.
    pub betas: [f32; 2],
    /// ε.
    pub epsilon: f32,
    /// The number of the step, counted from 1.
    pub time: i32,
}

/// AdamW's next parameter θ and moments m and v, from those before and the gradient g (Loshchilov and
/// Hutter 2019), where the device [`fuses`] and all are f32, or the moments bf16:
///
/// m ← β₁ m + (1 − β₁) g, v ← β₂ v + (1 − β₂) g², θ ← (1 − ηλ) θ − η (m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + ε).
///
/// In bf16 a moment is rounded up or down at random, as often as it is near: v moves by a thousandth a step, which
/// the nearest of 8 significant bits would lose. The numbers are drawn by element and step.
#[cfg_attr(not(feature = "flex"), expect(unused_variables))]
pub fn adamw<const D: usize>(
    parameter: Tensor<D>,
    gradient: Tensor<D>,
    moments: [Tensor<D>; 2],
    step: AdamWStep,
) -> [Tensor<D>; 3] {
    #[cfg(feature = "flex")]
    return cpu::adamw(parameter, gradient, moments, step);
    #[cfg(not(feature = "flex"))]
    unreachable!("no device of this build fuses")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Mutex;

    use burn::{
        nn::DropoutConfig,
        optim::{AdamWConfig, Optimizer},
        tensor::{Distribution, TensorData, Tolerance},
    };

    use super::*;
    use crate::{
        device,
        nn::{attend::tests::expected, scattered},
    };

    fn cpu() -> Device {
        device("cpu").unwrap().autodiff()
    }

    /// Burn's random state is one for the whole process.
    static RANDOM: Mutex<()> = Mutex::new(());

    /// Outputs and gradients of two forms of a function on `[3, 5, 400]` standard normal numbers, and on
    /// a transposed view of them.
    fn assert_same(ours: impl Fn(Tensor<3>) -> Tensor<3>, burns: impl Fn(Tensor<3>) -> Tensor<3>) {
        let device = cpu();
        device.seed(1);
        let normal = Distribution::Normal(0.0, 3.0);
        let x = Tensor::<3>::random([3, 5, 400], normal, &device);
        let weights = Tensor::<3>::random([3, 5, 400], normal, &device);
        for transposed in [false, true] {
            let both = [&ours as &dyn Fn(Tensor<3>) -> Tensor<3>, &burns].map(|function| {
                let x = x.clone().require_grad();
                let (input, weights) = match transposed {
                    true => (x.clone().swap_dims(0, 2), weights.clone().swap_dims(0, 2)),
                    false => (x.clone(), weights.clone()),
                };
                let y = function(input);
                let gradients = (y.clone() * weights).sum().backward();
                (y.into_data(), x.grad(&gradients).unwrap().into_data())
            });
            let [(y, dx), (expected_y, expected_dx)] = both;
            let tolerance = Tolerance::<f32>::rel_abs(1e-5, 2e-6);
            y.assert_approx_eq(&expected_y, tolerance);
            dx.assert_approx_eq(&expected_dx, tolerance);
        }
    }

    #[test]
    fn gelu_and_softmax_are_burns() {
        let _alone = RANDOM.lock();
        assert_same(gelu, activation::gelu);
        assert_same(softmax, |x| activation::softmax(x, 2));
        assert_same(log_softmax, |x| activation::log_softmax(x, 2));
    }

    #[test]
    fn softmax_of_masked_scores_is_exactly_zero_there() {
        let scores = Tensor::<2>::from_data([[1.0, f32::MIN, 2.0, f32::NEG_INFINITY]], &cpu());
        let found: Vec<f32> = softmax(scores).into_data().try_to_vec().unwrap();
        assert_eq!((found[1], found[3]), (0.0, 0.0));
    }

    #[test]
    fn a_mixture_is_the_sum_of_its_parts() {
        for shape in [[1, 1, 1, 3], [2, 3, 4, 70], [1, 5, 2, 9000]] {
            let [searches, contexts, _, _] = shape;
            let logits = scattered(shape) * 20.0;
            let weights = activation::log_softmax(scattered([searches, contexts]) * 5.0, 1);
            let found = log_mixture(&logits, &weights).unwrap();
            let parts =
                activation::log_softmax(logits, 3) + weights.reshape([searches, contexts, 1, 1]);
            let expected = crate::marginal::log_sum_exp(parts, 1).squeeze_dim::<3>(1);
            let tolerance = Tolerance::<f32>::rel_abs(1e-5, 1e-5);
            found
                .into_data()
                .assert_approx_eq(&expected.into_data(), tolerance);
        }
        let nothing = Tensor::<4>::full([1, 2, 1, 3], f32::NAN, &cpu().inner());
        let mixed = log_mixture(&nothing, &scattered([1, 2])).unwrap();
        assert!(mixed.is_nan().all().into_scalar::<bool>());
    }

    /// Numbers without all their digits are slow.
    #[test]
    fn gradients_too_small_to_count_are_zero() {
        for function in [gelu, softmax, log_softmax] {
            let x = scattered([4, 50]).autodiff().require_grad();
            let y = function(x.clone());
            let gradients = (y * scattered([4, 50]).autodiff() * 1e-36).sum().backward();
            let dx: Vec<f32> = x
                .grad(&gradients)
                .unwrap()
                .into_data()
                .try_to_vec()
                .unwrap();
            assert!(dx.iter().all(|&dx| dx == 0.0), "{dx:?}");
        }
        let states = scattered([4, 5]).autodiff().require_grad();
        let words = Tensor::<2, Int>::zeros([4, 1], &device("cpu").unwrap()).autodiff();
        let found = word_log_probs(&states, &scattered([7, 5]).autodiff(), None, &words);
        let gradients = (found.unwrap() * 1e-36).sum().backward();
        let dx = states.grad(&gradients).unwrap().into_data();
        assert!(dx.iter::<f32>().all(|dx| dx == 0.0), "{dx}");
    }

    #[test]
    fn what_is_not_a_number_stays_so() {
        let x = Tensor::<2>::from_data([[1.0, f32::NAN, 2.0]], &cpu());
        for y in [gelu(x.clone()), softmax(x.clone()), log_softmax(x)] {
            let y: Vec<f32> = y.into_data().try_to_vec().unwrap();
            assert!(y.iter().any(|y| y.is_nan()), "{y:?}");
        }
    }

    #[test]
    fn layer_norm_is_burns_with_the_gradients_of_its_parameters() {
        let _alone = RANDOM.lock();
        let device = cpu();
        device.seed(2);
        for width in [5, 400] {
            let [x, weights, gamma, beta] =
                [[7, 30, width], [7, 30, width], [1, 1, width], [1, 1, width]].map(|shape| {
                    Tensor::<3>::random(shape, Distribution::Normal(1.0, 2.0), &device)
                });
            let both = [true, false].map(|ours| {
                let x = x.clone().require_grad();
                let [gamma, beta] =
                    [&gamma, &beta].map(|vector| vector.clone().reshape([width]).require_grad());
                let y = match ours {
                    true => layer_norm(x.clone(), gamma.clone(), beta.clone(), 1e-5),
                    false => module::layer_norm(x.clone(), gamma.clone(), Some(beta.clone()), 1e-5),
                };
                let gradients = (y.clone() * weights.clone()).sum().backward();
                [
                    y.into_data(),
                    x.grad(&gradients).unwrap().into_data(),
                    gamma.grad(&gradients).unwrap().into_data(),
                    beta.grad(&gradients).unwrap().into_data(),
                ]
            });
            let [ours, burns] = both;
            for (ours, burns) in ours.iter().zip(&burns) {
                ours.assert_approx_eq(burns, Tolerance::<f32>::rel_abs(1e-4, 1e-4));
            }
        }
    }

    #[test]
    fn the_norm_of_a_sum_is_that_of_its_tensor() {
        let device = device("cpu").unwrap();
        for width in [5, 400] {
            let (x, y) = (scattered([7, 30, width]), scattered([7, 30, width]) * 3.0);
            let (gamma, beta) = (scattered([width]), scattered([width]));
            let sum = x.clone() + y.clone();
            let expected = module::layer_norm(sum, gamma.clone(), Some(beta.clone()), 1e-5);
            // Beside others who hold it, and alone.
            for x in [
                x.clone(),
                x.clone() + Tensor::zeros([7, 30, width], &device),
            ] {
                let found = layer_norm_of_sum(x, y.clone(), gamma.clone(), beta.clone(), 1e-5);
                let tolerance = Tolerance::<f32>::rel_abs(1e-4, 1e-4);
                found
                    .into_data()
                    .assert_approx_eq(&expected.to_data(), tolerance);
            }
        }
    }

    /// The values of `function` of `inputs`, and the gradients of those that are `tracked`.
    fn with_gradients<const N: usize>(
        inputs: [Tensor<4>; N],
        tracked: usize,
        function: impl Fn([Tensor<4>; N]) -> Tensor<4>,
    ) -> Vec<TensorData> {
        let mut number = 0;
        let inputs = inputs.map(|input| {
            number += 1;
            let tracked = tracked & (1 << (number - 1)) != 0;
            input.autodiff().set_require_grad(tracked)
        });
        let y = function(inputs.clone());
        let gradients = (y.clone() * y.clone()).sum().backward();
        let of_inputs = inputs.iter().filter_map(|input| input.grad(&gradients));
        let all = std::iter::once(y.inner()).chain(of_inputs);
        all.map(Tensor::into_data).collect()
    }

    /// Sums are rounded where they are largest, whatever of them cancels.
    fn assert_all_close(found: Vec<TensorData>, expected: &[TensorData]) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            let largest = expected
                .iter::<f32>()
                .fold(1.0, |most, x| x.abs().max(most));
            let tolerance = Tolerance::<f32>::absolute(5e-6 * largest);
            found.assert_approx_eq(expected, tolerance);
        }
    }

    #[test]
    fn linear_is_burns_with_its_gradients() {
        for [rows, d_input, d_output] in [[1, 1, 1], [7, 30, 11], [300, 200, 250]] {
            let inputs = || {
                let shapes = [
                    [1, 1, rows, d_input],
                    [1, 1, d_output, d_input],
                    [1, 1, 1, d_output],
                ];
                shapes.map(scattered)
            };
            let inputs = inputs();
            for turned in [false, true] {
                let flat = |x: Tensor<4>| x.squeeze_dims::<2>(&[0, 1]);
                let x = |x: Tensor<4>| match turned {
                    // The same numbers, not one row after the other.
                    true => flat(x).transpose().mul_scalar(1.0).transpose(),
                    false => flat(x),
                };
                for tracked in 1..1 << 3 {
                    let ours = with_gradients(inputs.clone(), tracked, |[input, weight, bias]| {
                        linear(x(input), flat(weight), Some(flat(bias).squeeze_dim(0))).unsqueeze()
                    });
                    let burns = with_gradients(inputs.clone(), tracked, |[input, weight, bias]| {
                        (flat(input).matmul(flat(weight).transpose()) + flat(bias)).unsqueeze()
                    });
                    assert_all_close(ours, &burns);
                }
            }
            let [x, weight, _] = inputs.map(|x| x.squeeze_dims::<2>(&[0, 1]));
            let expected = x.clone().matmul(weight.clone().transpose());
            let found = linear(x, weight, None).into_data();
            found.assert_approx_eq(&expected.into_data(), Tolerance::<f32>::rel_abs(1e-4, 1e-4));
        }
    }

    #[test]
    fn words_are_those_of_a_log_softmax_with_their_gradients() {
        for [rows, d_input, vocabulary, asked] in [
            [1, 1, 1, 1],
            [7, 5, 30, 3],
            [LOGITS_AT_ONCE[0] + 3, 4, 9, 2],
            [5, 3, 2 * LOGITS_AT_ONCE[1] + 5, 2],
        ] {
            let shapes = [
                [1, 1, rows, d_input],
                [1, 1, vocabulary, d_input],
                [1, 1, 1, vocabulary],
            ];
            let inputs = shapes.map(scattered);
            let ids: Vec<_> = (0..rows * asked).map(|i| i * 7919 % vocabulary).collect();
            let ids = Tensor::<1, Int>::from_data(&*ids, &device("cpu").unwrap());
            let ids = ids.reshape([rows, asked]);
            let found = |[states, weight, bias]: [Tensor<4>; 3], biased: bool, ours: bool| {
                let [states, weight, bias] =
                    [states, weight, bias].map(|x| x.squeeze_dims::<2>(&[0, 1]));
                let bias = biased.then(|| bias.squeeze_dim::<1>(0));
                let ids = match states.device().is_autodiff() {
                    true => ids.clone().autodiff(),
                    false => ids.clone(),
                };
                let found = match ours {
                    true => word_log_probs(&states, &weight, bias.as_ref(), &ids).unwrap(),
                    false => log_softmax(linear(states, weight, bias)).gather(1, ids),
                };
                found.unsqueeze()
            };
            for tracked in 1..1 << 3 {
                let of = |ours| {
                    with_gradients(inputs.clone(), tracked, |inputs| found(inputs, true, ours))
                };
                assert_all_close(of(true), &of(false));
            }
            let [ours, burns] = [true, false].map(|ours| found(inputs.clone(), false, ours));
            assert_all_close(vec![ours.into_data()], &[burns.into_data()]);
        }
    }

    #[test]
    fn words_that_are_ruled_out_count_for_nothing() {
        let device = device("cpu").unwrap();
        let possible = LOGITS_AT_ONCE[1];
        let states = scattered([3, 2]);
        let weight: Tensor<2> = scattered([possible + 1, 2]);
        let never = Tensor::<1>::from_floats([f32::NEG_INFINITY], &device);
        let bias = Tensor::cat(vec![Tensor::zeros([possible], &device), never], 0);
        let words = Tensor::<2, Int>::from_ints([[0, 5], [1, 6], [2, 7]], &device);
        let found = |weight: &Tensor<2>, bias: Option<&Tensor<1>>| {
            let found = word_log_probs(&states, weight, bias, &words).unwrap();
            found.into_data()
        };
        let without = weight.clone().narrow(0, 0, possible);
        assert_all_close(vec![found(&weight, Some(&bias))], &[found(&without, None)]);
    }

    #[test]
    fn attention_is_burns_with_its_gradients() {
        let _alone = RANDOM.lock();
        for [rows, length, heads, memory_length, d_head] in
            [[1, 1, 1, 1, 1], [3, 5, 2, 7, 4], [2, 33, 3, 40, 16]]
        {
            let [queries, keys, values] = [length, memory_length, memory_length]
                .map(|tokens| scattered([rows, tokens, heads, d_head]));
            for shape in [
                [rows, 1, 1, memory_length],
                [rows, heads, 1, memory_length],
                [1, heads, length, memory_length],
                [rows, heads, length, memory_length],
            ] {
                let inputs = [
                    queries.clone(),
                    keys.clone(),
                    values.clone(),
                    scattered(shape),
                ];
                for probability in [0.0, 0.3] {
                    let module = DropoutConfig::new(probability).init();
                    let attended = |[queries, keys, values, bias]: [Tensor<4>; 4], ours: bool| {
                        queries.device().seed(6);
                        let queries = queries.reshape([rows, length, heads * d_head]);
                        // As attention makes them: the heads of a token lie together.
                        let memory = KeysValues {
                            keys: keys.swap_dims(1, 2),
                            values: values.swap_dims(1, 2),
                        };
                        let y = match ours {
                            true => {
                                attention(&queries, &memory, Some(&bias), &module, 0.4).unwrap()
                            }
                            false => expected(queries, &memory, Some(bias), 0.4, |weights| {
                                dropout(&module, weights)
                            }),
                        };
                        y.unsqueeze()
                    };
                    for tracked in 1..1 << 4 {
                        let of = |ours| {
                            with_gradients(inputs.clone(), tracked, |inputs| attended(inputs, ours))
                        };
                        assert_all_close(of(true), &of(false));
                    }
                }
            }
        }
    }

    #[test]
    fn adamw_is_burns() {
        let _alone = RANDOM.lock();
        let device = device("cpu").unwrap();
        device.seed(5);
        let burns = AdamWConfig::new()
            .with_epsilon(1e-8)
            .with_weight_decay(0.01)
            .build();
        let random = || Tensor::<2>::random([70, 500], Distribution::Normal(0.0, 1.0), &device);
        let mut expected = random();
        let mut state = None;
        (expected, state) = burns.step(0.1, expected, random(), state);
        let mut moments = state
            .clone()
            .map(|state| [state.momentum.moment_1, state.momentum.moment_2]);
        let mut parameter = expected.clone();
        for time in 2..6 {
            let gradient = random();
            (expected, state) = burns.step(0.1, expected, gradient.clone(), state);
            let step = AdamWStep {
                learning_rate: 0.1,
                decay: 1.0 - 0.1 * 0.01,
                betas: [0.9, 0.999],
                epsilon: 1e-8,
                time,
            };
            // Held by another, it must stay as it is.
            let before = parameter.clone();
            let [next, first, second] = adamw(parameter, gradient, moments.take().unwrap(), step);
            assert_ne!(before.into_data(), next.to_data());
            let tolerance = Tolerance::<f32>::rel_abs(1e-5, 1e-6);
            next.to_data()
                .assert_approx_eq(&expected.to_data(), tolerance);
            (parameter, moments) = (next, Some([first, second]));
        }
    }

    /// A second moment decays although each step is less than half of what bf16 tells apart.
    #[test]
    fn moments_in_bf16_are_right_on_average() {
        let device = device("cpu").unwrap();
        let zeros = || Tensor::<1>::zeros([40_000], &device);
        let moments = || zeros().cast(DType::BF16);
        let (mut parameter, mut kept) = (zeros(), [moments(), moments()]);
        let (mut expected_1, mut expected_2) = (0.0_f64, 0.0_f64);
        for time in 1..=400 {
            let gradient = if time <= 100 { 3.0 } else { 0.0 };
            expected_1 = 0.9 * expected_1 + 0.1 * gradient;
            expected_2 = 0.999 * expected_2 + 0.001 * gradient * gradient;
            let step = AdamWStep {
                learning_rate: 0.0,
                decay: 1.0,
                betas: [0.9, 0.999],
                epsilon: 1e-8,
                time,
            };
            let next = adamw(parameter, zeros() + gradient, kept, step);
            let [moved, first, second] = next;
            (parameter, kept) = (moved, [first, second]);
        }
        let [first, second] = kept.map(|moment| {
            assert_eq!(moment.dtype(), DType::BF16);
            f64::from(moment.cast(DType::F32).mean().into_scalar::<f32>())
        });
        assert!(
            (first / expected_1 - 1.0).abs() < 1e-2,
            "{first} {expected_1}"
        );
        assert!(
            (second / expected_2 - 1.0).abs() < 1e-3,
            "{second} {expected_2}"
        );
    }

    #[test]
    fn dropout_drops_its_share_and_its_gradient_the_same() {
        let _alone = RANDOM.lock();
        let device = cpu();
        let module = DropoutConfig::new(0.25).init();
        device.seed(4);
        let draw = || {
            let x = Tensor::<2>::ones([300, 1_000], &device).require_grad();
            let y = dropout(&module, x.clone());
            let gradients = y.clone().sum().backward();
            let y: Vec<f32> = y.into_data().try_to_vec().unwrap();
            let dx: Vec<f32> = x
                .grad(&gradients)
                .unwrap()
                .into_data()
                .try_to_vec()
                .unwrap();
            assert_eq!(y, dx);
            y
        };
        let (first, second) = (draw(), draw());
        for drawn in [&first, &second] {
            let kept = drawn.iter().filter(|&&y| y == 1.0 / 0.75).count() as f64;
            let dropped = drawn.iter().filter(|&&y| y == 0.0).count() as f64;
            assert_eq!(kept + dropped, 300_000.0);
            assert!((dropped / 300_000.0 - 0.25).abs() < 0.005, "{dropped}");
        }
        let agreed = first.iter().zip(&second).filter(|(a, b)| a == b).count() as f64;
        assert!((agreed / 300_000.0 - 0.625).abs() < 0.005, "{agreed}");
        device.seed(4);
        assert_eq!(draw(), first);

        let frozen = Tensor::<2>::ones([2, 2], &device.inner());
        assert_eq!(
            dropout(&module, frozen.clone()).into_data(),
            frozen.into_data()
        );
    }
}
