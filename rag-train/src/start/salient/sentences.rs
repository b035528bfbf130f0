//! Sentences: those of [`Chunking::sentences`], but that an abbreviation does not end
//! one, and that a bracket opens the next.

use std::{ops::Range, sync::LazyLock};

use rag_retrieve::Chunking;
use regex::Regex;

use super::words::is_function_word;

/// A title, a month, an initial or letters with periods at the end of a text.
static ABBREVIATION: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(concat!(
        r"(?:^|[\s(\[“‘'\x22.\p{Han}])(?:\p{Lu}|Mr|Mrs|Ms|Messrs|Dr|Prof|St|Ste|Mt|Ft|Gen|Col|Lt|Sgt|Maj|Capt|Cmdr",
        r"|Adm|Sen|Rep|Gov|Rev|Hon|Jr|Sr|Inc|Ltd|Co|Corp|Bros|No|Nos|Vol|Fig|vs|v|ca?|cf|al|approx|e\.g|i\.e",
        r"|Jan|Feb|Mar|Apr|Aug|Sept?|Oct|Nov|Dec)\.$",
    ))
    .expect("the pattern is constant")
});

/// Brackets and quotation marks before a word.
const OPENING: &[char] = &['“', '‘', '「', '『', '《', '〈', '（', '【', '(', '['];

/// Byte ranges of the sentences of a text.
pub(super) fn sentences(text: &str) -> Vec<Range<usize>> {
    let pieces = Chunking::sentences(1)
        .split(text)
        .expect("one sentence at a time, without overlap, is a valid chunking");
    let mut sentences: Vec<Range<usize>> = Vec::with_capacity(pieces.len());
    let mut opened = None;
    for mut piece in pieces {
        piece.start = opened.take().unwrap_or(piece.start);
        // Unicode leaves the bracket that opens a sentence with the one before.
        let content = &text[piece.clone()];
        let closed = content.trim_end_matches(OPENING);
        if closed.len() < content.len() && !closed.is_empty() {
            opened = Some(piece.start + closed.len());
            piece.end = piece.start + closed.trim_end().len();
        }
        match sentences.last_mut() {
            Some(last) if goes_on(text, last, &piece) => last.end = piece.end,
            _ => sentences.push(piece),
        }
    }
    sentences.extend(opened.map(|start| start..text.trim_end().len()));
    sentences
}

/// Whether `next` belongs to the sentence before it.
fn goes_on(text: &str, before: &Range<usize>, next: &Range<usize>) -> bool {
    let gap = &text[before.end..next.start];
    let first = text[next.clone()].split_whitespace().next();
    !gap.contains('\n')
        && ABBREVIATION.is_match(&text[before.clone()])
        && !first.is_some_and(is_function_word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_open_the_sentence_that_they_stand_before() {
        let text = "他走了。「我来。」《书》很好。（";
        let found: Vec<&str> = sentences(text).into_iter().map(|s| &text[s]).collect();
        assert_eq!(found, ["他走了。", "「我来。」", "《书》很好。", "（"]);
    }

    #[test]
    fn abbreviations_do_not_end_a_sentence() {
        let text = "In 1849 Dr. Krapf saw Mt. Kenya. It was white. George W. Bush of the U.S. Army \
            spoke. He took plan B. The rest is known.\nFin.";
        let found: Vec<&str> = sentences(text).into_iter().map(|s| &text[s]).collect();
        assert_eq!(
            found,
            [
                "In 1849 Dr. Krapf saw Mt. Kenya.",
                "It was white.",
                "George W. Bush of the U.S. Army spoke.",
                "He took plan B.",
                "The rest is known.",
                "Fin."
            ]
        );
    }
}
