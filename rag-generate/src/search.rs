use std::error::Error;

use burn::tensor::{Int, Tensor, TensorData, activation::log_softmax};
use rag_core::{marginal::log_sum_exp, nn::Precision};

use crate::{
    decode::NextToken,
    generator::{Cache, Generator, Memory},
};

/// A generator as the decoder sees it: each search reads its own contexts, of which it has one
/// (plain generation, and each document of RAG-Sequence) or `n_docs` (RAG-Token, which marginalises
/// every step).
///
/// The generator's rows are laid out `[search, context, hypothesis]`, so that the hypotheses of a
/// search share their contexts' keys and values. Searches with fewer hypotheses than others repeat
/// one.
pub(crate) struct Search<'a> {
    generator: &'a Generator,
    precision: Precision,
    vocabulary: usize,
    contexts_each: usize,
    /// RAG-Token: log P(z|x), `[searches, n_docs]`.
    log_prior: Option<Tensor<2>>,
    memory: Memory,
    cache: Cache,
    /// Of the previous call: which search each row belongs to, and its place among the search's rows.
    rows: Vec<(usize, usize)>,
    hypotheses_each: usize,
}

impl<'a> Search<'a> {
    /// Searches that read one context each.
    pub fn independent(
        generator: &'a Generator,
        memory: Memory,
        vocabulary: usize,
        precision: Precision,
    ) -> Self {
        Self {
            generator,
            precision,
            vocabulary,
            contexts_each: 1,
            log_prior: None,
            memory,
            cache: Cache::default(),
            rows: Vec::new(),
            hypotheses_each: 1,
        }
    }

    /// Searches over the mixture of their `n_docs` contexts, with log P(z|x) `[searches, n_docs]`.
    pub fn marginalised(
        generator: &'a Generator,
        memory: Memory,
        log_prior: Tensor<2>,
        vocabulary: usize,
        precision: Precision,
    ) -> Self {
        Self {
            contexts_each: log_prior.dims()[1],
            log_prior: Some(log_prior),
            ..Self::independent(generator, memory, vocabulary, precision)
        }
    }

    fn indices(&self, indices: Vec<usize>) -> Tensor<1, Int> {
        let count = indices.len();
        let indices: Vec<i64> = indices.into_iter().map(|i| i as i64).collect();
        Tensor::from_data(TensorData::new(indices, [count]), &self.generator.device())
    }

    /// Lays out the rows that continue `parents`, and takes memory and cache along.
    fn arrange(&mut self, parents: &[usize]) {
        if self.rows.is_empty() {
            self.rows = parents.iter().map(|&search| (search, 0)).collect();
            return;
        }
        // Searches are renumbered by their place among those still alive.
        let mut alive = Vec::new();
        let mut rows = Vec::with_capacity(parents.len());
        let mut sources: Vec<Vec<usize>> = Vec::new();
        for &parent in parents {
            let (search, place) = self.rows[parent];
            if alive.last() != Some(&search) {
                alive.push(search);
                sources.push(Vec::new());
            }
            let group = &mut sources[alive.len() - 1];
            rows.push((alive.len() - 1, group.len()));
            group.push(place);
        }
        let former_each = self.hypotheses_each;
        let former_contexts = self.memory.contexts();
        let hypotheses_each = sources.iter().map(Vec::len).max().unwrap_or(1);
        let contexts: Vec<usize> = alive
            .iter()
            .flat_map(|search| (0..self.contexts_each).map(move |z| (search, z)))
            .map(|(search, z)| search * self.contexts_each + z)
            .collect();
        let cached: Vec<usize> = contexts
            .iter()
            .enumerate()
            .flat_map(|(i, context)| {
                let places = &sources[i / self.contexts_each];
                (0..hypotheses_each).map(move |h| {
                    context * former_each + places.get(h).unwrap_or(&places[0])
                })
            })
            .collect();
        if !is_identity(&contexts, former_contexts) {
            let contexts = self.indices(contexts);
            self.memory = self.memory.select(&contexts);
            let alive = self.indices(alive);
            self.log_prior = self.log_prior.take().map(|prior| prior.select(0, alive));
        }
        if !is_identity(&cached, former_contexts * former_each) {
            let cached = self.indices(cached);
            self.cache.select(&cached);
        }
        self.rows = rows;
        self.hypotheses_each = hypotheses_each;
    }
}

impl NextToken for Search<'_> {
    fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    fn next(
        &mut self,
        parents: &[usize],
        tokens: &[u32],
    ) -> Result<Vec<f32>, Box<dyn Error + Send + Sync>> {
        self.arrange(parents);
        let (contexts, hypotheses) = (self.memory.contexts(), self.hypotheses_each);
        let searches = contexts / self.contexts_each;
        let mut ids = vec![i64::from(tokens[0]); searches * hypotheses];
        for (&(search, place), &token) in self.rows.iter().zip(tokens) {
            ids[search * hypotheses + place] = i64::from(token);
        }
        let ids = Tensor::<3, Int>::from_data(
            TensorData::new(ids, [searches, 1, hypotheses]),
            &self.generator.device(),
        )
        .expand([searches, self.contexts_each, hypotheses])
        .reshape([contexts * hypotheses, 1]);
        let logits = self
            .generator
            .decode(ids, &self.memory, &mut self.cache, self.precision)
            .reshape([searches, self.contexts_each, hypotheses, self.vocabulary]);
        let scores = match &self.log_prior {
            None => logits,
            Some(prior) => {
                let prior = prior.clone().reshape([searches, self.contexts_each, 1, 1]);
                log_sum_exp(log_softmax(logits, 3) + prior, 1)
            }
        };
        let data = scores.try_into_data()?.convert::<f32>();
        let scores = data.as_slice::<f32>()?;
        let by_row = |&(search, place): &(usize, usize)| {
            let start = (search * hypotheses + place) * self.vocabulary;
            &scores[start..start + self.vocabulary]
        };
        Ok(self.rows.iter().flat_map(by_row).copied().collect())
    }
}

fn is_identity(indices: &[usize], count: usize) -> bool {
    indices.len() == count && indices.iter().enumerate().all(|(i, &index)| i == index)
}
