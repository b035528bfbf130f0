//! What Burn's CPU backend learns: passes over all cores, and their gradients.

use burn::{
    backend::{
        Autodiff, Backend, Dispatch, Flex,
        autodiff::{
            NodeId,
            checkpoint::{
                base::Checkpointer, retro_forward::RetroForward, state::BackwardStates,
                strategy::CheckpointStrategy,
            },
            grads::Gradients,
            ops::{Backward, Ops, OpsKind, unary},
        },
        backend_extension,
        flex::{FlexTensor, Layout},
        tensor::FloatTensor,
    },
    tensor::{Bytes, DType, Device, Distribution, Element, Int, Shape, Tensor},
};
use bytemuck::Pod;
use half::bf16;
use rayon::prelude::*;

use super::{
    super::KeysValues,
    AdamWStep,
    attention::{Operands, Settings},
    kernels::{
        Moment, adamw_update, drop_some, gelu, gelu_gradient, layer_norm, layer_norm_gradient,
        log_softmax_row, log_softmax_row_gradient, softmax_row, softmax_row_gradient, vectorised,
    },
    product::{Matrix, Start, product},
    words::{Asked, Head},
};

/// Columns of a task that are summed up.
const SUMS: usize = 512;

/// Elements of a task: what fits the second-level cache twice over.
const TASK: usize = 16 * 1024;

/// A function of one tensor.
#[derive(Clone, Copy, Debug)]
pub enum Pass {
    Gelu,
    /// Over the last dimension, as the next.
    Softmax,
    LogSoftmax,
    /// With the probability to drop an element, and the seed of the mask.
    Dropout(f32, [u32; 2]),
    /// Nothing, but its result is never computed again.
    Keep,
}

/// What a backward pass needs of the forward pass.
#[derive(Clone, Debug)]
enum Kept {
    Nothing,
    Input(NodeId),
    Output(FlexTensor),
}

#[backend_extension(Autodiff, Flex)]
pub trait FusedOps: Backend {
    fn pass(x: FloatTensor<Self>, pass: Pass) -> FloatTensor<Self>;

    fn fused_layer_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self>;

    /// `x Wᵀ + b` of `[rows, d_input]`, `[d_output, d_input]` and `[d_output]`, or `[0]` for no bias.
    fn fused_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self>;

    /// See [`super::attention`]; `bias` is `[0, 0, 0, 0]` for none.
    fn fused_attention(
        queries: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        settings: Settings,
    ) -> FloatTensor<Self>;

    /// See [`super::word_log_probs`]; `bias` is `[0]` for none.
    fn fused_words(
        states: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        asked: Asked,
    ) -> FloatTensor<Self>;
}

pub fn pass<const D: usize>(x: Tensor<D>, pass: Pass) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as FusedOps>::pass(x.into_dispatch(), pass))
}

pub fn normalised<const D: usize>(
    x: Tensor<D>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    epsilon: f64,
) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as FusedOps>::fused_layer_norm(
        x.into_dispatch(),
        gamma.into_dispatch(),
        beta.into_dispatch(),
        epsilon,
    ))
}

pub fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    let bias = bias.unwrap_or_else(|| Tensor::empty([0], &x.device()));
    Tensor::from_dispatch(<Dispatch as FusedOps>::fused_linear(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
    ))
}

pub fn attention(
    queries: Tensor<3>,
    memory: KeysValues,
    bias: Option<Tensor<4>>,
    settings: Settings,
) -> Tensor<3> {
    let bias = bias.unwrap_or_else(|| Tensor::empty([0; 4], &queries.device()));
    Tensor::from_dispatch(<Dispatch as FusedOps>::fused_attention(
        queries.into_dispatch(),
        memory.keys.into_dispatch(),
        memory.values.into_dispatch(),
        bias.into_dispatch(),
        settings,
    ))
}

pub fn words(
    states: Tensor<2>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    asked: Asked,
) -> Tensor<2> {
    let bias = bias.unwrap_or_else(|| Tensor::empty([0], &states.device()));
    Tensor::from_dispatch(<Dispatch as FusedOps>::fused_words(
        states.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
        asked,
    ))
}

