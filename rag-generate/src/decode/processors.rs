use super::config::GenerationConfig;
use super::control::AllowedTokens;
use super::error::DecodeError;
use super::scores::{log_sum_exp, top_k};

/// What is done to the scores of one row before tokens are chosen, as transformers 4.57 does it.
pub(super) struct Processors<'a> {
    config: &'a GenerationConfig,
    allowed: Option<&'a AllowedTokens<'a>>,
    /// Tokens that top-k and top-p always leave: with beams one more than there are ways to end, so that one goes on.
    spared: usize,
}

impl<'a> Processors<'a> {
    pub(super) fn new(
        config: &'a GenerationConfig,
        allowed: Option<&'a AllowedTokens<'a>>,
    ) -> Self {
        let spared = if config.num_beams > 1 {
            config.eos_token_id.len().max(1) + 1
        } else {
            1
        };
        Self {
            config,
            allowed,
            spared,
        }
    }

    /// Changes `scores` `[V]`, logits or log-probabilities of what follows `prefix` in search `batch`. The order matters:
    /// forced tokens overrule everything before them.
    pub(super) fn apply(
        &self,
        batch: usize,
        prefix: &[u32],
        scores: &mut [f32],
    ) -> Result<(), DecodeError> {
        let config = self.config;
        let said = match prefix {
            [GenerationConfig::PROMPT_END, answer @ ..] => answer,
            _ => prefix,
        };
        penalise_repetition(scores, said, config.repetition_penalty as f32);
        ban_repeated_ngrams(scores, said, config.no_repeat_ngram_size);
        self.ban_bad_words(scores, prefix);
        if prefix.len() < config.shortest() {
            config
                .eos_token_id
                .iter()
                .for_each(|&token| ban(scores, token));
        }
        if let Some(allowed) = self.allowed {
            keep_allowed(scores, &allowed(batch, prefix), batch, prefix)?;
        }
        if let (1, Some(token)) = (prefix.len(), config.forced_bos_token_id) {
            force(scores, &[token]);
        }
        if prefix.len() + 1 == config.longest() && !config.forced_eos_token_id.is_empty() {
            force(scores, &config.forced_eos_token_id);
        }
        if config.do_sample {
            scores
                .iter_mut()
                .for_each(|score| *score /= config.temperature as f32);
            keep_top_k(scores, config.top_k, self.spared);
            keep_top_p(scores, config.top_p, self.spared);
        }
        Ok(())
    }

    /// Bans the last token of every bad word whose other tokens were just decided. An end token alone is no bad word, and a
    /// word is looked for only once the prefix is as long as the whole of it.
    fn ban_bad_words(&self, scores: &mut [f32], prefix: &[u32]) {
        for word in &self.config.bad_words_ids {
            let Some((&last, head)) = word.split_last() else {
                continue;
            };
            let ends = head.is_empty() && self.config.eos_token_id.contains(&last);
            let begun = head.is_empty() || (word.len() <= prefix.len() && prefix.ends_with(head));
            if begun && !ends {
                ban(scores, last);
            }
        }
    }
}

fn ban(scores: &mut [f32], token: u32) {
    scores[token as usize] = f32::NEG_INFINITY;
}

/// Divides positive and multiplies negative scores of the tokens that occurred (Keskar et al. 2019, arXiv 1909.05858).
fn penalise_repetition(scores: &mut [f32], prefix: &[u32], penalty: f32) {
    if penalty == 1.0 {
        return;
    }
    for (place, &token) in prefix.iter().enumerate() {
        if !prefix[..place].contains(&token) {
            let score = &mut scores[token as usize];
            *score = if *score < 0.0 {
                *score * penalty
            } else {
                *score / penalty
            };
        }
    }
}

/// Bans every token that would complete a run of `size` tokens that occurred before.
fn ban_repeated_ngrams(scores: &mut [f32], prefix: &[u32], size: usize) {
    if size == 0 || prefix.len() < size {
        return;
    }
    let begun = &prefix[prefix.len() + 1 - size..];
    for ngram in prefix.windows(size) {
        if let Some((&last, head)) = ngram.split_last()
            && head == begun
        {
            ban(scores, last);
        }
    }
}

fn keep_allowed(
    scores: &mut [f32],
    allowed: &[u32],
    batch: usize,
    prefix: &[u32],
) -> Result<(), DecodeError> {
    if allowed.is_empty() {
        return Err(DecodeError::NothingAllowed {
            batch,
            prefix: prefix.to_vec(),
        });
    }
    let mut masked = vec![f32::NEG_INFINITY; scores.len()];
    for &token in allowed {
        let place = token as usize;
        if place >= scores.len() {
            return Err(DecodeError::UnknownToken {
                setting: "the constraint",
                token,
                vocabulary: scores.len(),
            });
        }
        masked[place] = scores[place];
    }
    scores.copy_from_slice(&masked);
    Ok(())
}

