//! Our half of `peers/ask.py`: answers to the same questions, as one JSON line.

mod common;
#[path = "common/limit.rs"]
mod limit;

use std::{collections::BTreeMap, error::Error, fs, path::PathBuf, time::Instant};

use burn_rag::{
    core::{TokenBatch, marginal::Compat},
    generate::{
        Checkpoint, Reader, SequenceDecoding, SequenceSettings, decode::Control, rag_sequence,
        rag_token,
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
    /// Seconds that this machine needs at least for the answers.
    limit: f64,
    versions: BTreeMap<&'static str, &'static str>,
}

fn main() -> Result<(), Box<dyn Error>> {
    // Memory that one computation frees is for the next, as in a program that serves questions.
    burn_rag::cpu::keep_freed_pages();
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
    let answer = || answers(&checkpoint, &work, &generation, precision);
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
) -> f64 {
    // RAG-Token answers all questions at once.
    let (together, times) = match work.model {
        RagModel::Token => (work.questions.len(), 1),
        RagModel::Sequence => (1, work.questions.len()),
    };
    let answer = limit::Answer {
        model: work.model,
        question_length: together * work.questions[0].len(),
        contexts: together * work.contexts[0].len(),
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
    times as f64 * machine.limit(bert, &checkpoint.config.generator, answer, width)
}

fn answers(
    checkpoint: &Checkpoint,
    work: &Work,
    generation: &GenerationConfig,
    precision: Precision,
) -> Result<Vec<Vec<u32>>, Box<dyn Error>> {
    let config = &checkpoint.config;
    let device = checkpoint.generator.device();
    let pad = config.question_encoder.bert.pad_token_id;
    let questions = TokenBatch::new(&work.questions, pad, &device);
    let vectors = checkpoint
        .question_encoder
        .forward(&questions, None, Precision::F32);
    let vectors: Vec<f32> = vectors.try_into_vec_as()?;
    let scores: Vec<Vec<f32>> = vectors
        .chunks_exact(vectors.len() / work.questions.len())
        .map(|vector| {
            let product =
                |document: &Vec<f32>| document.iter().zip(vector).map(|(a, b)| a * b).sum();
            work.documents.iter().map(product).collect()
        })
        .collect();
    let scores: Vec<&[f32]> = scores.iter().map(Vec::as_slice).collect();
    let contexts = TokenBatch::new(&work.contexts.concat(), config.generator.pad(), &device);
    let generator = &checkpoint.generator;
    let reader = Reader::of_questions(generator, &contexts, &scores, &config.generator, precision);
    match work.model {
        RagModel::Token => {
            let answers = rag_token::decode(&reader, generation, Control::default())?;
            Ok(answers
                .into_iter()
                .map(|mut answers| answers.swap_remove(0).tokens)
                .collect())
        }
        RagModel::Sequence => {
            let settings = SequenceSettings {
                decoding: SequenceDecoding::Thorough,
                compat: Compat::HuggingFace,
                deduplicate: true,
            };
            (0..scores.len())
                .map(|question| {
                    let reader = reader.question(question);
                    let control = Control::default();
                    let mut answers = rag_sequence::decode(&reader, generation, settings, control)?;
                    Ok(answers.swap_remove(0).tokens)
                })
                .collect()
        }
    }
}
