//! Training through the marginal likelihood, on tiny models.

#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
mod decoder_only;

use std::ops::ControlFlow;

use burn_rag::{
    core::{checkpoint::Tensors, nn::Precision},
    generate::{Rag, RagConfig},
    prelude::*,
    retrieve::Embedder,
    train::{Error, IndexRefresh, StepReport},
};
use common::{
    KINDS, Kind, MODELS, checkpoint, context_encoder_with, cpu, rag_around, without_dropout,
};

fn pairs() -> Vec<QuestionAnswer> {
    [
        ("who wrote hamlet?", "who"),
        ("is it raining in the city?", "rain"),
        ("what of the road?", "the road"),
        ("下雨了吗？", "雨"),
        ("will it be fine?", "fine"),
    ]
    .map(|(question, answer)| QuestionAnswer::new(question, answer))
    .to_vec()
}

/// Without dropout, so that training computes what scoring does.
fn rag(kind: Kind) -> Rag {
    rag_with(kind, |_| ())
}

fn rag_with(kind: Kind, change: impl FnOnce(&mut RagConfig)) -> Rag {
    let mut config = common::config(kind);
    change(&mut config);
    config.question_encoder.bert.hidden_dropout_prob = 0.0;
    config.question_encoder.bert.attention_probs_dropout_prob = 0.0;
    config.generator = without_dropout(&config.generator);
    let encoder = context_encoder_with(config.question_encoder.clone(), 7);
    rag_around(kind, checkpoint(config, 1), encoder)
}

fn config() -> TrainConfig {
    TrainConfig {
        epochs: 4,
        batch_size: 5,
        micro_batch_size: 5,
        learning_rate: 5e-3,
        warmup: 0.0,
        max_gradient_norm: 1.0,
        evaluate_every: 0,
        ..TrainConfig::default()
    }
}

fn steps(rag: Rag, config: TrainConfig, count: usize) -> (Vec<StepReport>, Rag) {
    let pairs = pairs();
    let pairs: Vec<_> = pairs.iter().collect();
    let steps = config.epochs * pairs.len().div_ceil(config.batch_size);
    let mut trainer = Trainer::new(rag, config).unwrap().with_steps(steps);
    let reports = (0..count).map(|_| trainer.step(&pairs).unwrap()).collect();
    (reports, trainer.rag())
}

fn parameters(rag: &Rag) -> Vec<u8> {
    let mut tensors = Tensors::default();
    let config = &rag.config().question_encoder;
    let encoder = rag.retriever.question_text_encoder().unwrap().encoder();
    config.store(encoder, &mut tensors, "question.");
    rag.generator().store(&mut tensors, "generator.");
    let mut hash = blake3::Hasher::new();
    tensors.hash(&mut hash).unwrap();
    hash.finalize().as_bytes().to_vec()
}

fn close(a: f64, b: f64, tolerance: f64) -> bool {
    (a - b).abs() <= tolerance * b.abs().max(1.0)
}

/// Micro-batches of 1, 2 and 3 of 5 pairs (the tail is shorter), and documents a few at a time, give the
/// steps of the whole batch.
#[test]
fn accumulation_is_the_large_batch() {
    for kind in KINDS {
        for model in MODELS {
            let run = |micro_batch_size, documents_at_a_time| {
                // Adam turns rounding of gradients near zero into steps of the learning rate's size.
                let config = TrainConfig {
                    micro_batch_size,
                    documents_at_a_time,
                    learning_rate: 1e-4,
                    label_smoothing: 0.1,
                    ..config()
                };
                steps(rag(kind).with_model(model), config, 3).0
            };
            let whole = run(5, None);
            for (micro, documents) in [(1, None), (2, Some(1)), (3, Some(2))] {
                for (some, all) in run(micro, documents).iter().zip(&whole) {
                    assert_eq!(some.tokens, all.tokens);
                    assert!(close(some.loss, all.loss, 1e-4), "{some:?} {all:?}");
                    let [some, all] = [some, all].map(|step| step.gradient_norm);
                    assert!(close(some, all, 1e-3), "{some} {all}");
                }
            }
        }
    }
}

/// The machine has one CPU device: the copies are on it too, and the sum is to the bit that of one model.
#[test]
fn replicas_change_nothing() {
    let pairs = pairs();
    let pairs: Vec<_> = pairs.iter().collect();
    for kind in KINDS {
        let trained = |replicas: &[Device]| {
            let config = TrainConfig {
                micro_batch_size: 2,
                ..config()
            };
            let trainer = Trainer::new(rag(kind), config).unwrap();
            let mut trainer = trainer.with_steps(4).with_replicas(replicas);
            let reports: Vec<_> = (0..3).map(|_| trainer.step(&pairs).unwrap()).collect();
            (reports, parameters(&trainer.rag()))
        };
        let alone = trained(&[]);
        assert_eq!(trained(&[cpu()]), alone);
        assert_eq!(trained(&[cpu(), cpu()]), alone);
    }
}

