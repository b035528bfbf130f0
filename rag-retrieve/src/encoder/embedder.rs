use std::{fmt, sync::Arc};

use ndarray::Array2;
use rag_core::{Passage, checkpoint::Tensors};

use super::text_encoder::TextEncoder;
use crate::{error::Result, knowledge::Fingerprint};

/// Turns passages and questions into vectors whose inner products are retrieval scores: a [`TextEncoder`], or a
/// service, a model of another library or a table of the user's own.
///
/// ```
/// use ndarray::Array2;
/// use rag_core::Passage;
/// use rag_retrieve::{Embedder, Fingerprint, Result};
///
/// /// Counts of letters: `[texts, 26]`.
/// #[derive(Debug)]
/// struct Letters;
///
/// impl Letters {
///     fn count(texts: &[&str]) -> Array2<f32> {
///         let mut counts = Array2::zeros((texts.len(), 26));
///         for (text, mut row) in texts.iter().zip(counts.rows_mut()) {
///             let letters = text.to_ascii_lowercase().into_bytes().into_iter();
///             letters
///                 .filter(u8::is_ascii_lowercase)
///                 .for_each(|letter| row[usize::from(letter - b'a')] += 1.0);
///         }
///         counts
///     }
/// }
///
/// impl Embedder for Letters {
///     fn embed_passages(&self, passages: &[Passage]) -> Result<Array2<f32>> {
///         let texts: Vec<&str> = passages.iter().map(|passage| passage.text.as_str()).collect();
///         Ok(Self::count(&texts))
///     }
///
///     fn embed_questions(&self, questions: &[&str]) -> Result<Array2<f32>> {
///         Ok(Self::count(questions))
///     }
///
///     fn fingerprint(&self) -> Result<Fingerprint> {
///         Ok(Fingerprint::new("letters, version 1", "counts of letters"))
///     }
/// }
/// ```
pub trait Embedder: fmt::Debug + Send + Sync {
    /// Vectors of passages, `[passages, dimension]`.
    ///
    /// # Errors
    /// Those of the tokenizer; [`Error::embedder`](crate::Error::embedder) makes one of any other.
    fn embed_passages(&self, passages: &[Passage]) -> Result<Array2<f32>>;

    /// Vectors of questions, `[questions, dimension]`.
    ///
    /// # Errors
    /// Those of [`Embedder::embed_passages`].
    fn embed_questions(&self, questions: &[&str]) -> Result<Array2<f32>>;

    /// Tells this encoder of passages from every other: its hash is written in a knowledge base, which refuses to be
    /// searched with another encoder.
    ///
    /// # Errors
    /// Where the weights cannot be read from their device.
    fn fingerprint(&self) -> Result<Fingerprint>;

    /// The weights and the tokenizer behind this embedder, which training moves and saving writes; `None` for an
    /// embedder that only searches.
    fn text_encoder(&self) -> Option<&TextEncoder> {
        None
    }
}

/// An embedder that several retrievers share.
impl<E: Embedder + ?Sized> Embedder for Arc<E> {
    fn embed_passages(&self, passages: &[Passage]) -> Result<Array2<f32>> {
        (**self).embed_passages(passages)
    }

    fn embed_questions(&self, questions: &[&str]) -> Result<Array2<f32>> {
        (**self).embed_questions(questions)
    }

    fn fingerprint(&self) -> Result<Fingerprint> {
        (**self).fingerprint()
    }

    fn text_encoder(&self) -> Option<&TextEncoder> {
        (**self).text_encoder()
    }
}

impl Embedder for TextEncoder {
    fn embed_passages(&self, passages: &[Passage]) -> Result<Array2<f32>> {
        Ok(self.embed(&self.tokenize_passages(passages)?))
    }

    fn embed_questions(&self, questions: &[&str]) -> Result<Array2<f32>> {
        Ok(self.embed(&self.tokenize_questions(questions)?))
    }

    fn fingerprint(&self) -> Result<Fingerprint> {
        let mut hash = blake3::Hasher::new();
        let mut tensors = Tensors::default();
        self.config().store(self.encoder(), &mut tensors, "");
        tensors.hash(&mut hash)?;
        hash.update(self.tokenizer().to_json()?.as_bytes());
        hash.update(format!("{:?}", self.config()).as_bytes());
        Ok(Fingerprint {
            hash: hash.finalize().to_hex().to_string(),
            description: format!(
                "{} with {} layers of {}, {:?} pooling, {:?} normalization",
                self.config().bert.model_type,
                self.config().bert.num_hidden_layers,
                self.config().bert.hidden_size,
                self.config().pooling,
                self.config().normalization
            ),
        })
    }

    fn text_encoder(&self) -> Option<&TextEncoder> {
        Some(self)
    }
}
