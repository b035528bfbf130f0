//! GGUF, the file format of llama.cpp: one file with weights, configuration, tokenizer and chat template.
//!
//! [`Gguf`] maps the file and checks its header. It gives what a folder in the Hugging Face layout would hold:
//! [`Gguf::config`] the values of `config.json`, [`Gguf::weights`] the tensors under transformers' names, in
//! transformers' order of rows, and [`Gguf::tokenizer`] the tokenizer.
//!
//! The files import from each other in this direction: `value` and `cursor` decode the header, `container` checks
//! it and finds metadata and tensors, `blocks` dequantizes; `config`, `names` and `tokenizer` translate.

mod architecture;
mod blocks;
mod config;
mod container;
mod cursor;
mod description;
pub(crate) mod error;
mod half;
mod heads;
mod k_quants;
mod keys;
mod metadata;
mod names;
mod rope;
mod rules;
mod tensor_type;
mod tokenizer;
mod value;
mod vocabulary;
mod weight;

use std::{fmt, fs::File, path::Path, path::PathBuf, sync::Arc};

pub use architecture::Architecture;
pub use blocks::dequantize;
use bytes::Bytes;
use container::{Container, Header};
pub use error::GgufError;
pub use metadata::Metadata;
pub use tensor_type::TensorType;
pub use tokenizer::GgufTokenizer;
pub use weight::Weight;

use super::mapped::map;
use crate::{Error, Result};

/// A GGUF file, mapped into memory. Tensors are read on request.
///
/// Do not overwrite the file in place while this value or one of its [`Weight`]s lives.
#[derive(Clone)]
pub struct Gguf {
    path: PathBuf,
    container: Container,
    architecture: Architecture,
    /// Where the bytes are a mapped file's.
    file: Option<Arc<File>>,
}

impl fmt::Debug for Gguf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (f.debug_struct("Gguf"))
            .field("path", &self.path)
            .field("architecture", &self.architecture)
            .field("tensors", &self.container.len())
            .finish_non_exhaustive()
    }
}

impl Gguf {
    /// Opens a file and checks its header; no tensor is read.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Gguf`] where the file is damaged, is one part of several, or holds a model
    /// of an architecture or a block type that is not known.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = File::open(path).map_err(Error::io(path))?;
        let length = file.metadata().map_err(Error::io(path))?.len() as usize;
        let bytes = match length {
            0 => Bytes::new(),
            _ => Bytes::from_owner(map(&file, 0..length).map_err(Error::io(path))?),
        };
        Ok(Self {
            file: Some(Arc::new(file)),
            ..Self::from_bytes(bytes, path)?
        })
    }

    /// Reads a file whose bytes are in memory. `path` names it in errors.
    ///
    /// # Errors
    /// As [`Gguf::open`].
    pub fn from_bytes(file: Bytes, path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        match read(file) {
            Ok((container, architecture)) => Ok(Self {
                path,
                container,
                architecture,
                file: None,
            }),
            Err(source) => Err(Error::Gguf { path, source }),
        }
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The kind of model.
    pub fn architecture(&self) -> Architecture {
        self.architecture
    }

    /// The metadata, by llama.cpp's keys.
    pub fn metadata(&self) -> Metadata<'_> {
        self.container.metadata()
    }

    /// The chat template, in Jinja.
    ///
    /// # Errors
    /// [`Error::Gguf`] where it is not a text.
    pub fn chat_template(&self) -> Result<Option<&str>> {
        (self.metadata().text("tokenizer.chat_template")).map_err(self.failed())
    }

    /// The values of an equivalent `config.json`, as transformers 4 spells them.
    ///
    /// `eos_token_id` lists every token that ends an answer, found as llama.cpp finds them: first the one that the file
    /// calls EOS, then the others by id.
    ///
    /// # Errors
    /// [`Error::Gguf`] where a value is missing or out of range, or `config.json` cannot express it.
    pub fn config(&self) -> Result<serde_json::Value> {
        config::config(&self.container, self.architecture).map_err(self.failed())
    }

    /// By how much to divide each of the `head_dim / 2` rotary frequencies: `rope_freqs.weight`, as Llama 3.1
    /// and later have it. [`Gguf::config`] expresses the same as `rope_scaling`.
    ///
    /// # Errors
    /// [`Error::Gguf`] where they are not positive numbers.
    pub fn rope_factors(&self) -> Result<Option<Vec<f32>>> {
        rope::factors(&self.container).map_err(self.failed())
    }

    /// The tensors under transformers' names. Nothing is dequantized yet. Each of a mapped file has a map of its own, so that
    /// the system gets the memory of a tensor back when it is dropped.
    ///
    /// The head `lm_head.weight` is missing where it is tied to `model.embed_tokens.weight`.
    ///
    /// # Errors
    /// [`Error::Gguf`] where a tensor is unknown to the architecture; [`Error::Io`] where the system has no more maps.
    pub fn weights(&self) -> Result<Vec<Weight>> {
        let weights = names::weights(&self.container, self.architecture);
        let mut weights = weights.map_err(self.failed())?;
        if let Some(file) = &self.file {
            for weight in weights.iter_mut().filter(|weight| !weight.bytes.is_empty()) {
                let range = self.container.place_of(&weight.bytes);
                let map = map(file, range).map_err(Error::io(&self.path))?;
                weight.bytes = Bytes::from_owner(map);
            }
        }
        Ok(weights)
    }

    /// The tokenizer, rebuilt from the metadata.
    ///
    /// # Errors
    /// [`Error::Gguf`] where its rules are not known or the tokens are not a vocabulary.
    pub fn tokenizer(&self) -> Result<GgufTokenizer> {
        tokenizer::tokenizer(self.metadata()).map_err(self.failed())
    }

    /// Adds the path to an error.
    fn failed(&self) -> impl Fn(GgufError) -> Error {
        let path = self.path.clone();
        move |source| Error::Gguf {
            path: path.clone(),
            source,
        }
    }
}

fn read(file: Bytes) -> Result<(Container, Architecture), GgufError> {
    let header = Header::read(&file)?;
    let metadata = header.metadata(&file);
    if let Some(parts) = metadata.count("split.count")?
        && parts > 1
    {
        return Err(GgufError::Split { parts });
    }
    // Before the tensors: of a model that is not known, the error should name the architecture first.
    let architecture = Architecture::of(metadata)?;
    Ok((Container::read(file, header)?, architecture))
}

#[cfg(test)]
mod tests;
