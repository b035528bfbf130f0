//! Decoding from P(y|x) = Σ_z P(z|x) P(y|x,z), which does not factor over tokens: each document
//! proposes answers, and the proposals are compared (section 2.5 of the paper, RAG-Sequence).

use std::collections::HashMap;

use rag_core::marginal::{Compat, RagModel, token_negative_log_likelihood};
use serde::{Deserialize, Serialize};

use crate::{
    decode::{Control, GenerationConfig, Hypothesis},
    error::Result,
    likelihood::{Forced, Given},
    numbers::numbers,
    plain,
    reader::Reader,
};

/// How proposals are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SequenceDecoding {
    /// Every proposal is scored under every document: P(y|x) exactly, for one more pass.
    #[default]
    Thorough,
    /// P(y|x,z) counts as 0 where the document did not propose the answer itself.
    Fast,
}

/// How RAG-Sequence decodes.
#[derive(Clone, Copy, Debug)]
pub struct SequenceSettings {
    /// How proposals are compared.
    pub decoding: SequenceDecoding,
    /// Whose convention the comparison follows.
    pub compat: Compat,
    /// Whether equal proposals are compared once.
    pub deduplicate: bool,
}

/// A proposal and its score: log P(y|x), or fast decoding's lower bound of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    /// From the start token to the end token.
    pub tokens: Vec<u32>,
    /// Higher is better.
    pub score: f32,
}

/// The best `num_return_sequences` proposals, best first. Each document searches with `num_beams`.
///
/// # Errors
/// [`crate::Error::Decode`], [`crate::Error::AnswerTooLong`].
pub fn decode(
    reader: &Reader<'_>,
    generation: &GenerationConfig,
    settings: SequenceSettings,
    control: Control<'_>,
) -> Result<Vec<Proposal>> {
    generation.validate()?;
    reader.expect_one();
    let each = GenerationConfig {
        num_return_sequences: generation.num_beams.max(generation.num_return_sequences),
        ..generation.clone()
    };
    let by_document = plain::decode(
        reader.generator,
        reader.memory.clone(),
        reader.config,
        &each,
        reader.precision,
        control,
    )?;
    let mut proposals = match settings.decoding {
        SequenceDecoding::Thorough => thorough(reader, generation, settings, by_document)?,
        SequenceDecoding::Fast => fast(reader, generation, by_document)?,
    };
    proposals.sort_by(|a, b| b.score.total_cmp(&a.score));
    proposals.truncate(generation.num_return_sequences);
    Ok(proposals)
}

fn thorough(
    reader: &Reader<'_>,
    generation: &GenerationConfig,
    settings: SequenceSettings,
    by_document: Vec<Vec<Hypothesis>>,
) -> Result<Vec<Proposal>> {
    let mut seen = std::collections::HashSet::new();
    let candidates: Vec<&[u32]> = by_document
        .iter()
        .flatten()
        .map(|hypothesis| hypothesis.tokens.as_slice())
        .filter(|tokens| !settings.deduplicate || seen.insert(*tokens))
        .collect();
    // A document has said what it thinks of its own proposals.
    let said: Vec<HashMap<&[u32], &[f32]>> = by_document
        .iter()
        .map(|proposals| {
            let proposals = proposals.iter();
            proposals
                .map(|proposal| (&*proposal.tokens, &*proposal.log_probs))
                .collect()
        })
        .collect();
    let given = |document: usize, candidate: usize| {
        let known: &HashMap<&[u32], &[f32]> = &said[document];
        known.get(candidates[candidate]).copied()
    };
    let scores = match settings.compat {
        Compat::Paper => {
            let answers: Vec<_> = candidates
                .iter()
                .map(|tokens| Forced::decoded(tokens, generation))
                .collect();
            reader
                .likelihoods_given(RagModel::Sequence, &answers, &given)?
                .into_iter()
                .map(|likelihood| likelihood.log_likelihood)
                .collect()
        }
        Compat::HuggingFace => transformers_scores(reader, &candidates, &given)?,
    };
    Ok(candidates
        .into_iter()
        .zip(scores)
        .map(|(tokens, score)| Proposal {
            tokens: tokens.to_vec(),
            score,
        })
        .collect())
}

/// transformers scores what was decoded as if it were labels, and leaves out a leading start-of-text.
fn transformers_scores(
    reader: &Reader<'_>,
    candidates: &[&[u32]],
    given: &Given<'_>,
) -> Result<Vec<f32>> {
    let bos = reader.config.generation().bos_token_id;
    let pad = reader.config.pad();
    let answers: Vec<_> = candidates
        .iter()
        .map(|tokens| Forced::transformers(tokens, pad))
        .collect();
    let (by_document, mut targets) = reader.token_log_probs(&answers, given)?;
    targets.exclude_bos_score = bos.is_some()
        && answers
            .iter()
            .all(|answer| answer.targets.first() == bos.as_ref());
    let [candidates, n_docs, _] = by_document.dims();
    let prior = reader.log_prior.clone().expand([candidates, n_docs]);
    let loss = token_negative_log_likelihood(
        RagModel::Sequence,
        Compat::HuggingFace,
        prior,
        by_document,
        &targets,
    );
    numbers(-loss)
}

fn fast(
    reader: &Reader<'_>,
    generation: &GenerationConfig,
    by_document: Vec<Vec<Hypothesis>>,
) -> Result<Vec<Proposal>> {
    let log_prior = numbers(reader.log_prior.clone())?;
    let mut order = Vec::new();
    let mut terms: HashMap<Vec<u32>, Vec<f32>> = HashMap::new();
    for (prior, hypotheses) in log_prior.into_iter().zip(by_document) {
        for hypothesis in hypotheses {
            let joint = prior + log_probability(&hypothesis, generation);
            let known = terms.entry(hypothesis.tokens.clone()).or_default();
            if known.is_empty() {
                order.push(hypothesis.tokens);
            }
            known.push(joint);
        }
    }
    Ok(order
        .into_iter()
        .map(|tokens| Proposal {
            score: log_sum_exp(&terms[&tokens]),
            tokens,
        })
        .collect())
}

/// Undoes the length penalty of a beam's score.
fn log_probability(hypothesis: &Hypothesis, generation: &GenerationConfig) -> f32 {
    if generation.num_beams == 1 {
        return hypothesis.score;
    }
    let generated = (hypothesis.tokens.len() - 1).max(1) as f64;
    hypothesis.score * generated.powf(generation.length_penalty) as f32
}

fn log_sum_exp(terms: &[f32]) -> f32 {
    let max = terms.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    max + terms
        .iter()
        .map(|term| (term - max).exp())
        .sum::<f32>()
        .ln()
}
