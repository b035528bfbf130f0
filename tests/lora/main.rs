//! LoRA on tiny models.

#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
mod peft;

use std::collections::BTreeMap;

use burn_rag::{
    burn::{
        module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId},
        optim::GradientsParams,
        tensor::{Int, Tensor, TensorData},
    },
    core::TokenBatch,
    generate::generator::Generator,
    prelude::*,
    train::{
        Activations, Error, gradients,
        lora::{self, Lora, LoraConfig, Scaling},
    },
};
use common::{KINDS, Kind, MODELS, QUESTIONS, Random, cpu, rag_with, without_dropout};

/// Without dropout, so that the loss of a step says what the steps before it did.
fn rag(kind: Kind) -> Rag {
    let mut config = common::config(kind);
    config.question_encoder.bert.hidden_dropout_prob = 0.0;
    config.question_encoder.bert.attention_probs_dropout_prob = 0.0;
    config.generator = without_dropout(&config.generator);
    rag_with(kind, common::checkpoint(config, 1))
}

/// Adapters on every projection.
fn everywhere(kind: Kind) -> Lora {
    let config = |targets: &str| LoraConfig {
        rank: 4,
        alpha: 6.0,
        target_modules: Some(targets.split(' ').map(str::to_owned).collect()),
        ..LoraConfig::default()
    };
    Lora {
        generator: Some(config(kind.projections)),
        question_encoder: Some(LoraConfig {
            scaling: Scaling::RootOfRank,
            ..config("query key value dense encode_proj")
        }),
    }
}

/// The model of `lora`, with factors from -0.5 to 0.5.
fn adapted(lora: &Lora, rag: Rag) -> Rag {
    struct Fill {
        random: Random,
        in_adapter: bool,
    }
    impl ModuleMapper for Fill {
        fn enter_module(&mut self, name: &str, _container_type: &str) {
            self.in_adapter |= name == "lora";
        }
        fn exit_module(&mut self, name: &str, _container_type: &str) {
            self.in_adapter &= name != "lora";
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            if !self.in_adapter {
                return param;
            }
            param.map(|factor| {
                let shape = factor.shape();
                let drawn = (0..shape.num_elements()).map(|_| 0.5 * self.random.unit());
                Tensor::from_data(TensorData::new(drawn.collect::<Vec<f32>>(), shape), &cpu())
            })
        }
    }
    let mut fill = Fill {
        random: Random(5),
        in_adapter: false,
    };
    let mut rag = lora.apply(rag).unwrap();
    let question = rag.retriever.question_text_encoder().unwrap();
    let question = question.with_encoder(question.encoder().clone().map(&mut fill));
    rag.retriever = rag.retriever.clone().with_question_encoder(question);
    let generator = rag.generator().clone().map(&mut fill);
    rag.with_generator(generator).unwrap()
}

fn ids(rows: &[Vec<i64>], device: &Device) -> Tensor<2, Int> {
    let shape = [rows.len(), rows[0].len()];
    Tensor::from_data(TensorData::new(rows.concat(), shape), device)
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.try_into_vec_as().unwrap()
}

const CONTEXTS: [[i64; 7]; 2] = [[9, 14, 33, 7, 21, 2, 11], [30, 5, 41, 8, 1, 1, 1]];
const DECODED: [[i64; 4]; 2] = [[2, 17, 29, 8], [2, 12, 6, 38]];

fn mask(generator: bool) -> Vec<Vec<i64>> {
    let tokens = if generator { [7, 4] } else { [7, 5] };
    let row = |tokens| (0..7).map(|i| i64::from(i < tokens)).collect();
    tokens.map(row).to_vec()
}

fn tokens(generator: bool, device: &Device) -> TokenBatch {
    TokenBatch {
        ids: ids(&CONTEXTS.map(Vec::from), device),
        mask: ids(&mask(generator), device),
    }
}

/// Of `DECODED` after `CONTEXTS`.
fn logits(generator: &Generator) -> Tensor<3> {
    let device = generator.device();
    let memory = generator.encode(&tokens(true, &device), Precision::F32);
    let decoded = ids(&DECODED.map(Vec::from), &device);
    generator.decode(decoded, &memory, &mut Default::default(), Precision::F32)
}

