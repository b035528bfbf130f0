//! Decoders alone that rotate queries and keys: Llama (Touvron et al. 2023, arXiv 2302.13971) and what followed it.

mod config;
mod defaults;
mod json;
mod model_type;

use burn::{
    module::{Initializer, Module},
    nn::{Embedding, EmbeddingConfig},
    tensor::{Device, FloatDType, Int, Tensor},
};
use rag_core::{
    Result, TokenBatch,
    checkpoint::{Names, Tensors, Weights},
    nn::{
        FeedForward, FeedForwardConfig, GroupedAttention, GroupedAttentionConfig, Precision,
        RmsNorm, RmsNormConfig, Rotary, Rotation, Seen, activation, keep,
    },
};

pub use config::CausalConfig;
pub use model_type::{LayerType, ModelType};

use super::{
    family::Model,
    head::{Head, HeadConfig},
    memory::{Cache, Memory},
    places::{Places, Positions},
};

/// A decoder alone: Llama, SmolLM2, Mistral, Qwen2, Qwen3, Gemma 2, Gemma 3.
#[derive(Module, Debug)]
pub struct Causal {
    shared: Embedding,
    decoder: Stack,
    head: Head,
    /// The factor of the embedded tokens.
    scale: f64,
}

#[derive(Module, Debug)]
struct Stack {
    layers: Vec<Layer>,
    norm: RmsNorm,
    #[module(skip)]
    rotary: Rotary,
    /// That of layers with a window, where it is another.
    #[module(skip)]
    local: Option<Rotary>,
}

#[derive(Module, Debug)]
struct Layer {
    before_attention: RmsNorm,
    self_attn: GroupedAttention,
    /// Of what the block adds to the states (Gemma).
    after_attention: Option<RmsNorm>,
    before_feed_forward: RmsNorm,
    mlp: FeedForward,
    /// Of what the block adds to the states (Gemma).
    after_feed_forward: Option<RmsNorm>,
    has_window: bool,
}

/// Cosines and sines of the same positions, for layers that see all and for those with a window.
struct Rotations {
    all: Rotation,
    local: Option<Rotation>,
}

impl CausalConfig {
    /// The checkpoint's names, of layers with or without norms after their blocks.
    fn names(norms_after: bool) -> Names {
        let names = Names::new(&[
            (".before_attention.", ".input_layernorm."),
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
        ]);
        match norms_after {
            false => names.and(&[(".before_feed_forward.", ".post_attention_layernorm.")]),
            true => names.and(&[
                (".after_attention.", ".post_attention_layernorm."),
                (".before_feed_forward.", ".pre_feedforward_layernorm."),
                (".after_feed_forward.", ".post_feedforward_layernorm."),
            ]),
        }
    }

    /// Freshly initialised weights.
    ///
    /// # Errors
    /// [`rag_core::Error::Config`] for an unknown activation or scaling of positions, for heads that do not divide, and for
    /// other numbers of which no model can be made.
    pub fn init(&self, device: &Device) -> Result<Causal> {
        self.check()?;
        let weights = Initializer::Normal {
            mean: 0.0,
            std: self.initializer_range,
        };
        let layers = (0..self.num_hidden_layers).map(|layer| self.layer(layer, device));
        let (rotary, local) = self.rotaries()?;
        let [_, soft_cap] = self.soft_caps();
        Ok(Causal {
            shared: EmbeddingConfig::new(self.vocab_size, self.hidden_size)
                .with_initializer(weights)
                .init(device),
            decoder: Stack {
                layers: layers.collect::<Result<_>>()?,
                norm: self.norm(device),
                rotary,
                local,
            },
            head: HeadConfig {
                d_model: self.hidden_size,
                vocabulary: self.vocab_size,
                tied: self.tie_word_embeddings,
                std: self.initializer_range,
                tied_scale: 1.0,
                soft_cap,
                constant: false,
            }
            .init(device),
            scale: self.embedding_scale(),
        })
    }

    fn layer(&self, layer: usize, device: &Device) -> Result<Layer> {
        let [bias, output_bias] = self.attention_biases();
        let [soft_cap, _] = self.soft_caps();
        let epsilon = Some(self.rms_norm_eps);
        let after = || (self.model_type.is_gemma()).then(|| self.norm(device));
        let attention = GroupedAttentionConfig {
            d_model: self.hidden_size,
            heads: self.num_attention_heads,
            key_heads: self.key_heads(),
            d_head: self.d_head(),
            bias,
            output_bias,
            norm: epsilon.filter(|_| self.model_type.norms_queries()),
            norm_offset: self.norm_offset(),
            scale: Some(self.score_scale()),
            soft_cap,
            std: self.initializer_range,
        };
        let feed_forward = FeedForwardConfig::new(
            self.hidden_size,
            self.intermediate_size,
            activation(self.activation())?,
        )
        .with_gated(true)
        .with_bias(self.mlp_bias)
        .with_std(self.initializer_range);
        Ok(Layer {
            before_attention: self.norm(device),
            self_attn: attention.init(device),
            after_attention: after(),
            before_feed_forward: self.norm(device),
            mlp: feed_forward.init(device),
            after_feed_forward: after(),
            has_window: self.has_window(layer),
        })
    }

