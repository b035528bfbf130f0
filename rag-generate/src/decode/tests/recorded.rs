use serde::Deserialize;

use super::markov::Markov;
use crate::decode::{Control, GenerationConfig, generate};

/// A search that transformers 4.57.6 ran, recorded by `record.py` beside this file.
#[derive(Deserialize)]
pub struct Recorded {
    seed: u64,
    batch: usize,
    vocabulary: usize,
    end_bias: f32,
    config: GenerationConfig,
    /// Allowed next tokens by last token, where the search is constrained.
    allowed: Option<Vec<Vec<u32>>>,
    /// For each search, tokens and score of each answer.
    expected: Vec<Vec<(Vec<u32>, f32)>>,
}

impl Recorded {
    /// What differs from transformers, if anything does.
    pub fn difference(&self) -> Option<String> {
        let mut model = Markov::new(self.seed, self.batch, self.vocabulary, self.end_bias);
        let table = self.allowed.clone().unwrap_or_default();
        let allowed = |_: usize, prefix: &[u32]| table[prefix[prefix.len() - 1] as usize].clone();
        let control = match self.allowed {
            Some(_) => Control::default().with_allowed(&allowed),
            None => Control::default(),
        };
        let found = match generate(&mut model, self.batch, &self.config, control) {
            Ok(found) => found,
            Err(error) => return Some(error.to_string()),
        };
        let same = found.len() == self.expected.len()
            && found.iter().zip(&self.expected).all(|(found, expected)| {
                found.len() == expected.len()
                    && found.iter().zip(expected).all(|(found, (tokens, score))| {
                        found.tokens == *tokens
                            && (found.score - score).abs() <= 1e-4 * score.abs().max(1.0)
                    })
            });
        (!same).then(|| {
            format!(
                "found {found:?}\nexpected {:?}\nwith {:?}",
                self.expected, self.config
            )
        })
    }
}

#[test]
fn searches_as_transformers_does() {
    let cases: Vec<Recorded> = serde_json::from_str(include_str!("recorded.json")).unwrap();
    assert!(cases.len() >= 12);
    for (number, case) in cases.iter().enumerate() {
        if let Some(difference) = case.difference() {
            panic!("case {number}: {difference}");
        }
    }
}
