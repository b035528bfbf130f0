//! Two other systems of the field: generate then rank, and accept or abstain.

use ndarray::Array2;
use rag_core::Passage;
use rag_retrieve::{Embedder, EncoderError, IndexError};

use crate::{
    answer::Outcome,
    error::{Error, Result},
    rag::{Rag, not_empty},
};

/// The least at which an answer is accepted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Threshold {
    /// P(y|x) of at least this.
    Probability(f32),
    /// [`Answer::confidence`](crate::Answer::confidence) of at least this; the model must have a
    /// [`Calibration`](crate::Calibration).
    Confidence(f32),
    /// The retriever's similarity of question and answer, an inner product, of at least this. Texts are
    /// comparable where the encoders normalise their vectors; else long ones may win by length.
    Similarity(f32),
}

/// What a candidate is compared with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RankBy {
    /// The question: ⟨encode(question), encode(candidate)⟩, the candidate encoded as a passage.
    #[default]
    Question,
    /// The best of the retrieved passages: max ⟨encode(candidate), passage⟩, the candidate encoded as a
    /// question.
    Evidence,
}

/// A candidate answer and what speaks for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranked {
    /// The candidate.
    pub text: String,
    /// Higher is better.
    pub score: f32,
}

impl Rag {
    /// The best answer, or an abstention with that answer inside where it stays below the threshold.
    ///
    /// # Errors
    /// [`Error::NoCalibration`]; those of [`Rag::ask`].
    pub fn ask_or_abstain(&self, question: &str, threshold: Threshold) -> Result<Outcome> {
        if matches!(threshold, Threshold::Confidence(_)) && self.calibration().is_none() {
            return Err(Error::NoCalibration);
        }
        let answer = self.ask(question)?;
        let accepted = match threshold {
            Threshold::Probability(least) => answer.probability() >= least,
            Threshold::Confidence(least) => {
                (answer.confidence).is_some_and(|confidence| confidence >= least)
            }
            Threshold::Similarity(least) => {
                let ranked = self.rank_candidates(question, &[&answer.text], RankBy::Question)?;
                ranked[0].score >= least
            }
        };
        Ok(if accepted {
            Outcome::Answered(answer)
        } else {
            Outcome::Abstained(answer)
        })
    }

    /// Generate then rank: candidates by the retriever's similarity, best first.
    ///
    /// # Errors
    /// [`Error::NoCandidates`]; those of the retriever.
    pub fn rank_candidates(
        &self,
        question: &str,
        candidates: &[&str],
        by: RankBy,
    ) -> Result<Vec<Ranked>> {
        if candidates.is_empty() {
            return Err(Error::NoCandidates);
        }
        not_empty(question)?;
        let question_encoder = self.retriever.question_encoder();
        let scores: Vec<f32> = match by {
            RankBy::Question => {
                let passages: Vec<_> = candidates
                    .iter()
                    .map(|candidate| Passage::new("", "", *candidate))
                    .collect();
                let question = question_encoder.embed_questions(&[question])?;
                let found = self.retriever.context_encoder().embed_passages(&passages)?;
                check(&question, 1, found.ncols())?;
                check(&found, candidates.len(), question.ncols())?;
                found.dot(&question.row(0)).to_vec()
            }
            RankBy::Evidence => {
                let found = self.retrieve(question)?;
                let positions: Vec<_> = found.iter().map(|passage| passage.position).collect();
                let evidence = self.retriever.knowledge().vectors_at(&positions)?;
                let vectors = question_encoder.embed_questions(candidates)?;
                check(&vectors, candidates.len(), evidence.ncols())?;
                let similarity = vectors.dot(&evidence.t());
                let best = |row: ndarray::ArrayView1<'_, f32>| {
                    row.iter().copied().fold(f32::NEG_INFINITY, f32::max)
                };
                similarity.rows().into_iter().map(best).collect()
            }
        };
        let mut ranked: Vec<_> = candidates
            .iter()
            .zip(scores)
            .map(|(text, score)| Ranked {
                text: (*text).to_owned(),
                score,
            })
            .collect();
        ranked.sort_by(|a, b| b.score.total_cmp(&a.score));
        Ok(ranked)
    }
}

/// Refuses what an embedder of the user's own may give: other than `texts` vectors, or of another dimension.
fn check(vectors: &Array2<f32>, texts: usize, dimension: usize) -> Result<()> {
    if vectors.nrows() != texts {
        let (expected, found) = (texts, vectors.nrows());
        return Err(rag_retrieve::Error::from(EncoderError::Vectors { expected, found }).into());
    }
    if vectors.ncols() != dimension {
        let error = IndexError::Dimension {
            what: "the vectors to compare",
            expected: dimension.to_string(),
            found: vectors.ncols(),
        };
        return Err(rag_retrieve::Error::from(error).into());
    }
    Ok(())
}
