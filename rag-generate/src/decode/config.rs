use serde::{Deserialize, Serialize};

use super::error::DecodeError;
use super::one_or_many;

/// How answers are decoded, in the words of transformers' `generation_config.json`, which it reads and writes.
///
/// Lengths are in tokens and count the start token, also where the prompt's last token stands in its place
/// ([`PROMPT_END`](Self::PROMPT_END)); a prompt is not counted. Fields of the file that are not listed here are ignored,
/// and `null` stands for the default; only `top_k: null` means, as in transformers, that no top-k is applied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, remote = "Self")]
pub struct GenerationConfig {
    /// Longest sequence, the start token included. Default 20.
    pub max_length: usize,
    /// Longest sequence without the start token; where set it decides, not `max_length`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_new_tokens: Option<usize>,
    /// No end-of-sequence token before the sequence has so many tokens, the start token included. Default 0.
    pub min_length: usize,
    /// No end-of-sequence token before the sequence has so many tokens, the start token not counted; where set it decides,
    /// not `min_length`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_new_tokens: Option<usize>,
    /// Hypotheses kept for each search; 1 (default) is greedy decoding, or sampling.
    pub num_beams: usize,
    /// Answers for each search, at most `num_beams`; with one beam and `do_sample`, any number of samples. Default 1.
    pub num_return_sequences: usize,
    /// Exponent of the length by which a beam's log-probability is divided: above 0 favours long answers, below 0 short
    /// ones. Default 1.
    pub length_penalty: f64,
    /// When beam search stops. Default [`EarlyStopping::Heuristic`].
    pub early_stopping: EarlyStopping,
    /// No run of so many tokens occurs twice in an answer; 0 (default) is off.
    pub no_repeat_ngram_size: usize,
    /// Makes tokens that occurred in the answer less likely where above 1. Default 1, which is off.
    pub repetition_penalty: f64,
    /// Token sequences that must not occur.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bad_words_ids: Vec<Vec<u32>>,
    /// The token after the start token.
    pub forced_bos_token_id: Option<u32>,
    /// The tokens allowed at the last place of `max_length`: one, or several of equal score; empty is off.
    #[serde(with = "one_or_many")]
    pub forced_eos_token_id: Vec<u32>,
    /// Draw tokens instead of taking the best.
    pub do_sample: bool,
    /// What scores are divided by before a draw. Default 1.
    pub temperature: f64,
    /// Draw from so many best tokens; 0 is off. Default 50.
    pub top_k: usize,
    /// Draw from the smallest set of best tokens with so much probability, in (0, 1]. Default 1, which is off.
    pub top_p: f64,
    /// The token that stands in for `decoder_start_token_id` where that is not set.
    pub bos_token_id: Option<u32>,
    /// The tokens that end a sequence: one number or a list in the file; empty where none does. A decoded answer ends with
    /// any of them, a given one with the first.
    #[serde(with = "one_or_many")]
    pub eos_token_id: Vec<u32>,
    /// Texts that end an answer as soon as its text contains one of them: one or a list in the file. They wait for no
    /// minimum length. The text from there on is not part of the answer; its likelihood is that of all tokens decoded,
    /// those of the stop string included.
    ///
    /// [`Rag`](crate::Rag) looks for them. [`generate`](super::generate) knows only tokens: who calls it finds them with
    /// [`Control::with_stop`](super::Control::with_stop).
    #[serde(with = "one_or_many")]
    pub stop_strings: Vec<String>,
    /// The token that fills short rows of a batch. Decoding needs none; it is kept for those who batch its results.
    pub pad_token_id: Option<u32>,
    /// The token that every sequence starts with, or [`PROMPT_END`](Self::PROMPT_END), which the file leaves out.
    pub decoder_start_token_id: Option<u32>,
    /// Where the random numbers of `do_sample` start. Not a field of transformers.
    pub seed: u64,
}

