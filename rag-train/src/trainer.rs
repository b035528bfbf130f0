use std::{path::PathBuf, time::Instant};

use burn::{
    lr_scheduler::{
        constant::ConstantLr,
        module_lr_scheduler::{ModuleLearningRate, ModuleLrScheduler},
    },
    module::{Module, ParamGroup},
    optim::AdamWConfig,
    tensor::{Device, Tensor, TensorData},
};
use indicatif::ProgressBar;
use ndarray::{Array2, Axis};
use rag_core::{TokenBatch, nn::Precision, padded};
use rag_generate::{
    Rag,
    likelihood::{self, Forced},
    pack,
};
use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};
use serde::{Deserialize, Serialize};

use crate::{
    Accumulation, Batch, Error, JointModel, LossScaler, Objective, Optimizer, QuestionAnswer,
    Result, Schedule, evaluate,
    progress::{progress_bar, say},
};

/// Settings of a fine-tuning run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrainConfig {
    /// Passes over the pairs.
    pub epochs: usize,
    /// Pairs of a step.
    pub batch_size: usize,
    /// Pairs whose activations are in memory at once; the gradient is the same for any number.
    pub micro_batch_size: usize,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// The highest learning rate of the question encoder, where it is another: a generator that
    /// knows nothing yet teaches a good retriever to forget.
    pub retriever_learning_rate: Option<f64>,
    /// Share of the steps over which the learning rate rises.
    pub warmup: f64,
    /// Decoupled weight decay.
    pub weight_decay: f32,
    /// Largest global norm of a step's gradient.
    pub max_gradient_norm: f64,
    /// ε of label smoothing, 0 for none.
    pub label_smoothing: f64,
    /// The format of matrix products; parameters and optimiser stay f32.
    pub precision: Precision,
    /// Seed of the order of pairs and of dropout.
    pub seed: u64,
    /// Epochs between two measurements on the held-out pairs; 0 measures at the end only.
    pub evaluate_every: usize,
    /// Where checkpoints go: `last` and, with held-out pairs, `best`. `None` writes none.
    pub checkpoints: Option<PathBuf>,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            epochs: 10,
            batch_size: 8,
            micro_batch_size: 8,
            learning_rate: 3e-5,
            retriever_learning_rate: None,
            warmup: 0.1,
            weight_decay: 0.001,
            max_gradient_norm: 0.1,
            label_smoothing: 0.0,
            precision: Precision::F32,
            seed: 0,
            evaluate_every: 1,
            checkpoints: None,
        }
    }
}

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// One entry an epoch.
    pub epochs: Vec<Epoch>,
    /// Steps that were skipped because their gradients were not finite.
    pub skipped_steps: usize,
}

/// What an epoch did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Marginal negative log-likelihood per answer token, in nats.
    pub loss_per_token: f64,
    /// Mean global norm of the gradients before clipping.
    pub gradient_norm: f64,
    /// Pairs per second.
    pub examples_per_second: f64,
    /// On the held-out pairs, where they were measured.
    pub heldout: Option<evaluate::AnswerScores>,
}

/// Trains the question encoder and the generator of a [`Rag`] through the marginal likelihood.
#[derive(Clone)]
pub struct Trainer {
    config: TrainConfig,
    rag: Rag,
    model: JointModel,
    optimizer: Optimizer,
    schedule: Schedule,
    step: usize,
    unfit_steps: usize,
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// Summed marginal negative log-likelihood of the answers, in nats.
    pub loss: f64,
    /// Answer tokens.
    pub tokens: usize,
    /// The global norm of the gradients before clipping.
    pub gradient_norm: f64,
}

/// Steps without finite gradients after which a run is given up: the scale of f16 has come down from
/// its start to 1 by then.
const UNFIT_STEPS: usize = 30;

impl Trainer {
    /// Prepares to train on `pairs` pairs.
    ///
    /// # Errors
    /// [`Error::Setting`], [`Error::NoExamples`].
    pub fn new(rag: Rag, config: TrainConfig, pairs: usize) -> Result<Self> {
        config.check()?;
        if pairs == 0 {
            return Err(Error::NoExamples);
        }
        let steps = config.epochs * pairs.div_ceil(config.batch_size);
        let adamw = AdamWConfig::new()
            .with_epsilon(1e-8)
            .with_weight_decay(config.weight_decay);
        let scaler = LossScaler::new(config.precision);
        let model = JointModel {
            question_encoder: rag.retriever.question_encoder.encoder.clone(),
            generator: rag.generator.clone(),
        };
        Ok(Self {
            optimizer: Optimizer::new(&adamw, config.max_gradient_norm, scaler),
            schedule: Schedule {
                peak: config.learning_rate,
                warmup: (steps as f64 * config.warmup).ceil() as usize,
                steps,
            },
            model: model.train(),
            step: 0,
            unfit_steps: 0,
            config,
            rag,
        })
    }

