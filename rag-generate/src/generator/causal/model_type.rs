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
}

impl ModelType {
    /// The names of all, as they are in a file.
    pub(super) const NAMES: &[&str] = &["llama", "mistral", "qwen2", "qwen3"];

    /// The class of transformers that opens it.
    pub(super) fn class(self) -> &'static str {
        match self {
            Self::Llama => "LlamaForCausalLM",
            Self::Mistral => "MistralForCausalLM",
            Self::Qwen2 => "Qwen2ForCausalLM",
            Self::Qwen3 => "Qwen3ForCausalLM",
        }
    }
}
