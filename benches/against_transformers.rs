//! Our half of `against_transformers.py`, which makes the folder `$RAG_BENCH_DIR`, measures
//! transformers on it, runs this, and prints both: decodes the same contexts with the same settings.

use std::{error::Error, fs, path::PathBuf, time::Instant};

use burn_rag::{
    core::{TokenBatch, marginal::Compat},
    generate::{
        Checkpoint, Reader, SequenceDecoding, SequenceSettings, decode::Control, rag_sequence,
        rag_token,
    },
    prelude::*,
};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Work {
    contexts: Vec<Vec<u32>>,
    doc_scores: Vec<f32>,
    generation: serde_json::Value,
    repeats: usize,
}

#[derive(Serialize)]
struct Measured {
    model: &'static str,
    seconds: Vec<f64>,
    tokens: Vec<u32>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let Some(folder) = std::env::var_os("RAG_BENCH_DIR").map(PathBuf::from) else {
        println!("skipped: run benches/against_transformers.py");
        return Ok(());
    };
    let device = device(&std::env::var("RAG_DEVICE").unwrap_or_else(|_| "cpu".into()))?;
    let checkpoint = Checkpoint::load(&folder, &device)?;
    let work: Work = serde_json::from_str(&fs::read_to_string(folder.join("work.json"))?)?;
    let mut settings = serde_json::to_value(&checkpoint.generation)?;
    for (name, value) in work.generation.as_object().into_iter().flatten() {
        settings[name] = value.clone();
    }
    let generation: GenerationConfig = serde_json::from_value(settings)?;
    let config = &checkpoint.config.generator;
    let contexts = TokenBatch::new(&work.contexts, config.pad(), &device);

    let read = || {
        let scores = &work.doc_scores;
        Reader::new(
            &checkpoint.generator,
            &contexts,
            scores,
            config,
            Precision::F32,
        )
    };
    let token = || -> Result<Vec<u32>, Box<dyn Error>> {
        let answers = rag_token::decode(&read(), &generation, Control::default())?;
        Ok(answers[0].tokens.clone())
    };
    let sequence = || -> Result<Vec<u32>, Box<dyn Error>> {
        let settings = SequenceSettings {
            decoding: SequenceDecoding::Thorough,
            compat: Compat::HuggingFace,
            deduplicate: true,
        };
        let answers = rag_sequence::decode(&read(), &generation, settings, Control::default())?;
        Ok(answers[0].tokens.clone())
    };
    let measured = [
        measure("RAG-Token", work.repeats, token)?,
        measure("RAG-Sequence, thorough", work.repeats, sequence)?,
    ];
    fs::write(folder.join("ours.json"), serde_json::to_string(&measured)?)?;
    Ok(())
}

fn measure(
    model: &'static str,
    repeats: usize,
    decode: impl Fn() -> Result<Vec<u32>, Box<dyn Error>>,
) -> Result<Measured, Box<dyn Error>> {
    let tokens = decode()?;
    let seconds = (0..repeats)
        .map(|_| {
            let begun = Instant::now();
            decode().map(|_| begun.elapsed().as_secs_f64())
        })
        .collect::<Result<_, _>>()?;
    Ok(Measured {
        model,
        seconds,
        tokens,
    })
}
