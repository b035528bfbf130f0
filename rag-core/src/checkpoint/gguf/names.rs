//! llama.cpp's names of architectures and tensors, and transformers'.

use super::{Description, Gguf, GgufError, metadata::Metadata, weight::Weight};

type Result<T> = std::result::Result<T, GgufError>;

/// The architectures whose layout is known, by `general.architecture`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Architecture {
    /// `llama`: Llama, SmolLM2, Mistral 7B and what else has their layout.
    Llama,
    /// `mistral3`: Mistral Small 3.1 and later, Ministral 3.
    Mistral3,
    /// `smollm3`: SmolLM3.
    SmolLm3,
    /// `granite`: Granite 3, dense.
    Granite,
    /// `qwen2`: Qwen2 and Qwen2.5, dense.
    Qwen2,
    /// `qwen3`: Qwen3, dense.
    Qwen3,
    /// `gemma2`: Gemma 2.
    Gemma2,
    /// `gemma3`: Gemma 3, text.
    Gemma3,
}

impl Architecture {
    const ALL: [Self; 8] = [
        Self::Llama,
        Self::Mistral3,
        Self::SmolLm3,
        Self::Granite,
        Self::Qwen2,
        Self::Qwen3,
        Self::Gemma2,
        Self::Gemma3,
    ];

    pub(super) fn of(metadata: Metadata<'_>) -> Result<Self> {
        let key = "general.architecture";
        let found = (metadata.text(key)?)
            .ok_or_else(|| GgufError::metadata(key, "the name of an architecture", "nothing"))?;
        let known = Self::ALL.into_iter().find(|own| own.name() == found);
        known.ok_or_else(|| GgufError::Architecture {
            found: found.chars().take(80).collect(),
            known: Self::ALL.map(Self::name).join(", "),
        })
    }

    /// llama.cpp's name, with which the metadata keys begin.
    pub fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Mistral3 => "mistral3",
            Self::SmolLm3 => "smollm3",
            Self::Granite => "granite",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Gemma2 => "gemma2",
            Self::Gemma3 => "gemma3",
        }
    }

    /// Whether the converter rearranges the rows of queries and keys. llama.cpp rotates pairs of neighbours in
    /// these architectures, and halves as transformers does in the others.
    pub fn interleaves_heads(self) -> bool {
        match self {
            Self::Llama | Self::Mistral3 | Self::SmolLm3 | Self::Granite => true,
            Self::Qwen2 | Self::Qwen3 | Self::Gemma2 | Self::Gemma3 => false,
        }
    }

    pub(super) fn is_gemma(self) -> bool {
        matches!(self, Self::Gemma2 | Self::Gemma3)
    }

    /// transformers' name of a tensor, without `.weight` or `.bias`.
    fn module(self, name: &str) -> Option<String> {
        let Some(rest) = name.strip_prefix("blk.") else {
            return Some(match name {
                "token_embd" => "model.embed_tokens".into(),
                "output_norm" => "model.norm".into(),
                "output" => "lm_head".into(),
                _ => return None,
            });
        };
        let (layer, name) = rest.split_once('.')?;
        let layer: usize = layer.parse().ok()?;
        let module = match name {
            "attn_norm" => "input_layernorm",
            "attn_q" => "self_attn.q_proj",
            "attn_k" => "self_attn.k_proj",
            "attn_v" => "self_attn.v_proj",
            "attn_output" => "self_attn.o_proj",
            "attn_q_norm" => "self_attn.q_norm",
            "attn_k_norm" => "self_attn.k_norm",
            "ffn_norm" if self.is_gemma() => "pre_feedforward_layernorm",
            "ffn_norm" => "post_attention_layernorm",
            "post_attention_norm" if self.is_gemma() => "post_attention_layernorm",
            "post_ffw_norm" if self.is_gemma() => "post_feedforward_layernorm",
            "ffn_gate" => "mlp.gate_proj",
            "ffn_up" => "mlp.up_proj",
            "ffn_down" => "mlp.down_proj",
            _ => return None,
        };
        Some(format!("model.layers.{layer}.{module}"))
    }
}

/// What transformers computes from the configuration instead.
const IGNORED: [&str; 1] = [super::rope::FACTORS];

pub(super) fn weights(gguf: &Gguf) -> Result<Vec<Weight>> {
    let heads = super::config::Heads::of(gguf)?;
    (gguf.descriptions())
        .filter(|found| !matches!(found, Ok(found) if IGNORED.contains(&found.name)))
        .map(|found| weight(gguf, &found?, &heads))
        .collect()
}

fn weight(gguf: &Gguf, found: &Description<'_>, heads: &super::config::Heads) -> Result<Weight> {
    let architecture = gguf.architecture;
    let unknown = || GgufError::UnknownTensor {
        tensor: found.name.to_owned(),
        architecture: architecture.name(),
    };
    let (module, suffix) = found.name.rsplit_once('.').ok_or_else(unknown)?;
    if !matches!(suffix, "weight" | "bias") {
        return Err(unknown());
    }
    let name = architecture.module(module).ok_or_else(unknown)?;
    let count = match module.rsplit_once('.') {
        Some((_, "attn_q")) if architecture.interleaves_heads() => Some(heads.queries),
        Some((_, "attn_k")) if architecture.interleaves_heads() => Some(heads.keys),
        _ => None,
    };
    let interleaved = match count {
        Some(count) => Some(rows_of_a_head(found, count)?),
        None => None,
    };
    let norm = architecture.is_gemma() && module.ends_with("norm");
    Ok(Weight {
        name: format!("{name}.{suffix}"),
        shape: found.shape.clone(),
        kind: found.kind,
        bytes: gguf.tensor_bytes(found),
        interleaved,
        shift: if norm { -1.0 } else { 0.0 },
    })
}

fn rows_of_a_head(found: &Description<'_>, heads: usize) -> Result<usize> {
    let rows = found.shape[0];
    let vector_of_blocks = found.shape.len() == 1 && found.kind.elements() > 1;
    if heads == 0 || !rows.is_multiple_of(2 * heads) || vector_of_blocks {
        return Err(GgufError::damaged(format!(
            "tensor {} of shape {:?} does not hold {heads} heads",
            found.name, found.shape
        )));
    }
    Ok(rows / heads)
}
