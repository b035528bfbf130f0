use std::{borrow::Cow, sync::LazyLock};

use regex::{Captures, Regex};
use serde::{Deserialize, Serialize};

/// The language whose rules say which tokens of texts are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// Words between white space. Also for other languages that write spaces.
    #[default]
    English,
    /// Each Han character by itself, words where others are written.
    Chinese,
}

impl Language {
    /// A guess, for those who do not know: Chinese where a text has Han characters, at least as many
    /// as words in other letters. Numbers do not count. A text without letters is English.
    ///
    /// ```
    /// use rag_train::evaluate::Language;
    ///
    /// assert_eq!(Language::of("iPhone是哪家公司的产品？"), Language::Chinese);
    /// assert_eq!(Language::of("What does the name 北京 mean?"), Language::English);
    /// ```
    pub fn of(text: &str) -> Self {
        static HAN_OR_WORD: LazyLock<Regex> =
            LazyLock::new(|| pattern(r"(\p{Han})|[[\p{L}\p{M}]--\p{Han}]+"));
        let (mut han, mut words) = (0, 0);
        for found in HAN_OR_WORD.captures_iter(text) {
            match found.get(1) {
                Some(_) => han += 1,
                None => words += 1,
            }
        }
        if han > 0 && han >= words {
            Self::Chinese
        } else {
            Self::English
        }
    }
}

/// The tokens that answers are compared by.
///
/// English: as in SQuAD's evaluation script (Rajpurkar et al. 2016): lower-cased, without ASCII
/// punctuation, without the words a, an and the, split at white space. Punctuation beyond ASCII stays.
///
/// Chinese: lower-cased; ASCII's punctuation dropped, so that 6,300 is one number, any other a gap; each
/// Han character is a token, and so is each run of anything else between them and gaps, its full-width
/// letters and digits as ASCII's. Articles stay: the A of 维生素A is none.
///
/// ```
/// use rag_train::evaluate::{Language, normalize};
///
/// assert_eq!(normalize("The Ural Mountains.", Language::English), ["ural", "mountains"]);
/// assert_eq!(normalize("长江，６,３００ 米", Language::Chinese), ["长", "江", "6300", "米"]);
/// ```
pub fn normalize(text: &str, language: Language) -> Vec<String> {
    let text: String = text
        .to_lowercase()
        .chars()
        .filter(|character| !character.is_ascii_punctuation())
        .collect();
    match language {
        Language::English => words(&without_articles(&text)).map(str::to_owned).collect(),
        Language::Chinese => {
            static HAN_OR_WORD: LazyLock<Regex> = LazyLock::new(|| {
                pattern(r"\p{Han}|[^\p{Han}\p{Z}\p{C}\p{P}！-／：-＠［-｀｛-～]+")
            });
            HAN_OR_WORD
                .find_iter(&text)
                .map(|token| token.as_str().chars().map(half_width).collect())
                .collect()
        }
    }
}

/// A space for each a, an and the that no letter or digit touches. Python's `\b`, which SQuAD's script
/// uses, takes a combining mark for the end of a word; [`Regex`]'s does not.
fn without_articles(text: &str) -> Cow<'_, str> {
    static WORD: LazyLock<Regex> = LazyLock::new(|| pattern(r"[\p{L}\p{N}_]+"));
    WORD.replace_all(text, |word: &Captures| match &word[0] {
        "a" | "an" | "the" => " ".to_owned(),
        word => word.to_owned(),
    })
}

fn half_width(character: char) -> char {
    const DISTANCE: u32 = '！' as u32 - '!' as u32;
    match character {
        '！'..='～' => char::from_u32(character as u32 - DISTANCE).unwrap_or(character),
        _ => character,
    }
}

/// The words between white space, as Python's `str.split` sees it.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|word| !word.is_empty())
}

/// White space to Python: Unicode's, and four separators of ASCII.
pub(super) fn is_space(character: char) -> bool {
    character.is_whitespace() || matches!(character, '\u{1C}'..='\u{1F}')
}

pub(super) fn pattern(literal: &str) -> Regex {
    Regex::new(literal).expect("patterns of the code are literals, and tests use each")
}

#[cfg(test)]
mod tests {
    use super::*;
    use Language::{Chinese, English};

    #[test]
    fn the_language_is_the_one_with_more_of_its_words() {
        assert_eq!(Language::of("长江有多长？"), Chinese);
        assert_eq!(Language::of("维生素A"), Chinese);
        assert_eq!(Language::of("2008年"), Chinese);
        assert_eq!(Language::of("The Yangtze (长江) is long."), English);
        assert_eq!(Language::of("cafe\u{301} cre\u{300}me 人民"), Chinese);
        assert_eq!(Language::of("cafe\u{301} cre\u{300}me 人"), English);
        assert_eq!(Language::of("6,300"), English);
        assert_eq!(Language::of(""), English);
    }

    #[test]
    fn english_drops_whole_articles_and_punctuation_of_ascii_only() {
        assert_eq!(
            normalize("The theatre, an “A”…", English),
            ["theatre", "“", "”…"]
        );
        assert_eq!(
            normalize("Eiffel-Tower_the 长江，", English),
            ["eiffeltowerthe", "长江，"]
        );
        assert_eq!(normalize("the—a1 an\u{301}", English), ["—a1", "\u{301}"]);
        assert_eq!(normalize("a\u{1C}b\u{A0}c", English), ["b", "c"]);
        assert!(normalize("The a. AN!", English).is_empty());
    }

    #[test]
    fn chinese_is_compared_by_characters_without_any_punctuation() {
        assert_eq!(
            normalize("《静夜思》——李白·", Chinese),
            ["静", "夜", "思", "李", "白"]
        );
        assert_eq!(
            normalize("二〇〇八年ＡＢＣ－１２＋", Chinese),
            ["二", "〇", "〇", "八", "年", "abc", "12"]
        );
        assert_eq!(normalize("维生素 A", Chinese), ["维", "生", "素", "a"]);
        assert_eq!(
            normalize("“3.14”，GB/s、25℃\u{3000}𠮷野家", Chinese),
            ["314", "gbs", "25℃", "𠮷", "野", "家"]
        );
        assert!(normalize("，。！？ ...", Chinese).is_empty());
    }
}
