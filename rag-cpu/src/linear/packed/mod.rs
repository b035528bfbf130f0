//! Weights of a linear layer packed once, in bf16 or int8, for answering.
//!
//! Operands are rounded (bf16), or divided by the largest of its row and rounded to an integer (int8,
//! LLM.int8()'s vector-wise quantisation without its outlier columns, Dettmers et al. 2022, arXiv 2208.07339); sums are f32,
//! or exact in i32.

mod bf16;
mod format;
mod groups;
mod int8;
mod panels;
mod product;
mod rounding;
#[cfg(test)]
mod tests;
#[cfg(all(test, target_arch = "x86_64"))]
mod tiles_tests;

use std::{fmt, sync::Arc};

use burn::tensor::{Bytes, DType, Device, Tensor, TensorData};

pub use format::Format;

use self::{bf16::Bf16Weights, int8::Int8Weights};
use crate::{
    flex::{elements, inference, slice, tensor},
    processor::Processor,
};

#[cfg(target_arch = "x86_64")]
use crate::{amx, matrix::Matrix};

/// How packed weights lie in memory, and what multiplies them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// In bf16, as matrix units read them.
    #[cfg(target_arch = "x86_64")]
    Tiles,
    /// In bf16, as vectors read them: see [`bf16::choose`].
    Bf16,
    /// In int8, as matrix units read them.
    #[cfg(target_arch = "x86_64")]
    Int8Tiles,
    /// In int8, as vectors read them: see [`int8::choose`].
    Int8,
}

/// The layout of weights in a format.
fn choose(processor: Processor, format: Format) -> Layout {
    match format {
        #[cfg(target_arch = "x86_64")]
        Format::Bf16 if processor == Processor::Amx => Layout::Tiles,
        Format::Bf16 => Layout::Bf16,
        #[cfg(target_arch = "x86_64")]
        Format::Int8 if processor == Processor::Amx && amx::int8_available() => Layout::Int8Tiles,
        Format::Int8 => Layout::Int8,
    }
}

/// Weights `[d_output, d_input]` of a linear layer, packed.
pub struct PackedWeights {
    d_input: usize,
    d_output: usize,
    packed: Packed,
}

enum Packed {
    #[cfg(target_arch = "x86_64")]
    Tiles(amx::Bf16Weights),
    #[cfg(target_arch = "x86_64")]
    Int8Tiles(amx::Int8Weights),
    Bf16(Bf16Weights),
    Int8(Int8Weights),
}

impl PackedWeights {
    /// Packs `weight` `[d_output, d_input]`; `None` where it is not on the CPU without gradients.
    pub fn new(weight: &Tensor<2>, format: Format) -> Option<Self> {
        let [d_output, d_input] = weight.dims();
        let numbers = elements(weight.clone().cast(DType::F32))?;
        Some(Self::of(slice(&numbers), [d_output, d_input], format))
    }

    fn of(weight: &[f32], [d_output, d_input]: [usize; 2], format: Format) -> Self {
        let processor = Processor::current();
        let packed = match choose(processor, format) {
            #[cfg(target_arch = "x86_64")]
            Layout::Tiles => {
                let weight = Matrix::new(weight, [d_output, d_input]);
                Packed::Tiles(amx::Bf16Weights::new(weight))
            }
            #[cfg(target_arch = "x86_64")]
            Layout::Int8Tiles => {
                let weight = Matrix::new(weight, [d_output, d_input]);
                Packed::Int8Tiles(amx::Int8Weights::new(weight))
            }
            Layout::Bf16 => Packed::Bf16(Bf16Weights::new(weight, d_output, d_input, processor)),
            Layout::Int8 => Packed::Int8(Int8Weights::new(weight, d_output, d_input, processor)),
        };
        Self {
            d_input,
            d_output,
            packed,
        }
    }

    /// `x Wᵀ + b` of `x` `[rows, d_input]`: `[rows, d_output]`, in f32.
    ///
    /// # Panics
    /// If `x` or the bias is not f32 on the CPU without gradients.
    pub fn linear(&self, x: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
        let rows = x.dims()[0];
        let x = elements(x).expect("packed weights are on the CPU, and activations f32");
        let bias = bias.map(|bias| elements(bias).expect("a bias is where its weights are"));
        let y = self.multiply(slice(&x), bias.as_ref().map(slice));
        tensor(y, [rows, self.d_output])
    }

