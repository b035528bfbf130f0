//! Passages found by vectors and by words, judged by a reranker, weighed by a prior that learns.

#![allow(clippy::unwrap_used)]

mod common;

use burn_rag::{
    core::Passage,
    generate::Rag,
    prelude::*,
    retrieve::{
        CrossEncoder, DeviceIndex, EncoderError, Error, FlatIndex, Fusion, Index, KnowledgeError,
        LexicalIndex, PriorWeights, Reranker, Result, Retrieved, Retriever, RetrieverError,
        encoder::BertConfig, reciprocal_rank_fusion, rerank::PairScorer,
    },
    train::fit_prior,
};
use common::{
    Kind, QUESTIONS, alone, context_encoder, cpu, encoder_config, knowledge, passages,
    question_tokenizer, rag, seeded,
};

/// Likes long passages.
#[derive(Debug)]
struct ByLength;

impl Reranker for ByLength {
    fn rerank(&self, _question: &str, passages: &[Passage]) -> Result<Vec<f32>> {
        Ok(passages
            .iter()
            .map(|passage| passage.text.chars().count() as f32)
            .collect())
    }
}

fn dense() -> Retriever {
    rag(Kind::T5).retriever
}

fn words(retriever: &Retriever) -> LexicalIndex {
    LexicalIndex::new(retriever.local().unwrap().passages()).unwrap()
}

fn hybrid() -> Retriever {
    let retriever = dense();
    let words = words(&retriever);
    retriever.with_lexical(words).unwrap()
}

fn ask(retriever: &Retriever, question: &str) -> Vec<Retrieved> {
    retriever.retrieve(&[question]).unwrap().swap_remove(0)
}

fn positions(found: &[Retrieved]) -> Vec<usize> {
    found.iter().map(|found| found.position).collect()
}

/// The passages in the order of a score, best first.
fn ordered(score: impl Fn(&Retrieved) -> f32, found: &[Retrieved]) -> Vec<usize> {
    let mut found = found.to_vec();
    found.sort_by(|a, b| score(b).total_cmp(&score(a)));
    positions(&found)
}

/// All passages, with all that speaks for each.
fn everything(question: &str) -> Vec<Retrieved> {
    let retriever = hybrid().with_reranker(ByLength);
    ask(&retriever.top_k(passages().len()).unwrap(), question)
}

#[test]
fn words_and_vectors_are_weighed_by_default() {
    let retriever = hybrid();
    let weights = retriever.weights().unwrap().unwrap();
    assert_eq!((weights.lexical, weights.rerank), (0.5, 0.0));
    assert!(weights.dense >= 0.0 && weights.dense.is_finite());
    for question in QUESTIONS {
        let found = ask(&retriever, question);
        let all = everything(question);
        let score = |found: &Retrieved| weights.score(found.relevance);
        // Among equals, as where τ is 0 and no word is shared, that of the larger inner product.
        let mut expected = all.clone();
        expected.sort_by(|a, b| b.relevance.dense.total_cmp(&a.relevance.dense));
        let expected = ordered(score, &expected);
        assert_eq!(positions(&found), expected[..3], "{question}");
        assert!(found.iter().all(|found| found.score == score(found)));
        // A reranker that reads one passage reads the best of them.
        let reranked = retriever.clone().with_reranker(ByLength).with_candidates(1);
        let reranked = ask(&reranked.top_k(1).unwrap(), question);
        assert_eq!(positions(&reranked), positions(&found)[..1], "{question}");
    }
    assert_eq!(dense().weights().unwrap(), None);
    assert_eq!(retriever.prior(), None);
}

#[test]
fn a_reranker_scores_every_passage() {
    #[derive(Debug)]
    struct Short;

    impl Reranker for Short {
        fn rerank(&self, _: &str, _: &[Passage]) -> Result<Vec<f32>> {
            Ok(vec![1.0])
        }
    }

    let error = dense().with_reranker(Short).retrieve(&QUESTIONS[..1]);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("1 scores for"), "{error}");
}

