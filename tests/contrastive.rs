//! Contrastive training of the bi-encoder, on a tiny BERT with weights of a fixed seed.

#![allow(clippy::unwrap_used)]

mod common;

use burn_rag::{
    burn::{
        module::{Module, ModuleVisitor, Param},
        optim::{GradientsAccumulator, GradientsParams},
        tensor::Tensor,
    },
    core::{Passage, nn::Precision},
    retrieve::{Embedder, Encoder, EncoderConfig, IndexError, Normalization, Pooling, TextEncoder},
    train::{
        ContrastiveConfig, ContrastiveReport, DprExample, Encoders, Error,
        contrastive::{BiEncoder, ContrastiveBatch, ContrastiveEpoch, MicroBatch, back_propagate},
        train_contrastive,
    },
};
use common::{alone, cpu, question_tokenizer, seeded};

fn encoder_of(config: EncoderConfig) -> TextEncoder {
    let encoder = seeded(config.init(&cpu()).unwrap(), 3);
    TextEncoder::new(encoder, question_tokenizer(), config).unwrap()
}

/// One layer that reads all tokens: it learns what it is shown in a few steps.
fn small(dropout: f64) -> EncoderConfig {
    let mut config = common::encoder_config();
    config.bert.num_hidden_layers = 1;
    config.bert.projection_dim = 0;
    config.bert.hidden_dropout_prob = dropout;
    config.bert.attention_probs_dropout_prob = dropout;
    config.pooling = Pooling::Mean;
    config
}

/// One encoder for both sides, and two that begin as one.
fn encoders(dropout: f64) -> [Encoders; 2] {
    let encoder = encoder_of(small(dropout));
    [
        Encoders::Shared(encoder.clone()),
        Encoders::Two {
            question: encoder.clone(),
            context: encoder,
        },
    ]
}

/// A question for each passage of the toy corpus; two have hard negatives.
fn examples() -> Vec<DprExample> {
    let questions = [
        "who wrote the play of hamlet?",
        "what of the rain in the city?",
        "下雨了吗？",
        "明天是晴天吗？",
        "which language is fast and safe?",
        "what does 书 mean?",
    ];
    let mut examples: Vec<_> = questions
        .into_iter()
        .zip(common::passages())
        .map(|(question, positive)| DprExample::new(question, positive))
        .collect();
    examples[0].hard_negatives = vec![Passage::new("lear", "Lear", "King Lear is a play too.")];
    examples[2].hard_negatives = vec![
        Passage::new("lu", "路", "明天路很滑。"),
        Passage::new("shu", "书", "我们去看书。"),
    ];
    examples
}

fn config() -> ContrastiveConfig {
    ContrastiveConfig {
        epochs: 20,
        batch_size: 3,
        micro_batch_size: 2,
        learning_rate: 3e-3,
        warmup: 0.0,
        hard_negatives: 2,
        ..ContrastiveConfig::default()
    }
}

fn batch(encoders: &Encoders, micro_batch_size: usize, seed: u64) -> ContrastiveBatch {
    batch_of(encoders, &examples(), micro_batch_size, seed)
}

fn batch_of(
    encoders: &Encoders,
    examples: &[DprExample],
    micro_batch_size: usize,
    seed: u64,
) -> ContrastiveBatch {
    let config = ContrastiveConfig {
        micro_batch_size,
        ..config()
    };
    let examples: Vec<_> = examples.iter().collect();
    ContrastiveBatch::new(encoders, &examples, &config, &cpu().autodiff(), seed).unwrap()
}

