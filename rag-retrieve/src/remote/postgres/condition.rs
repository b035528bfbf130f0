//! Filters in SQL.

use std::ops::Bound;

use rag_core::Value;
use serde_json::json;
use tokio_postgres::types::ToSql;

use crate::{
    filter::Filter,
    remote::{inside, joined},
};

pub(super) type Parameter = Box<dyn ToSql + Send + Sync>;

/// A condition on the column `metadata`, and what it compares with.
pub(super) struct Condition {
    pub(super) sql: String,
    pub(super) parameters: Vec<Parameter>,
}

impl Condition {
    /// A passage matches [`Filter::matches`] exactly where this is true; it is never unknown. The first
    /// `before` parameters are others'.
    pub(super) fn new(filter: Option<&Filter>, before: usize) -> Self {
        let mut condition = Self {
            sql: String::new(),
            parameters: Vec::new(),
        };
        condition.sql = match filter {
            Some(filter) => condition.of(filter, before),
            None => "TRUE".to_owned(),
        };
        condition
    }

    pub(super) fn references(&self) -> impl Iterator<Item = &(dyn ToSql + Sync)> {
        self.parameters
            .iter()
            .map(|parameter| &**parameter as &(dyn ToSql + Sync))
    }

    fn of(&mut self, filter: &Filter, before: usize) -> String {
        let mut parameter = |value: Parameter| {
            self.parameters.push(value);
            before + self.parameters.len()
        };
        match filter {
            // Containment, which an index on the column answers.
            Filter::OneOf(field, values) => {
                let values = values.iter().map(|value| json!({ field.as_str(): value }));
                let number = parameter(Box::new(values.collect::<Vec<_>>()));
                format!("metadata @> ANY (${number}::jsonb[])")
            }
            Filter::Within(field, from, to) => {
                let kind = |value| std::mem::discriminant::<Value>(value);
                let first = match (inside(from), inside(to)) {
                    (Some(from), Some(to)) if kind(from) != kind(to) => return "FALSE".to_owned(),
                    (from, to) => from.or(to),
                };
                let field = parameter(Box::new(field.clone()));
                let Some(first) = first else {
                    return format!("metadata ? ${field}::text");
                };
                let text = format!("(metadata ->> ${field}::text)");
                let (kind, value, cast) = match first {
                    Value::Flag(_) => ("boolean", format!("{text}::boolean"), "boolean"),
                    Value::Number(_) => ("number", format!("{text}::float8"), "float8"),
                    // By characters, as Rust compares, and not by the database's language.
                    Value::Text(_) => ("string", format!("{text} COLLATE \"C\""), "text"),
                };
                let bounds = [(from, ">"), (to, "<")].map(|(bound, sign)| {
                    let equal = match bound {
                        Bound::Included(_) => "=",
                        Bound::Excluded(_) => "",
                        Bound::Unbounded => return "TRUE".to_owned(),
                    };
                    let number = parameter(match inside(bound).expect("it is bounded") {
                        Value::Flag(flag) => Box::new(*flag),
                        Value::Number(number) => Box::new(*number),
                        Value::Text(text) => Box::new(text.clone()),
                    });
                    format!("{value} {sign}{equal} ${number}::{cast}")
                });
                let [above, below] = bounds;
                format!(
                    "CASE WHEN jsonb_typeof(metadata -> ${field}::text) = '{kind}' THEN {above} AND {below} ELSE FALSE END"
                )
            }
            Filter::All(filters) => {
                let parts: Vec<String> = filters.iter().map(|some| self.of(some, before)).collect();
                joined(parts.into_iter(), " AND ", "TRUE")
            }
            Filter::Any(filters) => {
                let parts: Vec<String> = filters.iter().map(|some| self.of(some, before)).collect();
                joined(parts.into_iter(), " OR ", "FALSE")
            }
            Filter::Not(filter) => format!("NOT ({})", self.of(filter, before)),
        }
    }
}
