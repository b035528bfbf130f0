use std::collections::{BTreeMap, HashSet};

use rag_core::Passage;
use rag_retrieve::Chunking;
use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};
use serde::{Deserialize, Serialize};

use super::{sentences::sentences, span::SpanKind, spans::spans_of};
use crate::data::pairs::QuestionAnswer;

/// Which spans become questions, and how these are written.
///
/// Words are parted by white space; a Chinese character is a word of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SalientSpans {
    /// The text in place of the span: for T5 `<extra_id_0>`, for BART `<mask>`.
    pub mask: String,
    /// Most questions of a passage.
    pub per_passage: usize,
    /// The kinds that are wanted.
    pub kinds: Vec<SpanKind>,
    /// Fewest words of a sentence besides the span.
    pub min_words: usize,
    /// Most words of a sentence.
    pub max_words: usize,
    /// Most words of a span; it never has more than the rest of its sentence.
    pub max_answer_words: usize,
    /// Seed of the draw.
    pub seed: u64,
}

impl Default for SalientSpans {
    fn default() -> Self {
        Self {
            mask: "___".into(),
            per_passage: 8,
            kinds: vec![SpanKind::Name, SpanKind::Number, SpanKind::Date],
            min_words: 5,
            max_words: 60,
            max_answer_words: 10,
            seed: 0,
        }
    }
}

/// Cloze questions of passages, in the passages' order: each is a sentence with one salient span
/// masked; the span is its answer, and the passage's id is in [`QuestionAnswer::passage`].
///
/// Where a passage has more spans than `per_passage`, they are drawn, from all kinds in turn. No
/// answer is asked for twice in one passage, and none that the rest of its sentence gives away by
/// repeating it. The id of a question is that of its passage and the span's byte therein: `7#120`.
///
/// ```
/// use rag_core::Passage;
/// use rag_train::salient::{SalientSpans, cloze_pairs};
///
/// let passages = [Passage::new("7", "Krakatoa", "The volcano of Krakatoa last erupted violently in 1883.")];
/// let pairs = cloze_pairs(&passages, &SalientSpans::default());
/// assert_eq!(pairs[0].question, "The volcano of ___ last erupted violently in 1883.");
/// assert_eq!(pairs[0].answers, ["Krakatoa"]);
/// assert_eq!(pairs[1].answers, ["1883"]);
/// ```
pub fn cloze_pairs(passages: &[Passage], settings: &SalientSpans) -> Vec<QuestionAnswer> {
    let mut random = StdRng::seed_from_u64(settings.seed);
    passages
        .iter()
        .flat_map(|passage| {
            let mut drawn = draw(candidates(passage, settings), settings, &mut random);
            drawn.sort_by_key(|candidate| candidate.at);
            drawn.into_iter().map(|candidate| QuestionAnswer {
                id: format!("{}#{}", passage.id, candidate.at),
                question: candidate.question,
                answers: vec![candidate.answer],
                passage: Some(passage.id.clone()),
            })
        })
        .collect()
}

struct Candidate {
    /// The byte of the passage's text at which the span begins.
    at: usize,
    kind: SpanKind,
    question: String,
    answer: String,
}

/// All questions that a passage allows.
fn candidates(passage: &Passage, settings: &SalientSpans) -> Vec<Candidate> {
    let text = passage.text.as_str();
    let sentences = sentences(text);
    let mut spans = spans_of(text, &sentences).into_iter().peekable();
    let mut candidates = Vec::new();
    for range in sentences {
        let sentence = &text[range.clone()];
        let length = words(sentence);
        while let Some(span) = spans.next_if(|span| span.bytes.end <= range.end) {
            let answer = &text[span.bytes.clone()];
            if !settings.kinds.contains(&span.kind) || !settings.fit(length, words(answer)) {
                continue;
            }
            let before = &text[range.start..span.bytes.start];
            let after = &text[span.bytes.end..range.end];
            candidates.extend(question(before, answer, after, &settings.mask).map(
                |(question, answer)| Candidate {
                    at: span.bytes.start,
                    kind: span.kind,
                    question,
                    answer,
                },
            ));
        }
    }
    candidates
}

/// A sentence with its span masked, and the span, both on one line; `None` where the sentence still
/// tells the answer, or has a mask already.
fn question(before: &str, span: &str, after: &str, mask: &str) -> Option<(String, String)> {
    let one_line = |text: &str| text.replace("\r\n", " ").replace(['\r', '\n'], " ");
    let question = one_line(&[before, mask, after].concat());
    let answer = one_line(span);
    let masked = !mask.is_empty() && (before.contains(mask) || after.contains(mask));
    let told = question.to_lowercase().contains(&answer.to_lowercase());
    (!masked && !told).then_some((question, answer))
}

/// At most `per_passage` of the candidates, from all kinds in turn, each answer once.
fn draw(
    mut candidates: Vec<Candidate>,
    settings: &SalientSpans,
    random: &mut StdRng,
) -> Vec<Candidate> {
    candidates.shuffle(random);
    let mut answers = HashSet::new();
    candidates.retain(|candidate| answers.insert(candidate.answer.to_lowercase()));
    let mut drawn_of: BTreeMap<SpanKind, usize> = BTreeMap::new();
    let mut turns: Vec<(usize, Candidate)> = (candidates.into_iter())
        .map(|candidate| {
            let turn = drawn_of.entry(candidate.kind).or_default();
            *turn += 1;
            (*turn, candidate)
        })
        .collect();
    turns.sort_by_key(|(turn, _)| *turn);
    turns.truncate(settings.per_passage);
    turns.into_iter().map(|(_, candidate)| candidate).collect()
}

impl SalientSpans {
    /// Whether a span of so many words may be asked for in a sentence of so many.
    fn fit(&self, sentence: usize, answer: usize) -> bool {
        let rest = sentence.saturating_sub(answer);
        sentence <= self.max_words
            && answer <= self.max_answer_words
            && rest >= self.min_words.max(answer)
    }
}

/// The number of words of a text.
fn words(text: &str) -> usize {
    let words = Chunking::words(1).split(text);
    words
        .expect("one word at a time, without overlap, is a valid chunking")
        .len()
}