fn gradients_of(model: &BiEncoder, losses: impl IntoIterator<Item = Tensor<1>>) -> Vec<f32> {
    struct Flat {
        gradients: GradientsParams,
        values: Vec<f32>,
    }
    impl ModuleVisitor for Flat {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let gradient = self.gradients.get::<D>(param.id).unwrap();
            let gradient: Vec<f32> = gradient.try_into_vec_as().unwrap();
            self.values.extend(gradient);
        }
    }
    let mut sum = GradientsAccumulator::new();
    for loss in losses {
        let mut gradients = loss.backward();
        sum.accumulate(model, GradientsParams::from_module(&mut gradients, model));
    }
    let mut flat = Flat {
        gradients: sum.grads(),
        values: vec![],
    };
    model.visit(&mut flat);
    flat.values
}

const TEMPERATURE: f64 = 0.7;

/// The loss of all vectors with the graph of every micro-batch at once.
fn one_graph(model: &BiEncoder, batch: &ContrastiveBatch) -> (f64, Vec<f32>) {
    let embed = |texts: &[MicroBatch], encoder: &Encoder| {
        let vectors = texts.iter().map(|some| some.embed(encoder, Precision::F32));
        Tensor::cat(vectors.collect(), 0)
    };
    let questions = embed(&batch.questions, &model.question);
    let passages = embed(&batch.passages, model.context());
    let (loss, found) = batch.loss(questions, passages, TEMPERATURE);
    (found.loss, gradients_of(model, [loss]))
}

fn cached(model: &BiEncoder, batch: &ContrastiveBatch) -> (f64, Vec<f32>) {
    let mut losses = Vec::new();
    let found = back_propagate(model, batch, TEMPERATURE, Precision::F32, |loss| {
        losses.push(loss);
    });
    (found.loss, gradients_of(model, losses))
}

/// ‖a - b‖ / ‖b‖.
fn apart(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let norm = |values: &mut dyn Iterator<Item = f32>| {
        let squares = values.map(|value| f64::from(value).powi(2));
        squares.sum::<f64>().sqrt()
    };
    norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied())
}

/// The batch has six questions and nine passages: micro-batches of four leave a shorter last one.
#[test]
fn cached_gradients_are_those_of_one_graph() {
    let _alone = alone();
    for dropout in [0.0, 0.3] {
        for encoders in encoders(dropout) {
            let model = encoders.model();
            let whole = one_graph(&model, &batch(&encoders, 9, 1));
            for micro_batch_size in [1, 2, 4, 9] {
                let batch = batch(&encoders, micro_batch_size, 1);
                let expected = one_graph(&model, &batch);
                let found = cached(&model, &batch);
                let (loss, graph) = (found.0, expected.0);
                assert!((loss - graph).abs() < 1e-6 * graph, "{loss} {graph}");
                assert!(apart(&found.1, &expected.1) < 1e-5);
                if dropout == 0.0 {
                    assert!(apart(&found.1, &whole.1) < 1e-5);
                }
            }
            let other_masks = cached(&model, &batch(&encoders, 2, 2));
            let same = cached(&model, &batch(&encoders, 2, 1));
            assert_eq!(apart(&other_masks.1, &same.1) > 0.01, dropout > 0.0);
        }
    }
}

/// Without gradients, dropout drops the same states: so the first encoding needs no graph.
#[test]
fn an_encoding_without_gradients_drops_the_same_states() {
    let _alone = alone();
    let encoder = Encoders::Shared(encoder_of(small(0.3)));
    let model = encoder.model();
    let batch = batch(&encoder, 9, 1);
    let embed = |encoder: &Encoder| batch.passages[0].embed(encoder, Precision::F32);
    let values = |vectors: Tensor<2>| vectors.into_data();
    let graph = embed(&model.question);
    let still = embed(&model.clone().no_grad().question);
    assert!(graph.is_tracked() && !still.is_tracked());
    assert_eq!(values(graph.clone()), values(still));
    assert_ne!(values(graph), values(embed(&model.freeze().question)));
}

