//! Of what was found, the passages that are retrieved.

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

impl Retriever {
    /// The best `n_docs` of what the vectors of `queries` found. The first of them is the question, of
    /// which `vector` is the vector.
    pub(super) fn choose(
        &self,
        queries: &[&str],
        vector: ArrayView1<f32>,
        mut found: Vec<Vec<Hit>>,
    ) -> Result<Vec<Retrieved>> {
        let weighed = self.weights().is_some();
        let weights = self.weights().unwrap_or_default();
        self.check_sources(weights)?;
        let candidates = self.compared(queries.len());
        let mut dense: HashMap<usize, f32> = (found[0].iter())
            .map(|hit| (hit.position, hit.score))
            .collect();
        if let Some(lexical) = &self.lexical {
            for query in queries {
                found.push(lexical.search_among(query, candidates, self.positions())?);
            }
        }
        let mut ranked = match found.len() {
            1 => found.swap_remove(0),
            _ => reciprocal_rank_fusion(&found),
        };
        ranked.truncate(candidates);

        let positions: Vec<usize> = ranked.iter().map(|hit| hit.position).collect();
        let by_others: Vec<usize> = (positions.iter().copied())
            .filter(|position| !dense.contains_key(position))
            .collect();
        let scores = self.knowledge.vectors_at(&by_others)?.dot(&vector);
        dense.extend(by_others.into_iter().zip(scores));
        let relevance = self.relevance(queries[0], &positions, &dense)?;
        let order: Vec<f32> = if weighed {
            let scores = relevance.iter().map(|&passage| weights.score(passage));
            scores.collect()
        } else {
            ranked.iter().map(|hit| hit.score).collect()
        };
        let mut best: Vec<usize> = (0..order.len()).collect();
        best.sort_by(|&a, &b| order[b].total_cmp(&order[a]));
        if let Some(lambda) = self.diversity {
            let vectors = self.knowledge.vectors_at(&positions)?;
            best = maximal_marginal_relevance(&order, vectors.view(), lambda, self.n_docs);
        }
        best.truncate(self.n_docs);
        let chosen: Vec<usize> = best.iter().map(|&at| positions[at]).collect();
        let passages = self.knowledge.passages_at(&chosen)?;
        Ok(best
            .into_iter()
            .zip(passages)
            .map(|(at, passage)| Retrieved {
                passage,
                position: positions[at],
                relevance: relevance[at],
                score: weights.score(relevance[at]),
            })
            .collect())
    }

    /// What speaks for the passages at `positions`, in their order.
    fn relevance(
        &self,
        question: &str,
        positions: &[usize],
        dense: &HashMap<usize, f32>,
    ) -> Result<Vec<Relevance>> {
        let lexical = match &self.lexical {
            Some(lexical) => lexical.scores(question, positions)?,
            None => vec![0.0; positions.len()],
        };
        let rerank = match &self.reranker {
            Some(reranker) => reranker.rerank(question, &self.knowledge.passages_at(positions)?)?,
            None => vec![0.0; positions.len()],
        };
        Ok(positions
            .iter()
            .zip(lexical.into_iter().zip(rerank))
            .map(|(&position, (lexical, rerank))| Relevance {
                dense: dense[&position],
                lexical,
                rerank,
            })
            .collect())
    }

    /// Refuses weights for what nothing gives.
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