    /// Trains for all epochs, with a progress bar, and measures on `heldout` in between.
    ///
    /// # Errors
    /// Those of [`Trainer::step`]; [`rag_core::Error::Io`] where a checkpoint cannot be written.
    pub fn run(&mut self, pairs: &[QuestionAnswer], heldout: &[QuestionAnswer]) -> Result<Report> {
        let bar = progress_bar(self.schedule.steps);
        let mut report = Report::default();
        let mut best = None;
        self.device().seed(self.config.seed);
        let mut order: Vec<&QuestionAnswer> = pairs.iter().collect();
        let mut random = StdRng::seed_from_u64(self.config.seed);
        for number in 1..=self.config.epochs {
            order.shuffle(&mut random);
            let mut epoch = self.epoch(&order, number, &bar)?;
            let every = self.config.evaluate_every;
            let measured =
                number == self.config.epochs || every > 0 && number.is_multiple_of(every);
            if measured && !heldout.is_empty() {
                let scores = evaluate::answers(&self.rag(), heldout, |_, _| {})?;
                epoch.heldout = Some(scores);
            }
            say(&bar, &epoch.line(number, self.config.epochs));
            self.checkpoint(&epoch, &mut best)?;
            report.epochs.push(epoch);
        }
        bar.finish_and_clear();
        report.skipped_steps = self.optimizer.skipped();
        Ok(report)
    }

    fn epoch(
        &mut self,
        order: &[&QuestionAnswer],
        number: usize,
        bar: &ProgressBar,
    ) -> Result<Epoch> {
        let begun = Instant::now();
        let (mut loss, mut tokens, mut seen) = (0.0, 0, 0);
        let mut norms = Vec::new();
        for pairs in order.chunks(self.config.batch_size) {
            let step = self.step(pairs)?;
            loss += step.loss;
            tokens += step.tokens;
            // A skipped step has no norm.
            norms.extend(step.gradient_norm.is_finite().then_some(step.gradient_norm));
            seen += pairs.len();
            bar.inc(1);
            bar.set_message(format!(
                "epoch {number}/{}  {:.3} nats/token  {:.1} pairs/s",
                self.config.epochs,
                loss / tokens as f64,
                seen as f64 / begun.elapsed().as_secs_f64()
            ));
        }
        Ok(Epoch {
            loss_per_token: loss / tokens as f64,
            gradient_norm: norms.iter().sum::<f64>() / norms.len().max(1) as f64,
            examples_per_second: seen as f64 / begun.elapsed().as_secs_f64(),
            heldout: None,
        })
    }

    /// One step on `pairs`: retrieve with the question encoder as it is, pack, back-propagate a
    /// micro-batch at a time, clip, and move the parameters once.
    ///
    /// # Errors
    /// Those of retrieval and packing; [`Error::Diverged`].
    pub fn step(&mut self, pairs: &[&QuestionAnswer]) -> Result<StepReport> {
        let objective = self.objective();
        let mut gradients = Accumulation::default();
        let (mut loss, mut tokens) = (0.0, 0);
        for micro in pairs.chunks(self.config.micro_batch_size) {
            let prepared = self.prepare(micro)?;
            let losses = self
                .model
                .loss_of_scores(&prepared.batch, prepared.scores, objective);
            let total = losses.sum();
            loss += f64::from(total.clone().into_scalar::<f32>());
            tokens += prepared.tokens;
            let share = total / pairs.len() as f64;
            self.optimizer
                .accumulate(&self.model, share, &mut gradients);
        }
        let rates = self.learning_rates();
        let (model, stepped) = self.optimizer.step(self.model.clone(), gradients, rates);
        self.model = model;
        self.step += usize::from(stepped.taken);
        self.unfit_steps = if stepped.taken {
            0
        } else {
            self.unfit_steps + 1
        };
        if self.unfit_steps >= UNFIT_STEPS {
            return Err(Error::Diverged {
                step: self.step,
                steps: self.unfit_steps,
            });
        }
        Ok(StepReport {
            loss,
            tokens,
            gradient_norm: stepped.gradient_norm,
        })
    }

    /// The model as it is now, ready to answer.
    pub fn rag(&self) -> Rag {
        let model = self.model.valid();
        let mut rag = self.rag.clone();
        rag.retriever.question_encoder.encoder = model.question_encoder;
        rag.generator = model.generator;
        rag
    }

    /// The learning rates of this step, by parameter group.
    fn learning_rates(&self) -> ModuleLearningRate {
        let rate = self.schedule.rate(self.step);
        let peak = self.config.learning_rate;
        let retriever = rate * self.config.retriever_learning_rate.unwrap_or(peak) / peak;
        ModuleLrScheduler::new(ConstantLr::new(rate))
            .with_group(
                ParamGroup::from_predicate("question_encoder"),
                ConstantLr::new(retriever),
            )
            .step()
    }

    fn objective(&self) -> Objective {
        Objective {
            model: self.rag.config.model(),
            compat: self.rag.config.compat,
            label_smoothing: self.config.label_smoothing,
            precision: self.config.precision,
        }
    }

    fn device(&self) -> Device {
        self.model.generator.device()
    }