#[test]
fn a_scale_counts_where_nothing_else_weighs() {
    let scale = PriorWeights::from([20.0, 0.0, 0.0]);
    let scaled = dense().with_scale(20.0);
    assert_eq!(scaled.weights().unwrap(), Some(scale));
    assert_eq!(scaled.prior(), None);
    let ranks = hybrid().with_fusion(Fusion::Ranks);
    for (plain, scaled) in [(dense(), scaled), (ranks.clone(), ranks.with_scale(20.0))] {
        for question in QUESTIONS {
            let [plain, scaled] = [&plain, &scaled].map(|retriever| ask(retriever, question));
            assert_eq!(positions(&scaled), positions(&plain), "{question}");
            let scores = |found: &[Retrieved], factor: f32| -> Vec<f32> {
                found.iter().map(|one| factor * one.score).collect()
            };
            assert_eq!(scores(&scaled, 1.0), scores(&plain, 20.0), "{question}");
        }
    }
    let [plain, scaled] = [hybrid(), hybrid().with_scale(20.0)].map(|one| one.weights().unwrap());
    assert_eq!(scaled, plain);
}

#[test]
fn words_and_vectors_are_put_in_one_order_by_ranks() {
    for question in [
        "who wrote hamlet?",
        "a safe language",
        "今天下雨了吗，路滑吗？",
    ] {
        let retriever = hybrid().with_fusion(Fusion::Ranks);
        let vector = retriever
            .question_encoder()
            .embed_questions(&[question])
            .unwrap();
        let mut rankings = retriever
            .local()
            .unwrap()
            .index()
            .search(vector.view(), 9)
            .unwrap();
        rankings.push(words(&retriever).search(question, 9).unwrap());
        let fused = reciprocal_rank_fusion(&rankings);
        let found = ask(&retriever, question);
        let expected: Vec<_> = fused.iter().map(|hit| hit.position).take(3).collect();
        assert_eq!(positions(&found), expected, "{question}");
        assert!(expected.contains(&rankings[1][0].position), "{question}");
        // The paper's P(z|x).
        assert!(
            found
                .iter()
                .all(|found| found.score == found.relevance.dense)
        );
    }
}

#[test]
fn all_that_speaks_for_a_passage_is_what_each_source_says() {
    let question = "the play of hamlet, in the city";
    let retriever = hybrid();
    let vector = retriever
        .question_encoder()
        .embed_questions(&[question])
        .unwrap();
    for found in everything(question) {
        let at = found.position;
        let dense = retriever
            .knowledge()
            .vectors_at(&[at])
            .unwrap()
            .row(0)
            .dot(&vector.row(0));
        assert!((found.relevance.dense - dense).abs() < 1e-4);
        let lexical = words(&retriever).scores(question, &[at]).unwrap()[0];
        assert_eq!(found.relevance.lexical, lexical);
        assert_eq!(
            found.relevance.rerank,
            found.passage.text.chars().count() as f32
        );
        // The reranker's word alone, unless there are weights.
        assert_eq!(found.score, found.relevance.rerank);
    }
}

#[test]
fn weights_decide_order_and_probability() {
    let question = "who wrote hamlet?";
    let all = everything(question);
    for weights in [
        [1.0, 0.0, 0.0],
        [0.1, 2.0, 0.0],
        [0.0, 0.3, -1.0],
        [0.5, 0.5, 0.01],
    ] {
        let weights = PriorWeights::from(weights);
        let score = |found: &Retrieved| weights.score(found.relevance);
        let retriever = hybrid().with_reranker(ByLength).with_prior(weights);
        let found = ask(&retriever, question);
        assert_eq!(positions(&found), ordered(score, &all)[..3]);
        assert!(found.iter().all(|found| found.score == score(found)));

        let mut rag = rag(Kind::T5);
        rag.retriever = retriever;
        let answer = rag.ask(question).unwrap();
        let total: f32 = found.iter().map(|found| found.score.exp()).sum();
        for (evidence, found) in answer.evidence.iter().zip(&found) {
            assert!((evidence.prior - found.score.exp() / total).abs() < 1e-5);
        }
    }
}

