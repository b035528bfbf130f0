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
        ops::ModuleOps,
        tensor::FloatTensor,
    },
    tensor::{Bytes, DType, Device, Distribution, Int, Tensor},
};
use rayon::prelude::*;

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
}

pub fn pass<const D: usize>(x: Tensor<D>, pass: Pass) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as FusedOps>::pass(x.into_dispatch(), pass))
}

pub fn layer_norm<const D: usize>(
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
            Pass::Gelu => each_task(x, 1, |_, x| {
                for x in x {
                    *x *= normal(*x).0;
                }
            }),
            Pass::Softmax => {
                each_task(x, row, |_, x| x.chunks_exact_mut(row).for_each(softmax_row))
            }
            Pass::LogSoftmax => each_task(x, row, |_, x| {
                x.chunks_exact_mut(row).for_each(log_softmax_row);
            }),
            Pass::Dropout(probability, seed) => each_task(x, 1, |first, x| {
                drop_some(x, first, probability, seed);
            }),
        }
    }

    fn fused_layer_norm(
        x: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        epsilon: f64,
    ) -> FlexTensor {
        Flex::layer_norm(x, gamma, Some(beta), epsilon)
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
            Pass::Softmax | Pass::LogSoftmax => step.compute_bound(),
        };
        match step.stateful() {
            OpsKind::Tracked(mut step) => {
                let input = matches!(pass, Pass::Gelu).then(|| step.checkpoint(&x));
                let y = Flex::pass(x.into_primitive(), pass);
                let kept = match (pass, input) {
                    (_, Some(input)) => Kept::Input(input),
                    (Pass::Dropout(..), _) => Kept::Nothing,
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
                for (parent, gradient) in ops.parents.into_iter().zip(found) {
                    if let Some(parent) = parent {
                        gradients.register::<Flex>(parent.id, gradient);
                    }
                }
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

/// dL/dx of dL/dy, with what the pass keeps.
fn gradient(pass: Pass, kept: Option<FlexTensor>, dy: FlexTensor) -> FlexTensor {
    let row = dy.layout().shape().last().copied().unwrap_or(1);
    match (pass, kept) {
        (Pass::Gelu, Some(x)) => with(dy, &x, 1, |dy, x| {
            for (dy, &x) in dy.iter_mut().zip(x) {
                let (cumulative, density) = normal(x);
                *dy *= cumulative + x * density;
            }
        }),
        (Pass::Softmax, Some(y)) => with(dy, &y, row, |dy, y| {
            for (dy, y) in dy.chunks_exact_mut(row).zip(y.chunks_exact(row)) {
                let mean = sum_of_both(dy, y, |dy, y| dy * y);
                for (dy, y) in dy.iter_mut().zip(y) {
                    *dy = y * (*dy - mean);
                }
            }
        }),
        (Pass::LogSoftmax, Some(y)) => with(dy, &y, row, |dy, y| {
            for (dy, y) in dy.chunks_exact_mut(row).zip(y.chunks_exact(row)) {
                let total = sum(dy, |dy| dy);
                if total != 0.0 {
                    for (dy, y) in dy.iter_mut().zip(y) {
                        *dy -= total * exp(*y);
                    }
                }
            }
        }),
        (Pass::Dropout(..), _) => Flex::pass(dy, pass),
        (pass, None) => unreachable!("{pass:?} keeps a tensor"),
    }
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
    let mut dx = contiguous(dy);
    if whole(&mut dx).is_none() {
        dx = FlexTensor::from_data(dx.into_data());
    }
    let (_, task) = tasks(dx.layout().num_elements(), width);
    // One after the other by number, whichever core finishes first: sums are the same in every run.
    let partial: Vec<Vec<f32>> = dx
        .storage_mut::<f32>()
        .par_chunks_mut(task)
        .zip(slice(&x).par_chunks(task))
        .map(|(dy, x)| {
            let mut sums = vec![0.0; 2 * width];
            vectorised(|| layer_norm_task(dy, x, gamma, epsilon, &mut sums));
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
    [dx, vector(sums), vector(dbeta)]
}

/// With x̂ = (x − μ) / σ and g = dy γ, dx = (g − mean(g) − x̂ mean(g x̂)) / σ, dγ = Σ dy x̂ and dβ = Σ dy
/// (Ba et al. 2016).
#[inline(always)]
fn layer_norm_task(dy: &mut [f32], x: &[f32], gamma: &[f32], epsilon: f32, sums: &mut [f32]) {
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
            *dy = scale * (*dy - mean_g - (x - mean) * scale * mean_gx);
        }
    }
}

/// Applies `kernel` to tasks of whole rows of `x`, each with the number of its first element.
fn each_task(x: FlexTensor, row: usize, kernel: impl Fn(usize, &mut [f32]) + Sync) -> FlexTensor {
    let mut x = contiguous(x);
    let (several, task) = tasks(x.layout().num_elements(), row);
    let kernel = |(i, x): (usize, &mut [f32])| vectorised(|| kernel(i * task, x));
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
    FlexTensor::new(
        Bytes::from_elems(y),
        Layout::contiguous(x.layout().shape().clone()),
        DType::F32,
    )
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
    each_task(x, row, |first, x| {
        kernel(x, &other[first..first + x.len()]);
    })
}

/// Whether there are several tasks in so many elements, and the size of one: whole rows.
fn tasks(elements: usize, row: usize) -> (bool, usize) {
    let task = row.max(1) * (TASK / row.max(1)).max(1);
    (elements > task, task)
}

fn contiguous(tensor: FlexTensor) -> FlexTensor {
    match tensor.as_slice::<f32>() {
        Some(_) => tensor,
        None => tensor.to_contiguous(),
    }
}

fn slice(contiguous: &FlexTensor) -> &[f32] {
    contiguous.as_slice().unwrap_or_default()
}

/// The elements, where nobody else holds them.
fn whole(contiguous: &mut FlexTensor) -> Option<&mut [f32]> {
    let elements = contiguous.layout().num_elements();
    let alone = contiguous.layout().start_offset() == 0;
    (contiguous.try_storage_mut()).filter(|all| alone && all.len() == elements)
}

fn vector(elements: Vec<f32>) -> FlexTensor {
    let shape = [elements.len()].into();
    FlexTensor::new(
        Bytes::from_elems(elements),
        Layout::contiguous(shape),
        DType::F32,
    )
}

/// Runs a kernel compiled for this processor's vectors.
#[inline(always)]
fn vectorised<R>(kernel: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(kernel)
}

#[inline(always)]
fn drop_some(x: &mut [f32], first: usize, probability: f32, seed: [u32; 2]) {
    let scale = 1.0 / (1.0 - probability);
    // Compared as signed numbers, which vectors can.
    let limit = ((f64::from(probability) - 0.5) * 2f64.powi(32)) as i32;
    for (i, x) in x.iter_mut().enumerate() {
        let number = mixed((first + i) as u32 ^ seed[0]).wrapping_add(seed[1]);
        let keeps = mixed(number) as i32 >= limit;
        *x = if keeps { *x * scale } else { 0.0 };
    }
}

/// Every bit of the result depends on every bit of `x` (MurmurHash3's finalizer).
#[inline(always)]
fn mixed(mut x: u32) -> u32 {
    x ^= x >> 16;
    x = x.wrapping_mul(0x85EB_CA6B);
    x ^= x >> 13;
    x = x.wrapping_mul(0xC2B2_AE35);
    x ^ (x >> 16)
}

#[inline(always)]
fn softmax_row(row: &mut [f32]) {
    let highest = highest(row);
    for x in row.iter_mut() {
        *x = exp(*x - highest);
    }
    let scale = 1.0 / sum(row, |x| x);
    for x in row {
        *x *= scale;
    }
}

#[inline(always)]
fn log_softmax_row(row: &mut [f32]) {
    let highest = highest(row);
    let log_total = highest + sum(row, |x| exp(x - highest)).ln();
    for x in row {
        *x -= log_total;
    }
}

/// Φ(x) and φ(x) of the standard normal distribution: Abramowitz and Stegun 26.2.17, off by 7.5e-8 at most.
#[inline(always)]
fn normal(x: f32) -> (f32, f32) {
    let density = exp(-0.5 * x * x) * 0.398_942_3;
    let t = 1.0 / (1.0 + 0.231_641_9 * x.abs());
    let series = 1.781_477_9 + t * (-1.821_255_9 + t * 1.330_274_5);
    let tail = density * t * (0.319_381_54 + t * (-0.356_563_78 + t * series));
    (if x > 0.0 { 1.0 - tail } else { tail }, density)
}

/// eˣ of x ≤ 0, to the last bits: 2ⁿ eʳ with |r| ≤ ln 2 / 2. 0 where f32 has no normal number.
#[inline(always)]
fn exp(x: f32) -> f32 {
    /// Added, it leaves the nearest integer in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts, the first short enough that n times it is exact.
    const LN_2_HIGH: f32 = 355.0 / 512.0;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN_2_HIGH - n * LN_2_LOW;
    let series = 1.0 / 120.0 + r * (1.0 / 720.0 + r * (1.0 / 5_040.0));
    let series = 0.5 + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * series));
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3F80_0000));
    if x < -87.0 {
        0.0
    } else {
        power * (1.0 + r * (1.0 + r * series))
    }
}

