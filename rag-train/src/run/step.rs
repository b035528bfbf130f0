//! One training step, from top to bottom.

use std::iter;

use burn::{
    lr_scheduler::{
        constant::ConstantLr,
        module_lr_scheduler::{ModuleLearningRate, ModuleLrScheduler},
    },
    module::{Module, ParamGroup},
};

use super::{
    config::{Part, TrainConfig},
    optimizer::Accumulation,
    prepare::{Prepared, prepare},
    report::{StepReport, reports},
    trainer::Trainer,
};
use crate::{
    data::pairs::QuestionAnswer,
    error::Result,
    objective::{
        joint::{DropoutSeed, JointModel},
        loss::{Backward, Objective},
    },
};

impl Trainer {
    /// One step on `pairs`: retrieves with the question encoder as it is, packs, back-propagates a micro-batch at a
    /// time, clips, and moves the parameters once. [`Trainer::run`] calls it for every batch; a program may also call
    /// it by itself, see [`Trainer::with_steps`].
    ///
    /// # Errors
    /// Those of retrieval and packing; [`Error::Diverged`](crate::Error::Diverged).
    pub fn step(&mut self, pairs: &[&QuestionAnswer]) -> Result<StepReport> {
        // New vectors of the passages, where it is time for them.
        self.turn_index()?;

        // Where micro-batches are computed: on the model, and on its copies on other devices.
        let replicas = self
            .replicas
            .iter()
            .map(|device| self.model.clone().fork(device));
        let models: Vec<JointModel> = iter::once(self.model.clone()).chain(replicas).collect();

        // The gradient of the whole batch, a micro-batch at a time.
        let objective = self.objective();
        let mut gradients = Accumulation::default();
        let mut believed = Vec::new();
        for (number, micro) in pairs.chunks(self.config.micro_batch_size).enumerate() {
            let seed = DropoutSeed::new(self.config.seed, self.progress.step, number);
            let model = &models[number % models.len()];
            let Prepared {
                batch,
                questions,
                positions,
                tokens,
            } = prepare(&self.rag, model, &objective, self.config.index, seed, micro)?;
            let backward = Backward {
                documents_at_a_time: self.config.documents_at_a_time,
                weight: 1.0 / pairs.len() as f64,
                seed,
            };
            let beliefs = objective.backward(model, &batch, questions, backward, |loss| {
                self.optimizer.accumulate(model, loss, &mut gradients);
            });
            believed.push((beliefs, positions, tokens));
        }
        drop(models);

        // To read a tensor waits for its device: all devices get their work first.
        let mut examples = Vec::new();
        for (beliefs, positions, tokens) in believed {
            examples.extend(reports(beliefs, positions, tokens)?);
        }

        // One move of the parameters, each part at its own rate.
        let share = self.schedule.rate(self.progress.taken);
        let rates = self.learning_rates(share);
        let loss_scale = self.optimizer.scaler().scale();
        let (model, stepped) = self.optimizer.step(self.model.clone(), gradients, rates);
        self.set_model(model)?;

        // The report of the step. A run whose gradients stay not finite ends here.
        self.progress.step += 1;
        self.progress.taken += usize::from(stepped.taken);
        let report = StepReport {
            step: self.progress.step,
            loss: examples.iter().map(|example| example.loss).sum(),
            tokens: examples.iter().map(|example| example.tokens).sum(),
            gradient_norm: stepped.gradient_norm,
            learning_rate: share * self.config.generator.peak(self.config.learning_rate),
            retriever_learning_rate: share * self.retriever_peak(self.config.question_encoder),
            loss_scale,
            taken: stepped.taken,
            not_finite: stepped.not_finite.clone(),
            examples,
        };
        let questions = pairs.iter().map(|pair| &pair.question);
        self.progress.unfit.count(stepped, report.step, questions)?;
        Ok(report)
    }

    /// The learning rate of each part: `share`, from 0 to 1, of its highest.
    fn learning_rates(&self, share: f64) -> ModuleLearningRate {
        let TrainConfig {
            question_encoder,
            context_encoder,
            prior,
            generator,
            learning_rate,
            ..
        } = self.config;
        let constant = |rate: f64| ConstantLr::new(rate * share);
        ModuleLrScheduler::new(constant(generator.peak(learning_rate)))
            .with_group(
                ParamGroup::from_predicate("question_encoder"),
                constant(self.retriever_peak(question_encoder)),
            )
            .with_group(
                ParamGroup::from_predicate("context_encoder"),
                constant(self.retriever_peak(context_encoder)),
            )
            .with_group(
                ParamGroup::from_predicate("prior"),
                constant(self.retriever_peak(prior)),
            )
            .step()
    }

    /// The highest learning rate of a part of the retriever; 0 once a warning has frozen it.
    fn retriever_peak(&self, part: Part) -> f64 {
        match self.progress.retriever_frozen {
            true => 0.0,
            false => part.peak(self.config.learning_rate),
        }
    }

    fn objective(&self) -> Objective {
        Objective {
            model: self.rag.model(),
            compat: self.rag.config().compat,
            label_smoothing: self.config.label_smoothing,
            retriever: self.config.retriever_loss,
            precision: self.config.precision,
        }
    }
}
