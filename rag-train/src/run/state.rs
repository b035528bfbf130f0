//! The state with which a run goes on as if it had never stopped.

use std::{fs, io, path::Path};

use burn::{
    module::Module,
    store::{ModuleRecord, RecordError},
    tensor::Bytes,
};
use rag_core::atomic;
use serde::{Deserialize, Serialize};

use super::{
    config::TrainConfig,
    optimizer::{Optimizer, Unfit},
    report::{Report, SoFar},
    scaler::LossScaler,
};
use crate::{
    data::pairs::QuestionAnswer,
    error::{Error, Result},
    watch::monitor::Monitor,
};

const FORMAT_VERSION: u32 = 2;

/// Everything that is saved but tensors. The order of pairs, the dropout masks and the learning rates are functions
/// of the seed and of where the run is.
#[derive(Serialize, Deserialize)]
pub(crate) struct State {
    format_version: u32,
    pub(crate) config: TrainConfig,
    pub(crate) progress: Progress,
    pub(crate) scaler: LossScaler,
    /// How many times the knowledge base's vectors were replaced.
    pub(crate) generation: usize,
    /// The step at which an embedding was begun that is not yet in use.
    pub(crate) embedding: Option<usize>,
}

/// Tells the pairs of one run from those of another.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Data {
    pub(crate) pairs: usize,
    /// Of questions and answers, in their order.
    fingerprint: String,
}

/// How far a run is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// The pairs that it trains on, once they are known.
    pub(crate) data: Option<Data>,
    /// Steps that moved the parameters: where the learning rate is.
    pub(crate) taken: usize,
    /// Steps in all.
    pub(crate) step: usize,
    /// Epochs that are over.
    pub(crate) epoch: usize,
    /// Batches of this epoch that are over.
    pub(crate) batch: usize,
    /// Steps in a row without finite gradients.
    pub(crate) unfit: Unfit,
    /// The sums of this epoch so far.
    pub(crate) so_far: SoFar,
    pub(crate) report: Report,
    pub(crate) best: Option<f64>,
    /// Measurements in a row without a better one.
    pub(crate) no_better: usize,
    pub(crate) over: bool,
    pub(crate) monitor: Monitor,
    /// Whether the retriever stays as it is from now on.
    pub(crate) retriever_frozen: bool,
    /// Whether the passages are to be embedded anew before it is time.
    pub(crate) refresh_asked: bool,
}

impl Progress {
    pub(crate) fn new(monitor: Monitor) -> Self {
        Self {
            data: None,
            taken: 0,
            step: 0,
            epoch: 0,
            batch: 0,
            unfit: Unfit::default(),
            so_far: SoFar::default(),
            report: Report::default(),
            best: None,
            no_better: 0,
            over: false,
            monitor,
            retriever_frozen: false,
            refresh_asked: false,
        }
    }
}

impl State {
    pub(crate) fn new(
        config: &TrainConfig,
        progress: &Progress,
        optimizer: &Optimizer,
        generation: usize,
        embedding: Option<usize>,
    ) -> Self {
        Self {
            format_version: FORMAT_VERSION,
            config: config.clone(),
            progress: progress.clone(),
            scaler: *optimizer.scaler(),
            generation,
            embedding,
        }
    }

    pub(crate) fn read(folder: &Path, config: &TrainConfig) -> Result<Self> {
        let path = folder.join(STATE);
        let bytes = fs::read(&path).map_err(rag_core::Error::io(&path))?;
        let damaged = |error: postcard::Error| Error::Record {
            path,
            source: RecordError::Io(error.to_string()),
        };
        // The version comes first: what follows it is laid out as it says.
        let (version, _) = match postcard::take_from_bytes::<u32>(&bytes) {
            Ok(read) => read,
            Err(error) => return Err(damaged(error)),
        };
        if version != FORMAT_VERSION {
            return Err(other_run(folder, "format version", version, FORMAT_VERSION));
        }
        let state: Self = postcard::from_bytes(&bytes).map_err(damaged)?;
        let [theirs, ours] = [&state.config, config].map(settings);
        let (Some(theirs), Some(ours)) = (theirs.as_object(), ours.as_object()) else {
            return Ok(state);
        };
        match ours
            .iter()
            .find(|(name, value)| theirs.get(*name) != Some(value))
        {
            Some((name, value)) => {
                let theirs = theirs
                    .get(name)
                    .map_or("nothing".into(), ToString::to_string);
                Err(other_run(folder, name, theirs, value))
            }
            None => Ok(state),
        }
    }

    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        // JSON would round its numbers.
        Ok(atomic::write_file(folder.join(STATE), |file| {
            postcard::to_io(self, file)
                .map(drop)
                .map_err(io::Error::other)
        })?)
    }
}

/// The settings that decide what a run computes.
fn settings(config: &TrainConfig) -> serde_json::Value {
    let deciding = TrainConfig {
        checkpoints: None,
        checkpoint_every: 0,
        ..config.clone()
    };
    serde_json::to_value(deciding).unwrap_or_default()
}

fn other_run(folder: &Path, what: &str, expected: impl ToString, found: impl ToString) -> Error {
    Error::OtherRun {
        folder: folder.to_owned(),
        what: what.to_owned(),
        expected: expected.to_string(),
        found: found.to_string(),
    }
}

impl Data {
    pub(crate) fn of(pairs: &[QuestionAnswer]) -> Self {
        let mut hash = blake3::Hasher::new();
        for pair in pairs {
            hash.update(&(pair.answers.len() as u64).to_le_bytes());
            for text in std::iter::once(&pair.question).chain(&pair.answers) {
                hash.update(&(text.len() as u64).to_le_bytes());
                hash.update(text.as_bytes());
            }
        }
        Self {
            pairs: pairs.len(),
            fingerprint: hash.finalize().to_hex().to_string(),
        }
    }

    /// Refuses to go on with other pairs than the run in `folder` began with.
    pub(crate) fn check(&self, found: &Self, folder: &Path) -> Result<()> {
        if self.pairs != found.pairs {
            let what = "number of training pairs";
            return Err(other_run(folder, what, self.pairs, found.pairs));
        }
        if self.fingerprint != found.fingerprint {
            let what = "fingerprint of the training pairs";
            let [expected, found] = [self, found].map(|data| &data.fingerprint);
            return Err(other_run(folder, what, expected, found));
        }
        Ok(())
    }
}

pub(crate) fn save_module<M: Module>(module: &M, folder: &Path, name: &str) -> Result<()> {
    let path = folder.join(name);
    module
        .clone()
        .into_record()
        .save(&path)
        .map_err(Error::record(path))
}

pub(crate) fn load_module<M: Module>(module: M, folder: &Path, name: &str) -> Result<M> {
    let path = folder.join(name);
    ModuleRecord::from_bytes(read(&path)?)
        .and_then(|record| module.try_load_record(record))
        .map_err(Error::record(path))
}

/// A whole file in memory. Burn would read its tensors from the file when they are first used, when the run's next
/// checkpoint may have taken its place.
pub(crate) fn read(path: &Path) -> Result<Bytes> {
    let bytes = fs::read(path).map_err(rag_core::Error::io(path))?;
    Ok(Bytes::from_bytes_vec(bytes))
}

/// The files of a run.
pub(crate) const STATE: &str = "state.bin";
pub(crate) const MODEL: &str = "model.bpk";
pub(crate) const OPTIMIZER: &str = "optimizer.bpk";
pub(crate) const INDEX_ENCODER: &str = "index_encoder.bpk";
pub(crate) const EMBEDDING_ENCODER: &str = "embedding_encoder.bpk";