/// A seed from the device's own random state, so that [`Device::seed`] decides the masks.
pub fn seed(device: &Device) -> [u32; 2] {
    let any = Distribution::Uniform(0.0, f64::from(i32::MAX));
    let drawn = Tensor::<1, Int>::random([2], any, device).into_data();
    let mut numbers = drawn.iter::<i64>().map(|number| number as u32);
    std::array::from_fn(|_| numbers.next().unwrap_or_default())
}

impl FusedOps for Flex {
    fn pass(x: FlexTensor, pass: Pass) -> FlexTensor {
        let row = x.layout().shape().last().copied().unwrap_or(1);
        match pass {
            Pass::Gelu => each_task(
                x,
                1,
                #[inline(always)]
                |_, x| gelu(x),
            ),
            Pass::Softmax => each_task(
                x,
                row,
                #[inline(always)]
                |_, x| {
                    for row in x.chunks_exact_mut(row) {
                        softmax_row(row);
                    }
                },
            ),
            Pass::LogSoftmax => each_task(
                x,
                row,
                #[inline(always)]
                |_, x| {
                    for row in x.chunks_exact_mut(row) {
                        log_softmax_row(row);
                    }
                },
            ),
            Pass::Dropout(probability, seed) => each_task(
                x,
                1,
                #[inline(always)]
                |first, x| {
                    drop_some(x, first, probability, seed);
                },
            ),
            Pass::Keep => x,
        }
    }

    fn fused_layer_norm(
        x: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        epsilon: f64,
    ) -> FlexTensor {
        let row = x.layout().shape().last().copied().unwrap_or(1);
        let vectors = of_rows([gamma, beta], row);
        let [gamma, beta] = vectors.each_ref().map(slice);
        each_task(
            x,
            row,
            #[inline(always)]
            |_, x| layer_norm(x, gamma, beta, epsilon as f32),
        )
    }

    fn fused_linear(x: FlexTensor, weight: FlexTensor, bias: FlexTensor) -> FlexTensor {
        let [x, weight, bias] = [x, weight, bias].map(contiguous);
        let (x, weight) = (Matrix::of(&x), Matrix::of(&weight).transposed());
        let shape = [x.rows(), weight.columns()];
        let bias = slice(&bias);
        assert!(
            bias.is_empty() || bias.len() == shape[1],
            "a bias of {} numbers for {} outputs",
            bias.len(),
            shape[1]
        );
        let y = product(x, weight, Start::bias(bias));
        of_elements(y, shape.into())
    }

    fn fused_attention(
        queries: FlexTensor,
        keys: FlexTensor,
        values: FlexTensor,
        bias: FlexTensor,
        settings: Settings,
    ) -> FlexTensor {
        Operands::new([queries, keys, values, bias], settings).attend()
    }

    fn fused_words(
        states: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        asked: Asked,
    ) -> FlexTensor {
        Head::new([states, weight, bias], asked).log_probs().0
    }
}

impl<C: CheckpointStrategy> FusedOps for Autodiff<Flex, C> {
    fn pass(x: FloatTensor<Self>, pass: Pass) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Step;

        impl Backward<Flex, 1> for Step {
            type State = (Pass, Kept);

            fn backward(
                self,
                ops: Ops<Self::State, 1>,
                gradients: &mut Gradients,
                checkpointer: &mut Checkpointer,
            ) {
                let (pass, kept) = ops.state;
                let kept = match kept {
                    Kept::Nothing => None,
                    Kept::Input(node) => Some(checkpointer.retrieve_node_output(node)),
                    Kept::Output(output) => Some(output),
                };
                unary::<Flex, _>(ops.parents, ops.node, gradients, |dy| {
                    gradient(pass, kept, dy)
                });
            }
        }

