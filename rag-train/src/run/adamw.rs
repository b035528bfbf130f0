//! AdamW, in one pass where the device can.

use std::f64::consts::LN_2;

use burn::{
    optim::{self, AdamWConfig, AdamWState, AdaptiveMomentumState, ModuleOptimizer, Optimizer},
    tensor::{DType, Device, Distribution, FloatDType, Tensor},
};
use rag_core::nn::{self, AdamWStep};

const BETAS: [f32; 2] = [0.9, 0.999];
const EPSILON: f32 = 1e-8;

/// AdamW with moments in a format of their own.
#[derive(Clone)]
struct AdamW {
    /// Steps on other devices.
    burns: optim::AdamW,
    weight_decay: f64,
    moments: FloatDType,
}

/// AdamW (Loshchilov and Hutter 2019), with β₁ 0.9, β₂ 0.999 and ε 1e-8 as torch has them. `moments` are kept
/// in f32, or in bf16, rounded up or down at random as often as they are near.
pub(crate) fn adamw(weight_decay: f32, moments: FloatDType) -> ModuleOptimizer {
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
        moments,
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
        if !nn::fuses(&parameter.device()) || parameter.dtype() != DType::F32 {
            let state =
                state.map(|state| each_moment(state, |moment| moment.cast(FloatDType::F32)));
            let (parameter, state) = self.burns.step(learning_rate, parameter, gradient, state);
            return (parameter, state.map(|state| self.kept(state)));
        }
        let (time, moments) = match state {
            Some(AdamWState { momentum }) => {
                (momentum.time, [momentum.moment_1, momentum.moment_2])
            }
            None => (0, [parameter.zeros_like(), parameter.zeros_like()]),
        };
        // A record is read as f32.
        let moments = moments.map(|moment| moment.cast(self.moments));
        let time = time + 1;
        let step = AdamWStep {
            learning_rate: learning_rate as f32,
            decay: (1.0 - learning_rate * self.weight_decay) as f32,
            betas: BETAS,
            epsilon: EPSILON,
            time: time as i32,
        };
        let [parameter, moment_1, moment_2] = nn::adamw(parameter, gradient, moments, step);
        let momentum = AdaptiveMomentumState::new(time, moment_1, moment_2);
        (parameter, Some(AdamWState::new(momentum)))
    }

    fn to_device<const D: usize>(state: AdamWState<D>, device: &Device) -> AdamWState<D> {
        optim::AdamW::to_device(state, device)
    }
}

impl AdamW {
    fn kept<const D: usize>(&self, state: AdamWState<D>) -> AdamWState<D> {
        match self.moments {
            FloatDType::BF16 => each_moment(state, rounded_at_random),
            _ => state,
        }
    }
}

fn each_moment<const D: usize>(
    state: AdamWState<D>,
    format: impl Fn(Tensor<D>) -> Tensor<D>,
) -> AdamWState<D> {
    let AdaptiveMomentumState {
        time,
        moment_1,
        moment_2,
        ..
    } = state.momentum;
    AdamWState::new(AdaptiveMomentumState::new(
        time,
        format(moment_1),
        format(moment_2),
    ))
}

/// To bf16, right on average. It has 7 bits behind the first: its neighbours are 2^(⌊log₂ |x|⌋ − 7) apart.
fn rounded_at_random<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let exponent = (x.clone().abs().log() / LN_2).floor() - 7.0;
    let apart = (exponent * LN_2).exp();
    let shift = x.random_like(Distribution::Uniform(-0.5, 0.5));
    (x + shift * apart).cast(FloatDType::BF16)
}

#[cfg(test)]
mod tests {
    use rag_core::device;

    use super::*;

    #[test]
    fn rounding_at_random_takes_a_neighbour_and_is_right_on_average() {
        let device = device("cpu").unwrap();
        for x in [1.003_f32, -0.000_721, 255.9, 0.0, 3.0] {
            let many = Tensor::<1>::full([50_000], x, &device);
            let rounded = rounded_at_random(many);
            assert_eq!(rounded.dtype(), DType::BF16);
            let rounded: Vec<f32> = rounded.try_into_vec_as().unwrap();
            let apart = x.abs() / 128.0;
            assert!(rounded.iter().all(|y| (y - x).abs() <= apart), "{x}");
            let mean = rounded.iter().map(|&y| f64::from(y)).sum::<f64>() / 50_000.0;
            assert!(
                (mean - f64::from(x)).abs() <= 0.02 * f64::from(apart),
                "{x} {mean}"
            );
        }
    }

    /// Both reach the minimum of a bowl.
    #[test]
    fn moments_in_bf16_lead_where_those_in_f32_lead() {
        let device = device("cpu").unwrap();
        let slopes = Tensor::<1>::from_floats([1.0, 0.1, 10.0, 3.0], &device);
        let walk = |moments| {
            let optimizer = AdamW {
                burns: AdamWConfig::new().build(),
                weight_decay: 0.0,
                moments,
            };
            let mut at = Tensor::<1>::from_floats([1.0, -2.0, 0.5, 3.0], &device);
            let mut state = None;
            for _ in 0..300 {
                let gradient = at.clone() * slopes.clone();
                (at, state) = optimizer.step(0.05, at, gradient, state);
            }
            let loss = (at.square() * slopes.clone()).sum();
            loss.into_scalar::<f32>()
        };
        let [full, half] = [FloatDType::F32, FloatDType::BF16].map(walk);
        assert!(full < 1e-3 && half < 1e-3, "{full} {half}");
    }
}
