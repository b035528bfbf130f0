use burn::tensor::{DType, Device, Tensor, TensorData, Tolerance};

use super::{error, in_f64, linear::product, on_each_processor, scattered};
use crate::{Format, PackedWeights, Processor, gelu};

fn rounded(x: Tensor<2>) -> Tensor<2> {
    x.cast(DType::BF16).cast(DType::F32)
}

/// Rows that are shared and outputs that are, whole pieces and less.
const SHAPES: [[usize; 3]; 7] = [
    [1, 1, 1],
    [5, 300, 64],
    [20, 512, 100],
    [65, 7, 37],
    [200, 257, 96],
    [5, 70, 1100],
    [100, 70, 2100],
];

#[test]
fn bf16_is_the_product_of_rounded_numbers() {
    on_each_processor(|_| {
        for [rows, d_output, d_input] in SHAPES {
            let (x, weight) = (scattered([rows, d_input]), scattered([d_output, d_input]));
            let bias = scattered([d_output]);
            let packed = PackedWeights::new(&weight, Format::Bf16).unwrap();
            let unpacked = packed.unpacked(&x.device());
            assert_eq!(unpacked.into_data(), rounded(weight.clone()).into_data());
            let exact = rounded(x.clone()).matmul(rounded(weight).transpose());
            let tolerance = Tolerance::<f32>::rel_abs(1e-4, 1e-4);
            let found = packed.linear(x.clone(), None).into_data();
            found.assert_approx_eq(&exact.to_data(), tolerance);
            let found = packed.linear(x, Some(bias.clone())).into_data();
            let exact = exact + bias.unsqueeze();
            found.assert_approx_eq(&exact.into_data(), tolerance);
        }
    });
}

#[test]
fn a_hidden_layer_in_the_cache_is_as_one_in_memory() {
    for [rows, d_model, d_hidden] in [[65, 33, 70], [300, 96, 1100], [5, 8, 16]] {
        let up: Tensor<2> = scattered([d_hidden, d_model]);
        let down: Tensor<2> = scattered([d_model, d_hidden]);
        let x: Tensor<2> = scattered([rows, d_model]);
        let biases = [d_hidden, d_model].map(|size| scattered([size]));
        on_each_processor(|processor| {
            let pack = |weight: &Tensor<2>| PackedWeights::new(weight, Format::Bf16).unwrap();
            let (up, down) = (pack(&up), pack(&down));
            for biases in [[None, None], biases.clone().map(Some)] {
                let weights = [&up, &down];
                let Some(found) = PackedWeights::feed_forward(weights, biases.clone(), &x) else {
                    assert!(rows <= 64 || processor != Processor::Amx);
                    continue;
                };
                let [up_bias, down_bias] = biases;
                let hidden = gelu(up.linear(x.clone(), up_bias));
                let expected = down.linear(hidden, down_bias);
                assert_eq!(found.into_data(), expected.into_data());
            }
        });
    }
}

#[test]
fn int8_rounds_each_row_to_its_largest_number() {
    on_each_processor(|_| {
        for [rows, d_output, d_input] in SHAPES {
            let (x, weight) = (scattered([rows, d_input]), scattered([d_output, d_input]));
            let bias = scattered([d_output]);
            let packed = PackedWeights::new(&weight, Format::Int8).unwrap();
            let scale = weight.clone().abs().max_dim(1) / 127.0;
            let integers = (packed.unpacked(&x.device()) / scale.clone()).into_data();
            let nearest = (weight.clone() / scale).into_data();
            for (integer, nearest) in integers.iter::<f32>().zip(nearest.iter::<f32>()) {
                let whole = (integer - integer.round()).abs();
                let moved = (integer - nearest).abs();
                assert!(whole < 1e-4 && moved < 0.5001, "{nearest}: {integer}");
            }
            let found = packed.linear(x.clone(), Some(bias.clone()));
            let exact = x.matmul(weight.transpose()) + bias.unsqueeze();
            let size = |x: Tensor<2>| x.square().mean().sqrt().into_scalar::<f32>();
            let error = size(found - exact.clone()) / size(exact);
            assert!(error < 0.02, "{error}");
        }
    });
}

#[test]
fn rows_of_zeros_stay_zeros() {
    on_each_processor(|_| {
        for precision in [Format::Bf16, Format::Int8] {
            let packed = PackedWeights::new(&scattered([9, 5]), precision).unwrap();
            let zeros = Tensor::<2>::zeros([6, 5], &Device::flex());
            let found = packed.linear(zeros, None);
            assert_eq!(found.dims(), [6, 9]);
            assert!(found.into_data().iter::<f32>().all(|y| y == 0.0));
        }
    });
}

#[test]
fn what_is_not_a_number_stays_so() {
    on_each_processor(|_| {
        for precision in [Format::Bf16, Format::Int8] {
            let packed = PackedWeights::new(&scattered([3, 5]), precision).unwrap();
            for nan in [
                f32::NAN,
                f32::from_bits(0x7FFF_FFFF),
                f32::from_bits(0xFF80_0001),
            ] {
                let x = scattered([2, 5]).slice_fill([1..2, 2..3], nan);
                let found: Vec<f32> = packed.linear(x, None).into_data().iter().collect();
                assert!(found[..3].iter().all(|y| y.is_finite()));
                assert!(found[3..].iter().all(|y| y.is_nan()), "{found:?}");
            }
            let nothing = packed.linear(Tensor::<2>::zeros([0, 5], &Device::flex()), None);
            assert_eq!(nothing.dims(), [0, 3]);
        }
    });
}

