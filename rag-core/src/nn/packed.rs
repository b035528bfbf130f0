//! Weights of a linear layer laid out once for the processor's matrix units: bf16 or int8 for answering on the CPU.
//!
//! bf16 is multiplied as [`tiles`](super::fused::tiles) where there is AMX. For all else NumKong picks the kernel when
//! the program runs: AMX, AVX-512, AVX2, NEON or plain loops. What it multiplies is
//! rounded (bf16), or divided by the largest of its row and rounded to an integer (int8, LLM.int8()'s vector-wise
//! quantisation, Dettmers et al. 2022, without its outlier columns); sums are f32, or exact in i32.

use std::{
    fmt,
    iter::zip,
    sync::{Arc, OnceLock},
};

use burn::{
    backend::flex::FlexTensor,
    module::Param,
    tensor::{Bytes, DType, Device, Tensor, TensorData},
};
use numkong::{Dots, PackedMatrix, StorageElement, bf16, cap};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::{
    Precision,
    fused::{elements, flex, largest, tensor, vectorised},
    fuses,
    linear::by_rows,
};

#[cfg(target_arch = "x86_64")]
use super::fused::{Matrix, tiles};

/// `[d_output, d_input]`, packed.
pub struct Packed {
    d_input: usize,
    d_output: usize,
    weights: Weights,
    /// The numbers of the parameter that this is, once it has some.
    parameter: OnceLock<Arc<Bytes>>,
}

enum Weights {
    /// For matrix units, which NumKong keeps busy for a part of the time only.
    #[cfg(target_arch = "x86_64")]
    Tiles(tiles::Weights),
    Bf16(Pieces<bf16>),
    Int8(Pieces<i8>),
}

/// So many outputs at a time that their weights fit the second-level cache beside what they multiply.
const PIECE: usize = 256;

/// Rows above which cores share the rows; below, they share the outputs.
const SHARED: usize = 64;

/// Rows of a task at most, again for the cache.
const TASK: usize = 512;

/// A number that NumKong multiplies.
trait Number: Dots<Accumulator: Send + Sync> + StorageElement + Send + Sync {
    /// Rows of `width` numbers as they are multiplied, each times its own scale.
    fn rows(numbers: &[f32], width: usize) -> Rows<Self>;

    fn product(sum: Self::Accumulator) -> f32;
}

struct Rows<N: Number> {
    numbers: numkong::Tensor<N>,
    scales: Vec<f32>,
}

struct Pieces<N: Number> {
    packed: Vec<PackedMatrix<N>>,
    /// Of each output.
    scales: Vec<f32>,
}

impl Packed {
    /// Packs `weight` `[d_output, d_input]`; `None` where `precision` is not one that packing serves, or the weight
    /// not on the CPU.
    pub fn new(weight: &Tensor<2>, precision: Precision) -> Option<Self> {
        // A system may keep AMX, which the processor has, from a program.
        let amx = numkong::available() & (cap::SAPPHIREAMX | cap::GRANITEAMX) != 0;
        if amx && !numkong::configure_thread() {
            return None;
        }
        let [d_output, d_input] = weight.dims();
        let numbers = elements(weight.clone().cast(DType::F32))?;
        let numbers = numbers.as_slice()?;
        let weights = match precision {
            #[cfg(target_arch = "x86_64")]
            Precision::Bf16 if tiles::available() => {
                let weight = Matrix::new(numbers, [d_output, d_input]);
                Weights::Tiles(tiles::Weights::new(weight))
            }
            Precision::Bf16 => Weights::Bf16(Pieces::new(numbers, d_input)),
            Precision::Int8 => Weights::Int8(Pieces::new(numbers, d_input)),
            Precision::F32 | Precision::F16 => return None,
        };
        Some(Self {
            d_input,
            d_output,
            weights,
            parameter: OnceLock::new(),
        })
    }

