//! When the passages are embedded again, where their encoder trains.

use burn::module::Module;
use rag_retrieve::TextEncoder;

use super::trainer::Trainer;
use crate::error::Result;

impl Trainer {
    /// Begins to embed the passages with their encoder as it is now, where this step is one to do so; and replaces the
    /// index by the vectors whose embedding was begun `index.delay` steps ago.
    pub(super) fn turn_index(&mut self) -> Result<()> {
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

    /// Embeds the passages with their encoder as it is now, waits, and replaces the index.
    pub(super) fn embed_all(&mut self) -> Result<()> {
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
}
