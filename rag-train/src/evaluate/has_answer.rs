use std::sync::LazyLock;

use regex::{Regex, RegexSet, RegexSetBuilder};
use tokenizers::NormalizedString;

use super::language::pattern;
use crate::error::{Error, Result};

/// Whether a text holds one of the answers: the tokens of the answer, one after the other, among the
/// tokens of the text (Karpukhin et al. 2020, section 4.1).
///
/// Upper and lower case are the same, and so are the ways in which Unicode composes a letter (NFD). A
/// token is a run of letters, digits and combining marks, or any other visible character; Han
/// characters are tokens by themselves. Thus "US" is not in "must", but 北京 is in 住在北京市.
///
/// ```
/// use rag_train::evaluate::has_answer;
///
/// assert!(has_answer("He moved to the US in 1921.", &["us"]));
/// assert!(!has_answer("They must.", &["us"]));
/// ```
pub fn has_answer<S: AsRef<str>>(text: &str, answers: &[S]) -> bool {
    let text = tokens(text);
    answers.iter().any(|answer| {
        let answer = tokens(answer.as_ref());
        !answer.is_empty() && text.windows(answer.len()).any(|run| run == answer)
    })
}

/// The tokens that [`has_answer`] compares.
pub(crate) fn tokens(text: &str) -> Vec<String> {
    static TOKEN: LazyLock<Regex> =
        LazyLock::new(|| pattern(r"\p{Han}|[[\p{L}\p{N}\p{M}]--\p{Han}]+|[^\p{Z}\p{C}]"));
    let mut text = NormalizedString::from(text);
    let text = text.nfd().get().to_lowercase();
    TOKEN
        .find_iter(&text)
        .map(|token| token.as_str().to_owned())
        .collect()
}

/// Answers written as regular expressions, as in CuratedTREC.
#[derive(Clone, Debug)]
pub struct AnswerPatterns(RegexSet);

impl AnswerPatterns {
    /// Patterns in the syntax of the `regex` crate. They do not tell upper from lower case; `^` and `$`
    /// match at line ends.
    ///
    /// # Errors
    /// [`Error::Pattern`].
    pub fn new<S: AsRef<str>>(patterns: &[S]) -> Result<Self> {
        let patterns = patterns.iter().map(AsRef::as_ref);
        RegexSetBuilder::new(patterns)
            .case_insensitive(true)
            .multi_line(true)
            .build()
            .map(Self)
            .map_err(Error::Pattern)
    }

    /// Whether any of them matches somewhere in a text.
    pub fn is_in(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_run_of_whole_tokens() {
        let text = "In 1889, the Eiffel Tower's height was 312 m.";
        assert!(has_answer(text, &["THE EIFFEL  TOWER"]));
        assert!(has_answer(text, &["x", "1889,"]));
        assert!(!has_answer(text, &["Eiffel height"]));
        assert!(!has_answer(text, &["312 m.."]));
        assert!(!has_answer(text, &["31"]));
        assert!(!has_answer(text, &["", " \n"]));
        assert!(!has_answer("", &["x"]));
    }

    #[test]
    fn composed_and_decomposed_letters_are_the_same() {
        assert!(has_answer("Le Caf\u{e9} de Flore", &["cafe\u{301}"]));
        assert!(has_answer("LE CAFE\u{301}", &["caf\u{e9}"]));
        assert!(!has_answer("Le Caf\u{e9}", &["cafe"]));
    }

    #[test]
    fn chinese_answers_need_no_spaces() {
        assert!(has_answer("他1921年住在北京市。", &["北京"]));
        assert!(has_answer("他1921年住在北京市。", &["1921年"]));
        assert!(!has_answer("他1921年住在北京市。", &["192", "京北"]));
    }

    #[test]
    fn patterns_match_anywhere_in_any_case() {
        let patterns = AnswerPatterns::new(&[r"19\d\d", r"^eiff?el\s+tower$"]).unwrap();
        assert!(patterns.is_in("It opened in 1889.\nEiffel Tower\n"));
        assert!(patterns.is_in("1921年"));
        assert!(!patterns.is_in("It opened in 1889 as the Eiffel Tower."));
        assert!(!AnswerPatterns::new::<&str>(&[]).unwrap().is_in("x"));
        let error = AnswerPatterns::new(&["(open"]).unwrap_err();
        assert!(format!("{error:?}").contains("(open"), "{error:?}");
    }
}
