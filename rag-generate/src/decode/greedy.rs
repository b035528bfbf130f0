use rand::SeedableRng;
use rand::rngs::StdRng;

use super::config::GenerationConfig;
use super::control::Control;
use super::error::DecodeError;
use super::hypothesis::{Ending, Hypothesis};
use super::next_token::NextToken;
use super::processors::Processors;
use super::sample::draw;
use super::scores::{ask, log_sum_exp, top_k};

/// One answer in the making.
struct Sequence {
    tokens: Vec<u32>,
    log_probability: f64,
    log_probs: Vec<f32>,
    /// Its row in the last call of the model.
    row: usize,
    /// Its own random numbers, so that no sequence depends on what is drawn for others.
    random: StdRng,
    ending: Option<Ending>,
}

/// Greedy decoding and sampling: one token a step for each sequence, `num_return_sequences` sequences a search.
pub(super) fn greedy(
    model: &mut dyn NextToken,
    batch: usize,
    config: &GenerationConfig,
    mut control: Control<'_>,
) -> Result<Vec<Vec<Hypothesis>>, DecodeError> {
    let start = config.start_token()?;
    let vocabulary = model.vocabulary();
    let processors = Processors::new(config, control.allowed);
    let samples = config.num_return_sequences;

    // The samples of a search share its only row of the first call.
    let mut seeds = StdRng::seed_from_u64(config.seed);
    let mut sequences: Vec<Sequence> = (0..batch * samples)
        .map(|place| Sequence {
            tokens: vec![start],
            log_probability: 0.0,
            log_probs: Vec::new(),
            row: place / samples,
            random: StdRng::from_rng(&mut seeds),
            ending: None,
        })
        .collect();
    let mut parents: Vec<usize> = (0..batch).collect();
    let mut tokens = vec![start; batch];

    'steps: while !parents.is_empty() && !control.is_cancelled() {
        let scores = ask(model, &parents, &tokens)?;
        parents.clear();
        tokens.clear();
        for (place, sequence) in sequences
            .iter_mut()
            .enumerate()
            .filter(|(_, sequence)| sequence.ending.is_none())
        {
            let search = place / samples;
            let row = &scores[sequence.row * vocabulary..][..vocabulary];
            let mut processed = row.to_vec();
            processors.apply(search, &sequence.tokens, &mut processed)?;
            let chosen = if config.do_sample {
                draw(processed, 1, &mut sequence.random).first().copied()
            } else {
                top_k(processed, 1).first().map(|best| best.0)
            };
            let token = chosen.ok_or(DecodeError::DeadEnd { batch: search })?;

            let log_probability = f64::from(row[token]) - log_sum_exp(row);
            sequence.log_probability += log_probability;
            sequence.log_probs.push(log_probability as f32);
            sequence.tokens.push(token as u32);
            if config.eos_token_id.contains(&(token as u32)) {
                sequence.ending = Some(Ending::EndOfSequence);
            } else if control.is_stopped(&sequence.tokens[1..]) {
                sequence.ending = Some(Ending::Stop);
            } else if sequence.tokens.len() >= config.longest() {
                sequence.ending = Some(Ending::Length);
            } else {
                parents.push(sequence.row);
                tokens.push(token as u32);
                sequence.row = parents.len() - 1;
            }
            if control.emit(place, token as u32).is_break() {
                break 'steps;
            }
        }
    }

    let mut hypotheses = sequences.into_iter().map(|sequence| Hypothesis {
        tokens: sequence.tokens,
        score: sequence.log_probability as f32,
        log_probs: sequence.log_probs,
        ending: sequence.ending.unwrap_or(Ending::Cancelled),
    });
    Ok((0..batch)
        .map(|_| {
            let mut answers: Vec<Hypothesis> = hypotheses.by_ref().take(samples).collect();
            answers.sort_by(|a, b| b.score.total_cmp(&a.score));
            answers
        })
        .collect())
}
