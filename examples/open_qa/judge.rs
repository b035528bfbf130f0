//! The answers to held-out questions, and what is measured of each.

use std::time::Instant;

use burn_rag::{prelude::*, train::watch::ExamplePassage};
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
/// Characters of a passage that are kept for the report.
const EXCERPT: usize = 401;

/// What became of a question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    pub question: String,
    pub accepted: Vec<String>,
    pub answer: String,
    /// Whether the answer equals an accepted one.
    pub exact: bool,
    /// F1 with the closest accepted answer; as f32, which JSON does not round.
    pub f1: f32,
    /// Whether the answer has an accepted one in it.
    pub contains: bool,
    /// log P(y|x) of the answer.
    pub log_likelihood: f32,
    /// log P(y|x) of the first accepted answer, which training would have read, and its tokens with the one that ends it.
    pub accepted_log_likelihood: f32,
    pub accepted_tokens: usize,
    /// The place of the first passage that answers, counted from 1, among the best 20 that are retrieved.
    pub rank: Option<usize>,
    /// What the answer was read from.
    pub passages: Vec<ExamplePassage>,
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

/// Asks every question, beginning after those that were answered before; `None` where `stopped` said so.
pub fn answers(
    rag: &Rag,
    from: AnswerFrom,
    contexts: &Contexts,
    questions: &[QuestionAnswer],
    run: &Output,
    stopped: &dyn Fn() -> bool,
) -> Result<Option<Measured>, Failure> {
    let name = file("answers", from);
    let mut answers: Answers = run.read(&name)?.unwrap_or_default();
    let as_before = answers.judged.iter().zip(questions);
    let other = |(before, now): (&Judged, &QuestionAnswer)| before.question != now.question;
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
            answers
                .judged
                .push(judged(pair, &answer, &accepted[0], rank));
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

fn judged(
    pair: &QuestionAnswer,
    answer: &Answer,
    accepted: &Answer,
    rank: Option<usize>,
) -> Judged {
    let language = evaluate::language_of(pair);
    let passages = answer.evidence.iter().map(|evidence| ExamplePassage {
        title: evidence.passage.title.clone(),
        text: evidence.passage.text.chars().take(EXCERPT).collect(),
        prior: evidence.prior,
        posterior: evidence.posterior,
        gold: evaluate::has_answer(&evidence.passage.text, &pair.answers),
    });
    Judged {
        question: pair.question.clone(),
        accepted: pair.answers.clone(),
        exact: evaluate::exact_match(&answer.text, &pair.answers, language),
        f1: evaluate::f1(&answer.text, &pair.answers, language) as f32,
        contains: evaluate::has_answer(&answer.text, &pair.answers),
        answer: answer.text.clone(),
        log_likelihood: answer.log_likelihood,
        accepted_log_likelihood: accepted.log_likelihood,
        accepted_tokens: accepted.tokens.len(),
        rank: rank.map(|at| at + 1),
        passages: passages.collect(),
    }
}
