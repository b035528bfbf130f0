//! Layer norm, (x − μ) / √(σ² + ε) · γ + β (Ba et al. 2016, arXiv 1607.06450).

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
    tensor::Tensor,
};
use rayon::prelude::*;

use crate::{
    flex::{contiguous, of_elements, primitive, register, slice, width},
    math::flushed,
    processor::Processor,
    reduce::{sum, sum_of_both},
    tasks::{each_task, each_task_with, owned, tasks},
};

/// The norm over the last dimension of a tensor that [`serves`](crate::serves), with γ and β of its width.
pub fn layer_norm<const D: usize>(
    x: Tensor<D>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    epsilon: f64,
) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as LayerNormOp>::cpu_layer_norm(
        x.into_dispatch(),
        gamma.into_dispatch(),
        beta.into_dispatch(),
        epsilon,
    ))
}

/// The norm of x + y, where both [serve](crate::serves) and nobody asks for gradients.
pub fn layer_norm_of_sum<const D: usize>(
    [x, y]: [Tensor<D>; 2],
    gamma: Tensor<1>,
    beta: Tensor<1>,
    epsilon: f64,
) -> Tensor<D> {
    let shape = x.dims();
    assert_eq!(shape, y.dims(), "tensors of one shape");
    let vectors = of_width([gamma, beta].map(primitive), shape[D - 1]);
    let [gamma, beta] = vectors.each_ref().map(slice);
    let norms = each_task_with(
        Processor::current(),
        primitive(x),
        &primitive(y),
        shape[D - 1],
        #[inline(always)]
        |x, y| {
            for (x, y) in x.iter_mut().zip(y) {
                *x += y;
            }
            normalise(x, gamma, beta, epsilon as f32);
        },
    );
    Tensor::from_primitive::<Flex>(norms)
}

#[backend_extension(Autodiff, Flex)]
pub trait LayerNormOp: Backend {
    fn cpu_layer_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self>;
}

impl LayerNormOp for Flex {
    fn cpu_layer_norm(
        x: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        epsilon: f64,
    ) -> FlexTensor {
        let width = width(&x);
        let vectors = of_width([gamma, beta], width);
        let [gamma, beta] = vectors.each_ref().map(slice);
        each_task(
            Processor::current(),
            x,
            width,
            #[inline(always)]
            |_, x| normalise(x, gamma, beta, epsilon as f32),
        )
    }
}

impl<C: CheckpointStrategy> LayerNormOp for Autodiff<Flex, C> {
    fn cpu_layer_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        let forward = |x, gamma, beta| Flex::cpu_layer_norm(x, gamma, beta, epsilon);
        match Step
            .prepare::<C>([x.node(), gamma.node(), beta.node()])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(mut step) => {
                let input = step.checkpoint(&x);
                let (gamma, beta) = (gamma.into_primitive(), beta.into_primitive());
                let y = forward(x.into_primitive(), gamma.clone(), beta);
                step.finish((input, gamma, epsilon), y)
            }
            OpsKind::UnTracked(step) => step.finish(forward(
                x.into_primitive(),
                gamma.into_primitive(),
                beta.into_primitive(),
            )),
        }
    }
}

#[derive(Debug)]
struct Step;

impl Backward<Flex, 3> for Step {
    /// x, γ and ε.
    type State = (NodeId, FlexTensor, f64);

    fn backward(
        self,
        ops: Ops<Self::State, 3>,
        gradients: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let (x, gamma, epsilon) = ops.state;
        let x = checkpointer.retrieve_node_output(x);
        let dy = gradients.consume::<Flex>(&ops.node);
        let found = gradients_of(Processor::current(), x, &gamma, dy, epsilon as f32);
        let parents = ops.parents.map(|parent| Some(parent?.id));
        register(gradients, parents, found.map(Some));
    }
}

/// Vectors of f32 with an element for each column.
fn of_width(vectors: [FlexTensor; 2], width: usize) -> [FlexTensor; 2] {
    let vectors = vectors.map(contiguous);
    for vector in &vectors {
        let numbers = vector.as_slice::<f32>().map(<[f32]>::len);
        assert_eq!(numbers, Some(width), "f32 numbers for rows of {width}");
    }
    vectors
}

/// dL/dx, dL/dγ and dL/dβ.
fn gradients_of(
    processor: Processor,
    x: FlexTensor,
    gamma: &FlexTensor,
    dy: FlexTensor,
    epsilon: f32,
) -> [FlexTensor; 3] {
    let gamma = gamma.to_contiguous();
    let gamma = slice(&gamma);
    let width = gamma.len();
    let x = contiguous(x);
    let mut dx = owned(processor, dy);
    let (_, task) = tasks(dx.layout().num_elements(), width);
    // Partial sums are added in the tasks' order, whichever core finishes first: the same in every run.
    let partial: Vec<Vec<f32>> = dx
        .storage_mut::<f32>()
        .par_chunks_mut(task)
        .zip(slice(&x).par_chunks(task))
        .map(|(dy, x)| {
            let mut sums = vec![0.0; 2 * width];
            processor.vectorise(
                #[inline(always)]
                || normalise_gradient(dy, x, gamma, epsilon, &mut sums),
            );
            sums
        })
        .collect();
    let mut sums = vec![0.0; 2 * width];
    for partial in &partial {
        for (sum, partial) in sums.iter_mut().zip(partial) {
            *sum += partial;
        }
    }
    let dbeta = sums.split_off(width);
    let vector = |sums| of_elements(sums, [width].into());
    [dx, vector(sums), vector(dbeta)]
}

#[inline(always)]
fn normalise(x: &mut [f32], gamma: &[f32], beta: &[f32], epsilon: f32) {
    let size = gamma.len() as f32;
    for x in x.chunks_exact_mut(gamma.len()) {
        let mean = sum(x, |x| x) / size;
        let variance = sum(x, |x| (x - mean) * (x - mean)) / size;
        let scale = 1.0 / (variance + epsilon).sqrt();
        for ((x, gamma), beta) in x.iter_mut().zip(gamma).zip(beta) {
            *x = (*x - mean) * scale * gamma + beta;
        }
    }
}

/// With x̂ = (x − μ) / σ and g = dy γ, dx = (g − mean(g) − x̂ mean(g x̂)) / σ, dγ = Σ dy x̂ and dβ = Σ dy.
#[inline(always)]
fn normalise_gradient(dy: &mut [f32], x: &[f32], gamma: &[f32], epsilon: f32, sums: &mut [f32]) {
    let width = gamma.len();
    let (dgamma, dbeta) = sums.split_at_mut(width);
    for (dy, x) in dy.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
        let size = width as f32;
        let mean = sum(x, |x| x) / size;
        let variance = sum(x, |x| (x - mean) * (x - mean)) / size;
        let scale = 1.0 / (variance + epsilon).sqrt();
        for i in 0..width {
            dgamma[i] += dy[i] * (x[i] - mean) * scale;
            dbeta[i] += dy[i];
            dy[i] *= gamma[i];
        }
        let mean_g = sum(dy, |g| g) / size;
        let mean_gx = sum_of_both(dy, x, |g, x| g * (x - mean) * scale) / size;
        for (dy, x) in dy.iter_mut().zip(x) {
            *dy = flushed(scale * (*dy - mean_g - (x - mean) * scale * mean_gx));
        }
    }
}
