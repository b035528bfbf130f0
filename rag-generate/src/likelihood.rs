//! log P(y_i|x,z,y_<i) of given answers, by teacher forcing.

use std::collections::HashMap;

use burn::tensor::{Int, Tensor, TensorData};
use rag_core::{
    marginal::Targets,
    nn::{Precision, log_softmax},
    padded,
};

use crate::{
    Error, Result,
    decode::GenerationConfig,
    generator::{Generator, Memory, Places},
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
        let start = generation
            .decoder_start_token_id
            .or(generation.bos_token_id);
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
pub fn batch(
    answers: &[Forced],
    pad: u32,
    device: &burn::tensor::Device,
) -> (Tensor<2, Int>, Targets) {
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
    let states = states(generator, memory, inputs, precision);
    let logits = generator.head(states, precision);
    let [rows, _, vocabulary] = logits.dims();
    log_softmax(logits).reshape([batch, rows / batch, length, vocabulary])
}

/// log P(y_i|x,z,y_<i) of the targets, 0 at padding: `[batch, n_docs, length]`, as [`Targets::token_log_probs`] takes
/// it from [`log_probs`], without those of all words in memory where the device can do so.
pub fn target_log_probs(
    generator: &Generator,
    memory: &Memory,
    inputs: Tensor<2, Int>,
    targets: &Targets,
    precision: Precision,
) -> Tensor<3> {
    let [batch, length] = inputs.dims();
    let n_docs = memory.contexts() / batch;
    let states = states(generator, memory, inputs, precision);
    let words = for_each_document(targets.ids.clone(), n_docs).unsqueeze_dim(2);
    let found = generator.word_log_probs(states, words, precision);
    found.reshape([batch, n_docs, length]) * targets.mask_by_document()
}

/// What the decoder makes of `inputs` `[batch, length]` under each document, `[batch · n_docs, length, d_model]`.
fn states(
    generator: &Generator,
    memory: &Memory,
    inputs: Tensor<2, Int>,
    precision: Precision,
) -> Tensor<3> {
    let [batch, length] = inputs.dims();
    let inputs = for_each_document(inputs, memory.contexts() / batch);
    let places = Places::after(0, length, &inputs.device());
    generator.states(inputs, &places, memory, None, precision)
}

/// `[batch, length]` to `[batch · n_docs, length]`.
fn for_each_document(ids: Tensor<2, Int>, n_docs: usize) -> Tensor<2, Int> {
    let [batch, length] = ids.dims();
    ids.unsqueeze_dim::<3>(1)
        .expand([batch, n_docs, length])
        .reshape([batch * n_docs, length])
}

/// Answers by their beginnings: what several have in common is read once.
#[derive(Default)]
struct PrefixTree {
    tokens: Vec<u32>,
    parents: Vec<Option<usize>>,
    children: HashMap<(Option<usize>, u32), usize>,
    /// What is asked of each token: the words that follow it in an answer.
    targets: Vec<Vec<u32>>,
}

impl PrefixTree {
    /// Adds an answer, and returns for each of its tokens the node, and which of the node's targets it has.
    fn add(&mut self, answer: &Forced) -> Vec<(usize, usize)> {
        let mut parent = None;
        let tokens = answer.inputs.iter().zip(&answer.targets);
        tokens
            .map(|(&input, &target)| {
                let node = *self.children.entry((parent, input)).or_insert_with(|| {
                    self.tokens.push(input);
                    self.parents.push(parent);
                    self.targets.push(Vec::new());
                    self.tokens.len() - 1
                });
                parent = Some(node);
                let targets = &mut self.targets[node];
                let place = targets.iter().position(|&known| known == target);
                let place = place.unwrap_or_else(|| {
                    targets.push(target);
                    targets.len() - 1
                });
                (node, place)
            })
            .collect()
    }
}

/// Nodes of a tree at most, not counting the answer that goes beyond: each sees its ancestors among all of them.
const NODES: usize = 512;

/// Log-probabilities of an answer's tokens that a document has given already, by document and answer.
pub(crate) type Given<'a> = dyn Fn(usize, usize) -> Option<&'a [f32]> + Sync + 'a;

/// log P(y_i|x,z,y_<i) `[candidates, n_docs, length]` of several answers to one question, whose
/// `n_docs` contexts are in `memory`, with the targets; 0 where a target does not count.
///
/// Answers that begin alike share the work for what they have in common: the decoder reads them as a tree, in which
/// a token sees its ancestors. Documents that have not `given` all answers are asked together for all that one of them
/// has not: one pass over the weights costs less than fewer rows in a pass for each document.
pub(crate) fn token_log_probs(
    generator: &Generator,
    memory: &Memory,
    answers: &[Forced],
    given: &Given<'_>,
    pad: u32,
    precision: Precision,
) -> Result<(Tensor<3>, Targets)> {
    let device = generator.device();
    let (_, targets) = batch(answers, pad, &device);
    let [candidates, length] = targets.mask.dims();
    let n_docs = memory.contexts();
    let asks = |candidate: usize, document: usize| given(document, candidate).is_none();
    let asked: Vec<usize> = (0..n_docs)
        .filter(|&document| (0..candidates).any(|candidate| asks(candidate, document)))
        .collect();
    let first = asked.first().copied().unwrap_or_default();
    let mut unknown = (0..candidates)
        .filter(|&candidate| (0..n_docs).any(|document| asks(candidate, document)))
        .peekable();
    let mut found = vec![0.0; candidates * n_docs * length];
    let place = |candidate: usize, document: usize| (candidate * n_docs + document) * length;
    while unknown.peek().is_some() {
        let mut tree = PrefixTree::default();
        let mut read = Vec::new();
        while tree.tokens.len() < NODES
            && let Some(candidate) = unknown.next()
        {
            read.push((candidate, tree.add(&answers[candidate])));
        }
        // What was cancelled before its first token has nothing to ask for.
        let (Some(last), Some(most)) = (asked.last(), tree.targets.iter().map(Vec::len).max())
        else {
            continue;
        };
        let memory = memory.narrow(first, last + 1 - first);
        let of_tree = numbers(tree_log_probs(generator, &memory, &tree, most, precision))?;
        let by_document = of_tree.chunks_exact(tree.tokens.len() * most);
        for (document, of_nodes) in (first..).zip(by_document) {
            for (candidate, places) in &read {
                let found = &mut found[place(*candidate, document)..][..length];
                for (found, (node, target)) in found.iter_mut().zip(places) {
                    *found = of_nodes[node * most + target];
                }
            }
        }
    }
    for candidate in 0..candidates {
        for document in 0..n_docs {
            if let Some(log_probs) = given(document, candidate) {
                let found = &mut found[place(candidate, document)..][..log_probs.len()];
                found.copy_from_slice(log_probs);
            }
        }
    }
    let found = TensorData::new(found, [candidates, n_docs, length]);
    let found = Tensor::from_data(found, &device) * targets.mask_by_document();
    Ok((found, targets))
}

/// Log-probabilities of each node's targets, up to `most`: `[n_docs, nodes · most]`.
fn tree_log_probs(
    generator: &Generator,
    memory: &Memory,
    tree: &PrefixTree,
    most: usize,
    precision: Precision,
) -> Tensor<2> {
    let device = generator.device();
    let (n_docs, nodes) = (memory.contexts(), tree.tokens.len());
    let ints = |numbers: Vec<u32>, shape: [usize; 2]| {
        let numbers: Vec<i64> = numbers.into_iter().map(i64::from).collect();
        Tensor::<2, Int>::from_data(TensorData::new(numbers, shape), &device)
    };
    let ids = ints(tree.tokens.clone(), [1, nodes]).expand([n_docs, nodes]);
    let places = Places::tree(&tree.parents, &device);
    let states = generator.states(ids, &places, memory, None, precision);
    let targets = tree.targets.iter().flat_map(|targets| {
        let more = most - targets.len();
        targets.iter().copied().chain(std::iter::repeat_n(0, more))
    });
    let targets = ints(targets.collect(), [nodes, most]);
    let targets = targets.unsqueeze_dim::<3>(0).expand([n_docs, nodes, most]);
    (generator.word_log_probs(states, targets, precision)).reshape([n_docs, nodes * most])
}

/// The numbers of a tensor, row-major.
pub(crate) fn numbers<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>> {
    tensor
        .try_into_vec_as()
        .map_err(|error| Error::Execution(Box::new(error)))
}

#[cfg(test)]
mod tests {
    use rag_core::{TokenBatch, device};

    use super::*;
    use crate::generator::{BartConfig, GeneratorConfig, T5Config};

    const VOCABULARY: usize = 12;

    fn generators() -> [(GeneratorConfig, Generator); 2] {
        let bart = BartConfig {
            vocab_size: VOCABULARY,
            d_model: 16,
            encoder_layers: 1,
            decoder_layers: 2,
            encoder_attention_heads: 2,
            decoder_attention_heads: 2,
            encoder_ffn_dim: 16,
            decoder_ffn_dim: 16,
            max_position_embeddings: 16,
            init_std: 0.4,
            ..BartConfig::default()
        };
        let t5 = T5Config {
            vocab_size: VOCABULARY,
            d_model: 16,
            d_kv: 8,
            d_ff: 16,
            num_layers: 2,
            num_heads: 2,
            ..T5Config::default()
        };
        let device = device("cpu").unwrap();
        [GeneratorConfig::Bart(bart), GeneratorConfig::T5(t5)].map(|config| {
            let generator = config.init(&device).unwrap();
            (config, generator)
        })
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
    fn an_answer_follows_its_start_and_ends() {
        let generation = GenerationConfig::default()
            .with_decoder_start_token_id(2)
            .with_eos_token_id(1);
        let answer = Forced::answer(&[7, 8], &generation);
        assert_eq!(answer.inputs, [2, 7, 8]);
        assert_eq!(answer.targets, [7, 8, 1]);
        assert_eq!(answer.counts, [true; 3]);
        assert_eq!(answer, Forced::decoded(&[2, 7, 8, 1], &generation));
        let nothing = Forced::answer(&[], &generation);
        assert_eq!((nothing.inputs, nothing.targets), (vec![2], vec![1]));
    }

    #[test]
    fn what_decoding_forces_does_not_count() {
        let generation = GenerationConfig::default()
            .with_decoder_start_token_id(2)
            .with_eos_token_id(2)
            .with_forced_bos_token_id(0);
        let answer = Forced::answer(&[7], &generation);
        assert_eq!(answer.inputs, [2, 0, 7]);
        assert_eq!(answer.targets, [0, 7, 2]);
        assert_eq!(answer.counts, [false, true, true]);
        assert_eq!(answer, Forced::decoded(&[2, 0, 7, 2], &generation));
        assert_eq!(
            Forced::decoded(&[2, 5, 0, 2], &generation).counts,
            [true; 3]
        );
    }

    #[test]
    fn a_start_of_text_starts_where_nothing_else_does() {
        let generation = GenerationConfig::default()
            .with_bos_token_id(5)
            .with_eos_token_id(1);
        assert_eq!(Forced::answer(&[7], &generation).inputs, [5, 7]);
    }

    #[test]
    fn transformers_shifts_labels_and_drops_padding() {
        let forced = Forced::transformers(&[0, 7, 8, 2, 1, 1], 1);
        assert_eq!(forced.inputs, [0, 7, 8, 2, 1, 1]);
        assert_eq!(forced.targets, [7, 8, 2, 1, 1, 1]);
        assert_eq!(forced.counts, [true, true, true, false, false, false]);
    }

    #[test]
    fn a_batch_is_padded_and_masked() {
        let generation = GenerationConfig::default()
            .with_decoder_start_token_id(2)
            .with_eos_token_id(1);
        let answers = [&[7, 8][..], &[]].map(|tokens| Forced::answer(tokens, &generation));
        let (inputs, targets) = batch(&answers, 9, &device("cpu").unwrap());
        let ints = |tensor: Tensor<2, Int>| tensor.into_data().iter::<i64>().collect::<Vec<_>>();
        assert_eq!(ints(inputs), [2, 7, 8, 2, 9, 9]);
        assert_eq!(ints(targets.ids), [7, 8, 1, 1, 9, 9]);
        assert_eq!(ints(targets.mask), [1, 1, 1, 1, 0, 0]);
    }

    #[test]
    fn candidates_are_scored_as_if_each_were_alone() {
        for (config, generator) in generators() {
            let memory = generator.encode(
                &contexts(&[&[3, 4, 5], &[6, 7]], config.pad()),
                Precision::F32,
            );
            let generation = config.generation();
            let answers =
                [&[7, 8, 9][..], &[], &[4]].map(|tokens| Forced::answer(tokens, &generation));
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
}