        let step = Step.prepare::<C>([x.node()]);
        let step = match pass {
            Pass::Gelu | Pass::Dropout(..) => {
                let input = x.id();
                let again = Again { input, pass };
                step.memory_bound().retro_forward(again).parents([&x])
            }
            // What they keep is their result.
            Pass::Softmax | Pass::LogSoftmax | Pass::Keep => step.compute_bound(),
        };
        match step.stateful() {
            OpsKind::Tracked(mut step) => {
                let input = matches!(pass, Pass::Gelu).then(|| step.checkpoint(&x));
                let y = Flex::pass(x.into_primitive(), pass);
                let kept = match (pass, input) {
                    (_, Some(input)) => Kept::Input(input),
                    (Pass::Dropout(..) | Pass::Keep, _) => Kept::Nothing,
                    _ => Kept::Output(y.clone()),
                };
                step.finish((pass, kept), y)
            }
            OpsKind::UnTracked(step) => step.finish(Flex::pass(x.into_primitive(), pass)),
        }
    }

    fn fused_layer_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Step;

        impl Backward<Flex, 3> for Step {
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
                let found = layer_norm_gradients(x, &gamma, dy, epsilon as f32);
                let parents = ops.parents.map(|parent| Some(parent?.id));
                register(gradients, parents, found.map(Some));
            }
        }

        let forward = |x, gamma, beta| Flex::fused_layer_norm(x, gamma, beta, epsilon);
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

    fn fused_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Step;

        impl Backward<Flex, 3> for Step {
            type State = (Option<NodeId>, FlexTensor);

            fn backward(
                self,
                ops: Ops<Self::State, 3>,
                gradients: &mut Gradients,
                checkpointer: &mut Checkpointer,
            ) {
                let (x, weight) = ops.state;
                let x = x.map(|x| checkpointer.retrieve_node_output(x));
                let dy = gradients.consume::<Flex>(&ops.node);
                let wanted = ops.parents.each_ref().map(Option::is_some);
                let found = linear_gradients(x, weight, dy, wanted);
                let parents = ops.parents.map(|parent| Some(parent?.id));
                register(gradients, parents, found);
            }
        }

        let operands = [&x, &weight, &bias];
        let again = LinearAgain(operands.map(Operand::of));
        let tracked: Vec<_> = (operands.into_iter())
            .filter(|operand| operand.is_tracked())
            .collect();
        let weight_trains = weight.is_tracked();
        let step = Step.prepare::<C>([x.node(), weight.node(), bias.node()]);
        let step = match tracked.is_empty() {
            // What nobody will compute again must not be remembered.
            true => step.compute_bound(),
            false => step.memory_bound().retro_forward(again).parents(tracked),
        };
        match step.stateful() {
            OpsKind::Tracked(mut step) => {
                let input = weight_trains.then(|| step.checkpoint(&x));
                let weight = weight.into_primitive();
                let bias = bias.into_primitive();
                let y = Flex::fused_linear(x.into_primitive(), weight.clone(), bias);
                step.finish((input, weight), y)
            }
            OpsKind::UnTracked(step) => step.finish(Flex::fused_linear(
                x.into_primitive(),
                weight.into_primitive(),
                bias.into_primitive(),
            )),
        }
    }

    fn fused_attention(
        queries: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        settings: Settings,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Step;

        impl Backward<Flex, 4> for Step {
            type State = ([NodeId; 3], FlexTensor, Settings);

            fn backward(
                self,
                ops: Ops<Self::State, 4>,
                gradients: &mut Gradients,
                checkpointer: &mut Checkpointer,
            ) {
                let (kept, bias, settings) = ops.state;
                let [queries, keys, values] =
                    kept.map(|node| checkpointer.retrieve_node_output(node));
                let dy = gradients.consume::<Flex>(&ops.node);
                let wanted = ops.parents.each_ref().map(Option::is_some);
                let operands = Operands::new([queries, keys, values, bias], settings);
                let parents = ops.parents.map(|parent| Some(parent?.id));
                register(gradients, parents, operands.gradients(dy, wanted));
            }
        }

        let nodes = [queries.node(), keys.node(), values.node(), bias.node()];
        match Step.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(mut step) => {
                let kept = [&queries, &keys, &values].map(|operand| step.checkpoint(operand));
                let bias = bias.into_primitive();
                let y = Flex::fused_attention(
                    queries.into_primitive(),
                    keys.into_primitive(),
                    values.into_primitive(),
                    bias.clone(),
                    settings,
                );
                step.finish((kept, bias, settings), y)
            }
            OpsKind::UnTracked(step) => step.finish(Flex::fused_attention(
                queries.into_primitive(),
                keys.into_primitive(),
                values.into_primitive(),
                bias.into_primitive(),
                settings,
            )),
        }
    }

    fn fused_words(
        states: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        asked: Asked,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Step;

        impl Backward<Flex, 3> for Step {
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
            OpsKind::UnTracked(step) => step.finish(Flex::fused_words(
                states.into_primitive(),
                weight.into_primitive(),
                bias.into_primitive(),
                asked,
            )),
        }
    }
}

