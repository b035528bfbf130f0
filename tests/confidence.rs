//! How sure a model is of its answers: the calibration that it carries, abstention, and provenance.

#![allow(clippy::unwrap_used)]

mod common;

use std::{fs, slice::from_ref};

use burn_rag::{
    core::{Passage, marginal::RagModel},
    generate::{
        Answer, Calibration, Error as GenerateError, Outcome, Rag, Threshold, decode::Control,
    },
    retrieve::{Storage, build_knowledge_base},
    train::{
        QuestionAnswer,
        evaluate::{Asked, Trust},
    },
};
use common::{
    KINDS, Kind, QUESTIONS, checkpoint, config, context_encoder, cpu, generator_tokenizer,
    knowledge, passages, question_tokenizer, rag,
};
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

/// The same model over other passages.
fn rag_over(kind: Kind, passages: Vec<Passage>) -> Rag {
    let encoder = context_encoder(7);
    let mut config = config(kind);
    config.n_docs = config.n_docs.min(passages.len());
    Rag::new(
        checkpoint(config, 1),
        question_tokenizer(),
        generator_tokenizer(kind),
        encoder.clone(),
        build_knowledge_base(passages, &encoder, Storage::F32, |_| ()).unwrap(),
    )
    .unwrap()
}

fn asked(rag: &Rag, question: &str, passage: Option<String>) -> Asked {
    let pair = QuestionAnswer {
        passage,
        ..QuestionAnswer::new(question, "雨")
    };
    Asked::new(pair, rag.ask(question).unwrap())
}

fn assert_same(found: &Answer, expected: &Answer) {
    assert_eq!(found.text, expected.text);
    common::assert_close(found.log_likelihood, expected.log_likelihood, 1e-4);
    assert_eq!(found.evidence.len(), expected.evidence.len());
    for (found, expected) in found.evidence.iter().zip(&expected.evidence) {
        assert_eq!(found.passage, expected.passage);
        common::assert_close(found.posterior, expected.posterior, 1e-4);
    }
}

#[test]
fn a_removed_passage_is_one_that_was_never_there() {
    for kind in KINDS {
        let rag = rag(kind);
        for question in QUESTIONS {
            for place in 0..3 {
                let found = &rag.retriever.retrieve(&[question]).unwrap()[0][place].passage;
                let mut asked = asked(&rag, question, Some(found.id.clone()));
                asked.remove_passages(&rag).unwrap();
                let mut others = passages();
                others.retain(|passage| passage.id != found.id);
                let without = rag_over(kind, others).ask(question).unwrap();
                assert_same(asked.removed.as_ref().unwrap(), &without);
            }
        }
    }
}

#[test]
fn all_passages_that_hold_the_answer_are_removed_where_none_is_known() {
    let rag = rag(Kind::T5);
    let mut asked = asked(&rag, QUESTIONS[2], None);
    asked.pair.answers = vec!["下雨".into(), "晴天".into(), "play".into(), "fast".into()];
    asked.remove_passages(&rag).unwrap();
    let kept = &asked.removed.as_ref().unwrap().evidence;
    let mut kept: Vec<_> = kept.iter().map(|kept| kept.passage.id.as_str()).collect();
    kept.sort_unstable();
    assert_eq!(kept, ["mixed", "rain"]);
}

#[test]
fn without_one_of_its_passages_the_model_answers_from_the_others() {
    for kind in KINDS {
        let rag = rag(kind).with_calibration(CALIBRATION);
        for question in QUESTIONS {
            let mut asked = asked(&rag, question, None);
            asked.leave_out(&rag).unwrap();
            let left_out = asked.left_out.clone().unwrap();
            let best = asked.answer.best_evidence().unwrap().passage.clone();
            let least = (asked.answer.evidence.iter())
                .min_by(|a, b| a.posterior.total_cmp(&b.posterior))
                .unwrap();
            for (found, gone) in [
                (&left_out.best, &best),
                (&left_out.least, &least.passage.clone()),
            ] {
                let mut others = rag.retriever.retrieve(&[question]).unwrap().swap_remove(0);
                others.retain(|other| other.passage != *gone);
                assert_eq!(others.len(), 2);
                let expected = rag.answers(question, &others, Control::default()).unwrap();
                assert_eq!(*found, expected[0]);
                assert!(found.confidence.is_some());
            }
            assert!(left_out.similar.is_none_or(|place| place < 3));
        }
    }
}

#[test]
fn the_most_similar_passage_is_that_of_the_same_text() {
    let rag = rag(Kind::Bart);
    let mut asked = asked(&rag, QUESTIONS[1], None);
    // An encoder of vectors that are not normalised may prefer a longer one: ask for its largest inner product.
    for place in 0..3 {
        let text = asked.answer.evidence[place].passage.text.clone();
        asked.answer.text = text.clone();
        asked.leave_out(&rag).unwrap();
        let encoder = rag.retriever.context_encoder();
        let vector = |passage: &Passage| encoder.embed_passages(from_ref(passage)).unwrap();
        let answer = vector(&Passage::new("", "", text));
        let scores = asked
            .answer
            .evidence
            .iter()
            .map(|evidence| vector(&evidence.passage).row(0).dot(&answer.row(0)));
        let scores: Vec<f32> = scores.collect();
        let best = (0..3).max_by(|&a, &b| scores[a].total_cmp(&scores[b]));
        assert_eq!(asked.left_out.as_ref().unwrap().similar, best);
    }
    asked.answer.text = String::new();
    asked.leave_out(&rag).unwrap();
    assert_eq!(asked.left_out.unwrap().similar, None);
}

#[test]
fn a_single_passage_can_neither_be_removed_nor_left_out() {
    let rag = rag_over(Kind::T5, passages()[..1].to_vec());
    let mut asked = asked(&rag, QUESTIONS[0], Some("hamlet".into()));
    asked.remove_passages(&rag).unwrap();
    asked.leave_out(&rag).unwrap();
    assert_eq!((asked.removed, asked.left_out), (None, None));
}

/// From answers to a calibrated model that abstains.
#[test]
fn trust_calibrates_a_model() {
    let rag = rag(Kind::T5);
    let ask = |question: &&str| {
        let mut asked = asked(&rag, question, Some("yu".into()));
        if question.contains("rain") {
            asked.pair.answers = vec![asked.answer.text.clone()];
        }
        asked.remove_passages(&rag).unwrap();
        asked.leave_out(&rag).unwrap();
        asked
    };
    let asked: Vec<_> = QUESTIONS.iter().map(ask).collect();
    let trust = Trust::of(&asked, &asked).unwrap();
    assert_eq!(trust.provenance.left_out.unwrap().questions, 3);
    let rag = rag.with_calibration(trust.calibration());
    for abstention in &trust.confidences[3].abstention {
        let threshold = Threshold::Confidence(abstention.threshold as f32 - 1e-6);
        let answered = QUESTIONS.iter().filter(|question| {
            let outcome = rag.ask_or_abstain(question, threshold).unwrap();
            matches!(outcome, Outcome::Answered(_))
        });
        assert_eq!(answered.count() as f64 / 3.0, abstention.coverage);
    }
}
