use burn::{
    module::{Initializer, Module},
    nn::{Dropout, DropoutConfig, Embedding, EmbeddingConfig, RmsNorm, RmsNormConfig},
    tensor::{Device, FloatDType, Int, Tensor, TensorData},
};
use rag_core::{
    Result, TokenBatch,
    checkpoint::{Names, Tensors, Weights},
    nn::{
        Attention, AttentionConfig, FeedForward, FeedForwardConfig, Linear, LinearConfig,
        Precision, activation, dropout, keep, padding_bias,
    },
};
use serde::{Deserialize, Serialize};

use super::{Cache, Memory, Places, TiedHead, UnpackedHead, cross_attend};

/// `config.json` of T5.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct T5Config {
    /// Rows of the embeddings.
    pub vocab_size: usize,
    /// Size of the states.
    pub d_model: usize,
    /// Size of a head.
    pub d_kv: usize,
    /// Size of the hidden layers.
    pub d_ff: usize,
    /// Layers of the encoder.
    pub num_layers: usize,
    /// Layers of the decoder; as many as the encoder's where it is not given.
    pub num_decoder_layers: Option<usize>,
    /// Heads.
    pub num_heads: usize,
    /// Buckets of relative positions.
    pub relative_attention_num_buckets: usize,
    /// The distance from which positions share the last bucket.
    pub relative_attention_max_distance: usize,
    /// Dropout everywhere.
    pub dropout_rate: f64,
    /// Epsilon of the norms.
    pub layer_norm_epsilon: f64,
    /// Scale of the initial weights.
    pub initializer_factor: f64,
    /// `relu` (v1.0), `gated-gelu` (v1.1), or another activation with or without `gated-`.
    pub feed_forward_proj: String,
    /// Whether the head shares the embeddings' weights (v1.0).
    pub tie_word_embeddings: bool,
    /// Padding.
    pub pad_token_id: u32,
    /// End of a text.
    pub eos_token_id: u32,
    /// What the decoder starts with.
    pub decoder_start_token_id: u32,
}

impl Default for T5Config {
    /// t5-small.
    fn default() -> Self {
        Self {
            vocab_size: 32_128,
            d_model: 512,
            d_kv: 64,
            d_ff: 2048,
            num_layers: 6,
            num_decoder_layers: None,
            num_heads: 8,
            relative_attention_num_buckets: 32,
            relative_attention_max_distance: 128,
            dropout_rate: 0.1,
            layer_norm_epsilon: 1e-6,
            initializer_factor: 1.0,
            feed_forward_proj: "relu".into(),
            tie_word_embeddings: true,
            pad_token_id: 0,
            eos_token_id: 1,
            decoder_start_token_id: 0,
        }
    }
}

/// T5 (Raffel et al. 2020, arXiv 1910.10683).
#[derive(Module, Debug)]
pub struct T5 {
    shared: Embedding,
    encoder: Stack,
    decoder: Stack,
    lm_head: Option<Linear>,
    #[module(skip)]
    tied_head: TiedHead,
    /// What states are multiplied with before a tied head.
    head_scale: f64,
}

#[derive(Module, Debug)]
struct Stack {
    position_bias: Embedding,
    layers: Vec<Layer>,
    final_layer_norm: RmsNorm,
    dropout: Dropout,
    #[module(skip)]
    buckets: Buckets,
}

#[derive(Module, Debug)]
struct Layer {
    self_attention: Attention,
    self_attention_norm: RmsNorm,
    cross_attention: Option<Attention>,
    cross_attention_norm: Option<RmsNorm>,
    feed_forward: FeedForward,
    feed_forward_norm: RmsNorm,
    dropout: Dropout,
}

/// How relative positions fall into buckets.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Buckets {
    count: usize,
    max_distance: usize,
    direction: Direction,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Direction {
    Both,
    Backward,
}

impl T5Config {
    /// Layers of the decoder.
    pub fn decoder_layers(&self) -> usize {
        self.num_decoder_layers.unwrap_or(self.num_layers)
    }

    /// Whether the feed-forward blocks are gated.
    pub fn is_gated(&self) -> bool {
        self.feed_forward_proj.starts_with("gated-")
    }

