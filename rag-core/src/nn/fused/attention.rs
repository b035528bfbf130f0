//! Attention with gradients on the CPU. Its weights, `[rows, heads, length, memory length]` numbers, are there for one
//! head of a row at a time, and computed again on the way back (as FlashAttention does, Dao et al. 2022).

use burn::backend::{Flex, flex::FlexTensor, ops::FloatTensorOps};
use rayon::prelude::*;

use super::{
    super::attend::View,
    cpu::{contiguous, of_elements, slice},
    kernels::{drop_some, softmax_row, softmax_row_gradient, vectorised},
    product::{Matrix, multiply_add},
};

/// What attention needs to know beside its tensors.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// What scores are multiplied with.
    pub scale: f32,
    /// The probability to drop a weight, and the seed of the mask.
    pub dropout: Option<(f32, [u32; 2])>,
}

/// Queries `[rows, length, heads · d_head]`, keys and values `[rows, heads, memory length, d_head]`, and what is added
/// to the scores, `[rows | 1, heads | 1, length | 1, memory length]`, if anything is.
pub struct Operands {
    queries: View<3>,
    keys: View<4>,
    values: View<4>,
    bias: Option<View<4>>,
    settings: Settings,
    rows: usize,
    length: usize,
    heads: usize,
    memory: usize,
    d_head: usize,
}

impl Operands {
    pub fn new(tensors: [FlexTensor; 4], settings: Settings) -> Self {
        let [queries, keys, values, bias] = tensors;
        let [rows, heads, memory, d_head] = *keys.layout().shape().as_slice() else {
            panic!("keys have four dimensions");
        };
        let length = queries.layout().shape()[1];
        let biased = bias.layout().num_elements() > 0;
        Self {
            queries: View::of(queries),
            keys: View::of(keys),
            values: View::of(values),
            bias: biased.then(|| View::of(bias)),
            settings,
            rows,
            length,
            heads,
            memory,
            d_head,
        }
    }

    /// The heads' values side by side, `[rows, length, heads · d_head]`.
    pub fn attend(&self) -> FlexTensor {
        let inner = self.heads * self.d_head;
        let mut y = vec![0.0; self.rows * self.length * inner];
        let rows = y.par_chunks_exact_mut(self.length * inner).enumerate();
        rows.for_each(|(row, y)| {
            let mut weights = vec![0.0; self.length * self.memory];
            for head in 0..self.heads {
                self.weigh(row, head, &mut weights);
                self.drop(row, head, &mut weights);
                let weights = Matrix::new(&weights, [self.length, self.memory]);
                let y = &mut y[head * self.d_head..];
                multiply_add(weights, self.value(row, head), y, inner, false);
            }
        });
        of_elements(y, [self.rows, self.length, inner].into())
    }

    /// The gradients of queries, keys, values and, where it is asked for, of what was added to the scores.
    pub fn gradients(&self, dy: FlexTensor, biased: bool) -> [Option<FlexTensor>; 4] {
        let Self {
            rows,
            length,
            heads,
            memory,
            d_head,
            ..
        } = *self;
        let inner = heads * d_head;
        let dy = contiguous(dy);
        let mut dqueries = vec![0.0; rows * length * inner];
        let [mut dkeys, mut dvalues] = [(); 2].map(|()| vec![0.0; rows * memory * inner]);
        // One number a row where nobody asks for more.
        let of_row = if biased { self.biases_of_row() } else { 1 };
        let mut dbias = vec![0.0; rows * of_row];
        (dqueries.par_chunks_exact_mut(length * inner))
            .zip(dkeys.par_chunks_exact_mut(memory * inner))
            .zip(dvalues.par_chunks_exact_mut(memory * inner))
            .zip(slice(&dy).par_chunks_exact(length * inner))
            .zip(dbias.par_chunks_exact_mut(of_row))
            .enumerate()
            .for_each(|(row, ((((dqueries, dkeys), dvalues), dy), dbias))| {
                let [mut weights, mut dropped, mut dscores] =
                    [(); 3].map(|()| vec![0.0; length * memory]);
                for head in 0..heads {
                    let first = head * d_head;
                    let dy = Matrix::apart(&dy[first..], [length, d_head], inner);
                    self.weigh(row, head, &mut weights);
                    dropped.copy_from_slice(&weights);
                    self.drop(row, head, &mut dropped);
                    let dropped = Matrix::new(&dropped, [length, memory]);
                    multiply_add(
                        dropped.transposed(),
                        dy,
                        &mut dvalues[first..],
                        inner,
                        false,
                    );
                    let value = self.value(row, head).transposed();
                    multiply_add(dy, value, &mut dscores, memory, false);
                    self.drop(row, head, &mut dscores);
                    vectorised(|| {
                        let rows = dscores.chunks_exact_mut(memory);
                        rows.zip(weights.chunks_exact(memory))
                            .for_each(|(dy, y)| softmax_row_gradient(dy, y));
                    });
                    if biased {
                        self.add_to_bias(head, &dscores, dbias);
                    }
                    dscores.iter_mut().for_each(|x| *x *= self.settings.scale);
                    let dscores = Matrix::new(&dscores, [length, memory]);
                    let (query, key) = (self.query(row, head), self.key(row, head));
                    multiply_add(dscores, key, &mut dqueries[first..], inner, false);
                    multiply_add(
                        dscores.transposed(),
                        query,
                        &mut dkeys[first..],
                        inner,
                        false,
                    );
                }
            });
        // As they came: heads are split off a row of all of them.
        let split = |gradient| {
            let gradient = of_elements(gradient, [rows, memory, heads, d_head].into());
            Flex::float_swap_dims(gradient, 1, 2)
        };
        [
            Some(of_elements(dqueries, [rows, length, inner].into())),
            Some(split(dkeys)),
            Some(split(dvalues)),
            biased.then(|| self.bias_gradient(dbias)),
        ]
    }

