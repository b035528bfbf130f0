//! 16-bit training on the quickstart's task follows f32.

#![allow(clippy::unwrap_used)]

use burn_rag::{prelude::*, train::InverseCloze};

/// How far the loss of a 16-bit run may be from that of f32, as a share of it, over any ten steps. In
/// f16 the first steps are skipped until the loss scale is found.
const BAND: f64 = 0.03;

#[test]
fn losses_in_bf16_and_f16_follow_those_in_f32() {
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data");
    let documents = Documents::read(format!("{data}/corpus"), &Chunking::words(100)).unwrap();
    let pairs = read_pairs(format!("{data}/train.jsonl")).unwrap();
    let config = ScratchConfig {
        n_docs: 2,
        inverse_cloze: InverseCloze {
            steps: 20,
            ..InverseCloze::default()
        },
        ..ScratchConfig::default()
    };
    let texts: Vec<&str> = pairs.iter().map(|pair| pair.question.as_str()).collect();
    let rag = config
        .init(documents.passages, &texts, &device("cpu").unwrap())
        .unwrap();
    let losses = |precision| {
        let config = TrainConfig {
            learning_rate: 1e-3,
            question_encoder: Part::TrainedAt(1e-4),
            max_gradient_norm: 1.0,
            precision,
            ..TrainConfig::default()
        };
        let steps = config.epochs * pairs.len().div_ceil(config.batch_size);
        let trainer = Trainer::new(rag.clone(), config).unwrap();
        let mut trainer = trainer.with_steps(steps);
        let steps: Vec<_> = pairs
            .chunks(8)
            .map(|pairs| trainer.step(&pairs.iter().collect::<Vec<_>>()).unwrap())
            .collect();
        let skipped = trainer.report().skipped_steps;
        assert!(
            skipped <= 2,
            "{skipped} steps were skipped in {precision:?}"
        );
        let tens = steps.chunks(10).map(|steps| {
            let [loss, tokens] = steps.iter().fold([0.0, 0.0], |[loss, tokens], step| {
                [loss + step.loss, tokens + step.tokens as f64]
            });
            loss / tokens
        });
        tens.collect::<Vec<f64>>()
    };
    let expected = losses(Precision::F32);
    assert!(
        expected.last().unwrap() < &(0.8 * expected[0]),
        "nothing was learnt: {expected:?}"
    );
    for precision in [Precision::Bf16, Precision::F16] {
        let found = losses(precision);
        println!("{precision:?}: {found:?}, f32: {expected:?}");
        for (found, expected) in found.iter().zip(&expected) {
            assert!(
                (found - expected).abs() <= BAND * expected,
                "{precision:?}: {found} nats per token, f32: {expected}"
            );
        }
    }
}
