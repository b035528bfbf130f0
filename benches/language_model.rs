//! A language model of a published shape and random weights: how long it takes to load, how much memory, and how fast it
//! reads and writes. One process measures one precision, since the peak of memory is a process's.
//!
//! ```text
//! cargo bench --bench language_model -- --folder qwen --make qwen2.5-0.5b
//! cargo bench --bench language_model -- --folder qwen --precision bf16
//! ```

mod common;
#[path = "common/random_model.rs"]
mod random_model;

use std::{error::Error, path::PathBuf, time::Instant};

use burn_rag::{
    burn::tensor::{Int, Tensor},
    core::{
        TokenBatch,
        checkpoint::{Weights, read_json},
        nn::among_workers,
        parameters::for_each_parameter,
    },
    generate::generator::{Cache, Generator, GeneratorConfig, Memory, fixtures::Random},
    prelude::*,
};
use clap::Parser;
use common::peak_resident_bytes;
use random_model::{make, shape};

#[derive(Parser)]
struct Arguments {
    /// Folder of the model, with config.json and model.safetensors; nothing is measured without it.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Makes the folder in this shape and measures nothing: tiny, qwen2.5-0.5b, llama-3.2-1b or smollm2-1.7b
    #[arg(long)]
    make: Option<String>,
    #[arg(long, default_value = "f32")]
    precision: Precision,
    /// Tokens of the prompt
    #[arg(long, default_value_t = 512)]
    prompt: usize,
    /// Tokens of the answer
    #[arg(long, default_value_t = 64)]
    answer: usize,
    /// How often each is measured; the median is printed
    #[arg(long, default_value_t = 5)]
    repeats: usize,
    /// Cargo adds it.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    burn_rag::cpu::keep_freed_pages();
    let arguments = Arguments::parse();
    let Some(folder) = &arguments.folder else {
        println!("skipped: no --folder");
        return Ok(());
    };
    if let Some(name) = &arguments.make {
        return make(&shape(name)?, folder);
    }
    let device = device(&std::env::var("RAG_DEVICE").unwrap_or_else(|_| "cpu".into()))?;
    let precision = arguments.precision;
    let config: GeneratorConfig = read_json(folder.join("config.json"))?;
    let begun = Instant::now();
    let mut weights = Weights::open(folder)?;
    let generator = config
        .load(&mut weights, "", &device)?
        .with_precision(precision)?;
    drop(weights);
    if precision == Precision::F32 {
        // Parameters are read when they are first used.
        for_each_parameter(&generator, |parameter| drop(parameter.matrix()));
    }
    let loaded = begun.elapsed().as_secs_f64();
    let mut parameters = 0;
    for_each_parameter(&generator, |parameter| {
        parameters += parameter.shape().num_elements()
    });
    println!("{parameters} parameters in {precision:?}");
    println!("load     {loaded:.2} s, {} at most", mebibytes());

    let mut random = Random(2);
    let mut token = || random.below(config.vocabulary() as u64) as u32;
    let prompt: Vec<u32> = (0..arguments.prompt).map(|_| token()).collect();
    let answer: Vec<u32> = (0..arguments.answer).map(|_| token()).collect();
    let contexts = TokenBatch::new(&[prompt], config.pad(), &device);
    let read = || generator.encode(&contexts, precision);
    let memory = read();
    let prefill = median(arguments.repeats, || drop(read()));
    let decode = median(arguments.repeats, || {
        let mut cache = Cache::default();
        for &token in &answer {
            write(&generator, token, &memory, &mut cache, precision);
        }
    });
    println!(
        "prefill  {:.1} tokens/s of {}",
        arguments.prompt as f64 / prefill,
        arguments.prompt
    );
    println!(
        "decode   {:.1} tokens/s of {}",
        arguments.answer as f64 / decode,
        arguments.answer
    );
    println!("all      {} at most", mebibytes());
    Ok(())
}

/// The logits after one token, as a search asks for them.
fn write(
    generator: &Generator,
    token: u32,
    memory: &Memory,
    cache: &mut Cache,
    precision: Precision,
) {
    let device = generator.device();
    let ids = Tensor::<2, Int>::from_data([[token]], &device);
    let logits = among_workers(&device, || generator.decode(ids, memory, cache, precision));
    // Read back, as from a device that computes on its own.
    drop(logits.into_data());
}

fn median(repeats: usize, mut work: impl FnMut()) -> f64 {
    work();
    let seconds = (0..repeats.max(1)).map(|_| {
        let begun = Instant::now();
        work();
        begun.elapsed().as_secs_f64()
    });
    let mut seconds: Vec<f64> = seconds.collect();
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

/// The most memory so far.
fn mebibytes() -> String {
    match peak_resident_bytes() {
        Some(bytes) => format!("{} MiB", bytes >> 20),
        None => "memory unknown".into(),
    }
}
