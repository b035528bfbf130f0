//! Weights of a linear layer packed once, in bf16 or int8, for answering.
//!
//! What is multiplied is rounded (bf16), or divided by the largest of its row and rounded to an integer (int8,
//! LLM.int8()'s vector-wise quantisation without its outlier columns, Dettmers et al. 2022, arXiv 2208.07339); sums are f32,
//! or exact in i32.

mod format;
mod numkong;
mod rounding;

use std::{fmt, sync::Arc};

use burn::tensor::{Bytes, DType, Device, Tensor, TensorData};

pub use self::format::Format;
use self::numkong::Panels;
use crate::{
    flex::{elements, inference, slice, tensor},
    processor::Processor,
};

#[cfg(target_arch = "x86_64")]
use crate::{amx, matrix::Matrix};

/// How packed weights lie in memory, and what multiplies them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// As matrix units read them.
    #[cfg(target_arch = "x86_64")]
    Tiles,
    /// As vectors read them.
    Panels,
}

/// The layout of weights in a format.
fn choose(processor: Processor, format: Format) -> Layout {
    match (processor, format) {
        #[cfg(target_arch = "x86_64")]
        (Processor::Amx, Format::Bf16) => Layout::Tiles,
        _ => Layout::Panels,
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
    Tiles(amx::Weights),
    Panels(Panels),
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
                Packed::Tiles(amx::Weights::new(weight))
            }
            Layout::Panels => Packed::Panels(Panels::new(processor, weight, d_input, format)),
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
        if let (Packed::Tiles(up), Packed::Tiles(down)) = (&up.packed, &down.packed) {
            let [rows, d_input] = x.dims();
            if rows <= amx::ROWS_TO_SHARE_WEIGHTS {
                return None;
            }
            let x = elements(x.clone()).expect("packed weights are on the CPU");
            let biases = biases.map(|bias| {
                bias.map(|bias| elements(bias).expect("a bias is where its weights are"))
            });
            let biases = biases
                .each_ref()
                .map(|bias| bias.as_ref().map(slice).unwrap_or_default());
            let x = Matrix::new(slice(&x), [rows, d_input]);
            let y = amx::feed_forward(Processor::current(), [up, down], biases, x);
            let d_output = y.len() / rows;
            return Some(tensor(y, [rows, d_output]));
        }
        None
    }

    /// The weights as they are multiplied, `[d_output, d_input]` in f32.
    pub fn unpacked(&self, device: &Device) -> Tensor<2> {
        // Of unit vectors the product is the transposed matrix, exactly: all other terms are 0.
        let mut units = vec![0.0; self.d_input * self.d_input];
        units
            .iter_mut()
            .step_by(self.d_input + 1)
            .for_each(|one| *one = 1.0);
        let columns = self.multiply(&units, None);
        let mut weight = vec![0.0; self.d_output * self.d_input];
        for (i, column) in columns.chunks(self.d_output).enumerate() {
            for (row, &number) in weight.chunks_mut(self.d_input).zip(column) {
                row[i] = number;
            }
        }
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
            Packed::Panels(panels) => panels.format(),
        }
    }

    fn multiply(&self, x: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
        if x.is_empty() {
            return Vec::new();
        }
        match &self.packed {
            #[cfg(target_arch = "x86_64")]
            Packed::Tiles(weights) => {
                let rows = x.len() / self.d_input;
                let x = Matrix::new(x, [rows, self.d_input]);
                weights.multiply(x, bias.unwrap_or_default())
            }
            Packed::Panels(panels) => panels.multiply(Processor::current(), x, self.d_input, bias),
        }
    }
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
