use serde::{Deserialize, Serialize};

/// The scores of a passage for a question, one for each way of judging it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Relevance {
    /// The inner product of the question's and the passage's vectors.
    pub dense: f32,
    /// BM25; 0 where they share no word, or the retriever has no lexical index.
    pub lexical: f32,
    /// The reranker's score; 0 without one.
    pub rerank: f32,
}

/// The weights of the scores in P(z|x):
///
/// ```text
/// P(z|x) ∝ exp(α · dense + β · BM25 + γ · rerank)
/// ```
///
/// The paper's prior is α = 1 alone. The three are in units of their own, inner products of unit vectors
/// from -1 to 1, BM25 from 0 to some tens, so that good weights depend on the encoder and the corpus:
/// they are learnt, through the marginal likelihood with the model, or from questions whose passages
/// are known.
///
/// ```
/// use rag_retrieve::{PriorWeights, Relevance};
///
/// let weights = PriorWeights { dense: 20.0, lexical: 0.5, rerank: 0.0 };
/// let passage = Relevance { dense: 0.8, lexical: 6.0, rerank: 0.0 };
/// assert_eq!(weights.score(passage), 19.0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PriorWeights {
    /// α.
    pub dense: f32,
    /// β.
    pub lexical: f32,
    /// γ.
    pub rerank: f32,
}

impl Default for PriorWeights {
    /// The paper's.
    fn default() -> Self {
        Self {
            dense: 1.0,
            lexical: 0.0,
            rerank: 0.0,
        }
    }
}

impl PriorWeights {
    /// log P(z|x), up to what is the same for all passages of a question.
    pub fn score(&self, passage: Relevance) -> f32 {
        self.dense * passage.dense + self.lexical * passage.lexical + self.rerank * passage.rerank
    }
}

impl Relevance {
    /// Inner product, BM25, reranker.
    pub fn signals(self) -> [f32; 3] {
        [self.dense, self.lexical, self.rerank]
    }
}

impl From<[f32; 3]> for PriorWeights {
    /// α, β, γ.
    fn from([dense, lexical, rerank]: [f32; 3]) -> Self {
        Self {
            dense,
            lexical,
            rerank,
        }
    }
}

impl From<PriorWeights> for [f32; 3] {
    fn from(weights: PriorWeights) -> Self {
        [weights.dense, weights.lexical, weights.rerank]
    }
}
