use burn::{
    config::Config,
    module::Module,
    nn::{Dropout, DropoutConfig},
    tensor::{Device, FloatDType, Int, Tensor},
};

use super::{
    linear::{Linear, LinearConfig},
    operations::{dropout, softmax},
    precision::Precision,
};

#[cfg(feature = "flex")]
use super::operations::drops;

/// The number that is added to a masked attention score. Finite, so that a row which masks
/// everything is uniform rather than NaN.
pub const MASKED: f64 = -1e9;

/// Configuration of [`Attention`].
#[derive(Config, Debug)]
pub struct AttentionConfig {
    /// Size of the states.
    pub d_model: usize,
    /// Number of heads.
    pub heads: usize,
    /// Size of a head.
    pub d_head: usize,
    /// Dropout of the attention weights.
    #[config(default = 0.0)]
    pub dropout: f64,
    /// Whether the projections have a bias.
    #[config(default = true)]
    pub bias: bool,
    /// The factor of the scores: `1/√d_head`, or 1 in T5.
    pub scale: f64,
    /// Standard deviation of the initial weights.
    #[config(default = 0.02)]
    pub std: f64,
}

/// Multi-head attention with the keys and values in the caller's hands, so that they can be cached,
/// reordered and shared between rows.
#[derive(Module, Debug)]
pub struct Attention {
    /// Projection of the queries.
    pub query: Linear,
    /// Projection of the keys.
    pub key: Linear,
    /// Projection of the values.
    pub value: Linear,
    /// Projection of the heads' outputs.
    pub output: Linear,
    dropout: Dropout,
    heads: usize,
    d_head: usize,
    scale: f64,
}

/// Keys and values of one attention layer, each `[rows, heads, length, d_head]`.
#[derive(Clone, Debug)]
pub struct KeysValues {
    /// `[rows, heads, length, d_head]`.
    pub keys: Tensor<4>,
    /// `[rows, heads, length, d_head]`.
    pub values: Tensor<4>,
}

impl AttentionConfig {
    /// Freshly initialised projections.
    pub fn init(&self, device: &Device) -> Attention {
        let inner = self.heads * self.d_head;
        let project = |d_input, d_output| {
            LinearConfig::new(d_input, d_output)
                .with_bias(self.bias)
                .with_std(self.std)
                .init(device)
        };
        Attention {
            query: project(self.d_model, inner),
            key: project(self.d_model, inner),
            value: project(self.d_model, inner),
            output: project(inner, self.d_model),
            dropout: DropoutConfig::new(self.dropout).init(),
            heads: self.heads,
            d_head: self.d_head,
            scale: self.scale,
        }
    }
}

impl Attention {
    /// Keys and values of `states` `[rows, length, d_model]`.
    pub fn keys_values(&self, states: Tensor<3>, precision: Precision) -> KeysValues {
        KeysValues {
            keys: self.split_heads(self.key.forward(states.clone(), precision)),
            values: self.split_heads(self.value.forward(states, precision)),
        }
    }

    /// Attends from `states` `[rows, length, d_model]` to `memory`, and returns
    /// `[rows, length, d_model]` in f32.
    ///
    /// `bias` is added to the scores: `[rows | 1, heads | 1, length | 1, memory length]`, with
    /// [`MASKED`] where nothing may be seen.
    pub fn forward(
        &self,
        states: Tensor<3>,
        memory: &KeysValues,
        bias: Option<Tensor<4>>,
        precision: Precision,
    ) -> Tensor<3> {
        let [rows, length, _] = states.dims();
        #[cfg(feature = "flex")]
        let rounded = self.query.packed(&states).is_some();
        let queries = self.query.forward(states, precision);
        #[cfg(feature = "flex")]
        if let Some(heads) = rag_cpu::attention(rag_cpu::Attention {
            queries: &queries,
            keys: &memory.keys,
            values: &memory.values,
            bias: bias.as_ref(),
            scale: self.scale,
            dropout: drops(&self.dropout, &queries.device()),
            rounded,
        }) {
            return self.output.forward(heads, precision).cast(FloatDType::F32);
        }
        let queries = self.split_heads(queries * self.scale);
        let mut scores = queries
            .matmul(memory.keys.clone().swap_dims(2, 3))
            .cast(FloatDType::F32);
        if let Some(bias) = bias {
            scores = scores + bias;
        }
        let weights = dropout(&self.dropout, softmax(scores));
        let heads = weights
            .cast(memory.values.dtype())
            .matmul(memory.values.clone())
            .swap_dims(1, 2)
            .reshape([rows, length, self.heads * self.d_head]);
        self.output.forward(heads, precision).cast(FloatDType::F32)
    }

    /// See [`Linear::pack`].
    #[must_use]
    pub fn pack(mut self, precision: Precision) -> Self {
        self.query = self.query.pack(precision);
        self.key = self.key.pack(precision);
        self.value = self.value.pack(precision);
        self.output = self.output.pack(precision);
        self
    }

    fn split_heads(&self, states: Tensor<3>) -> Tensor<4> {
        let [rows, length, _] = states.dims();
        states
            .reshape([rows, length, self.heads, self.d_head])
            .swap_dims(1, 2)
    }
}

impl KeysValues {
    /// Appends `next` along the length.
    pub fn append(&mut self, next: Self) {
        self.keys = Tensor::cat(vec![self.keys.clone(), next.keys], 2);
        self.values = Tensor::cat(vec![self.values.clone(), next.values], 2);
    }

    /// Row i becomes the former row `rows[i]`.
    pub fn select(&mut self, rows: &Tensor<1, Int>) {
        self.keys = self.keys.clone().select(0, rows.clone());
        self.values = self.values.clone().select(0, rows.clone());
    }
}

/// The bias that hides padding: `[rows, length]` with 1 where there is a token, to
/// `[rows, 1, 1, length]`.
pub fn padding_bias(mask: &Tensor<2, Int>) -> Tensor<4> {
    let [rows, length] = mask.dims();
    ((mask.clone().float() - 1.0) * -MASKED).reshape([rows, 1, 1, length])
}
