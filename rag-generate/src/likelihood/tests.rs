//! Answers scored together, in a batch or a tree, are scored as each alone.

use burn::tensor::Tensor;
use rag_core::{TokenBatch, device, nn::Precision, padded};

use super::{
    Forced, log_probs, token_log_probs,
    tree::{NODES, PrefixTree},
};
use crate::{
    decode::GenerationConfig,
    generator::{
        Generator, GeneratorConfig,
        fixtures::{self, Tiny},
    },
};

const VOCABULARY: usize = 12;

fn generators() -> impl Iterator<Item = (GeneratorConfig, Generator)> {
    let generator = |fixture: fixtures::Fixture| fixture.generator(Tiny::default(), 4);
    fixtures::ALL.into_iter().map(generator)
}

fn contexts(rows: &[&[u32]], pad: u32) -> TokenBatch {
    TokenBatch::new(rows, pad, &device("cpu").unwrap())
}

fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.try_into_vec_as().unwrap()
}

fn close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!(
            (found - expected).abs() < 1e-4,
            "expected {expected}, found {found}"
        );
    }
}

#[test]
fn candidates_are_scored_as_if_each_were_alone() {
    for (config, generator) in generators() {
        let memory = generator.encode(
            &contexts(&[&[3, 4, 5], &[6, 7]], config.pad()),
            Precision::F32,
        );
        let generation = config.generation();
        let answers = [&[7, 8, 9][..], &[], &[4]].map(|tokens| Forced::answer(tokens, &generation));
        let pad = config.pad();
        let (together, _) = token_log_probs(
            &generator,
            &memory,
            &answers,
            &|_, _| None,
            pad,
            Precision::F32,
        )
        .unwrap();
        let [candidates, n_docs, longest] = together.dims();
        assert_eq!((candidates, n_docs), (3, 2));
        let together = numbers(together);
        for (row, answer) in answers.iter().enumerate() {
            let length = answer.targets.len();
            let inputs = padded(&[&answer.inputs], config.pad(), &generator.device());
            let alone = log_probs(&generator, &memory, inputs, Precision::F32);
            let alone = numbers(alone);
            let alone: Vec<f32> = (0..n_docs * length)
                .map(|i| alone[i * VOCABULARY + answer.targets[i % length] as usize])
                .collect();
            for z in 0..n_docs {
                let start = (row * n_docs + z) * longest;
                close(
                    &together[start..start + length],
                    &alone[z * length..(z + 1) * length],
                );
                assert!(
                    together[start + length..start + longest]
                        .iter()
                        .all(|&pad| pad == 0.0)
                );
            }
        }
    }
}

/// More than a tree holds, with beginnings in common and equal answers among them.
#[test]
fn many_candidates_are_scored_as_if_each_were_alone() {
    for (config, generator) in generators() {
        let contexts = contexts(&[&[3, 4, 5], &[6, 7]], config.pad());
        let memory = generator.encode(&contexts, Precision::F32);
        let generation = config.generation();
        let answers: Vec<Forced> = (0..400_u32)
            .map(|i| {
                let tokens = (0..i % 9).map(|place| 3 + (i / (place + 1)) % 8);
                Forced::answer(&tokens.collect::<Vec<_>>(), &generation)
            })
            .collect();
        let mut tree = PrefixTree::default();
        let read: usize = answers.iter().map(|answer| tree.add(answer).len()).sum();
        let nodes = tree.tokens.len();
        assert!(NODES < nodes && nodes < read, "{nodes} of {read}");
        let pad = config.pad();
        let score = |answers| {
            let given = |_, _| None;
            token_log_probs(&generator, &memory, answers, &given, pad, Precision::F32).unwrap()
        };
        let (together, _) = score(&answers);
        let longest = together.dims()[2];
        let together = numbers(together);
        for (together, answer) in together.chunks(2 * longest).zip(&answers) {
            let length = answer.targets.len();
            let alone = numbers(score(std::slice::from_ref(answer)).0);
            for (together, alone) in together.chunks(longest).zip(alone.chunks(length)) {
                close(&together[..length], alone);
            }
        }
    }
}

#[test]
fn answers_at_the_prompts_end_share_it() {
    const START: u32 = GenerationConfig::PROMPT_END;
    let generation = GenerationConfig::default()
        .with_decoder_start_token_id(START)
        .with_eos_token_id(1);
    let mut tree = PrefixTree::default();
    let places = [&[7, 8][..], &[7], &[]].map(|tokens| {
        let answer = Forced::answer(tokens, &generation);
        tree.add(&answer)
    });
    assert_eq!(tree.tokens, [START, 7, 8]);
    assert_eq!(places[0], [(0, 0), (1, 0), (2, 0)]);
    assert_eq!(places[1], [(0, 0), (1, 1)]);
    assert_eq!(places[2], [(0, 1)]);
}

#[test]
fn a_batch_of_questions_is_each_with_its_own_contexts() {
    for (config, generator) in generators() {
        let rows: [&[u32]; 4] = [&[3, 4, 5], &[6, 7], &[8], &[9, 10, 11, 3]];
        let encode =
            |rows: &[&[u32]]| generator.encode(&contexts(rows, config.pad()), Precision::F32);
        let inputs: [&[u32]; 2] = [&[2, 7, 8], &[2, 4, 4]];
        let device = device("cpu").unwrap();
        let both = log_probs(
            &generator,
            &encode(&rows),
            padded(&inputs, config.pad(), &device),
            Precision::F32,
        );
        assert_eq!(both.dims(), [2, 2, 3, VOCABULARY]);
        for question in 0..2 {
            let own = log_probs(
                &generator,
                &encode(&rows[question * 2..question * 2 + 2]),
                padded(&inputs[question..=question], config.pad(), &device),
                Precision::F32,
            );
            close(&numbers(both.clone().narrow(0, question, 1)), &numbers(own));
        }
    }
}

#[test]
fn log_probabilities_are_those_of_distributions() {
    for (config, generator) in generators() {
        let contexts = contexts(&[&[3, 4, 5], &[6]], config.pad());
        let memory = generator.encode(&contexts, Precision::F32);
        let device = device("cpu").unwrap();
        let inputs = padded(&[[2, 7, 8], [2, 9, 9]], config.pad(), &device);
        let log_probs = log_probs(&generator, &memory, inputs, Precision::F32);
        let totals = numbers(log_probs.exp().sum_dim(3));
        close(&totals, &vec![1.0; totals.len()]);
    }
}
