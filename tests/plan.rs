//! The memory that training takes, planned and measured.

// Long because: each setting is measured by the same allocator, which one process can have once.

#![allow(clippy::unwrap_used)]

#[path = "common/counting.rs"]
mod counting;

use burn_rag::{
    burn::{
        module::Module,
        optim::AdamWConfig,
        tensor::{Device, Distribution, Tensor},
    },
    core::{
        TokenBatch,
        marginal::{RagModel, Targets},
        nn::LinearConfig,
    },
    generate::{
        RagConfig,
        generator::{
            BartConfig, CausalConfig, GeneratorConfig, T5Config,
            fixtures::{self, Fixture, Tiny},
        },
    },
    prelude::*,
    retrieve::{EncoderConfig, encoder::BertConfig},
    train::{
        Accumulation, Activations, Backward, Batch, DropoutSeed, EncoderInput, Error, JointModel,
        LossScaler, Objective, Optimizer, OptimizerKind,
        plan::{Component, PlanSettings, Vary, plan},
    },
};
use counting::{alone, peak_of};

/// How far a plan may be from what is measured, as a share of it.
const TOLERANCE: f64 = 0.1;

fn cpu() -> Device {
    device("cpu").unwrap()
}

fn bert() -> EncoderConfig {
    EncoderConfig {
        bert: BertConfig {
            model_type: "dpr".into(),
            vocab_size: 500,
            hidden_size: 64,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            intermediate_size: 128,
            max_position_embeddings: 64,
            ..BertConfig::default()
        },
        ..EncoderConfig::default()
    }
}

fn bart(vocabulary: usize) -> BartConfig {
    BartConfig {
        vocab_size: vocabulary,
        d_model: 64,
        encoder_layers: 2,
        decoder_layers: 2,
        encoder_attention_heads: 4,
        decoder_attention_heads: 4,
        encoder_ffn_dim: 256,
        decoder_ffn_dim: 256,
        max_position_embeddings: 128,
        ..BartConfig::default()
    }
}

fn t5(vocabulary: usize) -> T5Config {
    T5Config {
        vocab_size: vocabulary,
        d_model: 64,
        d_kv: 16,
        d_ff: 256,
        num_layers: 2,
        num_heads: 4,
        ..T5Config::default()
    }
}

fn gated(vocabulary: usize) -> T5Config {
    T5Config {
        feed_forward_proj: "gated-gelu".into(),
        tie_word_embeddings: false,
        ..t5(vocabulary)
    }
}

fn with_bart(bart: BartConfig) -> RagConfig {
    RagConfig::new(RagModel::Sequence, bert(), GeneratorConfig::Bart(bart))
}

fn with_t5(t5: T5Config) -> RagConfig {
    RagConfig::new(RagModel::Token, bert(), GeneratorConfig::T5(t5))
}

/// A decoder alone.
fn with(fixture: Fixture, vocabulary: usize) -> RagConfig {
    let tiny = Tiny {
        vocabulary,
        d_model: 64,
        heads: 4,
        hidden: 256,
        encoder_layers: 0,
        decoder_layers: 3,
        positions: 256,
    };
    RagConfig::new(RagModel::Token, bert(), (fixture.config)(tiny))
}

fn settings(batch: usize, n_docs: usize, context: usize, answer: usize) -> PlanSettings {
    PlanSettings {
        batch,
        n_docs,
        context_length: context,
        question_length: 16,
        answer_length: answer,
        ..PlanSettings::default()
    }
}

fn autodiff(settings: &PlanSettings) -> Device {
    match settings.activations {
        Activations::Kept => cpu().autodiff(),
        Activations::Recomputed => cpu().autodiff().gradient_checkpointing(),
    }
}

