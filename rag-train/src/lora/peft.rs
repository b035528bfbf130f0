//! Adapters in the layout of PEFT: `adapter_config.json` and `adapter_model.safetensors`.

use std::path::Path;

use burn::module::{LoraAdapter, Param, ParamId};
use rag_core::{
    Error,
    checkpoint::{Names, Tensors, Weights, read_json, write_json, write_safetensors},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    config::{LoraConfig, Scaling},
    projections::{Adapters, Projections},
};
use crate::error::Result;

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";

/// Settings that make of LoRA something else, or store more than its factors, unless they are null,
/// false or empty.
const UNSUPPORTED: [&str; 16] = [
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "velora_config",
    "lora_bias",
    "fan_in_fan_out",
    "rank_pattern",
    "alpha_pattern",
    "modules_to_save",
    "layer_replication",
    "target_parameters",
    "trainable_token_indices",
    "alora_invocation_tokens",
];

/// Settings that may only be one of some words. The other ways to initialise change the base's weights.
const CHOICES: [(&str, &[&str]); 3] = [
    ("peft_type", &["LORA"]),
    ("bias", &["none"]),
    ("init_lora_weights", &["gaussian", "eva", "orthogonal"]),
];

/// The fields that are read of `adapter_config.json`.
#[derive(Deserialize)]
struct AdapterConfig {
    r: usize,
    lora_alpha: f64,
    #[serde(default)]
    use_rslora: bool,
    target_modules: Option<Vec<String>>,
    base_model_name_or_path: Option<String>,
}

/// The names of a [`LoraAdapter`]'s factors.
fn names() -> Names {
    Names::new(&[(".a", ".lora_B.weight"), (".b", ".lora_A.weight")])
}

fn prefix(module: &str) -> String {
    format!("base_model.model.{module}.")
}

/// Writes the adapters of `projections`, which are those of `config`.
pub(super) fn write(folder: &Path, config: &LoraConfig, projections: &Projections) -> Result<()> {
    let fields = json!({
        "peft_type": "LORA",
        "task_type": projections.task_type,
        "base_model_name_or_path": config.base_model,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "use_rslora": config.scaling == Scaling::RootOfRank,
        "target_modules": projections.target_modules(config),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": false,
        "init_lora_weights": true,
        "inference_mode": true,
    });
    write_json(folder.join(CONFIG), &fields)?;
    let mut tensors = Tensors::default();
    for projection in projections.adapted() {
        if let [a, b] = projection.factors.as_slice() {
            let [a, b] = [a, b].map(|factor| Param::initialized(ParamId::new(), factor.clone()));
            let adapter = LoraAdapter { a, b, scale: 1.0 };
            tensors.add(&adapter, &prefix(&projection.name), &names());
        }
    }
    Ok(write_safetensors(folder.join(WEIGHTS), &tensors)?)
}

/// Reads adapters for `projections`.
pub(super) fn read(folder: &Path, projections: &Projections) -> Result<(LoraConfig, Adapters)> {
    let mut config = read_config(&folder.join(CONFIG))?;
    config.check()?;
    let mut weights = Weights::open_adapter(folder)?;
    let mut adapters = Adapters::new();
    let mut found = Vec::new();
    for projection in &projections.all {
        let prefix = prefix(&projection.name);
        if weights.find_prefix(&[&prefix]).is_some() {
            let adapter = weights.fill(config.zeros(projection), &prefix, &names())?;
            adapters.insert(projection.id, adapter);
            found.push(projection.name.as_str());
        }
    }
    weights.finish(|_| false)?;
    // A pattern, or a list that PEFT's further settings narrow, is written out.
    let selected = projections.select(config.target_modules.as_deref());
    let selected = selected.unwrap_or_default().into_iter();
    if !selected
        .map(|projection| projection.name.as_str())
        .eq(found.iter().copied())
    {
        config.target_modules = Some(found.into_iter().map(str::to_owned).collect());
    }
    Ok((config, adapters))
}

fn read_config(path: &Path) -> Result<LoraConfig, Error> {
    let mut fields: Map<String, Value> = read_json(path)?;
    let refused = |field: &str, found: &Value, expected: String| Error::Config {
        field: field.into(),
        found: found.to_string(),
        expected,
    };
    for field in UNSUPPORTED {
        if let Some(value) = fields.get(field).filter(|value| !is_off(value)) {
            let expected =
                "none: adapters are LoRA's or rsLoRA's factors of one rank and nothing else";
            return Err(refused(field, value, expected.into()));
        }
    }
    for (field, choices) in CHOICES {
        if let Some(value) = fields.get(field)
            && let Some(word) = value.as_str()
            && !choices.contains(&word)
        {
            return Err(refused(field, value, choices.join(", ")));
        }
    }
    if fields.get("target_modules").is_some_and(Value::is_string) {
        fields.remove("target_modules");
    }
    let config: AdapterConfig =
        serde_json::from_value(Value::Object(fields)).map_err(Error::json(path))?;
    Ok(LoraConfig {
        rank: config.r,
        alpha: config.lora_alpha,
        scaling: if config.use_rslora {
            Scaling::RootOfRank
        } else {
            Scaling::Rank
        },
        target_modules: config.target_modules,
        base_model: config.base_model_name_or_path,
        ..LoraConfig::default()
    })
}

fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(values) => values.is_empty(),
        Value::Object(values) => values.is_empty(),
        _ => false,
    }
}
