//! Trains a RAG checkpoint further, on your own questions and answers.
//!
//! ```text
//! cargo run --release --example finetune <checkpoint folder> <knowledge base folder> <pairs.jsonl> \
//!     <output folder> [heldout.jsonl] [--epochs N] [--learning-rate X] [--batch N] \
//!     [--precision f32|bf16|f16] [--model sequence|token]
//! ```
//!
//! Each line of `pairs.jsonl` is `{"question": "…", "answers": ["…"]}`; which passage holds the answer
//! need not be known. Question encoder and generator learn together; the knowledge base stays as it is,
//! and so serves the trained model too. The output folder receives `last`, and with held-out pairs
//! `best`, both of which `ask` reads. The same command again goes on with a run that was stopped.
//!
//! `--device`, or else `RAG_DEVICE`, chooses the device: `cpu` (default), or `wgpu` and `cuda` in
//! builds that have them. `-- --help` explains every argument.

use std::{error::Error, path::PathBuf};

use burn_rag::prelude::*;
use clap::Parser;
use serde::de::DeserializeOwned;

/// Trains a RAG checkpoint further, on your own questions and answers.
#[derive(Parser)]
struct Arguments {
    /// Folder of the checkpoint to begin with
    checkpoint: PathBuf,
    /// Folder of its knowledge base
    knowledge: PathBuf,
    /// Questions and answers to train on, one JSON object a line
    pairs: PathBuf,
    /// Folder that receives the trained model
    output: PathBuf,
    /// Questions and answers to measure on, of which none is trained on
    heldout: Option<PathBuf>,
    /// Passes over the pairs
    #[arg(long, default_value_t = TrainConfig::default().epochs)]
    epochs: usize,
    /// Highest learning rate
    #[arg(long, default_value_t = TrainConfig::default().learning_rate)]
    learning_rate: f64,
    /// Pairs of a step
    #[arg(long, default_value_t = TrainConfig::default().batch_size)]
    batch: usize,
    /// Format of matrix products: f32, bf16 or f16
    #[arg(long, default_value = "f32", value_parser = named::<Precision>)]
    precision: Precision,
    /// RAG-Sequence or RAG-Token: sequence or token [default: what the checkpoint is]
    #[arg(long, value_parser = named::<RagModel>)]
    model: Option<RagModel>,
    /// Where to compute: cpu, and in builds that have them wgpu, cuda, or wgpu:1 for the second GPU
    #[arg(long, env = "RAG_DEVICE", default_value = "cpu")]
    device: String,
}

/// A setting, from the name that it has in JSON.
fn named<T: DeserializeOwned>(name: &str) -> Result<T, serde_json::Error> {
    serde_json::from_value(name.into())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let config = TrainConfig {
        epochs: arguments.epochs,
        learning_rate: arguments.learning_rate,
        batch_size: arguments.batch,
        precision: arguments.precision,
        checkpoints: Some(arguments.output.clone()),
        ..TrainConfig::default()
    };

    let device = device(&arguments.device)?;
    let pairs = read_pairs(arguments.pairs)?;
    let heldout = arguments.heldout.map(read_pairs).transpose()?;
    let heldout = heldout.unwrap_or_default();
    let knowledge = KnowledgeBase::open(arguments.knowledge)?;
    let mut rag = Rag::load(arguments.checkpoint, knowledge, &device)?;
    if let Some(model) = arguments.model {
        rag = rag.with_model(model);
    }

    if !heldout.is_empty() {
        println!("before, {}", Measured::of(&rag, &heldout)?);
    }
    // A run that was stopped goes on where it was.
    let mut trainer = match arguments.output.join("last/training").exists() {
        true => Trainer::resume(rag, config)?,
        false => Trainer::new(rag, config)?,
    };
    let report = trainer.run(&pairs, &heldout)?;
    if report.skipped_steps > 0 {
        println!(
            "{} steps were skipped: their gradients were not finite",
            report.skipped_steps
        );
    }
    println!(
        "the model is in {}",
        arguments.output.join("last").display()
    );
    Ok(())
}
