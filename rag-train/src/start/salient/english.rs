//! Names in scripts with capitals: runs of capitalised words.

use std::{collections::HashSet, ops::Range, sync::LazyLock};

use regex::Regex;

use super::{
    span::{Span, SpanKind},
    words::{CONNECTORS, EPITHETS, NO_NAMES, SECOND_CONNECTORS, TITLES, is_function_word},
};

/// Letters with periods (`U.S.`), or a word with what may stand inside one (`Niger-Congo`, `O'Neill`).
static WORD: LazyLock<Regex> = LazyLock::new(|| {
    let letters = r"[[\p{L}\p{M}\p{N}]--[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}]]+";
    let word = format!(r"(?:\b\p{{Lu}}\.){{2,}}|{letters}(?:['’&‑-]{letters})*");
    Regex::new(&word).expect("the pattern is constant")
});

/// The title of a work in quotation marks.
static QUOTED: LazyLock<Regex> = LazyLock::new(|| {
    let capitalised = r"\p{Lu}[\w'’-]*";
    let small = "and|or|of|the|an?|in|on|to|for|with|by|from|at|de|la|le|du";
    let title = format!(r#"["“]({capitalised}(?:\s(?:{capitalised}|{small}))*)[,.!?]?["”]"#);
    Regex::new(&title).expect("the pattern is constant")
});

/// The names of a text, each within a sentence; a name may lie within another.
pub(super) fn names(text: &str, sentences: &[Range<usize>]) -> Vec<Span> {
    let words: Vec<Vec<Word>> = (sentences.iter())
        .map(|sentence| words(text, sentence.clone()))
        .collect();
    let seen = Seen::of(&words);
    let quoted = sentences.iter().flat_map(|sentence| {
        let titles = QUOTED.captures_iter(&text[sentence.clone()]);
        titles.filter_map(|captures| {
            let title = captures.get(1)?;
            Some(title.start() + sentence.start..title.end() + sentence.start)
        })
    });
    let mut names: Vec<Range<usize>> = quoted.collect();
    // A sentence all in capitals tells nothing.
    for words in words
        .iter()
        .filter(|words| words.iter().any(Word::is_lower))
    {
        let mut start = 0;
        while start < words.len() {
            let mut end = start + 1;
            if words[start].begins_name() {
                while let Some(further) = further(text, words, end) {
                    end = further;
                }
                names.extend(seen.name(&words[start..end]));
            }
            start = end;
        }
    }
    (names.into_iter())
        .map(|bytes| Span {
            bytes,
            kind: SpanKind::Name,
        })
        .collect()
}

struct Word<'a> {
    bytes: Range<usize>,
    text: &'a str,
    /// At the start of a sentence, a quotation or what follows a colon, where any word has a capital.
    opens: bool,
    /// An `'s` follows, which is not part of the word.
    possessive: bool,
}

impl Word<'_> {
    fn is_lower(&self) -> bool {
        self.text.chars().any(char::is_lowercase)
    }

    fn has_capital(&self) -> bool {
        // The capital need not be the first letter: al-Qaeda, iPhone.
        self.text.starts_with(char::is_alphabetic)
            && self.text.chars().take(4).any(char::is_uppercase)
            && !NO_NAMES.contains(self.text)
    }

    fn begins_name(&self) -> bool {
        let ordinary = matches!(self.text, "The" | "A" | "An" | "I")
            || self.text.starts_with("I'")
            || self.text.starts_with("I’")
            || self.opens && !self.is_acronym() && is_function_word(self.text);
        self.has_capital() && !ordinary
    }

    fn is_acronym(&self) -> bool {
        let capitals = self.text.chars().filter(|c| c.is_uppercase()).count();
        capitals > 1 && !self.is_lower() && !self.is_roman_numeral()
    }

    fn is_roman_numeral(&self) -> bool {
        self.text.chars().all(|c| matches!(c, 'I' | 'V' | 'X'))
    }

    fn is_initial(&self) -> bool {
        self.has_capital() && self.text.chars().count() == 1
    }
}

fn words(text: &str, sentence: Range<usize>) -> Vec<Word<'_>> {
    let found = WORD.find_iter(&text[sentence.clone()]);
    found
        .enumerate()
        .map(|(i, word)| {
            let before = &text[sentence.start..sentence.start + word.start()];
            let opens = i == 0 && !before.contains(char::is_alphanumeric)
                || before.ends_with(['"', '“', '‘', '«', '\''])
                || before.trim_end().ends_with([':', '•', '*', '?', '!']);
            let stem = word.as_str();
            let stem = stem.strip_suffix("'s").unwrap_or(stem);
            let stem = stem.strip_suffix("’s").unwrap_or(stem);
            let start = sentence.start + word.start();
            Word {
                bytes: start..start + stem.len(),
                text: stem,
                opens,
                possessive: stem.len() < word.len(),
            }
        })
        .collect()
}

