use burn::tensor::{Tensor, Tolerance, module};

use super::{
    assert_all_close, assert_is_equation, error, in_f64, on_each_processor, scattered,
    with_gradients,
};
use crate::linear as linear_of;

fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    linear_of(&x, &weight, bias.as_ref()).unwrap()
}

/// x Wᵀ + b.
pub fn product(x: &[f64], weight: &[f64], bias: &[f64], d_input: usize) -> Vec<f64> {
    let dot = |x: &[f64], w: &[f64]| x.iter().zip(w).map(|(x, w)| x * w).sum::<f64>();
    let rows = x.chunks(d_input).flat_map(|x| {
        let outputs = weight.chunks(d_input).zip(bias);
        outputs
            .map(|(w, bias)| dot(x, w) + bias)
            .collect::<Vec<_>>()
    });
    rows.collect()
}

/// With gradients, each processor's product; with sides from 32 on, that of matrix units.
#[test]
fn linear_is_its_equation() {
    for [rows, d_input, d_output] in [[1, 1, 1], [3, 5, 4], [33, 32, 35]] {
        let shapes = [
            [1, 1, rows, d_input],
            [1, 1, d_output, d_input],
            [1, 1, 1, d_output],
        ];
        assert_is_equation(
            shapes.map(scattered),
            2e-6,
            |[x, weight, bias]| {
                let [x, weight, bias] = [x, weight, bias].map(|x| x.squeeze_dims::<2>(&[0, 1]));
                linear(x, weight, Some(bias.squeeze_dim(0))).unsqueeze()
            },
            |[x, weight, bias]| product(x, weight, bias, d_input),
        );
    }
}

/// Without gradients: few rows, and more.
#[test]
fn answers_are_the_equations_too() {
    for [rows, d_input, d_output] in [
        [1, 1, 1],
        [20, 64, 300],
        [48, 37, 7],
        [3, 100, 131],
        [7, 16, 4],
        [49, 70, 33],
        [200, 210, 220],
        [1100, 37, 40],
    ] {
        let (x, weight) = (scattered([rows, d_input]), scattered([d_output, d_input]));
        let bias = scattered([d_output]);
        let [exact_x, exact_weight] = [in_f64(&x), in_f64(&weight)];
        for bias in [None, Some(bias)] {
            let exact_bias = bias.as_ref().map(in_f64);
            let exact_bias = exact_bias.unwrap_or_else(|| vec![0.0; d_output]);
            let expected = product(&exact_x, &exact_weight, &exact_bias, d_input);
            on_each_processor(|processor| {
                let found = linear(x.clone(), weight.clone(), bias.clone());
                let error = error(&in_f64(&found), &expected);
                assert!(error <= 2e-6, "{processor}: {error}");
            });
        }
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
fn few_rows_are_multiplied_as_many_are() {
    for (rows, d_output, d_input) in [
        (1, 1, 1),
        (20, 300, 64),
        (48, 7, 37),
        (3, 131, 100),
        (7, 4, 16),
    ] {
        let x = scattered([rows, d_input]);
        let weight = scattered([d_output, d_input]);
        let bias = scattered([d_output]);
        for bias in [None, Some(bias)] {
            let found = linear(x.clone(), weight.clone(), bias.clone());
            let expected = module::linear(x.clone(), weight.clone().transpose(), bias);
            let tolerance = Tolerance::<f32>::rel_abs(1e-4, 1e-4);
            found
                .into_data()
                .assert_approx_eq(&expected.into_data(), tolerance);
        }
    }
}
