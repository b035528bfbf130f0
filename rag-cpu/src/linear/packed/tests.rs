//! Products of every kernel that this machine can run, against sums in f64 and i64.

use half::bf16;

use super::{bf16::Bf16Weights, int8::Int8Weights};
use crate::{Processor, quantise::MOST_INPUTS};

/// Rows, outputs and inputs: one task and many, whole panels, lines, groups and less, pieces of panels and more.
const SHAPES: [[usize; 3]; 14] = [
    [0, 3, 5],
    [1, 1, 1],
    [2, 1, 3],
    [1, 300, 64],
    [3, 17, 33],
    [5, 16, 100],
    [7, 64, 31],
    [12, 65, 66],
    [20, 512, 100],
    [19, 63, 1030],
    [65, 7, 37],
    [200, 257, 96],
    [131, 70, 2100],
    [385, 129, 5],
];

fn numbers(count: usize, seed: usize) -> Vec<f32> {
    let number = |i: usize| ((i * 7919 + seed) as f32 * 0.618_034).fract() - 0.5;
    (0..count).map(number).collect()
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|number| number.to_bits()).collect()
}

#[test]
fn bf16_products_are_those_of_rounded_numbers() {
    for shape @ [rows, d_output, d_input] in SHAPES {
        let (x, weight) = (numbers(rows * d_input, 1), numbers(d_output * d_input, 2));
        let bias = numbers(d_output, 3);
        let rounded = |x: &f32| bf16::from_f32(*x).to_f32();
        let x_rounded: Vec<f32> = x.iter().map(rounded).collect();
        let weight_rounded: Vec<f32> = weight.iter().map(rounded).collect();
        for processor in Processor::available() {
            let packed = Bf16Weights::new(&weight, d_output, d_input, processor);
            assert_eq!(packed.unpacked(), weight_rounded);
            for bias in [None, Some(&bias[..])] {
                let found = packed.multiply(Processor::detected(), &x, bias);
                assert_eq!(found.len(), rows * d_output);
                for (i, found) in found.iter().enumerate() {
                    let [row, output] = [i / d_output, i % d_output];
                    let (mut sum, mut size) = (0.0, 0.0);
                    for k in 0..d_input {
                        let x = f64::from(x_rounded[row * d_input + k]);
                        let product = x * f64::from(weight_rounded[output * d_input + k]);
                        sum += product;
                        size += product.abs();
                    }
                    let expected = sum + bias.map_or(0.0, |bias| f64::from(bias[output]));
                    let error = (f64::from(*found) - expected).abs();
                    assert!(
                        error <= 1e-6 * (size + 1.0),
                        "{processor:?} {shape:?}: {error}"
                    );
                }
            }
        }
    }
}

#[test]
fn bf16_products_are_the_same_bits_for_any_processor_and_number_of_rows() {
    for [d_output, d_input] in [[70, 33], [129, 1100]] {
        let (x, weight) = (numbers(40 * d_input, 1), numbers(d_output * d_input, 2));
        let portable = Bf16Weights::new(&weight, d_output, d_input, Processor::Portable);
        let rows = x
            .chunks(d_input)
            .flat_map(|x| portable.multiply(Processor::Portable, x, None));
        let expected: Vec<u32> = rows.map(f32::to_bits).collect();
        for processor in Processor::available() {
            let packed = Bf16Weights::new(&weight, d_output, d_input, processor);
            for rows in [1, 2, 3, 4, 5, 6, 11, 18, 19, 40] {
                let found = packed.multiply(Processor::detected(), &x[..rows * d_input], None);
                assert_eq!(
                    bits(&found),
                    expected[..rows * d_output],
                    "{processor:?} {rows}"
                );
            }
        }
    }
}

#[test]
fn int8_products_are_exact_sums_times_two_scales() {
    for shape @ [rows, d_output, d_input] in SHAPES {
        let (x, weight) = (numbers(rows * d_input, 1), numbers(d_output * d_input, 2));
        let bias = numbers(d_output, 3);
        let quantised = |numbers: &[f32]| -> (Vec<i64>, f32) {
            let largest = numbers.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
            let integer = |x: &f32| (x * (127.0 / largest)).round_ties_even() as i64;
            (numbers.iter().map(integer).collect(), largest / 127.0)
        };
        let x_quantised: Vec<_> = x.chunks(d_input).map(quantised).collect();
        let weight_quantised: Vec<_> = weight.chunks(d_input).map(quantised).collect();
        for (kernel, packed) in Int8Weights::of_all_kernels(&weight, d_output, d_input) {
            let (integers, scales) = packed.integers();
            let unpacked = packed.unpacked();
            for (i, (expected, scale)) in weight_quantised.iter().enumerate() {
                assert_eq!(scales[i].to_bits(), scale.to_bits());
                let row = i * d_input..(i + 1) * d_input;
                for ((integer, number), expected) in integers[row.clone()]
                    .iter()
                    .zip(&unpacked[row])
                    .zip(expected)
                {
                    assert_eq!(*integer as i64, *expected);
                    assert_eq!(*number, *expected as f32 * scale);
                }
            }
            for bias in [None, Some(&bias[..])] {
                let found = packed.multiply(Processor::detected(), &x, bias);
                assert_eq!(found.len(), rows * d_output);
                for (i, found) in found.iter().enumerate() {
                    let (x, row_scale) = &x_quantised[i / d_output];
                    let (weight, scale) = &weight_quantised[i % d_output];
                    let sum: i64 = x.iter().zip(weight).map(|(x, w)| x * w).sum();
                    let product = sum as f32 * (row_scale * scale);
                    let expected = bias.map_or(product, |bias| product + bias[i % d_output]);
                    assert_eq!(found.to_bits(), expected.to_bits(), "{kernel} {shape:?}");
                }
            }
        }
    }
}

