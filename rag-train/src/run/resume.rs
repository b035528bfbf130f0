//! Saving a run, and going on with one that was saved.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rag_core::atomic::replace_folder;
use rag_generate::Rag;
use rag_retrieve::TextEncoder;

use super::{
    config::TrainConfig,
    diary::Diary,
    state::{self, State},
    trainer::Trainer,
};
use crate::{
    error::{Error, Result},
    watch::metrics::Event,
};

/// The folder of the model as it was last, among the run's checkpoints; and beside the model what the run goes on
/// from.
const LAST: &str = "last";
const TRAINING: &str = "training";

impl Trainer {
    /// Goes on with the run in `config.checkpoints` as if it had never stopped. `rag` and `config` are those that it
    /// began with, and so are the pairs that [`Trainer::run`] is then given.
    ///
    /// # Errors
    /// [`Error::NoRun`], [`Error::OtherRun`], [`Error::Record`]; those of [`Trainer::new`].
    pub fn resume(rag: Rag, config: TrainConfig) -> Result<Self> {
        let mut trainer = Self::new(rag, config)?;
        let folder = state_folder(&trainer.config);
        if !folder.join(state::STATE).is_file() {
            return Err(Error::NoRun { folder });
        }
        let state = State::read(&folder, &trainer.config)?;
        let model = state::load_module(trainer.model.clone(), &folder, state::MODEL)?;
        trainer.set_model(model)?;
        let path = folder.join(state::OPTIMIZER);
        trainer.optimizer = (trainer.optimizer)
            .restore(state::read(&path)?, state.scaler)
            .map_err(Error::record(path))?;
        if let Some(data) = &state.progress.data {
            let steps = trainer.config.steps(data.pairs);
            trainer.schedule = trainer.config.schedule(steps);
        }
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

    /// Writes the model and all that the run goes on from, in the place of what was there.
    pub(super) fn save_last(&self, diary: &mut Diary) -> Result<()> {
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
        replace_folder(folder.join(LAST), |folder| {
            self.rag.write(folder)?;
            let folder = folder.join(TRAINING);
            fs::create_dir_all(&folder).map_err(rag_core::Error::io(&folder))?;
            state.write(&folder)?;
            state::save_module(&self.model, &folder, state::MODEL)?;
            let path = folder.join(state::OPTIMIZER);
            self.optimizer.save(&path).map_err(Error::record(path))?;
            if self.refresh.generation > 0 {
                let encoder = self.rag.retriever.context_text_encoder()?;
                state::save_module(encoder.encoder(), &folder, state::INDEX_ENCODER)?;
            }
            if let Some((_, encoder)) = embedding {
                state::save_module(encoder.encoder(), &folder, state::EMBEDDING_ENCODER)?;
            }
            Ok::<_, Error>(())
        })?;
        diary.add(Event::Checkpoint {
            step: self.progress.step,
        })
    }

    /// The passages' encoder with the parameters of a saved one.
    fn saved_encoder(&self, folder: &Path, name: &str) -> Result<TextEncoder> {
        let encoder = self.rag.retriever.context_text_encoder()?;
        let trained = state::load_module(encoder.encoder().clone(), folder, name)?;
        Ok(encoder.with_encoder(trained))
    }
}

/// Where a run keeps what it goes on from.
pub(super) fn state_folder(config: &TrainConfig) -> PathBuf {
    let folder = config.checkpoints.clone().unwrap_or_default();
    folder.join(LAST).join(TRAINING)
}
