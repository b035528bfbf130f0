use std::fmt;
use std::ops::ControlFlow;

/// The tokens that may follow: from the search's place in the batch and its tokens so far, the start token first.
pub type AllowedTokens<'a> = dyn Fn(usize, &[u32]) -> Vec<u32> + 'a;

/// What the caller has to say while a search runs; nothing by default.
#[derive(Default)]
pub struct Control<'a> {
    pub(super) allowed: Option<&'a AllowedTokens<'a>>,
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

    /// Calls `on_token` with the place of the search in the batch and its next token, as soon as that is decided, the end
    /// token included. `Break` ends all searches, and what was decided so far comes back.
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
            .field("on_token", &self.on_token.is_some())
            .field("cancelled", &self.cancelled.is_some())
            .finish()
    }
}
