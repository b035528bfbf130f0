use std::cmp::Reverse;

use ndarray::Array2;
use rag_core::Passage;

use super::KnowledgeBase;
use crate::{
    encoder::Embedder,
    error::Result,
    index::{Storage, error::IndexError},
    knowledge::error::KnowledgeError,
};

/// Passages that are embedded between two calls of a progress callback.
const PASSAGES: usize = 256;

/// Embeds passages into a knowledge base, and tells `progress` how many are done. The longest come
/// first, together, so that little is padded, and what does not fit into memory fails at once.
///
/// # Errors
/// Those of the encoder, and of [`KnowledgeBase::new`].
pub fn build_knowledge_base(
    passages: Vec<Passage>,
    encoder: &(impl Embedder + ?Sized),
    storage: Storage,
    mut progress: impl FnMut(usize),
) -> Result<KnowledgeBase> {
    let vectors = embed(&passages, encoder, &mut progress)?;
    KnowledgeBase::new(passages, vectors, storage, encoder.fingerprint()?)
}

/// Refuses vectors of another dimension.
pub(crate) fn check_width(vectors: &Array2<f32>, dimension: usize) -> Result<()> {
    if vectors.ncols() == dimension {
        return Ok(());
    }
    Err(IndexError::Dimension {
        what: "passage vectors",
        expected: dimension.to_string(),
        found: vectors.ncols(),
    }
    .into())
}

/// The vectors of passages, `[passages, dimension]`; `progress` hears how many are done.
pub(crate) fn embed(
    passages: &[Passage],
    encoder: &(impl Embedder + ?Sized),
    progress: &mut impl FnMut(usize),
) -> Result<Array2<f32>> {
    let mut order: Vec<usize> = (0..passages.len()).collect();
    order.sort_by_key(|&i| Reverse(passages[i].title.len() + passages[i].text.len()));
    let mut vectors = Array2::zeros((0, 0));
    let mut done = 0;
    for some in order.chunks(PASSAGES) {
        let texts: Vec<Passage> = some.iter().map(|&i| passages[i].clone()).collect();
        let embedded = encoder.embed_passages(&texts)?;
        if vectors.is_empty() {
            vectors = Array2::zeros((passages.len(), embedded.ncols()));
        }
        if embedded.nrows() != texts.len() {
            return Err(KnowledgeError::Counts {
                passages: texts.len(),
                vectors: embedded.nrows(),
            }
            .into());
        }
        check_width(&embedded, vectors.ncols())?;
        for (&i, vector) in some.iter().zip(embedded.rows()) {
            vectors.row_mut(i).assign(&vector);
        }
        done += some.len();
        progress(done);
    }
    Ok(vectors)
}
