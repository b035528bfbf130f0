use burn::tensor::{Device, Distribution, Tensor, Tolerance, module};

use super::{RANDOM, assert_is_equation, cpu, in_f64, on_each_processor, scattered};
use crate::{layer_norm, layer_norm_of_sum};

fn norm_of_rows(x: &[f64], gamma: &[f64], beta: &[f64]) -> Vec<f64> {
    let size = gamma.len() as f64;
    let rows = x.chunks(gamma.len()).flat_map(|row| {
        let mean = row.iter().sum::<f64>() / size;
        let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / size;
        let vectors = gamma.iter().zip(beta);
        let scaled = row
            .iter()
            .zip(vectors)
            .map(move |(x, (gamma, beta))| (x - mean) / (variance + 1e-5).sqrt() * gamma + beta);
        scaled.collect::<Vec<_>>()
    });
    rows.collect()
}

#[test]
fn layer_norm_is_its_equation() {
    for width in [5, 16, 83] {
        let inputs = [[1, 1, 3, width], [1, 1, 1, width], [1, 1, 1, width]].map(scattered);
        assert_is_equation(
            inputs,
            1e-5,
            |[x, gamma, beta]| {
                let [gamma, beta] = [gamma, beta].map(|vector| vector.reshape([width]));
                layer_norm(x, gamma, beta, 1e-5)
            },
            |[x, gamma, beta]| norm_of_rows(x, gamma, beta),
        );
        let [x, y] = [[7, width]; 2].map(scattered);
        let [gamma, beta] = [[width]; 2].map(scattered);
        let [sum, in_gamma, in_beta] = [
            in_f64(&(x.clone() + y.clone())),
            in_f64(&gamma),
            in_f64(&beta),
        ];
        let expected = norm_of_rows(&sum, &in_gamma, &in_beta);
        on_each_processor(|processor| {
            let inputs = [x.clone(), y.clone()];
            let found = layer_norm_of_sum(inputs, gamma.clone(), beta.clone(), 1e-5);
            let error = super::error(&in_f64(&found), &expected);
            assert!(error <= 1e-5, "{processor}: {error}");
        });
    }
}

#[test]
fn layer_norm_is_burns_with_the_gradients_of_its_parameters() {
    let _alone = RANDOM.lock();
    let device = cpu();
    device.seed(2);
    for width in [5, 400] {
        let [x, weights, gamma, beta] =
            [[7, 30, width], [7, 30, width], [1, 1, width], [1, 1, width]]
                .map(|shape| Tensor::<3>::random(shape, Distribution::Normal(1.0, 2.0), &device));
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
    let device = Device::flex();
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
            let found = layer_norm_of_sum([x, y.clone()], gamma.clone(), beta.clone(), 1e-5);
            let tolerance = Tolerance::<f32>::rel_abs(1e-4, 1e-4);
            found
                .into_data()
                .assert_approx_eq(&expected.to_data(), tolerance);
        }
    }
}
