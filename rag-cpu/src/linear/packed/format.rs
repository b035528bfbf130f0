//! How packed weights are rounded.

/// How weights, and what they multiply, are rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// To 8 significant bits.
    Bf16,
    /// To integers of at most 127, times a scale for each row.
    Int8,
}
