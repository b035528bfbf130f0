mod config;

use burn::{
    module::{Initializer, Module},
    nn::{Dropout, DropoutConfig, Embedding, EmbeddingConfig, RmsNorm, RmsNormConfig},
    tensor::{Device, FloatDType, Int, Tensor, TensorData},
};
use rag_core::{
    Result, TokenBatch,
    checkpoint::{Names, Tensors, Weights},
    nn::{
        Attention, AttentionConfig, FeedForward, FeedForwardConfig, Precision, activation, dropout,
        keep, padding_bias,
    },
};

pub use config::T5Config;

use super::{
    family::Model,
    head::{Head, HeadConfig},
    memory::{Cache, Memory},
    places::{Places, Positions},
};

/// T5 (Raffel et al. 2020, arXiv 1910.10683).
#[derive(Module, Debug)]
pub struct T5 {
    shared: Embedding,
    encoder: Stack,
    decoder: Stack,
    head: Head,
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
    /// Freshly initialised weights.
    ///
    /// # Errors
    /// [`rag_core::Error::Config`] for an unknown activation.
    pub fn init(&self, device: &Device) -> Result<T5> {
        Ok(T5 {
            shared: self.embedding(self.vocab_size, self.d_model, 1.0, device),
            encoder: self.stack(Direction::Both, device)?,
            decoder: self.stack(Direction::Backward, device)?,
            head: HeadConfig {
                d_model: self.d_model,
                vocabulary: self.vocab_size,
                tied: self.tie_word_embeddings,
                std: self.initializer_factor,
                tied_scale: (self.d_model as f64).powf(-0.5),
                soft_cap: None,
                constant: false,
            }
            .init(device),
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
        Ok(
            FeedForwardConfig::new(self.d_model, self.d_ff, activation(self.activation())?)
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
}

impl Model for T5 {
    fn read(&self, contexts: &TokenBatch, precision: Precision) -> Memory {
        let positions = (0..contexts.dims()[1]).into();
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

    fn states(
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
                let seen = match &mut cache {
                    Some(cache) => cache.extend(i, next),
                    None => &next,
                };
                layer
                    .self_attention
                    .forward(states, seen, Some(bias.clone()), precision)
            });
            if let (Some(attention), Some(norm)) =
                (&layer.cross_attention, &layer.cross_attention_norm)
            {
                states = layer.sublayer(states, norm, |states| {
                    memory.attend(attention, i, states, precision)
                });
            }
            states = layer.transform(states, precision);
        }
        self.decoder.finish(states)
    }

    fn head(&self) -> (&Head, &Embedding) {
        (&self.head, &self.shared)
    }

    fn set_words(&mut self, words: usize) {
        self.head.set_words(words);
    }

    fn store(&self, tensors: &mut Tensors, prefix: &str) {
        let [encoder, decoder] = [Direction::Both, Direction::Backward].map(|d| self.names(d));
        tensors.add(&self.shared, &format!("{prefix}shared."), &Names::default());
        tensors.add(&self.encoder, &format!("{prefix}encoder."), &encoder);
        tensors.add(&self.decoder, &format!("{prefix}decoder."), &decoder);
        tensors.add(&self.head, prefix, &Names::default());
    }

    fn fill(mut self, weights: &mut Weights, prefix: &str) -> Result<Self> {
        let [encoder, decoder] = [Direction::Both, Direction::Backward].map(|d| self.names(d));
        self.shared = weights.fill(self.shared, &format!("{prefix}shared."), &Names::default())?;
        self.encoder = weights.fill(self.encoder, &format!("{prefix}encoder."), &encoder)?;
        self.decoder = weights.fill(self.decoder, &format!("{prefix}decoder."), &decoder)?;
        self.head = weights.fill(self.head, prefix, &Names::default())?;
        Ok(self)
    }

    fn pack(mut self, precision: Precision) -> Self {
        // The largest matrix first: it is f32 while there is least beside it.
        (self.shared, self.head) = self.head.pack(self.shared, precision);
        self.encoder = self.encoder.pack(precision);
        self.decoder = self.decoder.pack(precision);
        self
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

    /// The trained bias of relative positions, `[rows | 1, heads, queries, keys]`.
    fn relative_bias(&self, queries: &Positions, keys: &Positions, device: &Device) -> Tensor<4> {
        let ([rows, length], [_, seen]) = (queries.dims(), keys.dims());
        let buckets: Vec<i64> = (0..rows)
            .flat_map(|row| queries.row(row).iter().map(move |query| (row, query)))
            .flat_map(|(row, query)| keys.row(row).iter().map(move |key| (query, key)))
            .map(|(&query, &key)| self.buckets.of(key as i64 - query as i64))
            .collect();
        let buckets = TensorData::new(buckets, [rows * length, seen]);
        let bias = self
            .position_bias
            .forward(Tensor::from_data(buckets, device));
        let [.., heads] = bias.dims();
        bias.cast(FloatDType::F32)
            .reshape([rows, length, seen, heads])
            .permute([0, 3, 1, 2])
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
