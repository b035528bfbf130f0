use std::{collections::HashMap, sync::LazyLock};

use regex::Regex;
use serde::{Deserialize, Serialize};

use super::language::{Language, normalize, pattern};

/// How much of an answer is in the reference, and of the reference in the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Overlap {
    /// Share of the answer that is in the reference, 0 to 1.
    pub precision: f64,
    /// Share of the reference that is in the answer, 0 to 1.
    pub recall: f64,
    /// Their harmonic mean, 0 where both are.
    pub f1: f64,
}

/// ROUGE of one answer (Lin 2004); that of a corpus is the mean over its answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rouge {
    /// ROUGE-1: of tokens.
    pub rouge_1: Overlap,
    /// ROUGE-2: of pairs of tokens.
    pub rouge_2: Overlap,
    /// ROUGE-L: of the longest common subsequence of the whole texts.
    pub rouge_l: Overlap,
}

/// ROUGE of an answer with the reference that gives the largest F1, for each kind by itself.
///
/// English is that of Google's rouge-score, without a stemmer: lower-cased tokens of a to z and digits,
/// everything else a gap, letters with accents too. Chinese compares the tokens of [`normalize`]: each
/// Han character, and each run of others. Without references it is 0.
///
/// ```
/// use rag_train::evaluate::{Language, rouge};
///
/// let rouge = rouge("the river Ural", &["The Ural is a river."], Language::English);
/// assert_eq!(rouge.rouge_1.precision, 1.0);
/// assert_eq!(rouge.rouge_1.recall, 0.6);
/// assert_eq!(rouge.rouge_2.f1, 0.0);
/// assert_eq!(rouge.rouge_l.recall, 0.4);
/// ```
pub fn rouge<S: AsRef<str>>(answer: &str, references: &[S], language: Language) -> Rouge {
    let answer = tokens(answer, language);
    let mut best = Rouge::default();
    for reference in references {
        let reference = tokens(reference.as_ref(), language);
        let better = |best: &mut Overlap, found: Overlap| {
            if found.f1 > best.f1 {
                *best = found;
            }
        };
        better(&mut best.rouge_1, of_runs(&answer, &reference, 1));
        better(&mut best.rouge_2, of_runs(&answer, &reference, 2));
        better(&mut best.rouge_l, of_subsequence(&answer, &reference));
    }
    best
}

fn tokens(text: &str, language: Language) -> Vec<String> {
    static WORD: LazyLock<Regex> = LazyLock::new(|| pattern("[a-z0-9]+"));
    match language {
        Language::English => WORD
            .find_iter(&text.to_lowercase())
            .map(|word| word.as_str().to_owned())
            .collect(),
        Language::Chinese => normalize(text, language),
    }
}

fn of_runs(answer: &[String], reference: &[String], length: usize) -> Overlap {
    let mut left: HashMap<&[String], usize> = HashMap::new();
    for run in reference.windows(length) {
        *left.entry(run).or_default() += 1;
    }
    let mut common = 0;
    for run in answer.windows(length) {
        if let Some(left) = left.get_mut(run).filter(|left| **left > 0) {
            *left -= 1;
            common += 1;
        }
    }
    let runs = |tokens: &[String]| (tokens.len() + 1).saturating_sub(length);
    overlap(common, runs(answer), runs(reference))
}

fn of_subsequence(answer: &[String], reference: &[String]) -> Overlap {
    // lengths[j]: of the longest common subsequence of the answer so far and j tokens of the reference.
    let mut lengths = vec![0; reference.len() + 1];
    for token in answer {
        let mut diagonal = 0;
        for (j, other) in reference.iter().enumerate() {
            let above = lengths[j + 1];
            lengths[j + 1] = if token == other {
                diagonal + 1
            } else {
                above.max(lengths[j])
            };
            diagonal = above;
        }
    }
    overlap(lengths[reference.len()], answer.len(), reference.len())
}

fn overlap(common: usize, answer: usize, reference: usize) -> Overlap {
    if common == 0 {
        return Overlap::default();
    }
    let precision = common as f64 / answer as f64;
    let recall = common as f64 / reference as f64;
    Overlap {
        precision,
        recall,
        f1: 2.0 * precision * recall / (precision + recall),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Language::{Chinese, English};

    #[test]
    fn the_longest_common_subsequence_may_have_gaps_and_keeps_the_order() {
        let reference = ["police killed the gunman"];
        let kept = rouge("police kill the gunman", &reference, English).rouge_l;
        assert_eq!(kept.f1, 0.75);
        let turned = rouge("the gunman kill police", &reference, English).rouge_l;
        assert_eq!(turned.f1, 0.5);
    }

    #[test]
    fn chinese_characters_are_tokens() {
        let found = rouge("长江全长6300公里。", &["长江，长6300公里"], Chinese);
        assert_eq!(found.rouge_1.precision, 6.0 / 7.0);
        assert_eq!(found.rouge_1.recall, 1.0);
        // 长江, 长6300, 6300公, 公里 of six and of five pairs.
        assert_eq!(found.rouge_2.precision, 4.0 / 6.0);
        assert_eq!(found.rouge_2.recall, 4.0 / 5.0);
        assert_eq!(found.rouge_l.recall, 1.0);
    }

    #[test]
    fn each_kind_takes_its_best_reference_and_empty_texts_have_nothing_in_common() {
        let found = rouge("a b c", &["c b a", "a b x y z"], English);
        assert_eq!(found.rouge_1.f1, 1.0);
        assert_eq!(found.rouge_2.f1, 2.0 / 6.0);
        assert_eq!(rouge("", &["", "…"], English), Rouge::default());
        assert_eq!(rouge::<&str>("a", &[], English), Rouge::default());
    }
}