#[test]
fn other_wordings_find_and_the_question_judges() {
    let retriever = hybrid()
        .with_prior(PriorWeights::from([0.0, 1.0, 0.0]))
        .with_candidates(1);
    let retriever = retriever.top_k(1).unwrap();
    let question = "Hamlet and the rain";
    let alone = retriever.retrieve_with(question, &[]).unwrap();
    assert_eq!(alone, ask(&retriever, question));
    let wide = retriever.clone().with_candidates(6).top_k(3).unwrap();
    let found = wide
        .retrieve_with(question, &["下雨了吗", "a safe language"])
        .unwrap();
    let by_question = words(&retriever);
    for found in &found {
        let score = by_question.scores(question, &[found.position]).unwrap()[0];
        assert_eq!(found.score, score);
    }
    let error = retriever
        .retrieve_with(question, &["fine", " "])
        .unwrap_err();
    assert!(
        matches!(error, Error::Retriever(RetrieverError::EmptyQuestion)),
        "{error}"
    );
}

#[test]
fn diversity_leaves_out_what_says_the_same() {
    let encoder = context_encoder(7);
    let twice = passages()
        .into_iter()
        .chain(passages().into_iter().map(|passage| Passage {
            id: format!("{} again", passage.id),
            ..passage
        }));
    let knowledge = build_knowledge_base(twice.collect(), &encoder, Storage::F32, |_| ()).unwrap();
    let retriever =
        Retriever::new(dense().question_encoder().clone(), encoder, knowledge, 3).unwrap();
    let texts = |retriever: &Retriever| -> Vec<String> {
        let found = ask(retriever, QUESTIONS[0]).into_iter();
        found.map(|found| found.passage.text).collect()
    };
    let plain = texts(&retriever);
    assert_eq!(plain[0], plain[1]);
    assert_eq!(
        texts(&retriever.clone().with_diversity(1.0).unwrap()),
        plain
    );
    let diverse = texts(&retriever.clone().with_diversity(0.0).unwrap());
    assert_eq!(diverse[0], plain[0]);
    assert!(diverse[1] != diverse[0] && diverse[2] != diverse[0] && diverse[2] != diverse[1]);
    for lambda in [-0.1, 1.1, f32::NAN] {
        let error = retriever.clone().with_diversity(lambda).unwrap_err();
        assert!(
            matches!(error, Error::Retriever(RetrieverError::Lambda { .. })),
            "{error}"
        );
    }
}

#[test]
fn another_index_over_the_same_vectors_finds_the_same() {
    let retriever = dense();
    let index = DeviceIndex::new(retriever.local().unwrap().index(), &cpu());
    let other = retriever.clone().with_index(index).unwrap();
    for question in QUESTIONS {
        assert_eq!(
            positions(&ask(&other, question)),
            positions(&ask(&retriever, question))
        );
    }
    let few = FlatIndex::new(
        retriever.knowledge().vectors_at(&[0, 1]).unwrap(),
        Storage::F32,
    )
    .unwrap();
    let error = retriever.with_index(few).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Retriever(RetrieverError::OtherIndex {
                expected: 6,
                found: 2,
                ..
            })
        ),
        "{error}"
    );
}

#[test]
fn what_is_missing_is_named() {
    let retriever = dense().with_prior(PriorWeights::from([1.0, 0.5, 0.0]));
    let error = retriever.retrieve(&QUESTIONS).unwrap_err().to_string();
    assert!(
        error.contains("lexical") && error.contains("with_lexical"),
        "{error}"
    );
    let error = hybrid().with_prior(PriorWeights::from([1.0, 0.5, 2.0]));
    let error = error.retrieve(&QUESTIONS).unwrap_err().to_string();
    assert!(error.contains("with_reranker"), "{error}");
    let few = LexicalIndex::new(passages().into_iter().take(2).map(Ok)).unwrap();
    let error = dense().with_lexical(few).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Retriever(RetrieverError::LexicalIndex {
                expected: 6,
                found: 2
            })
        ),
        "{error}"
    );
}

