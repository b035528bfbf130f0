//! The values of an equivalent `config.json`, made from the metadata.

use serde_json::{Map, Value, json};

use super::{
    architecture::Architecture, container::Container, error::GgufError, heads::Heads, keys::Keys,
    metadata::Metadata, rope, vocabulary::Vocabulary,
};

type Result<T> = std::result::Result<T, GgufError>;

/// The values that transformers 4 would have in `config.json`.
pub(super) fn config(container: &Container, architecture: Architecture) -> Result<Value> {
    let keys = Keys::new(container.metadata(), architecture);
    let heads = Heads::of(&keys)?;
    if let Some(experts) = keys.count("expert_count")?
        && experts > 0
    {
        return Err(keys.unsupported("expert_count", experts, "a model without experts"));
    }
    let embeddings = container.description("token_embd.weight")?;
    let embeddings =
        embeddings.ok_or_else(|| GgufError::damaged("there is no tensor token_embd.weight"))?;
    let theta = keys.number("rope.freq_base")?.unwrap_or(10_000.0);
    let epsilon = (keys.number("attention.layer_norm_rms_epsilon")?)
        .ok_or_else(|| keys.wrong("attention.layer_norm_rms_epsilon", "a number", "nothing"))?;
    for (key, value) in [
        ("rope.freq_base", theta),
        ("attention.layer_norm_rms_epsilon", epsilon),
    ] {
        if value <= 0.0 {
            return Err(keys.wrong(key, "a positive number", value));
        }
    }
    let window = (keys.count("attention.sliding_window")?).filter(|window| *window > 0);
    let (model_type, class) = match architecture {
        Architecture::Llama if window.is_some() => ("mistral", "MistralForCausalLM"),
        Architecture::Llama => ("llama", "LlamaForCausalLM"),
        Architecture::Mistral3 => ("mistral", "MistralForCausalLM"),
        Architecture::SmolLm3 => ("smollm3", "SmolLM3ForCausalLM"),
        Architecture::Granite => ("granite", "GraniteForCausalLM"),
        Architecture::Qwen2 => ("qwen2", "Qwen2ForCausalLM"),
        Architecture::Qwen3 => ("qwen3", "Qwen3ForCausalLM"),
        Architecture::Gemma2 => ("gemma2", "Gemma2ForCausalLM"),
        Architecture::Gemma3 => ("gemma3_text", "Gemma3ForCausalLM"),
    };
    let mut config = json!({
        "architectures": [class],
        "model_type": model_type,
        "hidden_size": keys.dimension("embedding_length")?,
        "num_hidden_layers": keys.dimension("block_count")?,
        "num_attention_heads": heads.queries,
        "num_key_value_heads": heads.keys,
        "head_dim": heads.size,
        "intermediate_size": keys.dimension("feed_forward_length")?,
        "vocab_size": embeddings.shape[0],
        "max_position_embeddings": keys.dimension("context_length")?,
        "rms_norm_eps": shortest(epsilon),
        "rope_theta": shortest(theta),
        "rope_scaling": rope::scaling(container, &keys, heads.size, theta)?,
        "tie_word_embeddings": container.description("output.weight")?.is_none(),
        "attention_bias": container.description("blk.0.attn_q.bias")?.is_some(),
        "mlp_bias": container.description("blk.0.ffn_up.bias")?.is_some(),
    });
    if let Value::Object(values) = &mut config {
        let activation = match architecture.is_gemma() {
            true => ("hidden_activation", "gelu_pytorch_tanh"),
            false => ("hidden_act", "silu"),
        };
        values.insert(activation.0.into(), activation.1.into());
        // Without the key llama.cpp takes Gemma 2's own window, which is transformers' default too.
        let by_default = architecture == Architecture::Gemma2 && window.is_none();
        if architecture != Architecture::Granite && !by_default {
            values.insert("sliding_window".into(), window.into());
        }
        special(&keys, &heads, window, values)?;
        tokens(container.metadata(), values)?;
    }
    Ok(config)
}

/// Adds the values that only some architectures have.
fn special(
    keys: &Keys<'_>,
    heads: &Heads,
    window: Option<usize>,
    values: &mut Map<String, Value>,
) -> Result<()> {
    let mut set = |name: &str, value: Value| values.insert(name.to_owned(), value);
    let number = |key: &str| keys.number(key).map(|number| number.map(shortest));
    match keys.architecture {
        Architecture::Llama | Architecture::Mistral3 => {
            if let Some(scale) = number("attention.temperature_scale")?
                && scale != 0.0
            {
                return Err(keys.unsupported("attention.temperature_scale", scale, "none"));
            }
        }
        Architecture::Qwen2 | Architecture::Qwen3 => {
            set("use_sliding_window", window.is_some().into());
            set("max_window_layers", 0.into());
        }
        // Every fourth layer has no positions. llama.cpp has no key for it either.
        Architecture::SmolLm3 => {
            set("no_rope_layer_interval", 4.into());
        }
        Architecture::Granite => {
            for (name, key) in [
                ("embedding_multiplier", "embedding_scale"),
                ("residual_multiplier", "residual_scale"),
                ("attention_multiplier", "attention.scale"),
                ("logits_scaling", "logit_scale"),
            ] {
                if let Some(value) = number(key)? {
                    set(name, value.into());
                }
            }
        }
        Architecture::Gemma2 | Architecture::Gemma3 => {
            // The largest models scale queries otherwise. llama.cpp knows them by their number of layers.
            let largest = match keys.architecture {
                Architecture::Gemma2 => 46,
                _ => 62,
            };
            let scalar = match keys.dimension("block_count")? == largest {
                true => keys.dimension("embedding_length")? / heads.queries,
                false => heads.size,
            };
            if scalar == 0 {
                return Err(GgufError::metadata(
                    "attention.head_count",
                    "at most as many heads as the width of the model",
                    heads.queries.to_string(),
                ));
            }
            set("query_pre_attn_scalar", scalar.into());
            // Without them both llama.cpp and transformers take the architecture's own.
            for name in ["attn_logit_softcapping", "final_logit_softcapping"] {
                if let Some(cap) = number(name)? {
                    set(name, cap.into());
                }
            }
            let pattern = keys.count("attention.sliding_window_pattern")?;
            if let Some(pattern) = pattern {
                set("sliding_window_pattern", pattern.into());
            }
            if keys.architecture == Architecture::Gemma3 {
                let local = number("rope.freq_base_swa")?.unwrap_or(10_000.0);
                set("rope_local_base_freq", local.into());
                // Without a window no layer is local.
                let pattern = match window {
                    Some(_) => pattern.unwrap_or(6),
                    None => 1,
                };
                set("sliding_window_pattern", pattern.into());
            }
        }
    }
    Ok(())
}

/// Adds the ids of the special tokens.
fn tokens(metadata: Metadata<'_>, values: &mut Map<String, Value>) -> Result<()> {
    let vocabulary = Vocabulary::of(metadata)?;
    // Whoever ends a text with one token takes the first: the model's own.
    let mut ends = vocabulary.end_tokens();
    ends.sort_by_key(|end| Some(*end) != vocabulary.eos);
    values.insert("bos_token_id".into(), vocabulary.bos.into());
    values.insert("eos_token_id".into(), ends.into());
    values.insert("pad_token_id".into(), vocabulary.pad.into());
    Ok(())
}

/// Rounds an f32 of the file to its shortest decimal: 9.999999747378752e-6 becomes 1e-5.
fn shortest(number: f64) -> f64 {
    let single = number as f32;
    match f64::from(single) == number {
        true => single.to_string().parse().unwrap_or(number),
        false => number,
    }
}
