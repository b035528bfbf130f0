/// One answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Hypothesis {
    /// The tokens, from the start token to the end-of-sequence token, or that at which a stop ended it, if one was reached.
    pub tokens: Vec<u32>,
    /// How good the answer is, higher being better.
    ///
    /// Beam search: the sum of log-probabilities after penalties and forced tokens (a forced token counts 0, and with
    /// `do_sample` each is divided by the temperature), divided by (tokens without the start token)^`length_penalty`.
    ///
    /// Greedy and sampling: the sum of log-probabilities that the model itself gave the tokens (the softmax of its
    /// scores before any penalty, ban, temperature or top-k), not divided by the length.
    pub score: f32,
    /// Of each token after the start token, the log-probability that the model itself gave it: the softmax of its scores
    /// before any penalty, ban, forced token, temperature or top-k.
    pub log_probs: Vec<f32>,
    /// Why it ended.
    pub ending: Ending,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With an end-of-sequence token.
    EndOfSequence,
    /// With a stop string, or whatever else [`Control::with_stop`](super::Control::with_stop) ended it at.
    Stop,
    /// It has the longest length allowed.
    Length,
    /// The caller cancelled the search.
    Cancelled,
}