    /// Freshly initialised weights.
    ///
    /// # Errors
    /// [`rag_core::Error::Config`] for an unknown activation.
    pub fn init(&self, device: &Device) -> Result<T5> {
        let head = || {
            LinearConfig::new(self.d_model, self.vocab_size)
                .with_bias(false)
                .with_std(self.initializer_factor)
                .init(device)
        };
        Ok(T5 {
            shared: self.embedding(self.vocab_size, self.d_model, 1.0, device),
            encoder: self.stack(Direction::Both, device)?,
            decoder: self.stack(Direction::Backward, device)?,
            lm_head: (!self.tie_word_embeddings).then(head),
            tied_head: TiedHead::default(),
            head_scale: (self.d_model as f64).powf(-0.5),
        })
    }

    fn embedding(&self, rows: usize, width: usize, std: f64, device: &Device) -> Embedding {
        EmbeddingConfig::new(rows, width)
            .with_initializer(Initializer::Normal {
                mean: 0.0,
                std: std * self.initializer_factor,
            })
            .init(device)
    }

    fn stack(&self, direction: Direction, device: &Device) -> Result<Stack> {
        let layers = match direction {
            Direction::Both => self.num_layers,
            Direction::Backward => self.decoder_layers(),
        };
        let buckets = self.relative_attention_num_buckets;
        let std = (self.d_model as f64).powf(-0.5);
        Ok(Stack {
            position_bias: self.embedding(buckets, self.num_heads, std, device),
            layers: (0..layers)
                .map(|_| self.layer(direction, device))
                .collect::<Result<_>>()?,
            final_layer_norm: self.norm(device),
            dropout: DropoutConfig::new(self.dropout_rate).init(),
            buckets: Buckets {
                count: buckets,
                max_distance: self.relative_attention_max_distance,
                direction,
            },
        })
    }

    fn layer(&self, direction: Direction, device: &Device) -> Result<Layer> {
        let std = self.initializer_factor * (self.d_model as f64).powf(-0.5);
        let attention = AttentionConfig::new(self.d_model, self.num_heads, self.d_kv, 1.0)
            .with_bias(false)
            .with_dropout(self.dropout_rate)
            .with_std(std);
        let crosses = direction == Direction::Backward;
        Ok(Layer {
            self_attention: self.scale_queries(attention.init(device)),
            self_attention_norm: self.norm(device),
            cross_attention: crosses.then(|| self.scale_queries(attention.init(device))),
            cross_attention_norm: crosses.then(|| self.norm(device)),
            feed_forward: self.feed_forward(std, device)?,
            feed_forward_norm: self.norm(device),
            dropout: DropoutConfig::new(self.dropout_rate).init(),
        })
    }

    /// T5 does not scale scores by 1/√d_kv; its initial query weights do.
    fn scale_queries(&self, mut attention: Attention) -> Attention {
        let scale = (self.d_kv as f64).powf(-0.5);
        attention.query.weight = attention.query.weight.init_mapper(move |w| w * scale);
        attention
    }

    fn feed_forward(&self, std: f64, device: &Device) -> Result<FeedForward> {
        let name = self.feed_forward_proj.trim_start_matches("gated-");
        // The published v1.1 checkpoints say gated-gelu and mean the approximation.
        let name = if self.feed_forward_proj == "gated-gelu" {
            "gelu_new"
        } else {
            name
        };
        Ok(
            FeedForwardConfig::new(self.d_model, self.d_ff, activation(name)?)
                .with_gated(self.is_gated())
                .with_bias(false)
                .with_dropout(self.dropout_rate)
                .with_std(std)
                .init(device),
        )
    }

    fn norm(&self, device: &Device) -> RmsNorm {
        RmsNormConfig::new(self.d_model)
            .with_epsilon(self.layer_norm_epsilon)
            .init(device)
    }
}

impl T5 {
    pub(super) fn fill(mut self, weights: &mut Weights, prefix: &str) -> Result<Self> {
        let [encoder, decoder] = [Direction::Both, Direction::Backward].map(|d| self.names(d));
        let prefix = |part: &str| format!("{prefix}{part}.");
        self.shared = weights.fill(self.shared, &prefix("shared"), &Names::default())?;
        self.encoder = weights.fill(self.encoder, &prefix("encoder"), &encoder)?;
        self.decoder = weights.fill(self.decoder, &prefix("decoder"), &decoder)?;
        self.lm_head = match self.lm_head {
            Some(head) => Some(weights.fill(head, &prefix("lm_head"), &Names::default())?),
            None => None,
        };
        Ok(self)
    }

