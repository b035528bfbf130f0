use burn::tensor::Device;
use rag_core::{Result, checkpoint::Weights};
use serde::{Deserialize, Serialize};

use super::{BartConfig, Generator, T5Config};
use crate::decode::GenerationConfig;

/// `config.json` of a generator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "model_type", rename_all = "lowercase")]
pub enum GeneratorConfig {
    /// `"model_type": "bart"`
    Bart(BartConfig),
    /// `"model_type": "t5"`
    T5(T5Config),
}

impl GeneratorConfig {
    /// Freshly initialised weights.
    ///
    /// # Errors
    /// [`rag_core::Error::Config`].
    pub fn init(&self, device: &Device) -> Result<Generator> {
        Ok(match self {
            Self::Bart(config) => Generator::Bart(config.init(device)?),
            Self::T5(config) => Generator::T5(config.init(device)?),
        })
    }

    /// Fills a generator from the tensors under `prefix`, such as `rag.generator.`
    ///
    /// # Errors
    /// Those of [`Weights::fill`].
    pub fn load(&self, weights: &mut Weights, prefix: &str, device: &Device) -> Result<Generator> {
        Ok(match self {
            Self::Bart(config) => Generator::Bart(config.init(device)?.fill(weights, prefix)?),
            Self::T5(config) => Generator::T5(config.init(device)?.fill(weights, prefix)?),
        })
    }

    /// Whether a tensor of the checkpoint is a copy of a tied weight, or one that is never read.
    pub fn is_redundant(&self, name: &str) -> bool {
        let tied = match self {
            Self::Bart(config) => config.tie_word_embeddings,
            Self::T5(config) => config.tie_word_embeddings,
        };
        name.ends_with("embed_tokens.weight")
            || name.ends_with("layer.1.EncDecAttention.relative_attention_bias.weight")
            || tied && name.ends_with("lm_head.weight")
    }

    /// Rows of the embeddings.
    pub fn vocabulary(&self) -> usize {
        match self {
            Self::Bart(config) => config.vocab_size,
            Self::T5(config) => config.vocab_size,
        }
    }

    /// Longest context in tokens; T5's relative positions have no limit.
    pub fn max_positions(&self) -> Option<usize> {
        match self {
            Self::Bart(config) => Some(config.max_position_embeddings),
            Self::T5(_) => None,
        }
    }

    /// The padding token.
    pub fn pad(&self) -> u32 {
        match self {
            Self::Bart(config) => config.pad_token_id,
            Self::T5(config) => config.pad_token_id,
        }
    }

    /// Decoding settings of this model where a checkpoint has no `generation_config.json`.
    pub fn generation(&self) -> GenerationConfig {
        let generation = GenerationConfig::default();
        match self {
            Self::Bart(config) => GenerationConfig {
                forced_bos_token_id: config.forced_bos_token_id,
                forced_eos_token_id: config.forced_eos_token_id.into_iter().collect(),
                bos_token_id: Some(config.bos_token_id),
                eos_token_id: vec![config.eos_token_id],
                pad_token_id: Some(config.pad_token_id),
                decoder_start_token_id: Some(config.decoder_start_token_id),
                ..generation
            },
            Self::T5(config) => GenerationConfig {
                eos_token_id: vec![config.eos_token_id],
                pad_token_id: Some(config.pad_token_id),
                decoder_start_token_id: Some(config.decoder_start_token_id),
                ..generation
            },
        }
    }
}
