//! The cost of a clone of a whole model, and of the same model over some of its passages: weights, vectors and vocabularies
//! are shared. `cargo test --release --test clone -- --ignored --nocapture` prints both.

#![allow(clippy::unwrap_used)]

mod common;

use std::{hint::black_box, time::Instant};

use burn_rag::{
    core::Passage,
    prelude::*,
    retrieve::{EncoderConfig, encoder::BertConfig},
};
use common::{Kind, checkpoint, config, context_encoder_with, generator_tokenizer};

const PASSAGES: usize = 20_000;
const TIMES: usize = 100;

/// Two encoders of 1.9 million parameters, and a generator of 3.6 million.
fn rag() -> Rag {
    let mut config = config(Kind::Bart);
    config.question_encoder = EncoderConfig {
        bert: BertConfig {
            hidden_size: 256,
            num_hidden_layers: 2,
            intermediate_size: 1024,
            ..config.question_encoder.bert
        },
        ..config.question_encoder
    };
    config.generator =
        burn_rag::generate::generator::fixtures::changed(&config.generator, |fields| {
            fields["d_model"] = 256.into();
            fields["encoder_ffn_dim"] = 1024.into();
            fields["decoder_ffn_dim"] = 1024.into();
        });
    let encoder = context_encoder_with(config.question_encoder.clone(), 7);
    let passages = (0..PASSAGES)
        .map(|i| {
            Passage::new(i.to_string(), "rain", "the city").with("year", 1990 + (i % 30) as i64)
        })
        .collect();
    let knowledge = build_knowledge_base(passages, &encoder, Storage::F32, |_| ()).unwrap();
    Rag::new(
        checkpoint(config, 1),
        common::question_tokenizer(),
        generator_tokenizer(Kind::Bart),
        encoder,
        knowledge,
    )
    .unwrap()
}

fn measure<T>(name: &str, work: impl Fn() -> T) {
    drop(work());
    let begun = Instant::now();
    for _ in 0..TIMES {
        drop(black_box(work()));
    }
    let microseconds = begun.elapsed().as_secs_f64() * 1e6 / TIMES as f64;
    println!("{name}: {microseconds:.1} µs");
}

#[test]
#[ignore = "prints what it measures"]
fn clones_share_what_is_large() {
    let rag = rag();
    measure("clone", || rag.clone());
    let filter = Filter::is("year", 1999);
    let some = rag.among(&filter).unwrap();
    assert_eq!(some.retriever.searched(), PASSAGES / 30 + 1);
    measure("among", || rag.among(&filter).unwrap());
    measure("a filter by itself, which reads the passages", || {
        rag.retriever.knowledge().select(&filter).unwrap()
    });
}
