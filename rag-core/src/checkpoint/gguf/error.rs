/// Why a GGUF file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GgufError {
    /// The file does not begin as a GGUF file does.
    #[error(
        "expected a GGUF file, found one that begins with {found:?}; is it a model in the GGUF format?"
    )]
    Magic {
        /// The first bytes.
        found: String,
    },
    /// The container has another version.
    #[error(
        "expected version 2 or 3 of GGUF, little-endian, found {found}; convert the model again with a recent llama.cpp"
    )]
    Version {
        /// The number in the file.
        found: u32,
    },
    /// The file ends before its header or its tensors do.
    #[error("the file ends within {what}; copy or download it again")]
    Truncated {
        /// The part of the file that is cut.
        what: String,
    },
    /// The header contradicts itself.
    #[error("the header is damaged: {what}; copy or download the file again")]
    Damaged {
        /// The contradiction, and its place in the file.
        what: String,
    },
    /// The file is one part of a model.
    #[error(
        "expected a whole model, found one of {parts} parts; join them with llama-gguf-split --merge"
    )]
    Split {
        /// Parts of the model.
        parts: usize,
    },
    /// The model has an architecture that this library does not know.
    #[error("expected a model of architecture {known}, found {found:?}; use another model")]
    Architecture {
        /// `general.architecture`.
        found: String,
        /// The names that would do.
        known: String,
    },
    /// The architecture is known, but the model has a feature that this library lacks.
    #[error("expected {expected}, found {key} = {found}; use another model")]
    Unsupported {
        /// Metadata key or tensor.
        key: String,
        /// Its value.
        found: String,
        /// The values that are accepted.
        expected: String,
    },
    /// A tensor is stored in a block type that is not read.
    #[error(
        "tensor {tensor}: expected the type {known}, found {found}; quantize the model to one of these, Q8_0 or Q4_K_M for instance"
    )]
    TensorType {
        /// Name in the file.
        tensor: String,
        /// Name or number of its type.
        found: String,
        /// The types that are read.
        known: String,
    },
    /// A tensor has a name that the architecture does not have.
    #[error(
        "the model holds the tensor {tensor:?}, unknown to the architecture {architecture}; use another model"
    )]
    UnknownTensor {
        /// Name in the file.
        tensor: String,
        /// `general.architecture`.
        architecture: &'static str,
    },
    /// A metadata value is missing, of another type, or out of its range.
    #[error(
        "metadata {key}: expected {expected}, found {found}; convert the model again with a recent llama.cpp"
    )]
    Metadata {
        /// The key.
        key: String,
        /// The values that are accepted.
        expected: String,
        /// The value, or "nothing".
        found: String,
    },
    /// The tokenizer splits text by rules that this library does not know. Guessing them would change ids
    /// silently.
    #[error(
        "expected a tokenizer whose tokenizer.ggml.pre is {known}, found {found}; use another model, or a folder with its tokenizer.json"
    )]
    PreTokenizer {
        /// `tokenizer.ggml.pre`.
        found: String,
        /// The names that would do.
        known: String,
    },
    /// The tokens do not make a tokenizer.
    #[error(
        "the tokenizer cannot be rebuilt; use another model, or a folder with its tokenizer.json"
    )]
    Tokenizer {
        /// The answer of the tokenizers crate.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl GgufError {
    /// A [`GgufError::Metadata`].
    pub(super) fn metadata(key: &str, expected: &str, found: impl ToString) -> Self {
        Self::Metadata {
            key: key.to_owned(),
            expected: expected.to_owned(),
            found: found.to_string(),
        }
    }

    /// A [`GgufError::Damaged`].
    pub(super) fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged { what: what.into() }
    }
}
