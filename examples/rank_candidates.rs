//! Generate, then rank; and answer, or abstain.
//!
//! ```text
//! cargo run --release --example quickstart           # trains the model, once
//! cargo run --release --example rank_candidates [<checkpoint folder> <knowledge base folder>]
//! ```

use std::{env, error::Error};

use burn_rag::prelude::*;

const USAGE: &str = "usage: rank_candidates [<checkpoint folder> <knowledge base folder>]";

const IN_THE_CORPUS: &str = "The river Nile flows into which sea at its end?";
const NOT_IN_THE_CORPUS: &str = "Who won the football world cup in 1998?";

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (checkpoint, knowledge) = match &arguments[..] {
        [] => ("target/quickstart/model", "target/quickstart/knowledge"),
        [checkpoint, knowledge] => (checkpoint.as_str(), knowledge.as_str()),
        _ => return Err(USAGE.into()),
    };
    let device = device(&env::var("RAG_DEVICE").unwrap_or_else(|_| "cpu".into()))?;
    let knowledge = KnowledgeBase::open(knowledge)
        .map_err(|error| format!("{error}; run the quickstart example to make one"))?;
    let rag = Rag::load(checkpoint, knowledge, &device)?;

    rank(&rag, IN_THE_CORPUS)?;
    for question in [IN_THE_CORPUS, NOT_IN_THE_CORPUS] {
        answer_or_abstain(&rag, question)?;
    }
    Ok(())
}

/// The generator proposes, by P(y|x); the retriever has a second opinion on what was proposed.
fn rank(rag: &Rag, question: &str) -> Result<(), Box<dyn Error>> {
    let several = rag
        .generation
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

/// A threshold is measured on questions of one's own, answerable and not: these two are this model's.
fn answer_or_abstain(rag: &Rag, question: &str) -> Result<(), Box<dyn Error>> {
    println!("\n{question}");
    for threshold in [Threshold::Probability(0.5), Threshold::Similarity(0.2)] {
        match rag.ask_or_abstain(question, threshold)? {
            Outcome::Answered(answer) => {
                println!(
                    "  {threshold:?}: {}   P(y|x) = {:.3}",
                    answer.text,
                    answer.probability()
                );
            }
            Outcome::Abstained(best) => {
                println!(
                    "  {threshold:?}: no answer (best: {}   P(y|x) = {:.3})",
                    best.text,
                    best.probability()
                );
            }
        }
    }
    Ok(())
}
