//! Self-supervision from documents alone: salient spans, the names, numbers and dates of a text, are
//! masked and become the answers to the sentences they stood in (Guu et al. 2020, REALM, arXiv
//! 2002.08909, section 3.4).
//!
//! REALM finds names with a tagger trained on CoNLL-2003 and dates with a regular expression. Here
//! names are found by rules: capitals in English, the part-of-speech dictionary of jieba in Chinese.
//! The dictionary is of simplified characters; of text in traditional ones mostly numbers, dates and
//! what stands in brackets is found.

mod chinese;
pub(crate) mod cloze;
mod english;
mod quantities;
mod sentences;
mod span;
mod spans;
mod words;

pub use cloze::{SalientSpans, cloze_pairs};
pub use span::{Span, SpanKind};
pub use spans::salient_spans;
