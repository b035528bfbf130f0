use std::sync::Arc;

use ndarray::{Array2, Axis, concatenate};
use rag_core::Passage;

use crate::{
    Error, Result,
    encoder::{Embedder, TextEncoder},
    index::{Index, Storage},
    knowledge::KnowledgeBase,
};

/// A passage that was found for a question.
#[derive(Clone, Debug, PartialEq)]
pub struct Retrieved {
    /// The passage.
    pub passage: Passage,
    /// Its place in the knowledge base.
    pub position: usize,
    /// The raw inner product of the question's and the passage's vectors; P(z|x) is the softmax of
    /// these over what was retrieved.
    pub score: f32,
}

/// Questions to passages: the question's vector against all passages of a knowledge base.
#[derive(Clone, Debug)]
pub struct Retriever {
    /// Encodes questions; this is the half that training moves.
    pub question_encoder: TextEncoder,
    /// Encodes passages; frozen, since the knowledge base holds what it said.
    pub context_encoder: TextEncoder,
    knowledge: Arc<KnowledgeBase>,
    n_docs: usize,
}

/// Passages that are embedded between two calls of a progress callback.
const PASSAGES: usize = 256;

/// Embeds passages into a knowledge base, and tells `progress` how many are done.
///
/// # Errors
/// Those of the encoder; [`Error::EmptyKnowledgeBase`], [`Error::NotFinite`], [`Error::DuplicateId`].
pub fn build_knowledge_base(
    passages: Vec<Passage>,
    encoder: &impl Embedder,
    storage: Storage,
    mut progress: impl FnMut(usize),
) -> Result<KnowledgeBase> {
    let mut vectors = Vec::new();
    let mut done = 0;
    for some in passages.chunks(PASSAGES) {
        vectors.push(encoder.embed_passages(some)?);
        done += some.len();
        progress(done);
    }
    if vectors.is_empty() {
        return Err(Error::EmptyKnowledgeBase);
    }
    let views: Vec<_> = vectors.iter().map(|some| some.view()).collect();
    let vectors = concatenate(Axis(0), &views).expect("one encoder gives one dimension");
    KnowledgeBase::new(passages, vectors, storage, encoder.fingerprint()?)
}

impl Retriever {
    /// A retriever of the best `n_docs` passages.
    ///
    /// # Errors
    /// [`Error::Encoder`] where the knowledge base was made by another encoder than
    /// `context_encoder`; [`Error::TooFewPassages`].
    pub fn new(
        question_encoder: TextEncoder,
        context_encoder: TextEncoder,
        knowledge: impl Into<Arc<KnowledgeBase>>,
        n_docs: usize,
    ) -> Result<Self> {
        let knowledge = knowledge.into();
        knowledge.check_encoder(&context_encoder.fingerprint()?)?;
        let retriever = Self {
            question_encoder,
            context_encoder,
            knowledge,
            n_docs: 0,
        };
        retriever.top_k(n_docs)
    }

    /// Retrieves `n_docs` passages for each question.
    ///
    /// # Errors
    /// [`Error::TooFewPassages`] where the knowledge base has fewer.
    pub fn top_k(mut self, n_docs: usize) -> Result<Self> {
        if n_docs == 0 || n_docs > self.knowledge.len() {
            return Err(Error::TooFewPassages {
                n_docs,
                passages: self.knowledge.len(),
            });
        }
        self.n_docs = n_docs;
        Ok(self)
    }

    /// The passages of each question, best first.
    ///
    /// # Errors
    /// [`Error::EmptyQuestion`], [`Error::QuestionTooLong`]; those of the index.
    pub fn retrieve(&self, questions: &[&str]) -> Result<Vec<Vec<Retrieved>>> {
        if questions.iter().any(|question| question.trim().is_empty()) {
            return Err(Error::EmptyQuestion);
        }
        self.search(&self.question_encoder.embed_questions(questions)?)
    }

    /// The passages of each question vector `[questions, dimension]`, best first.
    ///
    /// # Errors
    /// Those of the index.
    pub fn search(&self, questions: &Array2<f32>) -> Result<Vec<Vec<Retrieved>>> {
        self.knowledge
            .index()
            .search(questions.view(), self.n_docs)?
            .into_iter()
            .map(|hits| {
                hits.into_iter()
                    .map(|hit| {
                        Ok(Retrieved {
                            passage: self.knowledge.passage(hit.position)?,
                            position: hit.position,
                            score: hit.score,
                        })
                    })
                    .collect()
            })
            .collect()
    }

    /// The vectors of passages at `positions`, `[positions, dimension]`.
    pub fn vectors(&self, positions: &[usize]) -> Array2<f32> {
        let index = self.knowledge.index();
        let mut vectors = Array2::zeros((positions.len(), index.dimension()));
        for (mut row, &position) in vectors.rows_mut().into_iter().zip(positions) {
            row.assign(&index.rows(position..position + 1).row(0));
        }
        vectors
    }

    /// Passages, vectors, manifest.
    pub fn knowledge(&self) -> &KnowledgeBase {
        &self.knowledge
    }

    /// Passages retrieved for each question.
    pub fn n_docs(&self) -> usize {
        self.n_docs
    }
}
