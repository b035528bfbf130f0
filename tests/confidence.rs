//! How sure a model is of its answers: the calibration that it carries, and abstention.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;

use burn_rag::{
    core::marginal::RagModel,
    generate::{
        Answer, Calibration, Error as GenerateError, Outcome, Rag, Threshold, decode::Control,
    },
};
use common::{KINDS, Kind, QUESTIONS, context_encoder, cpu, knowledge, rag};
use serde_json::Value;

const CALIBRATION: Calibration = Calibration {
    bias: 3.0,
    likelihood: 0.125,
    tokens: 0.0625,
    entropy: -1.5,
};

#[test]
fn every_answer_of_a_calibrated_model_has_a_confidence() {
    for kind in KINDS {
        let plain = rag(kind);
        let calibrated = plain.clone().with_calibration(CALIBRATION);
        for question in QUESTIONS {
            let without = plain.ask(question).unwrap();
            assert_eq!(without.confidence, None);
            let answer = calibrated.ask(question).unwrap();
            let expected = CALIBRATION.confidence(without.signals()) as f32;
            assert!(expected > 0.0 && expected < 1.0, "{expected}");
            let expected = Answer {
                confidence: Some(expected),
                ..without
            };
            assert_eq!(answer, expected);
            assert_eq!(calibrated.ask_several(question).unwrap()[0], expected);
            assert_eq!(calibrated.ask_many(&[question]).unwrap()[0], expected);
            let scored = calibrated.score(question, &["rain", "下雨了"]).unwrap();
            assert!(scored.iter().all(|answer| answer.confidence.is_some()));
            let found = calibrated.retriever.retrieve(&[question]).unwrap();
            let given = calibrated.answers(question, &found[0], Control::default());
            assert_eq!(given.unwrap()[0], expected);
        }
    }
}

#[test]
fn an_answer_shows_its_confidence_and_reads_back_with_it() {
    let mut answer = rag(Kind::T5).ask(QUESTIONS[2]).unwrap();
    let old = serde_json::to_string(&answer).unwrap();
    assert!(!old.contains("confidence"), "{old}");
    assert!(!answer.to_string().contains("confidence"));
    assert!(!answer.to_html().contains("confidence ="));
    assert_eq!(serde_json::from_str::<Answer>(&old).unwrap(), answer);
    answer.confidence = Some(0.625);
    assert!(answer.to_string().contains("   confidence = 0.625\n"));
    assert!(answer.to_html().contains("confidence = 0.625"));
    let json = serde_json::to_string(&answer).unwrap();
    assert_eq!(serde_json::from_str::<Answer>(&json).unwrap(), answer);
}

#[test]
fn a_calibration_is_saved_with_the_model() {
    for kind in KINDS {
        let folder = tempfile::tempdir().unwrap();
        let open = || Rag::load(&folder, knowledge(&context_encoder(7)), &cpu());
        let settings = || -> Value {
            serde_json::from_slice(&fs::read(folder.path().join("config.json")).unwrap()).unwrap()
        };
        rag(kind).save(&folder).unwrap();
        assert_eq!(settings().get("calibration"), None);
        assert_eq!(open().unwrap().calibration(), None);

        rag(kind)
            .with_calibration(CALIBRATION)
            .save(&folder)
            .unwrap();
        let opened = open().unwrap();
        assert_eq!(opened.calibration(), Some(CALIBRATION));
        assert!(opened.ask(QUESTIONS[0]).unwrap().confidence.is_some());

        let mut broken = settings();
        broken["calibration"]["bias"] = "high".into();
        fs::write(folder.path().join("config.json"), broken.to_string()).unwrap();
        let error = format!("{:?}", open().unwrap_err());
        assert!(
            error.contains("config.json") && error.contains("high"),
            "{error}"
        );
    }
}

#[test]
fn a_calibration_belongs_to_one_model() {
    let calibrated = rag(Kind::Bart).with_calibration(CALIBRATION);
    let same = calibrated.clone().with_model(RagModel::Token);
    assert_eq!(same.calibration(), Some(CALIBRATION));
    let other = calibrated.clone().with_model(RagModel::Sequence);
    assert_eq!(other.calibration(), None);
    let generator = rag(Kind::Bart).generator().clone();
    let trained = calibrated.clone().with_generator(generator).unwrap();
    assert_eq!(trained.calibration(), None);
    assert_eq!(calibrated.calibration(), Some(CALIBRATION));
}

#[test]
fn an_answer_below_the_confidence_asked_for_is_an_abstention() {
    for kind in KINDS {
        let calibrated = rag(kind).with_calibration(CALIBRATION);
        for question in QUESTIONS {
            let answer = calibrated.ask(question).unwrap();
            let outcome = |least| {
                let threshold = Threshold::Confidence(least);
                calibrated.ask_or_abstain(question, threshold).unwrap()
            };
            let exactly = answer.confidence.unwrap();
            assert_eq!(outcome(exactly), Outcome::Answered(answer.clone()));
            assert_eq!(
                outcome(exactly.next_up()),
                Outcome::Abstained(answer.clone())
            );
            assert_eq!(outcome(f32::NAN), Outcome::Abstained(answer));
        }
    }
    let error = rag(Kind::T5)
        .ask_or_abstain(QUESTIONS[0], Threshold::Confidence(0.5))
        .unwrap_err();
    assert!(matches!(error, GenerateError::NoCalibration), "{error}");
    assert!(error.to_string().contains("with_calibration"), "{error}");
}
