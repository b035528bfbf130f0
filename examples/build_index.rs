//! Documents to a knowledge base on disk: passages, their vectors, and a manifest that says which
//! encoder made them.
//!
//! ```text
//! cargo run --release --example build_index <encoder folder> <documents> <output folder> \
//!     [--f16] [--words N]
//! ```
//!
//! The encoder is a RAG checkpoint with `context_encoder/` in it, or an encoder's own folder (DPR,
//! all-MiniLM, BGE, E5). Documents are a file or folder of `.txt`, `.md`, `.html`, `.pdf` (feature `pdf`),
//! `.jsonl`, `.csv` and `.tsv`. `--f16` keeps vectors in half the space; `--words` is the length of a
//! passage, 100 by default.
//!
//! Where the output folder holds a knowledge base of the same encoder, it is brought up to date: only
//! texts that are new are embedded, and what is gone from the documents goes from it.
//!
//! `--device`, or else `RAG_DEVICE`, chooses the device: `cpu` (default), or `wgpu` and `cuda` in
//! builds that have them. `-- --help` explains every argument.

use std::{error::Error, path::PathBuf, time::Instant};

use burn_rag::prelude::*;
use clap::Parser;

/// Makes a knowledge base of documents.
#[derive(Parser)]
struct Arguments {
    /// Folder of a RAG checkpoint with context_encoder/ in it, or of an encoder
    encoder: PathBuf,
    /// File or folder of .txt, .md, .html, .pdf, .jsonl, .csv and .tsv
    documents: PathBuf,
    /// Folder that receives the knowledge base, or holds it already
    output: PathBuf,
    /// Keep vectors of a new knowledge base in 16 bits a number, not 32
    #[arg(long)]
    f16: bool,
    /// Length of a passage, in words
    #[arg(long, default_value_t = 100)]
    words: usize,
    /// Where to compute: cpu, and in builds that have them wgpu, cuda, or wgpu:1 for the second GPU
    #[arg(long, env = "RAG_DEVICE", default_value = "cpu")]
    device: String,
}

fn main() -> Result<(), Box<dyn Error>> {
    burn_rag::cpu::keep_freed_pages();
    let arguments = Arguments::parse();
    let device = device(&arguments.device)?;

    let encoder = if arguments.encoder.join("context_encoder").is_dir() {
        Rag::load_context_encoder(&arguments.encoder, &device)?
    } else {
        TextEncoder::load(&arguments.encoder, &device)?
    };
    let documents = Documents::read(&arguments.documents, &Chunking::words(arguments.words))?;
    let passages = documents.passages.len();
    println!("{passages} passages from {} files", documents.files);
    for skipped in &documents.skipped {
        println!("skipped {skipped}");
    }

    let progress = |done| eprint!("\rembedded {done} of at most {passages}");
    let begun = Instant::now();
    let embedded = if arguments.output.join("manifest.json").is_file() {
        let mut writer = KnowledgeWriter::open(&arguments.output)?;
        let changes = writer.sync(documents.passages, &encoder, progress)?;
        writer.commit()?;
        println!("{changes}");
        changes.embedded
    } else {
        let storage = match arguments.f16 {
            true => Storage::F16,
            false => Storage::F32,
        };
        build_knowledge_base(documents.passages, &encoder, storage, progress)?
            .save(&arguments.output)?;
        passages
    };
    eprintln!();
    let rate = embedded as f64 / begun.elapsed().as_secs_f64();

    // Opened again, as a later program will open it.
    let knowledge = KnowledgeBase::open(&arguments.output)?;
    let manifest = knowledge.manifest();
    let bytes: u64 = manifest.files().map(|file| file.bytes).sum();
    println!(
        "{rate:.1} passages/s, {:.1} MB in {}",
        bytes as f64 / 1e6,
        arguments.output.display()
    );
    println!("{}", serde_json::to_string_pretty(manifest)?);
    Ok(())
}