/// The outputs of both models for fixed tokens.
fn outputs(rag: &Rag) -> [Vec<f32>; 2] {
    let encoder = rag.retriever.question_text_encoder().unwrap().encoder();
    let vectors = encoder.forward(&tokens(false, &cpu()), None, Precision::F32);
    [values(logits(rag.generator())), values(vectors)]
}

/// The largest difference, relative where numbers are larger than 1.
fn difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let pairs = found.iter().zip(expected);
    let apart = pairs.map(|(found, expected)| (found - expected).abs() / expected.abs().max(1.0));
    apart.fold(0.0, |most, apart| {
        if apart > most || apart.is_nan() {
            apart
        } else {
            most
        }
    })
}

/// Every parameter's stored bits: a weight's without its adapter, which follow by themselves.
fn parameters(rag: &Rag) -> BTreeMap<ParamId, Vec<u32>> {
    #[derive(Default)]
    struct Bits(BTreeMap<ParamId, Vec<u32>>);
    impl ModuleVisitor for Bits {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let bits = values(param.base()).into_iter().map(f32::to_bits);
            self.0.insert(param.id, bits.collect());
        }
    }
    let mut bits = Bits::default();
    rag.generator().visit(&mut bits);
    rag.retriever
        .question_text_encoder()
        .unwrap()
        .encoder()
        .visit(&mut bits);
    bits.0
}

#[test]
fn new_adapters_change_nothing_and_others_merge_into_the_weights() {
    for kind in KINDS {
        let base = rag(kind);
        let lora = everywhere(kind);
        assert_eq!(outputs(&lora.apply(base.clone()).unwrap()), outputs(&base));

        let applied = adapted(&lora, base.clone());
        let merged = lora::merge(applied.clone());
        assert_eq!(parameters(&merged).len(), parameters(&base).len());
        for (merged, applied) in outputs(&merged).iter().zip(outputs(&applied)) {
            assert!(difference(merged, &applied) < 1e-5);
        }
        for (base, applied) in outputs(&base).iter().zip(outputs(&applied)) {
            assert!(difference(base, &applied) > 1e-2);
        }
    }
}

/// A folder of a model with adapters, as a trainer's checkpoint is, holds the merged weights.
#[test]
fn checkpoints_are_merged_and_ordinary() {
    for kind in [Kind::Bart, Kind::Llama, Kind::Qwen3] {
        let applied = adapted(&everywhere(kind), rag(kind));
        let merged = lora::merge(applied.clone());
        let folder = tempfile::tempdir().unwrap();
        for (name, rag) in [("applied", &applied), ("merged", &merged)] {
            let folder = folder.path().join(name);
            rag.save(&folder).unwrap();
            let knowledge = rag.retriever.local().unwrap().clone();
            let loaded = Rag::load(&folder, knowledge, &cpu()).unwrap();
            assert_eq!(outputs(&loaded), outputs(&merged), "{kind:?}");
        }
    }
}

#[test]
fn answers_come_with_adapters_and_merged_alike() {
    for kind in KINDS {
        for model in MODELS {
            let applied = adapted(&everywhere(kind), rag(kind)).with_model(model);
            let merged = lora::merge(applied.clone());
            for question in QUESTIONS {
                let [a, b] = [&applied, &merged].map(|rag| rag.ask(question).unwrap());
                assert_eq!(a.text, b.text);
                common::assert_close(a.log_likelihood, b.log_likelihood, 1e-3);
            }
        }
    }
}

/// 6 attentions of BART (2 layers, 2 with cross-attention) and 2 of BERT, each with adapters of rank 8
/// on queries and values, which are `[32, 32]`.
#[test]
fn parameters_that_train_are_counted() {
    let base = rag(Kind::Bart);
    let count = |rag: &Rag| {
        let encoder = rag.retriever.question_text_encoder().unwrap().encoder();
        [lora::trainable(rag.generator()), lora::trainable(encoder)]
    };
    let [generator, encoder] = count(&base);
    let applied = Lora::default().apply(base.clone()).unwrap();
    let factors = 2 * 8 * (32 + 32);
    let expected = [
        (6 * factors, generator.1 + 6 * factors),
        (2 * factors, encoder.1 + 2 * factors),
    ];
    assert_eq!(count(&applied), expected);
    // BART's constant bias does not train.
    let constant = base.config().generator.vocabulary();
    assert_eq!(
        [generator.0, encoder.0],
        [generator.1 - constant, encoder.1]
    );
    assert_eq!(count(&lora::merge(applied)), [generator, encoder]);

    let only = Lora {
        generator: None,
        ..Lora::default()
    };
    let [generator, encoder] = count(&only.apply(base).unwrap());
    assert_eq!((generator.0, encoder.0), (0, 2 * factors));

    // 2 layers, whose values are `[16, 32]`: half as many heads.
    let base = rag(Kind::Llama);
    let [all, _] = count(&base);
    assert_eq!(all.0, all.1);
    let factors = 2 * 8 * ((32 + 32) + (16 + 32));
    let [generator, _] = count(&Lora::default().apply(base).unwrap());
    assert_eq!(generator, (factors, all.1 + factors));
}

