//! Metadata as the values of an equivalent `config.json`.

use serde_json::{Map, Value, json};

use super::{Architecture, Gguf, GgufError, metadata::Metadata, rope, vocabulary::Vocabulary};

type Result<T> = std::result::Result<T, GgufError>;

/// Metadata whose keys begin with the architecture's name.
pub(super) struct Keys<'a> {
    metadata: Metadata<'a>,
    architecture: Architecture,
}

impl<'a> Keys<'a> {
    pub fn of(gguf: &'a Gguf) -> Self {
        Self {
            metadata: gguf.metadata(),
            architecture: gguf.architecture,
        }
    }

    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture.name())
    }

    pub fn text(&self, key: &str) -> Result<Option<&'a str>> {
        self.metadata.text(&self.key(key))
    }

    pub fn count(&self, key: &str) -> Result<Option<usize>> {
        self.metadata.count(&self.key(key))
    }

    pub fn number(&self, key: &str) -> Result<Option<f64>> {
        self.metadata.number(&self.key(key))
    }

    pub fn wrong(&self, key: &str, expected: &str, found: impl ToString) -> GgufError {
        GgufError::metadata(&self.key(key), expected, found)
    }

    pub fn unsupported(&self, key: &str, found: impl ToString, expected: &str) -> GgufError {
        GgufError::Unsupported {
            key: self.key(key),
            found: found.to_string(),
            expected: expected.to_owned(),
        }
    }

    /// A number of things of which a model has at least one, and not more than 2^24.
    fn some(&self, key: &str) -> Result<usize> {
        match self.count(key)? {
            Some(count) if (1..=1 << 24).contains(&count) => Ok(count),
            Some(found) => Err(self.wrong(key, "a number from 1 to 2^24", found)),
            None => Err(self.wrong(key, "a number", "nothing")),
        }
    }
}

/// Heads of attention in each layer.
pub(super) struct Heads {
    pub queries: usize,
    pub keys: usize,
    pub size: usize,
}

impl Heads {
    pub fn of(gguf: &Gguf) -> Result<Self> {
        let keys = Keys::of(gguf);
        let queries = keys.some("attention.head_count")?;
        let own = match keys.count("attention.head_count_kv")? {
            None => queries,
            Some(_) => keys.some("attention.head_count_kv")?,
        };
        let hidden = keys.some("embedding_length")?;
        let size = match keys.count("attention.key_length")? {
            Some(_) => keys.some("attention.key_length")?,
            None if hidden.is_multiple_of(queries) => hidden / queries,
            None => {
                return Err(keys.wrong("attention.head_count", "a divisor of the width", queries));
            }
        };
        if !queries.is_multiple_of(own) || !size.is_multiple_of(2) {
            return Err(keys.wrong(
                "attention.head_count_kv",
                "a divisor of the query heads, of even size",
                format!("{own} of {queries} heads of size {size}"),
            ));
        }
        for key in ["attention.value_length", "rope.dimension_count"] {
            if let Some(other) = keys.count(key)?
                && other != size
            {
                return Err(keys.unsupported(key, other, &format!("the keys' size {size}")));
            }
        }
        Ok(Self {
            queries,
            keys: own,
            size,
        })
    }
}

pub(super) fn config(gguf: &Gguf) -> Result<Value> {
    let keys = Keys::of(gguf);
    let architecture = gguf.architecture;
    let heads = Heads::of(gguf)?;
    if let Some(experts) = keys.count("expert_count")?
        && experts > 0
    {
        return Err(keys.unsupported("expert_count", experts, "a model without experts"));
    }
    let embeddings = gguf.description("token_embd.weight")?;
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
        "hidden_size": keys.some("embedding_length")?,
        "num_hidden_layers": keys.some("block_count")?,
        "num_attention_heads": heads.queries,
        "num_key_value_heads": heads.keys,
        "head_dim": heads.size,
        "intermediate_size": keys.some("feed_forward_length")?,
        "vocab_size": embeddings.shape[0],
        "max_position_embeddings": keys.some("context_length")?,
        "rms_norm_eps": shortest(epsilon),
        "rope_theta": shortest(theta),
        "rope_scaling": rope::scaling(gguf, &keys, heads.size, theta)?,
        "tie_word_embeddings": gguf.description("output.weight")?.is_none(),
        "attention_bias": gguf.description("blk.0.attn_q.bias")?.is_some(),
        "mlp_bias": gguf.description("blk.0.ffn_up.bias")?.is_some(),
    });
    if let Value::Object(values) = &mut config {
        let activation = match architecture.is_gemma() {
            true => ("hidden_activation", "gelu_pytorch_tanh"),
            false => ("hidden_act", "silu"),
        };
        values.insert(activation.0.into(), activation.1.into());
        if architecture != Architecture::Granite {
            values.insert("sliding_window".into(), window.into());
        }
        special(&keys, &heads, window, values)?;
        tokens(gguf, values)?;
    }
    Ok(config)
}

/// What one architecture has and others lack.
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
        // llama.cpp has no key for it either: every fourth layer goes without positions.
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
            // llama.cpp knows the largest models, which scale otherwise, by their number of layers.
            let largest = match keys.architecture {
                Architecture::Gemma2 => 46,
                _ => 62,
            };
            let scalar = match keys.some("block_count")? == largest {
                true => keys.some("embedding_length")? / heads.queries,
                false => heads.size,
            };
            set("query_pre_attn_scalar", scalar.into());
            for name in ["attn_logit_softcapping", "final_logit_softcapping"] {
                set(name, number(name)?.into());
            }
            if keys.architecture == Architecture::Gemma3 {
                let local = number("rope.freq_base_swa")?.unwrap_or(10_000.0);
                set("rope_local_base_freq", local.into());
                set("sliding_window_pattern", 6.into());
            }
        }
    }
    Ok(())
}

fn tokens(gguf: &Gguf, values: &mut Map<String, Value>) -> Result<()> {
    let vocabulary = Vocabulary::of(gguf.metadata())?;
    values.insert("bos_token_id".into(), vocabulary.bos.into());
    values.insert("eos_token_id".into(), vocabulary.end_tokens().into());
    values.insert("pad_token_id".into(), vocabulary.pad.into());
    Ok(())
}

/// The shortest decimal of the f32 that the file holds: 1e-5, where it holds 9.999999747378752e-6.
fn shortest(number: f64) -> f64 {
    let single = number as f32;
    match f64::from(single) == number {
        true => single.to_string().parse().unwrap_or(number),
        false => number,
    }
}
