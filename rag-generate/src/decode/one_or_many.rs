//! Tokens or texts as transformers writes them: `null`, one, or a list.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Deserialize)]
#[serde(untagged)]
enum Items<T> {
    One(T),
    Many(Vec<T>),
}

pub fn serialize<T: Serialize, S: Serializer>(
    items: &[T],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match items {
        [] => serializer.serialize_none(),
        [one] => one.serialize(serializer),
        many => many.serialize(serializer),
    }
}

pub fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    Ok(match Option::deserialize(deserializer)? {
        None => Vec::new(),
        Some(Items::One(one)) => vec![one],
        Some(Items::Many(many)) => many,
    })
}
