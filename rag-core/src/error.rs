use std::{
    error::Error as StdError,
    fmt, io,
    path::{Path, PathBuf},
};

use crate::checkpoint::gguf::error::GgufError;

/// Errors of everything below the retriever and the generator.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error("{}", access(.path, .source))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A file is not valid JSON, or lacks a field.
    #[error("{path} is not the JSON that is expected; correct it, or copy it again")]
    Json {
        /// The file.
        path: PathBuf,
        /// The parser's error, with line and column.
        source: serde_json::Error,
    },
    /// A folder lacks a file of the checkpoint layout.
    #[error("{folder} has none of {expected}; give a checkpoint folder in the Hugging Face layout")]
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
        /// The reader's error.
        reason: String,
    },
    /// The checkpoint lacks tensors that the model needs.
    #[error("the checkpoint {folder} lacks {} tensor(s) of the model: {}; check that config.json describes these weights", .names.len(), listed(.names))]
    MissingTensors {
        /// The checkpoint.
        folder: PathBuf,
        /// The tensors' names in the checkpoint.
        names: Vec<String>,
    },
    /// The checkpoint holds tensors that the model has no place for.
    #[error("the checkpoint {folder} holds {} tensor(s) unknown to the model: {}; check that config.json describes these weights", .names.len(), listed(.names))]
    UnknownTensors {
        /// The checkpoint.
        folder: PathBuf,
        /// The tensors' names in the checkpoint.
        names: Vec<String>,
    },
    /// A tensor has another shape than config.json says.
    #[error(
        "{name}: config.json asks for shape {expected:?}, the weights have {found:?}; check that config.json describes these weights"
    )]
    Shape {
        /// The tensor's name in the checkpoint.
        name: String,
        /// Shape by config.json.
        expected: Vec<usize>,
        /// Shape in the file.
        found: Vec<usize>,
    },
    /// A configuration that this library does not support, or that contradicts itself.
    #[error("unsupported configuration: {field} = {found}; expected {expected}")]
    Config {
        /// The field in the file or struct.
        field: String,
        /// Its value.
        found: String,
        /// The values that are accepted.
        expected: String,
    },
    /// A tokenizer could not be read or used.
    #[error("the tokenizer {path} failed; copy or download the tokenizer's files again")]
    Tokenizer {
        /// The file, or the model's name.
        path: PathBuf,
        /// The tokenizers crate's error.
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
    #[error("there is no device {found:?}; expected one of {expected}")]
    Device {
        /// The string.
        found: String,
        /// The devices that this build supports.
        expected: String,
    },
    /// A GGUF file is damaged, or holds what is not supported.
    #[error("the GGUF file {path} cannot be used")]
    Gguf {
        /// The file.
        path: PathBuf,
        /// The error: what was expected, what the file has, and what to do.
        source: GgufError,
    },
    /// The hub could not be reached, or does not hold what was asked.
    #[error(
        "cannot read {repository} from the hub; check its name, the network, and HF_TOKEN for a private repository"
    )]
    Hub {
        /// `owner/name`.
        repository: String,
        /// The client's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Prints the message and its causes, since `main` prints the error that it returns with `Debug`.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        report(self, f)
    }
}

/// Writes an error and, each after a colon, its causes: `there is no a.txt; check the name: No such file or directory`.
///
/// The error enums of all crates print themselves so in their `Debug`. Their `Display` leaves the causes to
/// [`source`](StdError::source), as reporters such as `anyhow` expect.
///
/// # Errors
/// Those of the formatter.
pub fn report(error: &dyn StdError, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "{error}")?;
    let mut cause = error.source();
    while let Some(error) = cause {
        write!(f, ": {error}")?;
        cause = error.source();
    }
    Ok(())
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
            format!("cannot access {path}; check that you may read and write there")
        }
        _ => format!("cannot read or write {path}; check the path, the disk and its free space"),
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
