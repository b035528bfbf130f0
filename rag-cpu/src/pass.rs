//! Operations of one tensor, element by element or row by row, with their gradients.
//!
//! Burn's CPU backend makes them of elementwise passes on one core and keeps what is between the passes. Here each is one
//! pass on all cores, forward and backward.

use std::{fmt::Debug, marker::PhantomData};

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
        flex::FlexTensor,
        tensor::FloatTensor,
    },
    tensor::Tensor,
};

use crate::processor::Processor;

/// A function of one tensor, to one of the same shape.
pub trait Pass: Copy + Debug + Send + Sync + 'static {
    /// The tensor that the gradient reads.
    const KEEPS: Keeps;

    /// Whether the result is computed again for the backward pass where activations are recomputed.
    const RECOMPUTED: bool;

    fn forward(self, processor: Processor, x: FlexTensor) -> FlexTensor;

    /// dL/dx of dL/dy, in place where nobody else holds it, and of what the pass keeps.
    fn gradient(self, processor: Processor, kept: Option<FlexTensor>, dy: FlexTensor)
    -> FlexTensor;
}

/// The tensor that a gradient reads beside dL/dy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeps {
    Nothing,
    Input,
    Output,
}

/// Applies a pass to a tensor that [`serves`](crate::serves) it.
pub(crate) fn apply<P: Pass, const D: usize>(x: Tensor<D>, pass: P) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as PassOp>::cpu_pass(x.into_dispatch(), pass))
}

#[backend_extension(Autodiff, Flex)]
pub trait PassOp: Backend {
    fn cpu_pass<P: Pass>(x: FloatTensor<Self>, pass: P) -> FloatTensor<Self>;
}

impl PassOp for Flex {
    fn cpu_pass<P: Pass>(x: FlexTensor, pass: P) -> FlexTensor {
        pass.forward(Processor::current(), x)
    }
}

/// A tensor that is kept between forward and backward, or the node that has it or computes it again.
#[derive(Clone, Debug)]
enum Kept {
    Nothing,
    Input(NodeId),
    Output(FlexTensor),
}

impl<C: CheckpointStrategy> PassOp for Autodiff<Flex, C> {
    fn cpu_pass<P: Pass>(x: FloatTensor<Self>, pass: P) -> FloatTensor<Self> {
        let step = Step(PhantomData::<P>).prepare::<C>([x.node()]);
        let step = match P::RECOMPUTED {
            true => {
                let input = x.id();
                let again = Again { input, pass };
                step.memory_bound().retro_forward(again).parents([&x])
            }
            false => step.compute_bound(),
        };
        match step.stateful() {
            OpsKind::Tracked(mut step) => {
                let input = (P::KEEPS == Keeps::Input).then(|| step.checkpoint(&x));
                let y = Flex::cpu_pass(x.into_primitive(), pass);
                let kept = match (P::KEEPS, input) {
                    (_, Some(input)) => Kept::Input(input),
                    (Keeps::Output, _) => Kept::Output(y.clone()),
                    _ => Kept::Nothing,
                };
                step.finish((pass, kept), y)
            }
            OpsKind::UnTracked(step) => step.finish(Flex::cpu_pass(x.into_primitive(), pass)),
        }
    }
}

/// The backward step of a pass.
#[derive(Debug)]
struct Step<P>(PhantomData<P>);

impl<P: Pass> Backward<Flex, 1> for Step<P> {
    type State = (P, Kept);

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
            pass.gradient(Processor::current(), kept, dy)
        });
    }
}

/// The recomputation of a pass.
#[derive(Debug)]
struct Again<P> {
    input: NodeId,
    pass: P,
}

impl<P: Pass> RetroForward for Again<P> {
    fn forward(&self, states: &mut BackwardStates, output: NodeId) {
        let x = states.get_state::<FlexTensor>(&self.input);
        states.save(output, Flex::cpu_pass(x, self.pass));
    }
}
