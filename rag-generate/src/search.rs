use std::error::Error;

use burn::tensor::{Int, Tensor, TensorData};
use rag_core::{
    marginal::log_sum_exp,
    nn::{Precision, among_workers, log_mixture, log_softmax},
};

use crate::{
    decode::NextToken,
    generator::{Cache, Generator, Memory},
};

/// The generator behind [`NextToken`]: each search reads its own contexts, of which it has one
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
                (0..hypotheses_each)
                    .map(move |h| context * former_each + places.get(h).unwrap_or(&places[0]))
            })
            .collect();
        if !is_identity(&contexts, former_contexts) {
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
        among_workers(&self.generator.device(), || self.step(parents, tokens))
    }
}

impl Search<'_> {
    fn step(
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
            Some(prior) => match log_mixture(&logits, prior) {
                Some(mixed) => mixed.unsqueeze_dim(1),
                None => {
                    let prior = prior.clone().reshape([searches, self.contexts_each, 1, 1]);
                    log_sum_exp(log_softmax(logits) + prior, 1)
                }
            },
        };
        let data = scores.try_into_data()?.convert::<f32>();
        let scores = data.as_slice::<f32>()?;
        let mut by_row = Vec::with_capacity(self.rows.len() * self.vocabulary);
        for (search, place) in &self.rows {
            let start = (search * hypotheses + place) * self.vocabulary;
            by_row.extend_from_slice(&scores[start..start + self.vocabulary]);
        }
        Ok(by_row)
    }
}

fn is_identity(indices: &[usize], count: usize) -> bool {
    indices.len() == count && indices.iter().enumerate().all(|(i, &index)| i == index)
}

#[cfg(test)]
mod tests {
    use rag_core::{TokenBatch, device, marginal::log_prior, padded};

    use super::*;
    use crate::generator::fixtures::{self, Tiny};

    const VOCABULARY: usize = 12;
    const PAD: u32 = 1;

    fn generators() -> impl Iterator<Item = Generator> {
        let generator = |fixture: fixtures::Fixture| fixture.generator(Tiny::default(), 6).1;
        fixtures::ALL.into_iter().map(generator)
    }

    const CONTEXTS: [&[u32]; 6] = [
        &[3, 4, 5],
        &[6, 7],
        &[8],
        &[9, 10, 11, 3],
        &[4, 4],
        &[5, 11, 2],
    ];

    fn encoded(generator: &Generator, contexts: &[&[u32]]) -> Memory {
        let contexts = TokenBatch::new(contexts, PAD, &device("cpu").unwrap());
        generator.encode(&contexts, Precision::F32)
    }

    fn prior(scores: &[[f32; 2]]) -> Tensor<2> {
        let numbers: Vec<f32> = scores.iter().flatten().copied().collect();
        let data = TensorData::new(numbers, [scores.len(), 2]);
        log_prior(Tensor::from_data(data, &device("cpu").unwrap()))
    }

    /// The logits after `tokens`, by reading all of them at once.
    fn logits(generator: &Generator, context: &[u32], tokens: &[u32]) -> Vec<f32> {
        let memory = encoded(generator, &[context]);
        let ids = padded(&[tokens], PAD, &device("cpu").unwrap());
        let logits = generator.decode(ids, &memory, &mut Cache::default(), Precision::F32);
        let last = logits.narrow(1, tokens.len() - 1, 1);
        last.into_data().iter::<f32>().collect()
    }

    fn log_probs(generator: &Generator, context: &[u32], tokens: &[u32]) -> Vec<f64> {
        let logits = logits(generator, context, tokens);
        let total: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
        logits
            .into_iter()
            .map(|logit| f64::from(logit) - total.ln())
            .collect()
    }