    /// Says which parameter this is multiplied instead of.
    pub fn stands_for(&self, weight: &Tensor<2>) {
        if let Some(weight) = flex(weight.clone()) {
            self.parameter.get_or_init(|| weight.data_arc());
        }
    }

    /// Whether `input` can be multiplied, and `weight` is still the parameter that was packed: not trained since,
    /// not replaced, nor adapted.
    pub fn serves<const D: usize>(&self, input: &Tensor<D>, weight: &Param<Tensor<2>>) -> bool {
        let packed = || match (self.parameter.get(), flex(weight.val())) {
            (Some(packed), Some(found)) => Arc::ptr_eq(packed, &found.data_arc()),
            _ => false,
        };
        let unchanged = weight.adapter().is_none() && (!weight.is_initialized() || packed());
        let plain = input.dtype() == DType::F32 && !input.device().is_autodiff();
        plain && fuses(&input.device()) && unchanged
    }

    /// `[.., d_input]` to `[.., d_output]`, `x Wᵀ + b`, both f32 and on the CPU.
    pub fn linear<const D: usize>(&self, x: Tensor<D>, bias: Option<Tensor<1>>) -> Tensor<D> {
        by_rows(x, |x| self.rows(x, bias))
    }

    fn rows(&self, x: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
        let rows = x.dims()[0];
        let x = elements(x).expect("packed weights are on the CPU");
        let bias = bias.map(|bias| elements(bias).expect("a bias is where its weights are"));
        let x = x.as_slice().expect("activations are f32");
        let bias = bias.as_ref().and_then(FlexTensor::as_slice);
        tensor(self.multiply(x, bias), [rows, self.d_output])
    }

    /// `down(gelu(up x))`, where these weights are multiplied faster without all of the hidden layer in memory.
    #[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables))]
    pub fn feed_forward<const D: usize>(
        [up, down]: [&Self; 2],
        biases: [Option<&Param<Tensor<1>>>; 2],
        x: &Tensor<D>,
    ) -> Option<Tensor<D>> {
        #[cfg(target_arch = "x86_64")]
        if let (Weights::Tiles(up), Weights::Tiles(down)) = (&up.weights, &down.weights) {
            let rows: usize = x.dims()[..D - 1].iter().product();
            return (rows > tiles::FEW).then(|| {
                by_rows(x.clone(), |x| {
                    let [rows, d_input] = x.dims();
                    let x = elements(x).expect("packed weights are on the CPU");
                    let x = x.as_slice().expect("activations are f32");
                    let biases = biases.map(|bias| {
                        let bias = elements(bias?.val());
                        Some(bias.expect("a bias is where its weights are"))
                    });
                    let biases = biases.each_ref().map(|bias| {
                        let bias = bias.as_ref().and_then(FlexTensor::as_slice);
                        bias.unwrap_or_default()
                    });
                    let y =
                        tiles::feed_forward([up, down], biases, Matrix::new(x, [rows, d_input]));
                    let d_output = y.len() / rows;
                    tensor(y, [rows, d_output])
                })
            });
        }
        None
    }

    /// The weights as they are multiplied.
    pub fn unpacked(&self, device: &Device) -> Tensor<2> {
        // What the unit vectors are mapped to is the transposed matrix, exactly: all other terms are 0.
        let mut weight = vec![0.0; self.d_output * self.d_input];
        for (i, column) in self.identity().chunks(self.d_output).enumerate() {
            for (row, &number) in weight.chunks_mut(self.d_input).zip(column) {
                row[i] = number;
            }
        }
        let shape = [self.d_output, self.d_input];
        let weight = Tensor::from_data(TensorData::new(weight, shape), device);
        self.stands_for(&weight);
        weight
    }

    fn identity(&self) -> Vec<f32> {
        let mut units = vec![0.0; self.d_input * self.d_input];
        units
            .iter_mut()
            .step_by(self.d_input + 1)
            .for_each(|one| *one = 1.0);
        self.multiply(&units, None)
    }