fn force(scores: &mut [f32], tokens: &[u32]) {
    scores.fill(f32::NEG_INFINITY);
    tokens
        .iter()
        .for_each(|&token| scores[token as usize] = 0.0);
}

/// Rules out what scores below the `count`-th best, so that equals of it stay.
fn keep_top_k(scores: &mut [f32], count: usize, spared: usize) {
    if count == 0 {
        return;
    }
    let count = count.max(spared);
    let best = top_k(scores.iter().copied(), count);
    if let Some(&(_, bar)) = best.last()
        && best.len() == count
    {
        scores
            .iter_mut()
            .filter(|score| **score < bar)
            .for_each(|score| *score = f32::NEG_INFINITY);
    }
}

/// Rules out the least likely tokens that together have probability at most 1 - `mass` (Holtzman et al. 2019,
/// arXiv 1904.09751).
fn keep_top_p(scores: &mut [f32], mass: f64, spared: usize) {
    if mass >= 1.0 {
        return;
    }
    let total = log_sum_exp(scores);
    let mut likely: Vec<usize> = (0..scores.len())
        .filter(|&token| scores[token] > f32::NEG_INFINITY)
        .collect();
    likely.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    let dispensable = likely.len().saturating_sub(spared);
    let mut tail = 0.0;
    for &token in &likely[..dispensable] {
        tail += (f64::from(scores[token]) - total).exp();
        if tail > 1.0 - mass {
            break;
        }
        ban(scores, token as u32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: f32 = f32::NEG_INFINITY;

    fn processed(config: &GenerationConfig, prefix: &[u32], scores: &[f32]) -> Vec<f32> {
        let mut scores = scores.to_vec();
        Processors::new(config, None)
            .apply(0, prefix, &mut scores)
            .unwrap();
        scores
    }

    fn banned(config: &GenerationConfig, prefix: &[u32]) -> Vec<usize> {
        let scores = processed(config, prefix, &[1.0; 8]);
        (0..8).filter(|&token| scores[token] == NONE).collect()
    }

    #[test]
    fn repetition_is_penalised_once_for_each_token() {
        let config = GenerationConfig::default().with_repetition_penalty(2.0);
        assert_eq!(
            processed(&config, &[0, 1, 0, 1], &[3.0, -3.0, 3.0, NONE]),
            [1.5, -6.0, 3.0, NONE]
        );
    }

    #[test]
    fn ngrams_do_not_repeat() {
        let size = |size| GenerationConfig::default().with_no_repeat_ngram_size(size);
        assert_eq!(banned(&size(1), &[2, 5]), [2, 5]);
        assert_eq!(banned(&size(2), &[1, 2, 3, 1, 4, 1]), [2, 4]);
        assert_eq!(banned(&size(3), &[1, 2, 3, 1, 2]), [3]);
        assert!(banned(&size(3), &[1, 1]).is_empty());
    }

    #[test]
    fn bad_words_are_stopped_at_their_last_token() {
        let config = GenerationConfig::default()
            .with_eos_token_id(7)
            .with_bad_words_ids([vec![3], vec![7], vec![1, 2], vec![1, 1, 4]]);
        assert_eq!(banned(&config, &[0]), [3]);
        assert_eq!(banned(&config, &[1]), [3]);
        assert_eq!(banned(&config, &[0, 1]), [2, 3]);
        assert_eq!(banned(&config, &[0, 1, 1]), [2, 3, 4]);
    }

    #[test]
    fn the_end_waits_for_min_length() {
        let config = GenerationConfig {
            eos_token_id: vec![6, 7],
            ..GenerationConfig::default().with_min_length(3)
        };
        assert_eq!(banned(&config, &[0, 1]), [6, 7]);
        assert!(banned(&config, &[0, 1, 1]).is_empty());
        // Where both are set, the start token is not counted.
        let config = config.with_min_new_tokens(1);
        assert_eq!(banned(&config, &[0]), [6, 7]);
        assert!(banned(&config, &[0, 1]).is_empty());
    }

    #[test]
    fn the_prompts_end_is_none_of_the_answers_tokens() {
        const START: u32 = GenerationConfig::PROMPT_END;
        let plain = GenerationConfig::default;
        let config = plain().with_repetition_penalty(2.0);
        assert_eq!(processed(&config, &[START], &[4.0; 2]), [4.0; 2]);
        assert_eq!(processed(&config, &[START, 1], &[4.0; 2]), [4.0, 2.0]);

        let size = |size| plain().with_no_repeat_ngram_size(size);
        for tokens in 1..4 {
            assert!(banned(&size(tokens), &[START]).is_empty());
        }
        assert_eq!(banned(&size(1), &[START, 2, 5]), [2, 5]);
        assert_eq!(banned(&size(2), &[START, 1, 2, 1]), [2]);
        assert!(banned(&size(3), &[START, 1, 2, 1]).is_empty());

        let config = plain().with_bad_words_ids([vec![3], vec![1, 2]]);
        assert_eq!(banned(&config, &[START]), [3]);
        assert_eq!(banned(&config, &[START, 1]), [2, 3]);

        let config = plain().with_eos_token_id(7).with_min_new_tokens(2);
        assert_eq!(banned(&config, &[START, 1]), [7]);
        assert!(banned(&config, &[START, 1, 1]).is_empty());
        let forced = processed(&plain().with_forced_bos_token_id(1), &[START], &[4.0; 2]);
        assert_eq!(forced, [NONE, 0.0]);
    }

    #[test]
    fn forced_tokens_overrule_bans_and_constraint() {
        let config = GenerationConfig::default()
            .with_max_length(4)
            .with_min_length(4)
            .with_eos_token_id(2)
            .with_forced_bos_token_id(1)
            .with_forced_eos_token_id(2);
        let only_zero = |_: usize, _: &[u32]| vec![0];
        let apply = |prefix: &[u32]| {
            let mut scores = [5.0; 3];
            Processors::new(&config, Some(&only_zero))
                .apply(0, prefix, &mut scores)
                .unwrap();
            scores
        };
        assert_eq!(apply(&[0]), [NONE, 0.0, NONE]);
        assert_eq!(apply(&[0, 1]), [5.0, NONE, NONE]);
        assert_eq!(apply(&[0, 1, 0]), [NONE, NONE, 0.0]);
    }

    #[test]
    fn a_constraint_must_allow_something_known() {
        let nothing = |_: usize, _: &[u32]| vec![];
        let unknown = |_: usize, _: &[u32]| vec![1, 3];
        let config = GenerationConfig::default();
        let error = |allowed: &AllowedTokens<'_>| {
            Processors::new(&config, Some(allowed))
                .apply(4, &[0, 2], &mut [0.0; 3])
                .unwrap_err()
        };
        assert_eq!(
            error(&nothing).to_string(),
            "the constraint allows no token after [0, 2] (search 4); let it allow at least the end-of-sequence token there"
        );
        assert!(matches!(
            error(&unknown),
            DecodeError::UnknownToken {
                token: 3,
                vocabulary: 3,
                ..
            }
        ));
    }

    #[test]
    fn top_k_keeps_equals_of_the_last() {
        let sampling = GenerationConfig::sampling(0);
        let scores = [1.0, 3.0, 2.0, 2.0, 0.0];
        assert_eq!(
            processed(&sampling.clone().with_top_k(2), &[0], &scores),
            [NONE, 3.0, 2.0, 2.0, NONE]
        );
        assert_eq!(
            processed(
                &sampling.clone().with_top_k(1).with_num_beams(2),
                &[0],
                &scores
            )[2],
            2.0
        );
        assert_eq!(processed(&sampling.with_top_k(0), &[0], &scores), scores);
    }

    #[test]
    fn top_p_keeps_the_nucleus_after_temperature() {
        let probabilities = [0.1_f32, 0.5, 0.15, 0.25];
        let logits = probabilities.map(f32::ln);
        let kept = |config: GenerationConfig| {
            let scores = processed(&config, &[0], &logits);
            (0..4)
                .filter(|&token| scores[token] > NONE)
                .collect::<Vec<_>>()
        };
        let sampling = || GenerationConfig::sampling(0).with_top_k(0);
        assert_eq!(kept(sampling().with_top_p(0.8)), [1, 2, 3]);
        assert_eq!(kept(sampling().with_top_p(0.7)), [1, 3]);
        assert_eq!(kept(sampling().with_top_p(1e-6)), [1]);
        assert_eq!(kept(sampling().with_top_p(1e-6).with_num_beams(2)), [1, 3]);
        assert_eq!(kept(sampling().with_top_p(0.7).with_temperature(0.1)), [1]);
    }
}