fn register<const N: usize>(
    gradients: &mut Gradients,
    parents: [Option<NodeId>; N],
    found: [Option<FlexTensor>; N],
) {
    for (parent, gradient) in parents.into_iter().zip(found) {
        if let (Some(parent), Some(gradient)) = (parent, gradient) {
            gradients.register::<Flex>(parent, gradient);
        }
    }
}

/// The gradients of [`FusedOps::fused_linear`], where they are asked for.
fn linear_gradients(
    x: Option<FlexTensor>,
    weight: FlexTensor,
    dy: FlexTensor,
    wanted: [bool; 3],
) -> [Option<FlexTensor>; 3] {
    let numbers = contiguous(dy);
    let dy = Matrix::of(&numbers);
    let product = |a: Matrix<'_>, b: Matrix<'_>| {
        let shape = [a.rows(), b.columns()];
        of_elements(product(a, b, Start::Nothing), shape.into())
    };
    let [dx, _, dbias] = wanted;
    let dx = dx.then(|| {
        let weight = contiguous(weight);
        let weight = Matrix::of(&weight);
        product(dy, weight)
    });
    let dweight = x.map(|x| {
        let x = contiguous(x);
        product(dy.transposed(), Matrix::of(&x))
    });
    let dbias = dbias.then(|| {
        let mut sums = vec![0.0; dy.columns()];
        add_rows(slice(&numbers), &mut sums);
        of_elements(sums, [dy.columns()].into())
    });
    [dx, dweight, dbias]
}

/// Adds rows of numbers, as many as there are sums.
pub fn add_rows(rows: &[f32], sums: &mut [f32]) {
    let columns = sums.len();
    sums.par_chunks_mut(SUMS).enumerate().for_each(|(i, sums)| {
        for row in rows.chunks_exact(columns) {
            let row = &row[i * SUMS..][..sums.len()];
            sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
        }
    });
}

/// Where activations are recomputed: the pass once more, with the same mask.
#[derive(Debug)]
struct Again {
    input: NodeId,
    pass: Pass,
}

impl RetroForward for Again {
    fn forward(&self, states: &mut BackwardStates, output: NodeId) {
        let x = states.get_state::<FlexTensor>(&self.input);
        states.save(output, Flex::pass(x, self.pass));
    }
}

/// The product once more.
#[derive(Debug)]
struct LinearAgain([Operand; 3]);

/// What an operation reads: a result that is kept or computed again, or a constant.
#[derive(Debug)]
enum Operand {
    Node(NodeId),
    Constant(FlexTensor),
}

impl Operand {
    fn of(tensor: &FloatTensor<Autodiff<Flex>>) -> Self {
        match tensor.is_tracked() {
            true => Self::Node(tensor.id()),
            false => Self::Constant(tensor.clone().into_primitive()),
        }
    }

    fn state(&self, states: &mut BackwardStates) -> FlexTensor {
        match self {
            Self::Node(node) => states.get_state(node),
            Self::Constant(tensor) => tensor.clone(),
        }
    }
}

impl RetroForward for LinearAgain {
    fn forward(&self, states: &mut BackwardStates, output: NodeId) {
        let [x, weight, bias] = self.0.each_ref().map(|operand| operand.state(states));
        states.save(output, Flex::fused_linear(x, weight, bias));
    }
}