    /// Retrieves for `pairs` and lays everything out as tensors. The questions are encoded once: the
    /// vectors that search are those that are trained.
    fn prepare(&self, pairs: &[&QuestionAnswer]) -> Result<Prepared> {
        let device = self.device();
        let Rag {
            retriever,
            tokenizer,
            config,
            generation,
            ..
        } = &self.rag;
        let texts: Vec<&str> = pairs.iter().map(|pair| pair.question.as_str()).collect();
        let encodings = retriever.question_encoder.tokenize_questions(&texts)?;
        let ids: Vec<_> = encodings.iter().map(|encoding| &encoding.ids).collect();
        let segments: Vec<_> = encodings
            .iter()
            .map(|encoding| &encoding.segments)
            .collect();
        let questions = TokenBatch::new(&ids, config.question_encoder.bert.pad_token_id, &device);
        let segments = padded(&segments, 0, &device);
        let vectors = self.model.question_encoder.forward(
            &questions,
            Some(segments.clone()),
            self.config.precision,
        );
        let found = retriever.search(&to_array(vectors.clone().detach())?)?;

        let mut contexts = Vec::new();
        let mut positions = Vec::new();
        let mut answers = Vec::new();
        for (pair, passages) in pairs.iter().zip(&found) {
            let packed = passages.iter().map(|found| &found.passage);
            contexts.extend(pack(&pair.question, packed, config, tokenizer)?);
            positions.extend(passages.iter().map(|found| found.position));
            let answer = self.rag.answer_tokens(&pair.answers[0])?;
            answers.push(Forced::answer(&answer, generation));
        }
        let n_docs = retriever.n_docs();
        let documents = retriever.vectors(&positions);
        let dimension = documents.len_of(Axis(1));
        let documents = Tensor::from_data(
            TensorData::new(
                documents.into_raw_vec_and_offset().0,
                [pairs.len(), n_docs, dimension],
            ),
            &device,
        );
        let pad = config.generator.pad();
        let (inputs, targets) = likelihood::batch(&answers, pad, &device);
        let tokens = answers.iter().flat_map(|answer| &answer.counts);
        let batch = Batch {
            questions,
            segments: Some(segments),
            contexts: TokenBatch::new(&contexts, pad, &device),
            documents,
            inputs,
            targets,
        };
        Ok(Prepared {
            scores: batch.score(vectors),
            tokens: tokens.filter(|&&counts| counts).count(),
            batch,
        })
    }

    fn checkpoint(&self, epoch: &Epoch, best: &mut Option<f64>) -> Result<()> {
        let Some(folder) = &self.config.checkpoints else {
            return Ok(());
        };
        let rag = self.rag();
        rag.save(folder.join("last"))?;
        if let Some(scores) = epoch.heldout
            && best.is_none_or(|best| scores.f1 > best)
        {
            *best = Some(scores.f1);
            rag.save(folder.join("best"))?;
        }
        Ok(())
    }
}

struct Prepared {
    batch: Batch,
    /// Raw inner products, `[batch, n_docs]`, with the graph of the question encoder.
    scores: Tensor<2>,
    /// Answer tokens that count.
    tokens: usize,
}

impl TrainConfig {
    fn check(&self) -> Result<()> {
        let positive = [
            ("epochs", self.epochs),
            ("batch_size", self.batch_size),
            ("micro_batch_size", self.micro_batch_size),
        ];
        for (setting, found) in positive {
            if found == 0 {
                return Err(Error::Setting {
                    setting,
                    found: found.to_string(),
                    expected: "at least 1",
                });
            }
        }
        let ranges = [
            ("learning_rate", self.learning_rate, 0.0..1.0, "0 to 1"),
            (
                "warmup",
                self.warmup,
                0.0..1.0,
                "a share of the steps, 0 to 1",
            ),
            ("label_smoothing", self.label_smoothing, 0.0..1.0, "0 to 1"),
            (
                "max_gradient_norm",
                self.max_gradient_norm,
                f64::MIN_POSITIVE..f64::INFINITY,
                "more than 0",
            ),
        ];
        for (setting, found, range, expected) in ranges {
            if !range.contains(&found) {
                return Err(Error::Setting {
                    setting,
                    found: found.to_string(),
                    expected,
                });
            }
        }
        Ok(())
    }
}

impl Epoch {
    fn line(&self, number: usize, epochs: usize) -> String {
        let mut line = format!(
            "epoch {number}/{epochs}  {:.3} nats/token  gradient norm {:.2}  {:.1} pairs/s",
            self.loss_per_token, self.gradient_norm, self.examples_per_second
        );
        if let Some(scores) = self.heldout {
            line += &format!(
                "  held-out EM {:.1} %  F1 {:.1} %",
                100.0 * scores.exact_match,
                100.0 * scores.f1
            );
        }
        line
    }
}

fn to_array(vectors: Tensor<2>) -> Result<Array2<f32>> {
    let shape = vectors.dims();
    let values: Vec<f32> = vectors
        .try_into_vec_as()
        .map_err(|error| rag_generate::Error::Execution(Box::new(error)))?;
    Ok(Array2::from_shape_vec(shape, values).expect("a tensor has as many values as its shape"))
}
