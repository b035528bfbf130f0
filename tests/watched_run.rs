//! The files that a run writes, and the actions of its monitors.

#![allow(clippy::unwrap_used)]

mod common;

use std::{collections::BTreeMap, ops::ControlFlow, path::Path};

use burn_rag::{
    core::checkpoint::Tensors,
    prelude::*,
    train::{
        Error, IndexRefresh,
        watch::{Action, Event, MetricsLog, MonitorConfig, WarningKind},
    },
};
use common::{Kind, alone, rag};

fn pairs() -> Vec<QuestionAnswer> {
    [
        ("who wrote hamlet?", "who"),
        ("is it raining in the city?", "rain"),
        ("what of the road?", "the road"),
        ("下雨了吗？", "雨"),
    ]
    .map(|(question, answer)| QuestionAnswer::new(question, answer))
    .to_vec()
}

fn config(folder: &Path) -> TrainConfig {
    TrainConfig {
        epochs: 4,
        batch_size: 2,
        learning_rate: 1e-3,
        evaluate_every: 2,
        checkpoints: Some(folder.to_owned()),
        ..TrainConfig::default()
    }
}

/// Drift is warned of whenever it is measured: no cosine is above 1.
fn drift(action: Action) -> MonitorConfig {
    MonitorConfig {
        probe_every: 3,
        drift_cosine: 1.5,
        actions: BTreeMap::from([(WarningKind::QueryDrift, action)]),
        ..MonitorConfig::default()
    }
}

fn question_encoder(rag: &Rag) -> String {
    let mut tensors = Tensors::default();
    let encoder = rag.retriever.question_text_encoder().unwrap().encoder();
    rag.config()
        .question_encoder
        .store(encoder, &mut tensors, "");
    let mut hash = blake3::Hasher::new();
    tensors.hash(&mut hash).unwrap();
    hash.finalize().to_hex().to_string()
}

fn events(folder: &Path) -> Vec<Event> {
    MetricsLog::read(folder.join("metrics.jsonl")).unwrap()
}

/// Everything but times and memory.
fn told(events: &[Event]) -> Vec<String> {
    let line = |event: &Event| match event {
        Event::Step(step) => format!(
            "step {} of epoch {}: {} {:?}",
            step.step, step.epoch, step.loss, step.gradient_norm
        ),
        Event::Evaluation(found) => format!("{} {} {:?}", found.step, found.f1, found.recall),
        other => format!("{other:?}"),
    };
    events.iter().map(line).collect()
}

#[test]
fn events_tell_the_run_and_the_page_shows_them() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let mut trainer = Trainer::new(rag(Kind::Bart), config(folder.path())).unwrap();
    trainer.run(&pairs(), &pairs()[..2]).unwrap();
    let kinds: String = events(folder.path())
        .iter()
        .map(|event| match event {
            Event::Step(step) => {
                assert!(step.prior_entropy > 0.0 && step.distinct_passages > 2);
                's'
            }
            Event::Evaluation(found) => {
                assert_eq!(found.questions, 2);
                'e'
            }
            Event::Checkpoint { .. } => 'c',
            _ => '?',
        })
        .collect();
    assert_eq!(kinds, "sscssecsscssec");
    let page = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    for expected in [
        "who wrote hamlet?",
        "下雨了",
        "batch_size",
        "4 training pairs",
    ] {
        assert!(page.contains(expected), "{expected}");
    }
}