    fn multiply(&self, x: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
        let rows = x.len() / self.d_input;
        match &self.weights {
            _ if x.is_empty() => Vec::new(),
            #[cfg(target_arch = "x86_64")]
            Weights::Tiles(weights) => {
                let x = Matrix::new(x, [rows, self.d_input]);
                weights.multiply(x, bias.unwrap_or_default())
            }
            Weights::Bf16(pieces) => pieces.multiply(x, self.d_input, bias),
            Weights::Int8(pieces) => pieces.multiply(x, self.d_input, bias),
        }
    }
}

impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let precision = match self.weights {
            #[cfg(target_arch = "x86_64")]
            Weights::Tiles(_) => Precision::Bf16,
            Weights::Bf16(_) => Precision::Bf16,
            Weights::Int8(_) => Precision::Int8,
        };
        f.debug_struct("Packed")
            .field("shape", &[self.d_output, self.d_input])
            .field("precision", &precision)
            .finish()
    }
}

impl<N: Number> Pieces<N> {
    fn new(weight: &[f32], d_input: usize) -> Self {
        let pieces = weight.par_chunks(PIECE * d_input);
        let (packed, scales): (Vec<_>, Vec<_>) = pieces
            .map(|weight| {
                let rows = N::rows(weight, d_input);
                let packed = PackedMatrix::try_pack(&rows.numbers).expect("memory for the weights");
                (packed, rows.scales)
            })
            .unzip();
        Self {
            packed,
            scales: scales.concat(),
        }
    }

    fn multiply(&self, x: &[f32], d_input: usize, bias: Option<&[f32]>) -> Vec<f32> {
        let (rows, d_output) = (x.len() / d_input, self.scales.len());
        let mut y = vec![0.0; rows * d_output];
        if rows > SHARED {
            let share = rows.div_ceil(rayon::current_num_threads());
            let share = share.next_multiple_of(32).min(TASK);
            y.par_chunks_mut(share * d_output)
                .zip(x.par_chunks(share * d_input))
                .for_each(|(y, x)| {
                    let x = N::rows(x, d_input);
                    let mut products = zeros(x.scales.len(), PIECE.min(d_output));
                    for (i, piece) in self.packed.iter().enumerate() {
                        let (columns, _) = piece.dims();
                        if products.shape()[1] != columns {
                            products = zeros(x.scales.len(), columns);
                        }
                        multiply(&x, piece, &mut products);
                        self.place(i, &x.scales, &products, bias, y);
                    }
                });
        } else {
            let x = N::rows(x, d_input);
            let pieces = self.packed.par_iter().map(|piece| {
                let (columns, _) = piece.dims();
                let mut products = zeros(x.scales.len(), columns);
                multiply(&x, piece, &mut products);
                products
            });
            let products: Vec<_> = pieces.collect();
            for (i, product) in products.iter().enumerate() {
                self.place(i, &x.scales, product, bias, &mut y);
            }
        }
        y
    }

    /// Scales the products with piece `i`, and puts them to their columns of `y`.
    fn place(
        &self,
        i: usize,
        row_scales: &[f32],
        products: &numkong::Tensor<N::Accumulator>,
        bias: Option<&[f32]>,
        y: &mut [f32],
    ) {
        let columns = i * PIECE..((i + 1) * PIECE).min(self.scales.len());
        let scales = &self.scales[columns.clone()];
        let bias = bias.map(|bias| &bias[columns.clone()]);
        let rows = y.chunks_exact_mut(self.scales.len());
        let products = products.as_slice().chunks_exact(scales.len());
        for ((y, products), row_scale) in rows.zip(products).zip(row_scales) {
            let y = &mut y[columns.clone()];
            Arch::new().dispatch(Scaled::<N> {
                products,
                row_scale: *row_scale,
                scales,
                bias,
                y,
            });
        }
    }
}

