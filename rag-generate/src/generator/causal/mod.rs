//! Decoders alone that rotate queries and keys: Llama (Touvron et al. 2023, arXiv 2302.13971) and what followed it.

mod config;
mod model_type;

use burn::{
    module::{Initializer, Module},
    nn::{Embedding, EmbeddingConfig, RmsNorm, RmsNormConfig},
    tensor::{Device, FloatDType, Int, Tensor},
};
use rag_core::{
    Error, Result, TokenBatch,
    checkpoint::{Names, Tensors, Weights},
    nn::{
        FeedForward, FeedForwardConfig, GroupedAttention, GroupedAttentionConfig, Precision,
        Rotary, Rotation, Seen, activation, keep,
    },
};

pub use config::CausalConfig;
pub use model_type::ModelType;

use super::{
    family::Model,
    head::{Head, HeadConfig},
    memory::{Cache, Memory},
    places::{Places, Positions},
};

/// A decoder alone: Llama, SmolLM2, Mistral, Qwen2, Qwen3.
#[derive(Module, Debug)]
pub struct Causal {
    shared: Embedding,
    decoder: Stack,
    head: Head,
}

#[derive(Module, Debug)]
struct Stack {
    layers: Vec<Layer>,
    norm: RmsNorm,
    #[module(skip)]
    rotary: Rotary,
}

#[derive(Module, Debug)]
struct Layer {
    input_layernorm: RmsNorm,
    self_attn: GroupedAttention,
    post_attention_layernorm: RmsNorm,
    mlp: FeedForward,
}

impl CausalConfig {
    fn names() -> Names {
        Names::new(&[
            (".shared.", ".model.embed_tokens."),
            (".decoder.", ".model."),
            (".head.", "."),
            (".query.", ".q_proj."),
            (".key.", ".k_proj."),
            (".value.", ".v_proj."),
            (".output.", ".o_proj."),
            (".query_norm.", ".q_norm."),
            (".key_norm.", ".k_norm."),
            // The activation is on the gate, which the feed-forward block calls `up`.
            (".up.", ".gate_proj."),
            (".gate.", ".up_proj."),
            (".down.", ".down_proj."),
            (".gamma", ".weight"),
        ])
    }

    /// Freshly initialised weights.
    ///
    /// # Errors
    /// [`Error::Config`] for an unknown activation or scaling of positions, and for heads that do not divide.
    pub fn init(&self, device: &Device) -> Result<Causal> {
        let (heads, key_heads) = (self.num_attention_heads, self.key_heads());
        if key_heads == 0 || heads == 0 || !heads.is_multiple_of(key_heads) {
            return Err(Error::Config {
                field: "num_key_value_heads".into(),
                found: key_heads.to_string(),
                expected: format!("a divisor of num_attention_heads {heads}"),
            });
        }
        let weights = Initializer::Normal {
            mean: 0.0,
            std: self.initializer_range,
        };
        let layers = (0..self.num_hidden_layers).map(|_| self.layer(device));
        Ok(Causal {
            shared: EmbeddingConfig::new(self.vocab_size, self.hidden_size)
                .with_initializer(weights)
                .init(device),
            decoder: Stack {
                layers: layers.collect::<Result<_>>()?,
                norm: self.norm(device),
                rotary: self.rotary()?,
            },
            head: HeadConfig {
                d_model: self.hidden_size,
                vocabulary: self.vocab_size,
                tied: self.tie_word_embeddings,
                std: self.initializer_range,
                tied_scale: 1.0,
                constant: false,
            }
            .init(device),
        })
    }

    fn layer(&self, device: &Device) -> Result<Layer> {
        let [bias, output_bias] = self.attention_biases();
        let attention = GroupedAttentionConfig {
            d_model: self.hidden_size,
            heads: self.num_attention_heads,
            key_heads: self.key_heads(),
            d_head: self.d_head(),
            bias,
            output_bias,
            norm: self.norms_queries().then_some(self.rms_norm_eps),
            std: self.initializer_range,
        };
        let feed_forward = FeedForwardConfig::new(
            self.hidden_size,
            self.intermediate_size,
            activation(&self.hidden_act)?,
        )
        .with_gated(true)
        .with_bias(self.mlp_bias)
        .with_std(self.initializer_range);
        Ok(Layer {
            input_layernorm: self.norm(device),
            self_attn: attention.init(device),
            post_attention_layernorm: self.norm(device),
            mlp: feed_forward.init(device),
        })
    }

