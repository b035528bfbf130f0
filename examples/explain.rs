//! Which passage each word of an answer came from: RAG-Token's shares as a table, and as a page for
//! the browser.
//!
//! ```text
//! cargo run --release --example quickstart                                    # trains the model, once
//! cargo run --release --example explain                                       # a question of the examples
//! cargo run --release --example explain "明朝由哪位开国皇帝建立？" target/explain.html
//! cargo run --release --example explain <question> <page> <checkpoint folder> <knowledge base folder>
//! ```
//!
//! RAG-Token sums over the passages at every token, so each token has its own posterior over them,
//! P(z|x,y_i,y_<i). RAG-Sequence, which the quickstart trains, sums once for the whole answer; the
//! weights serve both.

use std::{error::Error, fs, path::PathBuf};

use burn_rag::prelude::*;
use clap::Parser;

/// Shows which passage each word of an answer came from.
#[derive(Parser)]
struct Arguments {
    /// What to ask
    #[arg(
        default_value = "What is the name of the scientist who discovered the element hydrogen?"
    )]
    question: String,
    /// Page to write, for the browser
    #[arg(default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/target/explain.html"))]
    page: PathBuf,
    /// Folder of a RAG checkpoint
    #[arg(
        default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/target/quickstart/model"),
        requires = "knowledge"
    )]
    checkpoint: PathBuf,
    /// Folder of the knowledge base
    #[arg(default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/target/quickstart/knowledge"))]
    knowledge: PathBuf,
    /// Where to compute: cpu, and in builds that have them wgpu, cuda, or wgpu:1 for the second GPU
    #[arg(long, env = "RAG_DEVICE", default_value = "cpu")]
    device: String,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let device = device(&arguments.device)?;
    let knowledge = KnowledgeBase::open(&arguments.knowledge)
        .inspect_err(|_| eprintln!("The quickstart example makes a model and a knowledge base."))?;
    let rag = Rag::load(&arguments.checkpoint, knowledge, &device)?.with_model(RagModel::Token);

    let answer = rag.ask(&arguments.question)?;
    println!("{answer}");
    print_shares(&answer);
    fs::write(&arguments.page, answer.to_html())
        .map_err(burn_rag::core::Error::io(&arguments.page))?;
    println!("\nThe same as a page: {}", arguments.page.display());
    Ok(())
}

/// Tokens by passages, the passages numbered by falling P(z|x,y) as they were printed above.
fn print_shares(answer: &Answer) {
    let mut passages: Vec<usize> = (0..answer.evidence.len()).collect();
    passages.sort_by(|&a, &b| {
        let posterior = |z: usize| answer.evidence[z].posterior;
        posterior(b).total_cmp(&posterior(a))
    });
    println!("The share of each passage in each token, P(z|x,y_i,y_<i):");
    for number in 1..=passages.len() {
        print!("{:>9}", format!("[{number}]"));
    }
    println!("{:>9}   token", "P");
    for (i, token) in answer.tokens.iter().enumerate() {
        for &z in &passages {
            print!("{:>7.1} %", 100.0 * token.shares[z]);
        }
        // Tokens without text are marks: of a word's beginning, or of the answer's end.
        let text = match token.text.trim() {
            "" if i + 1 == answer.tokens.len() => "(end)",
            "" => "·",
            text => text,
        };
        println!("{:>9.3}   {text}", token.log_probability.exp());
    }
}