/// The trainer moves the weights by the gradient of the marginal likelihood, and saves them.
#[test]
fn the_prior_learns_and_is_saved() {
    let _alone = alone();
    let start = PriorWeights::from([1.0, 0.2, 0.0]);
    let mut before = rag(Kind::T5);
    before.retriever = hybrid().with_prior(start);
    let pairs = [
        ("who wrote hamlet?", "who"),
        ("is it raining in the city?", "rain"),
    ]
    .map(|(question, answer)| QuestionAnswer::new(question, answer));
    let train = |prior, documents_at_a_time| {
        let config = TrainConfig {
            epochs: 2,
            batch_size: 1,
            prior,
            documents_at_a_time,
            question_encoder: Part::Frozen,
            evaluate_every: 0,
            ..TrainConfig::default()
        };
        let mut trainer = Trainer::new(before.clone(), config).unwrap();
        trainer.run(&pairs, &[]).unwrap();
        trainer.rag()
    };
    let weights = |rag: &Rag| rag.retriever.prior().unwrap();
    let learnt = train(Part::TrainedAt(0.05), None);
    assert!(weights(&learnt).dense != start.dense && weights(&learnt).lexical != start.lexical);
    assert_eq!(weights(&learnt).rerank, 0.0); // there is no reranker to learn from
    assert_eq!(weights(&train(Part::Frozen, None)), start);

    let folder = tempfile::tempdir().unwrap();
    learnt.save(&folder).unwrap();
    let opened = Rag::load(&folder, knowledge(&context_encoder(7)), &cpu()).unwrap();
    assert_eq!(weights(&opened), weights(&learnt));
    assert!(opened.ask("rain").is_err(), "the words are not there yet");
}

/// Training and answering have the same P(z|x): with a reranker, the softmax of the reranker's scores.
#[test]
fn training_believes_the_reranker_as_answering_does() {
    let _alone = alone();
    let mut rag = rag(Kind::T5);
    rag.retriever = dense().with_reranker(ByLength);
    let pair = QuestionAnswer::new(QUESTIONS[0], "who");
    let answer = rag.ask(&pair.question).unwrap();
    let config = TrainConfig {
        prior: Part::Frozen,
        ..TrainConfig::default()
    };
    let mut trainer = Trainer::new(rag, config).unwrap();
    let report = trainer.step(&[&pair]).unwrap();
    let believed = report.examples[0].prior.iter();
    for (believed, evidence) in believed.zip(&answer.evidence) {
        assert!((f64::from(*believed) - f64::from(evidence.prior)).abs() < 1e-5);
    }
}

#[test]
fn a_run_of_the_prior_alone_needs_a_prior() {
    let config = TrainConfig {
        question_encoder: Part::Frozen,
        generator: Part::Frozen,
        ..TrainConfig::default()
    };
    assert!(Trainer::new(rag(Kind::T5), config.clone()).is_err());
    let mut weighed = rag(Kind::T5);
    weighed.retriever = hybrid().with_prior(PriorWeights::default());
    Trainer::new(weighed, config).unwrap();
}

/// Weights that are fitted to passages that share words with their question put them first.
#[test]
fn the_prior_is_fitted_to_right_passages() {
    let _alone = alone();
    let pairs = [
        ("the play of hamlet, prince of denmark", "hamlet"),
        ("a fast and safe language", "rust"),
        ("what does the word 书 mean?", "mixed"),
    ]
    .map(|(question, passage)| QuestionAnswer {
        passage: Some(passage.to_owned()),
        ..QuestionAnswer::new(question, "")
    });
    let retriever = hybrid();
    let fitted = fit_prior(&retriever, &pairs).unwrap();
    assert!(fitted.lexical > 0.0 && fitted.rerank == 0.0, "{fitted:?}");
    let fitted = retriever.with_prior(fitted);
    for pair in &pairs {
        let best = &ask(&fitted, &pair.question)[0];
        assert_eq!(Some(&best.passage.id), pair.passage.as_ref());
    }
    let nowhere = [QuestionAnswer::new("who?", "nowhere to be found")];
    assert!(fit_prior(&hybrid(), &nowhere).is_err());
}

fn cross_encoder() -> CrossEncoder {
    let config = BertConfig {
        model_type: "bert".into(),
        projection_dim: 0,
        ..encoder_config().bert
    };
    let model = seeded(PairScorer::new(&config, &cpu()).unwrap(), 3);
    CrossEncoder::new(model, question_tokenizer(), config).unwrap()
}

