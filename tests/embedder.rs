//! A table in the place of an encoder: it searches and answers, and what needs weights says that there are none.

#![allow(clippy::unwrap_used)]

mod common;

use std::{collections::BTreeMap, error::Error as _, hint::black_box, sync::Arc, time::Instant};

use burn_rag::{
    core::Passage,
    prelude::*,
    retrieve::{EncoderError, Error, Fingerprint, Fusion, KnowledgeError, Result, Role},
    train::{Error as TrainError, fit_prior, lora::Lora},
};
use common::{KINDS, Kind, N_DOCS, passages, rag};
use ndarray::{Array2, aview1};

/// Vectors by text, as they might be read from a file.
#[derive(Debug)]
struct Table {
    vectors: BTreeMap<String, [f32; 3]>,
}

impl Table {
    /// The first passage is east, the second north, all others up; a question names a direction.
    fn new() -> Self {
        let directions = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
        let questions = ["east", "north", "up"].map(str::to_owned).into_iter();
        let all = passages().into_iter().enumerate();
        let passages = all.map(|(at, passage)| (passage.text, directions[at.min(2)]));
        Self {
            vectors: questions.zip(directions).chain(passages).collect(),
        }
    }

    fn look_up<'a>(&self, texts: impl ExactSizeIterator<Item = &'a str>) -> Result<Array2<f32>> {
        let mut vectors = Array2::zeros((texts.len(), 3));
        for (text, mut row) in texts.zip(vectors.rows_mut()) {
            let vector = (self.vectors.get(text))
                .ok_or_else(|| Error::embedder(format!("no vector for {text:?}")))?;
            row.assign(&aview1(vector));
        }
        Ok(vectors)
    }
}

impl Embedder for Table {
    fn embed_passages(&self, passages: &[Passage]) -> Result<Array2<f32>> {
        self.look_up(passages.iter().map(|passage| passage.text.as_str()))
    }

    fn embed_questions(&self, questions: &[&str]) -> Result<Array2<f32>> {
        self.look_up(questions.iter().copied())
    }

    fn fingerprint(&self) -> Result<Fingerprint> {
        Ok(Fingerprint::new("table", "a table of directions"))
    }
}

fn retriever() -> Retriever {
    let table: Arc<dyn Embedder> = Arc::new(Table::new());
    let knowledge = build_knowledge_base(passages(), &*table, Storage::F32, |_| {}).unwrap();
    Retriever::new(table.clone(), table, knowledge, N_DOCS).unwrap()
}

fn answering(kind: Kind) -> Rag {
    let mut rag = rag(kind);
    rag.retriever = retriever();
    rag
}

#[test]
fn a_table_searches() {
    let retriever = retriever();
    let found = retriever.retrieve(&["east", "north", "up"]).unwrap();
    assert_eq!([0, 1].map(|at| found[at][0].position), [0, 1]);
    assert!(found.iter().all(|found| found[0].score == 1.0));
    let words = LexicalIndex::new(retriever.local().unwrap().passages()).unwrap();
    let hybrid = retriever.clone().with_lexical(words).unwrap();
    let ranks = hybrid.clone().with_fusion(Fusion::Ranks);
    assert_eq!(ranks.retrieve(&["east"]).unwrap()[0].len(), N_DOCS);
    // It has no vectors for the runs of words that weights are learnt from.
    let error = hybrid.retrieve(&["east"]).unwrap_err();
    assert!(error.to_string().contains("Fusion::Ranks"), "{error}");
    let cause = error.source().unwrap().source().unwrap();
    assert!(cause.to_string().contains("no vector for"), "{cause}");

    let error = retriever.retrieve(&["south"]).unwrap_err();
    let failed = Error::Encoder(EncoderError::Embedder { source: "".into() });
    assert_eq!(error.to_string(), failed.to_string());
    assert!(error.source().unwrap().to_string().contains("south"));
}

#[test]
fn a_table_is_an_encoder_like_others() {
    let encoder = common::context_encoder(7);
    let knowledge = retriever().local().unwrap().clone();
    let error = Retriever::new(encoder.clone(), encoder, knowledge, 1).unwrap_err();
    let other = matches!(error, Error::Knowledge(KnowledgeError::OtherEncoder { .. }));
    assert!(other, "{error}");
}

