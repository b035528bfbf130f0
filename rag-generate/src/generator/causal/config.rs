use rag_core::{
    Error, Result,
    nn::{RopeParameters, Rotary, RotaryConfig},
};
use serde::{Deserialize, Serialize};

use super::model_type::{LayerType, ModelType};
use crate::{
    decode::{GenerationConfig, one_or_many},
    generator::{
        family::{Adapters, Family},
        sizes::{Dropouts, Sizes, StackSizes},
    },
};

/// `config.json` of a decoder alone: Llama and SmolLM2, Mistral, Qwen2 and Qwen2.5, Qwen3, Gemma 2, Gemma 3.
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
    /// Name of the activation, but for Gemma.
    pub hidden_act: String,
    /// Name of Gemma's activation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden_activation: Option<String>,
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
    /// The base of the frequencies in layers with a window (Gemma 3), which are not stretched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rope_local_base_freq: Option<f64>,
    /// How the frequencies are stretched.
    pub rope_scaling: Option<RopeParameters>,
    /// Whether the projections of the attention have biases (Llama, Qwen3, Gemma). Qwen2 has those of queries, keys and values
    /// without saying so.
    pub attention_bias: bool,
    /// Whether the feed-forward block has biases (Llama).
    pub mlp_bias: bool,
    /// Tokens that a token sees at most, itself included; `None` sees all before it.
    pub sliding_window: Option<usize>,
    /// Whether `sliding_window` counts (Qwen2, Qwen3).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_sliding_window: Option<bool>,
    /// Which layers have the window (Gemma).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer_types: Option<Vec<LayerType>>,
    /// Where `layer_types` does not say: one layer in so many sees all, and the others have the window (Gemma).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sliding_window_pattern: Option<usize>,
    /// Scores are divided by its root, instead of that of a head's size (Gemma).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query_pre_attn_scalar: Option<usize>,
    /// The soft cap of the attention's scores (Gemma).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attn_logit_softcapping: Option<f64>,
    /// The soft cap of the logits (Gemma).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub final_logit_softcapping: Option<f64>,
    /// Start of a text.
    pub bos_token_id: Option<u32>,
    /// The tokens that end a text.
    #[serde(with = "one_or_many")]
    pub eos_token_id: Vec<u32>,
    /// Padding.
    pub pad_token_id: Option<u32>,
}

impl CausalConfig {
    /// `model_type` of all configurations.
    pub(crate) const MODEL_TYPES: &[&str] = ModelType::NAMES;

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
            ModelType::Mistral => [false; 2],
            // Whatever `attention_bias` says.
            ModelType::Qwen2 => [true, false],
            _ => [self.attention_bias; 2],
        }
    }

    /// Name of the activation.
    pub(super) fn activation(&self) -> &str {
        let own = self.hidden_activation.as_deref();
        own.filter(|_| self.model_type.is_gemma())
            .unwrap_or(&self.hidden_act)
    }

    /// The factor of the embedded tokens.
    pub(super) fn embedding_scale(&self) -> f64 {
        match self.model_type.is_gemma() {
            true => (self.hidden_size as f64).sqrt(),
            false => 1.0,
        }
    }

    /// The factor of the attention's scores.
    pub(super) fn score_scale(&self) -> f64 {
        let own = (self.query_pre_attn_scalar).filter(|_| self.model_type.is_gemma());
        (own.unwrap_or(self.d_head()) as f64).powf(-0.5)
    }

    /// The soft caps of the attention's scores, and of the logits.
    pub(super) fn soft_caps(&self) -> [Option<f64>; 2] {
        let caps = [self.attn_logit_softcapping, self.final_logit_softcapping];
        caps.map(|cap| cap.filter(|_| self.model_type.is_gemma()))
    }

    /// Whether the tokens of a layer see a window alone. Of a Gemma only some layers have it.
    pub(super) fn has_window(&self, layer: usize) -> bool {
        let in_gemma = || match &self.layer_types {
            Some(types) => types.get(layer) == Some(&LayerType::SlidingAttention),
            None => (self.sliding_window_pattern)
                .is_some_and(|pattern| !(layer + 1).is_multiple_of(pattern)),
        };
        match self.model_type {
            ModelType::Llama => false,
            ModelType::Mistral => true,
            ModelType::Qwen2 | ModelType::Qwen3 => self.use_sliding_window == Some(true),
            ModelType::Gemma2 | ModelType::Gemma3Text => in_gemma(),
        }
    }

    /// The rotation in layers that see all, and in those with a window where that is another.
    pub(super) fn rotaries(&self) -> Result<(Rotary, Option<Rotary>)> {
        let all = RotaryConfig {
            d_head: self.d_head(),
            theta: self.rope_theta,
            scaling: self.rope_scaling.as_ref(),
            max_positions: self.max_position_embeddings,
        };
        let local = self.rope_local_base_freq;
        let local = local.filter(|_| self.model_type == ModelType::Gemma3Text);
        let local = local.map(|theta| RotaryConfig {
            theta,
            scaling: None,
            ..all.clone()
        });
        let local = local.map(|local| local.init()).transpose()?;
        Ok((all.init()?, local))
    }

    /// Refuses values of which no model can be made.
    pub(super) fn check(&self) -> Result<()> {
        let (heads, key_heads) = (self.num_attention_heads, self.key_heads());
        if key_heads == 0 || heads == 0 || !heads.is_multiple_of(key_heads) {
            let expected = format!("a divisor of num_attention_heads {heads}");
            return Err(wrong("num_key_value_heads", key_heads, expected));
        }
        // The others do not read what follows.
        if !self.model_type.is_gemma() {
            return Ok(());
        }
        if let Some(types) = &self.layer_types
            && types.len() != self.num_hidden_layers
        {
            let expected = format!("one for each of {} layers", self.num_hidden_layers);
            return Err(wrong("layer_types", types.len(), expected));
        }
        for (name, value) in [
            ("query_pre_attn_scalar", self.query_pre_attn_scalar),
            ("sliding_window_pattern", self.sliding_window_pattern),
        ] {
            if value == Some(0) {
                return Err(wrong(name, 0, "a number above 0"));
            }
        }
        for (name, value) in [
            ("attn_logit_softcapping", self.attn_logit_softcapping),
            ("final_logit_softcapping", self.final_logit_softcapping),
        ] {
            if let Some(cap) = value
                && !(cap > 0.0 && cap.is_finite())
            {
                return Err(wrong(name, cap, "a number above 0, or null"));
            }
        }
        Ok(())
    }

    /// The longest text that every token sees whole. Where a layer has a window, longer texts would need it.
    fn longest(&self) -> usize {
        let has_window = (0..self.num_hidden_layers).any(|layer| self.has_window(layer));
        let window = self.sliding_window.filter(|_| has_window);
        let positions = self.max_position_embeddings;
        window.map_or(positions, |window| window.min(positions))
    }
}

