use std::collections::HashMap;

use super::language::{Language, normalize};
use crate::error::{Error, Result};

/// Whether an answer equals any accepted one after [`normalize`].
pub fn exact_match<S: AsRef<str>>(answer: &str, accepted: &[S], language: Language) -> bool {
    let answer = normalize(answer, language);
    accepted
        .iter()
        .any(|accepted| normalize(accepted.as_ref(), language) == answer)
}

/// The largest F1 of tokens with any accepted answer, 0 to 1: the harmonic mean of precision and
/// recall over [`normalize`]d tokens, as SQuAD's script computes it. Where either has no token, it is
/// 1 if neither has.
pub fn f1<S: AsRef<str>>(answer: &str, accepted: &[S], language: Language) -> f64 {
    let answer = normalize(answer, language);
    accepted
        .iter()
        .map(|accepted| overlap(&answer, &normalize(accepted.as_ref(), language)))
        .fold(0.0, f64::max)
}

fn overlap(answer: &[String], accepted: &[String]) -> f64 {
    if answer.is_empty() || accepted.is_empty() {
        return f64::from(u8::from(answer == accepted));
    }
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for token in accepted {
        *counts.entry(token).or_default() += 1;
    }
    let common = answer
        .iter()
        .filter(|token| match counts.get_mut(token.as_str()) {
            Some(count) if *count > 0 => {
                *count -= 1;
                true
            }
            _ => false,
        })
        .count() as f64;
    2.0 * common / (answer.len() + accepted.len()) as f64
}

/// The share of labels, each paired with the right one, that are right, 0 to 1.
///
/// # Errors
/// [`Error::NoExamples`].
///
/// ```
/// use rag_train::evaluate::accuracy;
///
/// assert_eq!(accuracy(&[("yes", "yes"), ("no", "yes")])?, 0.5);
/// # Ok::<(), rag_train::Error>(())
/// ```
pub fn accuracy<T: PartialEq>(labels: &[(T, T)]) -> Result<f64> {
    if labels.is_empty() {
        return Err(Error::NoExamples);
    }
    let right = labels.iter().filter(|(found, right)| found == right);
    Ok(right.count() as f64 / labels.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Language::{Chinese, English};

    #[test]
    fn articles_case_and_punctuation_do_not_count() {
        assert!(exact_match(
            "the  Eiffel-Tower!",
            &["Eiffeltower", "x"],
            English
        ));
        assert!(!exact_match("Eiffel", &["Eiffel Tower"], English));
        assert!(!exact_match("《静夜思》", &["静夜思"], English));
        assert!(exact_match("《静夜思》", &["静夜思"], Chinese));
        assert!(exact_match("6300 公里。", &["6,300公里"], Chinese));
        assert!(!exact_match("维生素", &["维生素A"], Chinese));
        assert!(exact_match("The", &["", "x"], English));
        assert!(!exact_match::<&str>("", &[], English));
    }

    #[test]
    fn f1_is_the_harmonic_mean_of_token_precision_and_recall() {
        // 2 common tokens, precision 2/3, recall 2/2.
        let found = f1("in the Ural mountains", &["Ural Mountains"], English);
        assert!((found - 0.8).abs() < 1e-12);
        assert_eq!(f1("b b", &["b"], English), 2.0 / 3.0);
        assert_eq!(f1("", &["the"], English), 1.0);
        assert_eq!(f1("", &["b"], English), 0.0);
        assert_eq!(f1("北京市", &["北京"], Chinese), 0.8);
        assert_eq!(f1("北京市", &["北京"], English), 0.0);
        assert_eq!(f1("x", &["y", "x"], English), 1.0);
        assert_eq!(f1::<&str>("", &[], English), 0.0);
    }

    #[test]
    fn accuracy_needs_labels() {
        assert_eq!(accuracy(&[(1, 1), (2, 3), (4, 4)]).unwrap(), 2.0 / 3.0);
        assert!(matches!(accuracy::<u32>(&[]), Err(Error::NoExamples)));
    }
}