/// Where a name goes on that has come to the word `end`: behind the next word with a capital.
fn further(text: &str, words: &[Word], end: usize) -> Option<usize> {
    let joined = |i: usize| i < words.len() && joins(text, &words[i - 1], &words[i]);
    let takes = |i: usize| joined(i) && words[i].has_capital() && !words[i].opens;
    if takes(end) {
        return Some(end + 1);
    }
    if !joined(end) {
        return None;
    }
    let connector = words[end].text;
    if connector == "the" {
        let epithet = takes(end + 1) && EPITHETS.contains(&words[end + 1].text);
        return epithet.then_some(end + 2);
    }
    if !CONNECTORS.contains(&connector) {
        return None;
    }
    if takes(end + 1) {
        return Some(end + 2);
    }
    let second = joined(end + 1) && SECOND_CONNECTORS.contains(&words[end + 1].text);
    (second && takes(end + 2)).then_some(end + 3)
}

/// Whether nothing parts two words but white space, `&`, or the period of an abbreviation.
fn joins(text: &str, first: &Word, second: &Word) -> bool {
    let gap = &text[first.bytes.end..second.bytes.start];
    let abbreviated = TITLES.contains(&first.text) || first.is_initial();
    let gap = match gap.strip_prefix('.') {
        Some(rest) if abbreviated => rest,
        _ => gap,
    };
    !first.possessive && matches!(gap.trim(), "" | "&")
}

/// The words of a text as it uses them elsewhere.
struct Seen<'a> {
    /// In lower case.
    lower: HashSet<&'a str>,
    /// With a capital where no rule asks for one.
    capital: HashSet<&'a str>,
}

impl<'a> Seen<'a> {
    fn of(sentences: &'a [Vec<Word<'a>>]) -> Self {
        let words = || sentences.iter().flatten();
        let lower = words().filter(|word| !word.text.contains(char::is_uppercase));
        let capital = words().filter(|word| !word.opens && word.has_capital());
        Self {
            lower: lower.map(|word| word.text).collect(),
            capital: capital.map(|word| word.text).collect(),
        }
    }

    /// The part of a run of capitalised words that is a name: the first word of a sentence has its capital for
    /// nothing, unless it has one elsewhere too or a capitalised word follows.
    fn name(&self, run: &[Word]) -> Option<Range<usize>> {
        let first = run.first()?;
        let known = !first.opens || first.is_acronym() || self.capital.contains(first.text);
        let followed = run.get(1).is_some_and(Word::has_capital);
        if !known && (!followed || self.is_ordinary(first)) {
            let rest = run[1..].iter().position(Word::has_capital)?;
            return self.name(&run[1 + rest..]);
        }
        let last = run.last()?;
        let alone = run.len() == 1;
        let nothing = first.text.chars().count() == 1
            || TITLES.contains(&first.text)
            || first.is_roman_numeral()
            || !first.is_acronym() && (self.is_ordinary(first) || is_function_word(first.text));
        (!alone || !nothing).then_some(first.bytes.start..last.bytes.end)
    }

    fn is_ordinary(&self, word: &Word) -> bool {
        self.lower.contains(word.text.to_lowercase().as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::super::sentences::sentences;
    use super::*;

    fn found(text: &str) -> Vec<&str> {
        let names = names(text, &sentences(text));
        names.into_iter().map(|name| &text[name.bytes]).collect()
    }

    #[test]
    fn runs_with_connectors_titles_and_initials_are_one_name() {
        for (text, names) in [
            (
                "Later the British Museum bought it from J. R. R. Tolkien.",
                vec!["British Museum", "J. R. R. Tolkien"],
            ),
            (
                "It was ruled by Alexander the Great and the Duke of the Abruzzi.",
                vec!["Alexander the Great", "Duke of the Abruzzi"],
            ),
            (
                "He met Ludwig van Beethoven, Charles de Gaulle and Dr. Krapf near Mt. Kenya.",
                vec![
                    "Ludwig van Beethoven",
                    "Charles de Gaulle",
                    "Dr. Krapf",
                    "Mt. Kenya",
                ],
            ),
            (
                "Workers of AT&T in the U.S. Army like O'Neill speak Niger-Congo tongues.",
                vec!["AT&T", "U.S. Army", "O'Neill", "Niger-Congo"],
            ),
        ] {
            assert_eq!(found(text), names, "{text}");
        }
    }

    #[test]
    fn the_possessive_ends_a_name() {
        assert_eq!(
            found("In 1895 Britain’s Parliament heard Mary Leakey's report."),
            ["Britain", "Parliament", "Mary Leakey"]
        );
    }

    #[test]
    fn the_first_word_of_a_sentence_needs_a_reason() {
        // Alone, before a connector, or known in lower case it is left out.
        assert!(found("Fossils suggest that apes lived here.").is_empty());
        assert_eq!(found("North of London it rained."), ["London"]);
        assert_eq!(
            found("Prehistoric Kenya was wet. The prehistoric lakes dried."),
            ["Kenya"]
        );
        assert_eq!(
            found("The Hague is a city, but The Times is none."),
            ["Hague", "Times"]
        );
        // Followed by a name, seen elsewhere, or an acronym it is kept.
        assert_eq!(found("Ludwig Krapf wrote it."), ["Ludwig Krapf"]);
        assert_eq!(found("Kenya is large. We saw Kenya."), ["Kenya", "Kenya"]);
        assert_eq!(found("NASA launched it."), ["NASA"]);
    }

    #[test]
    fn ordinary_words_with_capitals_are_no_names() {
        assert!(found("On Monday I think I'm at 300 MHz, she said: \"Dogs bark.\"").is_empty());
        assert!(found("In the Church and the church, in World, world.").is_empty());
        assert!(found("CHAPTER ONE: THE HISTORY").is_empty());
    }
}
