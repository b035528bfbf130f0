//! Which passages are searched, by what is known of them.

use std::{
    collections::BTreeMap,
    ops::{Bound, Not, RangeBounds},
};

use rag_core::{Passage, Value};

use crate::{Error, Result};

/// A condition on a passage's [metadata](Passage::metadata).
///
/// ```
/// # use rag_core::Passage;
/// # use rag_retrieve::Filter;
/// let passage = Passage::new("7", "", "").with("language", "en").with("date", "2024-05-31").with("pages", 12);
///
/// let spring = Filter::within("date", "2024-03-01".."2024-06-01");
/// let filter = spring & Filter::one_of("language", ["en", "zh"]) & !Filter::is("pages", 1);
/// assert!(filter.matches(&passage));
/// ```
///
/// A passage that lacks a field matches no condition on it, and so its negation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// The field has one of these values.
    OneOf(String, Vec<Value>),
    /// The field's value is of the same kind as the bounds, and between them.
    Within(String, Bound<Value>, Bound<Value>),
    /// All of these hold.
    All(Vec<Filter>),
    /// At least one of these holds.
    Any(Vec<Filter>),
    /// It does not hold.
    Not(Box<Filter>),
}

impl Filter {
    /// The field has this value.
    pub fn is(field: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::OneOf(field.into(), vec![value.into()])
    }

    /// The field has one of these values.
    pub fn one_of<V: Into<Value>>(
        field: impl Into<String>,
        values: impl IntoIterator<Item = V>,
    ) -> Self {
        Self::OneOf(field.into(), values.into_iter().map(V::into).collect())
    }

    /// The field's value lies in a range, such as `2000..`, `..=0.5` or `"2024-01-01".."2024-02-01"`.
    pub fn within<V: Into<Value> + Clone>(
        field: impl Into<String>,
        range: impl RangeBounds<V>,
    ) -> Self {
        let bound = |bound: Bound<&V>| bound.map(|value| value.clone().into());
        Self::Within(
            field.into(),
            bound(range.start_bound()),
            bound(range.end_bound()),
        )
    }

    /// Whether a passage is one of those that are meant.
    pub fn matches(&self, passage: &Passage) -> bool {
        match self {
            Self::OneOf(field, values) => {
                let value = passage.metadata.get(field);
                value.is_some_and(|value| values.contains(value))
            }
            Self::Within(field, from, to) => {
                let value = passage.metadata.get(field);
                value.is_some_and(|value| lies_within(value, from, to))
            }
            Self::All(filters) => filters.iter().all(|filter| filter.matches(passage)),
            Self::Any(filters) => filters.iter().any(|filter| filter.matches(passage)),
            Self::Not(filter) => !filter.matches(passage),
        }
    }

    /// The fields that it asks for.
    pub fn fields(&self) -> Vec<&str> {
        match self {
            Self::OneOf(field, _) | Self::Within(field, ..) => vec![field],
            Self::All(filters) | Self::Any(filters) => {
                filters.iter().flat_map(Self::fields).collect()
            }
            Self::Not(filter) => filter.fields(),
        }
    }
}

/// Both hold.
impl std::ops::BitAnd for Filter {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self::All(vec![self, other])
    }
}

/// At least one of them holds.
impl std::ops::BitOr for Filter {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self::Any(vec![self, other])
    }
}

impl Not for Filter {
    type Output = Self;

    fn not(self) -> Self {
        Self::Not(Box::new(self))
    }
}

fn lies_within(value: &Value, from: &Bound<Value>, to: &Bound<Value>) -> bool {
    let same_kind = |bound: &Bound<Value>| match bound {
        Bound::Included(bound) | Bound::Excluded(bound) => {
            std::mem::discriminant(bound) == std::mem::discriminant(value)
        }
        Bound::Unbounded => true,
    };
    same_kind(from) && same_kind(to) && (from.as_ref(), to.as_ref()).contains(value)
}

/// Rows by field and value.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    rows: usize,
    by_field: BTreeMap<String, BTreeMap<Value, Vec<u32>>>,
}

impl Fields {
    /// Of passages, row by row.
    pub(crate) fn of(passages: impl Iterator<Item = Result<Passage>>) -> Result<Self> {
        let mut fields = Self::default();
        for passage in passages {
            for (field, value) in passage?.metadata {
                let values = fields.by_field.entry(field).or_default();
                values.entry(value).or_default().push(fields.rows as u32);
            }
            fields.rows += 1;
        }
        Ok(fields)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.by_field.keys().map(String::as_str)
    }