/// What products of a row stand for: each times the scales of its row and its column, with its bias. (A closure of this size
/// is not inlined, and then compiled without the processor's vectors.)
struct Scaled<'a, N: Number> {
    products: &'a [N::Accumulator],
    row_scale: f32,
    scales: &'a [f32],
    bias: Option<&'a [f32]>,
    y: &'a mut [f32],
}

impl<N: Number> WithSimd for Scaled<'_, N> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let scaled = zip(self.products, self.scales);
        for (y, (&product, scale)) in zip(&mut *self.y, scaled) {
            *y = N::product(product) * (self.row_scale * scale);
        }
        for (y, bias) in zip(self.y, self.bias.unwrap_or_default()) {
            *y += bias;
        }
    }
}

fn multiply<N: Number>(
    x: &Rows<N>,
    piece: &PackedMatrix<N>,
    products: &mut numkong::Tensor<N::Accumulator>,
) {
    thread_local! {
        /// A thread asks the system once for the use of matrix units.
        static READY: bool = numkong::configure_thread();
    }
    READY.with(|_| {});
    let done = x.numbers.try_dots_packed_into(piece, products);
    done.expect("inputs as wide as the weights, and room for as many products");
}

impl Number for bf16 {
    fn rows(numbers: &[f32], width: usize) -> Rows<Self> {
        let rows = numbers.len() / width;
        let mut rounded = zeros(rows, width);
        numkong::cast(numbers, rounded.as_mut_slice()).expect("as many numbers");
        Rows {
            numbers: rounded,
            scales: vec![1.0; rows],
        }
    }

    #[inline(always)]
    fn product(sum: f32) -> f32 {
        sum
    }
}

impl Number for i8 {
    fn rows(numbers: &[f32], width: usize) -> Rows<Self> {
        let mut rounded = zeros(numbers.len() / width, width);
        let rows = rounded
            .as_mut_slice()
            .chunks_exact_mut(width)
            .zip(numbers.chunks_exact(width));
        let mut scales = Vec::with_capacity(rows.len());
        vectorised(
            #[inline(always)]
            || {
                for (rounded, numbers) in rows {
                    scales.push(quantise(numbers, rounded));
                }
            },
        );
        Rows {
            numbers: rounded,
            scales,
        }
    }

    #[inline(always)]
    fn product(sum: i32) -> f32 {
        sum as f32
    }
}

fn zeros<N: StorageElement + Default + Clone>(rows: usize, width: usize) -> numkong::Tensor<N> {
    numkong::Tensor::try_full(&[rows, width], N::default()).expect("memory for the activations")
}

