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

use std::{error::Error, path::PathBuf};

use burn_rag::prelude::*;
use clap::Parser;

/// Chooses among labels by their probability.
#[derive(Parser)]
struct Arguments {
    /// Folder of a RAG checkpoint
    #[arg(
        default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/target/quickstart/model"),
        requires = "knowledge"
    )]
    checkpoint: PathBuf,
    /// Folder of the knowledge base
    #[arg(default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/target/quickstart/knowledge"))]
    knowledge: PathBuf,
    /// Where to compute: cpu, and in builds that have them wgpu, cuda, or wgpu:1 for the second GPU
    #[arg(long, env = "RAG_DEVICE", default_value = "cpu")]
    device: String,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let device = device(&arguments.device)?;
    let knowledge = KnowledgeBase::open(&arguments.knowledge)
        .inspect_err(|_| eprintln!("The quickstart example makes a model and a knowledge base."))?;
    let rag = Rag::load(&arguments.checkpoint, knowledge, &device)?;

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
        ..rag.generation().clone()
    };
    let rag = rag.with_generation(generation);
    let callback = allowed.callback();
    let answer = rag.ask_with(text, Control::default().with_allowed(&callback))?;
    print!("{answer}");
    Ok(())
}