fn model(config: &RagConfig, settings: &PlanSettings) -> JointModel {
    let device = autodiff(settings);
    let encoder = || config.question_encoder.init(&device).unwrap();
    let passages = settings.trained.contains(&Component::ContextEncoder);
    JointModel {
        question_encoder: encoder(),
        context_encoder: passages.then(encoder),
        prior: None,
        generator: config.generator.init(&device).unwrap(),
    }
    .train()
}

/// Full-length texts of one token, as many as `settings` says.
fn batch(config: &RagConfig, settings: &PlanSettings) -> Batch {
    let device = autodiff(settings);
    let texts = |rows: usize, length: usize| {
        let ids = vec![vec![7_u32; length]; rows];
        TokenBatch::new(&ids, config.generator.pad(), &device)
    };
    let answers = texts(settings.batch, settings.answer_length);
    let documents = [
        settings.batch,
        settings.n_docs,
        config.question_encoder.dimension(),
    ];
    Batch {
        questions: EncoderInput {
            tokens: texts(settings.batch, settings.question_length),
            segments: None,
        },
        passages: Some(EncoderInput {
            tokens: texts(settings.batch * settings.n_docs, settings.context_length),
            segments: None,
        }),
        signals: None,
        contexts: texts(settings.batch * settings.n_docs, settings.context_length),
        documents: Tensor::random(documents, Distribution::Default, &device),
        inputs: answers.ids.clone(),
        targets: Targets {
            ids: answers.ids,
            mask: answers.mask,
            exclude_bos_score: false,
        },
    }
}

/// Sums the gradients of all micro-batches of a step.
fn gradients(
    model: &JointModel,
    optimizer: &Optimizer,
    batch: &Batch,
    settings: &PlanSettings,
) -> Accumulation<JointModel> {
    let objective = Objective {
        precision: settings.precision,
        ..Objective::default()
    };
    let mut sum = Accumulation::default();
    for _ in 0..settings.micro_batches {
        let seed = DropoutSeed::default();
        let questions = model.question_vectors(&batch.questions, objective.precision, seed);
        let backward = Backward {
            documents_at_a_time: None,
            weight: 1.0,
            seed,
        };
        objective.backward(model, batch, questions, backward, |loss| {
            optimizer.accumulate(model, loss, &mut sum);
        });
    }
    sum
}

fn optimizer() -> Optimizer {
    Optimizer::new(
        AdamWConfig::new().init(),
        1.0,
        LossScaler::new(Precision::F32),
    )
}

fn without_dropout(mut config: RagConfig) -> RagConfig {
    config.question_encoder.bert.hidden_dropout_prob = 0.0;
    config.question_encoder.bert.attention_probs_dropout_prob = 0.0;
    config.generator = fixtures::without_dropout(&config.generator);
    config
}

fn prenorm(vocabulary: usize) -> BartConfig {
    BartConfig {
        normalize_before: true,
        add_final_layer_norm: true,
        attention_dropout: 0.1,
        activation_dropout: 0.1,
        activation_function: "relu".into(),
        ..bart(vocabulary)
    }
}

/// How far the planned peak of a backward pass is from the measured one, as a share of it.
fn error(config: &RagConfig, settings: &PlanSettings) -> f64 {
    let planned = plan(config, settings, &cpu()).unwrap().backward as f64;
    let (model, batch) = (model(config, settings), batch(config, settings));
    let optimizer = optimizer();
    // The first pass initialises the parameters.
    drop(gradients(&model, &optimizer, &batch, settings));
    let measured = peak_of(|| drop(gradients(&model, &optimizer, &batch, settings))) as f64;
    let error = planned / measured - 1.0;
    println!(
        "{} x {} contexts of {:>3}, answers of {:>2}, vocabulary {:>5}, {:?}, activations {:?}: \
         planned {:.2} MiB, measured {:.2} MiB, {:+.1} %",
        settings.batch,
        settings.n_docs,
        settings.context_length,
        settings.answer_length,
        config.generator.vocabulary(),
        settings.precision,
        settings.activations,
        planned / 2_f64.powi(20),
        measured / 2_f64.powi(20),
        100.0 * error
    );
    error.abs()
}

