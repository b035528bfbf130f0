//! Of what was found, the passages that are retrieved.

use std::collections::HashMap;

use ndarray::ArrayView1;
use rag_core::Passage;

use super::{Retrieved, Retriever};
use crate::{
    Error, Result,
    fuse::{maximal_marginal_relevance, reciprocal_rank_fusion},
    index::Hit,
    prior::{PriorWeights, Relevance},
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
        let by_vector: HashMap<usize, f32> = (found[0].iter())
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
        let inner_product = |position: usize| match by_vector.get(&position) {
            Some(score) => *score,
            None => self.vectors(&[position]).row(0).dot(&vector),
        };
        let relevance = self.relevance(queries[0], &positions, inner_product)?;
        let order: Vec<f32> = if weighed {
            let scores = relevance.iter().map(|&passage| weights.score(passage));
            scores.collect()
        } else {
            ranked.iter().map(|hit| hit.score).collect()
        };
        let mut best: Vec<usize> = (0..order.len()).collect();
        best.sort_by(|&a, &b| order[b].total_cmp(&order[a]));
        if let Some(lambda) = self.diversity {
            let vectors = self.vectors(&positions);
            best = maximal_marginal_relevance(&order, vectors.view(), lambda, self.n_docs);
        }
        (best.into_iter().take(self.n_docs))
            .map(|at| {
                Ok(Retrieved {
                    passage: self.knowledge.passage(positions[at])?,
                    position: positions[at],
                    relevance: relevance[at],
                    score: weights.score(relevance[at]),
                })
            })
            .collect()
    }

    /// What speaks for the passages at `positions`, in their order.
    fn relevance(
        &self,
        question: &str,
        positions: &[usize],
        inner_product: impl Fn(usize) -> f32,
    ) -> Result<Vec<Relevance>> {
        let lexical = match &self.lexical {
            Some(lexical) => lexical.scores(question, positions)?,
            None => vec![0.0; positions.len()],
        };
        let rerank = match &self.reranker {
            Some(reranker) => {
                let passages = positions.iter().map(|&at| self.knowledge.passage(at));
                reranker.rerank(question, &passages.collect::<Result<Vec<Passage>>>()?)?
            }
            None => vec![0.0; positions.len()],
        };
        Ok(positions
            .iter()
            .zip(lexical.into_iter().zip(rerank))
            .map(|(&position, (lexical, rerank))| Relevance {
                dense: inner_product(position),
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
            Some(&(weight, _, signal, give)) => Err(Error::NoSource {
                signal,
                weight,
                give,
            }),
            None => Ok(()),
        }
    }
}
