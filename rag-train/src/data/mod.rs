//! What is trained on: question-answer pairs, and DPR's questions with passages for and against.

mod dpr;
mod pairs;

use serde::{Deserialize, Deserializer};

pub use dpr::{DprExample, read_dpr, write_dpr};
pub use pairs::{QuestionAnswer, leaks, read_pairs};

/// What texts are compared by: words in lower case without punctuation, each Chinese character by itself.
pub(crate) fn tokens(text: &str) -> Vec<String> {
    let mut spaced = String::with_capacity(text.len());
    for character in text.to_lowercase().chars() {
        if is_han(character) {
            spaced.extend([' ', character, ' ']);
        } else if character.is_alphanumeric() {
            spaced.push(character);
        } else {
            spaced.push(' ');
        }
    }
    spaced.split_whitespace().map(str::to_owned).collect()
}

fn is_han(character: char) -> bool {
    matches!(character, '\u{3005}'..='\u{3007}' | '\u{3400}'..='\u{4DBF}' | '\u{4E00}'..='\u{9FFF}'
        | '\u{F900}'..='\u{FAFF}' | '\u{20000}'..='\u{3FFFF}')
}

/// An id, which some files write as a number; empty for null.
fn id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Id {
        Text(String),
        Number(serde_json::Number),
    }
    Ok(match Option::deserialize(deserializer)? {
        None => String::new(),
        Some(Id::Text(id)) => id,
        Some(Id::Number(id)) => id.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_words_and_chinese_characters() {
        assert_eq!(
            tokens("The U.S.A.’s 3rd—长江,6300公里!"),
            [
                "the", "u", "s", "a", "s", "3rd", "长", "江", "6300", "公", "里"
            ]
        );
        assert!(tokens(" ?! ").is_empty());
    }
}
