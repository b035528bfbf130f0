//! Peak memory and time of one back-propagation at growing n_docs: one graph over all documents, against
//! one document at a time.
//!
//! ```text
//! cargo bench --bench gradient_memory
//! ```

mod common;

use std::{
    env,
    error::Error,
    process::{Command, Stdio},
    time::Instant,
};

use burn_rag::{
    burn::{
        module::Module,
        tensor::{Device, Int, Tensor},
    },
    core::{
        TokenBatch,
        marginal::{RagModel, Targets},
        nn::Precision,
    },
    generate::{
        Checkpoint, RagConfig,
        generator::{GeneratorConfig, T5Config},
    },
    prelude::device,
    retrieve::{EncoderConfig, encoder::BertConfig},
    train::{
        Accumulation, Backward, Batch, DropoutSeed, EncoderInput, JointModel, LossScaler,
        Objective, Optimizer, OptimizerKind,
    },
};
use common::peak_resident_bytes;

const N_DOCS: [usize; 5] = [1, 5, 10, 25, 50];
const QUESTIONS: usize = 2;
const QUESTION_LENGTH: usize = 24;
const CONTEXT_LENGTH: usize = 160;
const ANSWER_LENGTH: usize = 16;
const VOCABULARY: usize = 8_000;
const WIDTH: usize = 256;
const REPEATS: usize = 3;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .collect();
    if let [n_docs, documents] = &arguments[..] {
        return measure(n_docs.parse()?, documents.parse().ok());
    }
    println!("n_docs  one graph: seconds     MiB  a document at a time: seconds     MiB");
    for n_docs in N_DOCS {
        let [joint, constant] = ["all", "1"].map(|documents| {
            // A process of its own: its peak is that of this setting alone.
            let run = Command::new(env::current_exe()?)
                .args([&n_docs.to_string(), documents])
                .stderr(Stdio::inherit())
                .output()?;
            if !run.status.success() {
                return Err(format!("n_docs {n_docs}: {}", run.status).into());
            }
            Ok::<_, Box<dyn Error>>(String::from_utf8(run.stdout)?.trim().to_owned())
        });
        println!("{n_docs:>6}  {:>27}  {:>37}", joint?, constant?);
    }
    Ok(())
}

/// Prints the median time of a step's gradient, and the peak of resident memory.
fn measure(n_docs: usize, documents_at_a_time: Option<usize>) -> Result<(), Box<dyn Error>> {
    let device = device("cpu")?;
    device.seed(0);
    let model = model(n_docs, &device)?;
    let batch = batch(n_docs, &device.autodiff());
    let optimizer = Optimizer::new(
        OptimizerKind::AdamW.init(0.0),
        1.0,
        LossScaler::new(Precision::F32),
    );
    let objective = Objective::default();
    let seed = DropoutSeed::default();
    let mut seconds: Vec<f64> = (0..REPEATS)
        .map(|_| {
            let begun = Instant::now();
            let mut gradients = Accumulation::default();
            let questions = model.question_vectors(&batch.questions, Precision::F32, seed);
            let backward = Backward {
                documents_at_a_time,
                weight: 1.0,
                seed,
            };
            objective.backward(&model, &batch, questions, backward, |loss| {
                optimizer.accumulate(&model, loss, &mut gradients);
            });
            begun.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    let peak = peak_resident_bytes().ok_or("this system does not say how much memory was held")?;
    println!("{:.2}  {:>6}", seconds[REPEATS / 2], peak >> 20);
    Ok(())
}

fn model(n_docs: usize, device: &Device) -> Result<JointModel, Box<dyn Error>> {
    let bert = BertConfig {
        vocab_size: VOCABULARY,
        hidden_size: WIDTH,
        num_hidden_layers: 4,
        num_attention_heads: 4,
        intermediate_size: 4 * WIDTH,
        ..BertConfig::default()
    };
    let t5 = T5Config {
        vocab_size: VOCABULARY,
        d_model: WIDTH,
        d_kv: 64,
        d_ff: 4 * WIDTH,
        num_layers: 4,
        num_heads: 4,
        ..T5Config::default()
    };
    let encoder = EncoderConfig {
        bert,
        ..EncoderConfig::default()
    };
    let mut config = RagConfig::new(RagModel::Sequence, encoder, GeneratorConfig::T5(t5));
    config.n_docs = n_docs;
    let Checkpoint {
        question_encoder,
        generator,
        ..
    } = Checkpoint::new(config, device)?;
    let model = JointModel {
        question_encoder,
        context_encoder: None,
        prior: None,
        generator,
    };
    Ok(model.train())
}

fn batch(n_docs: usize, device: &Device) -> Batch {
    let tokens = |rows: usize, length: usize| {
        let row = |row: usize| {
            (0..length)
                .map(move |i| (3 + (row * 31 + i * 7) % 7_000) as u32)
                .collect()
        };
        TokenBatch::new(&(0..rows).map(row).collect::<Vec<Vec<u32>>>(), 0, device)
    };
    let answers = tokens(QUESTIONS, ANSWER_LENGTH);
    let start = Tensor::<2, Int>::zeros([QUESTIONS, 1], device);
    Batch {
        questions: EncoderInput {
            tokens: tokens(QUESTIONS, QUESTION_LENGTH),
            segments: None,
        },
        contexts: tokens(QUESTIONS * n_docs, CONTEXT_LENGTH),
        documents: Tensor::ones([QUESTIONS, n_docs, WIDTH], device),
        passages: None,
        signals: None,
        inputs: Tensor::cat(
            vec![start, answers.ids.clone().narrow(1, 0, ANSWER_LENGTH - 1)],
            1,
        ),
        targets: Targets {
            ids: answers.ids,
            mask: answers.mask,
            exclude_bos_score: false,
        },
    }
}
