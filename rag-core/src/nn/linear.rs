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
        let bias = self.bias.as_ref().map(|bias| precision.cast(bias.val()));
        flat_linear(input, self.weight.val(), bias, precision)
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
    let mut shape = input.dims();
    let [d_output, d_input] = weight.dims();
    let rows = shape[..D - 1].iter().product();
    let flat: Tensor<2> = precision.cast(input).reshape([rows, d_input]);
    let output = linear(flat, precision.cast(weight).transpose(), bias);
    shape[D - 1] = d_output;
    output.reshape(shape)
}