#[test]
fn a_resumed_run_tells_what_the_uninterrupted_one_would_have() {
    let _alone = alone();
    let [whole, cut] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let settings = |folder: &Path| TrainConfig {
        context_encoder: Part::Trained,
        index: IndexRefresh {
            every: 3,
            delay: 1,
            rescore: None,
        },
        ..config(folder)
    };
    let mut trainer = Trainer::new(rag(Kind::T5), settings(whole.path())).unwrap();
    trainer.run(&pairs(), &pairs()[..2]).unwrap();

    let settings = TrainConfig {
        checkpoint_every: 3,
        ..settings(cut.path())
    };
    let mut trainer = Trainer::new(rag(Kind::T5), settings.clone()).unwrap();
    let stop = |step: &burn_rag::train::StepReport| match step.step {
        5 => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    trainer.run_while(&pairs(), &pairs()[..2], stop).unwrap();
    assert!(!cut.path().join("report.html").exists());
    let mut trainer = Trainer::resume(rag(Kind::T5), settings).unwrap();
    trainer.run(&pairs(), &pairs()[..2]).unwrap();

    let without_checkpoints = |folder: &Path| {
        let mut events = events(folder);
        events.retain(|event| !matches!(event, Event::Checkpoint { .. }));
        told(&events)
    };
    assert_eq!(
        without_checkpoints(cut.path()),
        without_checkpoints(whole.path())
    );
    assert!(cut.path().join("report.html").exists());
}

#[test]
fn a_monitor_freezes_the_retriever_and_it_stays_frozen() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let settings = TrainConfig {
        monitor: drift(Action::FreezeRetriever),
        ..config(folder.path())
    };
    let mut trainer = Trainer::new(rag(Kind::Bart), settings.clone()).unwrap();
    let before = question_encoder(&trainer.rag());
    let mut steps = 0;
    trainer
        .run_while(&pairs(), &[], |step| {
            assert_eq!(step.retriever_learning_rate > 0.0, step.step <= 3);
            steps = step.step;
            match step.step {
                5 => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        })
        .unwrap();
    assert_eq!(steps, 5);
    let frozen = question_encoder(&trainer.rag());
    assert_ne!(frozen, before);

    let mut trainer = Trainer::resume(rag(Kind::Bart), settings).unwrap();
    trainer.run(&pairs(), &[]).unwrap();
    assert_eq!(question_encoder(&trainer.rag()), frozen);
    let warnings: Vec<_> = events(folder.path())
        .into_iter()
        .filter(|event| matches!(event, Event::Warning { .. }))
        .collect();
    let [
        Event::Warning {
            step: 3, action, ..
        },
    ] = &warnings[..]
    else {
        panic!("{warnings:?}");
    };
    assert_eq!(*action, Action::FreezeRetriever);
}

#[test]
fn a_monitor_stops_the_run_after_a_checkpoint() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let settings = TrainConfig {
        monitor: drift(Action::Stop),
        ..config(folder.path())
    };
    let mut trainer = Trainer::new(rag(Kind::T5), settings.clone()).unwrap();
    trainer.run(&pairs(), &[]).unwrap();
    let told = events(folder.path());
    assert_eq!(told.last(), Some(&Event::Checkpoint { step: 3 }));
    assert!(folder.path().join("report.html").exists());

    let mut resumed = Trainer::resume(rag(Kind::T5), settings).unwrap();
    resumed.run(&pairs(), &[]).unwrap();
    assert_eq!(events(folder.path()), told);
}

#[test]
fn a_monitor_refreshes_the_index_before_it_is_time() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let settings = TrainConfig {
        monitor: drift(Action::RefreshIndex),
        context_encoder: Part::Trained,
        index: IndexRefresh {
            every: 100,
            delay: 1,
            rescore: None,
        },
        ..config(folder.path())
    };
    let mut trainer = Trainer::new(rag(Kind::Bart), settings.clone()).unwrap();
    trainer.run(&pairs(), &[]).unwrap();
    let refreshed = events(folder.path()).iter().any(|event| {
        *event
            == Event::Refresh {
                step: 4,
                generation: 1,
            }
    });
    assert!(refreshed);

    let frozen = TrainConfig {
        context_encoder: Part::Frozen,
        ..settings
    };
    let error = Trainer::new(rag(Kind::Bart), frozen).err().unwrap();
    let setting = "monitor.actions";
    assert!(matches!(error, Error::Setting { setting: found, .. } if found == setting));
}