/// The largest products, of one sign, of as many inputs as there may be.
#[test]
fn int8_sums_do_not_overflow() {
    let d_input = MOST_INPUTS;
    let weight: Vec<f32> = [1.0, -1.0].iter().flat_map(|w| vec![*w; d_input]).collect();
    for (kernel, packed) in Int8Weights::of_all_kernels(&weight, 2, d_input) {
        let scale = 1.0_f32 / 127.0;
        let expected = (127 * 127 * d_input as i64) as f32 * (scale * scale);
        for sign in [1.0, -1.0] {
            let found = packed.multiply(Processor::detected(), &vec![sign; d_input], None);
            assert_eq!(found, [sign * expected, -sign * expected], "{kernel}");
        }
    }
}

#[test]
#[should_panic(expected = "too many for sums in i32")]
fn int8_weights_have_so_many_inputs_at_most() {
    let d_input = MOST_INPUTS + 1;
    Int8Weights::new(&vec![1.0; d_input], 1, d_input, Processor::Portable);
}

/// Each kernel's product, by name.
fn products(weight: &[f32], d_output: usize, d_input: usize, x: &[f32]) -> Vec<(String, Vec<f32>)> {
    let bf16 = Processor::available().map(|processor| {
        let packed = Bf16Weights::new(weight, d_output, d_input, processor);
        (
            format!("bf16 {processor:?}"),
            packed.multiply(Processor::detected(), x, None),
        )
    });
    let int8 = Int8Weights::of_all_kernels(weight, d_output, d_input);
    let int8 = int8.into_iter().map(|(name, packed)| {
        (
            format!("int8 {name}"),
            packed.multiply(Processor::detected(), x, None),
        )
    });
    bf16.chain(int8).collect()
}

#[test]
fn rows_that_are_not_finite_stay_so() {
    let (d_output, d_input) = (67, 45);
    let weight = numbers(d_output * d_input, 1);
    for number in [
        f32::NAN,
        f32::from_bits(0x7FFF_FFFF),
        f32::from_bits(0xFF80_0001),
        f32::INFINITY,
        f32::NEG_INFINITY,
    ] {
        for rows in [2, 5, 30, 200] {
            for column in [0, 31, 44] {
                let mut x = numbers(rows * d_input, 2);
                x[(rows - 1) * d_input + column] = number;
                for (name, y) in products(&weight, d_output, d_input, &x) {
                    let (finite, last) = y.split_at((rows - 1) * d_output);
                    assert!(finite.iter().all(|y| y.is_finite()), "{name}");
                    match number.is_nan() {
                        true => assert!(last.iter().all(|y| y.is_nan()), "{name}: {last:?}"),
                        false => assert!(last.iter().all(|y| !y.is_finite()), "{name}: {last:?}"),
                    }
                }
            }
        }
    }
}

#[test]
fn weights_that_are_not_numbers_stay_so() {
    let (d_output, d_input) = (67, 45);
    for number in [f32::NAN, f32::from_bits(0xFF80_0001), f32::INFINITY] {
        let mut weight = numbers(d_output * d_input, 1);
        weight[65 * d_input + 7] = number;
        for rows in [1, 30] {
            let x = numbers(rows * d_input, 2);
            for (name, y) in products(&weight, d_output, d_input, &x) {
                for (i, y) in y.iter().enumerate() {
                    assert_eq!(y.is_finite(), i % d_output != 65, "{name}");
                }
            }
        }
    }
}

#[test]
fn rows_of_zeros_stay_zeros() {
    let weight = numbers(9 * 5, 1);
    for rows in [0, 1, 6, 70] {
        for (name, y) in products(&weight, 9, 5, &vec![0.0; rows * 5]) {
            assert_eq!(y, vec![0.0; rows * 9], "{name}");
        }
    }
    for (name, y) in products(&[0.0; 45], 9, 5, &numbers(10, 1)) {
        assert_eq!(y, [0.0; 18], "{name}");
    }
}
