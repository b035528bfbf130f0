//! The answers to held-out questions, and what is measured of each.

use std::time::Instant;

use burn_rag::{prelude::*, train::evaluate::Asked};
use serde::{Deserialize, Serialize};

use super::{
    Failure,
    contexts::Contexts,
    output::{Output, progress},
    settings::AnswerFrom,
};

/// Questions that are answered together, and written together.
const TOGETHER: usize = 8;
/// Passages among which the right one is looked for.
const DEEPEST: usize = 20;

/// A held-out question with its answer, judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// The question with its answer; of some, with the answers where passages are missing.
    pub asked: Asked,
    /// Whether the answer equals an accepted one.
    pub exact: bool,
    /// F1 with the closest accepted answer; as f32, which JSON does not round.
    pub f1: f32,
    /// Whether the answer has an accepted one in it.
    pub contains: bool,
    /// log P(y|x) of the first accepted answer, which training would have read, and its tokens with the one that ends it.
    pub accepted_log_likelihood: f32,
    pub accepted_tokens: usize,
    /// The place of the first passage that answers, counted from 1, among the best 20 that are retrieved.
    pub rank: Option<usize>,
}

/// The answers of a run, as far as it is.
#[derive(Default, Serialize, Deserialize)]
struct Answers {
    seconds: f64,
    judged: Vec<Judged>,
}

/// All answers, with how long they took.
pub struct Measured {
    pub judged: Vec<Judged>,
    pub seconds: f64,
}

/// Asks every question, and those at the places `again` with passages missing, but for what was answered before; `None`
/// where `stopped` said so.
pub fn answers(
    rag: &Rag,
    from: AnswerFrom,
    contexts: &Contexts,
    questions: &[QuestionAnswer],
    again: &[usize],
    run: &Output,
    stopped: &dyn Fn() -> bool,
) -> Result<Option<Measured>, Failure> {
    let name = file("answers", from);
    let mut answers: Answers = run.read(&name)?.unwrap_or_default();
    let as_before = answers.judged.iter().zip(questions);
    let other =
        |(before, now): (&Judged, &QuestionAnswer)| before.asked.pair.question != now.question;
    if answers.judged.len() > questions.len() || as_before.into_iter().any(other) {
        return Err(format!(
            "{} has answers to other questions; give the same --questions, or remove the file to ask anew",
            run.path(&name).display()
        )
        .into());
    }

    let retriever = &rag.retriever;
    let deepest = (retriever.clone()).top_k(DEEPEST.min(retriever.searched()))?;
    let mut reader = rag.clone();
    reader.retriever = contexts.to_answer(from, retriever, questions)?;
    let rest = &questions[answers.judged.len()..];
    for pairs in rest.chunks(TOGETHER) {
        if stopped() {
            return Ok(None);
        }
        let begun = Instant::now();
        let asked: Vec<&str> = pairs.iter().map(|pair| &pair.question[..]).collect();
        let found = deepest.retrieve(&asked)?;
        for ((pair, found), answer) in pairs.iter().zip(found).zip(reader.ask_many(&asked)?) {
            let rank = found
                .iter()
                .position(|found| pair.is_answered_by(&found.passage));
            let accepted = reader.score(&pair.question, &[&pair.answers[0]])?;
            let mut pair = pair.clone();
            if !contexts.are_retrieved(from) {
                // The passage read has no id in the corpus: its text says whether it holds the answer.
                pair.passage = None;
            }
            answers
                .judged
                .push(judged(pair, answer, &accepted[0], rank));
        }
        answers.seconds += begun.elapsed().as_secs_f64();
        let done = answers.judged.len();
        run.write(&name, &answers)?;
        progress(
            "answered questions",
            done - pairs.len(),
            done,
            questions.len(),
        );
    }
    if contexts.are_retrieved(from) {
        let asked = |at: &usize| &answers.judged[*at].asked;
        let missing = |at: &usize| asked(at).removed.is_none() && asked(at).left_out.is_none();
        let rest: Vec<usize> = again.iter().copied().filter(missing).collect();
        let mut done = again.len() - rest.len();
        for places in rest.chunks(TOGETHER) {
            if stopped() {
                return Ok(None);
            }
            for &at in places {
                let asked = &mut answers.judged[at].asked;
                asked.remove_passages(&reader)?;
                asked.leave_out(&reader)?;
            }
            run.write(&name, &answers)?;
            let before = done;
            done += places.len();
            let what = "asked with passages missing: questions";
            progress(what, before, done, again.len());
        }
    }
    Ok(Some(Measured {
        judged: answers.judged,
        seconds: answers.seconds,
    }))
}

/// The file of this run that `what` is in.
pub fn file(what: &str, from: AnswerFrom) -> String {
    match from {
        AnswerFrom::Retrieved => format!("{what}.json"),
        AnswerFrom::Gold => format!("{what}-gold.json"),
    }
}

fn judged(pair: QuestionAnswer, answer: Answer, accepted: &Answer, rank: Option<usize>) -> Judged {
    let language = evaluate::language_of(&pair);
    Judged {
        exact: evaluate::exact_match(&answer.text, &pair.answers, language),
        f1: evaluate::f1(&answer.text, &pair.answers, language) as f32,
        contains: evaluate::has_answer(&answer.text, &pair.answers),
        accepted_log_likelihood: accepted.log_likelihood,
        accepted_tokens: accepted.tokens.len(),
        rank: rank.map(|at| at + 1),
        asked: Asked::new(pair, answer),
    }
}
