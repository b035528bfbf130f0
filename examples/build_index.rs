//! Documents to a knowledge base on disk: passages, their vectors, and a manifest that says which
//! encoder made them.
//!
//! ```text
//! cargo run --release --example build_index <encoder folder> <documents> <output folder> [--f16] [--words N]
//! ```
//!
//! The encoder is a RAG checkpoint with `context_encoder/` in it, or an encoder's own folder (DPR,
//! all-MiniLM, BGE, E5). Documents are a file or folder of `.txt`, `.md`, `.jsonl` and `.tsv`.
//! `--f16` keeps vectors in half the space; `--words` is the length of a passage, 100 by default.
//!
//! `RAG_DEVICE` chooses the device: `cpu` (default), or `wgpu` and `cuda` in builds that have them.

use std::{env, error::Error, path::Path, time::Instant};

use burn_rag::prelude::*;

const USAGE: &str =
    "usage: build_index <encoder folder> <documents> <output folder> [--f16] [--words N]";

fn main() -> Result<(), Box<dyn Error>> {
    let mut folders = Vec::new();
    let mut storage = Storage::F32;
    let mut words = 100;
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--f16" => storage = Storage::F16,
            "--words" => words = arguments.next().ok_or(USAGE)?.parse()?,
            option if option.starts_with("--") => return Err(USAGE.into()),
            _ => folders.push(argument),
        }
    }
    let [encoder, documents, output] = &folders[..] else {
        return Err(USAGE.into());
    };
    let device = device(&env::var("RAG_DEVICE").unwrap_or_else(|_| "cpu".into()))?;

    let encoder = if Path::new(encoder).join("context_encoder").is_dir() {
        Rag::load_context_encoder(encoder, &device)?
    } else {
        TextEncoder::load(Path::new(encoder), &device)?
    };
    let documents = Documents::read(documents, &Chunking::words(words))?;
    let passages = documents.passages.len();
    println!("{passages} passages from {} files", documents.files);
    for skipped in &documents.skipped {
        println!("skipped {skipped}");
    }

    let begun = Instant::now();
    let knowledge = build_knowledge_base(documents.passages, &encoder, storage, |done| {
        eprint!("\rembedded {done} of {passages}");
    })?;
    eprintln!();
    let rate = passages as f64 / begun.elapsed().as_secs_f64();
    knowledge.save(output)?;

    // What is read back is what a later program will have.
    let knowledge = KnowledgeBase::open(output)?;
    let manifest = knowledge.manifest();
    let bytes: u64 = manifest.files.values().map(|file| file.bytes).sum();
    println!(
        "{rate:.1} passages/s, {:.1} MB in {output}",
        bytes as f64 / 1e6
    );
    println!("{}", serde_json::to_string_pretty(manifest)?);
    Ok(())
}
