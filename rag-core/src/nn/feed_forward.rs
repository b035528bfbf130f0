use burn::{
    config::Config,
    module::Module,
    nn::{
        Dropout, DropoutConfig,
        activation::{Activation, ActivationConfig},
    },
    tensor::{Device, FloatDType, Tensor},
};

use super::{
    linear::{Linear, LinearConfig},
    operations::{dropout, gelu},
    packed::Packed,
    precision::Precision,
};
use crate::{Error, Result};

/// Configuration of a [`FeedForward`] block.
#[derive(Config, Debug)]
pub struct FeedForwardConfig {
    /// Size of the states.
    pub d_model: usize,
    /// Size of the hidden layer.
    pub d_hidden: usize,
    /// The non-linearity.
    pub activation: ActivationConfig,
    /// Whether a second projection gates the first (T5 v1.1).
    #[config(default = false)]
    pub gated: bool,
    /// Whether the projections have a bias.
    #[config(default = true)]
    pub bias: bool,
    /// Dropout of the hidden layer.
    #[config(default = 0.0)]
    pub dropout: f64,
    /// Standard deviation of the initial weights.
    #[config(default = 0.02)]
    pub std: f64,
}

/// `down(activation(up x))`, or `down(activation(up x) · gate x)` when gated.
#[derive(Module, Debug)]
pub struct FeedForward {
    /// Into the hidden layer, through the activation.
    pub up: Linear,
    /// The gate, without activation.
    pub gate: Option<Linear>,
    /// Back to the states.
    pub down: Linear,
    activation: Activation,
    dropout: Dropout,
}

impl FeedForwardConfig {
    /// Freshly initialised projections.
    pub fn init(&self, device: &Device) -> FeedForward {
        let project = |d_input, d_output| {
            LinearConfig::new(d_input, d_output)
                .with_bias(self.bias)
                .with_std(self.std)
                .init(device)
        };
        FeedForward {
            up: project(self.d_model, self.d_hidden),
            gate: self.gated.then(|| project(self.d_model, self.d_hidden)),
            down: project(self.d_hidden, self.d_model),
            activation: self.activation.init(device),
            dropout: DropoutConfig::new(self.dropout).init(),
        }
    }
}

impl FeedForward {
    /// `[rows, length, d_model]` to the same, in f32.
    pub fn forward(&self, states: Tensor<3>, precision: Precision) -> Tensor<3> {
        if let (Activation::Gelu(exact), None) = (&self.activation, &self.gate)
            && !exact.approximate
            && let (Some(up), Some(down)) = (self.up.packed(&states), self.down.packed(&states))
        {
            let biases = [self.up.bias.as_ref(), self.down.bias.as_ref()];
            if let Some(found) = Packed::feed_forward([up, down], biases, &states) {
                return found;
            }
        }
        let raised = self.up.forward(states.clone(), precision);
        let mut hidden = match &self.activation {
            Activation::Gelu(exact) if !exact.approximate => gelu(raised),
            activation => activation.forward(raised),
        };
        if let Some(gate) = &self.gate {
            hidden = hidden * gate.forward(states, precision);
        }
        self.down
            .forward(dropout(&self.dropout, hidden), precision)
            .cast(FloatDType::F32)
    }

    /// See [`Linear::pack`].
    #[must_use]
    pub fn pack(mut self, precision: Precision) -> Self {
        self.up = self.up.pack(precision);
        self.gate = self.gate.map(|gate| gate.pack(precision));
        self.down = self.down.pack(precision);
        self
    }
}

/// The activation that `config.json` names.
///
/// # Errors
/// [`Error::Config`] for a name that none of BERT, BART and T5 is published with.
pub fn activation(name: &str) -> Result<ActivationConfig> {
    match name {
        "gelu" => Ok(ActivationConfig::Gelu),
        "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" => Ok(ActivationConfig::GeluApproximate),
        "relu" => Ok(ActivationConfig::Relu),
        "tanh" => Ok(ActivationConfig::Tanh),
        _ => Err(Error::Config {
            field: "activation".into(),
            found: name.into(),
            expected: "gelu, gelu_new, gelu_fast, gelu_pytorch_tanh, relu or tanh".into(),
        }),
    }
}
