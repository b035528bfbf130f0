//! A run that was killed and resumed is the run that never stopped, bit for bit.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    fs,
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use burn_rag::{
    core::checkpoint::Tensors,
    generate::Rag,
    prelude::*,
    train::{Decay, Error, IndexRefresh, OptimizerKind, Order, Report},
};
use common::{Kind, Random, alone, rag};

fn pairs() -> Vec<QuestionAnswer> {
    [
        ("who wrote hamlet?", "who"),
        ("is it raining in the city?", "rain"),
        ("what of the road?", "the road"),
        ("下雨了吗？", "雨"),
        ("will it be fine?", "fine"),
        ("what is a book?", "书"),
        ("is it safe?", "it is"),
    ]
    .map(|(question, answer)| QuestionAnswer::new(question, answer))
    .to_vec()
}

/// Dropout, both encoders with an index that follows, and micro-batches.
fn settings(folder: &Path) -> TrainConfig {
    TrainConfig {
        epochs: 4,
        batch_size: 2,
        micro_batch_size: 1,
        documents_at_a_time: Some(2),
        context_encoder: Part::TrainedAt(1e-3),
        index: IndexRefresh {
            every: 5,
            delay: 2,
            rescore: None,
        },
        order: Order::ByLength,
        decay: Decay::Cosine,
        learning_rate: 2e-3,
        max_gradient_norm: 1.0,
        evaluate_every: 1,
        checkpoint_every: 3,
        checkpoints: Some(folder.to_owned()),
        ..TrainConfig::default()
    }
}

fn parameters(rag: &Rag) -> String {
    let mut tensors = Tensors::default();
    let config = &rag.config().question_encoder;
    let retriever = &rag.retriever;
    config.store(
        retriever.question_text_encoder().unwrap().encoder(),
        &mut tensors,
        "question.",
    );
    config.store(
        retriever.context_text_encoder().unwrap().encoder(),
        &mut tensors,
        "context.",
    );
    rag.generator().store(&mut tensors, "generator.");
    let mut hash = blake3::Hasher::new();
    tensors.hash(&mut hash).unwrap();
    let positions: Vec<usize> = (0..retriever.local().unwrap().len()).collect();
    for value in retriever.knowledge().vectors_at(&positions).unwrap() {
        hash.update(&value.to_le_bytes());
    }
    hash.finalize().to_hex().to_string()
}

fn without_times(mut report: Report) -> Report {
    for epoch in &mut report.epochs {
        epoch.examples_per_second = 0.0;
    }
    report
}

fn finish(mut trainer: Trainer) -> (Report, String) {
    let report = trainer.run(&pairs(), &pairs()[..3]).unwrap();
    (without_times(report), parameters(&trainer.rag()))
}

fn new(config: TrainConfig) -> Trainer {
    Trainer::new(rag(Kind::T5), config).unwrap()
}

/// Dies after `step` without a word.
fn kill_after(step: usize, trainer: &mut Trainer) {
    let killed = catch_unwind(AssertUnwindSafe(|| {
        trainer.run_while(&pairs(), &pairs()[..3], |done| {
            assert!(done.step < step, "killed");
            ControlFlow::Continue(())
        })
    }));
    assert!(killed.is_err());
}

#[test]
fn resumed_after_kills_at_random_steps_is_uninterrupted() {
    let _alone = alone();
    let mut random = Random(5);
    for optimizer in [
        OptimizerKind::AdamW,
        OptimizerKind::AdamWBf16,
        OptimizerKind::Adafactor,
    ] {
        let folder = tempfile::tempdir().unwrap();
        let settings = |name| TrainConfig {
            optimizer,
            ..settings(&folder.path().join(name))
        };
        let uninterrupted = finish(new(settings("whole")));
        assert!(uninterrupted.0.index_generation > 2);
        let config = settings("killed");
        let first = 4 + random.below(5) as usize;
        let second = first + 1 + random.below(6) as usize;
        kill_after(first, &mut new(config.clone()));
        let resume = || Trainer::resume(rag(Kind::T5), config.clone()).unwrap();
        kill_after(second, &mut resume());
        let last = resume();
        // It has read all of its state: the next checkpoint takes the place of these files.
        for name in ["model.bpk", "optimizer.bpk"] {
            fs::remove_file(folder.path().join("killed/last/training").join(name)).unwrap();
        }
        assert_eq!(
            finish(last),
            uninterrupted,
            "killed at {first} and {second}"
        );
    }
}

/// Breaking off writes a checkpoint where it is; so does every epoch.
#[test]
fn a_run_that_is_broken_off_goes_on() {
    let _alone = alone();
    for kind in [Kind::T5, Kind::Llama, Kind::Qwen3] {
        goes_on(kind);
    }
}

fn goes_on(kind: Kind) {
    let new = |config| Trainer::new(rag(kind), config).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let settings = |name| TrainConfig {
        checkpoint_every: 0,
        ..settings(&folder.path().join(name))
    };
    let uninterrupted = finish(new(settings("whole")));
    let mut trainer = new(settings("broken"));
    let stop_at = |step: usize| {
        move |done: &burn_rag::train::StepReport| match done.step == step {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    };
    trainer
        .run_while(&pairs(), &pairs()[..3], stop_at(6))
        .unwrap();
    // The same trainer, and another process.
    trainer
        .run_while(&pairs(), &pairs()[..3], stop_at(7))
        .unwrap();
    let resumed = Trainer::resume(rag(kind), settings("broken")).unwrap();
    assert_eq!(finish(resumed), uninterrupted);
}

#[test]
fn another_run_is_refused() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let config = TrainConfig {
        epochs: 1,
        ..settings(folder.path())
    };
    let resume = |config: TrainConfig| Trainer::resume(rag(Kind::T5), config);
    assert!(matches!(resume(config.clone()), Err(Error::NoRun { .. })));
    new(config.clone()).run(&pairs(), &[]).unwrap();

    let other = TrainConfig {
        learning_rate: 1e-3,
        ..config.clone()
    };
    let error = resume(other).err().unwrap().to_string();
    assert!(
        error.contains("learning_rate is 0.002, this one's 0.001"),
        "{error}"
    );
    let error = resume(config.clone())
        .unwrap()
        .run(&pairs()[1..], &[])
        .unwrap_err();
    assert!(
        error.to_string().contains("number of training pairs is"),
        "{error}"
    );
    let mut turned = pairs();
    turned.reverse();
    let error = resume(config.clone())
        .unwrap()
        .run(&turned, &[])
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("fingerprint of the training pairs"),
        "{error}"
    );
    let other = Trainer::resume(rag(Kind::Bart), config);
    assert!(matches!(other, Err(Error::Record { .. })));
}
