//! Which passages are searched, by what is known of them.

use std::ops::{Bound, Not, RangeBounds};

use rag_core::{Passage, Value};

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

pub(crate) fn lies_within(value: &Value, from: &Bound<Value>, to: &Bound<Value>) -> bool {
    let same_kind = |bound: &Bound<Value>| match bound {
        Bound::Included(bound) | Bound::Excluded(bound) => {
            std::mem::discriminant(bound) == std::mem::discriminant(value)
        }
        Bound::Unbounded => true,
    };
    same_kind(from) && same_kind(to) && (from.as_ref(), to.as_ref()).contains(value)
}
