use std::fmt;

use rag_core::report;
use rag_generate::decode::DecodeError;

/// The error of any call of this crate: `?` converts the error of each into it.
///
/// The variant is the room in which it went wrong, whichever call came upon it: a passage that cannot be found is
/// [`Error::Retrieve`] in `rag.ask(..)?` and in `trainer.run(..)?` alike. `Display` is the message, with what was
/// expected, what was found and what to do; causes are in [`source`](std::error::Error::source), and `Debug`, which
/// `main` prints, has all of them.
///
/// ```no_run
/// use burn_rag::prelude::*;
///
/// fn main() -> burn_rag::Result<()> {
///     let knowledge = KnowledgeBase::open("knowledge")?;
///     let rag = Rag::load("model", knowledge, &device("cpu")?)?;
///     let pairs = read_pairs("pairs.jsonl")?;
///     println!("{}", rag.ask(&pairs[0].question)?);
///     Ok(())
/// }
/// ```
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Files, tokenizers, checkpoints, devices.
    #[error(transparent)]
    Core(#[from] rag_core::Error),
    /// Documents, encoders, indexes, knowledge bases.
    #[error(transparent)]
    Retrieve(rag_retrieve::Error),
    /// Questions, prompts, decoding.
    #[error(transparent)]
    Generate(rag_generate::Error),
    /// Pairs, training, measuring.
    #[error(transparent)]
    Train(rag_train::Error),
    /// Reading or writing of the program's own, without a path.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// `std::result::Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl From<rag_retrieve::Error> for Error {
    fn from(error: rag_retrieve::Error) -> Self {
        match error {
            rag_retrieve::Error::Core(error) => Self::Core(error),
            error => Self::Retrieve(error),
        }
    }
}

impl From<DecodeError> for Error {
    fn from(error: DecodeError) -> Self {
        Self::Generate(error.into())
    }
}

impl From<rag_generate::Error> for Error {
    fn from(error: rag_generate::Error) -> Self {
        match error {
            rag_generate::Error::Core(error) => Self::Core(error),
            rag_generate::Error::Retrieve(error) => error.into(),
            error => Self::Generate(error),
        }
    }
}

impl From<rag_train::Error> for Error {
    fn from(error: rag_train::Error) -> Self {
        match error {
            rag_train::Error::Core(error) => Self::Core(error),
            rag_train::Error::Retrieve(error) => error.into(),
            rag_train::Error::Generate(error) => error.into(),
            error => Self::Train(error),
        }
    }
}

/// Prints the message and its causes, since `main` prints the error that it returns with `Debug`.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        report(self, f)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::error::Error as _;

    use rag_retrieve::RetrieverError;

    use super::*;

    #[test]
    fn the_variant_is_the_room_and_not_the_call() {
        let empty = || rag_retrieve::Error::from(RetrieverError::EmptyQuestion);
        let asked: Error = rag_generate::Error::from(empty()).into();
        let trained: Error = rag_train::Error::from(rag_generate::Error::from(empty())).into();
        for error in [empty().into(), asked, trained] {
            assert!(matches!(error, Error::Retrieve(_)), "{error}");
        }
        let core = |error| matches!(error, Error::Core(_));
        let missing = || rag_core::device("no such device").unwrap_err();
        assert!(core(rag_train::Error::from(missing()).into()));
        assert!(core(rag_retrieve::Error::from(missing()).into()));
    }

    #[test]
    fn causes_are_in_source_and_in_debug_alone() {
        let missing = rag_core::checkpoint::read_json::<()>("nowhere/config.json").unwrap_err();
        let error = Error::from(missing);
        let cause = error.source().unwrap().to_string();
        assert!(error.to_string().contains("config.json"), "{error}");
        assert!(!error.to_string().contains(&cause), "{error}");
        assert_eq!(format!("{error:?}"), format!("{error}: {cause}"));
    }
}
