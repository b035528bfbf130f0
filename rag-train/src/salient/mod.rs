//! Self-supervision from documents alone: salient spans, the names, numbers and dates of a text, are
//! masked and become the answers to the sentences they stood in (Guu et al. 2020, REALM, arXiv
//! 2002.08909, section 3.4).
//!
//! REALM finds names with a tagger trained on CoNLL-2003 and dates with a regular expression. Here
//! names are found by rules: capitals in English, the part-of-speech dictionary of jieba in Chinese.
//! The dictionary is of simplified characters; of text in traditional ones mostly numbers, dates and
//! what stands in brackets is found.

mod chinese;
mod cloze;
mod english;
mod quantities;
mod sentences;
mod words;

use std::{cmp::Reverse, ops::Range};

use serde::{Deserialize, Serialize};

pub use cloze::{SalientSpans, cloze_pairs};

/// A stretch of text that knowledge of the world would fill in.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Span {
    /// Byte range within the text, on character boundaries.
    pub bytes: Range<usize>,
    /// What it is.
    pub kind: SpanKind,
}

/// What a [`Span`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SpanKind {
    /// A day, month, year, decade or century.
    Date,
    /// A person, place, organisation, people or work.
    Name,
    /// An amount, a share, a rank. In English without its unit, but with its currency, percent sign
    /// and scale (`$1.5 million`); in Chinese with the measure word that it needs (`6300公里`).
    Number,
}

/// The salient spans of an English or Chinese text, in order and without overlap. A span lies within
/// a sentence.
///
/// ```
/// use rag_train::salient::salient_spans;
///
/// let text = "The bridge was built by Gustave Eiffel in March 1877. 长江全长6300公里。";
/// let spans: Vec<&str> = salient_spans(text)
///     .into_iter()
///     .map(|span| &text[span.bytes])
///     .collect();
/// assert_eq!(spans, ["Gustave Eiffel", "March 1877", "长江", "6300公里"]);
/// ```
pub fn salient_spans(text: &str) -> Vec<Span> {
    spans_of(text, &sentences::sentences(text))
}

/// The spans of a text whose sentences are known.
fn spans_of(text: &str, sentences: &[Range<usize>]) -> Vec<Span> {
    let mut spans = english::names(text, sentences);
    for sentence in sentences {
        let words = chinese::Words::of(&text[sentence.clone()]);
        let found = quantities::dates(words.sentence)
            .chain(quantities::numbers(&words))
            .chain(chinese::names(&words));
        spans.extend(found.map(|span| Span {
            bytes: span.bytes.start + sentence.start..span.bytes.end + sentence.start,
            kind: span.kind,
        }));
    }
    disjoint(spans)
}

/// In order; of two that overlap the longer, or else the date before the name before the number.
fn disjoint(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_by_key(|span| (span.bytes.start, Reverse(span.bytes.end), span.kind));
    let mut kept: Vec<Span> = Vec::with_capacity(spans.len());
    for span in spans {
        match kept.last_mut() {
            Some(last) if span.bytes.start < last.bytes.end => {
                if span.bytes.len() > last.bytes.len() {
                    *last = span;
                }
            }
            _ => kept.push(span),
        }
    }
    kept
}
