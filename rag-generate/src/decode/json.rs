//! `generation_config.json`, as transformers writes it.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::config::{EarlyStopping, GenerationConfig};

impl Serialize for GenerationConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for GenerationConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut fields = Map::<String, Value>::deserialize(deserializer)?;
        if fields.get("top_k").is_some_and(Value::is_null) {
            fields.insert("top_k".to_owned(), Value::from(0));
        }
        fields.retain(|_, value| !value.is_null());
        Self::deserialize(Value::Object(fields)).map_err(D::Error::custom)
    }
}

impl Serialize for EarlyStopping {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::WhenFull => serializer.serialize_bool(true),
            Self::Heuristic => serializer.serialize_bool(false),
            Self::Never => serializer.serialize_str("never"),
        }
    }
}

impl<'de> Deserialize<'de> for EarlyStopping {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Bool(true) => Ok(Self::WhenFull),
            Value::Bool(false) => Ok(Self::Heuristic),
            Value::String(word) if word == "never" => Ok(Self::Never),
            other => Err(D::Error::custom(format!(
                "early_stopping is {other}, but has to be true, false or \"never\""
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_transformers_writes() {
        let text = r#"{"_from_model_config": true, "bos_token_id": 0, "decoder_start_token_id": 2, "early_stopping": true,
            "eos_token_id": 2, "forced_eos_token_id": [2, 3], "length_penalty": 2, "max_length": 142, "min_length": null,
            "no_repeat_ngram_size": 3, "num_beams": 4, "pad_token_id": 1, "transformers_version": "4.57.6"}"#;
        let config: GenerationConfig = serde_json::from_str(text).unwrap();
        let expected = GenerationConfig {
            forced_eos_token_id: vec![2, 3],
            ..GenerationConfig::beams(4)
                .with_bos_token_id(0)
                .with_decoder_start_token_id(2)
                .with_early_stopping(EarlyStopping::WhenFull)
                .with_eos_token_id(2)
                .with_length_penalty(2.0)
                .with_max_length(142)
                .with_no_repeat_ngram_size(3)
                .with_pad_token_id(1)
        };
        assert_eq!(config, expected);
        config.validate().unwrap();
    }

    #[test]
    fn survives_its_own_json() {
        for early_stopping in [
            EarlyStopping::WhenFull,
            EarlyStopping::Heuristic,
            EarlyStopping::Never,
        ] {
            let config = GenerationConfig {
                eos_token_id: vec![2, 5],
                ..GenerationConfig::sampling(9)
            }
            .with_early_stopping(early_stopping)
            .with_max_new_tokens(7)
            .with_bad_words_ids([vec![1, 2]]);
            let text = serde_json::to_string(&config).unwrap();
            assert_eq!(
                serde_json::from_str::<GenerationConfig>(&text).unwrap(),
                config,
                "{text}"
            );
        }
    }

    #[test]
    fn null_is_the_default_and_no_top_k() {
        let config: GenerationConfig =
            serde_json::from_str(r#"{"eos_token_id": null, "temperature": null, "top_k": null}"#)
                .unwrap();
        assert_eq!(config, GenerationConfig::default().with_top_k(0));
    }

    #[test]
    fn refuses_an_unknown_word_for_early_stopping() {
        let error = serde_json::from_str::<GenerationConfig>(r#"{"early_stopping": "always"}"#)
            .unwrap_err();
        assert!(error.to_string().contains("\"never\""), "{error}");
    }
}