/// dL/dx of dL/dy, with what the pass keeps.
fn gradient(pass: Pass, kept: Option<FlexTensor>, dy: FlexTensor) -> FlexTensor {
    let row = dy.layout().shape().last().copied().unwrap_or(1);
    match (pass, kept) {
        (Pass::Gelu, Some(x)) => with(dy, &x, 1, gelu_gradient),
        (Pass::Softmax, Some(y)) => with(
            dy,
            &y,
            row,
            #[inline(always)]
            |dy, y| {
                for (dy, y) in dy.chunks_exact_mut(row).zip(y.chunks_exact(row)) {
                    softmax_row_gradient(dy, y);
                }
            },
        ),
        (Pass::LogSoftmax, Some(y)) => with(
            dy,
            &y,
            row,
            #[inline(always)]
            |dy, y| {
                for (dy, y) in dy.chunks_exact_mut(row).zip(y.chunks_exact(row)) {
                    log_softmax_row_gradient(dy, y);
                }
            },
        ),
        (Pass::Dropout(..) | Pass::Keep, _) => Flex::pass(dy, pass),
        (pass, None) => unreachable!("{pass:?} keeps a tensor"),
    }
}

pub fn adamw<const D: usize>(
    parameter: Tensor<D>,
    gradient: Tensor<D>,
    moments: [Tensor<D>; 2],
    step: AdamWStep,
) -> [Tensor<D>; 3] {
    let parameter = own(contiguous(primitive(parameter)));
    let gradient = contiguous(primitive(gradient));
    let moments = moments.map(primitive);
    let next = match moments[0].dtype() {
        DType::BF16 => adamw_with::<bf16>(parameter, gradient, moments, step),
        _ => adamw_with::<f32>(parameter, gradient, moments, step),
    };
    next.map(Tensor::from_primitive::<Flex>)
}

fn adamw_with<M: Moment + Element + Pod + Send + Sync>(
    mut parameter: FlexTensor,
    gradient: FlexTensor,
    moments: [FlexTensor; 2],
    step: AdamWStep,
) -> [FlexTensor; 3] {
    let [mut first, mut second] = moments.map(|moment| match moment.as_slice::<M>() {
        Some(_) if moment.layout().start_offset() == 0 => moment,
        _ => moment.to_contiguous(),
    });
    let tasks = (parameter.storage_mut::<f32>().par_chunks_mut(TASK))
        .zip(first.storage_mut::<M>().par_chunks_mut(TASK))
        .zip(second.storage_mut::<M>().par_chunks_mut(TASK))
        .zip(slice(&gradient).par_chunks(TASK))
        .enumerate();
    tasks.for_each(|(i, (((parameter, first), second), gradient))| {
        vectorised(
            #[inline(always)]
            || adamw_update(parameter, gradient, first, second, step, i * TASK),
        );
    });
    [parameter, first, second]
}

/// Layer norm of x + y without gradients.
pub fn sum_normalised<const D: usize>(
    [x, y]: [Tensor<D>; 2],
    gamma: Tensor<1>,
    beta: Tensor<1>,
    epsilon: f64,
) -> Tensor<D> {
    let shape = x.dims();
    assert_eq!(shape, y.dims(), "tensors of one shape");
    let vectors = of_rows([gamma, beta].map(primitive), shape[D - 1]);
    let [gamma, beta] = vectors.each_ref().map(slice);
    let sums = with(
        primitive(x),
        &primitive(y),
        shape[D - 1],
        #[inline(always)]
        |x, y| {
            for (x, y) in x.iter_mut().zip(y) {
                *x += y;
            }
            layer_norm(x, gamma, beta, epsilon as f32);
        },
    );
    Tensor::from_primitive::<Flex>(sums)
}

/// Vectors with a number for each of a row.
fn of_rows(vectors: [FlexTensor; 2], row: usize) -> [FlexTensor; 2] {
    let vectors = vectors.map(contiguous);
    for vector in &vectors {
        let numbers = vector.as_slice::<f32>().map(<[f32]>::len);
        assert_eq!(numbers, Some(row), "f32 numbers for rows of {row}");
    }
    vectors
}

