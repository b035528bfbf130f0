use std::error::Error;

/// Errors of a question or of a retriever's settings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RetrieverError {
    /// A question without a word in it.
    #[error("the question is empty; ask with at least one word")]
    EmptyQuestion,
    /// More passages are asked for than there are, or none.
    #[error(
        "n_docs is {n_docs}, there are {passages} passage(s) to search; ask for 1 to {passages}"
    )]
    TooFewPassages {
        /// Passages asked for.
        n_docs: usize,
        /// Passages there are.
        passages: usize,
    },
    /// An index of other vectors than the knowledge base's.
    #[error(
        "the index holds {found} vectors of dimension {found_dimension}, the knowledge base {expected} of {dimension}; make it of KnowledgeBase::index"
    )]
    OtherIndex {
        /// Vectors of the knowledge base.
        expected: usize,
        /// Their dimension.
        dimension: usize,
        /// Vectors of the index.
        found: usize,
        /// Their dimension.
        found_dimension: usize,
    },
    /// A lexical index of other passages than the knowledge base's.
    #[error(
        "the lexical index ({found} passage(s)) does not hold the knowledge base's passages ({expected}) in their order; make it of KnowledgeBase::passages"
    )]
    LexicalIndex {
        /// Passages of the knowledge base.
        expected: usize,
        /// Passages of the index.
        found: usize,
    },
    /// P(z|x) weighs a signal that the retriever does not have.
    #[error(
        "the prior weighs {signal} by {weight}, and the retriever has none; give it one by Retriever::{give}, or set the weight to 0"
    )]
    NoSource {
        /// The signal.
        signal: &'static str,
        /// Its weight.
        weight: f32,
        /// The setter that gives it.
        give: &'static str,
    },
    /// A reranker gave more or fewer scores than it was given passages.
    #[error("the reranker gave {found} scores for {expected} passages; expected one for each")]
    Scores {
        /// Passages.
        expected: usize,
        /// Scores.
        found: usize,
    },
    /// The embedder cannot read the runs of words of passages that the default weights are learnt from.
    #[error(
        "the weights of vectors and words could not be learnt, since questions made of passages could not be embedded; \
         set weights by Retriever::with_prior, or choose Fusion::Ranks by Retriever::with_fusion"
    )]
    DefaultWeights {
        /// The embedder's error.
        source: Box<dyn Error + Send + Sync>,
    },
    /// λ of maximal marginal relevance outside 0 to 1.
    #[error("the diversity's λ is {lambda}; expected 0 (difference alone) to 1 (relevance alone)")]
    Lambda {
        /// The λ that was asked for.
        lambda: f32,
    },
}
