use std::{collections::HashMap, sync::LazyLock};

use regex::Regex;
use serde::{Deserialize, Serialize};

use super::language::{Language, is_space, pattern, words};
use crate::error::{Error, Result};

const ORDERS: usize = 4;

/// BLEU and what it is made of (Papineni et al. 2002). Precisions and score run to 100, as sacrebleu
/// prints them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bleu {
    /// The brevity penalty times the geometric mean of the precisions, 0 to 100.
    pub score: f64,
    /// Of runs of one to four tokens, 0 to 100, smoothed; 0 where the answers have no run so long.
    pub precisions: [f64; ORDERS],
    /// exp(1 - reference length / length) for answers shorter than their references, else 1.
    pub brevity_penalty: f64,
    /// Tokens of the answers.
    pub length: usize,
    /// Tokens of the references, of each answer's the closest in length.
    pub reference_length: usize,
}

/// BLEU of answers, each with its references, as one corpus: matches are counted over all of them,
/// before precisions are taken.
///
/// It is sacrebleu's (Post 2018) `corpus_bleu`, case-sensitive, with `smooth_method="exp"` and
/// `tokenize="13a"` (mteval-v13a) for English, `"zh"` for Chinese. An answer without references
/// matches nothing.
///
/// # Errors
/// [`Error::NoExamples`].
///
/// ```
/// use rag_train::evaluate::{Language, bleu};
///
/// let references = ["the Ural is a long river"];
/// let bleu = bleu(&[("the Ural is a river", &references[..])], Language::English)?;
/// assert_eq!(bleu.precisions, [100.0, 75.0, 200.0 / 3.0, 50.0]);
/// assert_eq!(bleu.brevity_penalty, (1.0 - 6.0 / 5.0f64).exp());
/// # Ok::<(), rag_train::Error>(())
/// ```
pub fn bleu<S: AsRef<str>>(answers: &[(&str, &[S])], language: Language) -> Result<Bleu> {
    if answers.is_empty() {
        return Err(Error::NoExamples);
    }
    let mut corpus = Counts::default();
    for (answer, references) in answers {
        corpus.add(answer, references, language);
    }
    Ok(corpus.score(Orders::All))
}

/// BLEU of one answer, as sacrebleu's `sentence_bleu`: runs longer than the answer do not count, so
/// that a right answer of two words can reach 100. Averages of it are not BLEU.
pub fn sentence_bleu<S: AsRef<str>>(answer: &str, references: &[S], language: Language) -> Bleu {
    let mut counts = Counts::default();
    counts.add(answer, references, language);
    counts.score(Orders::Present)
}

/// Which precisions the geometric mean is taken of.
#[derive(Clone, Copy, PartialEq)]
enum Orders {
    All,
    /// Of runs that an answer is long enough to have.
    Present,
}

#[derive(Default)]
struct Counts {
    matches: [usize; ORDERS],
    totals: [usize; ORDERS],
    length: usize,
    reference_length: usize,
}

impl Counts {
    fn add<S: AsRef<str>>(&mut self, answer: &str, references: &[S], language: Language) {
        let answer = tokens(answer, language);
        let references: Vec<_> = references
            .iter()
            .map(|reference| tokens(reference.as_ref(), language))
            .collect();
        let lengths = references.iter().map(Vec::len);
        let closest = lengths.min_by_key(|&length| (length.abs_diff(answer.len()), length));
        self.length += answer.len();
        self.reference_length += closest.unwrap_or(0);

        for order in 1..=ORDERS {
            let mut most: HashMap<&[String], usize> = HashMap::new();
            for reference in &references {
                for (run, count) in runs(reference, order) {
                    let most = most.entry(run).or_default();
                    *most = count.max(*most);
                }
            }
            for (run, count) in runs(&answer, order) {
                self.totals[order - 1] += count;
                self.matches[order - 1] += most.get(run).map_or(0, |&most| count.min(most));
            }
        }
    }

    fn score(&self, orders: Orders) -> Bleu {
        let (length, reference_length) = (self.length, self.reference_length);
        let brevity_penalty = if length >= reference_length {
            1.0
        } else if length == 0 {
            0.0
        } else {
            (1.0 - reference_length as f64 / length as f64).exp()
        };
        let mut bleu = Bleu {
            brevity_penalty,
            length,
            reference_length,
            ..Bleu::default()
        };
        if self.matches.iter().all(|&count| count == 0) {
            return bleu;
        }
        // Smoothing of mteval-v13a: the nth order without a match counts as 2^-n matches.
        let mut smoothed = 1.0;
        let mut present = 0;
        for (order, &total) in self
            .totals
            .iter()
            .enumerate()
            .filter(|(_, total)| **total > 0)
        {
            let matches = match self.matches[order] {
                0 => {
                    smoothed /= 2.0;
                    smoothed
                }
                matches => matches as f64,
            };
            bleu.precisions[order] = 100.0 * matches / total as f64;
            present = order + 1;
        }
        let counted = match orders {
            Orders::All => ORDERS,
            Orders::Present => present,
        };
        let logarithms = bleu.precisions[..counted].iter().map(|value| value.ln());
        bleu.score = brevity_penalty * (logarithms.sum::<f64>() / counted as f64).exp();
        bleu
    }
}

