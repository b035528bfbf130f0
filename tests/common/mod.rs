//! A tiny RAG with weights of a fixed seed, real tokenizers, and passages in two languages.

#![allow(clippy::unwrap_used, dead_code)]

pub mod errors;
pub mod hashes;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use burn_rag::{
    burn::tensor::Device,
    core::{Passage, Tokenizer, marginal::RagModel},
    generate::{
        Checkpoint, Rag, RagConfig,
        generator::{
            GeneratorConfig,
            fixtures::{Tiny, Words},
        },
    },
    retrieve::{
        EncoderConfig, KnowledgeBase, Storage, TextEncoder, build_knowledge_base,
        encoder::BertConfig,
    },
};
use serde_json::json;

/// Which generator; and all of them.
#[allow(unused_imports)]
pub use burn_rag::generate::generator::fixtures::{
    ALL as KINDS, Fixture as Kind, Random, seeded, without_dropout,
};

pub const MODELS: [RagModel; 2] = [RagModel::Sequence, RagModel::Token];

pub const QUESTIONS: [&str; 3] = [
    "who wrote the play of hamlet?",
    "rain in the city",
    "下雨了吗？",
];

/// Passages that each question retrieves.
pub const N_DOCS: usize = 3;

/// Longest question of the retriever in tokens.
pub const POSITIONS: usize = 96;

/// Burn's random state is one for the whole process: of the tests that draw from it one runs at a time.
pub fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn cpu() -> Device {
    burn_rag::core::device("cpu").unwrap()
}

pub fn rag(kind: Kind) -> Rag {
    rag_of_seed(kind, 1)
}

/// The encoder of passages is the same for every seed.
pub fn rag_of_seed(kind: Kind, seed: u64) -> Rag {
    rag_with(kind, checkpoint(config(kind), seed))
}

pub fn rag_with(kind: Kind, checkpoint: Checkpoint) -> Rag {
    rag_around(kind, checkpoint, context_encoder(7))
}

pub fn rag_around(kind: Kind, checkpoint: Checkpoint, encoder: TextEncoder) -> Rag {
    let knowledge = knowledge(&encoder);
    Rag::new(
        checkpoint,
        question_tokenizer(),
        generator_tokenizer(kind),
        encoder,
        knowledge,
    )
    .unwrap()
}

pub fn config(kind: Kind) -> RagConfig {
    let mut config = RagConfig::new(RagModel::Token, encoder_config(), generator_config(kind));
    config.n_docs = N_DOCS;
    config
}

pub fn checkpoint(config: RagConfig, seed: u64) -> Checkpoint {
    let mut checkpoint = Checkpoint::new(config, &cpu()).unwrap();
    checkpoint.question_encoder = seeded(checkpoint.question_encoder, seed);
    checkpoint.generator = seeded(checkpoint.generator, seed + 1000);
    checkpoint.generation.max_length = 8;
    checkpoint
}

pub fn encoder_config() -> EncoderConfig {
    EncoderConfig {
        bert: BertConfig {
            model_type: "dpr".into(),
            vocab_size: question_vocabulary().len(),
            hidden_size: 32,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            intermediate_size: 48,
            max_position_embeddings: POSITIONS,
            projection_dim: 4,
            ..BertConfig::default()
        },
        ..EncoderConfig::default()
    }
}

pub fn context_encoder(seed: u64) -> TextEncoder {
    context_encoder_with(encoder_config(), seed)
}

pub fn context_encoder_with(config: EncoderConfig, seed: u64) -> TextEncoder {
    let encoder = seeded(config.init(&cpu()).unwrap(), seed);
    TextEncoder::new(encoder, question_tokenizer(), config).unwrap()
}

pub fn generator_config(kind: Kind) -> GeneratorConfig {
    (kind.config)(Tiny {
        vocabulary: match kind.tokenizer {
            Words::ByteLevel => bart_vocabulary().len(),
            Words::Pieces => t5_pieces().len(),
        },
        d_model: 32,
        heads: 4,
        hidden: 48,
        encoder_layers: 2,
        decoder_layers: 2,
        positions: 400,
    })
}

pub fn knowledge(encoder: &TextEncoder) -> KnowledgeBase {
    build_knowledge_base(passages(), encoder, Storage::F32, |_| ()).unwrap()
}

pub fn passages() -> Vec<Passage> {
    [
        (
            "hamlet",
            "Hamlet",
            "Hamlet is a play by Shakespeare, of the prince of Denmark.",
        ),
        (
            "rain",
            "Rain",
            "It rained in the city all day, and the road was wet.",
        ),
        ("yu", "雨", "下雨了，路很滑。"),
        ("qing", "晴", "明天是晴天，我们去看书。"),
        (
            "rust",
            "",
            "A language without a title: it is fast, and it is safe.",
        ),
        ("mixed", "Mixed 语言", "The word 书 means book."),
    ]
    .map(|(id, title, text)| Passage::new(id, title, text))
    .to_vec()
}

