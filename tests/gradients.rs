//! The gradient in constant memory is that of one graph over all documents, with the same dropout masks.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;

use burn_rag::{
    burn::{
        module::{Module, ModuleVisitor, Param},
        optim::{GradientsAccumulator, GradientsParams},
        tensor::{Device, Int, Tensor, TensorData},
    },
    core::{
        TokenBatch,
        marginal::{Compat, RagModel, Targets},
        nn::Precision,
    },
    generate::RagConfig,
    train::{
        Activations, Backward, Batch, DropoutSeed, EncoderInput, JointModel, Objective, Prior,
        RetrieverLoss,
    },
};
use common::{
    KINDS, Kind, MODELS, Random, alone, checkpoint, config, context_encoder, cpu, without_dropout,
};

const QUESTIONS: usize = 2;
const N_DOCS: usize = 5;

type Gradients = BTreeMap<u64, Vec<f32>>;

fn model(kind: Kind, train_passages: bool) -> JointModel {
    of(config(kind), train_passages)
}

fn without_dropout_of(kind: Kind) -> JointModel {
    let mut config = config(kind);
    config.question_encoder.bert.hidden_dropout_prob = 0.0;
    config.question_encoder.bert.attention_probs_dropout_prob = 0.0;
    config.generator = without_dropout(&config.generator);
    of(config, false)
}

fn of(config: RagConfig, train_passages: bool) -> JointModel {
    let checkpoint = checkpoint(config, 3);
    JointModel {
        question_encoder: checkpoint.question_encoder,
        context_encoder: train_passages.then(|| context_encoder(7).encoder().clone()),
        prior: Some(Prior::new([0.7, 0.2, -0.3].into(), &cpu())),
        generator: checkpoint.generator,
    }
    .train()
}

fn tokens(random: &mut Random, rows: usize, vocabulary: u64, device: &Device) -> TokenBatch {
    let rows: Vec<Vec<u32>> = (0..rows)
        .map(|_| {
            (0..3 + random.below(9))
                .map(|_| 3 + random.below(vocabulary - 3) as u32)
                .collect()
        })
        .collect();
    TokenBatch::new(&rows, 0, device)
}

fn batch(device: &Device) -> Batch {
    let mut random = Random(11);
    let text = |random: &mut Random, rows| EncoderInput {
        tokens: tokens(random, rows, 40, device),
        segments: None,
    };
    let questions = text(&mut random, QUESTIONS);
    let passages = text(&mut random, QUESTIONS * N_DOCS);
    let mut numbers = |each: usize| {
        let values: Vec<f32> = (0..QUESTIONS * N_DOCS * each)
            .map(|_| random.unit())
            .collect();
        Tensor::<3>::from_data(TensorData::new(values, [QUESTIONS, N_DOCS, each]), device)
    };
    let (documents, signals) = (numbers(4), numbers(2));
    let answers = TokenBatch::new(&[vec![5_u32, 9, 7, 1], vec![8, 1]], 0, device);
    let [rows, length] = answers.dims();
    let start = Tensor::<2, Int>::zeros([rows, 1], device);
    Batch {
        questions,
        contexts: tokens(&mut random, QUESTIONS * N_DOCS, 60, device),
        documents,
        passages: Some(passages),
        signals: Some(signals),
        inputs: Tensor::cat(vec![start, answers.ids.clone().narrow(1, 0, length - 1)], 1),
        targets: Targets {
            ids: answers.ids,
            mask: answers.mask,
            exclude_bos_score: false,
        },
    }
}

fn collect(model: &JointModel, gradients: &GradientsParams) -> Gradients {
    struct Collect<'a>(&'a GradientsParams, Gradients);
    impl ModuleVisitor for Collect<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(gradient) = self.0.get::<D>(param.id) {
                let values = gradient.into_data().convert::<f32>();
                self.1
                    .insert(param.id.val(), values.iter::<f32>().collect());
            }
        }
    }
    let mut collect = Collect(gradients, BTreeMap::new());
    model.visit(&mut collect);
    collect.1
}

