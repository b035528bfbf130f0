use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use crate::checkpoint::gguf::GgufError;

/// What can go wrong below the retriever and the generator.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error("{}", access(.path, .source))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A file is not valid JSON, or lacks a field.
    #[error("{path} is not the JSON that is expected: {source}")]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser found, with line and column.
        source: serde_json::Error,
    },
    /// A folder lacks a file of the checkpoint layout.
    #[error(
        "{folder} has none of {expected}; is it a checkpoint folder in the Hugging Face layout?"
    )]
    MissingFile {
        /// The folder searched.
        folder: PathBuf,
        /// The names that would do.
        expected: String,
    },
    /// A weight file is truncated or malformed.
    #[error("{path} is truncated or damaged ({reason}); copy or download it again")]
    DamagedWeights {
        /// The file.
        path: PathBuf,
        /// What the reader found.
        reason: String,
    },
    /// The checkpoint lacks tensors that the model needs.
    #[error("the checkpoint {folder} lacks {} tensor(s) of the model: {}; does config.json describe these weights?", .names.len(), listed(.names))]
    MissingTensors {
        /// The checkpoint.
        folder: PathBuf,
        /// Names in the checkpoint's own words.
        names: Vec<String>,
    },
    /// The checkpoint holds tensors that the model has no place for.
    #[error("the checkpoint {folder} holds {} tensor(s) unknown to the model: {}; does config.json describe these weights?", .names.len(), listed(.names))]
    UnknownTensors {
        /// The checkpoint.
        folder: PathBuf,
        /// Names in the checkpoint's own words.
        names: Vec<String>,
    },
    /// A tensor has another shape than config.json says.
    #[error(
        "{name}: config.json asks for shape {expected:?}, the weights have {found:?}; does config.json describe these weights?"
    )]
    Shape {
        /// The tensor, in the checkpoint's own words.
        name: String,
        /// By config.json.
        expected: Vec<usize>,
        /// In the file.
        found: Vec<usize>,
    },
    /// A configuration asks for what this library does not have, or contradicts itself.
    #[error("unsupported configuration: {field} = {found}; expected {expected}")]
    Config {
        /// The field in the file or struct.
        field: String,
        /// Its value.
        found: String,
        /// What would do.
        expected: String,
    },
    /// A tokenizer could not be read or used.
    #[error("tokenizer {path}: {source}; copy or download the tokenizer's files again")]
    Tokenizer {
        /// The file, or the model's name.
        path: PathBuf,
        /// The tokenizers crate's answer.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The tokenizer produces ids that the embedding table does not have.
    #[error(
        "the tokenizer {path} has ids up to {largest}, the model's vocabulary ends at {vocabulary}: they do not belong together, load the tokenizer of this checkpoint"
    )]
    Vocabulary {
        /// The tokenizer's file.
        path: PathBuf,
        /// Largest id of the tokenizer.
        largest: u32,
        /// Rows of the embedding table.
        vocabulary: usize,
    },
    /// A device string that names no device of this build.
    #[error("device {found:?}: expected one of {expected}")]
    Device {
        /// The string.
        found: String,
        /// What this build supports.
        expected: String,
    },
    /// A GGUF file is damaged, or holds what is not supported.
    #[error("{path}: {source}")]
    Gguf {
        /// The file.
        path: PathBuf,
        /// What was expected, and what the file has.
        source: GgufError,
    },
    /// The hub could not be reached, or does not hold what was asked.
    #[error("hub repository {repository}: {source}")]
    Hub {
        /// `owner/name`.
        repository: String,
        /// The client's answer.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// `main` prints the error that it returns with `Debug`, and should teach as well.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `std::result::Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An [`Error::Io`] about `path`, for `map_err`.
    pub fn io(path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Io { path, source }
    }

    /// An [`Error::Json`] about `path`, for `map_err`.
    pub fn json(path: impl AsRef<Path>) -> impl FnOnce(serde_json::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Json { path, source }
    }
}

fn access(path: &Path, source: &io::Error) -> String {
    let path = path.display();
    match source.kind() {
        io::ErrorKind::NotFound => format!("there is no {path}; check the name"),
        io::ErrorKind::PermissionDenied => {
            format!("cannot access {path}: {source}; check that you may read and write there")
        }
        _ => format!("cannot access {path}: {source}"),
    }
}

fn listed(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let mut list = names
        .iter()
        .take(SHOWN)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    if names.len() > SHOWN {
        list.push_str(", …");
    }
    list
}
