use rag_core::nn::{RopeParameters, Rotary, RotaryConfig};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::{
    decode::{GenerationConfig, one_or_many},
    generator::{
        family::{Adapters, Family},
        sizes::{Dropouts, Sizes, StackSizes},
    },
};

/// `config.json` of a decoder alone: Llama and SmolLM2, Mistral, Qwen2 and Qwen2.5, Qwen3.
///
/// [`CausalConfig::llama`] and its siblings have the defaults of each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CausalConfig {
    /// Which of them it is.
    #[serde(skip)]
    pub architecture: Architecture,
    /// Rows of the embeddings.
    pub vocab_size: usize,
    /// Size of the states.
    pub hidden_size: usize,
    /// Size of the hidden layers.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Heads of the queries.
    pub num_attention_heads: usize,
    /// Heads of the keys and values; as many as of the queries where it is not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_key_value_heads: Option<usize>,
    /// Size of a head; `hidden_size / num_attention_heads` where it is not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head_dim: Option<usize>,
    /// Name of the activation.
    pub hidden_act: String,
    /// Longest text in tokens: prompt and answer.
    pub max_position_embeddings: usize,
    /// Added to the mean of squares in the norms.
    pub rms_norm_eps: f64,
    /// Standard deviation of the initial weights.
    pub initializer_range: f64,
    /// Whether the head shares the embeddings' weights.
    pub tie_word_embeddings: bool,
    /// The base of the rotary frequencies.
    pub rope_theta: f64,
    /// How the frequencies are stretched.
    pub rope_scaling: Option<RopeParameters>,
    /// Whether the projections of the attention have biases (Llama, Qwen3). Qwen2 has those of queries, keys and values
    /// without saying so.
    pub attention_bias: bool,
    /// Whether the feed-forward block has biases (Llama).
    pub mlp_bias: bool,
    /// Tokens that a token sees at most, itself included; `None` sees all before it.
    pub sliding_window: Option<usize>,
    /// Whether `sliding_window` counts (Qwen2, Qwen3).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_sliding_window: Option<bool>,
    /// Start of a text.
    pub bos_token_id: Option<u32>,
    /// The tokens that end a text.
    #[serde(with = "one_or_many")]
    pub eos_token_id: Vec<u32>,
    /// Padding.
    pub pad_token_id: Option<u32>,
}

/// The kinds of models that are this one module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Architecture {
    /// Llama and SmolLM2.
    #[default]
    Llama,
    /// Mistral.
    Mistral,
    /// Qwen2 and Qwen2.5: queries, keys and values have biases.
    Qwen2,
    /// Qwen3: queries and keys have norms.
    Qwen3,
}

impl Default for CausalConfig {
    /// transformers' defaults of Llama.
    fn default() -> Self {
        Self {
            architecture: Architecture::Llama,
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
            architecture: Architecture::Mistral,
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
            architecture: Architecture::Qwen2,
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
            architecture: Architecture::Qwen3,
            head_dim: Some(128),
            ..Self::qwen2()
        }
    }

    /// Heads of the keys and values.
    pub fn key_heads(&self) -> usize {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    /// Size of a head; 0 where there are no heads.
    pub fn d_head(&self) -> usize {
        let each = || self.hidden_size.checked_div(self.num_attention_heads);
        self.head_dim.or_else(each).unwrap_or_default()
    }

    /// Whether the projections of queries, keys and values, and that of the heads' outputs, have biases.
    pub(super) fn attention_biases(&self) -> [bool; 2] {
        match self.architecture {
            Architecture::Llama | Architecture::Qwen3 => [self.attention_bias; 2],
            Architecture::Mistral => [false; 2],
            // Whatever `attention_bias` says.
            Architecture::Qwen2 => [true, false],
        }
    }

    /// Whether queries and keys have norms.
    pub(super) fn norms_queries(&self) -> bool {
        self.architecture == Architecture::Qwen3
    }

    pub(super) fn rotary(&self) -> rag_core::Result<Rotary> {
        let config = RotaryConfig {
            d_head: self.d_head(),
            theta: self.rope_theta,
            scaling: self.rope_scaling.as_ref(),
            max_positions: self.max_position_embeddings,
        };
        config.init()
    }

    /// The longest text that every token sees whole. Where a layer has a window, longer texts would need it.
    fn longest(&self) -> usize {
        let window = self.sliding_window.filter(|_| match self.architecture {
            Architecture::Llama => false,
            Architecture::Mistral => true,
            Architecture::Qwen2 | Architecture::Qwen3 => self.use_sliding_window == Some(true),
        });
        let positions = self.max_position_embeddings;
        window.map_or(positions, |window| window.min(positions))
    }

    fn read<'de, D: Deserializer<'de>>(from: D, defaults: Self) -> Result<Self, D::Error> {
        // Fields that have the default of their kind are not in the file.
        let architecture = defaults.architecture;
        let failed = <D::Error as serde::de::Error>::custom::<serde_json::Error>;
        let mut fields = serde_json::to_value(defaults).map_err(failed)?;
        let mut own: Map<String, Value> = Map::deserialize(from)?;
        // transformers 5 writes both together.
        if let Some(parameters) = own.remove("rope_parameters") {
            if let Some(theta) = parameters.get("rope_theta") {
                own.insert("rope_theta".into(), theta.clone());
            }
            own.insert("rope_scaling".into(), parameters);
        }
        // Old files say so that there is no such token.
        let none = |value: &Value| value.as_i64().is_some_and(|id| id < 0);
        own.retain(|name, value| !(name.ends_with("_token_id") && none(value)));
        if let Value::Object(fields) = &mut fields {
            fields.extend(own);
        }
        let read: Self = serde_json::from_value(fields).map_err(failed)?;
        Ok(Self {
            architecture,
            ..read
        })
    }
}

/// Reads a configuration of each kind.
macro_rules! readers {
    ($($name:ident),*) => {
        $(pub fn $name<'de, D: Deserializer<'de>>(from: D) -> Result<CausalConfig, D::Error> {
            CausalConfig::read(from, CausalConfig::$name())
        })*
    };
}

/// `model_type` of each kind.
pub(crate) const MODEL_TYPES: [&str; 4] = ["llama", "mistral", "qwen2", "qwen3"];

/// Readers for `#[serde(deserialize_with)]`.
pub(crate) mod read {
    use super::{CausalConfig, Deserializer};