/// The sum of `value` over a row.
#[inline(always)]
fn sum(row: &[f32], value: impl Fn(f32) -> f32) -> f32 {
    sum_of_both(row, row, |x, _| value(x))
}

/// The sum of `value` over two rows, in 16 lanes as vectors have them: the same in every run.
#[inline(always)]
fn sum_of_both(x: &[f32], y: &[f32], value: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0; 16];
    let (x, y) = (x.chunks_exact(16), y.chunks_exact(16));
    let last = x.remainder().iter().zip(y.remainder());
    let last = last.fold(0.0, |sum, (x, y)| sum + value(*x, *y));
    for (x, y) in x.zip(y) {
        for i in 0..16 {
            lanes[i] += value(x[i], y[i]);
        }
    }
    lanes.iter().sum::<f32>() + last
}

/// The highest of a row, passing over what is not a number.
#[inline(always)]
fn highest(row: &[f32]) -> f32 {
    let higher = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; 16];
    let chunks = row.chunks_exact(16);
    let last = chunks.remainder().iter().copied();
    let last = last.fold(f32::NEG_INFINITY, higher);
    for x in chunks {
        for i in 0..16 {
            lanes[i] = higher(lanes[i], x[i]);
        }
    }
    lanes.into_iter().fold(last, higher)
}
