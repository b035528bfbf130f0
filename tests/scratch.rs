//! A model from nothing. Alone in its process: Burn's random numbers belong to the device, and other
//! tests would draw from them.

#![allow(clippy::unwrap_used)]

use burn_rag::{prelude::*, train::InverseCloze};

/// A model from nothing is one model for a seed, learns what it is shown, and keeps it on disk.
#[test]
fn a_model_from_nothing_learns() {
    let cpu = device("cpu").unwrap();
    let passages = vec![
        Passage::new(
            "1",
            "Rust",
            "Rust is a language that checks the use of memory.",
        ),
        Passage::new(
            "2",
            "Saturn",
            "Saturn has rings of ice, and its largest moon is Titan.",
        ),
        Passage::new("3", "杜甫", "杜甫是唐朝诗人，后人称他为诗圣。"),
    ];
    let pairs: Vec<QuestionAnswer> = [
        ("What is the largest moon of Saturn?", "Titan"),
        ("What does Rust check?", "the use of memory"),
        ("杜甫被称作什么？", "诗圣"),
    ]
    .map(|(question, answer)| QuestionAnswer::new(question, answer))
    .to_vec();
    let texts: Vec<&str> = (pairs.iter())
        .flat_map(|pair| [pair.question.as_str(), pair.answers[0].as_str()])
        .collect();
    for model in [RagModel::Sequence, RagModel::Token] {
        let train = || {
            let scratch = ScratchConfig {
                model,
                n_docs: 2,
                encoder_width: 32,
                generator_width: 32,
                generator_layers: 1,
                inverse_cloze: InverseCloze {
                    steps: 10,
                    ..InverseCloze::default()
                },
                ..ScratchConfig::default()
            };
            let rag = scratch.init(passages.clone(), &texts, &cpu).unwrap();
            let config = TrainConfig {
                epochs: 60,
                learning_rate: 1e-2,
                max_gradient_norm: 1.0,
                evaluate_every: 0,
                ..TrainConfig::default()
            };
            let mut trainer = Trainer::new(rag, config).unwrap();
            trainer.run(&pairs, &[]).unwrap();
            trainer.rag()
        };
        let rag = train();
        let scores = evaluate::answers(&rag, &pairs, |_, _| {}).unwrap();
        assert_eq!(scores.exact_match, 1.0, "{model:?}");
        let again = train();
        for pair in &pairs {
            assert_eq!(
                rag.ask(&pair.question).unwrap(),
                again.ask(&pair.question).unwrap()
            );
        }

        let folder = tempfile::tempdir().unwrap();
        rag.save(folder.path().join("model")).unwrap();
        let knowledge = rag.retriever.local().unwrap().clone();
        let loaded = Rag::load(folder.path().join("model"), knowledge, &cpu).unwrap();
        for pair in &pairs {
            assert_eq!(
                rag.ask(&pair.question).unwrap(),
                loaded.ask(&pair.question).unwrap()
            );
        }
    }
}