#[test]
fn a_cross_encoder_judges_each_passage_by_itself_and_is_saved() {
    let reranker = cross_encoder();
    let question = "who wrote hamlet?";
    let together = reranker.rerank(question, &passages()).unwrap();
    for (passage, score) in passages().iter().zip(&together) {
        let alone = reranker
            .rerank(question, std::slice::from_ref(passage))
            .unwrap();
        assert!((alone[0] - score).abs() < 1e-4 * score.abs().max(1.0));
    }
    assert!(reranker.rerank(question, &[]).unwrap().is_empty());

    let folder = tempfile::tempdir().unwrap();
    reranker.save(folder.path()).unwrap();
    let opened = CrossEncoder::load(folder.path(), &cpu()).unwrap();
    assert_eq!(opened.rerank(question, &passages()).unwrap(), together);
    let encoder = TextEncoder::load(folder.path(), &cpu())
        .unwrap_err()
        .to_string();
    assert!(encoder.contains("classifier"), "{encoder}");

    let long = "the rain ".repeat(200);
    let long = Passage::new("long", "", long);
    assert_eq!(reranker.rerank(question, &[long]).unwrap().len(), 1);
    let error = reranker
        .rerank(&"rain ".repeat(200), &passages())
        .unwrap_err();
    assert!(
        matches!(error, Error::Encoder(EncoderError::QuestionTooLong { .. })),
        "{error}"
    );
}

#[test]
fn a_folder_of_another_head_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    cross_encoder().save(folder.path()).unwrap();
    let path = folder.path().join("config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
    config["id2label"] = serde_json::json!({"0": "no", "1": "yes"});
    std::fs::write(&path, config.to_string()).unwrap();
    let error = CrossEncoder::load(folder.path(), &cpu())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("id2label") && error.contains("2 labels"),
        "{error}"
    );
}

#[test]
fn filters_narrow_one_another() {
    let rag = rag(Kind::T5);
    let passages = rag
        .retriever
        .local()
        .unwrap()
        .passages()
        .map(Result::unwrap);
    let known: Vec<Passage> = passages
        .zip(0..)
        .map(|(passage, n)| passage.with("n", n).with("even", n % 2 == 0))
        .collect();
    let vectors = rag
        .retriever
        .local()
        .unwrap()
        .index()
        .rows(0..known.len())
        .into_owned();
    let fingerprint = rag.retriever.context_encoder().fingerprint().unwrap();
    let knowledge = KnowledgeBase::new(known, vectors, Storage::F32, fingerprint).unwrap();
    let reordered: Vec<usize> = (0..knowledge.len()).rev().collect();
    let encoder = rag.retriever.context_encoder().clone();
    let retriever = rag
        .retriever
        .with_knowledge(encoder.clone(), knowledge.clone())
        .unwrap();
    let lexical = words(&retriever);
    let retriever = retriever.with_lexical(lexical).unwrap();

    let even = retriever.among(&Filter::is("even", true)).unwrap();
    let one = even.among(&Filter::within("n", ..=1)).unwrap();
    assert_eq!((one.searched(), one.n_docs()), (1, 1));
    for question in ["rain", "where did it rain?"] {
        assert_eq!(positions(&ask(&one, question)), [0]);
        assert!(
            ask(&even, question)
                .iter()
                .all(|found| found.position % 2 == 0)
        );
    }
    let none = one.among(&Filter::is("n", 1)).unwrap_err();
    assert!(
        matches!(none, Error::Knowledge(KnowledgeError::NoMatch { .. })),
        "{none}"
    );

    // The same passages elsewhere: the filter is asked again, and words are not looked up at old places.
    let passages = reordered.iter().map(|&at| knowledge.passage(at).unwrap());
    let turned = KnowledgeBase::new(
        passages.collect(),
        knowledge.index().gather(&reordered),
        Storage::F32,
        knowledge.manifest().encoder.clone(),
    )
    .unwrap();
    let last = turned.len() - 1;
    let error = one
        .clone()
        .with_knowledge(encoder.clone(), turned.clone())
        .unwrap_err();
    assert!(
        matches!(error, Error::Retriever(RetrieverError::LexicalIndex { .. })),
        "{error}"
    );
    let dense = dense().with_knowledge(encoder.clone(), knowledge).unwrap();
    let one = dense.among(&Filter::is("n", 0)).unwrap();
    let turned = one.with_knowledge(encoder, turned).unwrap();
    assert_eq!(positions(&ask(&turned, "rain")), [last]);
}
