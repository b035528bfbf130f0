use std::{
    fmt, iter,
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::Instant,
};

use burn::{
    lr_scheduler::{
        constant::ConstantLr,
        module_lr_scheduler::{ModuleLearningRate, ModuleLrScheduler},
    },
    module::{Module, ParamGroup},
    tensor::Device,
};
use rag_core::{atomic::replace_folder, nn::Precision};
use rag_generate::Rag;
use rag_retrieve::TextEncoder;

use crate::{
    Accumulation, Backward, DropoutSeed, Error, JointModel, LossScaler, Measured, Objective,
    Optimizer, Part, Prior, QuestionAnswer, Report, Result, Schedule, StepReport, TrainConfig,
    config::keeps_f32,
    data::leaks,
    diary::{self, Diary, Probes},
    order::batches,
    prepare::{Prepared, lengths, prepare},
    refresh::Refresh,
    report::reports,
    state::{self, Progress, State},
    watch::{Action, Event, Monitor, Observation, Warning},
};

/// Trains the retriever and the generator of a [`Rag`] through the marginal likelihood.
pub struct Trainer {
    config: TrainConfig,
    /// The index, with the passage encoder that made it, and the tokenizers; and what the model has
    /// learnt so far, in the model's own memory.
    rag: Rag,
    model: JointModel,
    /// Where copies of the model take their share of a step's micro-batches.
    replicas: Vec<Device>,
    optimizer: Optimizer,
    schedule: Schedule,
    refresh: Refresh,
    progress: Progress,
}

/// The folders of a run: the model, with what the run goes on from beside it.
const LAST: &str = "last";
const BEST: &str = "best";
const STATE: &str = "training";

