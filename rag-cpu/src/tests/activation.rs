use burn::tensor::{Device, Distribution, Tensor, Tolerance, activation};

use super::{RANDOM, assert_is_equation, cpu, on_each_processor, scattered};
use crate::{Mask, dropout, gelu, log_softmax, softmax};

/// Φ(x) of the standard normal distribution, by its series.
fn cumulative(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= x * x / f64::from(2 * n + 1);
        sum += term;
    }
    0.5 + sum * (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt()
}

fn softmax_of_rows(x: &[f64], width: usize) -> Vec<f64> {
    let rows = x.chunks(width).flat_map(|row| {
        let total: f64 = row.iter().map(|x| x.exp()).sum();
        row.iter().map(move |x| x.exp() / total)
    });
    rows.collect()
}

#[test]
fn gelu_is_its_equation() {
    for shape in [[1, 1, 1, 1], [1, 1, 3, 37]] {
        assert_is_equation(
            [scattered(shape) * 2.0],
            2e-6,
            |[x]| gelu(x),
            |[x]| x.iter().map(|&x| x * cumulative(x)).collect(),
        );
    }
}

#[test]
fn softmax_is_its_equation() {
    for width in [1, 16, 67] {
        let x = scattered([1, 1, 3, width]) * 3.0;
        assert_is_equation(
            [x.clone()],
            2e-6,
            |[x]| softmax(x),
            |[x]| softmax_of_rows(x, width),
        );
        assert_is_equation(
            [x],
            5e-6,
            |[x]| log_softmax(x),
            |[x]| {
                let softmax = softmax_of_rows(x, width);
                softmax.into_iter().map(f64::ln).collect()
            },
        );
    }
}

/// The same elements, whatever the processor, and in the gradient.
#[test]
fn a_mask_drops_the_same_elements_on_each_processor() {
    let _alone = RANDOM.lock();
    let mask = Mask::draw(0.3, &Device::flex());
    let x = Tensor::<2>::ones([3, 7_000], &Device::flex());
    let expected = dropout(x.clone(), mask).into_data();
    on_each_processor(|_| {
        assert_eq!(dropout(x.clone(), mask).into_data(), expected);
        let input = x.clone().autodiff().require_grad();
        let gradients = dropout(input.clone(), mask).sum().backward();
        assert_eq!(input.grad(&gradients).unwrap().into_data(), expected);
    });
}

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
fn what_is_not_a_number_stays_so() {
    let x = Tensor::<2>::from_data([[1.0, f32::NAN, 2.0]], &cpu());
    for y in [gelu(x.clone()), softmax(x.clone()), log_softmax(x)] {
        let y: Vec<f32> = y.into_data().try_to_vec().unwrap();
        assert!(y.iter().any(|y| y.is_nan()), "{y:?}");
    }
}

#[test]
fn dropout_drops_its_share_and_its_gradient_the_same() {
    let _alone = RANDOM.lock();
    let device = cpu();
    device.seed(4);
    let draw = || {
        let x = Tensor::<2>::ones([300, 1_000], &device).require_grad();
        let y = dropout(x.clone(), Mask::draw(0.25, &device));
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
}