    /// `down(gelu(up x))` of `x` `[rows, d_input]`, where this is faster without all of the hidden layer in memory.
    ///
    /// # Panics
    /// As [`PackedWeights::linear`].
    #[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables))]
    pub fn feed_forward(
        [up, down]: [&Self; 2],
        biases: [Option<Tensor<1>>; 2],
        x: &Tensor<2>,
    ) -> Option<Tensor<2>> {
        #[cfg(target_arch = "x86_64")]
        if x.dims()[0] > amx::ROWS_TO_SHARE_WEIGHTS {
            return match (&up.packed, &down.packed) {
                (Packed::Tiles(up), Packed::Tiles(down)) => Some(in_tiles([up, down], biases, x)),
                (Packed::Int8Tiles(up), Packed::Int8Tiles(down)) => {
                    Some(in_tiles([up, down], biases, x))
                }
                _ => None,
            };
        }
        None
    }

    /// The weights as they are multiplied, `[d_output, d_input]` in f32.
    pub fn unpacked(&self, device: &Device) -> Tensor<2> {
        let weight = match &self.packed {
            #[cfg(target_arch = "x86_64")]
            Packed::Tiles(weights) => weights.unpacked(),
            #[cfg(target_arch = "x86_64")]
            Packed::Int8Tiles(weights) => weights.unpacked(),
            Packed::Bf16(weights) => weights.unpacked(),
            Packed::Int8(weights) => weights.unpacked(),
        };
        Tensor::from_data(
            TensorData::new(weight, [self.d_output, self.d_input]),
            device,
        )
    }

    /// How the weights are rounded.
    pub fn format(&self) -> Format {
        match &self.packed {
            #[cfg(target_arch = "x86_64")]
            Packed::Tiles(_) => Format::Bf16,
            Packed::Bf16(_) => Format::Bf16,
            #[cfg(target_arch = "x86_64")]
            Packed::Int8Tiles(_) => Format::Int8,
            Packed::Int8(_) => Format::Int8,
        }
    }

    /// Activations without gaps, as rows.
    #[cfg(target_arch = "x86_64")]
    fn rows<'a>(&self, x: &'a [f32]) -> Matrix<'a> {
        Matrix::new(x, [x.len() / self.d_input, self.d_input])
    }

    fn multiply(&self, x: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
        if x.is_empty() {
            return Vec::new();
        }
        match &self.packed {
            #[cfg(target_arch = "x86_64")]
            Packed::Tiles(weights) => amx::linear(weights, self.rows(x), bias.unwrap_or_default()),
            #[cfg(target_arch = "x86_64")]
            Packed::Int8Tiles(weights) => {
                amx::linear(weights, self.rows(x), bias.unwrap_or_default())
            }
            Packed::Bf16(weights) => weights.multiply(Processor::current(), x, bias),
            Packed::Int8(weights) => weights.multiply(Processor::current(), x, bias),
        }
    }
}

/// A feed-forward block on the matrix units.
#[cfg(target_arch = "x86_64")]
fn in_tiles<L: amx::Layer>(
    weights: [&L; 2],
    biases: [Option<Tensor<1>>; 2],
    x: &Tensor<2>,
) -> Tensor<2> {
    let shape @ [rows, _] = x.dims();
    let x = elements(x.clone()).expect("packed weights are on the CPU");
    let biases = biases
        .map(|bias| bias.map(|bias| elements(bias).expect("a bias is where its weights are")));
    let biases = (biases.each_ref()).map(|bias| bias.as_ref().map(slice).unwrap_or_default());
    let x = Matrix::new(slice(&x), shape);
    let y = amx::feed_forward(Processor::current(), weights, biases, x);
    let d_output = y.len() / rows;
    tensor(y, [rows, d_output])
}

impl fmt::Debug for PackedWeights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PackedWeights")
            .field("shape", &[self.d_output, self.d_input])
            .field("format", &self.format())
            .finish()
    }
}

/// The memory that holds a tensor's elements, where it is on the CPU without gradients: the same for two tensors as long as
/// neither is changed.
pub fn shared_memory<const D: usize>(x: Tensor<D>) -> Option<Arc<Bytes>> {
    inference(x).map(|x| x.data_arc())
}
