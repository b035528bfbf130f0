use serde::{Deserialize, Serialize};

use crate::{
    decode::GenerationConfig,
    generator::{
        family::{Adapters, Family},
        sizes::{Dropouts, Sizes, StackSizes},
    },
};

/// `config.json` of BART.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, tag = "model_type", rename = "bart")]
pub struct BartConfig {
    /// Rows of the embeddings.
    pub vocab_size: usize,
    /// Size of the states.
    pub d_model: usize,
    /// Layers of the encoder.
    pub encoder_layers: usize,
    /// Layers of the decoder.
    pub decoder_layers: usize,
    /// Heads of the encoder.
    pub encoder_attention_heads: usize,
    /// Heads of the decoder.
    pub decoder_attention_heads: usize,
    /// Size of the encoder's hidden layers.
    pub encoder_ffn_dim: usize,
    /// Size of the decoder's hidden layers.
    pub decoder_ffn_dim: usize,
    /// Name of the activation.
    pub activation_function: String,
    /// Dropout of the states.
    pub dropout: f64,
    /// Dropout of the attention weights.
    pub attention_dropout: f64,
    /// Dropout of the hidden layers.
    pub activation_dropout: f64,
    /// Longest input in tokens.
    pub max_position_embeddings: usize,
    /// Standard deviation of the initial weights.
    pub init_std: f64,
    /// Whether embeddings are multiplied with √d_model.
    pub scale_embedding: bool,
    /// Whether norms stand before each block instead of after it.
    pub normalize_before: bool,
    /// Whether a norm follows the last layer of encoder and decoder.
    pub add_final_layer_norm: bool,
    /// Whether the head shares the embeddings' weights.
    pub tie_word_embeddings: bool,
    /// Padding.
    pub pad_token_id: u32,
    /// Start of a text.
    pub bos_token_id: u32,
    /// End of a text.
    pub eos_token_id: u32,
    /// What the decoder starts with.
    pub decoder_start_token_id: u32,
    /// Always the first token that is decoded.
    pub forced_bos_token_id: Option<u32>,
    /// Always the last token when the length runs out.
    pub forced_eos_token_id: Option<u32>,
}

impl Default for BartConfig {
    /// facebook/bart-large.
    fn default() -> Self {
        Self {
            vocab_size: 50_265,
            d_model: 1024,
            encoder_layers: 12,
            decoder_layers: 12,
            encoder_attention_heads: 16,
            decoder_attention_heads: 16,
            encoder_ffn_dim: 4096,
            decoder_ffn_dim: 4096,
            activation_function: "gelu".into(),
            dropout: 0.1,
            attention_dropout: 0.0,
            activation_dropout: 0.0,
            max_position_embeddings: 1024,
            init_std: 0.02,
            scale_embedding: false,
            normalize_before: false,
            add_final_layer_norm: false,
            tie_word_embeddings: true,
            pad_token_id: 1,
            bos_token_id: 0,
            eos_token_id: 2,
            decoder_start_token_id: 2,
            forced_bos_token_id: None,
            forced_eos_token_id: Some(2),
        }
    }
}

impl BartConfig {
    /// `model_type` of all configurations.
    pub(crate) const MODEL_TYPES: &[&str] = &["bart"];

    fn stack_sizes(&self, layers: usize, heads: usize, hidden: usize) -> StackSizes<'_> {
        StackSizes {
            layers,
            d_model: self.d_model,
            heads,
            inner: self.d_model,
            key_inner: self.d_model,
            head_norms: false,
            hidden,
            activation: &self.activation_function,
            gated: false,
            dropout: Dropouts {
                states: self.dropout > 0.0,
                attention: self.attention_dropout > 0.0,
                hidden: self.activation_dropout > 0.0,
            },
            relative_positions: false,
            layer_norm: true,
            normalize_before: self.normalize_before,
            norms_added: false,
            capped_scores: false,
            embeddings: 1,
            outer_norms: 1 + usize::from(self.add_final_layer_norm),
            outer_dropouts: usize::from(self.dropout > 0.0),
        }
    }
}

impl Family for BartConfig {
    fn vocabulary(&self) -> usize {
        self.vocab_size
    }

    fn pad(&self) -> u32 {
        self.pad_token_id
    }

    fn generation(&self) -> GenerationConfig {
        GenerationConfig {
            forced_bos_token_id: self.forced_bos_token_id,
            forced_eos_token_id: self.forced_eos_token_id.into_iter().collect(),
            bos_token_id: Some(self.bos_token_id),
            eos_token_id: vec![self.eos_token_id],
            pad_token_id: Some(self.pad_token_id),
            decoder_start_token_id: Some(self.decoder_start_token_id),
            ..GenerationConfig::default()
        }
    }

    fn longest_context(&self) -> Option<usize> {
        Some(self.max_position_embeddings)
    }

    fn longest_answer(&self, _context: usize) -> Option<usize> {
        Some(self.max_position_embeddings)
    }

    fn is_redundant(&self, name: &str) -> bool {
        name.ends_with("embed_tokens.weight")
            || self.tie_word_embeddings && name.ends_with("lm_head.weight")
    }

    fn adapters(&self) -> Adapters {
        Adapters {
            task_type: "SEQ_2_SEQ_LM",
            target_modules: &["q_proj", "v_proj"],
        }
    }

    fn sizes(&self) -> Sizes<'_> {
        Sizes {
            encoder: Some(self.stack_sizes(
                self.encoder_layers,
                self.encoder_attention_heads,
                self.encoder_ffn_dim,
            )),
            decoder: self.stack_sizes(
                self.decoder_layers,
                self.decoder_attention_heads,
                self.decoder_ffn_dim,
            ),
            tied_head: self.tie_word_embeddings,
            capped_logits: false,
        }
    }
}
