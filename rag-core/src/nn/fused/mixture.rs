use rayon::prelude::*;

use super::kernels::{log_mixture as mix, log_total, vectorised};

/// Words of a task.
const TASK: usize = 4096;

/// See [`super::log_mixture`]: of numbers that lie row after row.
pub fn log_mixture(
    logits: &[f32],
    log_weights: &[f32],
    [searches, contexts, hypotheses, words]: [usize; 4],
) -> Vec<f32> {
    // What makes the logits of a row to log-probabilities, weighed.
    let shifts: Vec<f32> = logits
        .par_chunks_exact(words)
        .enumerate()
        .map(|(row, logits)| {
            log_weights[row / hypotheses]
                - vectorised(
                    #[inline(always)]
                    || log_total(logits),
                )
        })
        .collect();
    let mut mixed = vec![0.0; searches * hypotheses * words];
    let rows = mixed.par_chunks_exact_mut(words).enumerate();
    rows.for_each(|(row, mixed)| {
        let (search, hypothesis) = (row / hypotheses, row % hypotheses);
        let first = search * contexts * hypotheses + hypothesis;
        let tasks = mixed.par_chunks_mut(TASK).enumerate();
        tasks.for_each(|(task, mixed)| {
            let of_context = |context: usize| {
                let row = first + context * hypotheses;
                let logits = &logits[row * words + task * TASK..][..mixed.len()];
                (logits, shifts[row])
            };
            let parts: Vec<_> = (0..contexts).map(of_context).collect();
            vectorised(
                #[inline(always)]
                || mix(&parts, mixed),
            );
        });
    });
    mixed
}
