//! Folders with the shapes of published language models and random weights, for measurements without a download.

use std::{
    error::Error,
    fs::File,
    io::{BufWriter, Write},
    path::Path,
};

use burn_rag::{
    core::checkpoint::write_json,
    generate::generator::{GeneratorConfig, fixtures::Random},
};
use serde_json::{Map, json};

/// `config.json` by name.
const SHAPES: [(&str, &str); 4] = [
    (
        "tiny",
        r#"{"model_type": "qwen2", "vocab_size": 200, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 2048, "tie_word_embeddings": true}"#,
    ),
    (
        "qwen2.5-0.5b",
        r#"{"model_type": "qwen2", "vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864,
        "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
        "max_position_embeddings": 32768, "tie_word_embeddings": true}"#,
    ),
    (
        "llama-3.2-1b",
        r#"{"model_type": "llama", "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192,
        "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
        "max_position_embeddings": 131072, "tie_word_embeddings": true}"#,
    ),
    (
        "smollm2-1.7b",
        r#"{"model_type": "llama", "vocab_size": 49152, "hidden_size": 2048, "intermediate_size": 8192,
        "num_hidden_layers": 24, "num_attention_heads": 32, "num_key_value_heads": 32,
        "max_position_embeddings": 8192, "tie_word_embeddings": true}"#,
    ),
];

/// The configuration of a shape.
pub fn shape(name: &str) -> Result<GeneratorConfig, Box<dyn Error>> {
    match SHAPES.iter().find(|(known, _)| *known == name) {
        Some((_, config)) => Ok(serde_json::from_str(config)?),
        None => {
            let known = SHAPES.map(|(name, _)| name).join(", ");
            Err(format!("no shape {name:?}: {known}").into())
        }
    }
}

/// Writes `config.json`, and `model.safetensors` in bf16 tensor by tensor: the model is never in memory.
pub fn make(config: &GeneratorConfig, folder: &Path) -> Result<(), Box<dyn Error>> {
    std::fs::create_dir_all(folder)?;
    write_json(folder.join("config.json"), config)?;
    let tensors = tensors(config);
    let mut header = Map::new();
    let mut end = 0;
    for (name, shape) in &tensors {
        let start = end;
        end += 2 * shape.iter().product::<usize>();
        let entry = json!({"dtype": "BF16", "shape": shape, "data_offsets": [start, end]});
        header.insert(name.clone(), entry);
    }
    header.insert("__metadata__".into(), json!({"format": "pt"}));
    let mut header = serde_json::to_vec(&header)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = BufWriter::new(File::create(folder.join("model.safetensors"))?);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(&header)?;
    let mut random = Random(1);
    for (name, shape) in &tensors {
        let center = if name.contains("norm") { 1.0 } else { 0.0 };
        for _ in 0..shape.iter().product() {
            // As widely spread as a normal distribution with the standard deviation 0.02 that models begin with.
            let number = center + random.unit() * 0.035;
            file.write_all(&((number.to_bits() >> 16) as u16).to_le_bytes())?;
        }
    }
    Ok(file.flush()?)
}

/// The tensors of a model, with their shapes.
pub fn tensors(config: &GeneratorConfig) -> Vec<(String, Vec<usize>)> {
    let sizes = config.family().sizes();
    let stack = sizes.decoder;
    let biased = serde_json::to_value(config).is_ok_and(|config| config["model_type"] == "qwen2");
    let d = stack.d_model;
    let word_embeddings = vec![config.vocabulary(), d];
    let mut all = vec![
        (
            "model.embed_tokens.weight".to_owned(),
            word_embeddings.clone(),
        ),
        ("model.norm.weight".to_owned(), vec![d]),
    ];
    if !sizes.tied_head {
        all.push(("lm_head.weight".to_owned(), word_embeddings));
    }
    for layer in 0..stack.layers {
        let mut add = |name: &str, shape: &[usize]| {
            all.push((format!("model.layers.{layer}.{name}"), shape.to_vec()));
        };
        let keys = stack.key_inner;
        for (name, size) in [("q", stack.inner), ("k", keys), ("v", keys)] {
            add(&format!("self_attn.{name}_proj.weight"), &[size, d]);
            if biased {
                add(&format!("self_attn.{name}_proj.bias"), &[size]);
            }
        }
        add("self_attn.o_proj.weight", &[d, stack.inner]);
        add("mlp.gate_proj.weight", &[stack.hidden, d]);
        add("mlp.up_proj.weight", &[stack.hidden, d]);
        add("mlp.down_proj.weight", &[d, stack.hidden]);
        add("input_layernorm.weight", &[d]);
        add("post_attention_layernorm.weight", &[d]);
    }
    all
}
