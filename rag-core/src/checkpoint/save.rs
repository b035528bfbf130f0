use std::{collections::BTreeMap, io::Write, path::Path};

use burn::module::Module;
use burn_store::{ModuleSnapshot, burn_pack};
use safetensors::tensor::{Dtype, TensorView};
use serde::Serialize;

use super::Names;
use crate::{Error, Result, atomic};

/// Tensors on their way into a file, by the checkpoint's names.
#[derive(Debug, Default)]
pub struct Tensors(BTreeMap<String, burn_pack::Tensor>);

impl Tensors {
    /// Adds every parameter of `module` as `prefix` + `names`. Adapters are merged into their weights:
    /// a checkpoint has no place for them.
    pub fn add<M: Module>(&mut self, module: &M, prefix: &str, names: &Names) {
        for tensor in module.clone().materialize().collect(None, None, true) {
            self.0.insert(names.of(prefix, &tensor.name), tensor);
        }
    }

    /// Names, with the id of the parameter that each holds.
    pub fn ids(&self) -> impl Iterator<Item = (&str, Option<u64>)> {
        (self.0.iter()).map(|(name, tensor)| (name.as_str(), tensor.param_id))
    }

    /// Feeds names and values to a hash, in the order of the names.
    ///
    /// # Errors
    /// [`Error::DamagedWeights`] where a tensor cannot be read from its device.
    pub fn hash(&self, hash: &mut blake3::Hasher) -> Result<()> {
        for (name, tensor) in &self.0 {
            let bytes = tensor.to_bytes().map_err(|error| Error::DamagedWeights {
                path: name.into(),
                reason: error.to_string(),
            })?;
            hash.update(name.as_bytes()).update(&bytes);
        }
        Ok(())
    }
}

/// Writes a `.safetensors` file that transformers opens, in the parameters' own types.
///
/// # Errors
/// [`Error::Io`]; [`Error::DamagedWeights`] where a tensor cannot be read from its device.
pub fn write_safetensors(path: impl AsRef<Path>, tensors: &Tensors) -> Result<()> {
    let path = path.as_ref();
    let failed = |reason: String| Error::DamagedWeights {
        path: path.to_owned(),
        reason,
    };
    let mut data = Vec::with_capacity(tensors.0.len());
    for (name, tensor) in &tensors.0 {
        let dtype = match tensor.dtype {
            burn::tensor::DType::BF16 => Dtype::BF16,
            burn::tensor::DType::F16 => Dtype::F16,
            burn::tensor::DType::F32 => Dtype::F32,
            other => return Err(failed(format!("{name} has the type {other:?}"))),
        };
        let bytes = tensor
            .to_bytes()
            .map_err(|error| failed(error.to_string()))?;
        data.push((name, dtype, tensor.shape.to_vec(), bytes));
    }
    let views = data
        .iter()
        .map(|(name, dtype, shape, bytes)| {
            TensorView::new(*dtype, shape.clone(), bytes).map(|view| (name.as_str(), view))
        })
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(|error| failed(error.to_string()))?;
    // transformers refuses files that do not name their framework.
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    let bytes =
        safetensors::serialize(views, Some(metadata)).map_err(|error| failed(error.to_string()))?;
    atomic::write_file(path, |file| file.write_all(&bytes))
}

/// Writes indented JSON, such as `config.json`.
///
/// # Errors
/// [`Error::Io`], [`Error::Json`].
pub fn write_json(path: impl AsRef<Path>, value: &impl Serialize) -> Result<()> {
    let path = path.as_ref();
    let text = serde_json::to_string_pretty(value).map_err(Error::json(path))?;
    atomic::write_file(path, |file| writeln!(file, "{text}"))
}
