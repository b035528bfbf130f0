use burn::tensor::{Int, Tensor};
use rag_core::{
    marginal::Targets,
    nn::{Precision, log_softmax},
};

use crate::generator::{Generator, Memory, Places};

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
    let logits = generator.logits(states, precision);
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

/// The decoder's states of `inputs` `[batch, length]` under each document, `[batch · n_docs, length, d_model]`.
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
