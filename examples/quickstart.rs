//! The main job, from nothing: documents and question-answer pairs in, a trained retriever and
//! generator out, answers with their passages.
//!
//! ```text
//! cargo run --release --example quickstart                      # trains, measures, answers three questions
//! cargo run --release --example quickstart "长江注入哪个海？"      # answers yours, with the model of the first run
//! ```

use std::{error::Error, path::Path, time::Instant};

use burn_rag::prelude::*;
use clap::Parser;

const MODEL: &str = "target/quickstart/model";
const KNOWLEDGE: &str = "target/quickstart/knowledge";

/// Trains a retriever and a generator from nothing, and answers with them.
#[derive(Parser)]
struct Arguments {
    /// What to ask [default: three questions of ours]
    question: Option<String>,
}

fn main() -> Result<(), Box<dyn Error>> {
    burn_rag::cpu::keep_freed_pages();
    let asked = Arguments::parse().question;
    // So that citations name files from the repository's root, wherever this runs.
    std::env::set_current_dir(env!("CARGO_MANIFEST_DIR"))?;
    let device = device("cpu")?;

    let rag = if Path::new(MODEL).exists() {
        println!("Using the model in {MODEL}; delete the folder to train again.");
        Rag::load(MODEL, KnowledgeBase::open(KNOWLEDGE)?, &device)?
    } else {
        train(&device)?
    };

    match asked {
        Some(question) => println!("\n{}", rag.ask(&question)?),
        None => {
            for question in [
                "Who created the programming language Python?",
                "What is the biggest moon of the planet Saturn called?",
                "诗人杜甫被后人称作什么？",
            ] {
                println!("\n{}", rag.ask(question)?);
            }
        }
    }
    Ok(())
}

fn train(device: &Device) -> Result<Rag, Box<dyn Error>> {
    // Documents of several formats become passages that know where they stand.
    let documents = Documents::read("examples/data/corpus", &Chunking::words(100))?;
    println!("{documents}");
    let pairs = read_pairs("examples/data/train.jsonl")?;
    let heldout = read_pairs("examples/data/heldout.jsonl")?;

    // A model from nothing: vocabularies from these texts, random weights, and a retriever that has
    // learnt to find a passage by a few of its words.
    let begun = Instant::now();
    let texts: Vec<&str> = pairs
        .iter()
        .flat_map(|pair| [&pair.question, &pair.answers[0]])
        .map(String::as_str)
        .collect();
    let rag = ScratchConfig::default().init(documents.passages, &texts, device)?;
    println!("before training, {}", Measured::of(&rag, &heldout)?);

    // Retriever and generator learn together, from answers alone: nobody tells which passage is right.
    let config = TrainConfig {
        epochs: 12,
        learning_rate: 1e-3,
        question_encoder: Part::TrainedAt(1e-4),
        max_gradient_norm: 1.0,
        evaluate_every: 0,
        ..TrainConfig::default()
    };
    let mut trainer = Trainer::new(rag, config)?;
    trainer.run(&pairs, &[])?;
    let rag = trainer.rag();
    println!("trained in {:.0} s", begun.elapsed().as_secs_f64());
    println!("after training, {}", Measured::of(&rag, &heldout)?);
    for precision in [Precision::Bf16, Precision::Int8] {
        let rounded = rag.clone().with_precision(precision)?;
        println!("in {precision:?}, {}", Measured::of(&rounded, &heldout)?);
    }

    rag.retriever.local()?.save(KNOWLEDGE)?;
    rag.save(MODEL)?;
    Ok(rag)
}