/// Numbers that rounding to bf16 treats apart, and a carry past which makes another of: NaN of all mantissas that have one
/// bit, or all below one, infinities, and what is near the largest number.
fn peculiar() -> Vec<f32> {
    let mantissas = (0..23).flat_map(|bit| [1 << bit, (1 << (bit + 1)) - 1]);
    let nans = mantissas.map(|mantissa: u32| 0x7F80_0000 | mantissa);
    let others = [
        0x7F80_0000, // infinity
        0x7F7F_FFFF, // the largest f32
        0x7F7F_8000, // half way between the largest bf16 and what would be the next: infinity
        0x7F7F_7FFF, // just below
        0x7F7F_0000, // the largest bf16
    ];
    let bits = nans.chain(others).flat_map(|bits| [bits, bits | 1 << 31]);
    bits.map(f32::from_bits).collect()
}

fn kind(x: f32) -> &'static str {
    match (x.is_nan(), x.is_infinite(), x > 0.0) {
        (true, ..) => "NaN",
        (_, true, true) => "∞",
        (_, true, false) => "−∞",
        _ => "a number",
    }
}

/// The kind of 0.001 times a number that is rounded to bf16.
fn kind_of_product(x: f32) -> &'static str {
    kind(0.001 * half::bf16::from_f32(x).to_f32())
}

#[test]
fn nan_and_infinity_pass_through_activations_in_bf16() {
    on_each_processor(|processor| {
        for rows in [1, 5, 70] {
            for d_input in [5, 40, 64] {
                let packed = weights_of(0.001, [3, d_input], Format::Bf16);
                for x in peculiar() {
                    let place = [rows / 2, d_input - 2];
                    let states = with(x, 0.0, [rows, d_input], place);
                    let found: Vec<f32> = packed.linear(states, None).into_data().iter().collect();
                    for (row, found) in found.chunks(3).enumerate() {
                        let expected = match row == place[0] {
                            true => kind_of_product(x),
                            false => "a number",
                        };
                        for found in found {
                            assert_eq!(kind(*found), expected, "{processor}: {:x}", x.to_bits());
                        }
                    }
                }
            }
        }
    });
}

#[test]
fn nan_and_infinity_pass_through_weights_in_bf16() {
    on_each_processor(|processor| {
        for rows in [1, 5, 70] {
            for d_input in [5, 40, 64] {
                for x in peculiar() {
                    let weight = with(x, 0.0, [3, d_input], [1, d_input - 2]);
                    let packed = PackedWeights::new(&weight, Format::Bf16).unwrap();
                    let states = Tensor::full([rows, d_input], 0.001, &Device::flex());
                    let found: Vec<f32> = packed.linear(states, None).into_data().iter().collect();
                    for (i, found) in found.into_iter().enumerate() {
                        let expected = match i % 3 {
                            1 => kind_of_product(x),
                            _ => "a number",
                        };
                        assert_eq!(kind(found), expected, "{processor}: {:x}", x.to_bits());
                    }
                }
            }
        }
    });
}

/// In int8 a row that holds NaN or infinity is NaN, or infinity.
#[test]
fn what_is_not_finite_does_not_vanish_in_int8() {
    on_each_processor(|processor| {
        for x in peculiar().into_iter().filter(|x| !x.is_finite()) {
            let packed = weights_of(0.5, [3, 8], Format::Int8);
            let states = with(x, 1.0, [2, 8], [1, 3]);
            let found: Vec<f32> = packed.linear(states, None).into_data().iter().collect();
            assert!(found[..3].iter().all(|y| y.is_finite()), "{processor}");
            assert!(found[3..].iter().all(|y| !y.is_finite()), "{processor}");
            let weight = with(x, 1.0, [3, 8], [1, 3]);
            let packed = PackedWeights::new(&weight, Format::Int8).unwrap();
            let states = Tensor::full([2, 8], 0.5, &Device::flex());
            let found: Vec<f32> = packed.linear(states, None).into_data().iter().collect();
            for (i, found) in found.iter().enumerate() {
                assert_eq!(found.is_finite(), i % 3 != 1, "{processor}");
            }
        }
    });
}

fn weights_of(number: f32, shape: [usize; 2], format: Format) -> PackedWeights {
    let weight = Tensor::full(shape, number, &Device::flex());
    PackedWeights::new(&weight, format).unwrap()
}

/// A matrix of one number everywhere but at one place.
fn with(x: f32, other: f32, shape: [usize; 2], [row, column]: [usize; 2]) -> Tensor<2> {
    let mut numbers = vec![other; shape[0] * shape[1]];
    numbers[row * shape[1] + column] = x;
    Tensor::from_data(TensorData::new(numbers, shape), &Device::flex())
}

/// The products of rounded numbers, in f64.
#[test]
fn bf16_is_its_equation() {
    for [rows, d_output, d_input] in [[1, 3, 5], [33, 40, 70], [70, 9, 33]] {
        let (x, weight): (Tensor<2>, Tensor<2>) =
            (scattered([rows, d_input]), scattered([d_output, d_input]));
        let bias: Tensor<1> = scattered([d_output]);
        let [exact_x, exact_weight] = [&x, &weight].map(|x| in_f64(&rounded(x.clone())));
        let expected = product(&exact_x, &exact_weight, &in_f64(&bias), d_input);
        on_each_processor(|processor| {
            let packed = PackedWeights::new(&weight, Format::Bf16).unwrap();
            let found = packed.linear(x.clone(), Some(bias.clone()));
            let error = error(&in_f64(&found), &expected);
            assert!(error <= 2e-6, "{processor}: {error}");
        });
    }
}
