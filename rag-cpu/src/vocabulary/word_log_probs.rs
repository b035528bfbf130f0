//! Log-probabilities of a few words out of a vocabulary. The logits of all words are there for some rows and words at a
//! time only, and computed again for the gradients (Wijmans et al. 2024, arXiv 2411.09009).

use std::{ops::Range, sync::Arc};

use burn::{
    backend::{
        Autodiff, Backend, Dispatch, Flex,
        autodiff::{
            NodeId,
            checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
            grads::Gradients,
            ops::{Backward, Ops, OpsKind},
        },
        backend_extension,
        flex::FlexTensor,
        tensor::FloatTensor,
    },
    tensor::{Int, Tensor},
};
use rayon::prelude::*;

use super::log_softmax::log_sum_exp;
use crate::{
    flex::{contiguous, matrix, of_elements, register, serves, slice},
    math::{exp, flushed},
    matrix::{Cores, Initial, Matrix},
    processor::Processor,
    product::multiply,
    tasks::add_rows,
};

/// Rows and words whose logits [`word_log_probs`] has in memory at once.
pub const LOGITS_AT_ONCE: [usize; 2] = [1024, 4096];

/// log softmax(x Wᵀ + b) of some words: of `states` `[rows, d_input]`, `weight` `[vocabulary, d_input]` and `words`
/// `[rows, asked]`, `[rows, asked]`. The logits of the whole vocabulary are never in memory at once, in either direction.
/// `None` where a tensor does not [serve](crate::serves), or no word is asked for.
///
/// # Panics
/// If a word is beyond the vocabulary.
pub fn word_log_probs(
    states: &Tensor<2>,
    weight: &Tensor<2>,
    bias: Option<&Tensor<1>>,
    words: &Tensor<2, Int>,
) -> Option<Tensor<2>> {
    let taken = serves(states) && serves(weight) && bias.is_none_or(serves);
    let [rows, of_each] = words.dims();
    if !taken || rows * of_each == 0 {
        return None;
    }
    let words = words.to_data();
    let words = words.iter::<i64>().map(|word| word as usize).collect();
    let bias = bias.cloned();
    let bias = bias.unwrap_or_else(|| Tensor::empty([0], &states.device()));
    Some(Tensor::from_dispatch(
        <Dispatch as WordsOp>::cpu_word_log_probs(
            states.clone().into_dispatch(),
            weight.clone().into_dispatch(),
            bias.into_dispatch(),
            Asked { words, of_each },
        ),
    ))
}

/// The words that are asked for, the same number of each row.
#[derive(Clone, Debug)]
pub struct Asked {
    words: Arc<[usize]>,
    of_each: usize,
}

#[backend_extension(Autodiff, Flex)]
pub trait WordsOp: Backend {
    /// See [`word_log_probs`]; `bias` is `[0]` for none.
    fn cpu_word_log_probs(
        states: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        asked: Asked,
    ) -> FloatTensor<Self>;
}

impl WordsOp for Flex {
    fn cpu_word_log_probs(
        states: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        asked: Asked,
    ) -> FlexTensor {
        Head::new([states, weight, bias], asked).log_probs().0
    }
}

impl<C: CheckpointStrategy> WordsOp for Autodiff<Flex, C> {
    fn cpu_word_log_probs(
        states: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        asked: Asked,
    ) -> FloatTensor<Self> {
        match Step
            .prepare::<C>([states.node(), weight.node(), bias.node()])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(mut step) => {
                let kept = step.checkpoint(&states);
                let parameters = [weight.into_primitive(), bias.into_primitive()];
                let [weight, bias] = parameters.clone();
                let head = Head::new([states.into_primitive(), weight, bias], asked.clone());
                let (found, totals) = head.log_probs();
                step.finish((kept, parameters, asked, totals), found)
            }
            OpsKind::UnTracked(step) => step.finish(Flex::cpu_word_log_probs(
                states.into_primitive(),
                weight.into_primitive(),
                bias.into_primitive(),
                asked,
            )),
        }
    }
}

#[derive(Debug)]
struct Step;

impl Backward<Flex, 3> for Step {
    /// States, weight and bias, the words, and log Σ eˣ over the logits of each row.
    type State = (NodeId, [FlexTensor; 2], Asked, Vec<f32>);

    fn backward(
        self,
        ops: Ops<Self::State, 3>,
        gradients: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let (states, [weight, bias], asked, totals) = ops.state;
        let states = checkpointer.retrieve_node_output(states);
        let dy = gradients.consume::<Flex>(&ops.node);
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let head = Head::new([states, weight, bias], asked);
        let parents = ops.parents.map(|parent| Some(parent?.id));
        register(gradients, parents, head.gradients(&totals, dy, wanted));
    }
}

/// States `[rows, d_input]`, and the head's weight `[words, d_input]` and bias, `[words]` or `[0]` for none.
struct Head {
    processor: Processor,
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
    fn new(tensors: [FlexTensor; 3], asked: Asked) -> Self {
        let [states, weight, bias] = tensors.map(contiguous);
        let head = Self {
            processor: Processor::current(),
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
    fn log_probs(&self) -> (FlexTensor, Vec<f32>) {
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
                let more = self.processor.vectorise(
                    #[inline(always)]
                    || log_sum_exp(logits),
                );
                // Words that are all ruled out add nothing.
                let ruled_out = |logit: &f32| *logit == f32::NEG_INFINITY;
                if !more.is_nan() || !logits.iter().all(ruled_out) {
                    *total = log_sum_exp(&[*total, more]);
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
    fn gradients(
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
                self.processor.vectorise(
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
                let initial = if first == 0 {
                    Initial::Zero
                } else {
                    Initial::Previous
                };
                multiply(self.processor, a, b, y, width, initial, Cores::All);
            };
            if let Some(by_state) = &mut by_state {
                let y = &mut by_state[piece.rows.start * width..];
                let weight = self.weight().row_range(piece.words.clone());
                product(by_logit, weight, y, piece.words.start);
            }
            if let Some(by_weight) = &mut by_weight {
                let y = &mut by_weight[piece.words.start * width..];
                let states = self.states().row_range(piece.rows.clone());
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
                    self.processor,
                    self.states().row_range(rows.clone()),
                    self.weight().row_range(words.clone()).transposed(),
                    logits,
                    words.len(),
                    Initial::bias(bias.get(words.clone()).unwrap_or_default()),
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
        matrix(&self.states)
    }

    fn weight(&self) -> Matrix<'_> {
        matrix(&self.weight)
    }
}

/// The share of the log-softmax's total in dL/dx, −e^(x − log Σ eˣ) Σ dL/dy, instead of x.
#[inline(always)]
fn logit_gradient(x: &mut [f32], log_total: f32, sum: f32) {
    for x in x {
        *x = flushed(-sum * exp(*x - log_total));
    }
}

/// The index of each word that is asked for in the range `words`, if it is there.
fn places(asked: &[usize], words: &Range<usize>) -> impl Iterator<Item = Option<usize>> {
    let (first, count) = (words.start, words.len());
    let place = move |word: &usize| word.checked_sub(first).filter(|&i| i < count);
    asked.iter().map(place)
}
