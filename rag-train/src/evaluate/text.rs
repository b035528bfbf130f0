use std::collections::HashMap;

/// Whether an answer equals any accepted one after [`normalize`].
pub fn exact_match(answer: &str, accepted: &[&str]) -> bool {
    let answer = normalize(answer);
    accepted
        .iter()
        .any(|accepted| normalize(accepted) == answer)
}

/// The largest F1 of tokens with any accepted answer, 0 to 1: the harmonic mean of precision and
/// recall over [`normalize`]d tokens, as SQuAD's script computes it.
pub fn f1(answer: &str, accepted: &[&str]) -> f64 {
    let answer = normalize(answer);
    accepted
        .iter()
        .map(|accepted| overlap(&answer, &normalize(accepted)))
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

/// The tokens that answers are compared by: lower-cased, without punctuation and English articles;
/// words between white space, and each Chinese character by itself.
///
/// ```
/// use rag_train::evaluate::normalize;
///
/// assert_eq!(normalize("The Ural Mountains."), ["ural", "mountains"]);
/// assert_eq!(normalize("长江，6300 公里"), ["长", "江", "6300", "公", "里"]);
/// ```
pub fn normalize(text: &str) -> Vec<String> {
    let mut spaced = String::with_capacity(text.len());
    for character in text.to_lowercase().chars() {
        if is_cjk(character) {
            spaced.extend([' ', character, ' ']);
        } else if !is_punctuation(character) {
            spaced.push(character);
        }
    }
    spaced
        .split_whitespace()
        .filter(|token| !["a", "an", "the"].contains(token))
        .map(str::to_owned)
        .collect()
}

fn is_punctuation(character: char) -> bool {
    character.is_ascii_punctuation()
        || matches!(character, '\u{3001}'..='\u{303F}' | '\u{FF01}'..='\u{FF0F}' | '\u{FF1A}'..='\u{FF20}'
            | '\u{FF3B}'..='\u{FF40}' | '\u{FF5B}'..='\u{FF65}' | '“' | '”' | '‘' | '’' | '…' | '—' | '·')
}

fn is_cjk(character: char) -> bool {
    matches!(character, '\u{3400}'..='\u{4DBF}' | '\u{4E00}'..='\u{9FFF}' | '\u{F900}'..='\u{FAFF}'
        | '\u{20000}'..='\u{2FA1F}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn articles_case_and_punctuation_do_not_count() {
        assert!(exact_match("the  Eiffel-Tower!", &["Eiffeltower", "x"]));
        assert!(!exact_match("Eiffel", &["Eiffel Tower"]));
        assert!(exact_match("《静夜思》", &["静夜思"]));
    }

    #[test]
    fn f1_is_the_harmonic_mean_of_token_precision_and_recall() {
        // 2 common tokens, precision 2/3, recall 2/2.
        assert!((f1("in the Ural mountains", &["Ural Mountains"]) - 0.8).abs() < 1e-12);
        assert_eq!(f1("b b", &["b"]), 2.0 / 3.0);
        assert_eq!(f1("", &[""]), 1.0);
        assert_eq!(f1("北京市", &["北京"]), 0.8);
        assert_eq!(f1("x", &["y", "x"]), 1.0);
    }
}