fn pairs() -> Vec<QuestionAnswer> {
    [
        ("who wrote hamlet?", "who"),
        ("is it raining in the city?", "rain"),
        ("下雨了吗？", "雨"),
    ]
    .map(|(question, answer)| QuestionAnswer::new(question, answer))
    .to_vec()
}

/// Weight decay, the moments of AdamW and clipping reach the factors only.
#[test]
fn the_loss_falls_and_the_base_keeps_every_bit() {
    for kind in KINDS {
        let config = TrainConfig {
            batch_size: 3,
            micro_batch_size: 2,
            learning_rate: 2e-2,
            warmup: 0.0,
            weight_decay: 0.1,
            max_gradient_norm: 1.0,
            ..TrainConfig::default()
        };
        let base = rag(kind);
        let applied = everywhere(kind).apply(base.clone()).unwrap();
        let pairs = pairs();
        let mut trainer = Trainer::new(applied.clone(), config)
            .unwrap()
            .with_steps(10);
        let pairs: Vec<_> = pairs.iter().collect();
        let steps: Vec<_> = (0..8).map(|_| trainer.step(&pairs).unwrap()).collect();
        assert!(steps[7].loss < 0.9 * steps[0].loss, "{kind:?} {steps:?}");
        assert!(steps.iter().all(|step| step.gradient_norm > 0.0));

        let [base, before, after] = [&base, &applied, &trainer.rag()].map(parameters);
        assert_eq!(before.len(), after.len());
        for (id, bits) in &before {
            let moved = bits != &after[id];
            assert_eq!(
                moved,
                !base.contains_key(id),
                "{kind:?}: {id} has {} values",
                bits.len()
            );
        }
    }
}

/// Weights that are sums of a frozen one and its factors' product are computed again, too.
#[test]
fn recomputed_activations_change_nothing() {
    for kind in KINDS {
        let losses = [Activations::Kept, Activations::Recomputed].map(|activations| {
            let config = TrainConfig {
                batch_size: 3,
                learning_rate: 2e-2,
                warmup: 0.0,
                activations,
                ..TrainConfig::default()
            };
            let applied = adapted(&everywhere(kind), rag(kind));
            let pairs = pairs();
            let mut trainer = Trainer::new(applied, config).unwrap().with_steps(10);
            let pairs: Vec<_> = pairs.iter().collect();
            (0..4)
                .map(|_| trainer.step(&pairs).unwrap().loss)
                .collect::<Vec<_>>()
        });
        let [kept, recomputed] = &losses;
        assert!(kept[3] < kept[0], "{kind:?} {losses:?}");
        for (kept, recomputed) in kept.iter().zip(recomputed) {
            assert!(
                (kept - recomputed).abs() < 1e-4 * kept,
                "{kind:?} {losses:?}"
            );
        }
    }
}

/// The norm that clips is that of the factors' gradients.
#[test]
fn gradients_are_those_of_the_factors() {
    let base = rag(Kind::Bart);
    let frozen = parameters(&base);
    let applied = adapted(&everywhere(Kind::Bart), base);
    let factors: Vec<_> = parameters(&applied).into_keys().collect();
    let model = applied.generator().clone().train();
    let loss = logits(&model).square().mean();
    let mut found = GradientsParams::from_grads(loss.backward(), &model);
    let mut squares = 0.0;
    let mut count = 0;
    for id in factors.into_iter().filter(|id| !frozen.contains_key(id)) {
        if let Some(gradient) = found.get::<2>(id) {
            squares += f64::from(gradient.square().sum().into_scalar::<f32>());
            count += 1;
        }
    }
    // 2 factors on the 4 projections of 6 attentions and the 2 of 4 feed-forwards.
    assert_eq!((count, found.len()), (2 * (6 * 4 + 4 * 2), count));
    let norm = gradients::global_norm(&model, &found);
    assert!(
        (norm - squares.sqrt()).abs() < 1e-4 * norm,
        "{norm} {squares}"
    );
    gradients::scale(&model, &mut found, 0.5);
    let halved = gradients::global_norm(&model, &found);
    assert!((halved - 0.5 * norm).abs() < 1e-4 * norm, "{norm} {halved}");
}

