use serde::{Deserialize, Serialize};

/// `model_type` in `config.json`: the kinds of models that are this one module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ModelType {
    /// `llama`: Llama and SmolLM2.
    #[default]
    Llama,
    /// `mistral`: Mistral.
    Mistral,
    /// `qwen2`: Qwen2 and Qwen2.5, whose queries, keys and values have biases.
    Qwen2,
    /// `qwen3`: Qwen3, whose queries and keys have norms.
    Qwen3,
    /// `gemma2`: Gemma 2, with norms around each block, and soft caps of scores and logits.
    Gemma2,
    /// `gemma3_text`: Gemma 3 without images, with norms of queries and keys besides, and other positions in layers with a
    /// window.
    Gemma3Text,
}

/// The tokens that a layer's tokens see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LayerType {
    /// All before them.
    FullAttention,
    /// The last of them, as many as the window is long.
    SlidingAttention,
}

impl ModelType {
    /// The names of all, as they are in a file.
    pub(super) const NAMES: &[&str] = &[
        "llama",
        "mistral",
        "qwen2",
        "qwen3",
        "gemma2",
        "gemma3_text",
    ];

    /// The class of transformers that opens it.
    pub(super) fn class(self) -> &'static str {
        match self {
            Self::Llama => "LlamaForCausalLM",
            Self::Mistral => "MistralForCausalLM",
            Self::Qwen2 => "Qwen2ForCausalLM",
            Self::Qwen3 => "Qwen3ForCausalLM",
            Self::Gemma2 => "Gemma2ForCausalLM",
            Self::Gemma3Text => "Gemma3ForCausalLM",
        }
    }

    /// Whether embeddings are scaled, norms count their weights from 1 and stand around each block.
    pub(super) fn is_gemma(self) -> bool {
        matches!(self, Self::Gemma2 | Self::Gemma3Text)
    }

    /// Whether queries and keys have norms.
    pub(super) fn norms_queries(self) -> bool {
        matches!(self, Self::Qwen3 | Self::Gemma3Text)
    }
}
