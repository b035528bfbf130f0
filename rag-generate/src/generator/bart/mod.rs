mod config;

use burn::{
    module::{Initializer, Module},
    nn::{Dropout, DropoutConfig, Embedding, EmbeddingConfig},
    tensor::{Device, FloatDType, Int, Tensor},
};
use rag_core::{
    Result, TokenBatch,
    checkpoint::{Names, Tensors, Weights},
    nn::{
        Attention, AttentionConfig, FeedForward, FeedForwardConfig, LayerNorm, LayerNormConfig,
        Precision, activation, dropout, keep, padding_bias,
    },
};

pub use config::BartConfig;

use super::{
    family::Model,
    head::{Head, HeadConfig},
    memory::{Cache, Memory},
    places::{Places, Positions},
};

/// BART (Lewis et al. 2019, arXiv 1910.13461).
#[derive(Module, Debug)]
pub struct Bart {
    shared: Embedding,
    encoder: Stack,
    decoder: Stack,
    head: Head,
}

#[derive(Module, Debug)]
struct Stack {
    embed_positions: Embedding,
    layernorm_embedding: LayerNorm,
    layers: Vec<Layer>,
    layer_norm: Option<LayerNorm>,
    dropout: Dropout,
    embedding_scale: f64,
}

#[derive(Module, Debug)]
struct Layer {
    self_attn: Attention,
    self_attn_layer_norm: LayerNorm,
    encoder_attn: Option<Attention>,
    encoder_attn_layer_norm: Option<LayerNorm>,
    feed_forward: FeedForward,
    final_layer_norm: LayerNorm,
    dropout: Dropout,
    normalize_before: bool,
}

/// Learned positions start at this row: fairseq kept the first rows for padding.
const POSITION_OFFSET: usize = 2;

enum Half {
    Encoder,
    Decoder,
}

impl BartConfig {
    fn names() -> Names {
        Names::new(&[
            (".shared.", ".model.shared."),
            (".encoder.", ".model.encoder."),
            (".decoder.", ".model.decoder."),
            (".head.", "."),
            (".query.", ".q_proj."),
            (".key.", ".k_proj."),
            (".value.", ".v_proj."),
            (".output.", ".out_proj."),
            (".feed_forward.up.", ".fc1."),
            (".feed_forward.down.", ".fc2."),
            (".gamma", ".weight"),
            (".beta", ".bias"),
        ])
    }

    /// Freshly initialised weights.
    ///
    /// # Errors
    /// [`rag_core::Error::Config`] for an unknown activation, or heads that do not divide the states.
    pub fn init(&self, device: &Device) -> Result<Bart> {
        Ok(Bart {
            shared: self.embedding(self.vocab_size, device),
            encoder: self.stack(&Half::Encoder, device)?,
            decoder: self.stack(&Half::Decoder, device)?,
            head: HeadConfig {
                d_model: self.d_model,
                vocabulary: self.vocab_size,
                tied: self.tie_word_embeddings,
                std: self.init_std,
                tied_scale: 1.0,
                soft_cap: None,
                constant: true,
            }
            .init(device),
        })
    }

    fn embedding(&self, rows: usize, device: &Device) -> Embedding {
        EmbeddingConfig::new(rows, self.d_model)
            .with_initializer(Initializer::Normal {
                mean: 0.0,
                std: self.init_std,
            })
            .init(device)
    }

    fn stack(&self, half: &Half, device: &Device) -> Result<Stack> {
        let layers = match half {
            Half::Encoder => self.encoder_layers,
            Half::Decoder => self.decoder_layers,
        };
        let positions = self.max_position_embeddings + POSITION_OFFSET;
        Ok(Stack {
            embed_positions: self.embedding(positions, device),
            layernorm_embedding: self.norm(device),
            layers: (0..layers)
                .map(|_| self.layer(half, device))
                .collect::<Result<_>>()?,
            layer_norm: self.add_final_layer_norm.then(|| self.norm(device)),
            dropout: DropoutConfig::new(self.dropout).init(),
            embedding_scale: if self.scale_embedding {
                (self.d_model as f64).sqrt()
            } else {
                1.0
            },
        })
    }

