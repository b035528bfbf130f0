use burn::{
    config::Config,
    module::{Initializer, Module, Param},
    tensor::{Device, Tensor, module::linear},
};

use super::Precision;

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
        }
    }
}

impl Linear {
    /// `[.., d_input]` to `[.., d_output]`, in `precision`.
    pub fn forward<const D: usize>(&self, input: Tensor<D>, precision: Precision) -> Tensor<D> {
        linear(
            precision.cast(input),
            precision.cast(self.weight.val()).transpose(),
            self.bias.as_ref().map(|bias| precision.cast(bias.val())),
        )
    }
}
