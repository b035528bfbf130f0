//! log P(y_i|x,z,y_<i) of given answers, by teacher forcing.

use burn::tensor::{Int, Tensor, TensorData, activation::log_softmax};
use rag_core::{
    marginal::Targets,
    nn::Precision,
    padded,
};

use crate::{
    decode::GenerationConfig,
    generator::{Cache, Generator, Memory},
};

/// An answer on both sides of the decoder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forced {
    /// What the decoder reads.
    pub inputs: Vec<u32>,
    /// What it should say after each input.
    pub targets: Vec<u32>,
    /// Whether each target counts: a token that decoding forces has probability 1.
    pub counts: Vec<bool>,
}

impl Forced {
    /// The answer `tokens` (without start and end tokens) as the decoder is trained on it: after the
    /// start token, with the forced first token if there is one, up to the end token.
    pub fn answer(tokens: &[u32], generation: &GenerationConfig) -> Self {
        let forced = generation.forced_bos_token_id;
        let targets: Vec<u32> = forced
            .into_iter()
            .chain(tokens.iter().copied())
            .chain(generation.eos_token_id.first().copied())
            .collect();
        Self::after_start(generation, targets)
    }

    /// A decoded sequence, from its start token on.
    pub fn decoded(sequence: &[u32], generation: &GenerationConfig) -> Self {
        Self::after_start(generation, sequence[1..].to_vec())
    }

    fn after_start(generation: &GenerationConfig, targets: Vec<u32>) -> Self {
        let start = generation.decoder_start_token_id.or(generation.bos_token_id);
        let inputs = start
            .into_iter()
            .chain(targets.iter().copied())
            .take(targets.len())
            .collect();
        let forced_first = |i: usize| i == 0 && generation.forced_bos_token_id == Some(targets[0]);
        Self {
            counts: (0..targets.len()).map(|i| !forced_first(i)).collect(),
            inputs,
            targets,
        }
    }

    /// What transformers computes its losses of: the labels are the decoder's input, and the
    /// labels shifted left its target, with `pad` as both padding and what does not count.
    pub fn transformers(labels: &[u32], pad: u32) -> Self {
        let targets: Vec<u32> = labels[1..].iter().copied().chain([pad]).collect();
        Self {
            inputs: labels.to_vec(),
            counts: targets.iter().map(|&target| target != pad).collect(),
            targets,
        }
    }
}

/// Inputs `[rows, length]` and targets `[rows, length]` of several answers.
pub fn batch(answers: &[Forced], pad: u32, device: &burn::tensor::Device) -> (Tensor<2, Int>, Targets) {
    let inputs: Vec<_> = answers.iter().map(|answer| &answer.inputs).collect();
    let targets: Vec<_> = answers.iter().map(|answer| &answer.targets).collect();
    let inputs = padded(&inputs, pad, device);
    let [rows, length] = inputs.dims();
    let mask = answers
        .iter()
        .flat_map(|answer| (0..length).map(|i| i64::from(answer.counts.get(i) == Some(&true))))
        .collect::<Vec<_>>();
    let targets = Targets {
        ids: padded(&targets, pad, device),
        mask: Tensor::from_data(TensorData::new(mask, [rows, length]), device),
        exclude_bos_score: false,
    };
    (inputs, targets)
}

/// log P(v|x,z,y_<i) `[batch, n_docs, length, vocabulary]` after each of `inputs` `[batch, length]`,
/// for the `batch · n_docs` contexts in `memory`.
pub fn log_probs(
    generator: &Generator,
    memory: &Memory,
    inputs: Tensor<2, Int>,
    precision: Precision,
) -> Tensor<4> {
    let [batch, length] = inputs.dims();
    let n_docs = memory.contexts() / batch;
    let inputs = inputs
        .unsqueeze_dim::<3>(1)
        .expand([batch, n_docs, length])
        .reshape([batch * n_docs, length]);
    let logits = generator.decode(inputs, memory, &mut Cache::default(), precision);
    let vocabulary = logits.dims()[2];
    log_softmax(logits, 2).reshape([batch, n_docs, length, vocabulary])
}

/// log P(y_i|x,z,y_<i) `[candidates, n_docs, length]` of several answers to one question, whose
/// `n_docs` contexts are in `memory`; 0 where a target does not count.
pub fn token_log_probs(
    generator: &Generator,
    memory: &Memory,
    answers: &[Forced],
    pad: u32,
    precision: Precision,
) -> Tensor<3> {
    let (inputs, targets) = batch(answers, pad, &generator.device());
    let log_probs = candidate_log_probs(generator, memory, inputs, precision);
    targets.token_log_probs(&log_probs)
}

/// log P(v|x,z,y_<i) `[candidates, n_docs, length, vocabulary]` of candidate answers to one question.
pub fn candidate_log_probs(
    generator: &Generator,
    memory: &Memory,
    inputs: Tensor<2, Int>,
    precision: Precision,
) -> Tensor<4> {
    let [candidates, length] = inputs.dims();
    let n_docs = memory.contexts();
    let inputs = inputs
        .unsqueeze_dim::<3>(0)
        .expand([n_docs, candidates, length])
        .reshape([n_docs * candidates, length]);
    let logits = generator.decode(inputs, memory, &mut Cache::default(), precision);
    let vocabulary = logits.dims()[2];
    log_softmax(logits, 2)
        .reshape([n_docs, candidates, length, vocabulary])
        .swap_dims(0, 1)
}
