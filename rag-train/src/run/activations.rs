//! The parts of a forward pass that are kept for its gradient.

use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::{GradientCheckpointingStrategy, Tensor},
};
use serde::{Deserialize, Serialize};

/// The parts of a forward pass that autodiff keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activations {
    /// All that the backward pass needs.
    #[default]
    Kept,
    /// Results that are costly to compute; the rest is computed again (Chen et al. 2016). On the CPU in f32, the results
    /// of attention and layer norms, and the sums of sublayers where norms stand before them: the products of linear
    /// layers are computed again too, for a third more time.
    Recomputed,
}

impl Activations {
    /// A module on an autodiff device whose graphs keep what `self` says.
    pub fn of<M: Module>(self, module: M) -> M {
        struct Recompute;
        impl ModuleMapper for Recompute {
            fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
                param.map(|tensor| {
                    let strategy = GradientCheckpointingStrategy::Balanced;
                    tensor.with_gradient_checkpointing_strategy(strategy)
                })
            }
        }
        match self {
            Self::Kept => module,
            Self::Recomputed => module.map(&mut Recompute),
        }
    }
}
