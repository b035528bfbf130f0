//! `generation_config.json`, as transformers writes it.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::config::{EarlyStopping, GenerationConfig};

impl Serialize for GenerationConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.decoder_start_token_id == Some(Self::PROMPT_END) {
            let written = Self {
                decoder_start_token_id: None,
                ..self.clone()
            };
            return Self::serialize(&written, serializer);
        }
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
        let config = Self::deserialize(Value::Object(fields)).map_err(D::Error::custom)?;
        match config.decoder_start_token_id {
            Some(Self::PROMPT_END) => Err(D::Error::custom(format!(
                "decoder_start_token_id is {}, which is no token; leave it out for a model that starts at its prompt's end",
                Self::PROMPT_END
            ))),
            _ => Ok(config),
        }
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
    fn the_newer_lengths_and_stop_strings_are_read_and_written() {
        for (text, stop_strings) in [
            (
                r#"{"min_new_tokens": 3, "stop_strings": "\n"}"#,
                vec!["\n".to_owned()],
            ),
            (
                r#"{"min_new_tokens": 3, "stop_strings": ["\n", "Question:"]}"#,
                vec!["\n".to_owned(), "Question:".to_owned()],
            ),
            (r#"{"min_new_tokens": 3, "stop_strings": null}"#, vec![]),
        ] {
            let config: GenerationConfig = serde_json::from_str(text).unwrap();
            assert_eq!(config.min_new_tokens, Some(3));
            assert_eq!(config.stop_strings, stop_strings);
            let written = serde_json::to_value(&config).unwrap();
            let given: Value = serde_json::from_str(text).unwrap();
            assert_eq!(written["min_new_tokens"], given["min_new_tokens"]);
            assert_eq!(written["stop_strings"], given["stop_strings"]);
            assert_eq!(
                serde_json::from_value::<GenerationConfig>(written).unwrap(),
                config
            );
        }
        let plain = serde_json::to_value(GenerationConfig::default()).unwrap();
        assert!(plain.get("min_new_tokens").is_none(), "{plain}");
    }

    #[test]
    fn the_prompts_end_is_in_no_file() {
        let config =
            GenerationConfig::beams(2).with_decoder_start_token_id(GenerationConfig::PROMPT_END);
        let written = serde_json::to_value(&config).unwrap();
        assert!(written["decoder_start_token_id"].is_null(), "{written}");
        let read: GenerationConfig = serde_json::from_value(written).unwrap();
        assert_eq!(read, GenerationConfig::beams(2));

        let text = format!(
            r#"{{"decoder_start_token_id": {}}}"#,
            GenerationConfig::PROMPT_END
        );
        let error = serde_json::from_str::<GenerationConfig>(&text).unwrap_err();
        assert!(error.to_string().contains("is no token"), "{error}");
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