/// BERT's WordPiece, from a `vocab.txt`.
pub fn question_tokenizer() -> Tokenizer {
    let folder = tempfile::tempdir().unwrap();
    let words = question_vocabulary().join("\n");
    fs::write(folder.path().join("vocab.txt"), words).unwrap();
    Tokenizer::from_folder(folder.path()).unwrap()
}

/// BART's byte-level BPE from `vocab.json` and `merges.txt`, or T5's pieces from a `tokenizer.json`.
pub fn generator_tokenizer(kind: Kind) -> Tokenizer {
    let folder = tempfile::tempdir().unwrap();
    match kind.tokenizer {
        Words::ByteLevel => write_bart_tokenizer(folder.path()),
        Words::Pieces => write_t5_tokenizer(folder.path()),
    }
    Tokenizer::from_folder(folder.path()).unwrap()
}

pub fn question_vocabulary() -> Vec<String> {
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(String::from);
    let letters = ('a'..='z').flat_map(|letter| [letter.to_string(), format!("##{letter}")]);
    let signs = "?.,!:/'0123456789雨下了路很滑明天是晴书吗".chars();
    let words = [
        "the", "play", "rain", "city", "who", "wrote", "##ed", "##ing", "hamlet",
    ];
    special
        .into_iter()
        .chain(letters)
        .chain(signs.map(String::from))
        .chain(words.map(String::from))
        .collect()
}

const MERGES: [[&str; 2]; 14] = [
    ["t", "h"],
    ["th", "e"],
    ["Ġ", "the"],
    ["Ġ", "a"],
    ["i", "n"],
    ["e", "r"],
    ["Ġ", "/"],
    ["/", "/"],
    ["Ġ/", "/"],
    ["r", "a"],
    ["ra", "in"],
    ["o", "f"],
    ["Ġ", "of"],
    ["å", "¤"],
];

fn bart_vocabulary() -> Vec<String> {
    let special = ["<s>", "<pad>", "</s>", "<unk>"].map(String::from);
    let merged = MERGES.iter().map(|pair| pair.concat());
    special
        .into_iter()
        .chain(byte_letters().map(String::from))
        .chain(merged)
        .chain(["<mask>".to_owned()])
        .collect()
}

/// The letters that stand for bytes in byte-level BPE: printable ones for themselves.
fn byte_letters() -> impl Iterator<Item = char> {
    let printable = |byte: &u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let others = (0..256).filter(move |byte| !printable(byte)).count() as u32;
    (0..256)
        .filter(printable)
        .chain(256..256 + others)
        .filter_map(char::from_u32)
}

fn write_bart_tokenizer(folder: &Path) {
    let vocabulary: BTreeMap<_, _> = bart_vocabulary().into_iter().zip(0_u32..).collect();
    let merges: String = MERGES.iter().map(|pair| pair.join(" ") + "\n").collect();
    fs::write(folder.join("vocab.json"), json!(vocabulary).to_string()).unwrap();
    fs::write(
        folder.join("merges.txt"),
        format!("#version: 0.2\n{merges}"),
    )
    .unwrap();
}

fn t5_pieces() -> Vec<(String, f64)> {
    let special = ["<pad>", "</s>", "<unk>"].map(|piece| (piece.to_owned(), 0.0));
    let signs = "▁abcdefghijklmnopqrstuvwxyzHIAT?.,!:/0123456789雨下了路很滑明天是晴书吗";
    let words = [
        "▁the", "▁of", "▁a", "▁is", "▁it", "▁and", "▁/", "▁//", "▁rain", "▁play", "in", "er", "ed",
    ];
    let scored = |score: f64| move |piece: String| (piece, score);
    special
        .into_iter()
        .chain(signs.chars().map(String::from).map(scored(-4.0)))
        .chain(words.map(String::from).map(scored(-2.0)))
        .collect()
}

fn write_t5_tokenizer(folder: &Path) {
    let metaspace =
        json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true});
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    };
    let end = json!({"SpecialToken": {"id": "</s>", "type_id": 0}});
    let first = json!({"Sequence": {"id": "A", "type_id": 0}});
    let second = json!({"Sequence": {"id": "B", "type_id": 0}});
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [special(0, "<pad>"), special(1, "</s>"), special(2, "<unk>")],
        "normalizer": null,
        "pre_tokenizer": metaspace,
        "decoder": metaspace,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [first, end],
            "pair": [first, end, second, end],
            "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}},
        },
        "model": {"type": "Unigram", "unk_id": 2, "vocab": t5_pieces(), "byte_fallback": false},
    });
    fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
}

/// Every file under a folder by its relative path.
pub fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            let inner = files(&path).into_iter();
            found.extend(inner.map(|(below, bytes)| (format!("{name}/{below}"), bytes)));
        } else {
            found.insert(name, fs::read(&path).unwrap());
        }
    }
    found
}

pub fn assert_close(found: f32, expected: f32, tolerance: f32) {
    let difference = (found - expected).abs();
    assert!(
        difference <= tolerance,
        "expected {expected}, found {found}: {difference} apart"
    );
}
