//! Generate, then rank; and answer, or abstain.
//!
//! ```text
//! cargo run --release --example quickstart           # trains the model, once
//! cargo run --release --example rank_candidates \
//!     [<checkpoint folder> <knowledge base folder> <questions.jsonl>]
//! ```
//!
//! A threshold means something for one model and its texts only, so that it is measured here: the one at
//! which nine in ten of the given questions are answered. What it then makes of questions that the
//! documents do not answer is what one buys with it.

use std::{error::Error, path::PathBuf};

use burn_rag::prelude::*;
use clap::Parser;

/// Ranks proposed answers, and answers or abstains.
#[derive(Parser)]
struct Arguments {
    /// Folder of a RAG checkpoint
    #[arg(
        default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/target/quickstart/model"),
        requires = "knowledge"
    )]
    checkpoint: PathBuf,
    /// Folder of the knowledge base
    #[arg(
        default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/target/quickstart/knowledge"),
        requires = "questions"
    )]
    knowledge: PathBuf,
    /// Questions and answers, one JSON object a line
    #[arg(default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/heldout.jsonl"))]
    questions: PathBuf,
    /// Where to compute: cpu, and in builds that have them wgpu, cuda, or wgpu:1 for the second GPU
    #[arg(long, env = "RAG_DEVICE", default_value = "cpu")]
    device: String,
}

/// Nothing in the quickstart's documents answers these.
const NOT_IN_THE_CORPUS: [&str; 6] = [
    "Who won the football world cup in 1998?",
    "What is the capital of Norway?",
    "How do I bake bread without yeast?",
    "Which film won the first Academy Award?",
    "北京今天的天气怎么样？",
    "谁写了《红楼梦》？",
];

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let device = device(&arguments.device)?;
    let knowledge = KnowledgeBase::open(&arguments.knowledge)
        .inspect_err(|_| eprintln!("The quickstart example makes a model and a knowledge base."))?;
    let rag = Rag::load(&arguments.checkpoint, knowledge, &device)?;
    let questions = read_pairs(&arguments.questions)?;

    rank(&rag, &questions[0].question)?;
    for threshold in thresholds(&rag, &questions)? {
        println!("\n# Answer, or abstain: {threshold:?}\n");
        answer_or_abstain(&rag, &questions[0].question, threshold)?;
        for question in NOT_IN_THE_CORPUS {
            answer_or_abstain(&rag, question, threshold)?;
        }
    }
    Ok(())
}

/// The generator proposes, by P(y|x); the retriever has a second opinion on what was proposed.
fn rank(rag: &Rag, question: &str) -> Result<(), Box<dyn Error>> {
    let several = rag
        .generation()
        .clone()
        .with_num_beams(4)
        .with_num_return_sequences(4);
    let answers = rag.clone().with_generation(several).ask_several(question)?;
    let candidates: Vec<&str> = answers.iter().map(|answer| answer.text.as_str()).collect();

    println!("{question}\n\nby the generator, P(y|x)");
    for answer in &answers {
        println!("  {:>8.3}  {}", answer.probability(), answer.text);
    }
    println!("\nby likeness to the question, ⟨encode(x), encode(y)⟩");
    for candidate in rag.rank_candidates(question, &candidates, RankBy::Question)? {
        println!("  {:>8.3}  {}", candidate.score, candidate.text);
    }
    println!("\nby likeness to the best passage, max ⟨encode(y), z⟩");
    for candidate in rag.rank_candidates(question, &candidates, RankBy::Evidence)? {
        println!("  {:>8.3}  {}", candidate.score, candidate.text);
    }
    Ok(())
}

/// The thresholds at which nine in ten of the questions are answered.
fn thresholds(rag: &Rag, questions: &[QuestionAnswer]) -> Result<[Threshold; 2], Box<dyn Error>> {
    let mut probabilities = Vec::new();
    let mut similarities = Vec::new();
    for QuestionAnswer { question, .. } in questions {
        let answer = rag.ask(question)?;
        let ranked = rag.rank_candidates(question, &[&answer.text], RankBy::Question)?;
        probabilities.push(answer.probability());
        similarities.push(ranked[0].score);
    }
    let tenth = |mut values: Vec<f32>| {
        values.sort_by(f32::total_cmp);
        values[values.len() / 10]
    };
    Ok([
        Threshold::Probability(tenth(probabilities)),
        Threshold::Similarity(tenth(similarities)),
    ])
}

fn answer_or_abstain(
    rag: &Rag,
    question: &str,
    threshold: Threshold,
) -> Result<(), Box<dyn Error>> {
    let (verdict, answer) = match rag.ask_or_abstain(question, threshold)? {
        Outcome::Answered(answer) => ("answered ", answer),
        Outcome::Abstained(best) => ("abstained", best),
    };
    println!(
        "{verdict}  {question} → {}   P(y|x) = {:.3}",
        answer.text,
        answer.probability()
    );
    Ok(())
}
