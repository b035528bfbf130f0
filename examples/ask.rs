//! A question to your documents, with a RAG checkpoint of your own or from Hugging Face.
//!
//! ```text
//! cargo run --release --example ask <checkpoint folder> <documents folder> <question>
//! cargo run --release --example ask <checkpoint folder> <knowledge base folder> <question>
//! ```
//!
//! The checkpoint is a folder such as `facebook/rag-token-nq`, with the encoder of passages in
//! `context_encoder/`. Documents are `.txt`, `.md`, `.jsonl` and `.tsv` files; they are embedded at
//! every run, so where there are many, `build_index` makes a knowledge base of them once.
//!
//! `RAG_DEVICE` chooses the device: `cpu` (default), or `wgpu` and `cuda` in builds that have them.

use std::{env, error::Error, path::Path};

use burn_rag::prelude::*;

const USAGE: &str =
    "usage: ask <checkpoint folder> <documents or knowledge base folder> <question>";

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [checkpoint, source, question] = &arguments[..] else {
        return Err(USAGE.into());
    };
    let device = device(&env::var("RAG_DEVICE").unwrap_or_else(|_| "cpu".into()))?;

    let knowledge = if Path::new(source).join("manifest.json").is_file() {
        KnowledgeBase::open(source)?
    } else {
        embed_documents(checkpoint, source, &device)?
    };
    let rag = Rag::load(checkpoint, knowledge, &device)?;
    println!("{}", rag.ask(question)?);
    Ok(())
}

/// Documents to passages of 100 words, and those to vectors.
fn embed_documents(
    checkpoint: &str,
    folder: &str,
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
