//! Attention with gradients. Its weights, `[rows, heads, length, memory length]` numbers, are in memory for one head of a row
//! at a time, and computed again for the gradients (as FlashAttention does, Dao et al. 2022, arXiv 2205.14135).

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
        ops::FloatTensorOps,
        tensor::FloatTensor,
    },
    tensor::Tensor,
};
use rayon::prelude::*;

use super::heads::Bias;
use crate::{
    activation::{Mask, drop_some, softmax_row, softmax_row_gradient},
    flex::{contiguous, of_elements, register, slice},
    matrix::{Cores, Initial, Matrix},
    processor::Processor,
    product::multiply,
    view::View,
};

/// See [`super::attention`].
pub(super) fn attend(
    queries: Tensor<3>,
    [keys, values]: [Tensor<4>; 2],
    bias: Option<Tensor<4>>,
    settings: Settings,
) -> Tensor<3> {
    let bias = bias.unwrap_or_else(|| Tensor::empty([0; 4], &queries.device()));
    Tensor::from_dispatch(<Dispatch as AttentionOp>::cpu_attention(
        queries.into_dispatch(),
        keys.into_dispatch(),
        values.into_dispatch(),
        bias.into_dispatch(),
        settings,
    ))
}

#[backend_extension(Autodiff, Flex)]
pub trait AttentionOp: Backend {
    /// `bias` is `[0, 0, 0, 0]` for none.
    fn cpu_attention(
        queries: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        settings: Settings,
    ) -> FloatTensor<Self>;
}

impl AttentionOp for Flex {
    fn cpu_attention(
        queries: FlexTensor,
        keys: FlexTensor,
        values: FlexTensor,
        bias: FlexTensor,
        settings: Settings,
    ) -> FlexTensor {
        Operands::new([queries, keys, values, bias], settings).attend()
    }
}

impl<C: CheckpointStrategy> AttentionOp for Autodiff<Flex, C> {
    fn cpu_attention(
        queries: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        settings: Settings,
    ) -> FloatTensor<Self> {
        let nodes = [queries.node(), keys.node(), values.node(), bias.node()];
        match Step.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(mut step) => {
                let kept = [&queries, &keys, &values].map(|operand| step.checkpoint(operand));
                let bias = bias.into_primitive();
                let y = Flex::cpu_attention(
                    queries.into_primitive(),
                    keys.into_primitive(),
                    values.into_primitive(),
                    bias.clone(),
                    settings,
                );
                step.finish((kept, bias, settings), y)
            }
            OpsKind::UnTracked(step) => step.finish(Flex::cpu_attention(
                queries.into_primitive(),
                keys.into_primitive(),
                values.into_primitive(),
                bias.into_primitive(),
                settings,
            )),
        }
    }
}

#[derive(Debug)]
struct Step;

impl Backward<Flex, 4> for Step {
    /// Queries, keys and values; the bias; and the settings.
    type State = ([NodeId; 3], FlexTensor, Settings);

    fn backward(
        self,
        ops: Ops<Self::State, 4>,
        gradients: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let (kept, bias, settings) = ops.state;
        let [queries, keys, values] = kept.map(|node| checkpointer.retrieve_node_output(node));
        let dy = gradients.consume::<Flex>(&ops.node);
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let operands = Operands::new([queries, keys, values, bias], settings);
        let parents = ops.parents.map(|parent| Some(parent?.id));
        register(gradients, parents, operands.gradients(dy, wanted));
    }
}

/// The settings of attention, beside its tensors.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The factor of the scores.
    pub scale: f32,
    /// Which weights are dropped.
    pub mask: Option<Mask>,
}

/// Queries `[rows, length, heads · d_head]`, keys and values `[rows, heads, memory length, d_head]`, and the bias of the
/// scores, if there is one.
struct Operands {
    processor: Processor,
    queries: View<3>,
    keys: View<4>,
    values: View<4>,
    bias: Option<Bias>,
    settings: Settings,
    rows: usize,
    length: usize,
    heads: usize,
    memory: usize,
    d_head: usize,
}