/// Gradients and losses of both ways.
fn both_ways(
    model: &JointModel,
    batch: &Batch,
    objective: Objective,
    documents: Option<usize>,
) -> [(Gradients, Vec<f32>); 2] {
    let seed = DropoutSeed::new(1, 2, 3);
    let questions = || model.question_vectors(&batch.questions, Precision::F32, seed);
    let (losses, joint) = objective.joint(model, batch, questions(), documents, seed);
    let mut gradients = losses.total().sum().backward();
    let gradients = GradientsParams::from_module(&mut gradients, model);
    let losses = |losses: Tensor<1>| losses.into_data().iter::<f32>().collect::<Vec<_>>();

    let backward = Backward {
        documents_at_a_time: documents,
        weight: 1.0,
        seed,
    };
    let mut accumulator = GradientsAccumulator::new();
    let beliefs = objective.backward(model, batch, questions(), backward, |loss| {
        let gradients = GradientsParams::from_module(&mut loss.backward(), model);
        accumulator.accumulate(model, gradients);
    });
    [
        (collect(model, &gradients), losses(joint.losses)),
        (collect(model, &accumulator.grads()), losses(beliefs.losses)),
    ]
}

fn norm(values: impl Iterator<Item = f32>) -> f64 {
    values
        .map(|value| f64::from(value).powi(2))
        .sum::<f64>()
        .sqrt()
}

/// Of `documents` at a time, and of all of them.
fn assert_same(model: &JointModel, batch: &Batch, objective: Objective, documents: usize) {
    for documents in [Some(documents), None] {
        assert_same_at_a_time(model, batch, objective, documents);
    }
}

fn assert_same_at_a_time(
    model: &JointModel,
    batch: &Batch,
    objective: Objective,
    documents: Option<usize>,
) {
    let [(joint, losses), (constant, again)] = both_ways(model, batch, objective, documents);
    let case = format!("{objective:?}, {documents:?} at a time");
    for (a, b) in losses.iter().zip(&again) {
        assert!((a - b).abs() < 1e-4 * a.abs().max(1.0), "{a} {b}: {case}");
    }
    assert_eq!(
        joint.keys().collect::<Vec<_>>(),
        constant.keys().collect::<Vec<_>>(),
        "{case}"
    );
    let whole = norm(joint.values().flatten().copied());
    for (id, joint) in &joint {
        let apart = norm(joint.iter().zip(&constant[id]).map(|(a, b)| a - b));
        let size = norm(joint.iter().copied());
        // A gradient that is zero but for rounding has no direction of its own.
        assert!(
            apart <= 1e-4 * size.max(1e-3 * whole),
            "{id}: {apart} of {size} ({whole}): {case}"
        );
    }
}

#[test]
fn constant_memory_has_the_gradient_of_the_joint_graph_with_dropout() {
    let _alone = alone();
    let batch = batch(&cpu().autodiff());
    for kind in KINDS {
        let model = model(kind, true);
        for rag_model in MODELS {
            for compat in [Compat::Paper, Compat::HuggingFace] {
                for label_smoothing in [0.0, 0.1] {
                    let objective = Objective {
                        model: rag_model,
                        compat,
                        label_smoothing,
                        ..Objective::default()
                    };
                    for documents in [1, 2] {
                        assert_same(&model, &batch, objective, documents);
                    }
                }
            }
        }
    }
}

