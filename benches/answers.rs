//! Whole answers, at the sizes of BART-base, by themselves: `cargo bench --bench answers`. Items a second are tokens.

use burn_rag::{
    core::{TokenBatch, device, marginal::Compat},
    generate::{
        Checkpoint, RagConfig, Reader, SequenceDecoding, SequenceSettings,
        decode::Control,
        generator::{BartConfig, GeneratorConfig},
        rag_sequence, rag_token,
    },
    prelude::*,
    retrieve::EncoderConfig,
};
use divan::{Bencher, black_box, counter::ItemsCount};

const CONTEXTS: usize = 5;
const CONTEXT_LENGTH: usize = 160;
const TOKENS: usize = 20;

#[derive(Clone, Copy, Debug)]
enum Decoding {
    Greedy,
    FourBeams,
    FourBeamsEightQuestions,
    Sequence,
}

const DECODINGS: [Decoding; 4] = [
    Decoding::Greedy,
    Decoding::FourBeams,
    Decoding::FourBeamsEightQuestions,
    Decoding::Sequence,
];
const PRECISIONS: [Precision; 3] = [Precision::F32, Precision::Bf16, Precision::Int8];

fn main() {
    // Memory that one computation frees is for the next, as in a program that serves questions.
    burn_rag::cpu::keep_freed_pages();
    divan::main();
}

fn cases() -> impl Iterator<Item = (Precision, Decoding)> {
    PRECISIONS
        .into_iter()
        .flat_map(|precision| DECODINGS.map(|decoding| (precision, decoding)))
}

#[divan::bench(args = cases(), sample_count = 5, sample_size = 1)]
fn answers(bencher: Bencher<'_, '_>, (precision, decoding): (Precision, Decoding)) {
    let cpu = device("cpu").expect("a build with the feature flex");
    let bart = BartConfig {
        d_model: 768,
        encoder_layers: 6,
        decoder_layers: 6,
        encoder_attention_heads: 12,
        decoder_attention_heads: 12,
        encoder_ffn_dim: 3072,
        decoder_ffn_dim: 3072,
        forced_eos_token_id: None,
        ..BartConfig::default()
    };
    let generator = GeneratorConfig::Bart(bart);
    let config = RagConfig::new(RagModel::Token, EncoderConfig::default(), generator);
    let checkpoint = Checkpoint::new(config, &cpu).expect("sizes that fit each other");
    let generator = checkpoint.generator.with_precision(precision);
    let generator = generator.expect("a precision of the CPU");
    let config = &checkpoint.config.generator;
    let generation = GenerationConfig {
        num_beams: if matches!(decoding, Decoding::Greedy) {
            1
        } else {
            4
        },
        max_length: TOKENS + 1,
        min_length: TOKENS + 1,
        ..checkpoint.generation
    };
    let questions = match decoding {
        Decoding::FourBeamsEightQuestions => 8,
        _ => 1,
    };
    let token = |i: usize| 10 + (i * 7919 % 30_000) as u32;
    let contexts: Vec<Vec<u32>> = (0..questions * CONTEXTS)
        .map(|context| {
            (0..CONTEXT_LENGTH)
                .map(|i| token(context * CONTEXT_LENGTH + i))
                .collect()
        })
        .collect();
    let contexts = TokenBatch::new(&contexts, config.pad(), &cpu);
    let scores: Vec<&[f32]> = vec![&[0.5, 0.4, 0.3, 0.2, 0.1]; questions];
    bencher
        .counter(ItemsCount::new(questions * TOKENS))
        .bench(|| {
            let reader = Reader::of_questions(&generator, &contexts, &scores, config, precision);
            let control = Control::default();
            if let Decoding::Sequence = decoding {
                let settings = SequenceSettings {
                    decoding: SequenceDecoding::Thorough,
                    compat: Compat::HuggingFace,
                    deduplicate: true,
                };
                let answers = rag_sequence::decode(&reader, &generation, settings, control);
                black_box(answers.expect("an answer").len())
            } else {
                let answers = rag_token::decode(&reader, &generation, control);
                black_box(answers.expect("an answer").len())
            }
        });
}