impl Operands {
    fn new(tensors: [FlexTensor; 4], settings: Settings) -> Self {
        let [queries, keys, values, bias] = tensors;
        let [rows, heads, memory, d_head] = *keys.layout().shape().as_slice() else {
            panic!("keys have four dimensions");
        };
        let [found_rows, length, inner] = *queries.layout().shape().as_slice() else {
            panic!("queries have three dimensions");
        };
        assert_eq!(
            [found_rows, inner],
            [rows, heads * d_head],
            "queries for these keys"
        );
        assert_eq!(
            values.layout().shape(),
            keys.layout().shape(),
            "values for these keys"
        );
        let biased = bias.layout().num_elements() > 0;
        let widest = bias.layout().shape().last().copied();
        assert!(
            !biased || widest == Some(memory),
            "a bias for each of {memory} keys"
        );
        Self {
            processor: Processor::current(),
            queries: View::new(queries),
            keys: View::new(keys),
            values: View::new(values),
            bias: biased.then(|| Bias::new(bias)),
            settings,
            rows,
            length,
            heads,
            memory,
            d_head,
        }
    }

    /// The heads' values side by side, `[rows, length, heads · d_head]`.
    fn attend(&self) -> FlexTensor {
        let inner = self.heads * self.d_head;
        let mut y = vec![0.0; self.rows * self.length * inner];
        let rows = y.par_chunks_exact_mut(self.length * inner).enumerate();
        rows.for_each_init(
            || self.scores(),
            |weights, (row, y)| {
                for head in 0..self.heads {
                    self.weigh(row, head, weights);
                    self.drop(row, head, weights);
                    let weights = Matrix::new(weights, [self.length, self.memory]);
                    self.multiply(
                        weights,
                        self.value(row, head),
                        &mut y[head * self.d_head..],
                        inner,
                    );
                }
            },
        );
        of_elements(y, [self.rows, self.length, inner].into())
    }

    /// The gradients of queries, keys, values, and what was added to the scores, where they are `wanted`.
    fn gradients(&self, dy: FlexTensor, wanted: [bool; 4]) -> [Option<FlexTensor>; 4] {
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
        // One number a row of what nobody asks for.
        let of_row = |wanted: bool, numbers: usize| if wanted { numbers } else { 1 };
        let sizes = [
            of_row(wanted[0], length * inner),
            of_row(wanted[1], memory * inner),
            of_row(wanted[2], memory * inner),
            of_row(wanted[3], self.biases_of_row()),
        ];
        let [mut dqueries, mut dkeys, mut dvalues, mut dbias] =
            sizes.map(|size| vec![0.0; rows * size]);
        (dqueries.par_chunks_exact_mut(sizes[0]))
            .zip(dkeys.par_chunks_exact_mut(sizes[1]))
            .zip(dvalues.par_chunks_exact_mut(sizes[2]))
            .zip(dbias.par_chunks_exact_mut(sizes[3]))
            .zip(slice(&dy).par_chunks_exact(length * inner))
            .enumerate()
            .for_each_init(
                || [self.scores(), self.scores(), self.scores()],
                |scratch, (row, ((((dqueries, dkeys), dvalues), dbias), dy))| {
                    let [weights, dropped, dscores] = scratch;
                    for head in 0..heads {
                        let first = head * d_head;
                        let dy = Matrix::with_stride(&dy[first..], [length, d_head], inner);
                        self.weigh(row, head, weights);
                        if wanted[2] {
                            dropped.copy_from_slice(weights);
                            self.drop(row, head, dropped);
                            let dropped = Matrix::new(dropped, [length, memory]).transposed();
                            self.multiply(dropped, dy, &mut dvalues[first..], inner);
                        }
                        self.multiply(dy, self.value(row, head).transposed(), dscores, memory);
                        self.drop(row, head, dscores);
                        self.processor.vectorise(
                            #[inline(always)]
                            || {
                                let rows = dscores.chunks_exact_mut(memory);
                                for (dy, y) in rows.zip(weights.chunks_exact(memory)) {
                                    softmax_row_gradient(dy, y);
                                }
                            },
                        );
                        if wanted[3] {
                            self.add_to_bias(head, dscores, dbias);
                        }
                        dscores.iter_mut().for_each(|x| *x *= self.settings.scale);
                        let dscores = Matrix::new(dscores, [length, memory]);
                        if wanted[0] {
                            let key = self.key(row, head);
                            self.multiply(dscores, key, &mut dqueries[first..], inner);
                        }
                        if wanted[1] {
                            let query = self.query(row, head);
                            self.multiply(dscores.transposed(), query, &mut dkeys[first..], inner);
                        }
                    }
                },
            );
        // As they came: heads are split off a row of all of them.
        let split = |gradient| {
            let gradient = of_elements(gradient, [rows, memory, heads, d_head].into());
            Flex::float_swap_dims(gradient, 1, 2)
        };
        [
            wanted[0].then(|| of_elements(dqueries, [rows, length, inner].into())),
            wanted[1].then(|| split(dkeys)),
            wanted[2].then(|| split(dvalues)),
            wanted[3].then(|| self.bias_gradient(dbias)),
        ]
    }