    readers!(llama, mistral, qwen2, qwen3);
}

impl Family for CausalConfig {
    fn vocabulary(&self) -> usize {
        self.vocab_size
    }

    fn pad(&self) -> u32 {
        let end = || self.eos_token_id.first().copied();
        self.pad_token_id.or_else(end).unwrap_or_default()
    }

    fn generation(&self) -> GenerationConfig {
        GenerationConfig {
            max_new_tokens: Some(ANSWER),
            bos_token_id: self.bos_token_id,
            eos_token_id: self.eos_token_id.clone(),
            pad_token_id: Some(self.pad()),
            decoder_start_token_id: Some(GenerationConfig::PROMPT_END),
            ..GenerationConfig::default()
        }
    }

    fn longest_context(&self) -> Option<usize> {
        Some(self.longest())
    }

    fn longest_answer(&self, context: usize) -> Option<usize> {
        Some((self.longest() + 1).saturating_sub(context))
    }

    fn architecture(&self) -> Option<&'static str> {
        Some(match self.architecture {
            Architecture::Llama => "LlamaForCausalLM",
            Architecture::Mistral => "MistralForCausalLM",
            Architecture::Qwen2 => "Qwen2ForCausalLM",
            Architecture::Qwen3 => "Qwen3ForCausalLM",
        })
    }

    fn is_redundant(&self, name: &str) -> bool {
        name.ends_with("rotary_emb.inv_freq")
            || self.tie_word_embeddings && name.ends_with("lm_head.weight")
    }

    fn adapters(&self) -> Adapters {
        Adapters {
            task_type: "CAUSAL_LM",
            target_modules: &["q_proj", "v_proj"],
        }
    }

    fn sizes(&self) -> Sizes<'_> {
        let stack = StackSizes {
            layers: self.num_hidden_layers,
            d_model: self.hidden_size,
            heads: self.num_attention_heads,
            inner: self.num_attention_heads * self.d_head(),
            key_inner: self.key_heads() * self.d_head(),
            head_norms: self.norms_queries(),
            hidden: self.intermediate_size,
            activation: &self.hidden_act,
            gated: true,
            dropout: Dropouts {
                states: false,
                attention: false,
                hidden: false,
            },
            relative_positions: false,
            layer_norm: false,
            normalize_before: true,
            embeddings: 1,
            outer_norms: 1,
            outer_dropouts: 0,
        };
        Sizes {
            encoder: None,
            decoder: stack,
            tied_head: self.tie_word_embeddings,
        }
    }
}

/// Tokens of an answer where nothing else is asked for: instruction-tuned models answer in sentences.
const ANSWER: usize = 64;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::generator::{GeneratorConfig, fixtures::changed};

    #[test]
    fn qwen2_has_no_bias_after_the_heads_whatever_its_file_says() {
        let sizes = json!({
            "model_type": "qwen2", "hidden_size": 8, "num_attention_heads": 2, "num_key_value_heads": 1,
            "num_hidden_layers": 1, "intermediate_size": 8, "vocab_size": 9, "pad_token_id": -1,
        });
        for bias in [false, true] {
            let config: GeneratorConfig = serde_json::from_value(sizes.clone()).unwrap();
            assert_eq!(config.pad(), 0);
            let config = changed(&config, |fields| {
                fields.insert("attention_bias".into(), bias.into());
            });
            let generator = config.init(&rag_core::device("cpu").unwrap()).unwrap();
            let mut tensors = rag_core::checkpoint::Tensors::default();
            generator.store(&mut tensors, "");
            let names: Vec<&str> = tensors.ids().map(|(name, _)| name).collect();
            let has = |name: &str| names.iter().any(|known| known.ends_with(name));
            assert!(has("q_proj.bias") && has("v_proj.bias"), "{names:?}");
            assert!(!has("o_proj.bias"), "{names:?}");
        }
    }
}
