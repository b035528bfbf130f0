//! The defaults of transformers, for fields that a `config.json` leaves out.

use super::{config::CausalConfig, model_type::ModelType};

impl Default for CausalConfig {
    /// transformers' defaults of Llama.
    fn default() -> Self {
        Self {
            model_type: ModelType::Llama,
            vocab_size: 32_000,
            hidden_size: 4096,
            intermediate_size: 11_008,
            num_hidden_layers: 32,
            num_attention_heads: 32,
            num_key_value_heads: None,
            head_dim: None,
            hidden_act: "silu".into(),
            max_position_embeddings: 2048,
            rms_norm_eps: 1e-6,
            initializer_range: 0.02,
            tie_word_embeddings: false,
            rope_theta: 10_000.0,
            rope_scaling: None,
            attention_bias: false,
            mlp_bias: false,
            sliding_window: None,
            use_sliding_window: None,
            layer_types: None,
            sliding_window_pattern: None,
            rope_local_base_freq: None,
            hidden_activation: None,
            query_pre_attn_scalar: None,
            attn_logit_softcapping: None,
            final_logit_softcapping: None,
            bos_token_id: Some(1),
            eos_token_id: vec![2],
            pad_token_id: None,
        }
    }
}

impl CausalConfig {
    /// Llama and SmolLM2, of transformers' default sizes.
    pub fn llama() -> Self {
        Self::default()
    }

    /// Mistral, of transformers' default sizes.
    pub fn mistral() -> Self {
        Self {
            model_type: ModelType::Mistral,
            intermediate_size: 14_336,
            num_key_value_heads: Some(8),
            max_position_embeddings: 131_072,
            sliding_window: Some(4096),
            ..Self::default()
        }
    }

    /// Qwen2 and Qwen2.5, of transformers' default sizes.
    pub fn qwen2() -> Self {
        Self {
            model_type: ModelType::Qwen2,
            vocab_size: 151_936,
            intermediate_size: 22_016,
            num_key_value_heads: Some(32),
            max_position_embeddings: 32_768,
            sliding_window: Some(4096),
            use_sliding_window: Some(false),
            bos_token_id: None,
            eos_token_id: Vec::new(),
            ..Self::default()
        }
    }

    /// Qwen3, of transformers' default sizes.
    pub fn qwen3() -> Self {
        Self {
            model_type: ModelType::Qwen3,
            head_dim: Some(128),
            ..Self::qwen2()
        }
    }

    /// Gemma 2, of transformers' default sizes.
    pub fn gemma2() -> Self {
        Self {
            model_type: ModelType::Gemma2,
            vocab_size: 256_000,
            hidden_size: 2304,
            intermediate_size: 9216,
            num_hidden_layers: 26,
            num_attention_heads: 8,
            num_key_value_heads: Some(4),
            head_dim: Some(256),
            hidden_act: "gelu_pytorch_tanh".into(),
            hidden_activation: Some("gelu_pytorch_tanh".into()),
            max_position_embeddings: 8192,
            tie_word_embeddings: true,
            query_pre_attn_scalar: Some(256),
            attn_logit_softcapping: Some(50.0),
            final_logit_softcapping: Some(30.0),
            sliding_window: Some(4096),
            sliding_window_pattern: Some(2),
            bos_token_id: Some(2),
            eos_token_id: vec![1],
            pad_token_id: Some(0),
            ..Self::default()
        }
    }

    /// Gemma 3 without images, of transformers' default sizes.
    pub fn gemma3() -> Self {
        Self {
            model_type: ModelType::Gemma3Text,
            vocab_size: 262_208,
            max_position_embeddings: 131_072,
            rope_theta: 1_000_000.0,
            rope_local_base_freq: Some(10_000.0),
            attn_logit_softcapping: None,
            final_logit_softcapping: None,
            sliding_window_pattern: Some(6),
            ..Self::gemma2()
        }
    }

    /// The defaults of `model_type`.
    pub(super) fn of(model_type: ModelType) -> Self {
        match model_type {
            ModelType::Llama => Self::llama(),
            ModelType::Mistral => Self::mistral(),
            ModelType::Qwen2 => Self::qwen2(),
            ModelType::Qwen3 => Self::qwen3(),
            ModelType::Gemma2 => Self::gemma2(),
            ModelType::Gemma3Text => Self::gemma3(),
        }
    }
}
