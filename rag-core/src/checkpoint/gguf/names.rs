//! Tensors under transformers' names, from llama.cpp's.

use super::{
    architecture::Architecture, container::Container, description::Description, error::GgufError,
    heads::Heads, keys::Keys, rope, weight::Weight,
};

type Result<T> = std::result::Result<T, GgufError>;

/// The tensors under transformers' names. Those that transformers computes from the configuration are left out.
pub(super) fn weights(container: &Container, architecture: Architecture) -> Result<Vec<Weight>> {
    let keys = Keys::new(container.metadata(), architecture);
    let (heads, layers) = (Heads::of(&keys)?, keys.dimension("block_count")?);
    (container.descriptions())
        .filter(|found| !matches!(found, Ok(found) if found.name == rope::FACTORS))
        .map(|found| weight(container, architecture, &found?, &heads, layers))
        .collect()
}

/// One tensor, with what reverses the converter's changes.
fn weight(
    container: &Container,
    architecture: Architecture,
    found: &Description<'_>,
    heads: &Heads,
    layers: usize,
) -> Result<Weight> {
    let unknown = || GgufError::UnknownTensor {
        tensor: found.name.to_owned(),
        architecture: architecture.name(),
    };
    let (stem, suffix) = found.name.rsplit_once('.').ok_or_else(unknown)?;
    if !matches!(suffix, "weight" | "bias") {
        return Err(unknown());
    }
    let name = module(architecture, stem, layers).ok_or_else(unknown)?;
    let count = match stem.rsplit_once('.') {
        Some((_, "attn_q")) if architecture.interleaves_heads() => Some(heads.queries),
        Some((_, "attn_k")) if architecture.interleaves_heads() => Some(heads.keys),
        _ => None,
    };
    let interleaved = match count {
        Some(count) => Some(rows_of_a_head(found, count)?),
        None => None,
    };
    let norm = architecture.is_gemma() && stem.ends_with("norm");
    Ok(Weight {
        name: format!("{name}.{suffix}"),
        shape: found.shape.clone(),
        kind: found.kind,
        bytes: container.tensor_bytes(found),
        interleaved,
        shift: if norm { -1.0 } else { 0.0 },
    })
}

/// Rows of each of `heads` heads that the tensor holds.
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

/// Transformers' name of a tensor, both without `.weight` or `.bias`, of a model with so many layers.
fn module(architecture: Architecture, name: &str, layers: usize) -> Option<String> {
    let Some(rest) = name.strip_prefix("blk.") else {
        return Some(match name {
            "token_embd" => "model.embed_tokens".into(),
            "output_norm" => "model.norm".into(),
            "output" => "lm_head".into(),
            _ => return None,
        });
    };
    let (layer, name) = rest.split_once('.')?;
    let number: usize = layer.parse().ok()?;
    // Another spelling of a number would be a second tensor of the same name.
    if number >= layers || number.to_string() != layer {
        return None;
    }
    let module = match name {
        "attn_norm" => "input_layernorm",
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_output" => "self_attn.o_proj",
        "attn_q_norm" => "self_attn.q_norm",
        "attn_k_norm" => "self_attn.k_norm",
        "ffn_norm" if architecture.is_gemma() => "pre_feedforward_layernorm",
        "ffn_norm" => "post_attention_layernorm",
        "post_attention_norm" if architecture.is_gemma() => "post_attention_layernorm",
        "post_ffw_norm" if architecture.is_gemma() => "post_feedforward_layernorm",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        _ => return None,
    };
    Some(format!("model.layers.{layer}.{module}"))
}
