//! The observations of a run, and the actions that follow.

use rag_core::nn::Precision;

use super::{
    diary::{Diary, observation, step_metrics},
    probes::Probes,
    report::StepReport,
    trainer::Trainer,
};
use crate::{
    data::pairs::QuestionAnswer,
    error::Result,
    watch::{config::Action, metrics::Event, observation::Observation, warning::Warning},
};

impl Trainer {
    /// Measures a step, writes its metrics and warnings, and does on a warning what the settings say.
    pub(super) fn observe(
        &mut self,
        step: &StepReport,
        pairs: &[&QuestionAnswer],
        probes: &Probes,
        seconds: f64,
        diary: &mut Diary,
    ) -> Result<()> {
        let knowledge = self.rag.retriever.searched();
        let mut observation = observation(step, pairs, knowledge);
        self.probe(&mut observation, probes, diary)?;
        let skipped = self.optimizer.scaler().skipped();
        let metrics = step_metrics(
            step,
            &observation,
            self.progress.epoch + 1,
            skipped,
            seconds,
        );
        diary.add(Event::Step(metrics))?;
        let mut warnings = self.progress.monitor.observe(&observation);
        // In f16 a step is skipped now and then: the loss scale is found so.
        if let (Some(tensor), Precision::F32 | Precision::Bf16) =
            (&step.not_finite, self.config.precision)
        {
            warnings.push(Warning::NotFinite {
                tensor: tensor.clone(),
                batch: pairs.iter().map(|pair| pair.question.clone()).collect(),
            });
        }
        for warning in warnings {
            let action = self.progress.monitor.action(warning.kind());
            match action {
                Action::Warn => {}
                Action::FreezeRetriever => self.progress.retriever_frozen = true,
                Action::RefreshIndex => self.progress.refresh_asked = true,
                Action::Stop => self.progress.over = true,
            }
            diary.warn(step.step, action, warning)?;
        }
        Ok(())
    }

    /// Measures how far the retriever has moved, where this step is one to do so: the cosine between the probes' first
    /// vectors and their vectors now, and, after a refresh, recall with the old and with the new vectors.
    fn probe(
        &mut self,
        observation: &mut Observation,
        probes: &Probes,
        diary: &mut Diary,
    ) -> Result<()> {
        let step = observation.step;
        let every = self.config.monitor.probe_every;
        let moves = self.config.question_encoder.trains();
        if moves && every > 0 && step.is_multiple_of(every) {
            observation.probe_cosine =
                Some(probes.cosine(self.rag.retriever.question_text_encoder()?)?);
        }
        if let Some(stale) = self.refresh.replaced.take() {
            let fresh = &self.rag.retriever;
            let stale = stale.with_question_encoder(fresh.question_encoder().clone());
            observation.recall_stored = Some(probes.recall(&stale)?);
            observation.recall_fresh = Some(probes.recall(fresh)?);
            diary.add(Event::Refresh {
                step: step - 1,
                generation: self.refresh.generation,
            })?;
        }
        Ok(())
    }
}