fn cases() -> Vec<(RagConfig, PlanSettings)> {
    let bf16 = |settings| PlanSettings {
        precision: Precision::Bf16,
        ..settings
    };
    let accumulating = |settings| PlanSettings {
        micro_batches: 3,
        ..settings
    };
    let both = |settings| PlanSettings {
        trained: vec![
            Component::QuestionEncoder,
            Component::ContextEncoder,
            Component::Generator,
        ],
        ..settings
    };
    let untied = BartConfig {
        tie_word_embeddings: false,
        ..prenorm(500)
    };
    vec![
        (with_bart(bart(500)), settings(2, 1, 32, 8)),
        (with_bart(bart(500)), settings(2, 4, 96, 12)),
        (with_bart(bart(500)), settings(4, 2, 32, 64)),
        (with_bart(bart(500)), bf16(settings(2, 4, 96, 12))),
        (with_bart(bart(8_000)), settings(2, 5, 48, 16)),
        (with_bart(bart(8_000)), settings(1, 8, 128, 4)),
        (with_bart(bart(8_000)), accumulating(settings(1, 2, 48, 16))),
        (with_bart(bart(8_000)), bf16(settings(2, 5, 48, 16))),
        (with_bart(bart(8_000)), both(settings(2, 4, 48, 8))),
        (with_bart(bart(500)), both(settings(2, 6, 64, 8))),
        (with_bart(untied), settings(2, 4, 64, 24)),
        (
            without_dropout(with_bart(bart(500))),
            settings(2, 4, 96, 12),
        ),
        (with_t5(t5(500)), settings(2, 8, 64, 16)),
        (with_t5(t5(500)), bf16(settings(2, 8, 64, 16))),
        (with_t5(t5(8_000)), settings(4, 2, 48, 16)),
        (with_t5(gated(500)), settings(2, 4, 64, 16)),
        (with_t5(gated(8_000)), settings(1, 1, 128, 8)),
        (without_dropout(with_t5(gated(500))), settings(2, 4, 64, 16)),
        (with(Fixture::Llama, 500), settings(2, 1, 32, 8)),
        (with(Fixture::Llama, 500), settings(2, 4, 96, 12)),
        (with(Fixture::Llama, 500), settings(4, 2, 32, 64)),
        (with(Fixture::Llama, 500), bf16(settings(2, 4, 96, 12))),
        (with(Fixture::Llama, 8_000), settings(1, 8, 128, 4)),
        (
            with(Fixture::Llama, 8_000),
            accumulating(settings(1, 2, 48, 16)),
        ),
        (with(Fixture::Llama, 8_000), both(settings(2, 4, 48, 8))),
        (with(Fixture::Qwen2, 8_000), bf16(settings(2, 5, 48, 16))),
        (with(Fixture::Qwen3, 500), settings(2, 4, 96, 12)),
        (with(Fixture::Qwen3, 500), bf16(settings(2, 4, 64, 16))),
        (with(Fixture::Qwen3, 8_000), settings(2, 5, 48, 16)),
        (with(Fixture::Gemma2, 500), settings(2, 4, 96, 12)),
        (with(Fixture::Gemma2, 500), bf16(settings(2, 4, 64, 16))),
        (with(Fixture::Gemma2, 8_000), settings(2, 5, 48, 16)),
        (with(Fixture::Gemma3, 500), settings(2, 4, 96, 12)),
        (with(Fixture::Gemma3, 8_000), bf16(settings(2, 5, 48, 16))),
    ]
}

#[test]
fn the_backward_pass_is_as_planned() {
    let _alone = alone();
    let errors = (cases().into_iter()).map(|(config, settings)| error(&config, &settings));
    assert!(errors.fold(0.0, f64::max) < TOLERANCE);
}

