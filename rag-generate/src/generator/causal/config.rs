use rag_core::nn::{RopeParameters, Rotary, RotaryConfig};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, Value};

use super::model_type::ModelType;
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
#[serde(default, remote = "Self")]
pub struct CausalConfig {
    /// Which of them it is.
    pub model_type: ModelType,
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
            bos_token_id: Some(1),
            eos_token_id: vec![2],
            pad_token_id: None,
        }
    }
}

impl CausalConfig {
    /// `model_type` of all configurations.
    pub(crate) const MODEL_TYPES: &[&str] = ModelType::NAMES;

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

    /// The defaults of `model_type`.
    fn of(model_type: ModelType) -> Self {
        match model_type {
            ModelType::Llama => Self::llama(),
            ModelType::Mistral => Self::mistral(),
            ModelType::Qwen2 => Self::qwen2(),
            ModelType::Qwen3 => Self::qwen3(),
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
        match self.model_type {
            ModelType::Llama | ModelType::Qwen3 => [self.attention_bias; 2],
            ModelType::Mistral => [false; 2],
            // Whatever `attention_bias` says.
            ModelType::Qwen2 => [true, false],
        }
    }

    /// Whether queries and keys have norms.
    pub(super) fn norms_queries(&self) -> bool {
        self.model_type == ModelType::Qwen3
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
        let window = self.sliding_window.filter(|_| match self.model_type {
            ModelType::Llama => false,
            ModelType::Mistral => true,
            ModelType::Qwen2 | ModelType::Qwen3 => self.use_sliding_window == Some(true),
        });
        let positions = self.max_position_embeddings;
        window.map_or(positions, |window| window.min(positions))
    }
}

impl Serialize for CausalConfig {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, to)
    }
}

impl<'de> Deserialize<'de> for CausalConfig {
    /// A field that is not in the file has the default of its `model_type`.
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let failed = <D::Error as de::Error>::custom::<serde_json::Error>;
        let mut own: Map<String, Value> = Map::deserialize(from)?;
        let model_type = own.get("model_type").cloned();
        let model_type = model_type.ok_or_else(|| de::Error::missing_field("model_type"))?;
        let model_type: ModelType = serde_json::from_value(model_type).map_err(failed)?;
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
        let mut fields = serde_json::to_value(Self::of(model_type)).map_err(failed)?;
        if let Value::Object(fields) = &mut fields {
            fields.extend(own);
        }
        Self::deserialize(fields).map_err(failed)
    }
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
        Some(self.model_type.class())
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
