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
    /// One step on `pairs`: retrieve with the question encoder as it is, pack, back-propagate a
    /// micro-batch at a time, clip, and move the parameters once.
    ///
    /// # Errors
    /// Those of retrieval and packing; [`Error::Diverged`].
    pub fn step(&mut self, pairs: &[&QuestionAnswer]) -> Result<StepReport> {
        self.turn_index()?;
        let objective = self.objective();
        let step = self.progress.step;
        let replicas = self
            .replicas
            .iter()
            .map(|device| self.model.clone().fork(device));
        let models: Vec<JointModel> = iter::once(self.model.clone()).chain(replicas).collect();
        let mut gradients = Accumulation::default();
        let mut believed = Vec::new();
        for (number, micro) in pairs.chunks(self.config.micro_batch_size).enumerate() {
            let seed = DropoutSeed::new(self.config.seed, step, number);
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
        // To read is to wait for a device: not before all of them have their work.
        let mut examples = Vec::new();
        for (beliefs, positions, tokens) in believed {
            examples.extend(reports(beliefs, positions, tokens)?);
        }
        let learning_rate = self.schedule.rate(self.progress.taken);
        let rates = self.learning_rates(learning_rate);
        let loss_scale = self.optimizer.scaler().scale();
        let (model, stepped) = self.optimizer.step(self.model.clone(), gradients, rates);
        self.set_model(model)?;
        self.progress.step += 1;
        self.progress.taken += usize::from(stepped.taken);
        let report = StepReport {
            step: self.progress.step,
            loss: examples.iter().map(|example| example.loss).sum(),
            tokens: examples.iter().map(|example| example.tokens).sum(),
            gradient_norm: stepped.gradient_norm,
            learning_rate: learning_rate * self.config.generator.peak(self.config.learning_rate),
            retriever_learning_rate: learning_rate
                * self.retriever_peak(self.config.question_encoder),
            loss_scale,
            taken: stepped.taken,
            not_finite: stepped.not_finite.clone(),
            examples,
        };
        let questions = pairs.iter().map(|pair| &pair.question);
        self.progress.unfit.count(stepped, report.step, questions)?;
        Ok(report)
    }

    /// The learning rates of the parts, of which `share` is that of their highest.
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

    fn retriever_peak(&self, part: Part) -> f64 {
        match self.progress.retriever_frozen {
            true => 0.0,
            false => part.peak(self.config.learning_rate),
        }
    }

    fn objective(&self) -> Objective {
        Objective {
            model: self.rag.config.model(),
            compat: self.rag.config.compat,
            label_smoothing: self.config.label_smoothing,
            retriever: self.config.retriever_loss,
            precision: self.config.precision,
        }
    }
}