/// The same passage again, as a hard negative or of another question, changes nothing for the
/// question it belongs to.
#[test]
fn a_question_is_not_told_from_its_own_passage() {
    let _alone = alone();
    let [_, encoders] = encoders(0.0);
    let model = encoders.model();
    let run = |examples: &[DprExample]| {
        let batch = batch_of(&encoders, examples, 2, 1);
        cached(&model, &batch)
    };
    let one = examples().remove(2);
    let mut found_again = one.clone();
    found_again.hard_negatives[0] = one.positives[0].clone();
    let mut without = one.clone();
    without.hard_negatives.remove(0);
    let [found_again, without] = [[found_again], [without]].map(|examples| run(&examples));
    assert!((found_again.0 - without.0).abs() < 1e-6 * without.0);
    assert!(apart(&found_again.1, &without.1) < 1e-5);

    let mut twice = one.clone();
    twice.hard_negatives.clear();
    let twice = run(&[one.clone(), twice]);
    let once = run(&[one]);
    assert!((twice.0 - once.0).abs() < 1e-6 * once.0);
    assert!(apart(&twice.1, &once.1) < 1e-5);
}

fn train(encoders: Encoders, config: &ContrastiveConfig) -> (Encoders, ContrastiveReport) {
    train_contrastive(encoders, &examples(), &examples(), config).unwrap()
}

fn vectors(encoders: &Encoders) -> [Vec<f32>; 2] {
    let texts: Vec<_> = examples();
    let questions: Vec<&str> = texts.iter().map(|one| one.question.as_str()).collect();
    let passages: Vec<_> = texts.iter().map(|one| one.positives[0].clone()).collect();
    let questions = encoders.question().embed_questions(&questions).unwrap();
    let passages = encoders.context().embed_passages(&passages).unwrap();
    [questions, passages].map(|vectors| vectors.into_iter().collect())
}

#[test]
fn questions_learn_to_find_their_passages() {
    let _alone = alone();
    for before in encoders(0.1) {
        let (after, report) = train(before.clone(), &config());
        let heldout: Vec<_> = report.epochs.iter().filter_map(|one| one.heldout).collect();
        assert_eq!(heldout.len(), 20);
        assert!(heldout[0].accuracy < 0.9, "{:?}", heldout[0]);
        assert_eq!(heldout[19].accuracy, 1.0, "{report:?}");
        assert!(heldout[19].loss < 0.2 * heldout[0].loss, "{report:?}");

        let dimension = after.question().config().dimension();
        let [questions, passages] = vectors(&after);
        let [questions, passages] = [&questions, &passages].map(|all| all.chunks(dimension));
        for (i, question) in questions.enumerate() {
            let scores = passages.clone().map(|passage| {
                let products = question.iter().zip(passage).map(|(q, p)| q * p);
                products.sum::<f32>()
            });
            let best = scores.enumerate().max_by(|a, b| a.1.total_cmp(&b.1));
            assert_eq!(best.unwrap().0, i);
        }
        let fingerprint = |encoder: &TextEncoder| encoder.fingerprint().unwrap();
        let two = matches!(after, Encoders::Two { .. });
        let sides = [after.question(), after.context()].map(fingerprint);
        assert_ne!(sides[0], fingerprint(before.question()));
        assert_ne!(sides[1], fingerprint(before.context()));
        assert_eq!(sides[0] != sides[1], two);
    }
}

/// Scores of encoders with L2 normalization are cosines, too close to each other without a temperature.
#[test]
fn temperature_teaches_encoders_of_length_1() {
    let _alone = alone();
    let run = |temperature| {
        let mut config = small(0.1);
        config.normalization = Normalization::L2;
        let settings = ContrastiveConfig {
            temperature,
            ..self::config()
        };
        let (_, report) = train(Encoders::Shared(encoder_of(config)), &settings);
        report.epochs[19].heldout.unwrap()
    };
    let [cold, warm] = [0.05, 1.0].map(run);
    assert_eq!(cold.accuracy, 1.0);
    assert!(cold.loss < 0.5 * warm.loss, "{cold:?} {warm:?}");
}