#[test]
fn a_backward_pass_that_recomputes_is_as_planned() {
    let _alone = alone();
    let errors = cases().into_iter().map(|(config, settings)| {
        let activations = Activations::Recomputed;
        let settings = PlanSettings {
            activations,
            ..settings
        };
        error(&config, &settings)
    });
    assert!(errors.fold(0.0, f64::max) < TOLERANCE);
}

/// A pass without gradients, as those that weigh documents, leaves nothing behind.
#[test]
fn what_has_no_gradient_is_not_kept() {
    let _alone = alone();
    let device = cpu().autodiff().gradient_checkpointing();
    let layer = LinearConfig::new(64, 64).init(&device);
    let layer = layer.set_require_grad(false);
    let states = Tensor::<2>::ones([512, 64], &device);
    let forward = || {
        let layers = 0..20;
        layers.fold(states.clone(), |states, _| {
            layer.forward(states, Precision::F32)
        })
    };
    drop(forward());
    let peak = peak_of(|| drop(forward()));
    assert!(peak < 4 * 512 * 64 * 4, "{peak} bytes");
}

/// With a part of the documents at a time, the graph of a part is made while the gradients of the
/// parts before it are held: as micro-batches of fewer documents are.
#[test]
fn documents_at_a_time_are_micro_batches_of_fewer_documents() {
    let _alone = alone();
    let config = with_bart(bart(8_000));
    let planned = |settings: &PlanSettings| plan(&config, settings, &cpu()).unwrap().backward;
    let all = settings(2, 8, 96, 16);
    let two_at_a_time = PlanSettings {
        documents_at_a_time: Some(2),
        ..all.clone()
    };
    let of_two = PlanSettings {
        n_docs: 2,
        micro_batches: 4,
        ..all.clone()
    };
    assert_eq!(planned(&two_at_a_time), planned(&of_two));
    assert!(planned(&two_at_a_time) < planned(&all) / 2);
    assert!(error(&config, &of_two) < TOLERANCE);
}

/// From nothing to the end of the second step.
#[test]
fn whole_steps_are_as_planned() {
    let _alone = alone();
    for (config, batch_size) in [
        (with_bart(bart(8_000)), 1),
        (with_t5(t5(8_000)), 4),
        (with(Fixture::Llama, 8_000), 2),
    ] {
        let settings = settings(batch_size, 2, 48, 8);
        let planned = plan(&config, &settings, &cpu()).unwrap();
        // The passages' encoder is no part of this.
        let planned = planned.total - planned.parameters.context_encoder;
        let measured = peak_of(|| {
            let (mut model, mut optimizer) = (model(&config, &settings), optimizer());
            let batch = batch(&config, &settings);
            drop(gradients(&model, &optimizer, &batch, &settings));
            for _ in 0..2 {
                let sum = gradients(&model, &optimizer, &batch, &settings);
                // As the trainer does, which keeps the model until the step is done.
                model = optimizer.step(model.clone(), sum, 1e-4).0;
            }
        });
        let error = planned as f64 / measured as f64 - 1.0;
        println!(
            "planned {planned}, measured {measured}, {:+.1} %",
            100.0 * error
        );
        assert!(error.abs() < TOLERANCE);
    }
}

