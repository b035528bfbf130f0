//! A question to your documents, with a language model, or with a RAG checkpoint of your own or from Hugging Face.
//!
//! ```text
//! cargo run --release --example ask <encoder> <documents> <model.gguf> <question>
//! cargo run --release --example ask <checkpoint folder> <documents> <question>
//! ```
//!
//! The encoder is a folder such as `sentence-transformers/all-MiniLM-L6-v2`; the model a GGUF file or a folder
//! that transformers' `AutoModelForCausalLM` opens. A checkpoint is a folder such as `facebook/rag-token-nq`, with the
//! encoder of passages in `context_encoder/`, or one that `Rag::save` wrote.
//!
//! In a build with the feature `hub`, encoder, model and checkpoint may also be names on the Hugging Face hub:
//! `owner/name`, and `owner/name/model.gguf` for a file.
//!
//! Documents are a file or folder of text, Markdown, HTML, JSON lines and tables, and with the feature `pdf` PDFs; they are
//! embedded at every run, so where there are many, `build_index` makes a knowledge base of them once, and its folder
//! stands in their place.
//!
//! `--device`, or else `RAG_DEVICE`, chooses the device: `cpu` (default), or `wgpu` and `cuda` in
//! builds that have them. `-- --help` explains every argument.

use std::{
    error::Error,
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
};

use burn_rag::prelude::*;
use clap::Parser;

/// Answers a question from your documents.
#[derive(Parser)]
#[command(
    override_usage = "ask [OPTIONS] <ENCODER> <DOCUMENTS> <MODEL> <QUESTION>\n       \
                            ask [OPTIONS] <CHECKPOINT> <DOCUMENTS> <QUESTION>"
)]
struct Arguments {
    /// Folder of an encoder, or of a RAG checkpoint with context_encoder/ in it
    encoder: PathBuf,
    /// File or folder of documents, or folder of a knowledge base
    documents: PathBuf,
    /// A GGUF file, or the folder of a language model, where the first is an encoder; then what to ask
    #[arg(num_args = 1..=2, required = true, value_names = ["MODEL", "QUESTION"])]
    asked: Vec<String>,
    /// Passages that a language model answers from: 5 where nothing else is asked for. A checkpoint has its own number
    #[arg(long)]
    passages: Option<usize>,
    /// Format of a language model's weights: f32, bf16, f16, or on the CPU int8
    #[arg(long, default_value = "f32")]
    precision: Precision,
    /// Where to compute: cpu, and in builds that have them wgpu, cuda, or wgpu:1 for the second GPU
    #[arg(long, env = "RAG_DEVICE", default_value = "cpu")]
    device: String,
}

fn main() -> Result<(), Box<dyn Error>> {
    burn_rag::cpu::keep_freed_pages();
    let arguments = Arguments::parse();
    let device = device(&arguments.device)?;
    let question = arguments
        .asked
        .last()
        .map_or("", |question| question.trim());
    if question.is_empty() || arguments.passages == Some(0) {
        return Err("ask a question, and of one passage at least".into());
    }
    let (rag, question) = match arguments.asked.as_slice() {
        [model, question] => {
            let encoder = TextEncoder::load(found(&arguments.encoder)?, &device)?;
            // Before the documents, whose embedding takes longest.
            let model = LanguageModel::load(found(Path::new(model))?, &device)?
                .with_precision(arguments.precision)?;
            let knowledge = knowledge(&arguments.documents, &encoder)?;
            let n_docs = arguments.passages.unwrap_or(5).min(knowledge.len());
            let retriever = Retriever::new(encoder.clone(), encoder, knowledge, n_docs)?;
            (Rag::from_parts(retriever, model)?, question)
        }
        [question] => {
            let checkpoint = found(&arguments.encoder)?;
            let folder = checkpoint.display();
            if !checkpoint.join("context_encoder").is_dir() {
                return Err(format!(
                    "{folder} is no RAG checkpoint; with an encoder, give a model and then the question, in quotes"
                )
                .into());
            }
            if arguments.passages.is_some() {
                return Err(format!(
                    "--passages is for a language model; {folder} has its own n_docs"
                )
                .into());
            }
            let encoder = Rag::load_context_encoder(&checkpoint, &device)?;
            let knowledge = knowledge(&arguments.documents, &encoder)?;
            let rag = Rag::load(&checkpoint, knowledge, &device)?;
            (rag.with_precision(arguments.precision)?, question)
        }
        _ => unreachable!("clap takes one or two"),
    };
    println!("{}", rag.ask(question)?);
    Ok(())
}

/// A path as it is; of a name on the hub, that of its download.
fn found(path: &Path) -> Result<PathBuf, Box<dyn Error>> {
    #[cfg(feature = "hub")]
    if !path.exists() && path.components().count() > 1 {
        return Ok(burn_rag::core::checkpoint::from_hub(
            &path.to_string_lossy(),
        )?);
    }
    Ok(path.to_owned())
}

/// Opens a knowledge base, or makes one of documents: passages of 100 words, and their vectors.
fn knowledge(source: &Path, encoder: &TextEncoder) -> Result<KnowledgeBase, Box<dyn Error>> {
    if source.join("manifest.json").is_file() {
        return Ok(KnowledgeBase::open(source)?);
    }
    let documents = Documents::read(source, &Chunking::words(100))?;
    let passages = documents.passages.len();
    eprintln!("{passages} passages from {} files", documents.files);
    for skipped in &documents.skipped {
        eprintln!("skipped {skipped}");
    }
    let shown = std::io::stderr().is_terminal();
    let knowledge = build_knowledge_base(documents.passages, encoder, Storage::F32, |done| {
        if shown {
            let _ = write!(std::io::stderr(), "\rembedded {done} of {passages}");
        }
    })?;
    if shown {
        eprintln!();
    }
    Ok(knowledge)
}
