use super::role::Role;

/// Errors of turning texts into vectors.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncoderError {
    /// A question that the encoder cannot read whole.
    #[error(
        "the question has {tokens} tokens, its encoder reads at most {longest}; a question is never cut, ask a shorter one"
    )]
    QuestionTooLong {
        /// Tokens of the question, special tokens included.
        tokens: usize,
        /// The encoder's limit.
        longest: usize,
    },
    /// Training, saving or LoRA asks for a [`TextEncoder`](crate::TextEncoder), and the retriever has another embedder.
    #[error(
        "training and saving need the weights of the {role} encoder: expected a TextEncoder, found {found}, which only searches; give the retriever a TextEncoder for it (Retriever::with_question_encoder, Retriever::with_knowledge)"
    )]
    NotATextEncoder {
        /// The half of the bi-encoder that was asked for.
        role: Role,
        /// The embedder, as its fingerprint describes it.
        found: String,
    },
    /// An embedder gave more or fewer vectors than it was given questions.
    #[error("the embedder gave {found} vectors for {expected} questions; expected one for each")]
    Vectors {
        /// Questions.
        expected: usize,
        /// Vectors.
        found: usize,
    },
    /// An embedder of the user's own failed.
    #[error("the embedder failed; see its error")]
    Embedder {
        /// The embedder's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