#[test]
fn the_loss_falls_and_both_halves_move() {
    for kind in KINDS {
        for model in MODELS {
            let before = rag(kind).with_model(model);
            let (reports, after) = steps(before.clone(), config(), 12);
            let [first, last] = [&reports[0], &reports[11]].map(|step| step.loss);
            assert!(last < 0.9 * first, "{kind:?} {model:?}: {first} {last}");
            let question = |rag: &Rag| {
                let encoder = rag.retriever.question_encoder();
                encoder.embed_questions(&["who wrote hamlet?"]).unwrap()
            };
            assert_ne!(question(&before), question(&after));
            let frozen = |rag: &Rag| rag.retriever.context_encoder().fingerprint().unwrap();
            assert_eq!(frozen(&before), frozen(&after));
        }
    }
}

/// The loss of a step is -log P(y|x) as `score` gives it.
#[test]
fn the_loss_is_the_negative_log_likelihood_of_the_answers() {
    for kind in KINDS {
        for model in MODELS {
            let rag = rag(kind).with_model(model);
            let scored: f32 = pairs()
                .iter()
                .map(|pair| rag.score(&pair.question, &[&pair.answers[0]]).unwrap())
                .map(|answers| answers[0].log_likelihood)
                .sum();
            let (reports, _) = steps(rag, config(), 1);
            assert!(
                close(reports[0].loss, f64::from(-scored), 1e-4),
                "{reports:?} {scored}"
            );
        }
    }
}

/// f16 skips its first steps until the loss scale fits; the steps that are taken follow f32.
#[test]
fn half_precision_follows_f32() {
    for kind in [Kind::Bart, Kind::T5] {
        let run = |precision, count| {
            let config = TrainConfig {
                precision,
                learning_rate: 1e-3,
                ..config()
            };
            let (reports, _) = steps(rag(kind), config, count);
            let taken = |step: &StepReport| step.taken;
            reports
                .into_iter()
                .filter(taken)
                .take(8)
                .collect::<Vec<_>>()
        };
        let full = run(Precision::F32, 8);
        for (precision, band) in [(Precision::Bf16, 0.05), (Precision::F16, 0.02)] {
            let half = run(precision, 30);
            assert_eq!(
                half.len(),
                full.len(),
                "{precision:?} skipped too many steps"
            );
            for (half, full) in half.iter().zip(&full) {
                assert!(
                    close(half.loss, full.loss, band),
                    "{precision:?} {half:?} {full:?}"
                );
            }
        }
    }
}

/// Frozen parts do not move by a bit, and the others do.
#[test]
fn frozen_parts_stay() {
    let parts = |rag: &Rag| {
        let mut parts = [Tensors::default(), Tensors::default(), Tensors::default()];
        let config = &rag.config().question_encoder;
        let retriever = &rag.retriever;
        config.store(
            retriever.question_text_encoder().unwrap().encoder(),
            &mut parts[0],
            "",
        );
        config.store(
            retriever.context_text_encoder().unwrap().encoder(),
            &mut parts[1],
            "",
        );
        rag.generator().store(&mut parts[2], "");
        parts.map(|tensors| {
            let mut hash = blake3::Hasher::new();
            tensors.hash(&mut hash).unwrap();
            hash.finalize()
        })
    };
    let states = [Part::Frozen, Part::Trained];
    for kind in [Kind::Bart, Kind::T5] {
        for question_encoder in states {
            for generator in states {
                if [question_encoder, generator] == [Part::Frozen; 2] {
                    continue;
                }
                for documents_at_a_time in [None, Some(1)] {
                    let config = TrainConfig {
                        question_encoder,
                        generator,
                        documents_at_a_time,
                        ..config()
                    };
                    let before = rag(kind);
                    let (_, after) = steps(before.clone(), config, 3);
                    let [before, after] = [parts(&before), parts(&after)];
                    assert_eq!(before[0] == after[0], !question_encoder.trains());
                    assert_eq!(before[1], after[1]);
                    assert_eq!(before[2] == after[2], !generator.trains());
                }
            }
        }
    }
    let frozen = TrainConfig {
        question_encoder: Part::Frozen,
        generator: Part::Frozen,
        ..config()
    };
    assert!(Trainer::new(rag(Kind::T5), frozen).is_err());
}

