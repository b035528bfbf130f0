//! Trains a RAG checkpoint further, on your own questions and answers.
//!
//! ```text
//! cargo run --release --example finetune <checkpoint folder> <knowledge base folder> <pairs.jsonl> <output folder> \
//!     [heldout.jsonl] [--epochs N] [--learning-rate X] [--batch N] [--precision f32|bf16|f16] [--model sequence|token]
//! ```
//!
//! Each line of `pairs.jsonl` is `{"question": "…", "answers": ["…"]}`; which passage holds the answer
//! need not be known. Question encoder and generator learn together; the knowledge base stays as it is,
//! and so serves the trained model too. The output folder receives `last`, and with held-out pairs
//! `best`, both of which `ask` reads. The same command again goes on with a run that was stopped.
//!
//! `RAG_DEVICE` chooses the device: `cpu` (default), or `wgpu` and `cuda` in builds that have them.

use std::{env, error::Error, path::Path};

use burn_rag::prelude::*;

const USAGE: &str = "usage: finetune <checkpoint folder> <knowledge base folder> <pairs.jsonl> <output folder> \
    [heldout.jsonl] [--epochs N] [--learning-rate X] [--batch N] [--precision f32|bf16|f16] [--model sequence|token]";

fn main() -> Result<(), Box<dyn Error>> {
    let mut files = Vec::new();
    let mut config = TrainConfig::default();
    let mut model = None;
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let Some(option) = argument.strip_prefix("--") else {
            files.push(argument);
            continue;
        };
        let value = arguments.next().ok_or(USAGE)?;
        match (option, value.as_str()) {
            ("epochs", epochs) => config.epochs = epochs.parse()?,
            ("learning-rate", rate) => config.learning_rate = rate.parse()?,
            ("batch", pairs) => config.batch_size = pairs.parse()?,
            ("precision", "f32") => config.precision = Precision::F32,
            ("precision", "bf16") => config.precision = Precision::Bf16,
            ("precision", "f16") => config.precision = Precision::F16,
            ("model", "sequence") => model = Some(RagModel::Sequence),
            ("model", "token") => model = Some(RagModel::Token),
            _ => return Err(USAGE.into()),
        }
    }
    let (checkpoint, knowledge, pairs, output, heldout) = match &files[..] {
        [checkpoint, knowledge, pairs, output] => (checkpoint, knowledge, pairs, output, None),
        [checkpoint, knowledge, pairs, output, heldout] => {
            (checkpoint, knowledge, pairs, output, Some(heldout))
        }
        _ => return Err(USAGE.into()),
    };
    config.checkpoints = Some(output.into());

    let device = device(&env::var("RAG_DEVICE").unwrap_or_else(|_| "cpu".into()))?;
    let pairs = read_pairs(pairs)?;
    let heldout = heldout.map(read_pairs).transpose()?.unwrap_or_default();
    let mut rag = Rag::load(checkpoint, KnowledgeBase::open(knowledge)?, &device)?;
    if let Some(model) = model {
        rag = rag.with_model(model);
    }

    if !heldout.is_empty() {
        println!("before, {}", Measured::of(&rag, &heldout)?);
    }
    // A run that was stopped goes on where it was.
    let mut trainer = match Path::new(output).join("last/training").exists() {
        true => Trainer::resume(rag, config, pairs.len())?,
        false => Trainer::new(rag, config, pairs.len())?,
    };
    let report = trainer.run(&pairs, &heldout)?;
    if report.skipped_steps > 0 {
        println!(
            "{} steps were skipped: their gradients were not finite",
            report.skipped_steps
        );
    }
    println!("the model is in {output}/last");
    Ok(())
}