impl Trainer {
    /// Prepares to train on `pairs` pairs.
    ///
    /// # Errors
    /// [`Error::Setting`], [`Error::NoExamples`].
    pub fn new(rag: Rag, config: TrainConfig, pairs: usize) -> Result<Self> {
        let weights = rag.retriever.weights();
        config.check(weights.is_some())?;
        keeps_f32("rag.precision", rag.precision)?;
        let question_encoder = rag.retriever.question_text_encoder()?;
        keeps_f32("question_encoder.precision", question_encoder.precision)?;
        let trains_context = config.context_encoder.trains();
        if trains_context || config.checkpoints.is_some() {
            let context_encoder = rag.retriever.context_text_encoder()?;
            if trains_context {
                keeps_f32("context_encoder.precision", context_encoder.precision)?;
            }
        }
        if pairs == 0 {
            return Err(Error::NoExamples);
        }
        let steps = config.epochs * pairs.div_ceil(config.batch_size);
        let context_encoder = match trains_context {
            true => Some(rag.retriever.context_text_encoder()?.encoder.clone()),
            false => None,
        };
        let model = JointModel {
            question_encoder: question_encoder.encoder.clone(),
            context_encoder,
            prior: weights.map(|weights| Prior::new(weights, &rag.generator.device())),
            generator: rag.generator.clone(),
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
                warmup: (steps as f64 * config.warmup).ceil() as usize,
                steps,
                decay: config.decay,
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

    /// Goes on with the run in `config.checkpoints` as if it had never stopped: `rag`, `config` and the
    /// number of pairs are those that it began with.
    ///
    /// # Errors
    /// [`Error::NoRun`], [`Error::OtherRun`], [`Error::Record`]; those of [`Trainer::new`].
    pub fn resume(rag: Rag, config: TrainConfig, pairs: usize) -> Result<Self> {
        let mut trainer = Self::new(rag, config, pairs)?;
        let folder = trainer.state_folder();
        if !folder.join(state::STATE).is_file() {
            return Err(Error::NoRun { folder });
        }
        let state = State::read(&folder, &trainer.config)?;
        let model = state::load_module(trainer.model.clone(), &folder, state::MODEL)?;
        trainer.set_model(model)?;
        let path = folder.join(state::OPTIMIZER);
        trainer.optimizer = (trainer.optimizer)
            .restore(&path, state.scaler)
            .map_err(Error::record(path))?;
        trainer.progress = state.progress;
        if state.generation > 0 {
            let encoder = trainer.saved_encoder(&folder, state::INDEX_ENCODER)?;
            trainer.refresh.begin(&trainer.rag.retriever, encoder, 0)?;
            trainer.refresh.finish(&mut trainer.rag.retriever)?;
            trainer.refresh.replaced = None;
            trainer.refresh.generation = state.generation;
        }
        if let Some(step) = state.embedding {
            let encoder = trainer.saved_encoder(&folder, state::EMBEDDING_ENCODER)?;
            trainer
                .refresh
                .begin(&trainer.rag.retriever, encoder, step)?;
        }
        Ok(trainer)
    }

    /// Shares the micro-batches of every step among the model's own device and `devices`, which take turns.
    ///
    /// A device gets a copy of the model at every step; gradients are summed where the model is, which
    /// gives the step of one device. It pays where a step has several micro-batches, each of which keeps
    /// a device busy for longer than the copies take, and where devices work on their own once they are
    /// told what, as GPUs do.
    pub fn with_replicas(self, devices: &[Device]) -> Self {
        let replicas = devices.to_vec();
        Self { replicas, ..self }
    }

    /// Trains for all epochs, with a progress bar, and measures on `heldout` in between.
    ///
    /// # Errors
    /// [`Error::Pair`] before anything is trained; those of [`Trainer::step`];
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
        let lengths = lengths(&self.rag, pairs)?;
        self::lengths(&self.rag, heldout)?;
        let found = state::fingerprint(pairs);
        let expected = self
            .progress
            .data
            .get_or_insert_with(|| found.clone())
            .clone();
        state::same_data(self.state_folder(), &expected, &found)?;

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
                self.watch(&step, &pairs, &probes, seconds, &mut diary)?;
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

    /// Looks at a step for what is going wrong, writes it all down, and does what the settings say.
    fn watch(
        &mut self,
        step: &StepReport,
        pairs: &[&QuestionAnswer],
        probes: &Probes,
        seconds: f64,
        diary: &mut Diary,
    ) -> Result<()> {
        let knowledge = self.rag.retriever.searched();
        let mut observation = diary::observation(step, pairs, knowledge);
        self.probe(&mut observation, probes, diary)?;
        let skipped = self.optimizer.scaler().skipped();
        let metrics = diary::step_metrics(
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

    /// Measures how far the retriever has moved, where this step is one to do so: its vectors now and
    /// then, and new vectors of the passages against those that they replaced.
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
            let metrics = diary::evaluation_metrics(&measured, step, number, seconds);
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

    /// The model as it is now, ready to answer: a snapshot, with the index that the passages were last
    /// embedded into.
    pub fn rag(&self) -> Rag {
        self.rag.clone()
    }

    fn set_model(&mut self, model: JointModel) -> Result<()> {
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
        self.rag.generator = learnt.generator;
        Ok(())
    }

    /// What the run did so far.
    pub fn report(&self) -> Report {
        Report {
            skipped_steps: self.optimizer.scaler().skipped(),
            index_generation: self.refresh.generation,
            ..self.progress.report.clone()
        }
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

    /// Begins to embed the passages with their encoder as it is, or puts what was embedded into use,
    /// when it is time.
    fn turn_index(&mut self) -> Result<()> {
        let step = self.progress.step;
        let (every, delay) = (self.config.index.every, self.config.index.delay);
        let scheduled = every > 0 && step > 0 && step.is_multiple_of(every);
        if (scheduled || self.progress.refresh_asked)
            && self.refresh.running().is_none()
            && let Some(encoder) = self.context_encoder()?
        {
            self.progress.refresh_asked = false;
            self.refresh.begin(&self.rag.retriever, encoder, step)?;
        }
        match self.refresh.running() {
            Some((begun, _)) if begun + delay == step => {
                self.refresh.finish(&mut self.rag.retriever)
            }
            _ => Ok(()),
        }
    }

    /// Embeds the passages with their encoder as it is, and waits.
    fn embed_all(&mut self) -> Result<()> {
        if let Some(encoder) = self.context_encoder()? {
            self.refresh
                .begin(&self.rag.retriever, encoder, self.progress.step)?;
            self.refresh.finish(&mut self.rag.retriever)?;
            self.refresh.replaced = None;
        }
        Ok(())
    }

    /// The passages' encoder in training, as it is now.
    fn context_encoder(&self) -> Result<Option<TextEncoder>> {
        let Some(encoder) = &self.model.context_encoder else {
            return Ok(None);
        };
        let untrained = self.rag.retriever.context_text_encoder()?;
        Ok(Some(untrained.with_encoder(encoder.valid())))
    }

    fn saved_encoder(&self, folder: &Path, name: &str) -> Result<TextEncoder> {
        let encoder = self.rag.retriever.context_text_encoder()?;
        Ok(encoder.with_encoder(state::load_module(encoder.encoder.clone(), folder, name)?))
    }

    fn state_folder(&self) -> PathBuf {
        let folder = self.config.checkpoints.clone().unwrap_or_default();
        folder.join(LAST).join(STATE)
    }

    fn save_last(&self, diary: &mut Diary) -> Result<()> {
        let Some(folder) = &self.config.checkpoints else {
            return Ok(());
        };
        let embedding = self.refresh.running();
        let state = State::new(
            &self.config,
            &self.progress,
            &self.optimizer,
            self.refresh.generation,
            embedding.map(|(step, _)| step),
        );
        replace_folder(&folder.join(LAST), |folder| {
            self.rag.write(folder)?;
            let folder = folder.join(STATE);
            std::fs::create_dir_all(&folder).map_err(rag_core::Error::io(&folder))?;
            state.write(&folder)?;
            state::save_module(&self.model, &folder, state::MODEL)?;
            let path = folder.join(state::OPTIMIZER);
            self.optimizer.save(&path).map_err(Error::record(path))?;
            if self.refresh.generation > 0 {
                let encoder = &self.rag.retriever.context_text_encoder()?.encoder;
                state::save_module(encoder, &folder, state::INDEX_ENCODER)?;
            }
            if let Some((_, encoder)) = embedding {
                state::save_module(&encoder.encoder, &folder, state::EMBEDDING_ENCODER)?;
            }
            Ok::<_, Error>(())
        })?;
        diary.add(Event::Checkpoint {
            step: self.progress.step,
        })
    }
}

/// Names the run's settings and how far it is; parameters are too many to print.
impl fmt::Debug for Trainer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trainer")
            .field("config", &self.config)
            .field("step", &self.progress.step)
            .finish_non_exhaustive()
    }
}