/// The passage encoder trains too, the vectors follow it, and a clone keeps those it has.
#[test]
fn both_encoders_train_with_a_live_index() {
    let pairs = pairs();
    for rescore in [None, Some(6)] {
        let config = TrainConfig {
            context_encoder: Part::Trained,
            index: IndexRefresh {
                every: 3,
                delay: 1,
                rescore,
            },
            ..config()
        };
        let before = rag(Kind::T5);
        let trainer = Trainer::new(before.clone(), config).unwrap();
        let mut trainer = trainer.with_steps(4);
        let batch: Vec<_> = pairs.iter().collect();
        let vectors = |rag: &Rag| {
            rag.retriever
                .knowledge()
                .vectors_at(&[0, 1, 2, 3, 4, 5])
                .unwrap()
        };
        let mut seen = Vec::new();
        let mut snapshot = None;
        for step in 0..5 {
            let report = trainer.step(&batch).unwrap();
            assert!(report.loss.is_finite());
            seen.push(vectors(&trainer.rag()));
            if step == 2 {
                snapshot = Some(trainer.rag());
            }
        }
        // Embedding begins before the fourth step, and its vectors serve from the fifth on.
        assert!(seen[..4].iter().all(|vectors| *vectors == seen[0]));
        assert_ne!(seen[4], seen[0]);
        let snapshot = snapshot.unwrap();
        assert_eq!(vectors(&snapshot), vectors(&before));
        snapshot.ask("who wrote hamlet?").unwrap();

        let after = trainer.rag();
        let encoder = after.retriever.context_encoder();
        let knowledge = after.retriever.local().unwrap();
        knowledge
            .check_encoder(&encoder.fingerprint().unwrap())
            .unwrap();
        assert_eq!(trainer.report().index_generation, 1);
    }
}

/// Retrieval that sees the fresh encoder ranks by it.
#[test]
fn rescoring_retrieves_what_the_fresh_encoder_would() {
    let pairs = pairs();
    let batch: Vec<_> = pairs.iter().collect();
    let run = |index: IndexRefresh| {
        let config = TrainConfig {
            context_encoder: Part::Trained,
            learning_rate: 2e-2,
            index,
            ..config()
        };
        let trainer = Trainer::new(rag(Kind::T5), config).unwrap();
        let mut trainer = trainer.with_steps(4);
        let reports = (0..6).map(|_| trainer.step(&batch).unwrap());
        reports.map(|report| report.loss).collect::<Vec<_>>()
    };
    // Vectors that are embedded anew before each step find what an encoder choosing among all passages does.
    let index = |every, rescore| IndexRefresh {
        every,
        delay: 0,
        rescore,
    };
    let (fresh, rescored) = (run(index(1, None)), run(index(0, Some(6))));
    for (fresh, rescored) in fresh.iter().zip(&rescored) {
        assert!(close(*fresh, *rescored, 1e-4), "{fresh} {rescored}");
    }
    assert_ne!(run(index(0, None)), rescored);
}

#[test]
fn a_run_without_progress_ends_early() {
    let config = TrainConfig {
        learning_rate: 1e-9,
        patience: Some(2),
        evaluate_every: 1,
        epochs: 9,
        ..config()
    };
    let mut trainer = Trainer::new(rag(Kind::T5), config).unwrap();
    let report = trainer.run(&pairs(), &pairs()[..2]).unwrap();
    // The first measurement is the best so far, the next two are no better.
    assert_eq!(report.epochs.len(), 3);
}

#[test]
fn pairs_that_cannot_be_trained_on_are_named_before_anything_is() {
    let long = "a ".repeat(500);
    let refused = |pair: QuestionAnswer| {
        let mut pairs = pairs();
        pairs[2] = pair;
        let mut trainer = Trainer::new(rag(Kind::Bart), config()).unwrap();
        let mut steps = 0;
        let error = trainer.run_while(&pairs, &[], |_| {
            steps += 1;
            ControlFlow::Continue(())
        });
        let error = error.unwrap_err();
        assert_eq!(steps, 0);
        assert!(matches!(&error, Error::Pair { number: 3, .. }), "{error}");
        format!("{error:?}")
    };
    assert!(refused(QuestionAnswer::new("who?", &long)).contains("400"));
    assert!(refused(QuestionAnswer::new("who?", " ")).contains("no answer"));
    refused(QuestionAnswer::new(&long, "me"));
}

