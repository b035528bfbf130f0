//! Metadata by field and value: the rows that match a filter.

use std::collections::BTreeMap;

use rag_core::{Passage, Value};

use super::error::KnowledgeError;
use crate::{
    error::Result,
    filter::{Filter, lies_within},
};

/// Rows by field and value.
#[derive(Debug, Default)]
pub(super) struct Fields {
    rows: usize,
    by_field: BTreeMap<String, BTreeMap<Value, Vec<u32>>>,
}

impl Fields {
    /// Of passages, row by row.
    pub(super) fn of(passages: impl Iterator<Item = Result<Passage>>) -> Result<Self> {
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

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.by_field.keys().map(String::as_str)
    }

    /// Of each row, whether it matches.
    pub(super) fn matching(&self, filter: &Filter) -> Vec<bool> {
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
pub(super) fn check_fields<'a>(
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
        Some(field) => Err(KnowledgeError::UnknownField {
            field: field.to_owned(),
            known: known.into_iter().map(str::to_owned).collect(),
        }
        .into()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Bound;

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
