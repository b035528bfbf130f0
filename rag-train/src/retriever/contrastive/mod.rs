//! Questions and passages to a retriever: DPR's contrastive training of the bi-encoder (Karpukhin et
//! al. 2020, arXiv 2004.04906), in batches that memory does not bound (Gao et al. 2021, arXiv
//! 2101.06983).

mod batch;
mod cached;
mod config;
mod encoders;
pub(crate) mod loss;
mod micro_batch;

use std::fmt;

use burn::module::Module;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};
use serde::{Deserialize, Serialize};

pub use batch::{ContrastiveBatch, InBatch};
pub use cached::back_propagate;
pub use config::ContrastiveConfig;
pub use encoders::{BiEncoder, Encoders};
pub use loss::{in_batch_loss, in_batch_scores, mask_duplicates, ranks_first};
pub use micro_batch::MicroBatch;

use self::{batch::has_negative, cached::embed_all};
use crate::{
    data::dpr::DprExample,
    error::{Error, Result},
    run::{
        optimizer::{Accumulation, Optimizer, OptimizerKind, Unfit},
        scaler::LossScaler,
        schedule::{Decay, Schedule},
    },
    watch::progress::Bar,
};

/// The report of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ContrastiveReport {
    /// One entry an epoch.
    pub epochs: Vec<ContrastiveEpoch>,
    /// Steps that were skipped because their gradients were not finite.
    pub skipped_steps: usize,
}

/// The report of an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ContrastiveEpoch {
    /// On the examples, with dropout, each batch before its step.
    pub train: InBatch,
    /// On the held-out examples after the epoch, in batches of the same size, where there are any.
    pub heldout: Option<InBatch>,
}

/// Trains encoders so that each question's vector finds its own passage among those of the batch, and
/// measures on `heldout`, which may be empty, after every epoch. Shows a progress bar.
///
/// A passage that several questions of a batch share is no negative of theirs, nor is a hard negative
/// that is the question's own passage: the same id tells, without ids the same title and text. A batch
/// that is left without any negative is passed over.
///
/// One seed gives one model, as long as nothing else in the process draws random numbers from the
/// device meanwhile: gradient caching needs the same dropout masks twice.
///
/// # Errors
/// [`Error::Setting`]; [`Error::NoExamples`]; [`Error::NoNegatives`] where no batch, or with a
/// `batch_size` of 1 an example, has a negative; [`rag_retrieve::IndexError::Dimension`] for two encoders
/// of different dimensions; [`rag_retrieve::EncoderError::QuestionTooLong`]; [`Error::Diverged`].
pub fn train_contrastive(
    encoders: Encoders,
    examples: &[DprExample],
    heldout: &[DprExample],
    config: &ContrastiveConfig,
) -> Result<(Encoders, ContrastiveReport)> {
    config.check()?;
    encoders.check()?;
    let mut examples: Vec<_> = examples.iter().collect();
    let heldout: Vec<_> = heldout.iter().collect();
    check(&encoders, &examples, config)?;
    if !heldout.is_empty() {
        check(&encoders, &heldout, config)?;
    }
    let steps = config.epochs * examples.len().div_ceil(config.batch_size);
    let mut training = Training::new(encoders, config.clone(), steps);
    let progress = Bar::new(0, steps);
    let mut random = StdRng::seed_from_u64(config.seed);
    let mut report = ContrastiveReport::default();
    for number in 1..=config.epochs {
        examples.shuffle(&mut random);
        let epoch = ContrastiveEpoch {
            train: training.epoch(&examples, number, &progress)?,
            heldout: training.measure(&heldout)?,
        };
        progress.say(&epoch.line(number, config.epochs));
        report.epochs.push(epoch);
    }
    report.skipped_steps = training.optimizer.scaler().skipped();
    Ok((training.encoders.with(&training.model), report))
}

struct Training {
    config: ContrastiveConfig,
    encoders: Encoders,
    model: BiEncoder,
    optimizer: Optimizer,
    schedule: Schedule,
    step: usize,
    unfit: Unfit,
    /// Apart from the order of examples, which then is the same for any micro-batches.
    dropout: StdRng,
}

impl Training {
    fn new(encoders: Encoders, config: ContrastiveConfig, steps: usize) -> Self {
        let adamw = OptimizerKind::AdamW.init(config.weight_decay);
        let scaler = LossScaler::new(config.precision);
        Self {
            optimizer: Optimizer::new(adamw, config.max_gradient_norm, scaler),
            schedule: Schedule {
                peak: config.learning_rate,
                warmup: (steps as f64 * config.warmup).ceil() as usize,
                steps,
                decay: Decay::Linear,
            },
            model: encoders.model(),
            step: 0,
            unfit: Unfit::default(),
            dropout: StdRng::seed_from_u64(config.seed),
            encoders,
            config,
        }
    }