#[test]
fn a_seed_gives_one_model() {
    let train = || {
        let mut trainer = Trainer::new(rag(Kind::T5), config()).unwrap();
        trainer.run(&pairs(), &[]).unwrap();
        parameters(&trainer.rag())
    };
    assert_eq!(train(), train());
}

#[test]
fn a_run_measures_and_keeps_the_best_and_the_last() {
    for kind in [Kind::Bart, Kind::Qwen3] {
        measures_and_keeps(kind);
    }
}

fn measures_and_keeps(kind: Kind) {
    let folder = tempfile::tempdir().unwrap();
    let config = TrainConfig {
        checkpoints: Some(folder.path().to_owned()),
        evaluate_every: 2,
        ..config()
    };
    let mut trainer = Trainer::new(rag(kind), config).unwrap();
    let report = trainer.run(&pairs(), &pairs()[..2]).unwrap();
    assert_eq!(report.epochs.len(), 4);
    assert!(report.epochs[0].heldout.is_none() && report.epochs[1].heldout.is_some());
    assert!(
        report
            .epochs
            .iter()
            .all(|epoch| epoch.examples_per_second > 0.0)
    );
    for name in ["best", "last"] {
        let knowledge = trainer.rag().retriever.local().unwrap().clone();
        Rag::load(folder.path().join(name), knowledge, &cpu()).unwrap();
    }
    let knowledge = trainer.rag().retriever.local().unwrap().clone();
    let last = Rag::load(folder.path().join("last"), knowledge, &cpu()).unwrap();
    assert_eq!(parameters(&last), parameters(&trainer.rag()));
}

#[test]
fn rounded_parameters_do_not_train() {
    for precision in [Precision::Bf16, Precision::Int8] {
        let rounded = rag(Kind::Bart).with_precision(precision).unwrap();
        let error = Trainer::new(rounded, config()).err().unwrap();
        assert!(error.to_string().contains("rag.precision"), "{error}");
    }
}

#[test]
fn settings_that_cannot_be_are_refused() {
    let refused = |config: TrainConfig, name: &str| {
        let error = Trainer::new(rag(Kind::T5), config).err().unwrap();
        assert!(
            matches!(&error, Error::Setting { setting, .. } if *setting == name),
            "{error}"
        );
    };
    refused(
        TrainConfig {
            epochs: 0,
            ..config()
        },
        "epochs",
    );
    refused(
        TrainConfig {
            precision: Precision::Int8,
            ..config()
        },
        "precision",
    );
    refused(
        TrainConfig {
            batch_size: 0,
            ..config()
        },
        "batch_size",
    );
    refused(
        TrainConfig {
            micro_batch_size: 0,
            ..config()
        },
        "micro_batch_size",
    );
    refused(
        TrainConfig {
            learning_rate: -1.0,
            ..config()
        },
        "learning_rate",
    );
    refused(
        TrainConfig {
            learning_rate: f64::NAN,
            ..config()
        },
        "learning_rate",
    );
    refused(
        TrainConfig {
            label_smoothing: 1.0,
            ..config()
        },
        "label_smoothing",
    );
    refused(
        TrainConfig {
            max_gradient_norm: 0.0,
            ..config()
        },
        "max_gradient_norm",
    );
    let none = Trainer::new(rag(Kind::T5), config()).unwrap().run(&[], &[]);
    assert!(matches!(none.err(), Some(Error::NoExamples)));
}

#[test]
fn pairs_without_question_or_answer_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pairs.jsonl");
    let good = r#"{"question": "who?", "answers": ["me"], "passage_id": "7"}"#;
    std::fs::write(&path, format!("{good}\n\n{good}\n")).unwrap();
    let read = read_pairs(&path).unwrap();
    assert_eq!((read.len(), read[0].passage.as_deref()), (2, Some("7")));
    for bad in [
        r#"{"question": "who?"}"#,
        r#"{"question": " ", "answers": ["me"]}"#,
        r#"{"question": "who?", "answers": []}"#,
        r#"{"question": "who?", "answers": [" "]}"#,
        "who?",
    ] {
        std::fs::write(&path, format!("{good}\n{bad}\n")).unwrap();
        let error = read_pairs(&path).unwrap_err();
        assert!(matches!(error, Error::Line { line: 2, .. }), "{error}");
    }
    std::fs::write(&path, "\n").unwrap();
    let error = read_pairs(&path).unwrap_err();
    assert!(matches!(error, Error::EmptyFile { .. }), "{error}");
    assert!(error.to_string().contains("pairs.jsonl"), "{error}");
}
