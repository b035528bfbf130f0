//! Names in Chinese: what stands in brackets, and what jieba's dictionary tags as a proper noun.

use std::{ops::Range, sync::LazyLock};

use jieba_rs::{Jieba, Tag};
use regex::Regex;

use super::{
    span::{Span, SpanKind},
    words::{
        COMMON_NOUNS, LAST_CHARACTERS, LAST_SOUNDS, LAST_WORDS, OTHER_ENDINGS, PARTICLES, SURNAMES,
        TRANSLITERATION, WORDS_AND_SURNAMES,
    },
};

static JIEBA: LazyLock<Jieba> = LazyLock::new(Jieba::new);

/// 《…》, and short quotations without punctuation.
static BRACKETS: LazyLock<Regex> = LazyLock::new(|| {
    let title = r"《([^《》\s](?:[^《》]{0,28}[^《》\s])?)》";
    let part = r"[^“”「」『』，。！？；：、,.!?;:";
    let quotation = format!(r"[“「『]({part}\s]{part}]{{0,8}}{part}\s])[”」』]");
    Regex::new(&format!("{title}|{quotation}")).expect("the pattern is constant")
});

/// Names from other languages, their parts joined by a dot.
static DOTTED: LazyLock<Regex> = LazyLock::new(|| {
    let part = format!("[{TRANSLITERATION}]+");
    Regex::new(&format!(
        "{part}(?:[·・•‧－-]{part})*[·・•‧]{part}(?:[－-]{part})*"
    ))
    .expect("the pattern is constant")
});

/// A sentence with its Chinese words.
pub(super) struct Words<'a> {
    pub(super) sentence: &'a str,
    /// In order, all of the sentence; empty where it is not Chinese.
    tags: Vec<Tag<'a>>,
}

impl<'a> Words<'a> {
    pub(super) fn of(sentence: &'a str) -> Self {
        let count = |within: fn(char) -> bool| sentence.chars().filter(|&c| within(c)).count();
        let han = count(|c| matches!(c, '\u{3400}'..='\u{9fff}'));
        let kana = count(|c| matches!(c, '\u{3041}'..='\u{30fa}'));
        // A Chinese text may name a song in Japanese; where every third character is kana, it is
        // not Chinese.
        let chinese = han > 2 * kana;
        Self {
            sentence,
            tags: if chinese {
                JIEBA.tag(sentence, true)
            } else {
                Vec::new()
            },
        }
    }

    /// Whether a stretch is whole words, of which the first is no name.
    pub(super) fn counts(&self, bytes: Range<usize>) -> bool {
        let starting_at = |byte| (self.tags).binary_search_by_key(&byte, |word| word.byte_start);
        let ends = bytes.end == self.sentence.len() || starting_at(bytes.end).is_ok();
        match starting_at(bytes.start) {
            Ok(first) => ends && !self.tags[first].tag.starts_with("n"),
            Err(_) => self.tags.is_empty(),
        }
    }

    /// Whether a word of the dictionary stands on both sides of a byte.
    pub(super) fn are_cut_at(&self, byte: usize) -> bool {
        let next = self.tags.partition_point(|word| word.byte_end <= byte);
        let word = self.tags.get(next);
        word.is_some_and(|word| word.byte_start < byte && JIEBA.has_word(word.word))
    }

    /// Proper nouns, each with what ends its name.
    fn proper_nouns(&self) -> Vec<Range<usize>> {
        let mut names = Vec::new();
        let mut start = 0;
        while let Some(first) = self.tags.get(start) {
            let mut next = start + 1;
            if let Some(name) = name_in(first) {
                let mut end = first.byte_start + name.len();
                while let Some(word) = self.tags.get(next)
                    && word.byte_start == end
                    && goes_on(first, word)
                {
                    end = word.byte_end;
                    next += 1;
                }
                names.push(first.byte_start..end);
            }
            start = next;
        }
        names
    }
}

/// The name that a word is, or begins with.
fn name_in<'a>(word: &Tag<'a>) -> Option<&'a str> {
    let text = word.word;
    let characters = text.chars().count();
    if characters < 2 || COMMON_NOUNS.contains(text) {
        return None;
    }
    // The tag of a word that the dictionary does not know was guessed from its characters.
    let known = JIEBA.has_word(text);
    let foreign = characters > 2 && is_foreign(text);
    let one_of = |endings: &[&str]| endings.iter().any(|end| text.ends_with(end));
    let name = match word.tag {
        "nr" | "nrt" | "nrfg" if foreign => true,
        "nr" | "nrfg" if known => begins_with(text, SURNAMES),
        "nr" => return guessed_person(text),
        "ns" => known || foreign || characters > 2 && ends_with(text, LAST_CHARACTERS),
        "nt" => known || one_of(LAST_WORDS),
        "nz" => one_of(OTHER_ENDINGS),
        _ => false,
    };
    name.then_some(text)
}

/// Whether a name that begins with `first` takes in the word `next`.
fn goes_on(first: &Tag, next: &Tag) -> bool {
    let single = next.word.chars().count() == 1;
    let named = name_in(next) == Some(next.word);
    let person = first.tag.starts_with("nr") && next.tag.starts_with("nr") && named;
    // A foreign name that the dictionary does not have comes in pieces: 莫扎 伊斯 克.
    let foreign = is_foreign(first.word)
        && (single && ends_with(next.word, LAST_SOUNDS)
            || named && is_foreign(next.word) && !JIEBA.has_word(first.word));
    person
        || foreign
        || single && ends_with(next.word, LAST_CHARACTERS)
        || LAST_WORDS.iter().any(|end| next.word.ends_with(end))
}

/// The person in a word that the dictionary does not know: a surname and one or two characters.
fn guessed_person(word: &str) -> Option<&str> {
    let name = word.trim_end_matches(|c| PARTICLES.contains(c));
    let given = name.chars().count().checked_sub(1)?;
    let sure = !begins_with(name, WORDS_AND_SURNAMES);
    let person = begins_with(name, SURNAMES) && (given == 2 || given == 1 && sure);
    person.then_some(name)
}

fn is_foreign(word: &str) -> bool {
    word.chars().all(|c| TRANSLITERATION.contains(c))
}

fn begins_with(word: &str, characters: &str) -> bool {
    word.starts_with(|c| characters.contains(c))
}

fn ends_with(word: &str, characters: &str) -> bool {
    word.ends_with(|c| characters.contains(c))
}

/// The names of a Chinese sentence.
pub(super) fn names(words: &Words) -> impl Iterator<Item = Span> {
    let bracketed = BRACKETS
        .captures_iter(words.sentence)
        .filter_map(|captures| captures.get(1).or(captures.get(2)));
    let dotted = DOTTED.find_iter(words.sentence);
    bracketed
        .chain(dotted)
        .map(|found| found.range())
        .chain(words.proper_nouns())
        .map(|bytes| Span {
            bytes,
            kind: SpanKind::Name,
        })
}