    /// Of each row, whether it matches.
    pub(crate) fn matching(&self, filter: &Filter) -> Vec<bool> {
        let mut matching = vec![false; self.rows];
        match filter {
            Filter::OneOf(field, values) => {
                let by_value = self.by_field.get(field);
                let rows = values.iter().filter_map(|value| by_value?.get(value));
                rows.flatten()
                    .for_each(|&row| matching[row as usize] = true);
            }
            Filter::Within(field, from, to) => {
                let by_value = self.by_field.get(field).into_iter().flatten();
                by_value
                    .filter(|(value, _)| lies_within(value, from, to))
                    .flat_map(|(_, rows)| rows)
                    .for_each(|&row| matching[row as usize] = true);
            }
            Filter::All(filters) => {
                matching.fill(true);
                for filter in filters {
                    for (matches, also) in matching.iter_mut().zip(self.matching(filter)) {
                        *matches &= also;
                    }
                }
            }
            Filter::Any(filters) => {
                for filter in filters {
                    for (matches, also) in matching.iter_mut().zip(self.matching(filter)) {
                        *matches |= also;
                    }
                }
            }
            Filter::Not(filter) => {
                for (matches, not) in matching.iter_mut().zip(self.matching(filter)) {
                    *matches = !not;
                }
            }
        }
        matching
    }
}

/// Refuses a filter on a field that no passage has, which is a slip of the pen.
pub(crate) fn check_fields<'a>(
    filter: &Filter,
    known: impl Iterator<Item = &'a str>,
) -> Result<()> {
    let mut known: Vec<&str> = known.collect();
    known.sort_unstable();
    known.dedup();
    match filter
        .fields()
        .into_iter()
        .find(|field| !known.contains(field))
    {
        Some(field) => Err(Error::UnknownField {
            field: field.to_owned(),
            known: known.into_iter().map(str::to_owned).collect(),
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passages() -> Vec<Passage> {
        let passage = |id: &str| Passage::new(id, "", "");
        vec![
            passage("0").with("year", 1999).with("lang", "en"),
            passage("1").with("year", 2004.5).with("draft", true),
            passage("2"),
            passage("3").with("year", "2004").with("lang", "zh"),
            passage("4").with("date", "2024-05-31").with("lang", "en"),
            passage("5").with("year", -0.0).with("draft", false),
        ]
    }

    #[test]
    fn rows_by_field_are_those_that_match() {
        let year = |from, to| Filter::Within("year".to_owned(), from, to);
        let cases = [
            (Filter::is("lang", "en"), vec![0, 4]),
            (Filter::one_of("lang", ["zh", "fr"]), vec![3]),
            (Filter::one_of("lang", Vec::<String>::new()), vec![]),
            (Filter::is("year", 0), vec![5]),
            (Filter::is("draft", false), vec![5]),
            (Filter::within("year", 1999..2005), vec![0, 1]),
            (Filter::within("year", 1999.5..), vec![1]),
            (Filter::within("year", "2000"..), vec![3]),
            (Filter::within("year", ..=0), vec![5]),
            (
                year(Bound::Included(5.into()), Bound::Excluded(3.into())),
                vec![],
            ),
            (year(Bound::Unbounded, Bound::Unbounded), vec![0, 1, 3, 5]),
            (Filter::within("date", "2024-05-01"..="2024-05-31"), vec![4]),
            (!Filter::is("lang", "en"), vec![1, 2, 3, 5]),
            (Filter::is("lang", "en") & Filter::is("year", 1999), vec![0]),
            (
                Filter::is("lang", "zh") | Filter::is("draft", true),
                vec![1, 3],
            ),
            (Filter::All(vec![]), vec![0, 1, 2, 3, 4, 5]),
            (Filter::Any(vec![]), vec![]),
        ];
        let passages = passages();
        let fields = Fields::of(passages.iter().cloned().map(Ok)).unwrap();
        for (filter, expected) in cases {
            let matching = fields.matching(&filter);
            let rows = |matches: &dyn Fn(usize) -> bool| -> Vec<usize> {
                (0..passages.len()).filter(|&row| matches(row)).collect()
            };
            assert_eq!(rows(&|row| matching[row]), expected, "{filter:?}");
            assert_eq!(
                rows(&|row| filter.matches(&passages[row])),
                expected,
                "{filter:?}"
            );
        }
    }

    #[test]
    fn a_field_that_nobody_has_is_named() {
        let fields = Fields::of(passages().into_iter().map(Ok)).unwrap();
        let filter = Filter::is("lang", "en") & !Filter::is("langauge", "en");
        let error = check_fields(&filter, fields.names())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("\"langauge\"") && error.contains("lang, year"),
            "{error}"
        );
    }
}
