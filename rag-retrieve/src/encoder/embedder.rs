use ndarray::Array2;
use rag_core::Passage;

use crate::{Fingerprint, Result};

/// What turns passages and questions into vectors whose inner products are retrieval scores.
pub trait Embedder {
    /// Vectors of passages, `[passages, dimension]`.
    ///
    /// # Errors
    /// Those of the tokenizer.
    fn embed_passages(&self, passages: &[Passage]) -> Result<Array2<f32>>;

    /// Vectors of questions, `[questions, dimension]`.
    ///
    /// # Errors
    /// Those of the tokenizer.
    fn embed_questions(&self, questions: &[&str]) -> Result<Array2<f32>>;

    /// Tells this encoder of passages from every other, so that vectors are never searched with an
    /// encoder that did not make them.
    ///
    /// # Errors
    /// Where the weights cannot be read from their device.
    fn fingerprint(&self) -> Result<Fingerprint>;
}
