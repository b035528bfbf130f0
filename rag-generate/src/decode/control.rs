use std::fmt;
use std::ops::ControlFlow;

/// The tokens that may follow: from the search's place in the batch and its tokens so far, the start token first (or
/// [`PROMPT_END`](super::GenerationConfig::PROMPT_END)).
pub type AllowedTokens<'a> = dyn Fn(usize, &[u32]) -> Vec<u32> + 'a;

/// Whether an answer ends with the last of its tokens, which are given without the start token. Searches of a batch ask it
/// on several threads.
pub type StopTokens<'a> = dyn Fn(&[u32]) -> bool + Sync + 'a;

/// What the caller has to say while a search runs; nothing by default.
#[derive(Default)]
pub struct Control<'a> {
    pub(super) allowed: Option<&'a AllowedTokens<'a>>,
    pub(crate) stop: Option<&'a StopTokens<'a>>,
    on_token: Option<&'a mut dyn FnMut(usize, u32) -> ControlFlow<()>>,
    cancelled: Option<&'a dyn Fn() -> bool>,
}

impl<'a> Control<'a> {
    /// Restricts the answers to the tokens that `allowed` gives for each prefix, such as
    /// [`AllowedAnswers`](super::AllowedAnswers). Forced tokens go before it.
    #[must_use]
    pub fn with_allowed(mut self, allowed: &'a AllowedTokens<'a>) -> Self {
        self.allowed = Some(allowed);
        self
    }

    /// Ends an answer once `stop` says so, which is asked after each new token that is no end token. Such an answer is as
    /// complete as one with an end token. It keeps the token that ended it, and its score counts that too; no minimum length
    /// holds it up.
    ///
    /// ```
    /// # use rag_generate::decode::Control;
    /// /// A blank line, in tokens.
    /// const LINE: u32 = 198;
    /// let stop = |answer: &[u32]| answer.ends_with(&[LINE, LINE]);
    /// let control = Control::default().with_stop(&stop);
    /// # drop(control);
    /// ```
    ///
    /// A [`Rag`](crate::Rag) looks for [`stop_strings`](super::GenerationConfig::stop_strings) by itself, and asks this besides.
    #[must_use]
    pub fn with_stop(mut self, stop: &'a StopTokens<'a>) -> Self {
        self.stop = Some(stop);
        self
    }

    /// Calls `on_token` with the place of the search in the batch and its next token, as soon as that is decided, the end
    /// token or that of a stop included. `Break` ends all searches, and what was decided so far comes back.
    ///
    /// Where several samples are drawn for each search, the place is `search * num_return_sequences + sample`. Beam search
    /// decides all tokens at its end and never calls it; use [`with_cancelled`](Self::with_cancelled) there.
    #[must_use]
    pub fn with_on_token(
        mut self,
        on_token: &'a mut dyn FnMut(usize, u32) -> ControlFlow<()>,
    ) -> Self {
        self.on_token = Some(on_token);
        self
    }

    /// Asks `cancelled` before each call of the model, and ends all searches once it says yes. What was decided so far
    /// comes back: from beam search the complete answers, then the running beams where places are left.
    #[must_use]
    pub fn with_cancelled(mut self, cancelled: &'a dyn Fn() -> bool) -> Self {
        self.cancelled = Some(cancelled);
        self
    }

    /// The same for a shorter time, with another stop.
    pub(crate) fn stopped_by<'b>(self, stop: &'b StopTokens<'b>) -> Control<'b>
    where
        'a: 'b,
    {
        Control {
            allowed: self.allowed,
            stop: Some(stop),
            on_token: self
                .on_token
                .map(|on_token| on_token as &mut dyn FnMut(usize, u32) -> ControlFlow<()>),
            cancelled: self.cancelled,
        }
    }

    pub(super) fn is_stopped(&self, answer: &[u32]) -> bool {
        self.stop.is_some_and(|stop| stop(answer))
    }

    pub(super) fn emit(&mut self, place: usize, token: u32) -> ControlFlow<()> {
        self.on_token
            .as_mut()
            .map_or(ControlFlow::Continue(()), |on_token| on_token(place, token))
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.is_some_and(|cancelled| cancelled())
    }
}

impl fmt::Debug for Control<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Control")
            .field("allowed", &self.allowed.is_some())
            .field("stop", &self.stop.is_some())
            .field("on_token", &self.on_token.is_some())
            .field("cancelled", &self.cancelled.is_some())
            .finish()
    }
}
