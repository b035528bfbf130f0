use burn::{
    config::Config,
    module::Module,
    nn::{Dropout, DropoutConfig},
    tensor::{Device, FloatDType, Tensor},
};

use super::{
    activation::Activation,
    linear::{Linear, LinearConfig},
    operations::dropout,
    packed::Packed,
    precision::Precision,
};

/// Configuration of a [`FeedForward`] block.
#[derive(Config, Debug)]
pub struct FeedForwardConfig {
    /// Size of the states.
    pub d_model: usize,
    /// Size of the hidden layer.
    pub d_hidden: usize,
    /// The non-linearity.
    pub activation: Activation,
    /// Whether a second projection gates the first.
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

/// `down(activation(up x))`, or `down(activation(up x) · gate x)` when gated: the gated GELU of T5 1.1 and Gemma, Llama's
/// SwiGLU (Shazeer 2020, arXiv 2002.05202).
#[derive(Module, Debug)]
pub struct FeedForward {
    /// Into the hidden layer, through the activation.
    pub up: Linear,
    /// The gate, without activation.
    pub gate: Option<Linear>,
    /// Back to the states.
    pub down: Linear,
    #[module(skip)]
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
            activation: self.activation,
            dropout: DropoutConfig::new(self.dropout).init(),
        }
    }
}

impl FeedForward {
    /// `[rows, length, d_model]` to the same, in f32.
    pub fn forward(&self, states: Tensor<3>, precision: Precision) -> Tensor<3> {
        if let (Activation::Gelu, None) = (self.activation, &self.gate)
            && let (Some(up), Some(down)) = (self.up.packed(&states), self.down.packed(&states))
        {
            let biases = [self.up.bias.as_ref(), self.down.bias.as_ref()];
            if let Some(found) = Packed::feed_forward([up, down], biases, &states) {
                return found;
            }
        }
        let raised = self.up.forward(states.clone(), precision);
        let mut hidden = self.activation.forward(raised);
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
