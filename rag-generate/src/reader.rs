use burn::tensor::{Tensor, TensorData};
use rag_core::{
    TokenBatch,
    marginal::{
        RagModel, Targets, document_log_posterior, log_likelihood, log_prior,
        token_log_responsibilities,
    },
    nn::{Precision, among_workers},
};

use crate::{
    error::{Error, Result},
    generator::{Generator, GeneratorConfig, Memory},
    likelihood::{Forced, Given, token_log_probs},
    numbers::numbers,
};

/// The generator with the contexts of a question, or of several, before it, encoded once for all that is asked of
/// them.
#[derive(Debug)]
pub struct Reader<'a> {
    pub(crate) generator: &'a Generator,
    pub(crate) memory: Memory,
    /// log P(z|x), `[questions, n_docs]`.
    pub(crate) log_prior: Tensor<2>,
    pub(crate) config: &'a GeneratorConfig,
    pub(crate) precision: Precision,
}

/// What the contexts say about one answer, `y`.
#[derive(Clone, Debug)]
pub struct Likelihood {
    /// log P(y|x).
    pub log_likelihood: f32,
    /// P(z|x,y) of each passage.
    pub posterior: Vec<f32>,
    /// Of each token that is not forced.
    pub tokens: Vec<TokenLikelihood>,
}

/// What the contexts say about one token of an answer.
#[derive(Clone, Debug)]
pub struct TokenLikelihood {
    /// The token.
    pub id: u32,
    /// log P(y_i|x,y_<i).
    pub log_probability: f32,
    /// P(z|x,y_i,y_<i) of each passage: RAG-Token's responsibilities. RAG-Sequence draws every token from
    /// one passage, so that there each is the posterior of the whole answer.
    pub shares: Vec<f32>,
}

impl<'a> Reader<'a> {
    /// Encodes the contexts `[n_docs, length]` of a question, whose retrieval scores are `[n_docs]` inner products.
    pub fn new(
        generator: &'a Generator,
        contexts: &TokenBatch,
        scores: &[f32],
        config: &'a GeneratorConfig,
        precision: Precision,
    ) -> Self {
        Self::of_questions(generator, contexts, &[scores], config, precision)
    }

    /// Encodes the contexts `[questions · n_docs, length]` of several questions, with the scores of each.
    ///
    /// # Panics
    /// If the questions have different numbers of scores.
    pub fn of_questions(
        generator: &'a Generator,
        contexts: &TokenBatch,
        scores: &[&[f32]],
        config: &'a GeneratorConfig,
        precision: Precision,
    ) -> Self {
        let n_docs = scores.first().map_or(0, |scores| scores.len());
        let scores = TensorData::new(scores.concat(), [scores.len(), n_docs]);
        Self {
            memory: generator.encode(contexts, precision),
            log_prior: log_prior(Tensor::from_data(scores, &generator.device())),
            generator,
            config,
            precision,
        }
    }

    /// The contexts of question `i`, already encoded.
    pub fn question(&self, i: usize) -> Self {
        let [_, n_docs] = self.log_prior.dims();
        Self {
            memory: self.memory.narrow(i * n_docs, n_docs),
            log_prior: self.log_prior.clone().narrow(0, i, 1),
            ..*self
        }
    }

    /// Refuses to take the contexts of several questions for those of one.
    pub(crate) fn expect_one(&self) {
        let [questions, _] = self.log_prior.dims();
        assert_eq!(
            questions, 1,
            "of several questions, ask one: Reader::question"
        );
    }

    /// What the contexts of its one question say about each answer, in the order given.
    ///
    /// # Errors
    /// [`Error::NoCandidates`], [`Error::AnswerTooLong`], [`Error::Execution`].
    ///
    /// # Panics
    /// If the reader has several questions before it; see [`Reader::question`].
    pub fn likelihoods(&self, model: RagModel, answers: &[Forced]) -> Result<Vec<Likelihood>> {
        self.likelihoods_given(model, answers, &|_, _| None)
    }

    /// The same, where documents have given log-probabilities already.
    pub(crate) fn likelihoods_given(
        &self,
        model: RagModel,
        answers: &[Forced],
        given: &Given<'_>,
    ) -> Result<Vec<Likelihood>> {
        self.expect_one();
        if answers.is_empty() {
            return Err(Error::NoCandidates);
        }
        for answer in answers {
            writable(self.config, &self.memory, answer.inputs.len())?;
        }
        let (by_document, _) = self.token_log_probs(answers, given)?;
        let [candidates, n_docs, length] = by_document.dims();
        let prior = self.log_prior.clone().expand([candidates, n_docs]);
        let posterior = document_log_posterior(prior.clone(), by_document.clone()).exp();
        let likelihood = log_likelihood(model, prior.clone(), by_document.clone());
        let weights =
            rag_core::marginal::mixture_log_weights(model, prior.clone(), by_document.clone());
        let tokens = rag_core::marginal::log_sum_exp(weights + by_document.clone(), 1);
        let shares = match model {
            RagModel::Token => token_log_responsibilities(prior, by_document).exp(),
            RagModel::Sequence => posterior
                .clone()
                .unsqueeze_dim::<3>(2)
                .expand([candidates, n_docs, length]),
        };
        let [likelihood, posterior, tokens, shares] = [
            numbers(likelihood)?,
            numbers(posterior)?,
            numbers(tokens)?,
            numbers(shares)?,
        ];
        let token = |row: usize, i: usize| TokenLikelihood {
            id: answers[row].targets[i],
            log_probability: tokens[row * length + i],
            shares: (0..n_docs)
                .map(|z| shares[(row * n_docs + z) * length + i])
                .collect(),
        };
        Ok(answers
            .iter()
            .enumerate()
            .map(|(row, answer)| Likelihood {
                log_likelihood: likelihood[row],
                posterior: posterior[row * n_docs..(row + 1) * n_docs].to_vec(),
                tokens: (0..answer.targets.len())
                    .filter(|&i| answer.counts[i])
                    .map(|i| token(row, i))
                    .collect(),
            })
            .collect())
    }

    /// log P(y_i|x,z,y_<i) `[answers, n_docs, length]` and the targets.
    pub(crate) fn token_log_probs(
        &self,
        answers: &[Forced],
        given: &Given<'_>,
    ) -> Result<(Tensor<3>, Targets)> {
        let pad = self.config.pad();
        let (generator, precision) = (self.generator, self.precision);
        among_workers(&generator.device(), || {
            token_log_probs(generator, &self.memory, answers, given, pad, precision)
        })
    }
}

/// Refuses answers of more tokens than the generator has positions for after the contexts in `memory`.
pub(crate) fn writable(config: &GeneratorConfig, memory: &Memory, tokens: usize) -> Result<()> {
    match config.family().longest_answer(memory.length()) {
        Some(longest) if tokens > longest => Err(Error::AnswerTooLong { tokens, longest }),
        _ => Ok(()),
    }
}
