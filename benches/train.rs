//! Our half of `peers/train.py`: the same training step, as one JSON line.

mod common;

use std::{collections::BTreeMap, error::Error, fs, time::Instant};

use burn_rag::{
    burn::{
        module::Module,
        tensor::{Device, Distribution, Tensor},
    },
    core::{TokenBatch, marginal::Compat},
    generate::{
        RagConfig,
        likelihood::{self, Forced},
    },
    prelude::*,
    train::{
        Accumulation, Activations, Backward, Batch, DropoutSeed, EncoderInput, JointModel,
        LossScaler, Objective, Optimizer, OptimizerKind,
    },
};
use common::peak_resident_bytes;
use serde::Serialize;

#[derive(Serialize)]
struct Measured {
    name: &'static str,
    seconds_per_step: f64,
    all: Vec<f64>,
    examples_per_second: f64,
    /// Where the system says it.
    peak_resident_bytes: Option<u64>,
    versions: BTreeMap<&'static str, &'static str>,
}

struct Work {
    config: RagConfig,
    steps: usize,
    precision: Precision,
    optimizer: OptimizerKind,
    activations: Activations,
    batch: usize,
    n_docs: usize,
    /// 0 for all of them.
    documents_at_a_time: Option<usize>,
    context_length: usize,
    question_length: usize,
    answer_length: usize,
}

fn main() -> Result<(), Box<dyn Error>> {
    let Some(work) = Work::from_arguments()? else {
        println!("skipped: run benches/peers/train.py");
        return Ok(());
    };
    let device = device(&std::env::var("RAG_DEVICE").unwrap_or_else(|_| "cpu".into()))?.autodiff();
    let device = match work.activations {
        Activations::Kept => device,
        Activations::Recomputed => device.gradient_checkpointing(),
    };
    device.seed(0);
    let mut model = JointModel {
        question_encoder: work.config.question_encoder.init(&device)?,
        context_encoder: None,
        prior: None,
        generator: work.config.generator.init(&device)?,
    }
    .train();
    let optimizer = work.optimizer.init(0.001);
    let mut optimizer = Optimizer::new(optimizer, 0.1, LossScaler::new(work.precision));
    let objective = Objective {
        compat: Compat::HuggingFace,
        precision: work.precision,
        ..Objective::default()
    };
    let batch = work.batch(&device);
    let mut all = Vec::new();
    for step in 0..=work.steps {
        let begun = Instant::now();
        let seed = DropoutSeed::new(0, step, 0);
        let backward = Backward {
            documents_at_a_time: work.documents_at_a_time,
            weight: 1.0 / work.batch as f64,
            seed,
        };
        let questions = model.question_vectors(&batch.questions, work.precision, seed);
        let mut gradients = Accumulation::default();
        objective.backward(&model, &batch, questions, backward, |loss| {
            optimizer.accumulate(&model, loss, &mut gradients);
        });
        let (moved, stepped) = optimizer.step(model, gradients, 3e-5);
        device.sync()?;
        model = moved;
        if !stepped.taken {
            return Err("a step's gradients were not finite".into());
        }
        all.push(begun.elapsed().as_secs_f64());
    }
    // The first step also makes the weights.
    all.remove(0);
    let mut sorted = all.clone();
    sorted.sort_by(f64::total_cmp);
    let median = (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0;
    let measured = Measured {
        name: "burn-rag",
        seconds_per_step: median,
        examples_per_second: work.batch as f64 / median,
        all,
        peak_resident_bytes: peak_resident_bytes(),
        versions: BTreeMap::from([("burn-rag", env!("CARGO_PKG_VERSION"))]),
    };
    println!("{}", serde_json::to_string(&measured)?);
    Ok(())
}

impl Work {
    /// The sizes that `peers/train.py` passes; `None` where it did not start the program.
    fn from_arguments() -> Result<Option<Self>, Box<dyn Error>> {
        // Cargo adds `--bench`.
        let arguments: Vec<String> = std::env::args()
            .skip(1)
            .filter(|argument| argument != "--bench")
            .collect();
        if arguments.is_empty() {
            return Ok(None);
        }
        let text = |name: &str| {
            let at = arguments.iter().position(|argument| argument == name);
            at.and_then(|at| arguments.get(at + 1))
                .ok_or_else(|| format!("expected {name} and its value"))
        };
        let number = |name: &str| -> Result<usize, Box<dyn Error>> { Ok(text(name)?.parse()?) };
        let named = |name: &str| text(name).map(|value| serde_json::Value::from(value.as_str()));
        Ok(Some(Self {
            config: serde_json::from_str(&fs::read_to_string(text("--config")?)?)?,
            steps: number("--steps")?,
            precision: serde_json::from_value(named("--precision")?)?,
            optimizer: serde_json::from_value(named("--optimizer")?)?,
            activations: serde_json::from_value(named("--activations")?)?,
            batch: number("--batch")?,
            n_docs: number("--n-docs")?,
            documents_at_a_time: Some(number("--documents-at-a-time")?).filter(|&n| n > 0),
            context_length: number("--context-length")?,
            question_length: number("--question-length")?,
            answer_length: number("--answer-length")?,
        }))
    }

    /// Texts of full length, whatever they say.
    fn batch(&self, device: &Device) -> Batch {
        let pad = self.config.generator.pad();
        let tokens = |rows: usize, length: usize| -> Vec<Vec<u32>> {
            let token = |row, i| 5 + ((row * length + i) * 7919 % 29_995) as u32;
            (0..rows)
                .map(|row| (0..length).map(|i| token(row, i)).collect())
                .collect()
        };
        let answers: Vec<Forced> = tokens(self.batch, self.answer_length)
            .iter()
            .map(|labels| Forced::transformers(labels, pad))
            .collect();
        let (inputs, targets) = likelihood::batch(&answers, pad, device);
        let contexts = tokens(self.batch * self.n_docs, self.context_length);
        let questions = tokens(self.batch, self.question_length);
        let dimension = self.config.question_encoder.dimension();
        Batch {
            questions: EncoderInput {
                tokens: TokenBatch::new(
                    &questions,
                    self.config.question_encoder.bert.pad_token_id,
                    device,
                ),
                segments: None,
            },
            passages: None,
            signals: None,
            contexts: TokenBatch::new(&contexts, pad, device),
            documents: Tensor::random(
                [self.batch, self.n_docs, dimension],
                Distribution::Normal(0.0, 1.0),
                device,
            ),
            inputs,
            targets,
        }
    }
}
