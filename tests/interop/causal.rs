//! Decoder-only generators exchanged with transformers. `causal.py write` makes folders; the test here compares logits, ids
//! and prompts, and writes each model anew, by itself and as a part of a RAG; `causal.py check` opens what it wrote.

use std::path::Path;

use burn_rag::{
    core::{TokenBatch, padded},
    generate::{generator::Cache, pack},
    prelude::*,
};
use serde::Deserialize;

use super::{check_each, compare, encoder_config, folder, read, tokenizer, values};

/// What transformers made of a folder.
#[derive(Deserialize)]
struct Case {
    /// Rows of one length.
    ids: Vec<Vec<u32>>,
    /// Those after each token of `ids`.
    logits: Vec<Vec<Vec<f32>>>,
    texts: Vec<String>,
    /// Those of each text.
    text_ids: Vec<Vec<u32>>,
    chats: Vec<Chat>,
}

#[derive(Deserialize)]
struct Chat {
    system: Option<String>,
    passage: String,
    question: String,
    /// Ids of the prompt.
    prompt: Vec<u32>,
}

#[test]
fn exchange_with_transformers() {
    let (Some(theirs), Some(ours)) = (folder("RAG_CAUSAL_FROM"), folder("RAG_CAUSAL_DIR")) else {
        return;
    };
    let device = device("cpu").unwrap();
    check_each(&theirs, |name, folder| {
        let ours = ours.join(name);
        let case: Case = read(folder);
        let model = opened(folder, &case, &device)?;
        model.save(ours.join("model")).map_err(described)?;
        let rag = rag(model);
        for chat in &case.chats {
            check_prompt(&rag, chat)?;
        }
        rag.save(ours.join("rag")).map_err(described)?;
        for folder in [ours.join("model"), ours.join("rag/generator")] {
            let again = |error| format!("written here: {error}");
            opened(&folder, &case, &device).map_err(again)?;
        }
        Ok(())
    });
}

/// The model in `folder`, which agrees with `case`.
fn opened(folder: &Path, case: &Case, device: &Device) -> Result<LanguageModel, String> {
    let model = LanguageModel::load(folder, device).map_err(described)?;
    let length = case.ids[0].len();
    for prompt in [1, length / 2, length] {
        let name = format!("logits after a prompt of {prompt} tokens");
        let expected: Vec<_> = (case.logits.iter())
            .map(|row| row[prompt - 1..].concat())
            .collect();
        let found = logits(&model, &case.ids, prompt, device);
        compare(&name, &expected, &[found])?;
    }
    for (text, expected) in case.texts.iter().zip(&case.text_ids) {
        let found = model.tokenizer.encode(text).map_err(described)?.ids;
        same(text, expected, &found)?;
    }
    Ok(model)
}

/// Logits after a prompt, the first tokens of each row, and after every token that follows it.
fn logits(model: &LanguageModel, rows: &[Vec<u32>], prompt: usize, device: &Device) -> Vec<f32> {
    let pad = model.config.pad();
    let prompts: Vec<_> = rows.iter().map(|row| &row[..prompt]).collect();
    let prompts = TokenBatch::new(&prompts, pad, device);
    let memory = model.generator.encode(&prompts, Precision::F32);
    let answers: Vec<_> = (rows.iter())
        .map(|row| [&[GenerationConfig::PROMPT_END], &row[prompt..]].concat())
        .collect();
    let answers = padded(&answers, pad, device);
    let mut cache = Cache::default();
    let logits = (model.generator).decode(answers, &memory, &mut cache, Precision::F32);
    values(logits)
}

/// A model that answers from one passage.
fn rag(model: LanguageModel) -> Rag {
    let config = encoder_config();
    let encoder = config.init(&device("cpu").unwrap()).unwrap();
    let encoder = TextEncoder::new(encoder, tokenizer(), config).unwrap();
    let passages = vec![Passage::new("1", "Rain", "Rain does fall")];
    let knowledge = build_knowledge_base(passages, &encoder, Storage::F32, |_| ()).unwrap();
    let retriever = Retriever::new(encoder.clone(), encoder, knowledge, 1).unwrap();
    Rag::from_parts(retriever, model).unwrap()
}

fn check_prompt(rag: &Rag, chat: &Chat) -> Result<(), String> {
    let mut config = rag.config();
    if let Some(system) = &chat.system {
        config.template = config
            .template
            .map(|template| template.with_system(system.as_str()));
    }
    let passage = Passage::new("1", "", &chat.passage);
    let found = pack(&chat.question, [&passage], &config, rag.tokenizer()).map_err(described)?;
    same(&chat.question, &chat.prompt, &found[0])
}

fn same(what: &str, expected: &[u32], found: &[u32]) -> Result<(), String> {
    match expected == found {
        true => Ok(()),
        false => Err(format!(
            "the ids of {what:?}: expected {expected:?}, found {found:?}"
        )),
    }
}

fn described(error: impl std::error::Error) -> String {
    error.to_string()
}
