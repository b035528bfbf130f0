use burn::{
    lr_scheduler::module_lr_scheduler::ModuleLearningRate,
    module::Module,
    optim::{AdamWConfig, GradientsAccumulator, GradientsParams, ModuleOptimizer},
    tensor::Tensor,
};

use crate::{
    gradients::{global_norm, scale},
    scaler::LossScaler,
};

/// AdamW over whole steps: gradients of several micro-batches are summed, unscaled, clipped by their
/// global norm, and applied once. The loss of every micro-batch must be divided by what the whole
/// step holds, so that the sum is the gradient of the one large batch.
#[derive(Clone)]
pub struct Optimizer {
    adamw: ModuleOptimizer,
    max_norm: f64,
    scaler: LossScaler,
}

/// Gradients of the micro-batches of a step.
pub struct Accumulation<M>(GradientsAccumulator<M>);

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stepped {
    /// The global norm of the gradients before clipping.
    pub gradient_norm: f64,
    /// Whether the parameters moved; they do not where gradients are not finite.
    pub taken: bool,
}

impl Optimizer {
    /// AdamW with the given settings, clipping at `max_norm`.
    pub fn new(adamw: &AdamWConfig, max_norm: f64, scaler: LossScaler) -> Self {
        Self {
            adamw: adamw.init(),
            max_norm,
            scaler,
        }
    }

    /// Back-propagates the loss of a micro-batch into `accumulation`.
    pub fn accumulate<M: Module>(
        &self,
        model: &M,
        loss: Tensor<1>,
        accumulation: &mut Accumulation<M>,
    ) {
        let mut gradients = (loss * self.scaler.scale()).backward();
        let gradients = GradientsParams::from_module(&mut gradients, model);
        accumulation.0.accumulate(model, gradients);
    }

    /// Applies the accumulated gradients.
    pub fn step<M: Module>(
        &mut self,
        model: M,
        mut accumulation: Accumulation<M>,
        learning_rate: impl Into<ModuleLearningRate>,
    ) -> (M, Stepped) {
        let mut gradients = accumulation.0.grads();
        let gradient_norm = global_norm(&model, &gradients) / self.scaler.scale();
        let unscale = 1.0 / self.scaler.scale();
        if !self.scaler.accepts(gradient_norm) {
            return (
                model,
                Stepped {
                    gradient_norm,
                    taken: false,
                },
            );
        }
        // As torch clips: a norm just above the limit is not cut in half by rounding.
        let clip = (self.max_norm / (gradient_norm + 1e-6)).min(1.0);
        if unscale * clip != 1.0 {
            scale(&model, &mut gradients, unscale * clip);
        }
        let model = self.adamw.step(learning_rate, model, gradients);
        (
            model,
            Stepped {
                gradient_norm,
                taken: true,
            },
        )
    }

    /// Steps that were skipped because their gradients were not finite.
    pub fn skipped(&self) -> usize {
        self.scaler.skipped()
    }
}

impl<M> Default for Accumulation<M> {
    fn default() -> Self {
        Self(GradientsAccumulator::new())
    }
}