    pub(super) fn store(&self, tensors: &mut Tensors, prefix: &str) {
        let [encoder, decoder] = [Direction::Both, Direction::Backward].map(|d| self.names(d));
        let prefix = |part: &str| format!("{prefix}{part}.");
        tensors.add(&self.shared, &prefix("shared"), &Names::default());
        tensors.add(&self.encoder, &prefix("encoder"), &encoder);
        tensors.add(&self.decoder, &prefix("decoder"), &decoder);
        if let Some(head) = &self.lm_head {
            tensors.add(head, &prefix("lm_head"), &Names::default());
        }
    }

    fn names(&self, direction: Direction) -> Names {
        let gated = (self.encoder.layers.iter()).any(|layer| layer.feed_forward.gate.is_some());
        let common = Names::new(&[
            (
                ".position_bias.",
                ".block.0.layer.0.SelfAttention.relative_attention_bias.",
            ),
            (".layers.", ".block."),
            (".self_attention.", ".layer.0.SelfAttention."),
            (".self_attention_norm.", ".layer.0.layer_norm."),
            (".cross_attention.", ".layer.1.EncDecAttention."),
            (".cross_attention_norm.", ".layer.1.layer_norm."),
            (".query.", ".q."),
            (".key.", ".k."),
            (".value.", ".v."),
            (".output.", ".o."),
            (".down.", ".wo."),
            (".gate.", ".wi_1."),
            (".gamma", ".weight"),
        ]);
        let common = match direction {
            Direction::Both => common.and(&[
                (".feed_forward.", ".layer.1.DenseReluDense."),
                (".feed_forward_norm.", ".layer.1.layer_norm."),
            ]),
            Direction::Backward => common.and(&[
                (".feed_forward.", ".layer.2.DenseReluDense."),
                (".feed_forward_norm.", ".layer.2.layer_norm."),
            ]),
        };
        common.and(&[(".up.", if gated { ".wi_0." } else { ".wi." })])
    }

    /// See [`super::Generator::with_precision`].
    pub(super) fn pack(mut self, precision: Precision) -> Self {
        self.encoder = self.encoder.pack(precision);
        self.decoder = self.decoder.pack(precision);
        match self.lm_head {
            Some(head) => self.lm_head = Some(head.pack(precision)),
            None => (self.shared, self.tied_head) = TiedHead::pack(self.shared, precision),
        }
        self
    }

    /// See [`super::Generator::encode`].
    pub(super) fn encode(&self, contexts: &TokenBatch, precision: Precision) -> Memory {
        let positions: Vec<usize> = (0..contexts.dims()[1]).collect();
        let device = contexts.ids.device();
        let bias = self.encoder.relative_bias(&positions, &positions, &device)
            + padding_bias(&contexts.mask);
        let embedded = self.encoder.embed(&self.shared, contexts.ids.clone());
        let states = self.encoder.layers.iter().fold(embedded, |states, layer| {
            let attended = layer.sublayer(states, &layer.self_attention_norm, |states| {
                let memory = layer.self_attention.keys_values(states.clone(), precision);
                layer
                    .self_attention
                    .forward(states, &memory, Some(bias.clone()), precision)
            });
            layer.transform(attended, precision)
        });
        let states = self.encoder.finish(states);
        let layers = self
            .decoder
            .layers
            .iter()
            .filter_map(|layer| layer.cross_attention.as_ref())
            .map(|attention| attention.keys_values(states.clone(), precision))
            .collect();
        Memory::new(layers, &contexts.mask)
    }

    /// See [`super::Generator::states`].
    pub(super) fn decode(
        &self,
        ids: Tensor<2, Int>,
        places: &Places,
        memory: &Memory,
        mut cache: Option<&mut Cache>,
        precision: Precision,
    ) -> Tensor<3> {
        let mut bias = (self.decoder).relative_bias(&places.read, &places.seen, &ids.device());
        if let Some(hidden) = &places.bias {
            bias = bias + hidden.clone();
        }
        let mut states = self.decoder.embed(&self.shared, ids);
        for (i, layer) in self.decoder.layers.iter().enumerate() {
            states = layer.sublayer(states, &layer.self_attention_norm, |states| {
                let next = layer.self_attention.keys_values(states.clone(), precision);
                let memory = match &mut cache {
                    Some(cache) => cache.extend(i, next),
                    None => &next,
                };
                layer
                    .self_attention
                    .forward(states, memory, Some(bias.clone()), precision)
            });
            if let (Some(attention), Some(norm)) =
                (&layer.cross_attention, &layer.cross_attention_norm)
            {
                states = layer.sublayer(states, norm, |states| {
                    cross_attend(attention, states, memory, i, precision)
                });
            }
            states = layer.transform(states, precision);
        }
        self.decoder.finish(states)
    }

