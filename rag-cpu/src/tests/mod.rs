//! Tests of all operations, with each processor that this machine has, against f64 and against Burn. (On a machine with
//! AVX-512 and without AMX, matrix units are emulated.)

#![allow(clippy::unwrap_used)]

mod activation;
mod attention;
mod linear;
mod norm;
mod optimizer;
mod packed;
mod vocabulary;

use std::{cell::Cell, sync::Mutex};

use burn::tensor::{Device, Tensor, TensorData, Tolerance};

use crate::processor::{Processor, with_processor};

/// Burn's random state is one for the whole process.
static RANDOM: Mutex<()> = Mutex::new(());

fn cpu() -> Device {
    Device::flex().autodiff()
}

fn on_each_processor(test: impl Fn(Processor)) {
    for processor in Processor::available() {
        with_processor(processor, || test(processor));
    }
}

/// Numbers from −2 to 2 that look random, others at each call.
fn numbers(count: usize) -> Vec<f32> {
    thread_local! {
        static STATE: Cell<u32> = const { Cell::new(1) };
    }
    let next = || {
        let state = STATE
            .get()
            .wrapping_mul(1_664_525)
            .wrapping_add(1_013_904_223);
        STATE.set(state);
        (state >> 8) as f32 / (1 << 22) as f32 - 2.0
    };
    std::iter::repeat_with(next).take(count).collect()
}

/// A tensor of such numbers.
fn scattered<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    let numbers = numbers(shape.iter().product());
    Tensor::from_data(TensorData::new(numbers, shape), &Device::flex())
}

fn in_f64<const D: usize>(x: &Tensor<D>) -> Vec<f64> {
    x.to_data().iter::<f64>().collect()
}

/// The largest difference, over the largest of what is expected, or over 1.
fn error(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(1.0, |most: f64, x| most.max(x.abs()));
    let pairs = found.iter().zip(expected);
    let most = pairs.map(|(found, expected)| (found - expected).abs());
    most.fold(0.0, |most, x| if x > most || x.is_nan() { x } else { most }) / largest
}

/// Compares an operation with its equation in f64, on each processor: results, and the gradients of all inputs, which
/// central differences of the equation give. Both differ by `tolerance` at most, over the largest, or over 1.
fn assert_is_equation<const N: usize>(
    inputs: [Tensor<4>; N],
    tolerance: f64,
    operation: impl Fn([Tensor<4>; N]) -> Tensor<4>,
    equation: impl Fn([&[f64]; N]) -> Vec<f64>,
) {
    const STEP: f64 = 1e-4;
    let mut exact = inputs.each_ref().map(in_f64);
    let value = |inputs: &[Vec<f64>; N]| equation(inputs.each_ref().map(Vec::as_slice));
    let expected = value(&exact);
    // The weights of the results in the loss.
    let weights = numbers(expected.len());
    let loss = |inputs: &[Vec<f64>; N]| -> f64 {
        let terms = value(inputs).into_iter().zip(&weights);
        terms.map(|(y, weight)| y * f64::from(*weight)).sum()
    };
    let mut gradients = Vec::new();
    for input in 0..N {
        let mut gradient = vec![0.0; exact[input].len()];
        for (i, gradient) in gradient.iter_mut().enumerate() {
            let before = exact[input][i];
            let [above, below] = [STEP, -STEP].map(|step| {
                exact[input][i] = before + step;
                loss(&exact)
            });
            exact[input][i] = before;
            *gradient = (above - below) / (2.0 * STEP);
        }
        gradients.push(gradient);
    }
    on_each_processor(|processor| {
        let inputs = (inputs.each_ref()).map(|input| input.clone().autodiff().require_grad());
        let y = operation(inputs.clone());
        let found = in_f64(&y);
        assert!(
            error(&found, &expected) <= tolerance,
            "{processor}: {}",
            error(&found, &expected)
        );
        let weights = TensorData::new(weights.clone(), y.dims());
        let weights = Tensor::<4>::from_data(weights, &cpu());
        let found = (y * weights).sum().backward();
        for (i, (input, expected)) in inputs.iter().zip(&gradients).enumerate() {
            let found = in_f64(&input.grad(&found).unwrap());
            let error = error(&found, expected);
            assert!(
                error <= tolerance,
                "{processor}: {error} in the gradient of input {i}"
            );
        }
    });
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
