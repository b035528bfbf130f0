//! A question to your documents, with a RAG checkpoint of your own or from Hugging Face.
//!
//! ```text
//! cargo run --release --example ask <checkpoint folder> <documents folder> <question>
//! cargo run --release --example ask <checkpoint folder> <knowledge base folder> <question>
//! ```
//!
//! The checkpoint is a folder such as `facebook/rag-token-nq`, with the encoder of passages in
//! `context_encoder/`. Documents are text, Markdown, HTML, JSON lines and tables, and with the
//! feature `pdf` PDFs; they are embedded at every run, so where there are many, `build_index` makes a knowledge
//! base of them once.
//!
//! `--device`, or else `RAG_DEVICE`, chooses the device: `cpu` (default), or `wgpu` and `cuda` in
//! builds that have them. `-- --help` explains every argument.

use std::{
    error::Error,
    path::{Path, PathBuf},
};

use burn_rag::prelude::*;
use clap::Parser;

/// Answers a question from your documents.
#[derive(Parser)]
struct Arguments {
    /// Folder of a RAG checkpoint, with context_encoder/ in it
    checkpoint: PathBuf,
    /// Folder of documents, or of a knowledge base
    source: PathBuf,
    /// What to ask
    question: String,
    /// Where to compute: cpu, and in builds that have them wgpu, cuda, or wgpu:1 for the second GPU
    #[arg(long, env = "RAG_DEVICE", default_value = "cpu")]
    device: String,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let device = device(&arguments.device)?;

    let knowledge = if arguments.source.join("manifest.json").is_file() {
        KnowledgeBase::open(&arguments.source)?
    } else {
        embed_documents(&arguments.checkpoint, &arguments.source, &device)?
    };
    let rag = Rag::load(&arguments.checkpoint, knowledge, &device)?;
    println!("{}", rag.ask(&arguments.question)?);
    Ok(())
}

/// Documents to passages of 100 words, and those to vectors.
fn embed_documents(
    checkpoint: &Path,
    folder: &Path,
    device: &Device,
) -> Result<KnowledgeBase, Box<dyn Error>> {
    let documents = Documents::read(folder, &Chunking::words(100))?;
    let passages = documents.passages.len();
    eprintln!("{passages} passages from {} files", documents.files);
    for skipped in &documents.skipped {
        eprintln!("skipped {skipped}");
    }
    let encoder = Rag::load_context_encoder(checkpoint, device)?;
    let knowledge = build_knowledge_base(documents.passages, &encoder, Storage::F32, |done| {
        eprint!("\rembedded {done} of {passages}");
    })?;
    eprintln!();
    Ok(knowledge)
}
