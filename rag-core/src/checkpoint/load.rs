use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use burn::module::Module;
use burn_store::{ModuleStore, PytorchStore, burn_pack};
use serde::{Deserialize, de::DeserializeOwned};

use super::{
    Names,
    gguf::Gguf,
    mapped::mapped_tensors,
    stored::{self, Found, Stored},
};
use crate::{
    error::{Error, Result},
    parameters::for_each_parameter,
};

/// The tensors of a checkpoint folder or of a GGUF file.
///
/// [`Weights::fill`] finds a module's tensors and checks them; each is read, and made f32, when its parameter is first used. A
/// model that is packed, layer by layer, is therefore never in memory as f32 but for the matrix being packed. Tensors of
/// a safetensors file that are f32 already are not read at all: the module's parameters are the file, mapped into memory,
/// until something changes them.
///
/// A file must not be written over in place as long as a module lives that was filled from it; what
/// [`super::write_safetensors`] writes is put in its place whole.
#[derive(Debug)]
pub struct Weights {
    folder: PathBuf,
    tensors: BTreeMap<String, Stored>,
    used: BTreeSet<String>,
}

impl Weights {
    /// Opens `model.safetensors`, `pytorch_model.bin`, or the shards that their index lists.
    ///
    /// # Errors
    /// [`Error::MissingFile`], [`Error::DamagedWeights`].
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        Self::read(folder, weight_files(folder)?)
    }

    /// Opens what PEFT writes: `adapter_model.safetensors` or `adapter_model.bin`.
    ///
    /// # Errors
    /// [`Error::MissingFile`], [`Error::DamagedWeights`].
    pub fn open_adapter(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let mut files = ADAPTER.iter().map(|name| folder.join(name));
        match files.find(|file| file.is_file()) {
            Some(file) => Self::read(folder, vec![file]),
            None => Err(Error::MissingFile {
                folder: folder.to_owned(),
                expected: ADAPTER.join(", "),
            }),
        }
    }

    /// The tensors of a GGUF file, each dequantised to f32 when its parameter is first used.
    ///
    /// # Errors
    /// Those of [`Gguf::weights`].
    pub fn from_gguf(gguf: &Gguf) -> Result<Self> {
        let weights = gguf.weights()?.into_iter();
        let tensors = weights.map(|weight| (weight.name().to_owned(), Stored::Blocks(weight)));
        Ok(Self {
            folder: gguf.path().to_owned(),
            tensors: tensors.collect(),
            used: BTreeSet::new(),
        })
    }

    fn read(folder: &Path, files: Vec<PathBuf>) -> Result<Self> {
        let mut tensors = BTreeMap::new();
        for file in files {
            let found = read_tensors(&file)?.into_iter();
            tensors.extend(found.map(|(name, tensor)| (name, Stored::Plain(tensor))));
        }
        Ok(Self {
            folder: folder.to_owned(),
            tensors,
            used: BTreeSet::new(),
        })
    }

    /// Whether the checkpoint has a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The first of `prefixes` under which the checkpoint has any tensor.
    pub fn find_prefix<'a>(&self, prefixes: &[&'a str]) -> Option<&'a str> {
        prefixes
            .iter()
            .find(|prefix| self.tensors.keys().any(|name| name.starts_with(**prefix)))
            .copied()
    }

    /// Fills every parameter of `module`, as f32, from the tensors called `prefix` + `names`. Fill a module before it is
    /// packed.
    ///
    /// # Errors
    /// [`Error::MissingTensors`], [`Error::Shape`], [`Error::DamagedWeights`].
    pub fn fill<M: Module>(&mut self, module: M, prefix: &str, names: &Names) -> Result<M> {
        let mut found = Vec::new();
        let mut missing = Vec::new();
        for_each_parameter(&module, |parameter| {
            let name = names.of(prefix, &parameter.path());
            match self.tensors.get(&name) {
                Some(tensor) => found.push(Found {
                    id: parameter.id(),
                    name,
                    tensor: tensor.clone(),
                }),
                None => missing.push(name),
            }
        });
        if !missing.is_empty() {
            return Err(Error::MissingTensors {
                folder: self.folder.clone(),
                names: missing,
            });
        }
        (self.used).extend(found.iter().map(|found| found.name.clone()));
        stored::fill(module, found, &self.folder)
    }

    /// Checks that nothing of the checkpoint was left unread, but for names that `ignored` accepts
    /// (copies of tied weights, buffers).
    ///
    /// # Errors
    /// [`Error::UnknownTensors`].
    pub fn finish(self, ignored: impl Fn(&str) -> bool) -> Result<()> {
        let names: Vec<_> = self
            .tensors
            .into_keys()
            .filter(|name| !self.used.contains(name) && !ignored(name))
            .collect();
        if names.is_empty() {
            return Ok(());
        }
        Err(Error::UnknownTensors {
            folder: self.folder,
            names,
        })
    }
}

/// Reads a JSON file such as `config.json`.
///
/// # Errors
/// [`Error::Io`], [`Error::Json`].
pub fn read_json<T: DeserializeOwned>(path: impl AsRef<Path>) -> Result<T> {
    let path = path.as_ref();
    let text = fs::read(path).map_err(Error::io(path))?;
    serde_json::from_slice(&text).map_err(Error::json(path))
}

const ADAPTER: [&str; 2] = ["adapter_model.safetensors", "adapter_model.bin"];
const SINGLE: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];
const SHARDED: [&str; 2] = [
    "model.safetensors.index.json",
    "pytorch_model.bin.index.json",
];

fn weight_files(folder: &Path) -> Result<Vec<PathBuf>> {
    #[derive(Deserialize)]
    struct Shards {
        weight_map: BTreeMap<String, String>,
    }
    for (single, sharded) in SINGLE.iter().zip(SHARDED) {
        let [single, index] = [single, sharded].map(|name| folder.join(name));
        if single.is_file() {
            return Ok(vec![single]);
        }
        if index.is_file() {
            let shards: Shards = read_json(&index)?;
            let files: BTreeSet<_> = shards.weight_map.into_values().collect();
            return Ok(files.into_iter().map(|name| folder.join(name)).collect());
        }
    }
    Err(Error::MissingFile {
        folder: folder.to_owned(),
        expected: [SINGLE, SHARDED].concat().join(", "),
    })
}

fn read_tensors(file: &Path) -> Result<BTreeMap<String, burn_pack::Tensor>> {
    if file.extension().is_none_or(|extension| extension != "bin") {
        return mapped_tensors(file);
    }
    fs::File::open(file).map_err(Error::io(file))?;
    // A shard that holds only later layers must not be renumbered.
    let mut store = PytorchStore::from_file(file).map_indices_contiguous(false);
    match store.get_all_tensors() {
        Ok(tensors) => Ok(tensors.clone()),
        Err(error) => Err(Error::DamagedWeights {
            path: file.to_owned(),
            reason: error.to_string(),
        }),
    }
}