/// What stands behind the end of a context or of an answer does not reach the loss, whichever token it is: an answer's
/// tokens are all that counts.
#[test]
fn padding_changes_neither_loss_nor_gradient() {
    let _alone = alone();
    let device = cpu().autodiff();
    let batch = batch(&device);
    let behind = |tokens: &Tensor<2, Int>, id: i64| {
        let more = Tensor::full([tokens.dims()[0], 3], id, &device);
        Tensor::cat(vec![tokens.clone(), more], 1)
    };
    let mut padded = batch.clone();
    padded.contexts = TokenBatch {
        ids: behind(&batch.contexts.ids, 7),
        mask: behind(&batch.contexts.mask, 0),
    };
    padded.inputs = behind(&batch.inputs, 7);
    padded.targets.ids = behind(&batch.targets.ids, 9);
    padded.targets.mask = behind(&batch.targets.mask, 0);
    for kind in KINDS {
        // Dropout would draw for the padding, too.
        let model = without_dropout_of(kind);
        for rag_model in MODELS {
            let objective = Objective {
                model: rag_model,
                ..Objective::default()
            };
            let [(expected, losses), _] = both_ways(&model, &batch, objective, None);
            let [(found, again), _] = both_ways(&model, &padded, objective, None);
            for (loss, again) in losses.iter().zip(&again) {
                let apart = (loss - again).abs();
                assert!(apart < 1e-5 * loss.abs(), "{kind:?}: {loss} {again}");
            }
            let whole = norm(expected.values().flatten().copied());
            for (id, expected) in &expected {
                let apart = norm(expected.iter().zip(&found[id]).map(|(a, b)| a - b));
                assert!(apart < 1e-5 * whole, "{kind:?}: {id}: {apart} ({whole})");
            }
        }
    }
}

#[test]
fn every_retriever_loss_and_a_frozen_passage_encoder_as_well() {
    let _alone = alone();
    let batch = batch(&cpu().autodiff());
    let losses = [
        RetrieverLoss::Marginal,
        RetrieverLoss::Emdr2,
        RetrieverLoss::PerplexityDistillation { temperature: 0.5 },
    ];
    for train_passages in [false, true] {
        let model = model(Kind::T5, train_passages);
        for retriever in losses {
            for rag_model in MODELS {
                let objective = Objective {
                    model: rag_model,
                    label_smoothing: 0.1,
                    retriever,
                    ..Objective::default()
                };
                assert_same(&model, &batch, objective, 2);
            }
        }
    }
}

#[test]
fn activation_checkpointing_changes_nothing() {
    let _alone = alone();
    for kind in [Kind::Bart, Kind::T5] {
        let model = model(kind, true);
        let gradients = |activations: Activations| {
            let model = activations.of(model.clone());
            let batch = batch(&model.generator.device());
            let objective = Objective::default();
            let [(joint, _), (constant, _)] = both_ways(&model, &batch, objective, Some(2));
            [joint, constant].map(|gradients| gradients.into_values().flatten().collect::<Vec<_>>())
        };
        let kept = gradients(Activations::Kept);
        let recomputed = gradients(Activations::Recomputed);
        for (kept, recomputed) in kept.iter().zip(&recomputed) {
            let apart = norm(kept.iter().zip(recomputed).map(|(a, b)| a - b));
            assert!(apart <= 1e-5 * norm(kept.iter().copied()), "{apart}");
        }
    }
}

/// For RAG-Sequence EMDR² teaches the retriever what the marginal likelihood does.
#[test]
fn emdr2_is_the_marginal_likelihood_of_rag_sequence() {
    let _alone = alone();
    let batch = batch(&cpu().autodiff());
    let model = model(Kind::T5, true);
    let gradients = |rag_model, retriever| {
        let objective = Objective {
            model: rag_model,
            retriever,
            ..Objective::default()
        };
        let [(joint, _), _] = both_ways(&model, &batch, objective, Some(N_DOCS));
        joint.into_values().flatten().collect::<Vec<_>>()
    };
    let apart = |rag_model| {
        let marginal = gradients(rag_model, RetrieverLoss::Marginal);
        let emdr2 = gradients(rag_model, RetrieverLoss::Emdr2);
        norm(marginal.iter().zip(&emdr2).map(|(a, b)| a - b)) / norm(marginal.iter().copied())
    };
    assert!(apart(RagModel::Sequence) < 1e-5);
    assert!(apart(RagModel::Token) > 1e-4);
}