    /// See [`super::Generator::head`].
    pub(super) fn head(&self, states: Tensor<3>, precision: Precision) -> Tensor<3> {
        let logits = match &self.lm_head {
            Some(head) => head.forward(states, precision),
            None => {
                let states = states * self.head_scale;
                self.tied_head.forward(&self.shared, states, precision)
            }
        };
        logits.cast(FloatDType::F32)
    }

    /// What [`Self::head`] multiplies, where it is not packed.
    pub(super) fn unpacked_head(&self, states: &Tensor<3>) -> Option<UnpackedHead> {
        let states = states.clone();
        let (states, weight) = match &self.lm_head {
            Some(head) => (states, head.unpacked_weight()),
            None => (
                states * self.head_scale,
                self.tied_head.unpacked_weight(&self.shared),
            ),
        };
        Some(UnpackedHead {
            states,
            weight: weight?,
            bias: None,
        })
    }

    pub(super) fn vocabulary(&self) -> usize {
        self.shared.weight.lazy_shape().dims::<2>()[0]
    }

    pub(super) fn device(&self) -> Device {
        self.shared.weight.lazy_device()
    }
}

impl Stack {
    fn pack(mut self, precision: Precision) -> Self {
        let layers = self.layers.into_iter();
        self.layers = layers.map(|layer| layer.pack(precision)).collect();
        self
    }

    fn embed(&self, shared: &Embedding, ids: Tensor<2, Int>) -> Tensor<3> {
        let embedded = shared.forward(ids).cast(FloatDType::F32);
        dropout(&self.dropout, embedded)
    }

    fn finish(&self, states: Tensor<3>) -> Tensor<3> {
        dropout(&self.dropout, self.final_layer_norm.forward(states))
    }

    /// `[1, heads, queries, keys]` of their positions.
    fn relative_bias(&self, queries: &[usize], keys: &[usize], device: &Device) -> Tensor<4> {
        let buckets: Vec<i64> = (queries.iter())
            .flat_map(|query| keys.iter().map(move |key| (query, key)))
            .map(|(&query, &key)| self.buckets.of(key as i64 - query as i64))
            .collect();
        let shape = [queries.len(), keys.len()];
        let buckets = Tensor::from_data(TensorData::new(buckets, shape), device);
        self.position_bias
            .forward(buckets)
            .cast(FloatDType::F32)
            .permute([2, 0, 1])
            .unsqueeze_dim(0)
    }
}

impl Layer {
    fn pack(mut self, precision: Precision) -> Self {
        self.self_attention = self.self_attention.pack(precision);
        self.cross_attention = (self.cross_attention).map(|attention| attention.pack(precision));
        self.feed_forward = self.feed_forward.pack(precision);
        self
    }

    fn sublayer(
        &self,
        states: Tensor<3>,
        norm: &RmsNorm,
        block: impl FnOnce(Tensor<3>) -> Tensor<3>,
    ) -> Tensor<3> {
        let added = block(norm.forward(states.clone()));
        keep(states + dropout(&self.dropout, added))
    }

    fn transform(&self, states: Tensor<3>, precision: Precision) -> Tensor<3> {
        self.sublayer(states, &self.feed_forward_norm, |states| {
            self.feed_forward.forward(states, precision)
        })
    }
}

impl Buckets {
    /// The bucket of a key `offset` tokens after the query: near ones have their own, far ones share
    /// logarithmically wider ones (section 2.1 of the paper).
    fn of(self, offset: i64) -> i64 {
        let (count, first, distance) = match self.direction {
            Direction::Both => {
                let half = (self.count / 2) as i64;
                (half, if offset > 0 { half } else { 0 }, offset.abs())
            }
            Direction::Backward => (self.count as i64, 0, (-offset).max(0)),
        };
        let exact = count / 2;
        if distance < exact {
            return first + distance;
        }
        let ratio =
            (distance as f32 / exact as f32).ln() / (self.max_distance as f32 / exact as f32).ln();
        let bucket = exact + (ratio * (count - exact) as f32) as i64;
        first + bucket.min(count - 1)
    }
}