/// Against the modules themselves, and against what transformers counts in published models.
#[test]
fn parameters_are_exact() {
    let _alone = alone();
    let bytes = |config: &RagConfig| {
        plan(config, &PlanSettings::default(), &cpu())
            .unwrap()
            .parameters
    };
    let projected = EncoderConfig {
        bert: BertConfig {
            projection_dim: 48,
            ..bert().bert
        },
        ..bert()
    };
    let untied = BartConfig {
        tie_word_embeddings: false,
        ..prenorm(500)
    };
    for mut config in [
        with_bart(bart(500)),
        with_bart(untied),
        with_t5(t5(500)),
        with_t5(gated(500)),
        with(Fixture::Llama, 500),
        with(Fixture::Qwen2, 500),
        with(Fixture::Qwen3, 500),
        with(Fixture::Gemma2, 500),
        with(Fixture::Gemma3, 500),
    ] {
        for encoder in [bert(), projected.clone()] {
            config.question_encoder = encoder;
            let found = bytes(&config);
            let model = model(&config, &PlanSettings::default());
            let retriever = 4 * model.question_encoder.num_params() as u64;
            assert_eq!(found.question_encoder, retriever);
            assert_eq!(found.context_encoder, retriever);
            assert_eq!(found.generator, 4 * model.generator.num_params() as u64);
            assert_eq!(found.total(), 2 * retriever + found.generator);
        }
    }
    let dpr_and_bart = bytes(&RagConfig::new(
        RagModel::Sequence,
        EncoderConfig::default(),
        GeneratorConfig::Bart(BartConfig::default()),
    ));
    assert_eq!(dpr_and_bart.question_encoder, 4 * 108_891_648);
    // The biases of the logits are no parameters there.
    assert_eq!(dpr_and_bart.generator, 4 * (406_291_456 + 50_265));
    let small = with_t5(T5Config::default());
    assert_eq!(bytes(&small).generator, 4 * 60_506_624);
    let small = T5Config {
        d_ff: 1024,
        num_layers: 8,
        num_heads: 6,
        feed_forward_proj: "gated-gelu".into(),
        tie_word_embeddings: false,
        ..T5Config::default()
    };
    assert_eq!(bytes(&with_t5(small)).generator, 4 * 76_961_152);
    let alone = |generator| RagConfig::new(RagModel::Token, EncoderConfig::default(), generator);
    // SmolLM2-135M, Qwen2.5-0.5B.
    let llama = GeneratorConfig::Causal(CausalConfig {
        vocab_size: 49_152,
        hidden_size: 576,
        intermediate_size: 1536,
        num_hidden_layers: 30,
        num_attention_heads: 9,
        num_key_value_heads: Some(3),
        tie_word_embeddings: true,
        ..CausalConfig::llama()
    });
    assert_eq!(bytes(&alone(llama)).generator, 4 * 134_515_008);
    let qwen2 = GeneratorConfig::Causal(CausalConfig {
        hidden_size: 896,
        intermediate_size: 4864,
        num_hidden_layers: 24,
        num_attention_heads: 14,
        num_key_value_heads: Some(2),
        tie_word_embeddings: true,
        ..CausalConfig::qwen2()
    });
    assert_eq!(bytes(&alone(qwen2)).generator, 4 * 494_032_768);
}

#[test]
fn the_optimiser_and_the_index_are_exact() {
    let _alone = alone();
    let config = with_t5(t5(500));
    let planned = |change: fn(&mut PlanSettings)| {
        let mut settings = settings(1, 2, 16, 4);
        change(&mut settings);
        plan(&config, &settings, &cpu()).unwrap()
    };
    let adamw = planned(|_| {});
    assert_eq!(
        adamw.gradients,
        adamw.parameters.question_encoder + adamw.parameters.generator
    );
    assert_eq!(adamw.optimizer, 2 * adamw.gradients);
    let halves = planned(|settings| settings.optimizer = OptimizerKind::AdamWBf16);
    assert_eq!(halves.optimizer, adamw.gradients);
    // Of a matrix rows and columns, of a vector all.
    let adafactor = planned(|settings| {
        settings.optimizer = OptimizerKind::Adafactor;
        settings.trained = vec![Component::Generator];
    });
    let attention = 4 * (64 + 64);
    let feed_forward = 2 * (64 + 256);
    let encoder = 2 * (attention + feed_forward + 2 * 64);
    let decoder = 2 * (2 * attention + feed_forward + 3 * 64);
    let around = 500 + 64 + 2 * (32 + 4) + 2 * 64;
    assert_eq!(adafactor.optimizer, 4 * (encoder + decoder + around));
    assert_eq!(adafactor.gradients, adafactor.parameters.generator);
    let with_index = planned(|settings| {
        settings.passages = 1_000_000;
        settings.storage = Storage::F16;
    });
    assert_eq!(with_index.index, 1_000_000 * 64 * 2);
    assert_eq!(with_index.total, adamw.total + with_index.index);
    let frozen = planned(|settings| settings.trained = Vec::new());
    assert_eq!((frozen.gradients, frozen.optimizer), (0, 0));
    assert_eq!(
        frozen.activations.encoder + frozen.activations.question_encoder,
        0
    );
}

