//! RAG-Token's mixture of the contexts' distributions.

use burn::tensor::Tensor;
use rayon::prelude::*;

use super::log_softmax::log_sum_exp;
use crate::{
    flex::{elements, slice, tensor},
    math::exp,
    processor::Processor,
};

const WORDS_PER_TASK: usize = 4096;

/// log Σ_z exp(w_z) softmax(logits_z) over the contexts of `logits` `[searches, contexts, hypotheses, words]`, with
/// w `[searches, contexts]`: `[searches, hypotheses, words]`. `None` where a tensor is not f32 on the CPU without
/// gradients, or there is nothing to mix.
pub fn log_mixture(logits: &Tensor<4>, log_weights: &Tensor<2>) -> Option<Tensor<3>> {
    let shape = logits.dims();
    let (logits, log_weights) = (elements(logits.clone())?, elements(log_weights.clone())?);
    let (logits, log_weights) = (slice(&logits), slice(&log_weights));
    if logits.is_empty() {
        return None;
    }
    let [searches, _, hypotheses, words] = shape;
    let mixed = mix(Processor::current(), logits, log_weights, shape);
    Some(tensor(mixed, [searches, hypotheses, words]))
}

fn mix(
    processor: Processor,
    logits: &[f32],
    log_weights: &[f32],
    [searches, contexts, hypotheses, words]: [usize; 4],
) -> Vec<f32> {
    // Added to the logits of a row, it makes them weighted log-probabilities.
    let shifts: Vec<f32> = logits
        .par_chunks_exact(words)
        .enumerate()
        .map(|(row, logits)| {
            log_weights[row / hypotheses]
                - processor.vectorise(
                    #[inline(always)]
                    || log_sum_exp(logits),
                )
        })
        .collect();
    let mut mixed = vec![0.0; searches * hypotheses * words];
    let rows = mixed.par_chunks_exact_mut(words).enumerate();
    rows.for_each(|(row, mixed)| {
        let (search, hypothesis) = (row / hypotheses, row % hypotheses);
        let first = search * contexts * hypotheses + hypothesis;
        let tasks = mixed.par_chunks_mut(WORDS_PER_TASK).enumerate();
        tasks.for_each(|(task, mixed)| {
            let of_context = |context: usize| {
                let row = first + context * hypotheses;
                let logits = &logits[row * words + task * WORDS_PER_TASK..][..mixed.len()];
                (logits, shifts[row])
            };
            let parts: Vec<_> = (0..contexts).map(of_context).collect();
            processor.vectorise(
                #[inline(always)]
                || mix_some(&parts, mixed),
            );
        });
    });
    mixed
}

/// log Σ e^(x + shift) over `parts`, which are x and its shift, element by element.
#[inline(always)]
fn mix_some(parts: &[(&[f32], f32)], mixed: &mut [f32]) {
    mixed.fill(f32::MIN);
    for (x, shift) in parts {
        for (highest, x) in mixed.iter_mut().zip(*x) {
            *highest = highest.max(x + shift);
        }
    }
    let mut sums = vec![0.0; mixed.len()];
    for (x, shift) in parts {
        for ((sum, x), highest) in sums.iter_mut().zip(*x).zip(&*mixed) {
            *sum += exp(x + shift - highest);
        }
    }
    for (mixed, sum) in mixed.iter_mut().zip(sums) {
        *mixed += f32::ln(sum);
    }
}
