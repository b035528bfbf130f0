use burn::{
    optim::{AdamWConfig, Optimizer},
    tensor::{DType, Device, Distribution, Tensor, Tolerance},
};

use super::{RANDOM, error, in_f64, on_each_processor, scattered};
use crate::{AdamWStep, adamw};

#[test]
fn adamw_is_its_equation_on_each_processor() {
    let [parameter, gradient, first] = [[70, 301]; 3].map(scattered);
    let second: Tensor<2> = scattered([70, 301]).square();
    let step = AdamWStep {
        learning_rate: 0.1,
        decay: 0.99,
        betas: [0.9, 0.999],
        epsilon: 1e-8,
        time: 3,
    };
    let [p, g, m, v] = [&parameter, &gradient, &first, &second].map(in_f64);
    let mut expected = [vec![], vec![], vec![]];
    for i in 0..p.len() {
        let m = 0.9 * m[i] + 0.1 * g[i];
        let v = 0.999 * v[i] + 0.001 * g[i] * g[i];
        let update = m / (1.0 - 0.9_f64.powi(3)) / ((v / (1.0 - 0.999_f64.powi(3))).sqrt() + 1e-8);
        expected[0].push(p[i] * 0.99 - 0.1 * update);
        expected[1].push(m);
        expected[2].push(v);
    }
    on_each_processor(|processor| {
        let moments = [first.clone(), second.clone()];
        let found = adamw(parameter.clone(), gradient.clone(), moments, step);
        for (found, expected) in found.iter().zip(&expected) {
            // 1 − 0.999³ is a difference of two numbers that are nearly the same, in f32.
            let error = error(&in_f64(found), expected);
            assert!(error <= 2e-5, "{processor}: {error}");
        }
    });
}

#[test]
fn adamw_is_burns() {
    let _alone = RANDOM.lock();
    let device = Device::flex();
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
    let device = Device::flex();
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