fn wrong(field: &str, found: impl ToString, expected: impl Into<String>) -> Error {
    Error::Config {
        field: field.into(),
        found: found.to_string(),
        expected: expected.into(),
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
            head_norms: self.model_type.norms_queries(),
            hidden: self.intermediate_size,
            activation: self.activation(),
            gated: true,
            dropout: Dropouts {
                states: false,
                attention: false,
                hidden: false,
            },
            relative_positions: false,
            layer_norm: false,
            normalize_before: true,
            norms_added: self.model_type.is_gemma(),
            capped_scores: self.soft_caps()[0].is_some(),
            embeddings: 1,
            outer_norms: 1,
            outer_dropouts: 0,
        };
        Sizes {
            encoder: None,
            decoder: stack,
            tied_head: self.tie_word_embeddings,
            capped_logits: self.soft_caps()[1].is_some(),
        }
    }
}

/// Tokens of an answer where nothing else is asked for: instruction-tuned models answer in sentences.
const ANSWER: usize = 64;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
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

    fn problem(config: CausalConfig) -> String {
        let found = config.init(&rag_core::device("cpu").unwrap());
        found.unwrap_err().to_string()
    }

    #[test]
    fn numbers_of_which_no_model_can_be_made_are_named() {
        let small = || CausalConfig {
            num_hidden_layers: 1,
            ..CausalConfig::gemma2()
        };
        for cap in [0.0, -1.0, f64::NAN] {
            let found = problem(CausalConfig {
                attn_logit_softcapping: Some(cap),
                ..small()
            });
            assert!(found.contains("attn_logit_softcapping"), "{found}");
            let found = problem(CausalConfig {
                final_logit_softcapping: Some(cap),
                ..small()
            });
            assert!(found.contains("final_logit_softcapping"), "{found}");
        }
        let found = problem(CausalConfig {
            query_pre_attn_scalar: Some(0),
            ..small()
        });
        assert!(found.contains("query_pre_attn_scalar"), "{found}");
        let found = problem(CausalConfig {
            sliding_window_pattern: Some(0),
            ..small()
        });
        assert!(found.contains("sliding_window_pattern"), "{found}");
        let found = problem(CausalConfig {
            layer_types: Some(vec![LayerType::FullAttention; 2]),
            ..small()
        });
        assert!(found.contains("layer_types"), "{found}");
    }

    #[test]
    fn a_window_limits_texts_where_a_layer_has_it() {
        let gemma = |layer_types: Option<Vec<LayerType>>| CausalConfig {
            num_hidden_layers: 2,
            sliding_window: Some(16),
            layer_types,
            ..CausalConfig::gemma3()
        };
        let [full, sliding] = [LayerType::FullAttention, LayerType::SlidingAttention];
        for (config, longest) in [
            // One layer in six sees all: none of two.
            (gemma(None), 16),
            (gemma(Some(vec![full, sliding])), 16),
            (gemma(Some(vec![full, full])), 131_072),
            (
                CausalConfig {
                    sliding_window: None,
                    ..gemma(None)
                },
                131_072,
            ),
            (
                CausalConfig {
                    sliding_window_pattern: Some(1),
                    ..gemma(None)
                },
                131_072,
            ),
            (
                CausalConfig {
                    sliding_window: Some(16),
                    ..CausalConfig::llama()
                },
                2048,
            ),
            (
                CausalConfig {
                    sliding_window: Some(16),
                    ..CausalConfig::qwen3()
                },
                32_768,
            ),
        ] {
            assert_eq!(config.longest_context(), Some(longest), "{config:?}");
        }
    }
}