/// The gradients of layer norm's input, gamma and beta.
fn layer_norm_gradients(
    x: FlexTensor,
    gamma: &FlexTensor,
    dy: FlexTensor,
    epsilon: f32,
) -> [FlexTensor; 3] {
    let gamma = gamma.to_contiguous();
    let gamma = slice(&gamma);
    let width = gamma.len();
    let x = contiguous(x);
    let mut dx = own(dy);
    let (_, task) = tasks(dx.layout().num_elements(), width);
    // One after the other by number, whichever core finishes first: sums are the same in every run.
    let partial: Vec<Vec<f32>> = dx
        .storage_mut::<f32>()
        .par_chunks_mut(task)
        .zip(slice(&x).par_chunks(task))
        .map(|(dy, x)| {
            let mut sums = vec![0.0; 2 * width];
            vectorised(
                #[inline(always)]
                || layer_norm_gradient(dy, x, gamma, epsilon, &mut sums),
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

/// Applies `kernel` to tasks of whole rows of `x`, each with the number of its first element.
fn each_task(x: FlexTensor, row: usize, kernel: impl Fn(usize, &mut [f32]) + Sync) -> FlexTensor {
    let mut x = contiguous(x);
    let (several, task) = tasks(x.layout().num_elements(), row);
    let kernel = |(i, x): (usize, &mut [f32])| {
        vectorised(
            #[inline(always)]
            || kernel(i * task, x),
        )
    };
    if let Some(elements) = whole(&mut x) {
        match several {
            true => elements.par_chunks_mut(task).enumerate().for_each(kernel),
            false => kernel((0, elements)),
        }
        return x;
    }
    let elements = slice(&x);
    let mut y = vec![0.0; elements.len()];
    let copied = |(i, (y, x)): (usize, (&mut [f32], &[f32]))| {
        y.copy_from_slice(x);
        kernel((i, y));
    };
    match several {
        true => y
            .par_chunks_mut(task)
            .zip(elements.par_chunks(task))
            .enumerate()
            .for_each(copied),
        false => copied((0, (&mut y, elements))),
    }
    of_elements(y, x.layout().shape().clone())
}

/// The tensor, or a copy where others hold it too.
fn own(x: FlexTensor) -> FlexTensor {
    each_task(x, 1, |_, _| {})
}

/// Like [`each_task`], beside another tensor of the same shape.
fn with(
    x: FlexTensor,
    other: &FlexTensor,
    row: usize,
    kernel: impl Fn(&mut [f32], &[f32]) + Sync,
) -> FlexTensor {
    let other = other.to_contiguous();
    let other = slice(&other);
    each_task(
        x,
        row,
        #[inline(always)]
        |first, x| {
            kernel(x, &other[first..first + x.len()]);
        },
    )
}

/// Whether there are several tasks in so many elements, and the size of one: whole rows.
fn tasks(elements: usize, row: usize) -> (bool, usize) {
    let task = row.max(1) * (TASK / row.max(1)).max(1);
    (elements > task, task)
}

pub fn primitive<const D: usize>(tensor: Tensor<D>) -> FlexTensor {
    let tensor = tensor.try_into_primitive::<Flex>();
    tensor.expect("the caller has asked whether the device fuses")
}

impl<'a> Matrix<'a> {
    pub fn of(contiguous: &'a FlexTensor) -> Self {
        let shape = contiguous.layout().shape();
        Self::new(slice(contiguous), [shape[0], shape[1]])
    }
}

pub fn contiguous(tensor: FlexTensor) -> FlexTensor {
    match tensor.as_slice::<f32>() {
        Some(_) => tensor,
        None => tensor.to_contiguous(),
    }
}

pub fn slice(contiguous: &FlexTensor) -> &[f32] {
    contiguous.as_slice().unwrap_or_default()
}

/// The elements, where nobody else holds them.
fn whole(contiguous: &mut FlexTensor) -> Option<&mut [f32]> {
    let elements = contiguous.layout().num_elements();
    let alone = contiguous.layout().start_offset() == 0;
    (contiguous.try_storage_mut()).filter(|all| alone && all.len() == elements)
}

pub fn of_elements(elements: Vec<f32>, shape: Shape) -> FlexTensor {
    FlexTensor::new(
        Bytes::from_elems(elements),
        Layout::contiguous(shape),
        DType::F32,
    )
}
