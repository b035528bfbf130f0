use std::borrow::Cow;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rayon::prelude::*;

use super::config::{EarlyStopping, GenerationConfig};
use super::control::{Control, StopTokens};
use super::error::DecodeError;
use super::hypothesis::{Ending, Hypothesis};
use super::next_token::NextToken;
use super::processors::Processors;
use super::sample::disturbed;
use super::scores::{ask, log_softmax, top_k};

/// An unfinished hypothesis.
struct Beam {
    tokens: Vec<u32>,
    /// Sum of log-probabilities.
    score: f32,
    /// Those of the model itself.
    log_probs: Vec<f32>,
    /// Which beam of the step before it continues.
    parent: usize,
}

/// A way to continue one of the running beams.
struct Candidate {
    beam: usize,
    token: u32,
    score: f32,
    /// That of the model itself.
    log_prob: f32,
    ending: Option<Ending>,
}

/// One search of the batch. It has ended when no beam is running.
struct Search {
    /// At most `num_beams`, best first.
    running: Vec<Beam>,
    /// At most `num_beams`, best first.
    finished: Vec<Hypothesis>,
    random: StdRng,
}

/// Beam search with the semantics of transformers' `_beam_search`. Ties go to the better beam, then to the lower token.
///
/// Where fewer continuations are possible than the search keeps, transformers fills up with sequences of score about -1e9;
/// here there are just fewer beams, and in the end fewer hypotheses.
pub(super) fn beam_search(
    model: &mut dyn NextToken,
    batch: usize,
    config: &GenerationConfig,
    control: Control<'_>,
) -> Result<Vec<Vec<Hypothesis>>, DecodeError> {
    let start = config.start_token()?;
    let vocabulary = model.vocabulary();
    let processors = Processors::new(config, control.allowed);
    let stop = control.stop;

    let mut seeds = StdRng::seed_from_u64(config.seed);
    let mut searches: Vec<Search> = (0..batch)
        .map(|_| Search {
            running: vec![Beam {
                tokens: vec![start],
                score: 0.0,
                log_probs: Vec::new(),
                parent: 0,
            }],
            finished: Vec::new(),
            random: StdRng::from_rng(&mut seeds),
        })
        .collect();
    let mut parents: Vec<usize> = (0..batch).collect();
    let mut tokens = vec![start; batch];

    while !parents.is_empty() && !control.is_cancelled() {
        let mut scores = ask(model, &parents, &tokens)?;
        scores
            .par_chunks_exact_mut(vocabulary)
            .for_each(log_softmax);
        let log_probs = scores.clone();
        let mut rows = scores.chunks_exact_mut(vocabulary);
        for (batch, search) in searches.iter().enumerate() {
            for (beam, row) in search.running.iter().zip(&mut rows) {
                processors.apply(batch, &beam.tokens, row)?;
            }
        }
        let mut of_searches = Vec::with_capacity(batch);
        let mut first_rows = vec![0];
        let (mut scores, mut log_probs) = (&mut *scores, &*log_probs);
        for search in &mut searches {
            let rows = search.running.len();
            let (own, others) = scores.split_at_mut(rows * vocabulary);
            let (own_log_probs, other_log_probs) = log_probs.split_at(rows * vocabulary);
            of_searches.push((search, own, own_log_probs));
            (scores, log_probs) = (others, other_log_probs);
            first_rows.push(first_rows[first_rows.len() - 1] + rows);
        }
        of_searches
            .into_par_iter()
            .for_each(|(search, scores, log_probs)| {
                search.advance(scores, log_probs, vocabulary, config, stop);
            });
        parents.clear();
        tokens.clear();
        for (search, first) in searches.iter().zip(first_rows) {
            for beam in &search.running {
                parents.push(first + beam.parent);
                tokens.extend(beam.tokens.last());
            }
        }
    }

    searches
        .into_iter()
        .enumerate()
        .map(|(batch, search)| search.answers(batch, config))
        .collect()
}

impl Search {
    /// One step, from log-probabilities `[running beams, V]` of the next token: processed, and the model's own.
    fn advance(
        &mut self,
        scores: &mut [f32],
        log_probs: &[f32],
        vocabulary: usize,
        config: &GenerationConfig,
        stop: Option<&StopTokens<'_>>,
    ) {
        let Some(first) = self.running.first() else {
            return;
        };
        let generated = first.tokens.len();

        for (beam, row) in self.running.iter().zip(scores.chunks_exact_mut(vocabulary)) {
            row.iter_mut().for_each(|score| *score += beam.score);
        }
        let candidates = self.candidates(scores, log_probs, vocabulary, config, stop);

        // Only the first num_beams may end here; the others are there to have enough that go on.
        for candidate in candidates.iter().take(config.num_beams) {
            if let Some(ending) = candidate.ending {
                let score = per_length(candidate.score, generated, config);
                let (tokens, log_probs) = self.continued(candidate);
                self.finished.push(Hypothesis {
                    tokens,
                    score,
                    log_probs,
                    ending,
                });
            }
        }
        keep_best(&mut self.finished, config.num_beams, |hypothesis| {
            hypothesis.score
        });

        let mut ongoing: Vec<&Candidate> = candidates
            .iter()
            .filter(|candidate| candidate.ending.is_none())
            .collect();
        keep_best(&mut ongoing, config.num_beams, |candidate| candidate.score);
        self.running = ongoing
            .into_iter()
            .map(|candidate| {
                let (tokens, log_probs) = self.continued(candidate);
                Beam {
                    tokens,
                    score: candidate.score,
                    log_probs,
                    parent: candidate.beam,
                }
            })
            .collect();

        if self.cannot_improve(generated, config) {
            self.running.clear();
        }
    }

