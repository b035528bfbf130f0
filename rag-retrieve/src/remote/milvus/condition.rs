//! Filters in Milvus's expressions.

use std::{
    collections::BTreeMap,
    ops::{Bound, RangeBounds},
};

use rag_core::Value;
use serde::{Deserialize, de::Error as _};
use serde_json::json;

use crate::{
    filter::Filter,
    remote::{inside, joined},
};

/// True for every passage: positions are not negative.
const ALL: &str = "position >= 0";
const NONE: &str = "position < 0";

/// A condition on the field `metadata`: a passage matches [`Filter::matches`] exactly where it is true.
pub(super) fn condition(filter: &Filter) -> String {
    match filter {
        Filter::OneOf(field, values) => {
            let equal = values.iter().map(|value| compared(field, "==", value));
            joined(equal, " or ", NONE)
        }
        Filter::Within(field, from, to) => {
            let kind = |value| std::mem::discriminant::<Value>(value);
            match (inside(from), inside(to)) {
                (None, None) => exists(field),
                (Some(from), Some(to)) if kind(from) != kind(to) => NONE.to_owned(),
                // Truth values have no order there.
                (Some(Value::Flag(_)), _) | (_, Some(Value::Flag(_))) => {
                    let bounds = (from.as_ref(), to.as_ref());
                    let flags = [false, true].map(Value::Flag);
                    let flags = flags.iter().filter(|&flag| bounds.contains(flag));
                    joined(flags.map(|flag| compared(field, "==", flag)), " or ", NONE)
                }
                _ => {
                    let bounds = [(from, ">"), (to, "<")].into_iter();
                    let bounds = bounds.filter_map(|(bound, sign)| match bound {
                        Bound::Included(value) => Some(compared(field, &format!("{sign}="), value)),
                        Bound::Excluded(value) => Some(compared(field, sign, value)),
                        Bound::Unbounded => None,
                    });
                    joined(bounds, " and ", ALL)
                }
            }
        }
        Filter::All(filters) => joined(filters.iter().map(condition), " and ", ALL),
        Filter::Any(filters) => joined(filters.iter().map(condition), " or ", NONE),
        Filter::Not(filter) => format!("not ({})", condition(filter)),
    }
}

/// That something is known under a name.
pub(super) fn exists(field: &str) -> String {
    let kinds = [
        Value::Flag(true),
        Value::Number(0.0),
        Value::Text(String::new()),
    ];
    let exist = kinds
        .iter()
        .map(|kind| format!("exists {}", path(field, kind)));
    joined(exist, " or ", NONE)
}

/// Of what is not there, nothing is true, nor unknown.
fn compared(field: &str, sign: &str, value: &Value) -> String {
    let path = path(field, value);
    // Numbers that are kept are finite, and those of an expression too.
    if let Value::Number(number) = value
        && !number.is_finite()
    {
        let holds = matches!(
            (sign, *number),
            (">" | ">=", f64::NEG_INFINITY) | ("<" | "<=", f64::INFINITY)
        );
        return match holds {
            true => format!("exists {path}"),
            false => NONE.to_owned(),
        };
    }
    format!("(exists {path}) and ({path} {sign} {})", literal(value))
}

/// The metadata of a passage, by the kinds of values and then their names: numbers and texts are never compared with
/// each other, which servers do differently.
pub(super) fn by_kind(known: &BTreeMap<String, Value>) -> serde_json::Value {
    let known = known.iter();
    serde_json::Value::Object(
        known
            .map(|(field, value)| (name(field, value), json!(value)))
            .collect(),
    )
}

/// The metadata that [`by_kind`] was made of.
pub(super) fn by_name(known: &serde_json::Value) -> serde_json::Result<BTreeMap<String, Value>> {
    let known = BTreeMap::<String, Value>::deserialize(known)?.into_iter();
    let named = known.map(|(name, value)| {
        let mut bytes = Vec::new();
        let mut letters = name.bytes().skip(2);
        while let Some(letter) = letters.next() {
            let digit = |letter: Option<u8>| (letter? as char).to_digit(16);
            bytes.push(match letter {
                b'_' => match (digit(letters.next()), digit(letters.next())) {
                    (Some(high), Some(low)) => (16 * high + low) as u8,
                    _ => {
                        return Err(serde_json::Error::custom(format!(
                            "{name:?} names no field"
                        )));
                    }
                },
                letter => letter,
            });
        }
        let field = String::from_utf8(bytes).map_err(serde_json::Error::custom)?;
        Ok((field, value))
    });
    named.collect()
}

/// In letters and digits, since servers do not take all others in names: what is neither is `_` and its two
/// digits.
fn name(field: &str, value: &Value) -> String {
    let kind = match value {
        Value::Flag(_) => "f_",
        Value::Number(_) => "n_",
        Value::Text(_) => "t_",
    };
    let letters = field
        .bytes()
        .map(|byte| match byte.is_ascii_alphanumeric() {
            true => char::from(byte).to_string(),
            false => format!("_{byte:02x}"),
        });
    kind.to_owned() + &letters.collect::<String>()
}

fn path(field: &str, value: &Value) -> String {
    format!("metadata[\"{}\"]", name(field, value))
}

fn literal(value: &Value) -> String {
    match value {
        Value::Flag(flag) => flag.to_string(),
        Value::Number(number) => format!("{number:?}"),
        // Escapes are those of JSON.
        Value::Text(text) => json!(text).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        let known: BTreeMap<String, Value> = [
            ("language", Value::from("en")),
            ("a\"b]\\[_c", Value::from(1)),
            ("语言 𠮷", Value::from(true)),
            ("", Value::from("")),
        ]
        .map(|(field, value)| (field.to_owned(), value))
        .into();
        let kept = by_kind(&known);
        let names = kept.as_object().unwrap().keys();
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        assert!(
            names.into_iter().all(|name| name.chars().all(plain)),
            "{kept}"
        );
        assert_eq!(by_name(&kept).unwrap(), known);
        assert!(by_name(&json!({"n_a_z": 1})).is_err());
    }
}