    /// Walks a search through steps of parents and tokens, and compares each row's scores with
    /// those of `expected`, given the search that the row belongs to and its tokens.
    fn follows(
        mut search: Search<'_>,
        searches: usize,
        steps: &[(&[usize], &[u32])],
        expected: impl Fn(usize, &[u32]) -> Vec<f64>,
    ) {
        let mut rows: Vec<(usize, Vec<u32>)> = (0..searches).map(|i| (i, Vec::new())).collect();
        for (parents, tokens) in steps {
            let found = search.next(parents, tokens).unwrap();
            rows = parents
                .iter()
                .zip(*tokens)
                .map(|(&parent, &token)| {
                    let (search, tokens) = &rows[parent];
                    (*search, [tokens.as_slice(), &[token]].concat())
                })
                .collect();
            assert_eq!(found.len(), rows.len() * VOCABULARY);
            for ((search, tokens), found) in rows.iter().zip(found.chunks(VOCABULARY)) {
                for (found, expected) in found.iter().zip(expected(*search, tokens)) {
                    assert!(
                        (f64::from(*found) - expected).abs() < 1e-4,
                        "search {search} after {tokens:?}: expected {expected}, found {found}"
                    );
                }
            }
        }
    }

    /// Three searches: beams that multiply, cross and die out, a search that ends in the middle, and
    /// searches of unequal width.
    const STEPS: [(&[usize], &[u32]); 5] = [
        (&[0, 1, 2], &[2, 2, 2]),
        (&[0, 0, 1, 2, 2, 2], &[3, 4, 5, 6, 7, 8]),
        (&[1, 0, 2, 2, 5, 3], &[9, 10, 11, 3, 4, 5]),
        (&[0, 0, 1, 5, 4], &[6, 7, 8, 9, 10]),
        (&[3, 3, 4], &[3, 4, 5]),
    ];

    #[test]
    fn searches_over_one_context_are_teacher_forcing() {
        for generator in generators() {
            let memory = encoded(&generator, &CONTEXTS[..3]);
            let search = Search::independent(&generator, memory, VOCABULARY, Precision::F32);
            follows(search, 3, &STEPS, |search, tokens| {
                let logits = logits(&generator, CONTEXTS[search], tokens);
                logits.into_iter().map(f64::from).collect()
            });
        }
    }

    #[test]
    fn searches_over_several_contexts_mix_them_at_every_step() {
        let scores = [[0.5, -1.0], [2.0, 2.5], [-0.3, 0.9]];
        for generator in generators() {
            let memory = encoded(&generator, &CONTEXTS);
            let search = Search::marginalised(
                &generator,
                memory,
                prior(&scores),
                VOCABULARY,
                Precision::F32,
            );
            follows(search, 3, &STEPS, |search, tokens| {
                let weights = scores[search].map(|score| f64::from(score).exp());
                let total: f64 = weights.iter().sum();
                let [first, second] =
                    [0, 1].map(|z| log_probs(&generator, CONTEXTS[search * 2 + z], tokens));
                let mix = |(first, second): (f64, f64)| {
                    (weights[0] / total * first.exp() + weights[1] / total * second.exp()).ln()
                };
                first.into_iter().zip(second).map(mix).collect()
            });
        }
    }

    #[test]
    fn one_search_may_widen_and_narrow() {
        let scores = [[0.0, 1.0]];
        let steps: [(&[usize], &[u32]); 5] = [
            (&[0], &[2]),
            (&[0, 0, 0], &[3, 4, 5]),
            (&[2], &[6]),
            (&[0, 0], &[7, 8]),
            (&[1, 0], &[9, 9]),
        ];
        for generator in generators() {
            let memory = encoded(&generator, &CONTEXTS[..2]);
            let search = Search::marginalised(
                &generator,
                memory,
                prior(&scores),
                VOCABULARY,
                Precision::F32,
            );
            follows(search, 1, &steps, |_, tokens| {
                let [first, second] = [0, 1].map(|z| log_probs(&generator, CONTEXTS[z], tokens));
                let share = 1.0 / (1.0 + 1_f64.exp());
                let mix = |(first, second): (f64, f64)| {
                    (share * first.exp() + (1.0 - share) * second.exp()).ln()
                };
                first.into_iter().zip(second).map(mix).collect()
            });
        }
    }

    #[test]
    fn identity_is_found() {
        assert!(is_identity(&[0, 1, 2], 3));
        assert!(
            !is_identity(&[0, 1], 3) && !is_identity(&[0, 2, 1], 3) && !is_identity(&[0, 0], 2)
        );
    }
}
