//! Chooses the passages that are retrieved among those that were found.

use std::collections::HashMap;

use ndarray::ArrayView1;

use super::{Retrieved, Retriever};
use crate::{
    error::Result,
    fuse::{maximal_marginal_relevance, reciprocal_rank_fusion},
    index::Hit,
    prior::{PriorWeights, Relevance},
    retriever::error::RetrieverError,
};

/// A passage that was found.
#[derive(Clone, Copy)]
struct Candidate {
    position: usize,
    relevance: Relevance,
    /// The score that it is put in order by.
    score: f32,
}

impl Retriever {
    /// The best `n_docs` of what the vectors of `queries` found. The first of them is the question, of
    /// which `vector` is the vector.
    pub(super) fn choose(
        &self,
        queries: &[&str],
        vector: ArrayView1<f32>,
        mut found: Vec<Vec<Hit>>,
    ) -> Result<Vec<Retrieved>> {
        let order = self.weights_of_order()?;
        let weights = order.or(self.scaled()).unwrap_or_default();
        self.check_sources(weights)?;
        let most = self.compared(queries.len());
        let dense: HashMap<usize, f32> = (found[0].iter())
            .map(|hit| (hit.position, hit.score))
            .collect();
        if let Some(lexical) = &self.lexical {
            for query in queries {
                found.push(lexical.search_among(query, most, self.positions())?);
            }
        }
        let ranked = match found.len() {
            1 => found.swap_remove(0),
            _ => reciprocal_rank_fusion(&found),
        };

        let mut candidates = self.by_vectors_and_words(queries[0], vector, &ranked, &dense)?;
        if let Some(reranker) = &self.reranker {
            if let Some(weights) = self.weights_before_reranker()? {
                put_in_order(&mut candidates, weights);
            }
            candidates.truncate(most);
            let passages = self.knowledge.passages_at(&positions(&candidates))?;
            let scores = reranker.rerank(queries[0], &passages)?;
            if scores.len() != passages.len() {
                let (expected, found) = (passages.len(), scores.len());
                return Err(RetrieverError::Scores { expected, found }.into());
            }
            for (candidate, score) in candidates.iter_mut().zip(scores) {
                candidate.relevance.rerank = score;
            }
        }
        match order {
            Some(weights) => put_in_order(&mut candidates, weights),
            None => candidates.truncate(most),
        }

        if let Some(lambda) = self.diversity {
            let scores: Vec<f32> = candidates.iter().map(|one| one.score).collect();
            let vectors = self.knowledge.vectors_at(&positions(&candidates))?;
            let chosen = maximal_marginal_relevance(&scores, vectors.view(), lambda, self.n_docs);
            candidates = chosen.into_iter().map(|at| candidates[at]).collect();
        }
        candidates.truncate(self.n_docs);
        let passages = self.knowledge.passages_at(&positions(&candidates))?;
        Ok(candidates
            .into_iter()
            .zip(passages)
            .map(|(candidate, passage)| Retrieved {
                passage,
                position: candidate.position,
                relevance: candidate.relevance,
                score: weights.score(candidate.relevance),
            })
            .collect())
    }

    /// The passages of a ranking with their exact scores for `question`, of which some in `dense` are known already.
    fn by_vectors_and_words(
        &self,
        question: &str,
        vector: ArrayView1<f32>,
        ranked: &[Hit],
        dense: &HashMap<usize, f32>,
    ) -> Result<Vec<Candidate>> {
        let positions: Vec<usize> = ranked.iter().map(|hit| hit.position).collect();
        let by_others: Vec<usize> = (positions.iter().copied())
            .filter(|position| !dense.contains_key(position))
            .collect();
        let scores = self.knowledge.vectors_at(&by_others)?.dot(&vector);
        let others: HashMap<usize, f32> = by_others.into_iter().zip(scores).collect();
        let lexical = match &self.lexical {
            Some(lexical) => lexical.scores(question, &positions)?,
            None => vec![0.0; positions.len()],
        };
        Ok(ranked
            .iter()
            .zip(lexical)
            .map(|(&Hit { position, score }, lexical)| Candidate {
                position,
                relevance: Relevance {
                    dense: *(dense.get(&position)).unwrap_or_else(|| &others[&position]),
                    lexical,
                    rerank: 0.0,
                },
                score,
            })
            .collect())
    }

    /// The weights by which a reranker's passages are chosen: those of vectors and words in the retriever's own prior, else
    /// those that it has by default; `None` for the order of what found them.
    fn weights_before_reranker(&self) -> Result<Option<PriorWeights>> {
        match self.prior {
            Some(prior) if self.lexical.is_some() && (prior.dense, prior.lexical) != (0.0, 0.0) => {
                Ok(Some(PriorWeights {
                    rerank: 0.0,
                    ..prior
                }))
            }
            _ => self.default_weights(),
        }
    }

    /// Refuses weights for signals that the retriever does not have.
    fn check_sources(&self, weights: PriorWeights) -> Result<()> {
        let sources = [
            (
                weights.lexical,
                self.lexical.is_some(),
                "lexical",
                "with_lexical",
            ),
            (
                weights.rerank,
                self.reranker.is_some(),
                "rerank",
                "with_reranker",
            ),
        ];
        match sources
            .iter()
            .find(|(weight, is_there, ..)| *weight != 0.0 && !is_there)
        {
            Some(&(weight, _, signal, give)) => Err(RetrieverError::NoSource {
                signal,
                weight,
                give,
            }
            .into()),
            None => Ok(()),
        }
    }
}

fn positions(candidates: &[Candidate]) -> Vec<usize> {
    candidates.iter().map(|one| one.position).collect()
}

/// Best first; among equals that of the larger inner product, then the lower position.
fn put_in_order(candidates: &mut [Candidate], weights: PriorWeights) {
    for candidate in candidates.iter_mut() {
        candidate.score = weights.score(candidate.relevance);
    }
    candidates.sort_by(|a, b| {
        let by_score = b.score.total_cmp(&a.score);
        by_score
            .then(b.relevance.dense.total_cmp(&a.relevance.dense))
            .then(a.position.cmp(&b.position))
    });
}