    fn norm(&self, device: &Device) -> RmsNorm {
        RmsNormConfig::new(self.hidden_size)
            .with_epsilon(self.rms_norm_eps)
            .with_offset(self.norm_offset())
            .init(device)
    }

    /// Gemma's norms store what their factors are above 1.
    fn norm_offset(&self) -> f64 {
        match self.model_type.is_gemma() {
            true => 1.0,
            false => 0.0,
        }
    }
}

impl Model for Causal {
    fn read(&self, contexts: &TokenBatch, precision: Precision) -> Memory {
        let device = contexts.ids.device();
        let places = Places::after(0, contexts.dims()[1], &device);
        let rotations = self.decoder.rotations(&places.read, &device);
        let mut states = self.embed(contexts.ids.clone());
        let mut layers = Vec::with_capacity(self.decoder.layers.len());
        for (i, layer) in self.decoder.layers.iter().enumerate() {
            let rotation = rotations.of(layer);
            let normed = layer.before_attention.forward(states.clone());
            let memory = (layer.self_attn).keys_values(normed.clone(), rotation, precision);
            // Of a prompt the last layer computes keys and values alone: nobody reads its states.
            if i + 1 < self.decoder.layers.len() {
                // Padding is on the right, where no token of the prompt sees it.
                let own = Seen {
                    memory: &memory,
                    bias: places.bias.as_ref(),
                };
                let attended = layer
                    .self_attn
                    .forward(normed, rotation, own, None, precision);
                states = layer.transform(states, attended, precision);
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
        let rotations = self.decoder.rotations(&places.read, &ids.device());
        let mut states = self.embed(ids);
        for (i, layer) in self.decoder.layers.iter().enumerate() {
            let rotation = rotations.of(layer);
            let normed = layer.before_attention.forward(states.clone());
            let next = (layer.self_attn).keys_values(normed.clone(), rotation, precision);
            let own = Seen {
                memory: match &mut cache {
                    Some(cache) => cache.extend(i, next),
                    None => &next,
                },
                bias: places.bias.as_ref(),
            };
            let prompts = Some(memory.layer(i));
            let attended = (layer.self_attn).forward(normed, rotation, own, prompts, precision);
            states = layer.transform(states, attended, precision);
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
        tensors.add(self, prefix, &self.names());
    }

    fn fill(self, weights: &mut Weights, prefix: &str) -> Result<Self> {
        let names = self.names();
        weights.fill(self, prefix, &names)
    }

    fn pack(mut self, precision: Precision) -> Self {
        // The largest matrix first: it is f32 while there is least beside it.
        (self.shared, self.head) = self.head.pack(self.shared, precision);
        let layers = self.decoder.layers.into_iter();
        self.decoder.layers = layers.map(|layer| layer.pack(precision)).collect();
        self
    }
}

impl Causal {
    fn names(&self) -> Names {
        let mut layers = self.decoder.layers.iter();
        CausalConfig::names(layers.any(|layer| layer.after_attention.is_some()))
    }

    /// `[rows, length, d_model]`
    fn embed(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        let states = self.shared.forward(ids).cast(FloatDType::F32);
        match self.scale {
            1.0 => states,
            scale => states * scale,
        }
    }
}

impl Stack {
    fn rotations(&self, positions: &Positions, device: &Device) -> Rotations {
        let of = |rotary: &Rotary| rotary.at(positions.numbers(), positions.dims(), device);
        Rotations {
            all: of(&self.rotary),
            local: self.local.as_ref().map(of),
        }
    }
}

impl Rotations {
    fn of(&self, layer: &Layer) -> &Rotation {
        let local = self.local.as_ref().filter(|_| layer.has_window);
        local.unwrap_or(&self.all)
    }
}

impl Layer {
    fn pack(mut self, precision: Precision) -> Self {
        self.self_attn = self.self_attn.pack(precision);
        self.mlp = self.mlp.pack(precision);
        self
    }

    /// The states after the layer, of those before it and what its attention found.
    fn transform(&self, states: Tensor<3>, attended: Tensor<3>, precision: Precision) -> Tensor<3> {
        let after = |norm: &Option<RmsNorm>, added: Tensor<3>| match norm {
            Some(norm) => norm.forward(added),
            None => added,
        };
        let states = keep(states + after(&self.after_attention, attended));
        let normed = self.before_feed_forward.forward(states.clone());
        let added = self.mlp.forward(normed, precision);
        keep(states + after(&self.after_feed_forward, added))
    }
}
