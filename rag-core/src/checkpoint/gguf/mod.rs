//! GGUF, the file format of llama.cpp: one file with weights, configuration, tokenizer and chat template.
//!
//! [`Gguf`] maps the file and checks its header. What it gives is what a folder in the Hugging Face layout
//! would hold: [`Gguf::config`] the values of `config.json`, [`Gguf::weights`] the tensors under
//! transformers' names, in transformers' order of rows, and [`Gguf::tokenizer`] the tokenizer.

mod blocks;
mod config;
mod container;
mod error;
mod k_quants;
mod metadata;
mod names;
mod rope;
mod tokenizer;
mod vocabulary;
mod weight;

use std::{fmt, fs::File, path::Path, path::PathBuf};

pub use blocks::{TensorType, dequantize};
use bytes::Bytes;
use container::{Cursor, Description, Index};
pub use error::GgufError;
pub use metadata::Metadata;
pub use names::Architecture;
pub use tokenizer::GgufTokenizer;
pub use weight::Weight;

use super::mapped::map;
use crate::{Error, Result};

/// A GGUF file, mapped into memory: only what is asked for is read.
///
/// The file must not be written over in place as long as this value or a [`Weight`] of it lives.
#[derive(Clone)]
pub struct Gguf {
    path: PathBuf,
    file: Bytes,
    index: Index,
    architecture: Architecture,
}

impl fmt::Debug for Gguf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (f.debug_struct("Gguf"))
            .field("path", &self.path)
            .field("architecture", &self.architecture)
            .field("tensors", &self.index.tensors.len())
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
        Self::from_bytes(bytes, path)
    }

    /// Reads a file that is in memory already; `path` names it in errors.
    ///
    /// # Errors
    /// As [`Gguf::open`].
    pub fn from_bytes(file: Bytes, path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        match read(&file) {
            Ok((index, architecture)) => Ok(Self {
                path,
                file,
                index,
                architecture,
            }),
            Err(source) => Err(Error::Gguf { path, source }),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The kind of model.
    pub fn architecture(&self) -> Architecture {
        self.architecture
    }

    /// The metadata, by llama.cpp's keys.
    pub fn metadata(&self) -> Metadata<'_> {
        Metadata {
            file: &self.file,
            keys: &self.index.keys,
        }
    }

    /// The chat template, a Jinja text.
    ///
    /// # Errors
    /// [`Error::Gguf`] where it is no text.
    pub fn chat_template(&self) -> Result<Option<&str>> {
        (self.metadata().text("tokenizer.chat_template")).map_err(self.failed())
    }

    /// The values of an equivalent `config.json`, as transformers 4 spells them.
    ///
    /// `eos_token_id` lists every token that ends an answer, found as llama.cpp finds them.
    ///
    /// # Errors
    /// [`Error::Gguf`] where a value is missing or out of range, or asks for what cannot be expressed.
    pub fn config(&self) -> Result<serde_json::Value> {
        config::config(self).map_err(self.failed())
    }

    /// By how much to divide each of the `head_dim / 2` rotary frequencies: `rope_freqs.weight`, as Llama 3.1
    /// and later have it. [`Gguf::config`] expresses the same as `rope_scaling`.
    ///
    /// # Errors
    /// [`Error::Gguf`] where they are not positive numbers.
    pub fn rope_factors(&self) -> Result<Option<Vec<f32>>> {
        rope::factors(self).map_err(self.failed())
    }

    /// The tensors under transformers' names. Nothing is dequantized yet.
    ///
    /// The head `lm_head.weight` is missing where it is tied to `model.embed_tokens.weight`.
    ///
    /// # Errors
    /// [`Error::Gguf`] where a tensor is unknown to the architecture.
    pub fn weights(&self) -> Result<Vec<Weight>> {
        names::weights(self).map_err(self.failed())
    }

    /// The tokenizer, rebuilt from the metadata.
    ///
    /// # Errors
    /// [`Error::Gguf`] where its rules are not known or the tokens are not a vocabulary.
    pub fn tokenizer(&self) -> Result<GgufTokenizer> {
        tokenizer::tokenizer(self.metadata()).map_err(self.failed())
    }

    fn failed(&self) -> impl Fn(GgufError) -> Error {
        let path = self.path.clone();
        move |source| Error::Gguf {
            path: path.clone(),
            source,
        }
    }

    /// The tensors as the file has them, in the order of their names.
    fn descriptions(&self) -> impl Iterator<Item = Result<Description<'_>, GgufError>> {
        let file = &self.file[..];
        (self.index.tensors.iter()).map(move |at| Cursor { file, at: *at }.description())
    }

    fn description(&self, name: &str) -> Result<Option<Description<'_>>, GgufError> {
        let file = &self.file[..];
        let found = self.index.tensors.binary_search_by_key(&name, |at| {
            let name = Cursor { file, at: *at }.text("a name");
            name.unwrap_or_default()
        });
        match found {
            Ok(at) => {
                let at = self.index.tensors[at];
                Cursor { file, at }.description().map(Some)
            }
            Err(_) => Ok(None),
        }
    }

    fn tensor_bytes(&self, tensor: &Description<'_>) -> Bytes {
        let start = self.index.data + tensor.offset;
        self.file.slice(start..start + tensor.length)
    }
}

fn read(file: &[u8]) -> Result<(Index, Architecture), GgufError> {
    let (keys, tensors, end) = container::index_metadata(file)?;
    let metadata = Metadata { file, keys: &keys };
    if let Some(parts) = metadata.count("split.count")?
        && parts > 1
    {
        return Err(GgufError::Split { parts });
    }
    let architecture = Architecture::of(metadata)?;
    let alignment = container::alignment(metadata.get("general.alignment"))?;
    let (tensors, data) = container::index_tensors(file, end, tensors, alignment)?;
    let index = Index {
        keys,
        tensors,
        data,
    };
    Ok((index, architecture))
}

#[cfg(test)]
mod tests;