/// Rounds a row to integers of at most 127, and returns what they are to be multiplied with.
#[inline(always)]
fn quantise(numbers: &[f32], rounded: &mut [i8]) -> f32 {
    /// 1.5 · 2²³: a small number that is added leaves its nearest integer in the lowest bits.
    const ROUNDS: f32 = 12_582_912.0;
    let any_nan = numbers.iter().fold(false, |nan, x| nan | x.is_nan());
    if any_nan {
        return f32::NAN;
    }
    let largest = largest(numbers);
    if largest == 0.0 {
        return 0.0;
    }
    let scale = 127.0 / largest;
    for (rounded, x) in rounded.iter_mut().zip(numbers) {
        *rounded = (x * scale + ROUNDS).to_bits() as i8;
    }
    largest / 127.0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use burn::tensor::Tolerance;

    use super::*;
    use crate::{device, nn::scattered};

    fn rounded(x: Tensor<2>) -> Tensor<2> {
        x.cast(DType::BF16).cast(DType::F32)
    }

    /// Rows that are shared and outputs that are, whole pieces and less.
    const SHAPES: [[usize; 3]; 7] = [
        [1, 1, 1],
        [5, 300, 64],
        [20, 2 * PIECE, 100],
        [SHARED + 1, 7, 37],
        [200, PIECE + 1, 96],
        [5, 70, 1100],
        [100, 70, 2100],
    ];

    #[test]
    fn bf16_is_the_product_of_rounded_numbers() {
        for [rows, d_output, d_input] in SHAPES {
            let (x, weight) = (scattered([rows, d_input]), scattered([d_output, d_input]));
            let bias = scattered([d_output]);
            let packed = Packed::new(&weight, Precision::Bf16).unwrap();
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
    }

    #[test]
    fn a_hidden_layer_in_the_cache_is_as_one_in_memory() {
        for [rows, d_model, d_hidden] in [[65, 33, 70], [300, 96, 1100], [5, 8, 16]] {
            let pack = |shape: [usize; 2]| Packed::new(&scattered(shape), Precision::Bf16).unwrap();
            let (up, down) = (pack([d_hidden, d_model]), pack([d_model, d_hidden]));
            let x = scattered([rows, 1, d_model]);
            let biases = [d_hidden, d_model].map(|size| Param::from_tensor(scattered([size])));
            for biases in [[None, None], biases.each_ref().map(Some)] {
                let Some(found) = Packed::feed_forward([&up, &down], biases, &x) else {
                    #[cfg(target_arch = "x86_64")]
                    assert!(rows <= tiles::FEW || !tiles::available());
                    continue;
                };
                let [up_bias, down_bias] = biases.map(|bias| bias.map(|bias| bias.val()));
                let hidden = crate::nn::gelu(up.linear(x.clone(), up_bias));
                let expected = down.linear(hidden, down_bias);
                assert_eq!(found.into_data(), expected.into_data());
            }
        }
    }

    #[test]
    fn int8_rounds_each_row_to_its_largest_number() {
        for [rows, d_output, d_input] in SHAPES {
            let (x, weight) = (scattered([rows, d_input]), scattered([d_output, d_input]));
            let bias = scattered([d_output]);
            let packed = Packed::new(&weight, Precision::Int8).unwrap();
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
    }

    #[test]
    fn rows_of_zeros_stay_zeros() {
        for precision in [Precision::Bf16, Precision::Int8] {
            let packed = Packed::new(&scattered([9, 5]), precision).unwrap();
            let zeros = Tensor::<3>::zeros([2, 3, 5], &device("cpu").unwrap());
            let found = packed.linear(zeros, None);
            assert_eq!(found.dims(), [2, 3, 9]);
            assert!(found.into_data().iter::<f32>().all(|y| y == 0.0));
        }
    }

    #[test]
    fn what_is_not_a_number_stays_so() {
        for precision in [Precision::Bf16, Precision::Int8] {
            let packed = Packed::new(&scattered([3, 5]), precision).unwrap();
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
            let nothing = packed.linear(Tensor::<2>::zeros([0, 5], &device("cpu").unwrap()), None);
            assert_eq!(nothing.dims(), [0, 3]);
        }
    }

    #[test]
    fn packed_weights_serve_as_long_as_they_are_the_parameter() {
        let device = device("cpu").unwrap();
        let linear = crate::nn::LinearConfig::new(5, 3).init(&device);
        let packed = linear.clone().pack(Precision::Bf16);
        let x = scattered([2, 5]);
        let answer =
            |linear: &crate::nn::Linear| linear.forward(x.clone(), Precision::F32).into_data();
        let before = answer(&packed);
        assert_ne!(before, answer(&linear));
        // Saved, it is unpacked.
        packed.weight.val();
        assert_eq!(answer(&packed), before);
        let mut changed = packed.clone();
        changed.weight = changed.weight.map(|weight| weight * 2.0);
        assert_ne!(answer(&changed), before);
        assert_eq!(answer(&packed), before);
        let input = x.clone().cast(DType::BF16);
        assert_eq!(packed.forward(input, Precision::Bf16).dims(), [2, 3]);
    }

    #[test]
    fn f32_and_f16_are_not_packed() {
        assert!(Packed::new(&scattered([2, 2]), Precision::F32).is_none());
        assert!(Packed::new(&scattered([2, 2]), Precision::F16).is_none());
    }
}