#[test]
fn a_seed_gives_one_model() {
    let _alone = alone();
    let run = |encoders, seed| {
        let config = ContrastiveConfig {
            epochs: 2,
            seed,
            ..config()
        };
        let (encoders, report) = train(encoders, &config);
        (vectors(&encoders), report)
    };
    for encoders in encoders(0.1) {
        let first = run(encoders.clone(), 5);
        assert_eq!(first, run(encoders.clone(), 5));
        assert_ne!(first, run(encoders, 6));
    }
}

/// Without dropout; Adam turns rounding of gradients near zero into steps of the learning rate's size.
#[test]
fn micro_batches_do_not_matter() {
    let _alone = alone();
    for encoders in encoders(0.0) {
        let run = |micro_batch_size| {
            let config = ContrastiveConfig {
                epochs: 2,
                micro_batch_size,
                learning_rate: 1e-4,
                ..config()
            };
            train(encoders.clone(), &config).1.epochs
        };
        let whole = run(16);
        for micro in [1, 2] {
            for (some, all) in run(micro).iter().zip(&whole) {
                let losses = |one: &ContrastiveEpoch| [one.train.loss, one.heldout.unwrap().loss];
                for (some, all) in losses(some).into_iter().zip(losses(all)) {
                    assert!((some - all).abs() < 1e-4 * all, "{some} {all}");
                }
            }
        }
    }
}

#[test]
fn what_cannot_teach_is_refused() {
    let _alone = alone();
    let [shared, two] = encoders(0.0);
    let run = |examples: &[DprExample], config| {
        let config = ContrastiveConfig {
            epochs: 1,
            ..config
        };
        train_contrastive(shared.clone(), examples, &[], &config).map(|_| ())
    };
    let one_at_a_time = ContrastiveConfig {
        batch_size: 1,
        ..config()
    };
    let all = examples();
    assert!(matches!(run(&[], config()), Err(Error::NoExamples)));

    let alone = |result: Result<(), Error>| match result {
        Err(Error::NoNegatives { question }) => question,
        other => panic!("{other:?}"),
    };
    assert_eq!(alone(run(&all[3..4], config())), "明天是晴天吗？");
    assert_eq!(alone(run(&all, one_at_a_time.clone())), all[1].question);
    run(&all[2..3], one_at_a_time.clone()).unwrap();
    let none = ContrastiveConfig {
        hard_negatives: 0,
        ..one_at_a_time
    };
    alone(run(&all[2..3], none));

    let mut same = all.clone();
    for example in &mut same {
        example.positives[0] = all[0].positives[0].clone();
        example.hard_negatives = vec![all[0].positives[0].clone()];
    }
    alone(run(&same, config()));
    let heldout = train_contrastive(two, &all, &same, &config());
    alone(heldout.map(|_| ()));

    for (setting, config) in [
        (
            "temperature",
            ContrastiveConfig {
                temperature: 0.0,
                ..config()
            },
        ),
        (
            "batch_size",
            ContrastiveConfig {
                batch_size: 0,
                ..config()
            },
        ),
        (
            "warmup",
            ContrastiveConfig {
                warmup: f64::NAN,
                ..config()
            },
        ),
    ] {
        match run(&all, config) {
            Err(Error::Setting { setting: found, .. }) => assert_eq!(found, setting),
            other => panic!("{other:?}"),
        }
    }

    let mut narrower = small(0.0);
    narrower.bert.projection_dim = 5;
    let unlike = Encoders::Two {
        question: encoder_of(small(0.0)),
        context: encoder_of(narrower),
    };
    let refused = train_contrastive(unlike, &all, &[], &config());
    assert!(matches!(
        refused.map(|_| ()),
        Err(Error::Retrieve(burn_rag::retrieve::Error::Index(
            IndexError::Dimension { found: 5, .. }
        )))
    ));
}
