//! Checkpoints in the Hugging Face layout, read and written: `config.json`, `model.safetensors`
//! (single or sharded) or `pytorch_model.bin`, under the names that transformers uses. [`gguf`] reads
//! llama.cpp's files.

pub mod gguf;
#[cfg(feature = "hub")]
mod hub;
mod load;
mod mapped;
mod save;
mod stored;

#[cfg(feature = "hub")]
pub use hub::from_hub;
pub use load::{Weights, read_json};
pub use save::{Tensors, write_json, write_safetensors};

/// Translates a module's parameter path to the checkpoint's name: each pair replaces the first
/// with the second, in order.
#[derive(Clone, Debug, Default)]
pub struct Names(Vec<(&'static str, &'static str)>);

impl Names {
    /// Names that differ from the paths by `pairs`.
    pub fn new(pairs: &[(&'static str, &'static str)]) -> Self {
        Self(pairs.to_vec())
    }

    /// Adds further pairs after the others.
    #[must_use]
    pub fn and(mut self, pairs: &[(&'static str, &'static str)]) -> Self {
        self.0.extend_from_slice(pairs);
        self
    }

    /// The checkpoint's name of the parameter at `path`.
    pub fn of(&self, prefix: &str, path: &str) -> String {
        let dotted = format!(".{path}");
        let renamed = self
            .0
            .iter()
            .fold(dotted, |name, (ours, theirs)| name.replace(ours, theirs));
        format!("{prefix}{}", &renamed[1..])
    }
}