    /// Room for the scores of a head of a row.
    fn scores(&self) -> Vec<f32> {
        vec![0.0; self.length * self.memory]
    }

    /// Many rows are work for all cores by themselves.
    fn multiply(&self, a: Matrix<'_>, b: Matrix<'_>, y: &mut [f32], stride: usize) {
        let cores = match self.rows >= rayon::current_num_threads() {
            true => Cores::One,
            false => Cores::All,
        };
        multiply(self.processor, a, b, y, stride, Initial::Zero, cores);
    }

    /// The weights of a head's values, before any of them is dropped.
    fn weigh(&self, row: usize, head: usize, weights: &mut [f32]) {
        let key = self.key(row, head).transposed();
        self.multiply(self.query(row, head), key, weights, self.memory);
        self.processor.vectorise(
            #[inline(always)]
            || {
                for (i, scores) in weights.chunks_exact_mut(self.memory).enumerate() {
                    let scale = self.settings.scale;
                    match &self.bias {
                        Some(bias) => {
                            let bias = bias.of(row, head, i);
                            for (score, bias) in scores.iter_mut().zip(bias) {
                                *score = *score * scale + bias;
                            }
                        }
                        None => scores.iter_mut().for_each(|score| *score *= scale),
                    }
                    softmax_row(scores);
                }
            },
        );
    }

    fn drop(&self, row: usize, head: usize, weights: &mut [f32]) {
        if let Some(mask) = self.settings.mask {
            let first = (row * self.heads + head) * weights.len();
            self.processor.vectorise(
                #[inline(always)]
                || drop_some(weights, first, mask),
            );
        }
    }

    fn query(&self, row: usize, head: usize) -> Matrix<'_> {
        let elements = self.queries.from([row, 0, head * self.d_head]);
        Matrix::with_stride(
            elements,
            [self.length, self.d_head],
            self.queries.strides[1],
        )
    }

    fn key(&self, row: usize, head: usize) -> Matrix<'_> {
        self.of_memory(&self.keys, row, head)
    }

    fn value(&self, row: usize, head: usize) -> Matrix<'_> {
        self.of_memory(&self.values, row, head)
    }

    fn of_memory<'a>(&self, of: &'a View<4>, row: usize, head: usize) -> Matrix<'a> {
        let elements = of.from([row, head, 0, 0]);
        Matrix::with_stride(elements, [self.memory, self.d_head], of.strides[2])
    }

    /// See [`Bias`].
    fn bias_shape(&self) -> [usize; 4] {
        self.bias
            .as_ref()
            .map(|bias| bias.shape)
            .unwrap_or_default()
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