    /// The best continuations, or as many drawn ones in the order drawn: enough to have `num_beams` that go on even if every
    /// beam ends with every end token. Where a stop ends more of them, as many further ones as that takes.
    fn candidates(
        &mut self,
        scores: &[f32],
        log_probs: &[f32],
        vocabulary: usize,
        config: &GenerationConfig,
        stop: Option<&StopTokens<'_>>,
    ) -> Vec<Candidate> {
        let count = config.num_beams * config.eos_token_id.len().saturating_add(1).max(2);
        let order = if config.do_sample {
            Cow::Owned(disturbed(scores.iter().copied(), &mut self.random).collect::<Vec<f32>>())
        } else {
            Cow::Borrowed(scores)
        };
        let mut candidates = Vec::new();
        let mut going_on = 0;
        for reach in [count, count.saturating_mul(16), usize::MAX] {
            let places = top_k(order.iter().copied(), reach);
            for &(place, _) in places.iter().skip(candidates.len()) {
                if candidates.len() >= count && going_on >= config.num_beams {
                    break;
                }
                let (beam, token) = (place / vocabulary, (place % vocabulary) as u32);
                let ending = self.ending(beam, token, config, stop);
                going_on += usize::from(ending.is_none());
                candidates.push(Candidate {
                    beam,
                    token,
                    score: scores[place],
                    log_prob: log_probs[place],
                    ending,
                });
            }
            let all = places.len() < reach;
            if all || going_on >= config.num_beams || self.fills(config) {
                break;
            }
        }
        candidates
    }

    /// Why a beam ends with this token, if it does.
    fn ending(
        &self,
        beam: usize,
        token: u32,
        config: &GenerationConfig,
        stop: Option<&StopTokens<'_>>,
    ) -> Option<Ending> {
        let stopped = |stop: &StopTokens<'_>| {
            let answer = [&self.running[beam].tokens[1..], &[token]].concat();
            stop(&answer)
        };
        if config.eos_token_id.contains(&token) {
            Some(Ending::EndOfSequence)
        } else if stop.is_some_and(stopped) {
            Some(Ending::Stop)
        } else if self.fills(config) {
            Some(Ending::Length)
        } else {
            None
        }
    }

    /// Whether one more token makes the running beams, which are of one length, as long as allowed.
    fn fills(&self, config: &GenerationConfig) -> bool {
        let mut running = self.running.iter();
        running.any(|beam| beam.tokens.len() + 1 >= config.longest())
    }

    /// Tokens, and the model's log-probabilities of those after the start token.
    fn continued(&self, candidate: &Candidate) -> (Vec<u32>, Vec<f32>) {
        let beam = &self.running[candidate.beam];
        let mut tokens = beam.tokens.clone();
        tokens.push(candidate.token);
        let mut log_probs = beam.log_probs.clone();
        log_probs.push(candidate.log_prob);
        (tokens, log_probs)
    }

    /// Whether the search may stop, `generated` tokens after the start token.
    fn cannot_improve(&self, generated: usize, config: &GenerationConfig) -> bool {
        let (Some(best), Some(worst)) = (self.running.first(), self.finished.last()) else {
            return false;
        };
        if self.finished.len() < config.num_beams {
            return false;
        }
        let horizon = match config.early_stopping {
            EarlyStopping::WhenFull => return true,
            EarlyStopping::Never if config.length_penalty > 0.0 => config.longest() - 1,
            EarlyStopping::Never | EarlyStopping::Heuristic => generated,
        };
        per_length(best.score, horizon, config) <= worst.score
    }

    /// The best `num_return_sequences`: finished hypotheses, then those that a cancellation left running.
    fn answers(
        mut self,
        batch: usize,
        config: &GenerationConfig,
    ) -> Result<Vec<Hypothesis>, DecodeError> {
        let cancelled = self.running.into_iter().map(|beam| Hypothesis {
            score: per_length(beam.score, beam.tokens.len() - 1, config),
            tokens: beam.tokens,
            log_probs: beam.log_probs,
            ending: Ending::Cancelled,
        });
        self.finished.extend(cancelled);
        self.finished.truncate(config.num_return_sequences);
        if self.finished.is_empty() {
            return Err(DecodeError::DeadEnd { batch });
        }
        Ok(self.finished)
    }
}

/// A sum of log-probabilities divided by length^`length_penalty`, for at least one token.
fn per_length(score: f32, tokens: usize, config: &GenerationConfig) -> f32 {
    score / (tokens.max(1) as f64).powf(config.length_penalty) as f32
}

/// Keeps the `count` highest, highest first and of equals the first.
fn keep_best<T>(items: &mut Vec<T>, count: usize, score: impl Fn(&T) -> f32) {
    items.sort_by(|a, b| score(b).total_cmp(&score(a)));
    items.truncate(count);
}
