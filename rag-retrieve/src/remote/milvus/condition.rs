//! Filters in Milvus's expressions.

use std::{
    collections::BTreeMap,
    ops::{Bound, RangeBounds},
};

use rag_core::Value;
use serde::Deserialize;
use serde_json::json;

use crate::Filter;

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
    format!("exists {path} and {path} {sign} {}", literal(value))
}

/// What is known of a passage, by the kinds of values and their names: numbers and texts are never
/// compared with each other, which servers take differently.
pub(super) fn by_kind(known: &BTreeMap<String, Value>) -> serde_json::Value {
    let known = known
        .iter()
        .map(|(field, value)| (name(field, value), json!(value)));
    serde_json::Value::Object(known.collect())
}

/// What [`by_kind`] was made of.
pub(super) fn by_name(known: &serde_json::Value) -> serde_json::Result<BTreeMap<String, Value>> {
    let known = BTreeMap::<String, Value>::deserialize(known)?.into_iter();
    let named = known.map(|(name, value)| match name.split_once('/') {
        Some((_, field)) => (field.to_owned(), value),
        None => (name, value),
    });
    Ok(named.collect())
}

fn name(field: &str, value: &Value) -> String {
    let kind = match value {
        Value::Flag(_) => "flag",
        Value::Number(_) => "number",
        Value::Text(_) => "text",
    };
    format!("{kind}/{field}")
}

fn path(field: &str, value: &Value) -> String {
    format!("metadata[{}]", quoted(&name(field, value)))
}

fn literal(value: &Value) -> String {
    match value {
        Value::Flag(flag) => flag.to_string(),
        Value::Number(number) => format!("{number:?}"),
        Value::Text(text) => quoted(text),
    }
}

/// As a string of the expression language, whose escapes are those of JSON.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn inside(bound: &Bound<Value>) -> Option<&Value> {
    match bound {
        Bound::Included(value) | Bound::Excluded(value) => Some(value),
        Bound::Unbounded => None,
    }
}

fn joined(parts: impl Iterator<Item = String>, by: &str, nothing: &str) -> String {
    let parts: Vec<String> = parts.map(|part| format!("({part})")).collect();
    match parts.is_empty() {
        true => nothing.to_owned(),
        false => parts.join(by),
    }
}
