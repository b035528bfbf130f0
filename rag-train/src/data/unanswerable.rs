//! Questions that no passage answers.

use std::collections::HashMap;

use rag_core::Passage;

use super::pairs::QuestionAnswer;
use crate::evaluate::has_answer::tokens;

/// The questions of which no accepted answer stands in any of `passages`, as
/// [`has_answer`](crate::evaluate::has_answer) sees it: no retriever can find what answers them, and a model that is
/// trained on them learns to answer from nothing. Positions in `pairs`, rising.
///
/// ```
/// use rag_core::Passage;
/// use rag_train::{QuestionAnswer, unanswerable};
///
/// let passages = [Passage::new("1", "Hamlet", "Shakespeare wrote Hamlet.")];
/// let pairs = ["Shakespeare", "a prince"].map(|answer| QuestionAnswer::new("Who is it?", answer));
/// assert_eq!(unanswerable(&pairs, &passages), [1]);
/// ```
pub fn unanswerable<'a>(
    pairs: &[QuestionAnswer],
    passages: impl IntoIterator<Item = &'a Passage>,
) -> Vec<usize> {
    let texts: Vec<Vec<String>> = passages
        .into_iter()
        .map(|passage| tokens(&passage.text))
        .collect();
    let mut holders: HashMap<&str, Vec<usize>> = HashMap::new();
    for (at, text) in texts.iter().enumerate() {
        for token in text {
            let holders = holders.entry(token).or_default();
            if holders.last() != Some(&at) {
                holders.push(at);
            }
        }
    }
    // Only texts that hold the answer's rarest token can hold the answer.
    let stands = |answer: &String| {
        let answer = tokens(answer);
        let places = answer.iter().map(|token| holders.get(token.as_str()));
        let rarest = places.min_by_key(|places| places.map_or(0, Vec::len));
        rarest.flatten().is_some_and(|places| {
            let mut texts = places.iter().map(|&at| &texts[at]);
            texts.any(|text| text.windows(answer.len()).any(|run| run == answer))
        })
    };
    let answered = |pair: &QuestionAnswer| pair.answers.iter().any(stands);
    (0..pairs.len())
        .filter(|&at| !answered(&pairs[at]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::has_answer::has_answer;

    #[test]
    fn it_agrees_with_has_answer() {
        let texts = [
            "He moved to the US in 1921.",
            "住在北京市",
            "",
            "They must.",
        ];
        let passages = texts.map(|text| Passage::new("", "US or not", text));
        let answers = [
            &["us"][..],
            &["not"],
            &["in 1921", "x"],
            &["1921 in"],
            &["x", "北京"],
            &["京北"],
            &[" "],
            &["they must."],
            &["must ."],
            &["moved the"],
            &[],
        ];
        let pairs = answers.map(|answers| QuestionAnswer {
            answers: answers.iter().map(|&answer| answer.to_owned()).collect(),
            ..QuestionAnswer::new("?", "")
        });
        let expected: Vec<usize> = (0..pairs.len())
            .filter(|&at| {
                !texts
                    .iter()
                    .any(|text| has_answer(text, &pairs[at].answers))
            })
            .collect();
        assert_eq!(unanswerable(&pairs, &passages), expected);
        assert_eq!(expected, [1, 3, 5, 6, 9, 10]);
        assert_eq!(unanswerable(&pairs[..2], []), [0, 1]);
    }
}
