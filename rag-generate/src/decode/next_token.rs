use std::error::Error;

/// The scores that a search asks of a model.
pub trait NextToken {
    /// Size of the vocabulary, V.
    fn vocabulary(&self) -> usize;

    /// Scores of the next token, `[rows, V]` row-major: logits, or log-probabilities where the model marginalises; -inf
    /// rules a token out.
    ///
    /// Row i continues row `parents[i]` of the previous call with `tokens[i]`. In the first call the parents are
    /// `0..batch` and every token is the start token. In later calls a parent may occur several times or not at all:
    /// rows of one search stay together and in the order of the searches, and a search that has ended has no rows.
    ///
    /// # Errors
    /// Whatever the model fails with; it reaches the caller as [`DecodeError::Model`](super::DecodeError::Model).
    fn next(
        &mut self,
        parents: &[usize],
        tokens: &[u32],
    ) -> Result<Vec<f32>, Box<dyn Error + Send + Sync>>;
}
