//! Weights in NumKong's layout, 256 outputs at a time. NumKong picks its kernels itself when the program runs: AMX, AVX-512,
//! AVX2, NEON or plain loops.

use std::iter::zip;

use numkong::{Dots, PackedMatrix, StorageElement, bf16};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::{format::Format, rounding::bf16_bits};
use crate::{processor::Processor, reduce::largest};

/// So many outputs at a time that their weights fit the second-level cache beside what they multiply.
const OUTPUTS_PER_PIECE: usize = 256;

/// Rows above which cores share the rows; below, they share the outputs.
const ROWS_TO_SHARE: usize = 64;

/// Rows of a task at most, again for the cache.
const ROWS_PER_TASK: usize = 512;

/// Weights that are rounded to a format.
pub enum Panels {
    Bf16(Pieces<bf16>),
    Int8(Pieces<i8>),
}

impl Panels {
    pub fn new(processor: Processor, weight: &[f32], d_input: usize, format: Format) -> Self {
        match format {
            Format::Bf16 => Self::Bf16(Pieces::new(processor, weight, d_input)),
            Format::Int8 => Self::Int8(Pieces::new(processor, weight, d_input)),
        }
    }

    pub fn multiply(
        &self,
        processor: Processor,
        x: &[f32],
        d_input: usize,
        bias: Option<&[f32]>,
    ) -> Vec<f32> {
        match self {
            Self::Bf16(pieces) => pieces.multiply(processor, x, d_input, bias),
            Self::Int8(pieces) => pieces.multiply(processor, x, d_input, bias),
        }
    }

    pub fn format(&self) -> Format {
        match self {
            Self::Bf16(_) => Format::Bf16,
            Self::Int8(_) => Format::Int8,
        }
    }
}

/// A number that NumKong multiplies.
pub trait Number: Dots<Accumulator: Send + Sync> + StorageElement + Send + Sync {
    /// Rows of `width` numbers as they are multiplied, each times its own scale.
    fn rows(processor: Processor, numbers: &[f32], width: usize) -> Rows<Self>;

    fn product(sum: Self::Accumulator) -> f32;
}

pub struct Rows<N: Number> {
    numbers: numkong::Tensor<N>,
    scales: Vec<f32>,
}

pub struct Pieces<N: Number> {
    packed: Vec<PackedMatrix<N>>,
    /// Of each output.
    scales: Vec<f32>,
}

impl<N: Number> Pieces<N> {
    fn new(processor: Processor, weight: &[f32], d_input: usize) -> Self {
        let pieces = weight.par_chunks(OUTPUTS_PER_PIECE * d_input);
        let (packed, scales): (Vec<_>, Vec<_>) = pieces
            .map(|weight| {
                let rows = N::rows(processor, weight, d_input);
                let packed = PackedMatrix::try_pack(&rows.numbers).expect("memory for the weights");
                (packed, rows.scales)
            })
            .unzip();
        Self {
            packed,
            scales: scales.concat(),
        }
    }

    fn multiply(
        &self,
        processor: Processor,
        x: &[f32],
        d_input: usize,
        bias: Option<&[f32]>,
    ) -> Vec<f32> {
        let (rows, d_output) = (x.len() / d_input, self.scales.len());
        let mut y = vec![0.0; rows * d_output];
        if rows > ROWS_TO_SHARE {
            let share = rows.div_ceil(rayon::current_num_threads());
            let share = share.next_multiple_of(32).min(ROWS_PER_TASK);
            y.par_chunks_mut(share * d_output)
                .zip(x.par_chunks(share * d_input))
                .for_each(|(y, x)| {
                    let x = N::rows(processor, x, d_input);
                    let mut products = zeros(x.scales.len(), OUTPUTS_PER_PIECE.min(d_output));
                    for (i, piece) in self.packed.iter().enumerate() {
                        let (columns, _) = piece.dims();
                        if products.shape()[1] != columns {
                            products = zeros(x.scales.len(), columns);
                        }
                        multiply(&x, piece, &mut products);
                        self.place(processor, i, &x.scales, &products, bias, y);
                    }
                });
        } else {
            let x = N::rows(processor, x, d_input);
            let pieces = self.packed.par_iter().map(|piece| {
                let (columns, _) = piece.dims();
                let mut products = zeros(x.scales.len(), columns);
                multiply(&x, piece, &mut products);
                products
            });
            let products: Vec<_> = pieces.collect();
            for (i, product) in products.iter().enumerate() {
                self.place(processor, i, &x.scales, product, bias, &mut y);
            }
        }
        y
    }

    /// Scales the products with piece `i`, and puts them to their columns of `y`.
    fn place(
        &self,
        processor: Processor,
        i: usize,
        row_scales: &[f32],
        products: &numkong::Tensor<N::Accumulator>,
        bias: Option<&[f32]>,
        y: &mut [f32],
    ) {
        let columns = i * OUTPUTS_PER_PIECE..((i + 1) * OUTPUTS_PER_PIECE).min(self.scales.len());
        let scales = &self.scales[columns.clone()];
        let bias = bias.map(|bias| &bias[columns.clone()]);
        let rows = y.chunks_exact_mut(self.scales.len());
        let products = products.as_slice().chunks_exact(scales.len());
        for ((y, products), row_scale) in rows.zip(products).zip(row_scales) {
            let y = &mut y[columns.clone()];
            processor.run(Scaled::<N> {
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
    fn rows(processor: Processor, numbers: &[f32], width: usize) -> Rows<Self> {
        let rows = numbers.len() / width;
        let mut rounded = zeros(rows, width);
        // NumKong's own rounding adds to the bits of NaN as to those of numbers, which makes some of them 0 or infinity.
        let mut bits = vec![0; numbers.len()];
        bf16_bits(processor, numbers, &mut bits);
        for (rounded, bits) in zip(rounded.as_mut_slice(), bits) {
            *rounded = bf16(bits);
        }
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
    fn rows(processor: Processor, numbers: &[f32], width: usize) -> Rows<Self> {
        let mut rounded = zeros(numbers.len() / width, width);
        let rows = rounded
            .as_mut_slice()
            .chunks_exact_mut(width)
            .zip(numbers.chunks_exact(width));
        let mut scales = Vec::with_capacity(rows.len());
        processor.run(
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
