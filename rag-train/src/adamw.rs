//! AdamW, in one pass where the device can.

use burn::{
    optim::{self, AdamWConfig, AdamWState, AdaptiveMomentumState, ModuleOptimizer, Optimizer},
    tensor::{DType, Device, Tensor},
};
use rag_core::nn::{self, AdamWStep};

const BETAS: [f32; 2] = [0.9, 0.999];
const EPSILON: f32 = 1e-8;

/// Burn's AdamW, which makes the first step, and all of them on other devices.
#[derive(Clone)]
struct AdamW {
    burns: optim::AdamW,
    weight_decay: f64,
}

/// AdamW (Loshchilov and Hutter 2019), with β₁ 0.9, β₂ 0.999 and ε 1e-8 as torch has them.
pub(crate) fn adamw(weight_decay: f32) -> ModuleOptimizer {
    let [beta_1, beta_2] = BETAS;
    let burns = AdamWConfig::new()
        .with_beta_1(beta_1)
        .with_beta_2(beta_2)
        .with_epsilon(EPSILON)
        .with_weight_decay(weight_decay)
        .build();
    ModuleOptimizer::from(AdamW {
        burns,
        weight_decay: f64::from(weight_decay),
    })
}

impl Optimizer for AdamW {
    type State<const D: usize> = AdamWState<D>;

    fn step<const D: usize>(
        &self,
        learning_rate: f64,
        parameter: Tensor<D>,
        gradient: Tensor<D>,
        state: Option<AdamWState<D>>,
    ) -> (Tensor<D>, Option<AdamWState<D>>) {
        let one_pass = nn::fuses(&parameter.device()) && parameter.dtype() == DType::F32;
        let momentum = match state {
            Some(state) if one_pass => state.momentum,
            state => return self.burns.step(learning_rate, parameter, gradient, state),
        };
        let time = momentum.time + 1;
        let step = AdamWStep {
            learning_rate: learning_rate as f32,
            decay: (1.0 - learning_rate * self.weight_decay) as f32,
            betas: BETAS,
            epsilon: EPSILON,
            time: time as i32,
        };
        let moments = [momentum.moment_1, momentum.moment_2];
        let [parameter, moment_1, moment_2] = nn::adamw(parameter, gradient, moments, step);
        let momentum = AdaptiveMomentumState::new(time, moment_1, moment_2);
        (parameter, Some(AdamWState::new(momentum)))
    }

    fn to_device<const D: usize>(state: AdamWState<D>, device: &Device) -> AdamWState<D> {
        optim::AdamW::to_device(state, device)
    }
}