    /// The weights of a head's values, before any of them is dropped.
    fn weigh(&self, row: usize, head: usize, weights: &mut [f32]) {
        let key = self.key(row, head).transposed();
        multiply_add(self.query(row, head), key, weights, self.memory, false);
        vectorised(|| {
            for (i, scores) in weights.chunks_exact_mut(self.memory).enumerate() {
                let scale = self.settings.scale;
                match &self.bias {
                    Some(bias) => {
                        let bias = bias.from([row, head, i, 0]);
                        let scores = scores.iter_mut().zip(bias);
                        scores.for_each(|(score, bias)| *score = *score * scale + bias);
                    }
                    None => scores.iter_mut().for_each(|score| *score *= scale),
                }
                softmax_row(scores);
            }
        });
    }

    fn drop(&self, row: usize, head: usize, weights: &mut [f32]) {
        if let Some((probability, seed)) = self.settings.dropout {
            let first = (row * self.heads + head) * weights.len();
            vectorised(|| drop_some(weights, first, probability, seed));
        }
    }

    fn query(&self, row: usize, head: usize) -> Matrix<'_> {
        let numbers = self.queries.from([row, 0, head * self.d_head]);
        Matrix::apart(numbers, [self.length, self.d_head], self.queries.strides[1])
    }

    fn key(&self, row: usize, head: usize) -> Matrix<'_> {
        self.remembered(&self.keys, row, head)
    }

    fn value(&self, row: usize, head: usize) -> Matrix<'_> {
        self.remembered(&self.values, row, head)
    }

    fn remembered<'a>(&self, of: &'a View<4>, row: usize, head: usize) -> Matrix<'a> {
        let numbers = of.from([row, head, 0, 0]);
        Matrix::apart(numbers, [self.memory, self.d_head], of.strides[2])
    }

    /// `[rows | 1, heads | 1, length | 1, memory length]`.
    fn bias_shape(&self) -> [usize; 4] {
        let shape = self.bias.as_ref().map(View::shape);
        shape.unwrap_or_default()
    }

    /// Numbers of the bias that a row sees.
    fn biases_of_row(&self) -> usize {
        self.bias_shape()[1..].iter().product()
    }

    fn add_to_bias(&self, head: usize, dscores: &[f32], dbias: &mut [f32]) {
        let [_, heads, length, memory] = self.bias_shape();
        for (i, dscores) in dscores.chunks_exact(memory).enumerate() {
            let at = (head % heads * length + i % length) * memory;
            let dbias = dbias[at..at + memory].iter_mut();
            dbias.zip(dscores).for_each(|(sum, dscore)| *sum += dscore);
        }
    }

    /// Of what each row found.
    fn bias_gradient(&self, found: Vec<f32>) -> FlexTensor {
        let shape = self.bias_shape();
        if shape[0] == self.rows {
            return of_elements(found, shape.into());
        }
        let mut sum = vec![0.0; self.biases_of_row()];
        for found in found.chunks_exact(sum.len()) {
            sum.iter_mut()
                .zip(found)
                .for_each(|(sum, dbias)| *sum += dbias);
        }
        of_elements(sum, shape.into())
    }
}