/// When beam search stops looking for better answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EarlyStopping {
    /// As soon as `num_beams` answers are complete: `true` in the file.
    WhenFull,
    /// When the best running beam, scored at its present length, is no better than the worst complete answer: `false`.
    #[default]
    Heuristic,
    /// When the best running beam could not become better than the worst complete answer even at `max_length`: `"never"`.
    Never,
}

impl Default for GenerationConfig {
    fn default() -> Self {
        Self {
            max_length: 20,
            max_new_tokens: None,
            min_length: 0,
            min_new_tokens: None,
            num_beams: 1,
            num_return_sequences: 1,
            length_penalty: 1.0,
            early_stopping: EarlyStopping::default(),
            no_repeat_ngram_size: 0,
            repetition_penalty: 1.0,
            bad_words_ids: Vec::new(),
            forced_bos_token_id: None,
            forced_eos_token_id: Vec::new(),
            do_sample: false,
            temperature: 1.0,
            top_k: 50,
            top_p: 1.0,
            bos_token_id: None,
            eos_token_id: Vec::new(),
            stop_strings: Vec::new(),
            pad_token_id: None,
            decoder_start_token_id: None,
            seed: 0,
        }
    }
}

impl GenerationConfig {
    /// The start token of a decoder alone: the prompt's last token stands in its place. No token has this id, so that the
    /// settings that go by tokens never mean it.
    pub const PROMPT_END: u32 = i32::MAX as u32;

    /// Beam search with `num_beams` hypotheses.
    pub fn beams(num_beams: usize) -> Self {
        Self::default().with_num_beams(num_beams)
    }

    /// Sampling, with this seed.
    pub fn sampling(seed: u64) -> Self {
        Self::default().with_do_sample(true).with_seed(seed)
    }

    /// Sets the longest sequence, the start token included, and forgets `max_new_tokens`.
    #[must_use]
    pub fn with_max_length(mut self, tokens: usize) -> Self {
        self.max_length = tokens;
        self.max_new_tokens = None;
        self
    }

    /// Sets the longest sequence, the start token not counted.
    #[must_use]
    pub fn with_max_new_tokens(mut self, tokens: usize) -> Self {
        self.max_new_tokens = Some(tokens);
        self
    }

    /// Sets the shortest sequence, the start token included, and forgets `min_new_tokens`.
    #[must_use]
    pub fn with_min_length(mut self, tokens: usize) -> Self {
        self.min_length = tokens;
        self.min_new_tokens = None;
        self
    }

    /// Sets the shortest sequence, the start token not counted.
    #[must_use]
    pub fn with_min_new_tokens(mut self, tokens: usize) -> Self {
        self.min_new_tokens = Some(tokens);
        self
    }

    /// Sets the hypotheses kept for each search.
    #[must_use]
    pub fn with_num_beams(mut self, beams: usize) -> Self {
        self.num_beams = beams;
        self
    }

    /// Sets the answers returned for each search.
    #[must_use]
    pub fn with_num_return_sequences(mut self, sequences: usize) -> Self {
        self.num_return_sequences = sequences;
        self
    }

    /// Sets the exponent of the length that beam scores are divided by.
    #[must_use]
    pub fn with_length_penalty(mut self, exponent: f64) -> Self {
        self.length_penalty = exponent;
        self
    }

    /// Sets when beam search stops.
    #[must_use]
    pub fn with_early_stopping(mut self, stopping: EarlyStopping) -> Self {
        self.early_stopping = stopping;
        self
    }

    /// Sets the length of the token runs that must not occur twice.
    #[must_use]
    pub fn with_no_repeat_ngram_size(mut self, tokens: usize) -> Self {
        self.no_repeat_ngram_size = tokens;
        self
    }

    /// Sets the penalty of tokens that occurred.
    #[must_use]
    pub fn with_repetition_penalty(mut self, penalty: f64) -> Self {
        self.repetition_penalty = penalty;
        self
    }

    /// Sets the token sequences that must not occur.
    #[must_use]
    pub fn with_bad_words_ids(mut self, words: impl IntoIterator<Item = Vec<u32>>) -> Self {
        self.bad_words_ids = words.into_iter().collect();
        self
    }

