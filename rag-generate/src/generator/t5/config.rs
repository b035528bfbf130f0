use serde::{Deserialize, Serialize};

use crate::{
    decode::GenerationConfig,
    generator::{
        family::{Adapters, Family},
        sizes::{Dropouts, Sizes, StackSizes},
    },
};

/// `config.json` of T5.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, tag = "model_type", rename = "t5")]
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

impl T5Config {
    /// `model_type` of all configurations.
    pub(crate) const MODEL_TYPES: &[&str] = &["t5"];

    /// Layers of the decoder.
    pub fn decoder_layers(&self) -> usize {
        self.num_decoder_layers.unwrap_or(self.num_layers)
    }

    /// Whether the feed-forward blocks are gated.
    pub fn is_gated(&self) -> bool {
        self.feed_forward_proj.starts_with("gated-")
    }

    /// Name of the feed-forward blocks' activation.
    pub fn activation(&self) -> &str {
        match self.feed_forward_proj.as_str() {
            // The published v1.1 checkpoints say gated-gelu and mean the approximation.
            "gated-gelu" => "gelu_new",
            name => name.trim_start_matches("gated-"),
        }
    }

    fn stack_sizes(&self, layers: usize) -> StackSizes<'_> {
        let dropout = self.dropout_rate > 0.0;
        StackSizes {
            layers,
            d_model: self.d_model,
            heads: self.num_heads,
            inner: self.num_heads * self.d_kv,
            key_inner: self.num_heads * self.d_kv,
            head_norms: false,
            hidden: self.d_ff,
            activation: self.activation(),
            gated: self.is_gated(),
            dropout: Dropouts {
                states: dropout,
                attention: dropout,
                hidden: dropout,
            },
            relative_positions: true,
            layer_norm: false,
            normalize_before: true,
            norms_added: false,
            capped_scores: false,
            embeddings: usize::from(!dropout),
            outer_norms: 1,
            outer_dropouts: 2 * usize::from(dropout),
        }
    }
}

impl Family for T5Config {
    fn vocabulary(&self) -> usize {
        self.vocab_size
    }

    fn pad(&self) -> u32 {
        self.pad_token_id
    }

    fn generation(&self) -> GenerationConfig {
        GenerationConfig {
            eos_token_id: vec![self.eos_token_id],
            pad_token_id: Some(self.pad_token_id),
            decoder_start_token_id: Some(self.decoder_start_token_id),
            ..GenerationConfig::default()
        }
    }

    /// Relative positions have no limit.
    fn longest_context(&self) -> Option<usize> {
        None
    }

    /// Relative positions have no limit.
    fn longest_answer(&self, _context: usize) -> Option<usize> {
        None
    }

    fn is_redundant(&self, name: &str) -> bool {
        name.ends_with("embed_tokens.weight")
            || name.ends_with("layer.1.EncDecAttention.relative_attention_bias.weight")
            || self.tie_word_embeddings && name.ends_with("lm_head.weight")
    }

    fn adapters(&self) -> Adapters {
        Adapters {
            task_type: "SEQ_2_SEQ_LM",
            target_modules: &["q", "v"],
        }
    }

    fn sizes(&self) -> Sizes<'_> {
        Sizes {
            encoder: Some(self.stack_sizes(self.num_layers)),
            decoder: self.stack_sizes(self.decoder_layers()),
            tied_head: self.tie_word_embeddings,
            capped_logits: false,
        }
    }
}
