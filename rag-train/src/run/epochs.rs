//! The loop over epochs: steps, measurements, checkpoints.

use std::{ops::ControlFlow, time::Instant};

use super::{
    config::TrainConfig,
    diary::{Diary, evaluation_metrics},
    order::batches,
    prepare::lengths,
    probes::Probes,
    report::{Report, StepReport},
    resume::state_folder,
    state::Data,
    trainer::Trainer,
};
use crate::{
    data::pairs::{QuestionAnswer, leaks},
    error::{Error, Result},
    evaluate::measured::Measured,
    watch::metrics::Event,
};

/// The folder of the best model, among the run's checkpoints.
const BEST: &str = "best";

impl Trainer {
    /// Trains on `pairs` for all epochs, with a progress bar, and measures on `heldout` in between.
    ///
    /// The number of pairs decides the number of steps, and with it the learning rate of each. A run that has begun,
    /// here or in a checkpoint, goes on with the pairs that it began with.
    ///
    /// # Errors
    /// [`Error::NoExamples`] without pairs; [`Error::Pair`] before anything is trained; [`Error::OtherRun`] for other
    /// pairs than the run began with; those of [`Trainer::step`];
    /// [`rag_core::Error::Io`] where a checkpoint cannot be written.
    pub fn run(&mut self, pairs: &[QuestionAnswer], heldout: &[QuestionAnswer]) -> Result<Report> {
        self.run_while(pairs, heldout, |_| ControlFlow::Continue(()))
    }

    /// Like [`Trainer::run`], telling `watch` of every step until it breaks: the run then ends with a
    /// checkpoint, and [`Trainer::resume`] or another call goes on with it.
    ///
    /// # Errors
    /// Those of [`Trainer::run`].
    pub fn run_while(
        &mut self,
        pairs: &[QuestionAnswer],
        heldout: &[QuestionAnswer],
        mut watch: impl FnMut(&StepReport) -> ControlFlow<()>,
    ) -> Result<Report> {
        if pairs.is_empty() {
            return Err(Error::NoExamples);
        }
        let lengths = lengths(&self.rag, pairs)?;
        self::lengths(&self.rag, heldout)?;
        let found = Data::of(pairs);
        let expected = self.progress.data.get_or_insert_with(|| found.clone());
        expected.check(&found, &state_folder(&self.config))?;
        self.schedule = self.config.schedule(self.config.steps(pairs.len()));

        let folder = self.config.checkpoints.clone();
        let mut diary = Diary::open(folder, self.progress.step, self.schedule.steps)?;
        let leaks = leaks(pairs, heldout);
        if let Some(&first) = leaks.first() {
            diary.progress.say(&format!(
                "warning: {} of the {} held-out questions are training questions too, such as {:?}: what is \
                 measured on them says nothing of new questions",
                leaks.len(),
                heldout.len(),
                heldout[first].question
            ));
        }
        let untrained = self.rag.retriever.question_text_encoder()?;
        let probes = Probes::new(untrained, pairs, self.config.monitor.probes)?;
        let TrainConfig {
            epochs,
            batch_size,
            order,
            seed,
            checkpoint_every,
            ..
        } = self.config;
        let started = self.progress.epoch < epochs && !self.progress.over;
        while self.progress.epoch < epochs && !self.progress.over {
            let mut broken = false;
            let batches = batches(order, &lengths, batch_size, seed, self.progress.epoch);
            for batch in batches.iter().skip(self.progress.batch) {
                let begun = Instant::now();
                let pairs: Vec<_> = batch.iter().map(|&i| &pairs[i]).collect();
                let step = self.step(&pairs)?;
                let seconds = begun.elapsed().as_secs_f64();
                self.progress.batch += 1;
                self.progress.so_far.add(&step, seconds);
                let epoch = self.progress.epoch + 1;
                diary
                    .progress
                    .step(self.progress.so_far.message(epoch, epochs));
                self.observe(&step, &pairs, &probes, seconds, &mut diary)?;
                if self.progress.over {
                    self.embed_all()?;
                }
                broken = watch(&step).is_break() || self.progress.over;
                if broken || checkpoint_every > 0 && step.step.is_multiple_of(checkpoint_every) {
                    self.save_last(&mut diary)?;
                }
                if broken {
                    break;
                }
            }
            if broken {
                break;
            }
            self.end_epoch(heldout, &mut diary)?;
        }
        let ended = self.progress.epoch == epochs || self.progress.over;
        if started && ended {
            diary.report(&self.rag, &self.config, pairs, heldout)?;
        }
        Ok(self.report())
    }

    /// Measures, notes what the epoch did, and writes the checkpoints.
    fn end_epoch(&mut self, heldout: &[QuestionAnswer], diary: &mut Diary) -> Result<()> {
        let mut epoch = std::mem::take(&mut self.progress.so_far).epoch();
        self.progress.epoch += 1;
        self.progress.batch = 0;
        let number = self.progress.epoch;
        let last = number == self.config.epochs;
        if last {
            self.embed_all()?;
        }
        let every = self.config.evaluate_every;
        let mut best = false;
        if !heldout.is_empty() && (last || every > 0 && number.is_multiple_of(every)) {
            let begun = Instant::now();
            let measured = Measured::of(&self.rag, heldout)?;
            let seconds = begun.elapsed().as_secs_f64();
            let step = self.progress.step;
            let metrics = evaluation_metrics(&measured, step, number, seconds);
            diary.add(Event::Evaluation(metrics))?;
            let found = measured.metric(self.config.metric);
            best = self.progress.best.is_none_or(|best| found > best);
            if best {
                self.progress.best = Some(found);
            }
            self.progress.no_better = if best { 0 } else { self.progress.no_better + 1 };
            self.progress.over = self.config.patience == Some(self.progress.no_better);
            epoch.heldout = Some(measured);
        }
        diary.progress.say(&epoch.line(number, self.config.epochs));
        self.progress.report.epochs.push(epoch);
        if best && let Some(folder) = &self.config.checkpoints {
            self.rag.save(folder.join(BEST))?;
        }
        if self.progress.over && !last {
            self.embed_all()?;
        }
        self.save_last(diary)
    }
}
