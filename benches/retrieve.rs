//! Our half of `peers/retrieve.py`: real passages read by an encoder, or found by their words, as one
//! JSON line.

mod common;

use std::{collections::BTreeMap, error::Error, fs, path::PathBuf, time::Instant};

use burn_rag::{
    core::{Passage, device, nn::Precision},
    retrieve::{Embedder, LexicalIndex, TextEncoder},
};
use clap::{Parser, ValueEnum};
use common::peak_resident_bytes;
use serde::{Deserialize, Serialize};

/// Our half of `peers/retrieve.py`, which says what to read.
#[derive(Parser)]
struct Arguments {
    /// The measurement; none without it
    #[arg(long)]
    work: Option<Work>,
    /// Folder with passages.jsonl and qa.jsonl
    #[arg(long, default_value = ".")]
    folder: PathBuf,
    /// Folder of a sentence encoder
    #[arg(long, default_value = ".")]
    encoder: PathBuf,
    /// Format of the encoder's matrix products: f32, bf16 or int8
    #[arg(long, default_value = "f32")]
    precision: Precision,
    /// Passages that are embedded
    #[arg(long, default_value_t = usize::MAX)]
    count: usize,
    /// Passed by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Work {
    Embed,
    Words,
}

#[derive(Deserialize)]
struct Question {
    question: String,
    passage_id: String,
}

#[derive(Serialize)]
struct Measured {
    name: &'static str,
    /// By what was done, how much of it a second.
    rates: BTreeMap<&'static str, f64>,
    /// Of the first passages, to be compared.
    vectors: Vec<Vec<f32>>,
    /// Of questions whose passage stands first.
    recall: Option<f64>,
    /// Where the system says it.
    peak_resident_bytes: Option<u64>,
    versions: BTreeMap<&'static str, &'static str>,
}

fn main() -> Result<(), Box<dyn Error>> {
    // Memory that one computation frees is for the next, as in a program that serves questions.
    burn_rag::cpu::keep_freed_pages();
    let arguments = Arguments::parse();
    let Some(work) = arguments.work else {
        println!("skipped: run benches/peers/retrieve.py");
        return Ok(());
    };
    let mut measured = Measured {
        name: "burn-rag",
        rates: BTreeMap::new(),
        vectors: Vec::new(),
        recall: None,
        peak_resident_bytes: None,
        versions: BTreeMap::from([("burn-rag", env!("CARGO_PKG_VERSION"))]),
    };
    let mut passages = Vec::new();
    for line in fs::read_to_string(arguments.folder.join("passages.jsonl"))?.lines() {
        #[derive(Deserialize)]
        struct Line {
            id: String,
            title: String,
            text: String,
        }
        let Line { id, title, text } = serde_json::from_str(line)?;
        passages.push(Passage::new(id, title, text));
    }
    match work {
        Work::Embed => {
            passages.truncate(arguments.count);
            // The encoder of the peer reads no titles.
            for passage in &mut passages {
                passage.title.clear();
            }
            let encoder = TextEncoder::load(&arguments.encoder, &device("cpu")?)?;
            let encoder = encoder.with_precision(arguments.precision)?;
            encoder.embed_passages(&passages[..passages.len().min(64)])?;
            let begun = Instant::now();
            let vectors = encoder.embed_passages(&passages)?;
            let rate = passages.len() as f64 / begun.elapsed().as_secs_f64();
            measured.rates.insert("passages embedded", rate);
            let first = vectors.rows().into_iter().take(50);
            measured.vectors = first.map(|row| row.to_vec()).collect();
        }
        Work::Words => {
            let questions = fs::read_to_string(arguments.folder.join("qa.jsonl"))?;
            let questions = (questions.lines())
                .map(serde_json::from_str::<Question>)
                .collect::<Result<Vec<_>, _>>()?;
            let begun = Instant::now();
            let index = LexicalIndex::new(passages.iter().cloned().map(Ok))?;
            let rate = passages.len() as f64 / begun.elapsed().as_secs_f64();
            measured.rates.insert("passages indexed", rate);
            let begun = Instant::now();
            let mut right = 0;
            for question in &questions {
                let hits = index.search(&question.question, 20)?;
                let first = hits.first().map(|hit| &passages[hit.position].id);
                right += usize::from(first == Some(&question.passage_id));
            }
            let rate = questions.len() as f64 / begun.elapsed().as_secs_f64();
            measured.rates.insert("questions answered", rate);
            measured.recall = Some(right as f64 / questions.len() as f64);
        }
    }
    measured.peak_resident_bytes = peak_resident_bytes();
    println!("{}", serde_json::to_string(&measured)?);
    Ok(())
}
