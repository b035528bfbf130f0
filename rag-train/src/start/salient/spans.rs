//! All salient spans of a text, of which none overlap.

use std::{cmp::Reverse, ops::Range};

use super::{chinese, english, quantities, sentences::sentences, span::Span};

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
    spans_of(text, &sentences(text))
}

/// The spans of a text whose sentences are known.
pub(super) fn spans_of(text: &str, sentences: &[Range<usize>]) -> Vec<Span> {
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
