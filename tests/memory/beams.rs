//! Hypotheses that read one prompt share its keys and values.

use burn_rag::{
    core::{TokenBatch, nn::Precision},
    generate::{
        Reader,
        decode::{Control, GenerationConfig},
        generator::{
            GeneratorConfig,
            fixtures::{Fixture, Tiny},
        },
        rag_token,
    },
};

use crate::{
    common::{Kind, Random, cpu},
    counting::{alone, peak_of},
};

/// Tokens of a prompt.
const PROMPT: usize = 400;
const N_DOCS: usize = 2;
const BEAMS: [usize; 3] = [1, 4, 16];

/// Fewer beams than tokens; heads wide enough that keys are larger than scores.
const TINY: Tiny = Tiny {
    vocabulary: 64,
    d_model: 128,
    heads: 2,
    hidden: 64,
    encoder_layers: 1,
    decoder_layers: 2,
    positions: 512,
};

fn grows_by_less_than_a_copy(fixture: Fixture, tiny: Tiny, precision: Precision) {
    let (config, generator) = fixture.generator(tiny, 8);
    let generator = generator.with_precision(precision).unwrap();
    let mut random = Random(1);
    let mut prompt = || (0..PROMPT).map(|_| 3 + random.below(60) as u32).collect();
    let prompts: Vec<Vec<u32>> = (0..N_DOCS).map(|_| prompt()).collect();
    let contexts = TokenBatch::new(&prompts, config.pad(), &cpu());
    let scores = [0.3, 0.1];
    let reader = Reader::new(&generator, &contexts, &scores, &config, precision);
    // Keys and values of both prompts, in one layer and in all.
    let of_layer = layer_bytes(&config);
    let of_all = of_layer * tiny.decoder_layers as u64;
    let twice: Vec<usize> = (0..2 * N_DOCS).map(|row| row / 2).collect();
    let memory = generator.encode(&contexts, precision);
    let copied = peak_of(|| memory.select(&twice));
    assert!(
        copied >= 2 * of_all,
        "{copied} bytes for two copies of {of_all}"
    );

    let decode = |beams: usize| {
        let settings = GenerationConfig {
            num_beams: beams,
            num_return_sequences: beams,
            min_new_tokens: Some(4),
            max_new_tokens: Some(4),
            ..config.generation()
        };
        let mut found = Vec::new();
        let peak = peak_of(|| {
            found = rag_token::decode(&reader, &settings, Control::default()).unwrap();
        });
        assert_eq!(found[0].len(), beams);
        peak
    };
    decode(1);
    let [one, rest @ ..] = BEAMS.map(decode);
    println!("{fixture:?} in {precision:?}: {one}, {rest:?}; {of_layer} a layer, {of_all} in all");
    for (beams, peak) in BEAMS.into_iter().skip(1).zip(rest) {
        let copies = (beams - 1) as u64 * of_layer;
        assert!(
            peak < one + copies / 2,
            "{fixture:?}, {beams} beams in {precision:?}: {peak} bytes, of one beam {one}; copies of one layer {copies}"
        );
    }
}

fn layer_bytes(config: &GeneratorConfig) -> u64 {
    let inner = config.family().sizes().decoder.key_inner;
    (2 * N_DOCS * PROMPT * inner * size_of::<f32>()) as u64
}

#[test]
fn beams_share_the_keys_and_values_of_their_prompt() {
    let _alone = alone();
    for fixture in [Kind::Llama, Kind::Qwen2, Kind::Qwen3] {
        for precision in [Precision::F32, Precision::Bf16] {
            grows_by_less_than_a_copy(fixture, TINY, precision);
        }
    }
}

#[test]
fn so_do_those_of_a_larger_model() {
    let _alone = alone();
    let tiny = Tiny {
        d_model: 512,
        heads: 8,
        hidden: 512,
        decoder_layers: 4,
        ..TINY
    };
    grows_by_less_than_a_copy(Kind::Llama, tiny, Precision::F32);
}
