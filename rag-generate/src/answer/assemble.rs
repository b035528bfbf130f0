use rag_core::Tokenizer;
use rag_retrieve::Retrieved;

use super::{Answer, AnswerToken, Evidence};
use crate::{error::Result, reader::Likelihood, stop::before_stop};

/// The answer whose likelihood given `passages` is known, in words and with its evidence. Its text ends before the first
/// of the `stop_strings`.
pub(crate) fn assemble(
    question: &str,
    passages: &[Retrieved],
    likelihood: Likelihood,
    tokenizer: &Tokenizer,
    stop_strings: &[String],
) -> Result<Answer> {
    let priors = softmax(passages.iter().map(|found| found.score));
    let ids: Vec<u32> = likelihood.tokens.iter().map(|token| token.id).collect();
    let all = tokenizer.decode_untrimmed(&ids)?;
    let answer = before_stop(&all, stop_strings);
    let stopped = answer.len() < all.len();
    let answer = answer.trim().to_owned();
    let mut said = String::new();
    let tokens = likelihood
        .tokens
        .into_iter()
        .enumerate()
        .map(|(i, token)| {
            // Several tokens can make one character: it belongs to the one that completes it.
            let mut until = tokenizer.decode(&ids[..=i])?;
            let mut text = String::new();
            if i + 1 == ids.len() || !until.ends_with('\u{FFFD}') {
                if stopped && until.len() > answer.len() {
                    until.clone_from(&answer);
                }
                text = until.strip_prefix(&said).unwrap_or(&until).to_owned();
                said = until;
            }
            Ok(AnswerToken {
                id: token.id,
                text,
                log_probability: token.log_probability,
                shares: token.shares,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let evidence = passages
        .iter()
        .zip(priors)
        .zip(likelihood.posterior)
        .map(|((found, prior), posterior)| Evidence {
            passage: found.passage.clone(),
            score: found.score,
            prior,
            posterior,
        })
        .collect();
    Ok(Answer {
        question: question.to_owned(),
        text: answer,
        log_likelihood: likelihood.log_likelihood,
        confidence: None,
        tokens,
        evidence,
    })
}

fn softmax(scores: impl Iterator<Item = f32> + Clone) -> Vec<f32> {
    let max = scores.clone().fold(f32::NEG_INFINITY, f32::max);
    let total: f32 = scores.clone().map(|score| (score - max).exp()).sum();
    scores.map(|score| (score - max).exp() / total).collect()
}