    fn epoch(
        &mut self,
        examples: &[&DprExample],
        number: usize,
        progress: &Bar,
    ) -> Result<InBatch> {
        let device = self.encoders.question().encoder().bert.device().autodiff();
        let mut all = InBatch::default();
        for examples in batches(examples, self.config.batch_size) {
            if !has_negative(examples, self.config.hard_negatives) {
                progress.step("passed over: no negative".into());
                continue;
            }
            let seed = self.dropout.random();
            let batch =
                ContrastiveBatch::new(&self.encoders, examples, &self.config, &device, seed)?;
            all = all.and(self.step(&batch, examples)?);
            progress.step(format!("epoch {number}/{}  {all}", self.config.epochs));
        }
        Ok(all)
    }

    /// One step: the batch's gradient a micro-batch at a time, clipped, and one move of the parameters.
    fn step(&mut self, batch: &ContrastiveBatch, examples: &[&DprExample]) -> Result<InBatch> {
        let ContrastiveConfig {
            temperature,
            precision,
            ..
        } = self.config;
        let mut gradients = Accumulation::default();
        let found = back_propagate(&self.model, batch, temperature, precision, |loss| {
            self.optimizer.accumulate(&self.model, loss, &mut gradients);
        });
        let rate = self.schedule.rate(self.step);
        let (model, stepped) = self.optimizer.step(self.model.clone(), gradients, rate);
        self.model = model;
        self.step += usize::from(stepped.taken);
        let questions = examples.iter().map(|example| &example.question);
        self.unfit.count(stepped, self.step, questions)?;
        Ok(found)
    }

    /// How the encoders as they are find the passages of `examples`; `None` without any.
    fn measure(&self, examples: &[&DprExample]) -> Result<Option<InBatch>> {
        let Self {
            config, encoders, ..
        } = self;
        let model = self.model.valid();
        let device = model.question.bert.device();
        let mut all: Option<InBatch> = None;
        for examples in batches(examples, config.batch_size) {
            if !has_negative(examples, config.hard_negatives) {
                continue;
            }
            let batch = ContrastiveBatch::new(encoders, examples, config, &device, config.seed)?;
            let (_, found) = batch.loss(
                embed_all(&batch.questions, &model.question, config.precision),
                embed_all(&batch.passages, model.context(), config.precision),
                config.temperature,
            );
            all = Some(all.unwrap_or_default().and(found));
        }
        Ok(all)
    }
}

/// Cuts examples evenly into the fewest batches of at most `size`.
fn batches<'a, 'b>(
    examples: &'a [&'b DprExample],
    size: usize,
) -> impl Iterator<Item = &'a [&'b DprExample]> {
    let count = examples.len().div_ceil(size);
    let cut = move |batch| batch * examples.len() / count;
    (0..count).map(move |batch| &examples[cut(batch)..cut(batch + 1)])
}

/// That there is something to learn, and that every question can be read.
fn check(encoders: &Encoders, examples: &[&DprExample], config: &ContrastiveConfig) -> Result<()> {
    let Some(first) = examples.first() else {
        return Err(Error::NoExamples);
    };
    let questions: Vec<&str> = examples.iter().map(|one| one.question.as_str()).collect();
    encoders.question().tokenize_questions(&questions)?;
    let alone = match config.batch_size {
        1 => examples
            .chunks(1)
            .find(|one| !has_negative(one, config.hard_negatives))
            .map(|one| one[0]),
        _ => (!has_negative(examples, config.hard_negatives)).then_some(*first),
    };
    match alone {
        Some(example) => Err(Error::NoNegatives {
            question: example.question.clone(),
        }),
        None => Ok(()),
    }
}

impl ContrastiveEpoch {
    fn line(&self, number: usize, epochs: usize) -> String {
        let mut line = format!("epoch {number}/{epochs}  {}", self.train);
        if let Some(heldout) = self.heldout {
            line += &format!("  held-out {heldout}");
        }
        line
    }
}

impl fmt::Display for InBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.3} nats/question  {:.1} % first",
            self.loss,
            100.0 * self.accuracy
        )
    }
}

#[cfg(test)]
mod tests {
    use rag_core::Passage;

    use super::*;

    #[test]
    fn an_epoch_is_divided_evenly() {
        let example = DprExample::new("", Passage::new("", "", ""));
        let sizes = |examples, size| {
            let examples = vec![&example; examples];
            batches(&examples, size).map(<[_]>::len).collect::<Vec<_>>()
        };
        assert_eq!(sizes(33, 32), [16, 17]);
        assert_eq!(sizes(10, 4), [3, 3, 4]);
        assert_eq!(sizes(8, 4), [4, 4]);
        assert_eq!(sizes(0, 4), [0; 0]);
    }
}
