//! Classification by the same model: log P(label|text) over a closed set of labels, each label scored
//! as an answer, summed over the passages.
//!
//! ```text
//! cargo run --release --example quickstart      # trains the model, once
//! cargo run --release --example classify [<checkpoint folder> <knowledge base folder>]
//! ```
//!
//! Lewis et al. 2020 (section 3.4) verify FEVER's claims this way. The quickstart's model has learnt to
//! answer questions: it chooses well among answers, which the first part shows. It has seen neither
//! claims with verdicts nor intents, so that the second and third part show the mechanics only, and the
//! labels that it prefers mean nothing: it spells words that it does not know letter by letter, each
//! letter at a price, so that short labels win. Fine-tune on pairs of a text and its label for that.

use std::{env, error::Error};

use burn_rag::prelude::*;

const USAGE: &str = "usage: classify [<checkpoint folder> <knowledge base folder>]";

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

    println!("# Multiple choice: what this model is trained for\n");
    let ranges = ["Alps", "Karakoram", "Andes"];
    score(
        &rag,
        "What is the mountain range that K2 belongs to?",
        &ranges,
    )?;
    let seas = ["东海", "渤海", "南海"];
    score(&rag, "长江最后注入哪个海？", &seas)?;

    println!("# Claims and verdicts, as in FEVER: mechanics only\n");
    let verdicts = ["SUPPORTS", "REFUTES", "NOT ENOUGH INFO"];
    score(
        &rag,
        "The Nile flows into the Mediterranean Sea.",
        &verdicts,
    )?;
    score(&rag, "The Nile flows into the Caspian Sea.", &verdicts)?;

    println!("# Intents: mechanics only\n");
    let intents = ["ask for a place", "ask for a year", "ask for a person"];
    score(
        &rag,
        "In what year did climbers make the first ascent of Mont Blanc?",
        &intents,
    )?;

    println!("# The same choice, by constrained decoding\n");
    decode(
        rag,
        "What is the mountain range that K2 belongs to?",
        &ranges,
    )
}

/// Every label is scored: exact, at the cost of one decoder pass over all of them.
fn score(rag: &Rag, text: &str, labels: &[&str]) -> Result<(), Box<dyn Error>> {
    println!("{text}");
    let mut answers = rag.score(text, labels)?;
    let total: f32 = answers.iter().map(Answer::probability).sum();
    answers.sort_by(|a, b| b.log_likelihood.total_cmp(&a.log_likelihood));
    println!("   log P(y|x)   among the labels   label");
    for answer in &answers {
        println!(
            "   {:>10.3}   {:>14.1} %   {}",
            answer.log_likelihood,
            100.0 * answer.probability() / total,
            answer.text,
        );
    }
    println!();
    Ok(())
}

/// The decoder chooses token by token, among those with which some label goes on: it takes as long for
/// ten thousand labels as for three. Beams look further ahead than one token.
fn decode(rag: Rag, text: &str, labels: &[&str]) -> Result<(), Box<dyn Error>> {
    let allowed = rag.allowed(labels)?;
    let generation = GenerationConfig {
        num_beams: 4,
        max_new_tokens: Some(allowed.longest()),
        ..rag.generation.clone()
    };
    let rag = rag.with_generation(generation);
    let callback = allowed.callback();
    let answer = rag.ask_with(text, Control::default().with_allowed(&callback))?;
    print!("{answer}");
    Ok(())
}
