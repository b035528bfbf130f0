//! Products of packed weights on the matrix units against those of vectors: of int8 bit for bit, of bf16 but for the order of
//! their sums.

use super::{bf16::Bf16Weights, int8::Int8Weights};
use crate::{Processor, activation::gelu_in_place, amx, matrix::Matrix, quantise::MOST_INPUTS};

/// Rows, outputs and inputs: tasks that share the weights or the rows, whole tiles and panels, less and more.
const SHAPES: [[usize; 3]; 11] = [
    [0, 3, 5],
    [1, 1, 1],
    [16, 16, 64],
    [17, 33, 65],
    [32, 32, 128],
    [64, 64, 63],
    [65, 31, 64],
    [131, 70, 2100],
    [385, 129, 5],
    [5, 4096, 1024],
    [200, 257, 1100],
];

/// Shapes of up to 80 rows, 100 outputs and 300 inputs.
fn odd_shapes() -> impl Iterator<Item = [usize; 3]> {
    (0..120).map(|i| [1 + i * 37 % 80, 1 + i * 61 % 100, 1 + i * 173 % 300])
}

fn numbers(count: usize, seed: usize) -> Vec<f32> {
    let number = |i: usize| ((i * 7919 + seed) as f32 * 0.618_034).fract() - 0.5;
    (0..count).map(number).collect()
}

/// The bits of numbers; those of one NaN for all.
fn bits(numbers: &[f32]) -> Vec<u32> {
    let canonical = |x: &f32| if x.is_nan() { f32::NAN } else { *x };
    numbers.iter().map(|x| canonical(x).to_bits()).collect()
}

/// Weights in tiles, where they can be multiplied.
fn tiles(weight: &[f32], d_output: usize, d_input: usize) -> Option<amx::Int8Weights> {
    let weight = Matrix::new(weight, [d_output, d_input]);
    amx::int8_available().then(|| amx::Int8Weights::new(weight))
}

fn multiply(tiles: &amx::Int8Weights, x: &[f32], d_input: usize, bias: &[f32]) -> Vec<f32> {
    let rows = Matrix::new(x, [x.len() / d_input, d_input]);
    amx::linear(tiles, rows, bias)
}

/// Compares the tiles' product with that of each other kernel, with and without a bias.
fn compare(x: &[f32], weight: &[f32], [rows, d_output, d_input]: [usize; 3]) {
    let Some(tiles) = tiles(weight, d_output, d_input) else {
        return;
    };
    let bias = numbers(d_output, 3);
    let without = bits(&multiply(&tiles, x, d_input, &[]));
    let with = bits(&multiply(&tiles, x, d_input, &bias));
    assert_eq!(without.len(), rows * d_output);
    let unpacked = bits(&tiles.unpacked());
    for (kernel, packed) in Int8Weights::of_all_kernels(weight, d_output, d_input) {
        let shape = [rows, d_output, d_input];
        let multiply = |bias| bits(&packed.multiply(Processor::detected(), x, bias));
        assert!(without == multiply(None), "{kernel} {shape:?}");
        assert!(with == multiply(Some(&bias)), "{kernel} {shape:?}");
        assert!(unpacked == bits(&packed.unpacked()), "{kernel} {shape:?}");
    }
}

#[test]
fn int8_tiles_make_the_same_bits_as_vectors() {
    for shape @ [rows, d_output, d_input] in SHAPES.into_iter().chain(odd_shapes()) {
        let (x, weight) = (numbers(rows * d_input, 1), numbers(d_output * d_input, 2));
        compare(&x, &weight, shape);
    }
}

#[test]
fn int8_tiles_keep_what_is_not_finite() {
    let peculiar = [
        f32::NAN,
        f32::from_bits(0xFF80_0001),
        f32::INFINITY,
        f32::NEG_INFINITY,
    ];
    for number in peculiar {
        for shape @ [rows, d_output, d_input] in [[2, 67, 45], [30, 3, 64], [70, 40, 130]] {
            let (x, weight) = (numbers(rows * d_input, 1), numbers(d_output * d_input, 2));
            let (mut x_with, mut weight_with) = (x.clone(), weight.clone());
            x_with[(rows / 2) * d_input + d_input - 1] = number;
            weight_with[(d_output / 2) * d_input + 3] = number;
            compare(&x_with, &weight, shape);
            compare(&x, &weight_with, shape);
            compare(&x_with, &weight_with, shape);
            if let Some(tiles) = tiles(&weight, d_output, d_input) {
                let y = multiply(&tiles, &x_with, d_input, &[]);
                for (i, y) in y.iter().enumerate() {
                    let row = i / d_output;
                    assert_eq!(y.is_finite(), row != rows / 2, "row {row}: {y}");
                    assert!(!number.is_nan() || row != rows / 2 || y.is_nan());
                }
            }
        }
    }
}