    fn layer(&self, half: &Half, device: &Device) -> Result<Layer> {
        let (heads, d_hidden, crosses) = match half {
            Half::Encoder => (self.encoder_attention_heads, self.encoder_ffn_dim, false),
            Half::Decoder => (self.decoder_attention_heads, self.decoder_ffn_dim, true),
        };
        if heads == 0 || !self.d_model.is_multiple_of(heads) {
            return Err(rag_core::Error::Config {
                field: "attention_heads".into(),
                found: heads.to_string(),
                expected: format!("a divisor of d_model {}", self.d_model),
            });
        }
        let d_head = self.d_model / heads;
        let attention =
            AttentionConfig::new(self.d_model, heads, d_head, (d_head as f64).powf(-0.5))
                .with_dropout(self.attention_dropout)
                .with_std(self.init_std);
        let feed_forward = FeedForwardConfig::new(
            self.d_model,
            d_hidden,
            activation(&self.activation_function)?,
        )
        .with_dropout(self.activation_dropout)
        .with_std(self.init_std);
        Ok(Layer {
            self_attn: attention.init(device),
            self_attn_layer_norm: self.norm(device),
            encoder_attn: crosses.then(|| attention.init(device)),
            encoder_attn_layer_norm: crosses.then(|| self.norm(device)),
            feed_forward: feed_forward.init(device),
            final_layer_norm: self.norm(device),
            dropout: DropoutConfig::new(self.dropout).init(),
            normalize_before: self.normalize_before,
        })
    }

    fn norm(&self, device: &Device) -> LayerNorm {
        LayerNormConfig::new(self.d_model).init(device)
    }
}

impl Model for Bart {
    fn read(&self, contexts: &TokenBatch, precision: Precision) -> Memory {
        let bias = padding_bias(&contexts.mask);
        let positions = (0..contexts.dims()[1]).into();
        let embedded = (self.encoder).embed(&self.shared, contexts.ids.clone(), &positions);
        let states = self.encoder.layers.iter().fold(embedded, |states, layer| {
            let attended = layer.sublayer(states, &layer.self_attn_layer_norm, |states| {
                let memory = layer.self_attn.keys_values(states.clone(), precision);
                layer
                    .self_attn
                    .forward(states, &memory, Some(bias.clone()), precision)
            });
            layer.transform(attended, precision)
        });
        let states = self.encoder.finish(states);
        let layers = self
            .decoder
            .layers
            .iter()
            .filter_map(|layer| layer.encoder_attn.as_ref())
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
        let mut states = self.decoder.embed(&self.shared, ids, &places.read);
        for (i, layer) in self.decoder.layers.iter().enumerate() {
            states = layer.sublayer(states, &layer.self_attn_layer_norm, |states| {
                let next = layer.self_attn.keys_values(states.clone(), precision);
                let seen = match &mut cache {
                    Some(cache) => cache.extend(i, next),
                    None => &next,
                };
                (layer.self_attn).forward(states, seen, places.bias.clone(), precision)
            });
            if let (Some(attention), Some(norm)) =
                (&layer.encoder_attn, &layer.encoder_attn_layer_norm)
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
        tensors.add(self, prefix, &BartConfig::names());
    }

    fn fill(self, weights: &mut Weights, prefix: &str) -> Result<Self> {
        weights.fill(self, prefix, &BartConfig::names())
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

    /// `[rows, length, d_model]`
    fn embed(&self, shared: &Embedding, ids: Tensor<2, Int>, positions: &Positions) -> Tensor<3> {
        let positions = positions.indices(POSITION_OFFSET, &ids.device());
        let words = shared.forward(ids).cast(FloatDType::F32) * self.embedding_scale;
        let positions = self.embed_positions.forward(positions);
        let embedded = words + positions.cast(FloatDType::F32);
        dropout(&self.dropout, self.layernorm_embedding.forward(embedded))
    }

    fn finish(&self, states: Tensor<3>) -> Tensor<3> {
        match &self.layer_norm {
            Some(norm) => norm.forward(states),
            None => states,
        }
    }
}

impl Layer {
    fn pack(mut self, precision: Precision) -> Self {
        self.self_attn = self.self_attn.pack(precision);
        self.encoder_attn = self.encoder_attn.map(|attention| attention.pack(precision));
        self.feed_forward = self.feed_forward.pack(precision);
        self
    }

    /// A residual block with its norm after it, or before it.
    fn sublayer(
        &self,
        states: Tensor<3>,
        norm: &LayerNorm,
        block: impl FnOnce(Tensor<3>) -> Tensor<3>,
    ) -> Tensor<3> {
        if self.normalize_before {
            let added = block(norm.forward(states.clone()));
            keep(states + dropout(&self.dropout, added))
        } else {
            let added = block(states.clone());
            norm.of_sum(dropout(&self.dropout, added), states)
        }
    }

    fn transform(&self, states: Tensor<3>, precision: Precision) -> Tensor<3> {
        self.sublayer(states, &self.final_layer_norm, |states| {
            self.feed_forward.forward(states, precision)
        })
    }
}
