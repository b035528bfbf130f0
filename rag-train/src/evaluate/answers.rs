//! Answers of a model against accepted ones.

use rag_generate::{Answer, Rag};
use serde::{Deserialize, Serialize};

use super::{
    language::Language,
    text::{exact_match, f1},
};
use crate::{
    data::pairs::QuestionAnswer,
    error::{Error, Result},
};

/// Scores of answers against accepted ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AnswerScores {
    /// Share of answers that equal an accepted one after normalisation, 0 to 1.
    pub exact_match: f64,
    /// Mean overlap of tokens with the closest accepted answer, 0 to 1.
    pub f1: f64,
    /// Questions that were asked.
    pub questions: usize,
}

/// Asks every question, tells `each` the answer, and compares it with the accepted ones: as Chinese where
/// the question or an accepted answer is, by [`Language::of`], else as English.
///
/// # Errors
/// [`Error::NoExamples`]; those of [`Rag::ask`].
pub fn answers(
    rag: &Rag,
    pairs: &[QuestionAnswer],
    mut each: impl FnMut(&QuestionAnswer, &Answer),
) -> Result<AnswerScores> {
    if pairs.is_empty() {
        return Err(Error::NoExamples);
    }
    let mut scores = AnswerScores::default();
    for pair in pairs {
        let answer = rag.ask(&pair.question)?;
        let language = language_of(pair);
        let exact = exact_match(&answer.text, &pair.answers, language);
        scores.exact_match += f64::from(u8::from(exact));
        scores.f1 += f1(&answer.text, &pair.answers, language);
        each(pair, &answer);
    }
    let questions = pairs.len() as f64;
    Ok(AnswerScores {
        exact_match: scores.exact_match / questions,
        f1: scores.f1 / questions,
        questions: pairs.len(),
    })
}

/// The language of a pair. The question and the accepted answers choose it, not the model's answer, so that no
/// answer changes its own measure.
pub fn language_of(pair: &QuestionAnswer) -> Language {
    let mut texts = [&pair.question].into_iter().chain(&pair.answers);
    if texts.any(|text| Language::of(text) == Language::Chinese) {
        Language::Chinese
    } else {
        Language::English
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_choose_the_language() {
        let of = |question: &str, answer: &str| language_of(&QuestionAnswer::new(question, answer));
        assert_eq!(of("《红楼梦》有多少回？", "120"), Language::Chinese);
        assert_eq!(of("Where does the Yangtze end?", "上海"), Language::Chinese);
        assert_eq!(
            of("What does 北京 mean?", "northern capital"),
            Language::English
        );
    }
}
