use std::fmt;

/// Which of a bi-encoder's two halves an encoder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Encodes questions.
    Question,
    /// Encodes passages.
    Context,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Question => "question",
            Self::Context => "context",
        })
    }
}
