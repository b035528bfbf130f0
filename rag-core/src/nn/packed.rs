//! Weights of a linear layer packed for answering on the CPU.

use std::sync::{Arc, OnceLock};

use burn::{
    module::Param,
    tensor::{Bytes, DType, Device, Tensor},
};
use rag_cpu::{Format, PackedWeights, is_cpu, shared_memory};

use super::{precision::Precision, rows::by_rows};

/// `[d_output, d_input]` in bf16 or int8, as the CPU multiplies them.
#[derive(Debug)]
pub struct Packed {
    weights: PackedWeights,
    /// The elements of the parameter that this is multiplied instead of, once it has some.
    parameter: OnceLock<Arc<Bytes>>,
}

impl Packed {
    /// Packs `weight` `[d_output, d_input]`; `None` where `precision` is not one that packing serves, or the weight
    /// is not on the CPU without gradients.
    pub fn new(weight: &Tensor<2>, precision: Precision) -> Option<Self> {
        let format = match precision {
            Precision::Bf16 => Format::Bf16,
            Precision::Int8 => Format::Int8,
            Precision::F32 | Precision::F16 => return None,
        };
        Some(Self {
            weights: PackedWeights::new(weight, format)?,
            parameter: OnceLock::new(),
        })
    }

    /// The format of the weights.
    pub fn precision(&self) -> Precision {
        match self.weights.format() {
            Format::Bf16 => Precision::Bf16,
            Format::Int8 => Precision::Int8,
        }
    }

    /// Says which parameter this is multiplied instead of.
    pub fn stands_for(&self, weight: &Tensor<2>) {
        if let Some(memory) = shared_memory(weight.clone()) {
            self.parameter.get_or_init(|| memory);
        }
    }

    /// Whether `input` can be multiplied, and `weight` is still the parameter that was packed: not trained since,
    /// not replaced, nor adapted.
    pub fn serves<const D: usize>(&self, input: &Tensor<D>, weight: &Param<Tensor<2>>) -> bool {
        let packed = || match (self.parameter.get(), shared_memory(weight.val())) {
            (Some(packed), Some(found)) => Arc::ptr_eq(packed, &found),
            _ => false,
        };
        let unchanged = weight.adapter().is_none() && (!weight.is_initialized() || packed());
        let plain = input.dtype() == DType::F32 && !input.device().is_autodiff();
        plain && is_cpu(&input.device()) && unchanged
    }

    /// `[.., d_input]` to `[.., d_output]`, `x Wᵀ + b`, both f32 and on the CPU.
    pub fn linear<const D: usize>(&self, x: Tensor<D>, bias: Option<Tensor<1>>) -> Tensor<D> {
        by_rows(x, |x| self.weights.linear(x, bias))
    }

    /// `down(gelu(up x))`, where these weights are multiplied faster without all of the hidden layer in memory.
    pub fn feed_forward<const D: usize>(
        [up, down]: [&Self; 2],
        biases: [Option<&Param<Tensor<1>>>; 2],
        x: &Tensor<D>,
    ) -> Option<Tensor<D>> {
        let biases = biases.map(|bias| bias.map(|bias| bias.val()));
        let weights = [&up.weights, &down.weights];
        let shape = x.dims();
        let rows = shape[..D - 1].iter().product();
        let x = x.clone().reshape([rows, shape[D - 1]]);
        let y = PackedWeights::feed_forward(weights, biases, &x)?;
        let mut shape = shape;
        shape[D - 1] = y.dims()[1];
        Some(y.reshape(shape))
    }

    /// The weights as they are multiplied.
    pub fn unpacked(&self, device: &Device) -> Tensor<2> {
        let weight = self.weights.unpacked(device);
        self.stands_for(&weight);
        weight
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::nn::{Linear, LinearConfig, scattered};

    #[test]
    fn packed_weights_serve_as_long_as_they_are_the_parameter() {
        let device = Device::flex();
        let linear = LinearConfig::new(5, 3).init(&device);
        let packed = linear.clone().pack(Precision::Bf16);
        let x = scattered([2, 5]);
        let answer = |linear: &Linear| linear.forward(x.clone(), Precision::F32).into_data();
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

    #[test]
    fn a_hidden_layer_is_that_of_its_rows() {
        for [rows, d_model, d_hidden] in [[65, 33, 70], [5, 8, 16]] {
            let pack = |shape: [usize; 2]| Packed::new(&scattered(shape), Precision::Bf16).unwrap();
            let (up, down) = (pack([d_hidden, d_model]), pack([d_model, d_hidden]));
            let x: Tensor<3> = scattered([rows, 1, d_model]);
            let Some(found) = Packed::feed_forward([&up, &down], [None, None], &x) else {
                continue;
            };
            let expected = down.linear(crate::nn::gelu(up.linear(x, None)), None);
            assert_eq!(found.into_data(), expected.into_data());
        }
    }
}
