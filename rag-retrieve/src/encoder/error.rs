use super::role::Role;

/// What can go wrong while texts become vectors.
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
        "this needs the {role} encoder's weights, and the retriever has an embedder of its own kind ({found}), which only searches; give the retriever a TextEncoder, or train and save the parts that have weights by themselves"
    )]
    NotATextEncoder {
        /// The half of the bi-encoder that was asked for.
        role: Role,
        /// The embedder, as its `Debug` prints it.
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