fn runs(tokens: &[String], order: usize) -> HashMap<&[String], usize> {
    let mut counts = HashMap::new();
    for run in tokens.windows(order) {
        *counts.entry(run).or_default() += 1;
    }
    counts
}

fn tokens(text: &str, language: Language) -> Vec<String> {
    let text = text.trim_end_matches(is_space);
    let text = match language {
        Language::English => {
            let plain = text
                .replace("<skipped>", "")
                .replace("-\n", "")
                .replace('\n', " ")
                .replace("&quot;", "\"")
                .replace("&amp;", "&")
                .replace("&lt;", "<")
                .replace("&gt;", ">");
            format!(" {plain} ")
        }
        Language::Chinese => ZH
            .replace_all(text.trim_matches(is_space), " $0 ")
            .into_owned(),
    };
    let text = SYMBOL.replace_all(&text, " $0 ");
    let text = NO_DIGIT_BEFORE.replace_all(&text, "$1 $2 ");
    let text = NO_DIGIT_AFTER.replace_all(&text, " $1 $2");
    let text = DASH_AFTER_DIGIT.replace_all(&text, "$1 $2 ");
    words(&text).map(str::to_owned).collect()
}

// mteval-v13a: punctuation stands alone, but for apostrophes, for dots and commas between digits, and
// for dashes that follow no digit.
static SYMBOL: LazyLock<Regex> = LazyLock::new(|| pattern(r"[[:punct:]--[',.\-]]"));
static NO_DIGIT_BEFORE: LazyLock<Regex> = LazyLock::new(|| pattern(r"([^0-9])([.,])"));
static NO_DIGIT_AFTER: LazyLock<Regex> = LazyLock::new(|| pattern(r"([.,])([^0-9])"));
static DASH_AFTER_DIGIT: LazyLock<Regex> = LazyLock::new(|| pattern(r"([0-9])(-)"));

/// The characters that sacrebleu's `zh` sets apart. The first range is wider than Unicode's blocks of
/// Chinese, and the planes beyond the first are missing: so it is there, and scores depend on it.
static ZH: LazyLock<Regex> = LazyLock::new(|| {
    pattern(concat!(
        r"[\u{2001}-\u{2A6D}\u{2E80}-\u{2FDF}\u{2FF0}-\u{303F}\u{3100}-\u{312F}\u{31A0}-\u{31EF}",
        r"\u{3200}-\u{4DB5}\u{4E00}-\u{9FBB}\u{F900}-\u{FA2D}\u{FA30}-\u{FA6A}\u{FA70}-\u{FAD9}",
        r"\u{FE10}-\u{FE1F}\u{FE30}-\u{FE4F}\u{FF00}-\u{FFEF}]"
    ))
});

#[cfg(test)]
mod tests {
    use super::*;
    use Language::{Chinese, English};

    #[test]
    fn numbers_keep_their_dots_and_words_lose_theirs() {
        assert_eq!(
            tokens("It's 6,300.5 km-long, e.g. 3-4 &quot;x&quot;.", English),
            [
                "It's", "6,300.5", "km-long", ",", "e", ".", "g", ".", "3", "-", "4", "\"", "x",
                "\"", "."
            ]
        );
        assert_eq!(
            tokens("长江，6.3千km。", Chinese),
            ["长", "江", "，", "6.3", "千", "km", "。"]
        );
    }

    #[test]
    fn a_repeated_token_matches_as_often_as_the_reference_has_it() {
        // Papineni et al., section 2.1: 2 of 7. The runs of two, three and four that never match count
        // as 1/2, 1/4 and 1/8.
        let found = sentence_bleu(
            "the the the the the the the",
            &["the cat is on the mat", "there is a cat on the mat"],
            English,
        );
        let precisions = [200.0 / 7.0, 50.0 / 6.0, 25.0 / 5.0, 12.5 / 4.0];
        for (found, by_hand) in found.precisions.iter().zip(precisions) {
            assert!((found - by_hand).abs() < 1e-12);
        }
        assert_eq!((found.length, found.reference_length), (7, 7));
    }

    #[test]
    fn a_short_right_answer_is_right_as_a_sentence_only() {
        assert!((sentence_bleu("Ural river", &["Ural river"], English).score - 100.0).abs() < 1e-9);
        let corpus = bleu(&[("Ural river", ["Ural river"].as_slice())], English).unwrap();
        assert_eq!(corpus.score, 0.0);
        assert_eq!(sentence_bleu("", &["Ural"], English).brevity_penalty, 0.0);
        assert!(matches!(bleu::<&str>(&[], English), Err(Error::NoExamples)));
    }
}
