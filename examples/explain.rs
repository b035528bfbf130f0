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

use std::{env, error::Error, fs};

use burn_rag::prelude::*;

const USAGE: &str =
    "usage: explain [question] [page.html] [<checkpoint folder> <knowledge base folder>]";

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let mut settings = [
        "What is the name of the scientist who discovered the element hydrogen?",
        "target/explain.html",
        "target/quickstart/model",
        "target/quickstart/knowledge",
    ];
    if ![0, 1, 2, 4].contains(&arguments.len()) {
        return Err(USAGE.into());
    }
    for (setting, argument) in settings.iter_mut().zip(&arguments) {
        *setting = argument;
    }
    let [question, page, checkpoint, knowledge] = settings;

    let device = device(&env::var("RAG_DEVICE").unwrap_or_else(|_| "cpu".into()))?;
    let knowledge = KnowledgeBase::open(knowledge)
        .map_err(|error| format!("{error}; run the quickstart example to make one"))?;
    let rag = Rag::load(checkpoint, knowledge, &device)?.with_model(RagModel::Token);

    let answer = rag.ask(question)?;
    println!("{answer}");
    print_shares(&answer);
    fs::write(page, answer.to_html())?;
    println!("\nThe same as a page: {page}");
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
