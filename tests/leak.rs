//! Training does not grow: resident memory after 500 steps is that after 50.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod common;

use burn_rag::generate::generator::fixtures::changed;
use burn_rag::prelude::*;
use common::{Kind, checkpoint, config as tiny, rag_with};

fn resident_pages() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse().unwrap()
}

/// A model whose parameters, moments and gradients outweigh what the allocator rounds up.
fn rag() -> Rag {
    let mut config = tiny(Kind::Bart);
    config.question_encoder.bert.hidden_act = "relu".into();
    config.question_encoder.bert.intermediate_size = 512;
    config.generator = changed(&config.generator, |fields| {
        fields["activation_function"] = "relu".into();
        fields["encoder_ffn_dim"] = 512.into();
        fields["decoder_ffn_dim"] = 512.into();
    });
    rag_with(Kind::Bart, checkpoint(config, 1))
}

#[test]
fn memory_does_not_grow_over_500_steps() {
    let pairs = [
        QuestionAnswer::new("who wrote hamlet?", "who"),
        QuestionAnswer::new("下雨了吗？", "雨"),
    ];
    let pairs: Vec<_> = pairs.iter().collect();
    let config = TrainConfig {
        epochs: 500,
        batch_size: 2,
        documents_at_a_time: Some(1),
        ..TrainConfig::default()
    };
    let mut trainer = Trainer::new(rag(), config).unwrap().with_steps(500);
    let resident: Vec<_> = (0..500)
        .map(|_| {
            trainer.step(&pairs).unwrap();
            resident_pages()
        })
        .collect();
    // The lowest of some steps: what is resident for good, without what the allocator is yet to give back.
    let lowest = |steps: &[f64]| steps.iter().copied().fold(f64::INFINITY, f64::min);
    let (after_50, after_500) = (lowest(&resident[25..50]), lowest(&resident[450..]));
    assert!(
        after_500 <= 1.05 * after_50,
        "{after_50} pages grew to {after_500}"
    );
}