    fn norm(&self, device: &Device) -> RmsNorm {
        RmsNormConfig::new(self.hidden_size)
            .with_epsilon(self.rms_norm_eps)
            .init(device)
    }
}

impl Model for Causal {
    fn read(&self, contexts: &TokenBatch, precision: Precision) -> Memory {
        let device = contexts.ids.device();
        let places = Places::after(0, contexts.dims()[1], &device);
        let rotation = self.decoder.rotation(&places.read, &device);
        let mut states = self.embed(contexts.ids.clone());
        let mut layers = Vec::with_capacity(self.decoder.layers.len());
        for (i, layer) in self.decoder.layers.iter().enumerate() {
            let normed = layer.input_layernorm.forward(states.clone());
            let memory = (layer.self_attn).keys_values(normed.clone(), &rotation, precision);
            // Of a prompt the last layer computes keys and values alone: nobody reads its states.
            if i + 1 < self.decoder.layers.len() {
                // Padding is on the right, where no token of the prompt sees it.
                let own = Seen {
                    memory: &memory,
                    bias: places.bias.as_ref(),
                };
                let attended = layer
                    .self_attn
                    .forward(normed, &rotation, own, None, precision);
                states = layer.transform(keep(states + attended), precision);
            }
            layers.push(memory);
        }
        Memory::of_prompts(layers, contexts)
    }

    fn states(
        &self,
        ids: Tensor<2, Int>,
        places: &Places,
        memory: &Memory,
        mut cache: Option<&mut Cache>,
        precision: Precision,
    ) -> Tensor<3> {
        let (ids, places) = memory.continued(ids, places);
        let rotation = self.decoder.rotation(&places.read, &ids.device());
        let mut states = self.embed(ids);
        for (i, layer) in self.decoder.layers.iter().enumerate() {
            let normed = layer.input_layernorm.forward(states.clone());
            let next = (layer.self_attn).keys_values(normed.clone(), &rotation, precision);
            let own = Seen {
                memory: match &mut cache {
                    Some(cache) => cache.extend(i, next),
                    None => &next,
                },
                bias: places.bias.as_ref(),
            };
            let prompts = Some(memory.layer(i));
            let attended = (layer.self_attn).forward(normed, &rotation, own, prompts, precision);
            states = layer.transform(keep(states + attended), precision);
        }
        self.decoder.norm.forward(states)
    }

    fn head(&self) -> (&Head, &Embedding) {
        (&self.head, &self.shared)
    }

    fn set_words(&mut self, words: usize) {
        self.head.set_words(words);
    }

    fn store(&self, tensors: &mut Tensors, prefix: &str) {
        tensors.add(self, prefix, &CausalConfig::names());
    }

    fn fill(self, weights: &mut Weights, prefix: &str) -> Result<Self> {
        weights.fill(self, prefix, &CausalConfig::names())
    }

    fn pack(mut self, precision: Precision) -> Self {
        let layers = self.decoder.layers.into_iter();
        self.decoder.layers = layers.map(|layer| layer.pack(precision)).collect();
        (self.shared, self.head) = self.head.pack(self.shared, precision);
        self
    }
}

impl Causal {
    /// `[rows, length, d_model]`
    fn embed(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        self.shared.forward(ids).cast(FloatDType::F32)
    }
}

impl Stack {
    fn rotation(&self, positions: &Positions, device: &Device) -> Rotation {
        self.rotary
            .at(positions.numbers(), positions.dims(), device)
    }
}

impl Layer {
    fn pack(mut self, precision: Precision) -> Self {
        self.self_attn = self.self_attn.pack(precision);
        self.mlp = self.mlp.pack(precision);
        self
    }

    fn transform(&self, states: Tensor<3>, precision: Precision) -> Tensor<3> {
        let normed = self.post_attention_layernorm.forward(states.clone());
        keep(states + self.mlp.forward(normed, precision))
    }
}
