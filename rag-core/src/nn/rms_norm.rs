use burn::{
    config::Config,
    module::{Initializer, Module, Param},
    tensor::{Device, Tensor},
};

/// Configuration of an [`RmsNorm`].
#[derive(Config, Debug)]
pub struct RmsNormConfig {
    /// Size of the states.
    pub d_model: usize,
    /// Added to the mean of squares.
    #[config(default = 1e-6)]
    pub epsilon: f64,
    /// Added to the weights: 1 in Gemma, else 0.
    #[config(default = 0.0)]
    pub offset: f64,
}

/// `x / √(mean x² + ε) · (γ + offset)` over the last dimension (Zhang and Sennrich 2019, arXiv 1910.07467). Burn's own has
/// no offset.
#[derive(Module, Debug)]
pub struct RmsNorm {
    /// `[d_model]`.
    pub gamma: Param<Tensor<1>>,
    epsilon: f64,
    offset: f64,
}

impl RmsNormConfig {
    /// Weights that leave the normalised states as they are.
    pub fn init(&self, device: &Device) -> RmsNorm {
        let weights = Initializer::Constant {
            value: 1.0 - self.offset,
        };
        RmsNorm {
            gamma: weights.init([self.d_model], device),
            epsilon: self.epsilon,
            offset: self.offset,
        }
    }
}

impl RmsNorm {
    /// `[.., d_model]` in f32 to the same.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let gamma = match self.offset {
            0.0 => self.gamma.val(),
            offset => self.gamma.val() + offset,
        };
        let root = (x.clone().square().mean_dim(D - 1) + self.epsilon).sqrt();
        x / root * gamma.unsqueeze()
    }
}
