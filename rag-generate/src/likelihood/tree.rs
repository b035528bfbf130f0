use std::collections::HashMap;

use burn::tensor::{Int, Tensor, TensorData};
use rag_core::{marginal::Targets, nn::Precision};

use crate::{
    error::Result,
    generator::{Generator, Memory, Places},
    numbers::numbers,
};

use super::forced::{Forced, batch};

/// Answers by their beginnings: what several have in common is read once.
#[derive(Default)]
pub(super) struct PrefixTree {
    pub(super) tokens: Vec<u32>,
    parents: Vec<Option<usize>>,
    children: HashMap<(Option<usize>, u32), usize>,
    /// What is asked of each token: the words that follow it in an answer.
    targets: Vec<Vec<u32>>,
}

impl PrefixTree {
    /// Adds an answer, and returns for each of its tokens the node, and which of the node's targets it has.
    pub(super) fn add(&mut self, answer: &Forced) -> Vec<(usize, usize)> {
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
pub(super) const NODES: usize = 512;

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
