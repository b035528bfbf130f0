//! Log-probabilities of a few words out of a vocabulary. The logits of all words are there for some rows and words at a
//! time only, and made again on the way back (Wijmans et al. 2024, arXiv 2411.09009).

use std::{ops::Range, sync::Arc};

use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::{
    LOGITS_AT_ONCE,
    cpu::{add_rows, contiguous, of_elements, slice},
    kernels::{flushed, log_total, logit_gradient, vectorised},
    product::{Cores, Matrix, Start, multiply},
};

/// The words that are asked for, the same number of each row.
#[derive(Clone, Debug)]
pub struct Asked {
    pub words: Arc<[usize]>,
    pub of_each: usize,
}

/// States `[rows, d_input]`, and the head's weight `[words, d_input]` and bias, `[words]` or `[0]` for none.
pub struct Head {
    states: FlexTensor,
    weight: FlexTensor,
    bias: FlexTensor,
    asked: Asked,
}

/// Logits of some rows and words, row after row.
struct Piece<'a> {
    rows: Range<usize>,
    words: Range<usize>,
    logits: &'a mut [f32],
}

impl Head {
    pub fn new(tensors: [FlexTensor; 3], asked: Asked) -> Self {
        let [states, weight, bias] = tensors.map(contiguous);
        let head = Self {
            states,
            weight,
            bias,
            asked,
        };
        let words = head.weight().rows();
        let biases = slice(&head.bias).len();
        assert!(
            biases == 0 || biases == words,
            "a bias of {biases} numbers for {words} words"
        );
        assert!(
            head.asked.words.iter().all(|&word| word < words),
            "a target beyond the vocabulary of {words} words"
        );
        assert_eq!(
            head.asked.words.len(),
            head.states().rows() * head.asked.of_each,
            "targets for these states"
        );
        head
    }

    /// log softmax(x Wᵀ + b) of what is asked, `[rows, asked]`, and log Σ eˣ over the logits of each row, which the
    /// gradients need.
    pub fn log_probs(&self) -> (FlexTensor, Vec<f32>) {
        let rows = self.states().rows();
        let asked = self.asked.of_each;
        let mut found = vec![0.0; rows * asked];
        let mut totals = vec![f32::NEG_INFINITY; rows];
        self.each_piece(|piece| {
            let of_rows = piece.rows.start * asked..piece.rows.end * asked;
            let rows = (piece.logits.par_chunks(piece.words.len()))
                .zip(&mut totals[piece.rows.clone()])
                .zip(found[of_rows.clone()].par_chunks_mut(asked))
                .zip(self.asked.words[of_rows].par_chunks(asked));
            rows.for_each(|(((logits, total), found), asked)| {
                let more = vectorised(
                    #[inline(always)]
                    || log_total(logits),
                );
                // Words that are all ruled out add nothing.
                let ruled_out = |logit: &f32| *logit == f32::NEG_INFINITY;
                if !more.is_nan() || !logits.iter().all(ruled_out) {
                    *total = log_total(&[*total, more]);
                }
                for (found, i) in found.iter_mut().zip(places(asked, &piece.words)) {
                    *found = i.map_or(*found, |i| logits[i]);
                }
            });
        });
        for (found, total) in found.chunks_mut(asked).zip(&totals) {
            found.iter_mut().for_each(|found| *found -= total);
        }
        (of_elements(found, [rows, asked].into()), totals)
    }

    /// The gradients of states, weight and bias, where they are `wanted`.
    pub fn gradients(
        &self,
        totals: &[f32],
        dy: FlexTensor,
        wanted: [bool; 3],
    ) -> [Option<FlexTensor>; 3] {
        let dy = contiguous(dy);
        let asked = self.asked.of_each;
        let sizes = [&self.states, &self.weight, &self.bias].map(|x| slice(x).len());
        let [mut by_state, mut by_weight, mut by_bias] =
            std::array::from_fn(|i| wanted[i].then(|| vec![0.0; sizes[i]]));
        let width = self.states().columns();
        self.each_piece(|piece| {
            let of_rows = piece.rows.start * asked..piece.rows.end * asked;
            let rows = (piece.logits.par_chunks_mut(piece.words.len()))
                .zip(&totals[piece.rows.clone()])
                .zip(slice(&dy)[of_rows.clone()].par_chunks(asked))
                .zip(self.asked.words[of_rows].par_chunks(asked));
            rows.for_each(|(((logits, total), dy), asked)| {
                vectorised(
                    #[inline(always)]
                    || logit_gradient(logits, *total, dy.iter().sum()),
                );
                for (dy, i) in dy.iter().zip(places(asked, &piece.words)) {
                    if let Some(i) = i {
                        logits[i] = flushed(logits[i] + dy);
                    }
                }
            });
            let by_logit = Matrix::new(piece.logits, [piece.rows.len(), piece.words.len()]);
            let product = |a, b, y: &mut [f32], first| {
                let start = if first == 0 {
                    Start::Nothing
                } else {
                    Start::Before
                };
                multiply(a, b, y, width, start, Cores::All);
            };
            if let Some(by_state) = &mut by_state {
                let y = &mut by_state[piece.rows.start * width..];
                let weight = self.weight().some(piece.words.clone());
                product(by_logit, weight, y, piece.words.start);
            }
            if let Some(by_weight) = &mut by_weight {
                let y = &mut by_weight[piece.words.start * width..];
                let states = self.states().some(piece.rows.clone());
                product(by_logit.transposed(), states, y, piece.rows.start);
            }
            if let Some(by_bias) = &mut by_bias {
                add_rows(piece.logits, &mut by_bias[piece.words.clone()]);
            }
        });
        let gradient = |numbers: Option<Vec<f32>>, of: &FlexTensor| {
            numbers.map(|numbers| of_elements(numbers, of.layout().shape().clone()))
        };
        [
            gradient(by_state, &self.states),
            gradient(by_weight, &self.weight),
            gradient(by_bias, &self.bias),
        ]
    }

    fn each_piece(&self, mut visit: impl FnMut(Piece<'_>)) {
        let [most_rows, most_words] = LOGITS_AT_ONCE;
        let (rows, words) = (self.states().rows(), self.weight().rows());
        let bias = slice(&self.bias);
        let mut logits = vec![0.0; rows.min(most_rows) * words.min(most_words)];
        for first_row in (0..rows).step_by(most_rows) {
            let rows = first_row..rows.min(first_row + most_rows);
            for first in (0..words).step_by(most_words) {
                let words = first..words.min(first + most_words);
                let logits = &mut logits[..rows.len() * words.len()];
                multiply(
                    self.states().some(rows.clone()),
                    self.weight().some(words.clone()).transposed(),
                    logits,
                    words.len(),
                    Start::bias(bias.get(words.clone()).unwrap_or_default()),
                    Cores::All,
                );
                visit(Piece {
                    rows: rows.clone(),
                    words,
                    logits,
                });
            }
        }
    }

    fn states(&self) -> Matrix<'_> {
        Matrix::of(&self.states)
    }

    fn weight(&self) -> Matrix<'_> {
        Matrix::of(&self.weight)
    }
}

/// Where among `words` those are that are asked for, if they are.
fn places(asked: &[usize], words: &Range<usize>) -> impl Iterator<Item = Option<usize>> {
    let (first, count) = (words.start, words.len());
    let place = move |word: &usize| word.checked_sub(first).filter(|&i| i < count);
    asked.iter().map(place)
}