#[test]
fn int8_tiles_of_zeros_are_zeros_and_the_bias() {
    for shape @ [rows, d_output, d_input] in [[3, 5, 7], [40, 33, 64], [70, 9, 100]] {
        let (x, weight) = (numbers(rows * d_input, 1), numbers(d_output * d_input, 2));
        let mut with_zeros = x.clone();
        with_zeros[d_input..2 * d_input].fill(0.0);
        compare(&with_zeros, &weight, shape);
        compare(&x, &vec![0.0; weight.len()], shape);
        if let Some(tiles) = tiles(&weight, d_output, d_input) {
            let bias = numbers(d_output, 3);
            let y = multiply(&tiles, &vec![0.0; rows * d_input], d_input, &bias);
            y.chunks(d_output).for_each(|y| assert_eq!(y, bias));
        }
    }
}

/// Where the product of two scales is 0, negative sums become -0.
#[test]
fn int8_tiles_keep_the_sign_of_zero() {
    let tiny = |x: Vec<f32>| -> Vec<f32> { x.iter().map(|x| x * 1e-30).collect() };
    let (x, weight) = (tiny(numbers(5 * 40, 1)), tiny(numbers(7 * 40, 2)));
    compare(&x, &weight, [5, 7, 40]);
}

/// The largest products, of one sign, of as many inputs as there may be.
#[test]
fn int8_tiles_do_not_overflow() {
    let d_input = MOST_INPUTS;
    let weight: Vec<f32> = [1.0, -1.0].iter().flat_map(|w| vec![*w; d_input]).collect();
    for sign in [1.0, -1.0] {
        compare(&vec![sign; d_input], &weight, [1, 2, d_input]);
    }
}

#[test]
#[should_panic(expected = "too many for sums in i32")]
fn int8_tiles_have_so_many_inputs_at_most() {
    let d_input = MOST_INPUTS + 1;
    if tiles(&vec![1.0; d_input], 1, d_input).is_none() {
        panic!("no matrix units, which is not too many for sums in i32");
    }
}

#[test]
fn a_hidden_layer_in_int8_is_the_same_in_the_cache() {
    for [rows, d_model, d_hidden] in [[65, 33, 70], [300, 96, 1100], [5, 8, 16]] {
        let up = numbers(d_hidden * d_model, 1);
        let down = numbers(d_model * d_hidden, 2);
        let (Some(up), Some(down)) = (
            tiles(&up, d_hidden, d_model),
            tiles(&down, d_model, d_hidden),
        ) else {
            return;
        };
        let x = numbers(rows * d_model, 3);
        let biases = [d_hidden, d_model].map(|size| numbers(size, 4));
        for [up_bias, down_bias] in [[&[][..]; 2], biases.each_ref().map(Vec::as_slice)] {
            let processor = Processor::detected();
            let mut hidden = multiply(&up, &x, d_model, up_bias);
            processor.vectorise(
                #[inline(always)]
                || gelu_in_place(&mut hidden),
            );
            let expected = multiply(&down, &hidden, d_hidden, down_bias);
            let x = Matrix::new(&x, [rows, d_model]);
            let found = amx::feed_forward(processor, [&up, &down], [up_bias, down_bias], x);
            assert!(found == expected, "{rows} {d_model} {d_hidden}");
        }
    }
}

#[test]
fn bf16_tiles_make_nearly_the_same_numbers_as_vectors() {
    if !amx::available() {
        return;
    }
    let processor = Processor::detected();
    for [rows, d_output, d_input] in SHAPES.into_iter().chain(odd_shapes().take(30)) {
        let (x, weight) = (numbers(rows * d_input, 1), numbers(d_output * d_input, 2));
        let bias = numbers(d_output, 3);
        let tiles = amx::Bf16Weights::new(Matrix::new(&weight, [d_output, d_input]));
        let panels = Bf16Weights::new(&weight, d_output, d_input, processor);
        assert_eq!(tiles.unpacked(), panels.unpacked());
        let found = amx::linear(&tiles, Matrix::new(&x, [rows, d_input]), &bias);
        let expected = panels.multiply(processor, &x, Some(&bias));
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(&expected) {
            let error = (found - expected).abs();
            assert!(
                error <= 1e-7 * (d_input as f32 + 10.0),
                "{found} {expected}"
            );
        }
    }
}
