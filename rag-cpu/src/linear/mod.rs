//! Linear layers, `x Wᵀ + b`, with their gradients, or with packed weights.

mod few_rows;
mod packed;

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
            ops::{Backward, Ops, OpsKind},
        },
        backend_extension,
        flex::FlexTensor,
        tensor::FloatTensor,
    },
    tensor::Tensor,
};

use crate::{
    flex::{contiguous, elements, matrix, of_elements, register, serves, slice, tensor},
    matrix::{Initial, Matrix},
    processor::Processor,
    product::{self, product},
    tasks::add_rows,
};

pub use packed::{Format, PackedWeights, shared_memory};

/// Above so many rows, a product of large matrices is faster.
const FEW_ROWS: usize = 48;

/// A kernel of a linear layer in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    /// The weights are streamed from where they are.
    FewRows,
    /// A product of large matrices.
    Product(product::Kernel),
}

/// The path of `[rows, d_input]` and a weight `[d_output, d_input]`, with or without gradients.
fn choose(processor: Processor, [rows, d_input, d_output]: [usize; 3], gradients: bool) -> Path {
    match rows {
        1..=FEW_ROWS if !gradients => Path::FewRows,
        _ => Path::Product(product::choose(processor, [rows, d_input, d_output])),
    }
}

/// `x Wᵀ + b` of `x` `[rows, d_input]`, `weight` `[d_output, d_input]` and `bias` `[d_output]`: `[rows, d_output]`.
/// `None` where a tensor does not [serve](crate::serves).
pub fn linear(x: &Tensor<2>, weight: &Tensor<2>, bias: Option<&Tensor<1>>) -> Option<Tensor<2>> {
    if !(serves(x) && serves(weight) && bias.is_none_or(serves)) {
        return None;
    }
    let [rows, d_input] = x.dims();
    let [d_output, _] = weight.dims();
    let devices = [
        Some(x.device()),
        Some(weight.device()),
        bias.map(|b| b.device()),
    ];
    let gradients = devices.iter().flatten().any(|device| device.is_autodiff());
    let processor = Processor::current();
    if choose(processor, [rows, d_input, d_output], gradients) == Path::FewRows {
        let [x, weight] = [elements(x.clone())?, elements(weight.clone())?];
        let bias = bias.cloned().and_then(elements);
        let bias = bias.as_ref().map(slice);
        let y = few_rows::multiply(processor, slice(&x), slice(&weight), bias, d_input);
        return Some(tensor(y, [rows, d_output]));
    }
    let bias = bias.cloned();
    let bias = bias.unwrap_or_else(|| Tensor::empty([0], &x.device()));
    Some(Tensor::from_dispatch(<Dispatch as LinearOp>::cpu_linear(
        x.clone().into_dispatch(),
        weight.clone().into_dispatch(),
        bias.into_dispatch(),
    )))
}

#[backend_extension(Autodiff, Flex)]
pub trait LinearOp: Backend {
    /// `x Wᵀ + b` of `[rows, d_input]`, `[d_output, d_input]` and `[d_output]`, or `[0]` for no bias, as a product of large
    /// matrices.
    fn cpu_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}

impl LinearOp for Flex {
    fn cpu_linear(x: FlexTensor, weight: FlexTensor, bias: FlexTensor) -> FlexTensor {
        let [x, weight, bias] = [x, weight, bias].map(contiguous);
        let (x, weight) = (matrix(&x), matrix(&weight).transposed());
        let shape = [x.rows(), weight.columns()];
        let bias = slice(&bias);
        assert!(
            bias.is_empty() || bias.len() == shape[1],
            "a bias of {} numbers for {} outputs",
            bias.len(),
            shape[1]
        );
        let y = product(Processor::current(), x, weight, Initial::bias(bias));
        of_elements(y, shape.into())
    }
}

