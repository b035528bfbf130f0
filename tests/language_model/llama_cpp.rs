//! The distribution of the next token against that of llama.cpp, on the same ids.

use std::path::Path;

use burn_rag::{
    core::{TokenBatch, padded},
    generate::generator::Cache,
    prelude::*,
};
use safetensors::SafeTensors;

use super::{common::cpu, named, smollm2};

/// llama.cpp rounds what it multiplies with 4-bit weights to 8 bits, so the two differ more than f32 does.
const MOST_KL: f64 = 0.01;
const LEAST_AGREEMENT: f64 = 0.9;

#[test]
fn next_tokens_are_as_likely_as_in_llama_cpp() {
    let Some(model) = smollm2() else { return };
    let what = "what scripts/make_llama_cpp_logits.py writes";
    let Some(reference) = named("RAG_LLAMA_CPP_LOGITS", what) else {
        return;
    };
    let (mut divergences, mut agreed) = (Vec::new(), 0);
    each(model.as_ref(), reference.as_ref(), |ours, theirs| {
        agreed += usize::from(best(ours) == best(theirs));
        divergences.push(divergence(&log_softmax(theirs), &log_softmax(ours)));
    });

    let prompts = divergences.len() as f64;
    let mean = divergences.iter().sum::<f64>() / prompts;
    let largest = divergences.iter().copied().fold(0.0, f64::max);
    let agreement = agreed as f64 / prompts;
    println!(
        "{prompts} prompts: KL(llama.cpp || burn-rag) {mean:.5} on average, {largest:.5} at most; \
         the best token agrees after {:.1} %",
        100.0 * agreement
    );
    // Written so that a NaN fails.
    assert!(mean < MOST_KL, "{mean}");
    assert!(agreement > LEAST_AGREEMENT, "{agreement}");
}

/// llama.cpp keeps keys and values in 16 bits, so that transformers' logits of the same weights are off by 0.005. Without one of
/// Gemma 2's caps, or with the same positions in all layers of Gemma 3, they are off by 0.09 and more.
#[test]
fn gemma_is_what_llama_cpp_computes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/gguf");
    for name in ["gemma2.gguf", "gemma3.gguf"] {
        let mut largest = 0.0_f32;
        let reference = folder.join(format!("{name}.safetensors"));
        each(&folder.join(name), &reference, |ours, theirs| {
            for (ours, theirs) in ours.iter().zip(theirs) {
                largest = largest.max((ours - theirs).abs());
            }
        });
        println!("{name}: logits differ by {largest} at most");
        assert!(largest < 0.01, "{name}: {largest}");
    }
}

/// Calls `compare` with the logits after each prompt: those found here, and llama.cpp's.
fn each(model: &Path, reference: &Path, mut compare: impl FnMut(&[f32], &[f32])) {
    let bytes = std::fs::read(reference).unwrap();
    let reference = SafeTensors::deserialize(&bytes).unwrap();
    let numbers = |name: &str| reference.tensor(name).unwrap();
    let ids: Vec<u32> = bytemuck::pod_collect_to_vec(numbers("ids").data());
    let lengths: Vec<u32> = bytemuck::pod_collect_to_vec(numbers("lengths").data());
    let logits: Vec<f32> = bytemuck::pod_collect_to_vec(numbers("logits").data());

    let device = cpu();
    let model = LanguageModel::load(model, &device).unwrap();
    let vocabulary = model.config.vocabulary();
    assert_eq!(numbers("logits").shape(), [lengths.len(), vocabulary]);
    assert_eq!(lengths.iter().sum::<u32>() as usize, ids.len());
    let pad = model.config.pad();
    let mut rest = ids.as_slice();
    for (&length, theirs) in lengths.iter().zip(logits.chunks(vocabulary)) {
        let (prompt, others) = rest.split_at(length as usize);
        rest = others;
        let memory =
            (model.generator).encode(&TokenBatch::new(&[prompt], pad, &device), Precision::F32);
        let end = padded(&[[GenerationConfig::PROMPT_END]], pad, &device);
        let found = (model.generator).decode(end, &memory, &mut Cache::default(), Precision::F32);
        let ours: Vec<f32> = found.into_data().iter::<f32>().collect();
        assert_eq!(ours.len(), vocabulary);
        compare(&ours, theirs);
    }
}

fn best(logits: &[f32]) -> Option<usize> {
    let numbered = logits.iter().enumerate();
    numbered
        .max_by(|a, b| a.1.total_cmp(b.1))
        .map(|(token, _)| token)
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let logits = logits.iter().map(|&logit| f64::from(logit));
    let largest = logits.clone().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = logits.clone().map(|logit| (logit - largest).exp()).sum();
    logits.map(|logit| logit - largest - total.ln()).collect()
}

/// KL(p ‖ q) of log-probabilities.
fn divergence(p: &[f64], q: &[f64]) -> f64 {
    let pairs = p.iter().zip(q);
    pairs.map(|(p, q)| p.exp() * (p - q)).sum()
}