#[test]
fn an_embedder_that_forgets_a_question_is_refused() {
    #[derive(Debug)]
    struct Forgetful(Table);
    impl Embedder for Forgetful {
        fn embed_passages(&self, passages: &[Passage]) -> Result<Array2<f32>> {
            self.0.embed_passages(passages)
        }
        fn embed_questions(&self, questions: &[&str]) -> Result<Array2<f32>> {
            self.0.embed_questions(&questions[1..])
        }
        fn fingerprint(&self) -> Result<Fingerprint> {
            self.0.fingerprint()
        }
    }
    let retriever = retriever().with_question_encoder(Forgetful(Table::new()));
    let missing = |error| {
        let (expected, found) = (2, 1);
        matches!(error, Error::Encoder(EncoderError::Vectors { expected: e, found: f }) if (e, f) == (expected, found))
    };
    assert!(missing(retriever.retrieve(&["east", "up"]).unwrap_err()));
    assert!(missing(
        retriever.retrieve_with("east", &["up"]).unwrap_err()
    ));

    let mut rag = answering(Kind::T5);
    let whole = rag.retriever.clone();
    rag.retriever = whole.with_question_encoder(Forgetful(Table::new()));
    let ranked = rag.rank_candidates("east", &["north", "up"], RankBy::Question);
    let error = ranked.unwrap_err();
    assert!(
        error.to_string().contains("expected one for each"),
        "{error}"
    );
}

#[test]
fn a_table_answers() {
    for kind in KINDS {
        let rag = answering(kind);
        let answer = rag.ask("east").unwrap();
        assert_eq!(answer.evidence.len(), N_DOCS);
        assert_eq!(answer.evidence[0].passage, passages()[0]);
        let ranked = rag.rank_candidates("east", &["north", "up"], RankBy::Evidence);
        assert_eq!(ranked.unwrap().len(), 2);
    }
}

#[test]
fn what_needs_weights_says_so() {
    let refused = |error: burn_rag::Error, role: Role| {
        let burn_rag::Error::Retrieve(Error::Encoder(EncoderError::NotATextEncoder {
            role: found,
            ..
        })) = &error
        else {
            panic!("{error}");
        };
        assert_eq!(*found, role);
        assert!(error.to_string().contains("TextEncoder"), "{error}");
    };
    let rag = answering(Kind::T5);
    let folder = tempfile::tempdir().unwrap();
    refused(
        rag.save(folder.path().join("rag")).unwrap_err().into(),
        Role::Question,
    );
    assert!(!folder.path().join("rag").exists());
    let error = Trainer::new(rag.clone(), TrainConfig::default());
    refused(error.err().unwrap().into(), Role::Question);
    refused(
        Lora::default().apply(rag).unwrap_err().into(),
        Role::Question,
    );

    // An encoder of questions trains beside a table of passages, until something is to be saved.
    let encoder = common::context_encoder(5);
    let mut rag = answering(Kind::T5);
    rag.retriever = rag.retriever.with_question_encoder(encoder);
    let saving = TrainConfig {
        checkpoints: Some(folder.path().to_owned()),
        ..TrainConfig::default()
    };
    let error = Trainer::new(rag, saving).err().unwrap();
    assert!(matches!(error, TrainError::Retrieve(_)), "{error}");
    refused(error.into(), Role::Context);
}

#[test]
fn weights_of_the_prior_are_fitted_to_a_table() {
    let retriever = retriever();
    let words = LexicalIndex::new(retriever.local().unwrap().passages()).unwrap();
    let retriever = retriever.with_lexical(words).unwrap();
    let first = passages().swap_remove(0);
    let pair = QuestionAnswer {
        passage: Some(first.id),
        ..QuestionAnswer::new("east", "an answer")
    };
    let weights = fit_prior(&retriever, &[pair]).unwrap();
    assert!(weights.dense > 0.0, "{weights:?}");
}

/// Clones share encoders, tokenizers, passages, vectors and words.
#[test]
fn clones_cost_next_to_nothing() {
    let mut whole = rag(Kind::Bart);
    let words = LexicalIndex::new(whole.retriever.local().unwrap().passages()).unwrap();
    whole.retriever = whole.retriever.with_lexical(words).unwrap();
    let shared = |retriever: &Retriever| {
        let clone = retriever.clone();
        assert!(Arc::ptr_eq(
            retriever.question_encoder(),
            clone.question_encoder()
        ));
        assert!(Arc::ptr_eq(
            retriever.context_encoder(),
            clone.context_encoder()
        ));
        assert!(std::ptr::eq(
            retriever.local().unwrap(),
            clone.local().unwrap()
        ));
        assert!(std::ptr::eq(
            retriever.lexical().unwrap(),
            clone.lexical().unwrap()
        ));
    };
    shared(&whole.retriever);
    let all = Filter::All(Vec::new());
    let microseconds = |name: &str, work: &dyn Fn()| {
        let begun = Instant::now();
        (0..100).for_each(|_| work());
        println!("{name}: {:.1} µs", begun.elapsed().as_secs_f64() * 1e4);
    };
    microseconds("Tokenizer::clone", &|| {
        drop(black_box(whole.tokenizer().clone()))
    });
    microseconds("Retriever::clone", &|| {
        drop(black_box(whole.retriever.clone()))
    });
    microseconds("Rag::clone", &|| drop(black_box(whole.clone())));
    microseconds("Rag::among", &|| {
        drop(black_box(whole.among(&all).unwrap()))
    });
}
