use std::{error::Error, fmt};

/// What can go wrong while an answer is decoded.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// A setting has a value with which no search can run.
    #[error("{setting} is {found}, but has to be {expected}")]
    Setting {
        /// Name of the field of `GenerationConfig`.
        setting: &'static str,
        /// The value found.
        found: f64,
        /// The values that would do.
        expected: &'static str,
    },
    /// The shortest answer allowed is longer than the longest.
    #[error(
        "min_length is {min_length}, but answers end at {max_length} tokens, the start token included; \
         lower min_length or raise max_length (or max_new_tokens)"
    )]
    Lengths {
        /// `min_length` of the configuration.
        min_length: usize,
        /// `max_length`, or `max_new_tokens` and the start token.
        max_length: usize,
    },
    /// `min_new_tokens` is more than the longest answer has.
    #[error(
        "min_new_tokens is {min_new_tokens}, but answers end at {max_new_tokens} tokens, the start token not counted; \
         lower min_new_tokens or raise max_new_tokens (or max_length)"
    )]
    NewLengths {
        /// `min_new_tokens` of the configuration.
        min_new_tokens: usize,
        /// `max_new_tokens`, or `max_length` without the start token.
        max_new_tokens: usize,
    },
    /// More answers are wanted than the search keeps.
    #[error(
        "num_return_sequences is {wanted}, but this search keeps {kept} sequence(s); \
         raise num_beams to at least {wanted}, or sample with one beam"
    )]
    TooManySequences {
        /// `num_return_sequences`.
        wanted: usize,
        /// Sequences kept: `num_beams`.
        kept: usize,
    },
    /// No token to start the answers with.
    #[error(
        "neither decoder_start_token_id nor bos_token_id is set; set the first with `with_decoder_start_token_id`"
    )]
    NoStartToken,
    /// An entry of `bad_words_ids` is empty.
    #[error("bad_words_ids[{index}] is empty; a bad word is one token or more: remove the entry")]
    EmptyBadWord {
        /// Position in `bad_words_ids`.
        index: usize,
    },
    /// An entry of `stop_strings` is empty.
    #[error(
        "stop_strings[{index}] is empty, which every answer contains; a stop string is one character or more: \
         remove the entry"
    )]
    EmptyStopString {
        /// Position in `stop_strings`.
        index: usize,
    },
    /// Stop strings are set where only tokens are known.
    #[error(
        "stop_strings are set, but this search knows tokens alone; ask a `Rag`, which knows their text, \
         or look for the strings with `Control::with_stop`"
    )]
    UnreadStopStrings,
    /// A token is not in the vocabulary of the model.
    #[error(
        "{setting} names token {token}, but the model has {vocabulary} tokens; do tokenizer and model belong together?"
    )]
    UnknownToken {
        /// Where the token was named: a field of `GenerationConfig`, or the constraint.
        setting: &'static str,
        /// The token.
        token: u32,
        /// Size of the vocabulary.
        vocabulary: usize,
    },
    /// The constraint allowed nothing after a prefix.
    #[error(
        "the constraint allows no token after {prefix:?} (search {batch}); \
         let it allow at least the end-of-sequence token there"
    )]
    NothingAllowed {
        /// Which search of the batch.
        batch: usize,
        /// Tokens decided before, with the start token.
        prefix: Vec<u32>,
    },
    /// The settings together rule out every continuation.
    #[error(
        "every continuation of search {batch} has probability 0; \
         bad_words_ids, no_repeat_ngram_size, min_length, min_new_tokens and the constraint leave it no way on: loosen one of them"
    )]
    DeadEnd {
        /// Which search of the batch.
        batch: usize,
    },
    /// The model gave a number that is no score.
    #[error(
        "the model scored token {token} of row {row} with {value}; expected a number or -inf: are its weights and inputs finite?"
    )]
    InvalidScore {
        /// Row of the scores.
        row: usize,
        /// Column of the scores.
        token: usize,
        /// NaN or +inf.
        value: f32,
    },
    /// The model gave scores of another shape than asked for.
    #[error(
        "the model gave {found} scores, but {rows} rows of {vocabulary} tokens were asked of it; correct its `NextToken::next`"
    )]
    ScoresShape {
        /// Rows asked for.
        rows: usize,
        /// Size of the vocabulary.
        vocabulary: usize,
        /// Scores found.
        found: usize,
    },
    /// The model itself failed.
    #[error("the model failed at the next token")]
    Model(#[source] Box<dyn Error + Send + Sync>),
}

impl fmt::Debug for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        rag_core::report(self, f)
    }
}
