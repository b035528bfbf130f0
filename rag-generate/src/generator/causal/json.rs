//! `config.json`, read and written: fields have the defaults of their `model_type`.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _, ser::Error as _};
use serde_json::{Map, Value};

use super::{config::CausalConfig, model_type::ModelType};

impl Serialize for CausalConfig {
    /// A field that is not set is left out, and null where its `model_type` has a default.
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut fields = fields(self).map_err(S::Error::custom)?;
        let defaults = fields_of(self.model_type).map_err(S::Error::custom)?;
        for (name, _) in defaults {
            fields.entry(name).or_insert(Value::Null);
        }
        fields.serialize(to)
    }
}

impl<'de> Deserialize<'de> for CausalConfig {
    /// A field that is not in the file has the default of its `model_type`.
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut own: Map<String, Value> = Map::deserialize(from)?;
        let model_type = own.get("model_type").cloned();
        let model_type = model_type.ok_or_else(|| D::Error::missing_field("model_type"))?;
        let model_type = serde_json::from_value(model_type).map_err(D::Error::custom)?;
        if own.get("use_bidirectional_attention") == Some(&true.into()) {
            let problem =
                "use_bidirectional_attention is true: an encoder of texts, not a generator";
            return Err(D::Error::custom(problem));
        }
        positions(&mut own).map_err(D::Error::custom)?;
        // Old files say so that there is no such token.
        let none = |value: &Value| value.as_i64().is_some_and(|id| id < 0);
        own.retain(|name, value| !(name.ends_with("_token_id") && none(value)));
        let mut fields = fields_of(model_type).map_err(D::Error::custom)?;
        fields.extend(own);
        Self::deserialize(Value::Object(fields)).map_err(D::Error::custom)
    }
}

/// The fields of the defaults of `model_type`.
fn fields_of(model_type: ModelType) -> serde_json::Result<Map<String, Value>> {
    fields(&CausalConfig::of(model_type))
}

fn fields(config: &CausalConfig) -> serde_json::Result<Map<String, Value>> {
    // The derived function, not the one above.
    serde_json::from_value(CausalConfig::serialize(
        config,
        serde_json::value::Serializer,
    )?)
}

/// `rope_parameters`, as transformers 5 writes base and scaling of positions together, in the fields that they had before: of
/// Gemma 3 for each kind of layer.
fn positions(own: &mut Map<String, Value>) -> Result<(), String> {
    let Some(mut parameters) = own.remove("rope_parameters") else {
        return Ok(());
    };
    if let Some(local) = parameters.get("sliding_attention") {
        let kind = &local["rope_type"];
        if !(kind.is_null() || kind == "default") {
            return Err(format!(
                "rope_parameters.sliding_attention.rope_type is {kind}: only default is supported in layers with a window"
            ));
        }
        if let Some(theta) = local.get("rope_theta") {
            own.insert("rope_local_base_freq".into(), theta.clone());
        }
    }
    if let Some(full) = parameters.get_mut("full_attention") {
        parameters = full.take();
    }
    if let Some(theta) = parameters.get("rope_theta") {
        own.insert("rope_theta".into(), theta.clone());
    }
    own.insert("rope_scaling".into(), parameters);
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(config: Value) -> serde_json::Result<CausalConfig> {
        serde_json::from_value(config)
    }

    #[test]
    fn what_is_written_is_read_again_also_where_a_default_is_not_set() {
        for name in CausalConfig::MODEL_TYPES {
            let default = read(json!({"model_type": name})).unwrap();
            let bare = CausalConfig {
                num_key_value_heads: None,
                head_dim: None,
                sliding_window: None,
                attn_logit_softcapping: None,
                final_logit_softcapping: None,
                ..default.clone()
            };
            for config in [default, bare] {
                let written = serde_json::to_value(&config).unwrap();
                assert_eq!(read(written).unwrap(), config);
            }
        }
        // No field that another kind of model alone has.
        let written = serde_json::to_value(CausalConfig::llama()).unwrap();
        assert_eq!(written.get("attn_logit_softcapping"), None);
        let written = serde_json::to_value(CausalConfig::gemma3()).unwrap();
        assert_eq!(written["attn_logit_softcapping"], Value::Null);
    }

    #[test]
    fn positions_are_read_as_transformers_5_writes_them() {
        let config = read(json!({"model_type": "llama", "rope_parameters": {
            "rope_type": "linear", "factor": 2.0, "rope_theta": 500.0,
        }}));
        let config = config.unwrap();
        assert_eq!(config.rope_theta, 500.0);
        assert_eq!(config.rope_scaling.unwrap().factor, Some(2.0));
        let of_layers = |local: Value| {
            let full = json!({"rope_type": "linear", "factor": 8.0, "rope_theta": 9e5});
            let parameters = json!({"full_attention": full, "sliding_attention": local});
            read(json!({"model_type": "gemma3_text", "rope_parameters": parameters}))
        };
        let config = of_layers(json!({"rope_type": "default", "rope_theta": 2e4})).unwrap();
        assert_eq!(config.rope_theta, 9e5);
        assert_eq!(config.rope_scaling.unwrap().factor, Some(8.0));
        assert_eq!(config.rope_local_base_freq, Some(2e4));
        let config = of_layers(json!({"rope_type": "default"})).unwrap();
        assert_eq!(config.rope_local_base_freq, Some(1e4));
        let local = json!({"rope_type": "yarn", "factor": 2.0, "rope_theta": 2e4});
        let error = of_layers(local).unwrap_err().to_string();
        assert!(error.contains("yarn"), "{error}");
    }

    #[test]
    fn what_is_no_generator_is_refused() {
        let encoder = json!({"model_type": "gemma3_text", "use_bidirectional_attention": true});
        let error = read(encoder).unwrap_err().to_string();
        assert!(error.contains("use_bidirectional_attention"), "{error}");
        let error = read(json!({"vocab_size": 9})).unwrap_err().to_string();
        assert!(error.contains("model_type"), "{error}");
    }
}
