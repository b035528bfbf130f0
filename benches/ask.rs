//! Our half of `peers/ask.py`: answers to the same questions, as one JSON line.

mod common;
#[path = "common/limit.rs"]
mod limit;

use std::{collections::BTreeMap, error::Error, fs, path::PathBuf, time::Instant};

use burn_rag::{
    core::{TokenBatch, marginal::Compat},
    generate::{
        Checkpoint, Reader, SequenceDecoding, SequenceSettings, decode::Control,
        generator::GeneratorConfig, rag_sequence, rag_token,
    },
    prelude::*,
};
use clap::Parser;
use common::peak_resident_bytes;
use limit::Machine;
use serde::{Deserialize, Serialize};

#[derive(Parser)]
struct Arguments {
    /// Where `peers/ask.py` has put `work.json`; nothing is measured without it.
    #[arg(long)]
    folder: Option<PathBuf>,
    #[arg(long, default_value = "f32")]
    precision: Precision,
    /// Cargo adds it.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Deserialize)]
struct Work {
    checkpoint: PathBuf,
    model: RagModel,
    repeats: usize,
    questions: Vec<Vec<u32>>,
    contexts: Vec<Vec<Vec<u32>>>,
    documents: Vec<Vec<f32>>,
    generation: serde_json::Value,
}

#[derive(Serialize)]
struct Measured {
    name: &'static str,
    /// From the start of the process to the first answer.
    first: f64,
    seconds: Vec<f64>,
    tokens: Vec<Vec<u32>>,
    /// Where the system says it.
    peak_resident_bytes: Option<u64>,
    /// What this machine needs at least for the answers, where it is known.
    limit: Option<f64>,
    versions: BTreeMap<&'static str, &'static str>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let begun = Instant::now();
    let arguments = Arguments::parse();
    let Some(folder) = arguments.folder else {
        println!("skipped: run benches/peers/ask.py");
        return Ok(());
    };
    let work: Work = serde_json::from_str(&fs::read_to_string(folder.join("work.json"))?)?;
    let device = device(&std::env::var("RAG_DEVICE").unwrap_or_else(|_| "cpu".into()))?;
    let precision = arguments.precision;
    let mut checkpoint = Checkpoint::load(&work.checkpoint, &device)?;
    checkpoint.generator = checkpoint.generator.with_precision(precision)?;
    let mut generation = serde_json::to_value(&checkpoint.generation)?;
    for (name, value) in work.generation.as_object().into_iter().flatten() {
        generation[name] = value.clone();
    }
    let generation: GenerationConfig = serde_json::from_value(generation)?;
    let answer = || -> Result<Vec<Vec<u32>>, Box<dyn Error>> {
        let questions = work.questions.iter().zip(&work.contexts);
        questions
            .map(|(question, contexts)| {
                answer(
                    &checkpoint,
                    &work,
                    question,
                    contexts,
                    &generation,
                    precision,
                )
            })
            .collect()
    };
    let tokens = answer()?;
    let first = begun.elapsed().as_secs_f64();
    let seconds = (0..work.repeats)
        .map(|_| {
            let begun = Instant::now();
            answer().map(|_| begun.elapsed().as_secs_f64())
        })
        .collect::<Result<_, _>>()?;
    let peak_resident_bytes = peak_resident_bytes();
    let measured = Measured {
        name: "burn-rag",
        first,
        seconds,
        tokens,
        peak_resident_bytes,
        limit: least(&checkpoint, &work, &generation, precision),
        versions: BTreeMap::from([("burn-rag", env!("CARGO_PKG_VERSION"))]),
    };
    println!("{}", serde_json::to_string(&measured)?);
    Ok(())
}

fn least(
    checkpoint: &Checkpoint,
    work: &Work,
    generation: &GenerationConfig,
    precision: Precision,
) -> Option<f64> {
    let GeneratorConfig::Bart(bart) = &checkpoint.config.generator else {
        return None;
    };
    let answer = limit::Answer {
        model: work.model,
        question_length: work.questions[0].len(),
        contexts: work.contexts[0].len(),
        context_length: work.contexts[0][0].len(),
        beams: generation.num_beams,
        tokens: generation.max_length - 1,
    };
    let bert = &checkpoint.config.question_encoder.bert;
    let width = match precision {
        Precision::F32 => 4.0,
        Precision::F16 | Precision::Bf16 => 2.0,
        Precision::Int8 => 1.0,
    };
    // More than any cache holds.
    let machine = Machine::measure(precision, 1 << 30);
    Some(work.questions.len() as f64 * machine.limit(bert, bart, answer, width))
}

fn answer(
    checkpoint: &Checkpoint,
    work: &Work,
    question: &[u32],
    contexts: &[Vec<u32>],
    generation: &GenerationConfig,
    precision: Precision,
) -> Result<Vec<u32>, Box<dyn Error>> {
    let config = &checkpoint.config;
    let device = checkpoint.generator.device();
    let pad = config.question_encoder.bert.pad_token_id;
    let question = TokenBatch::new(&[question], pad, &device);
    let vector = checkpoint
        .question_encoder
        .forward(&question, None, Precision::F32);
    let vector: Vec<f32> = vector.try_into_vec_as()?;
    let score = |document: &Vec<f32>| document.iter().zip(&vector).map(|(a, b)| a * b).sum();
    let scores: Vec<f32> = work.documents.iter().map(score).collect();
    let contexts = TokenBatch::new(contexts, config.generator.pad(), &device);
    let generator = &checkpoint.generator;
    let reader = Reader::new(generator, &contexts, &scores, &config.generator, precision);
    let control = Control::default();
    Ok(match work.model {
        RagModel::Token => {
            rag_token::decode(&reader, generation, control)?
                .swap_remove(0)
                .tokens
        }
        RagModel::Sequence => {
            let settings = SequenceSettings {
                decoding: SequenceDecoding::Thorough,
                compat: Compat::HuggingFace,
                deduplicate: true,
            };
            rag_sequence::decode(&reader, generation, settings, control)?
                .swap_remove(0)
                .tokens
        }
    })
}