#[test]
fn projections_that_a_model_does_not_have_are_refused() {
    let with = |target: &str| Lora {
        generator: Some(LoraConfig {
            target_modules: Some(vec!["q_proj".into(), target.into()]),
            ..LoraConfig::default()
        }),
        question_encoder: None,
    };
    // An embedding, another model's name, a part of a name.
    for target in ["shared", "SelfAttention.q", "proj", ""] {
        let error = with(target).apply(rag(Kind::Bart)).unwrap_err();
        let Error::TargetModules {
            part,
            found,
            available,
        } = &error
        else {
            panic!("{error}");
        };
        assert_eq!((*part, found.as_str()), ("generator", target));
        assert_eq!(available, "fc1, fc2, k_proj, out_proj, q_proj, v_proj");
    }
    for target in [
        "fc1",
        "encoder_attn.k_proj",
        "model.decoder.layers.0.self_attn.v_proj",
    ] {
        with(target).apply(rag(Kind::Bart)).unwrap();
    }
    // The word embeddings are no projection where they are the head, and a norm never is.
    for target in ["lm_head", "embed_tokens", "q_norm", "out_proj"] {
        let error = with(target).apply(rag(Kind::Llama)).unwrap_err();
        let Error::TargetModules { available, .. } = &error else {
            panic!("{error}");
        };
        let names = "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj";
        assert_eq!(available, names);
    }
    for target in [
        "mlp.gate_proj",
        "lm_head",
        "model.layers.1.self_attn.o_proj",
    ] {
        with(target).apply(rag(Kind::Qwen3)).unwrap();
    }
    let refused = |config: LoraConfig, name: &str| {
        let lora = Lora {
            question_encoder: Some(config),
            ..Lora::default()
        };
        let error = lora.apply(rag(Kind::Bart)).unwrap_err();
        assert!(
            matches!(&error, Error::Setting { setting, .. } if *setting == name),
            "{error}"
        );
    };
    let config = LoraConfig::default;
    refused(
        LoraConfig {
            rank: 0,
            ..config()
        },
        "rank",
    );
    refused(
        LoraConfig {
            alpha: f64::NAN,
            ..config()
        },
        "alpha",
    );
    refused(
        LoraConfig {
            target_modules: Some(Vec::new()),
            ..config()
        },
        "target_modules",
    );
}

#[test]
fn adapters_of_other_settings_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let lora = Lora::default();
    let base = rag(Kind::T5);
    let applied = lora.apply(base.clone()).unwrap();
    let other = |config: LoraConfig| Lora {
        generator: Some(config),
        ..Lora::default()
    };
    let rank = other(LoraConfig {
        rank: 4,
        ..LoraConfig::default()
    });
    let targets = Some(vec!["q".to_owned()]);
    let targets = other(LoraConfig {
        target_modules: targets,
        ..LoraConfig::default()
    });
    let none = Lora {
        generator: None,
        ..Lora::default()
    };
    let path = folder.path().join("adapters");
    let refused = [
        lora.apply(applied.clone()).err(),
        lora.save(&base, &path).err(),
        rank.save(&applied, &path).err(),
        targets.save(&applied, &path).err(),
        none.save(&applied, &path).err(),
    ];
    for error in refused {
        let error = error.unwrap();
        assert!(
            matches!(
                error,
                Error::Adapters {
                    part: "generator",
                    ..
                }
            ),
            "{error}"
        );
    }
    assert!(!path.exists());
    lora.save(&applied, &path).unwrap();
    let error = Lora::load(&path, applied).unwrap_err();
    assert!(matches!(error, Error::Adapters { .. }), "{error}");
}