/// BART-large with BERT-base would take two gigabytes.
#[test]
fn planning_allocates_nothing() {
    let _alone = alone();
    let config = RagConfig::new(
        RagModel::Sequence,
        EncoderConfig::default(),
        GeneratorConfig::Bart(BartConfig::default()),
    );
    let settings = PlanSettings {
        passages: 21_015_324,
        ..PlanSettings::default()
    };
    let mut table = String::new();
    let allocated = peak_of(|| {
        let plan = plan(&config, &settings, &cpu()).unwrap();
        plan.largest(200 << 30, Vary::Batch).unwrap();
        table = plan.to_string();
    });
    assert!(allocated < 2 << 20, "{allocated}");
    println!("{table}");
    for line in [
        "parameters ",
        "contexts in the generator",
        "in all, at most",
        "GiB",
    ] {
        assert!(table.contains(line), "{table}");
    }
}

#[test]
fn the_largest_setting_fits_and_the_next_does_not() {
    let _alone = alone();
    let config = with_bart(bart(500));
    let planned = plan(&config, &settings(1, 8, 64, 8), &cpu()).unwrap();
    for (vary, fits) in [
        (Vary::Batch, 3),
        (Vary::NDocs, 3),
        (Vary::ContextLength, 40),
        (Vary::DocumentsAtATime, 3),
    ] {
        let set = |value| {
            let mut settings = settings(1, 8, 64, 8);
            match vary {
                Vary::Batch => settings.batch = value,
                Vary::NDocs => settings.n_docs = value,
                Vary::ContextLength => settings.context_length = value,
                Vary::DocumentsAtATime => settings.documents_at_a_time = Some(value),
            }
            plan(&config, &settings, &cpu()).unwrap()
        };
        let limit = set(fits).total + 1;
        let (value, largest) = planned.largest(limit, vary).unwrap();
        assert_eq!((value, &largest), (fits, &set(fits)), "{vary:?}");
        assert!(set(fits + 1).total > limit);
    }
    // A context is never longer than the model reads, nor are there more documents than retrieved.
    assert_eq!(
        planned.largest(1 << 40, Vary::ContextLength).unwrap().0,
        128
    );
    assert_eq!(
        planned.largest(1 << 40, Vary::DocumentsAtATime).unwrap().0,
        8
    );
    // A decoder alone has positions for the prompt and for all of the answer that it reads.
    let alone = plan(&with(Fixture::Llama, 500), &settings(1, 8, 64, 8), &cpu()).unwrap();
    assert_eq!(
        alone.largest(1 << 40, Vary::ContextLength).unwrap().0,
        256 - 7
    );
    let error = planned.largest(1 << 20, Vary::Batch).unwrap_err();
    assert!(matches!(
        error,
        Error::DoesNotFit {
            setting: "batch",
            ..
        }
    ));
    assert!(error.to_string().contains("MiB"), "{error}");
}

#[test]
fn a_size_of_nothing_is_refused() {
    let _alone = alone();
    let none = PlanSettings {
        documents_at_a_time: Some(0),
        ..PlanSettings::default()
    };
    let error = plan(&with_t5(t5(500)), &none, &cpu()).unwrap_err();
    assert!(matches!(
        error,
        Error::Setting {
            setting: "documents_at_a_time",
            ..
        }
    ));
}
