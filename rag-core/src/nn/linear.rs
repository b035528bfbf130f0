use std::sync::Arc;

use burn::{
    config::Config,
    module::{Initializer, Module, Param},
    tensor::{Device, Tensor},
};

use super::{operations, packed::Packed, precision::Precision, rows::by_rows};

/// Configuration of a [`Linear`] layer.
#[derive(Config, Debug)]
pub struct LinearConfig {
    /// Size of the input features.
    pub d_input: usize,
    /// Size of the output features.
    pub d_output: usize,
    /// Whether a bias is added.
    #[config(default = true)]
    pub bias: bool,
    /// Standard deviation of the initial weights.
    #[config(default = 0.02)]
    pub std: f64,
}

/// `y = x Wᵀ + b`, the weight stored as checkpoints store it.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[d_output, d_input]`.
    pub weight: Param<Tensor<2>>,
    /// `[d_output]`.
    pub bias: Option<Param<Tensor<1>>>,
    /// The packed weight, which is multiplied where gradients are not asked for.
    #[module(skip)]
    packed: Option<Arc<Packed>>,
}

impl LinearConfig {
    /// Normally distributed weights, zero bias.
    pub fn init(&self, device: &Device) -> Linear {
        let weights = Initializer::Normal {
            mean: 0.0,
            std: self.std,
        };
        Linear {
            weight: weights.init([self.d_output, self.d_input], device),
            bias: self
                .bias
                .then(|| Initializer::Zeros.init([self.d_output], device)),
            packed: None,
        }
    }
}

impl Linear {
    /// `[.., d_input]` to `[.., d_output]`, in `precision`.
    pub fn forward<const D: usize>(&self, input: Tensor<D>, precision: Precision) -> Tensor<D> {
        if let Some(packed) = self.packed(&input) {
            let bias = self.bias.as_ref().map(|bias| bias.val());
            return packed.linear(input, bias);
        }
        let bias = self.bias.as_ref().map(|bias| precision.cast(bias.val()));
        flat_linear(input, self.weight.val(), bias, precision)
    }

    /// The packed weights, where they are multiplied with this input.
    pub(super) fn packed<const D: usize>(&self, input: &Tensor<D>) -> Option<&Packed> {
        let packed = self.packed.as_deref();
        packed.filter(|packed| packed.serves(input, &self.weight))
    }

    /// The weight, where nothing is multiplied instead of it.
    pub fn unpacked_weight(&self) -> Option<Tensor<2>> {
        self.packed.is_none().then(|| self.weight.val())
    }

    /// The format of the weight: packed, or as it is stored.
    pub fn precision(&self) -> Precision {
        match &self.packed {
            Some(packed) => packed.precision(),
            None => Precision::of(&self.weight.val()),
        }
    }

    /// Packs the weight for answering in bf16 or int8, where it is on the CPU. It is unpacked, as it was
    /// rounded, for whoever asks for it, to save it, say, and then stays in memory too. A weight that is
    /// changed is multiplied itself.
    #[must_use]
    pub fn pack(mut self, precision: Precision) -> Self {
        let packed = Packed::new(&self.weight.val(), precision);
        if let Some(packed) = packed.map(Arc::new) {
            let (device, shape) = (self.weight.lazy_device(), self.weight.lazy_shape());
            self.packed = Some(packed.clone());
            let unpacked = move |device: &Device, _| packed.unpacked(device);
            self.weight = Param::uninitialized(self.weight.id, unpacked, device, true, shape);
        }
        self
    }
}

/// `x Wᵀ + b` of all rows as one matrix product, with `weight` `[d_output, d_input]`.
///
/// Burn multiplies batch by batch where it thinks that this tiles better. Autodiff then keeps a copy
/// of the transposed weight, and makes its gradient once for each row of the batch to sum them up.
pub fn flat_linear<const D: usize>(
    input: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    precision: Precision,
) -> Tensor<D> {
    by_rows(input, |rows| {
        operations::linear(precision.cast(rows), precision.cast(weight), bias)
    })
}