    /// Sets the token after the start token.
    #[must_use]
    pub fn with_forced_bos_token_id(mut self, token: u32) -> Self {
        self.forced_bos_token_id = Some(token);
        self
    }

    /// Sets the token at the last place of `max_length`.
    #[must_use]
    pub fn with_forced_eos_token_id(mut self, token: u32) -> Self {
        self.forced_eos_token_id = vec![token];
        self
    }

    /// Sets whether tokens are drawn.
    #[must_use]
    pub fn with_do_sample(mut self, sample: bool) -> Self {
        self.do_sample = sample;
        self
    }

    /// Sets what scores are divided by before a draw.
    #[must_use]
    pub fn with_temperature(mut self, temperature: f64) -> Self {
        self.temperature = temperature;
        self
    }

    /// Sets from how many best tokens is drawn; 0 is all.
    #[must_use]
    pub fn with_top_k(mut self, tokens: usize) -> Self {
        self.top_k = tokens;
        self
    }

    /// Sets the probability of the set of best tokens that is drawn from.
    #[must_use]
    pub fn with_top_p(mut self, probability: f64) -> Self {
        self.top_p = probability;
        self
    }

    /// Sets the beginning-of-sequence token.
    #[must_use]
    pub fn with_bos_token_id(mut self, token: u32) -> Self {
        self.bos_token_id = Some(token);
        self
    }

    /// Sets the token that ends a sequence.
    #[must_use]
    pub fn with_eos_token_id(mut self, token: u32) -> Self {
        self.eos_token_id = vec![token];
        self
    }

    /// Sets the texts that end an answer.
    #[must_use]
    pub fn with_stop_strings(
        mut self,
        strings: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        self.stop_strings = strings.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the padding token.
    #[must_use]
    pub fn with_pad_token_id(mut self, token: u32) -> Self {
        self.pad_token_id = Some(token);
        self
    }

    /// Sets the token that every sequence starts with.
    #[must_use]
    pub fn with_decoder_start_token_id(mut self, token: u32) -> Self {
        self.decoder_start_token_id = Some(token);
        self
    }

    /// Sets where the random numbers start.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The same settings with the special tokens of a model, where they name none.
    #[must_use]
    pub fn for_model(mut self, own: &Self) -> Self {
        self.decoder_start_token_id = own.start_where(self.decoder_start_token_id);
        self.bos_token_id = self.bos_token_id.or(own.bos_token_id);
        self.pad_token_id = self.pad_token_id.or(own.pad_token_id);
        self.forced_bos_token_id = self.forced_bos_token_id.or(own.forced_bos_token_id);
        if self.eos_token_id.is_empty() {
            self.eos_token_id.clone_from(&own.eos_token_id);
        }
        self
    }

    /// The longest sequence, the start token included: by `max_new_tokens` where set, else by `max_length`.
    pub fn longest(&self) -> usize {
        self.max_new_tokens
            .map_or(self.max_length, |new| new.saturating_add(1))
    }

    /// No end token before the sequence has so many tokens, the start token included: by `min_new_tokens` where set, else by
    /// `min_length`.
    pub fn shortest(&self) -> usize {
        self.min_new_tokens
            .map_or(self.min_length, |new| new.saturating_add(1))
    }

    /// The token that every sequence starts with: `decoder_start_token_id`, else `bos_token_id`.
    ///
    /// # Errors
    /// [`DecodeError::NoStartToken`] where neither is set.
    pub fn start_token(&self) -> Result<u32, DecodeError> {
        self.decoder_start_token_id
            .or(self.bos_token_id)
            .ok_or(DecodeError::NoStartToken)
    }

    /// The start token of a model whose own settings these are, where `asked` names another: a decoder alone starts at its
    /// prompt's end whatever is asked for, and no other model does.
    fn start_where(&self, asked: Option<u32>) -> Option<u32> {
        let own = self.decoder_start_token_id;
        let at_prompt = [own, asked].contains(&Some(Self::PROMPT_END));
        if at_prompt { own } else { asked.or(own) }
    }
}
