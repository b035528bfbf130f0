//! Tokens as transformers writes them: `null`, a number, or a list.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Deserialize)]
#[serde(untagged)]
enum Tokens {
    One(u32),
    Many(Vec<u32>),
}

pub fn serialize<S: Serializer>(tokens: &[u32], serializer: S) -> Result<S::Ok, S::Error> {
    match tokens {
        [] => serializer.serialize_none(),
        [one] => one.serialize(serializer),
        many => many.serialize(serializer),
    }
}

pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u32>, D::Error> {
    Ok(match Option::deserialize(deserializer)? {
        None => Vec::new(),
        Some(Tokens::One(token)) => vec![token],
        Some(Tokens::Many(tokens)) => tokens,
    })
}
