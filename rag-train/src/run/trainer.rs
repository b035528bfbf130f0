//! The trainer: a model, its optimiser, and how far its run is. `epochs.rs` is the loop over epochs, `step.rs` one
//! step, `index.rs` how the passages' vectors follow, `observe.rs` what is watched, `resume.rs` what is saved.

use std::fmt;

use burn::{module::Module, tensor::Device};
use rag_generate::Rag;

use super::{
    config::TrainConfig,
    optimizer::Optimizer,
    precision::keeps_f32,
    refresh::Refresh,
    report::Report,
    scaler::LossScaler,
    schedule::{Decay, Schedule},
    state::Progress,
};
use crate::{
    error::Result,
    objective::{joint::JointModel, prior::Prior},
    watch::monitor::Monitor,
};

/// Trains the retriever and the generator of a [`Rag`] through the marginal likelihood.
pub struct Trainer {
    pub(super) config: TrainConfig,
    /// The index, with the passage encoder that made it, and the tokenizers; and what the model has
    /// learnt so far, in the model's own memory.
    pub(super) rag: Rag,
    pub(super) model: JointModel,
    /// Where copies of the model take their share of a step's micro-batches.
    pub(super) replicas: Vec<Device>,
    pub(super) optimizer: Optimizer,
    /// The share of each part's highest learning rate at each step: constant until the number of steps is known.
    pub(super) schedule: Schedule,
    pub(super) refresh: Refresh,
    pub(super) progress: Progress,
}

/// A trainer may move to a thread of its own.
const _: () = {
    const fn is_send<T: Send>() {}
    is_send::<Trainer>();
};

impl Trainer {
    /// Prepares to train `rag` as `config` says. [`Trainer::run`] then trains it on pairs.
    ///
    /// # Errors
    /// [`Error::Setting`](crate::Error::Setting) for a setting that cannot be, and for parameters that are not f32.
    pub fn new(rag: Rag, config: TrainConfig) -> Result<Self> {
        let weights = rag.retriever.weights()?;
        config.check(weights.is_some())?;
        keeps_f32("rag.precision", rag.precision())?;
        let question_encoder = rag.retriever.question_text_encoder()?;
        keeps_f32("question_encoder.precision", question_encoder.precision())?;
        let trains_context = config.context_encoder.trains();
        if trains_context || config.checkpoints.is_some() {
            let context_encoder = rag.retriever.context_text_encoder()?;
            if trains_context {
                keeps_f32("context_encoder.precision", context_encoder.precision())?;
            }
        }
        let context_encoder = match trains_context {
            true => Some(rag.retriever.context_text_encoder()?.encoder().clone()),
            false => None,
        };
        let model = JointModel {
            question_encoder: question_encoder.encoder().clone(),
            context_encoder,
            prior: weights.map(|weights| Prior::new(weights, &rag.generator().device())),
            generator: rag.generator().clone(),
        };
        let model = config.activations.of(model.train());
        Ok(Self {
            optimizer: Optimizer::new(
                config.optimizer.init(config.weight_decay),
                config.max_gradient_norm,
                LossScaler::new(config.precision),
            ),
            schedule: Schedule {
                peak: 1.0,
                warmup: 0,
                steps: 0,
                decay: Decay::Constant,
            },
            model: JointModel {
                question_encoder: config.question_encoder.prepare(model.question_encoder),
                context_encoder: model.context_encoder,
                prior: model.prior.map(|prior| config.prior.prepare(prior)),
                generator: config.generator.prepare(model.generator),
            },
            replicas: Vec::new(),
            refresh: Refresh::default(),
            progress: Progress::new(Monitor::new(config.monitor.clone())?),
            config,
            rag,
        })
    }

    /// Shares the micro-batches of every step among the model's own device and `devices`, which take turns.
    ///
    /// A device gets a copy of the model at every step; gradients are summed where the model is, which
    /// gives the step of one device. It pays where a step has several micro-batches, each of which keeps
    /// a device busy for longer than the copies take, and where devices work on their own once they are
    /// told what, as GPUs do.
    #[must_use]
    pub fn with_replicas(self, devices: &[Device]) -> Self {
        let replicas = devices.to_vec();
        Self { replicas, ..self }
    }

    /// Lets the learning rate rise and fall over `steps` steps, for a program that calls [`Trainer::step`] by itself:
    /// without it the rate of such steps stays at its highest. [`Trainer::run`] counts the steps from its pairs.
    #[must_use]
    pub fn with_steps(self, steps: usize) -> Self {
        let schedule = self.config.schedule(steps);
        Self { schedule, ..self }
    }

    /// The model as it is now, ready to answer: a snapshot, with the index that the passages were last
    /// embedded into.
    pub fn rag(&self) -> Rag {
        self.rag.clone()
    }

    /// Trains on with `model`, and answers with its parameters.
    pub(super) fn set_model(&mut self, model: JointModel) -> Result<()> {
        let learnt = model.valid();
        self.model = model;
        let retriever = &self.rag.retriever;
        let question_encoder =
            (retriever.question_text_encoder()?).with_encoder(learnt.question_encoder);
        let prior = learnt.prior.map(|prior| prior.weights()).transpose()?;
        let retriever = retriever.clone().with_question_encoder(question_encoder);
        self.rag.retriever = match prior {
            Some(prior) => retriever.with_prior(prior),
            None => retriever.without_prior(),
        };
        self.rag = self.rag.clone().with_generator(learnt.generator)?;
        Ok(())
    }

    /// The report of the run so far.
    pub fn report(&self) -> Report {
        Report {
            skipped_steps: self.optimizer.scaler().skipped(),
            index_generation: self.refresh.generation,
            ..self.progress.report.clone()
        }
    }
}

impl fmt::Debug for Trainer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trainer")
            .field("config", &self.config)
            .field("step", &self.progress.step)
            .field("epoch", &self.progress.epoch)
            .finish_non_exhaustive()
    }
}
