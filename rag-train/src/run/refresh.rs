//! A knowledge base that follows a passage encoder in training.

use std::thread::{self, JoinHandle};

use rag_core::Passage;
use rag_retrieve::{KnowledgeBase, Retriever, TextEncoder, build_knowledge_base};

use crate::error::{Error, Result};

/// Embeds all passages again in the background. Whoever holds a clone of the [`Retriever`] keeps the
/// vectors, and the encoder that made them, that it began with.
#[derive(Default)]
pub(crate) struct Refresh {
    /// How many times the vectors were replaced.
    pub(crate) generation: usize,
    embedding: Option<Embedding>,
    /// The retriever that was replaced last, until someone takes it.
    pub(crate) replaced: Option<Retriever>,
}

struct Embedding {
    step: usize,
    encoder: TextEncoder,
    thread: JoinHandle<rag_retrieve::Result<KnowledgeBase>>,
}

impl Refresh {
    /// Begins to embed what `retriever` knows with `encoder`, which no gradient moves.
    pub(crate) fn begin(
        &mut self,
        retriever: &Retriever,
        encoder: TextEncoder,
        step: usize,
    ) -> Result<()> {
        let knowledge = retriever.local()?;
        let passages = knowledge
            .passages()
            .collect::<rag_retrieve::Result<Vec<Passage>>>()?;
        let storage = knowledge.manifest().storage;
        let embedder = encoder.clone();
        self.embedding = Some(Embedding {
            step,
            encoder,
            thread: thread::spawn(move || {
                build_knowledge_base(passages, &embedder, storage, |_| {})
            }),
        });
        Ok(())
    }

    /// The step at which the embedding that runs was begun, and its encoder.
    pub(crate) fn running(&self) -> Option<(usize, &TextEncoder)> {
        (self.embedding.as_ref()).map(|embedding| (embedding.step, &embedding.encoder))
    }

    /// Waits for the embedding that runs, and puts its vectors and its encoder in the place of the
    /// retriever's.
    pub(crate) fn finish(&mut self, retriever: &mut Retriever) -> Result<()> {
        let Some(Embedding {
            encoder, thread, ..
        }) = self.embedding.take()
        else {
            return Ok(());
        };
        let knowledge = thread.join().map_err(|_| Error::Embedding)??;
        let fresh = retriever.clone().with_knowledge(encoder, knowledge)?;
        self.replaced = Some(std::mem::replace(retriever, fresh));
        self.generation += 1;
        Ok(())
    }
}
