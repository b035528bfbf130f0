//! The tokens of a model, what each is for, and which of them end an answer.

use std::collections::HashMap;

use super::{error::GgufError, metadata::Metadata};

type Result<T> = std::result::Result<T, GgufError>;

/// Texts of tokens that end an answer whatever the metadata say, from llama.cpp.
const ENDS: [&str; 16] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<｜end▁of▁sentence｜>",
];
/// Texts of tokens that end a turn of a chat, the first match wins.
const TURNS: [&str; 11] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "<｜end▁of▁sentence｜>",
    "<end_of_utterance>",
];
/// Tokens of models that fill in code, by key and by text: padding, the repository's name, the end of a file. They
/// end an answer too.
const CODE: [(&str, &[&str]); 3] = [
    (
        "fim_pad",
        &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"],
    ),
    (
        "fim_rep",
        &[
            "<|fim_repo|>",
            "<|repo_name|>",
            "<fim-repo>",
            "<REPO>",
            "<reponame>",
        ],
    ),
    ("fim_sep", &["<|file_sep|>"]),
];

/// The purpose of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// Text, a byte, or an unused id.
    Text,
    /// Replaces text that has no token.
    Unknown,
    /// A mark that no text contains.
    Control,
    /// Text that is found before the rest is split.
    UserDefined,
}

/// The tokens in the order of their ids.
pub(super) struct Vocabulary<'a> {
    metadata: Metadata<'a>,
    pub tokens: Vec<String>,
    pub ids: HashMap<String, u32>,
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    pub eot: Option<u32>,
    pub pad: Option<u32>,
    pub unknown: Option<u32>,
    types: Option<Vec<f32>>,
}

impl<'a> Vocabulary<'a> {
    pub fn of(metadata: Metadata<'a>) -> Result<Self> {
        let key = "tokenizer.ggml.tokens";
        let texts = metadata.texts(key)?;
        let texts = texts.ok_or_else(|| GgufError::metadata(key, "the tokens", "nothing"))?;
        let mut ids = HashMap::with_capacity(texts.len());
        let mut tokens = Vec::with_capacity(texts.len());
        for (id, text) in texts.iter().enumerate() {
            let text = match *text {
                "" => format!("[EMPTY_{id}]"),
                text => text.to_owned(),
            };
            if let Some(other) = ids.insert(text.clone(), id as u32) {
                let found = format!("{text:?} as {other} and {id}");
                return Err(GgufError::metadata(key, "each token once", found));
            }
            tokens.push(text);
        }
        let key = "tokenizer.ggml.token_type";
        let types = metadata.numbers(key)?;
        if let Some(types) = &types
            && types.len() < tokens.len()
        {
            let found = format!("{} for {} tokens", types.len(), tokens.len());
            return Err(GgufError::metadata(key, "a type for each token", found));
        }
        // As llama.cpp: what SentencePiece's models have where nothing is said.
        let pieces = metadata.text("tokenizer.ggml.model")? == Some("llama");
        let usual = |id: u32| Some(id).filter(|id| pieces && (*id as usize) < tokens.len());
        let id = |key: &str| special(metadata, key, tokens.len());
        let by_text = |texts: &[&str]| texts.iter().find_map(|text| ids.get(*text).copied());
        Ok(Self {
            bos: id("bos")?.or(usual(1)),
            eos: id("eos")?.or(usual(2)),
            eot: id("eot")?.or_else(|| by_text(&TURNS)),
            pad: id("padding")?,
            unknown: id("unknown")?.or(usual(0)),
            metadata,
            tokens,
            ids,
            types,
        })
    }

    pub fn kind(&self, id: usize) -> TokenKind {
        let text = &self.tokens[id][..];
        let control = ENDS.contains(&text) || CODE.iter().any(|(_, texts)| texts.contains(&text));
        match self.types.as_ref().map(|types| types[id]) {
            _ if control => TokenKind::Control,
            Some(2.0) => TokenKind::Unknown,
            Some(3.0) => TokenKind::Control,
            Some(4.0) => TokenKind::UserDefined,
            _ => TokenKind::Text,
        }
    }

    /// The tokens after which an answer is over, in the order of their ids.
    pub fn end_tokens(&self) -> Vec<u32> {
        let id = |key: &str| {
            special(self.metadata, key, self.tokens.len())
                .ok()
                .flatten()
        };
        let text = |text: &&str| self.ids.get(*text).copied();
        let code = CODE
            .iter()
            .filter_map(|(key, texts)| id(key).or_else(|| texts.iter().find_map(text)));
        let mut ends: Vec<u32> = [self.eos, self.eot, id("eom")]
            .into_iter()
            .flatten()
            .collect();
        ends.extend(code);
        ends.extend(ENDS.iter().filter_map(text));
        ends.sort_unstable();
        ends.dedup();
        ends
    }
}

/// The id that a key names. One beyond the vocabulary is no id, as for llama.cpp: converters of 2023 wrote
/// 2^32 − 1 where there was none.
fn special(metadata: Metadata<'_>, name: &str, tokens: usize) -> Result<Option<u32>> {
    let id = metadata.count(&format!("tokenizer.ggml.{name}_token_id"))?;
    Ok(id.filter(|id| *id < tokens).map(|id| id as u32))
}
