//! One step of an optimiser over the gradients of several micro-batches.

use std::{fmt, path::Path};

use burn::{
    lr_scheduler::module_lr_scheduler::ModuleLearningRate,
    module::Module,
    optim::{AdafactorConfig, GradientsAccumulator, GradientsParams, ModuleOptimizer},
    store::RecordError,
    tensor::{Bytes, Device, FloatDType, Tensor},
};
use serde::{Deserialize, Serialize};

use super::{
    adamw::adamw,
    gradients::{first_not_finite, global_norm, scale},
    scaler::LossScaler,
};
use crate::error::{Error, Result};

/// The optimiser.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptimizerKind {
    /// Two moments of each parameter (Loshchilov and Hutter 2019).
    #[default]
    AdamW,
    /// The same with both moments in bf16, rounded up or down at random as often as they are near: half the
    /// memory of the moments.
    AdamWBf16,
    /// A row and a column of second moments of each matrix (Shazeer and Stern 2018): next to no
    /// memory. The learning rate is absolute, as for AdamW.
    Adafactor,
}

impl OptimizerKind {
    /// The optimiser. A step also shrinks the parameters by `weight_decay` times the learning rate.
    pub fn init(self, weight_decay: f32) -> ModuleOptimizer {
        match self {
            Self::AdamW => adamw(weight_decay, FloatDType::F32),
            Self::AdamWBf16 => adamw(weight_decay, FloatDType::BF16),
            Self::Adafactor => AdafactorConfig::new()
                .with_relative_step(false)
                .with_scale_parameter(false)
                .with_weight_decay(weight_decay)
                .init(),
        }
    }
}

/// One of Burn's optimisers over whole steps: gradients of several micro-batches are summed, unscaled,
/// clipped by their global norm, and applied once. The loss of every micro-batch must be divided by
/// what the whole step holds, so that the sum is the gradient of the one large batch.
#[derive(Clone)]
pub struct Optimizer {
    optimizer: ModuleOptimizer,
    max_norm: f64,
    scaler: LossScaler,
}

/// Gradients of the micro-batches of a step.
pub struct Accumulation<M> {
    sum: GradientsAccumulator<M>,
    /// Where the sum is: where the first micro-batch was.
    device: Option<Device>,
}

/// The outcome of a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Stepped {
    /// The global norm of the gradients before clipping.
    pub gradient_norm: f64,
    /// Whether the parameters moved; they do not where gradients are not finite.
    pub taken: bool,
    /// Where NaN or infinity begins, if anywhere; see [`first_not_finite`].
    pub not_finite: Option<String>,
}

/// Steps in a row without finite gradients.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Unfit(usize);

impl Unfit {
    /// Steps after which a run is given up: the scale of f16 has come down from its start to 1 by then.
    const MOST: usize = 30;

    /// Counts `stepped`, the run's `step`th, which was trained on `questions`.
    pub(crate) fn count<'a>(
        &mut self,
        stepped: Stepped,
        step: usize,
        questions: impl Iterator<Item = &'a String>,
    ) -> Result<()> {
        self.0 = if stepped.taken { 0 } else { self.0 + 1 };
        if self.0 < Self::MOST {
            return Ok(());
        }
        Err(Error::Diverged {
            step,
            steps: self.0,
            tensor: stepped.not_finite.unwrap_or_else(|| "the loss".into()),
            questions: questions.cloned().collect(),
        })
    }
}

impl Optimizer {
    /// Clips at `max_norm`.
    pub fn new(optimizer: ModuleOptimizer, max_norm: f64, scaler: LossScaler) -> Self {
        Self {
            optimizer,
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
        let device = (accumulation.device).get_or_insert_with(|| loss.device().inner());
        let mut gradients = (loss * self.scaler.scale()).backward();
        let gradients = GradientsParams::from_module(&mut gradients, model);
        let gradients = gradients.to_device(device, model);
        accumulation.sum.accumulate(model, gradients);
    }

    /// Applies the accumulated gradients.
    pub fn step<M: Module>(
        &mut self,
        model: M,
        mut accumulation: Accumulation<M>,
        learning_rate: impl Into<ModuleLearningRate>,
    ) -> (M, Stepped) {
        let mut gradients = accumulation.sum.grads();
        let gradient_norm = global_norm(&model, &gradients) / self.scaler.scale();
        let unscale = 1.0 / self.scaler.scale();
        let taken = self.scaler.accepts(gradient_norm);
        let mut stepped = Stepped {
            gradient_norm,
            taken,
            not_finite: None,
        };
        if !taken {
            stepped.not_finite = first_not_finite(&model, &gradients);
            return (model, stepped);
        }
        // As torch clips: a norm just above the limit is not cut in half by rounding.
        let clip = (self.max_norm / (gradient_norm + 1e-6)).min(1.0);
        if unscale * clip != 1.0 {
            scale(&model, &mut gradients, unscale * clip);
        }
        (
            self.optimizer.step(learning_rate, model, gradients),
            stepped,
        )
    }

    /// The loss scaling, which counts the steps that were skipped.
    pub fn scaler(&self) -> &LossScaler {
        &self.scaler
    }

    /// Writes what the optimiser remembers of each parameter.
    pub(crate) fn save(&self, path: &Path) -> Result<(), RecordError> {
        self.optimizer.save(path)
    }

    /// Goes on from what was saved.
    pub(crate) fn restore(self, saved: Bytes, scaler: LossScaler) -> Result<Self, RecordError> {
        Ok(Self {
            optimizer: self.optimizer.from_bytes(saved)?,
            scaler,
            ..self
        })
    }
}

impl fmt::Debug for Optimizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Optimizer")
            .field("max_norm", &self.max_norm)
            .field("scaler", &self.scaler)
            .finish_non_exhaustive()
    }
}

impl<M> fmt::Debug for Accumulation<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accumulation")
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}

impl<M> Default for Accumulation<M> {
    fn default() -> Self {
        Self {
            sum: GradientsAccumulator::new(),
            device: None,
        }
    }
}