impl<C: CheckpointStrategy> LinearOp for Autodiff<Flex, C> {
    fn cpu_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let operands = [&x, &weight, &bias];
        let again = Again(operands.map(Operand::of));
        let tracked: Vec<_> = (operands.into_iter())
            .filter(|operand| operand.is_tracked())
            .collect();
        let weight_trains = weight.is_tracked();
        let step = Step.prepare::<C>([x.node(), weight.node(), bias.node()]);
        let step = match tracked.is_empty() {
            // Without tracked operands nothing is computed again.
            true => step.compute_bound(),
            false => step.memory_bound().retro_forward(again).parents(tracked),
        };
        match step.stateful() {
            OpsKind::Tracked(mut step) => {
                let input = weight_trains.then(|| step.checkpoint(&x));
                let weight = weight.into_primitive();
                let bias = bias.into_primitive();
                let y = Flex::cpu_linear(x.into_primitive(), weight.clone(), bias);
                step.finish((input, weight), y)
            }
            OpsKind::UnTracked(step) => step.finish(Flex::cpu_linear(
                x.into_primitive(),
                weight.into_primitive(),
                bias.into_primitive(),
            )),
        }
    }
}

#[derive(Debug)]
struct Step;

impl Backward<Flex, 3> for Step {
    /// x, where the weight trains, and the weight.
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
        let found = gradients_of(x, weight, dy, wanted);
        let parents = ops.parents.map(|parent| Some(parent?.id));
        register(gradients, parents, found);
    }
}

/// dL/dx = dy W, dL/dW = dyᵀ x and dL/db = Σ dy, where they are `wanted`.
fn gradients_of(
    x: Option<FlexTensor>,
    weight: FlexTensor,
    dy: FlexTensor,
    wanted: [bool; 3],
) -> [Option<FlexTensor>; 3] {
    let processor = Processor::current();
    let elements = contiguous(dy);
    let dy = matrix(&elements);
    let product = |a: Matrix<'_>, b: Matrix<'_>| {
        let shape = [a.rows(), b.columns()];
        of_elements(product(processor, a, b, Initial::Zero), shape.into())
    };
    let [dx, _, dbias] = wanted;
    let dx = dx.then(|| {
        let weight = contiguous(weight);
        let weight = matrix(&weight);
        product(dy, weight)
    });
    let dweight = x.map(|x| {
        let x = contiguous(x);
        product(dy.transposed(), matrix(&x))
    });
    let dbias = dbias.then(|| {
        let mut sums = vec![0.0; dy.columns()];
        add_rows(slice(&elements), &mut sums);
        of_elements(sums, [dy.columns()].into())
    });
    [dx, dweight, dbias]
}

/// The recomputation.
#[derive(Debug)]
struct Again([Operand; 3]);

/// An operand of a recomputation: a result that is kept or computed again, or a constant.
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

impl RetroForward for Again {
    fn forward(&self, states: &mut BackwardStates, output: NodeId) {
        let [x, weight, bias] = self.0.each_ref().map(|operand| operand.state(states));
        states.save(output, Flex::cpu_linear(x, weight, bias));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_follows_from_rows_processor_and_gradients() {
        let path = |processor, rows, gradients| choose(processor, [rows, 64, 64], gradients);
        for processor in Processor::available() {
            for rows in [1, FEW_ROWS] {
                assert_eq!(path(processor, rows, false), Path::FewRows);
                assert_ne!(path(processor, rows, true), Path::FewRows);
            }
            assert_ne!(path(processor, FEW_ROWS + 1, false), Path::FewRows);
        }
        let many = |processor| path(processor, FEW_ROWS + 1, false);
        assert_eq!(
            many(Processor::Portable),
            Path::Product(product::Kernel::Blocked)
        );
        assert_eq!(many(Processor::Avx2), Path::Product(product::Kernel::Gemm));
        assert_eq!(
            many(Processor::Avx512),
            Path::Product(product::Kernel::Gemm)
        );
        #[cfg(target_arch = "x86_64")]
        assert_eq!(many(Processor::Amx), Path::Product(product::Kernel::Tiles));
    }
}
