//! The folder that a run writes to, which knows what it was begun with.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use burn_rag::core::{
    Error,
    checkpoint::{read_json, write_json},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::Failure;

/// A folder of what was made. Each file is whole or not there: it is written beside its place, and renamed.
#[derive(Clone, Debug)]
pub struct Output {
    folder: PathBuf,
}

impl Output {
    /// Makes the folder where there is none.
    pub fn open(folder: &Path) -> Result<Self, Failure> {
        fs::create_dir_all(folder).map_err(Error::io(folder))?;
        let folder = folder.to_owned();
        Ok(Self { folder })
    }

    /// A folder in it.
    pub fn folder(&self, name: &str) -> Result<Self, Failure> {
        Self::open(&self.folder.join(name))
    }

    /// The path of a file or folder in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A file's content, where it has been written.
    pub fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Failure> {
        let path = self.path(name);
        Ok(match path.is_file() {
            true => Some(read_json(path)?),
            false => None,
        })
    }

    /// Writes a file whole.
    pub fn write(&self, name: &str, content: &impl Serialize) -> Result<(), Failure> {
        write_json(self.path(name), content)?;
        Ok(())
    }

    /// Notes what the folder is begun with, or refuses something else than it was begun with.
    pub fn settle<const N: usize>(
        &self,
        name: &str,
        found: [(&str, String); N],
    ) -> Result<(), Failure> {
        let found = found.map(|(name, value)| (name.to_owned(), value));
        self.settle_all(name, &BTreeMap::from(found))
    }

    /// The same, for all fields of `found`.
    pub fn settle_all(&self, name: &str, found: &impl Serialize) -> Result<(), Failure> {
        let found = serde_json::to_value(found)?;
        let Some(expected) = self.read::<Map<String, Value>>(name)? else {
            return self.write(name, &found);
        };
        let other = expected
            .iter()
            .find(|(name, value)| found[name.as_str()] != **value);
        match other {
            Some((what, value)) => Err(format!(
                "{} was begun with another {what}: with {value}, and now it is {}; give what it was begun with, or another \
                 output folder or --name",
                self.folder.display(),
                found[what.as_str()]
            )
            .into()),
            None => Ok(()),
        }
    }
}

/// Tells a file, or all files of a folder, from others: the beginning of BLAKE3 over names and contents.
pub fn fingerprint(path: &Path) -> Result<String, Failure> {
    let mut hasher = blake3::Hasher::new();
    add(path, &mut hasher).map_err(Error::io(path))?;
    Ok(hasher.finalize().to_hex()[..16].to_owned())
}

fn add(path: &Path, hasher: &mut blake3::Hasher) -> io::Result<()> {
    if !path.is_dir() {
        hasher.update_mmap_rayon(path)?;
        return Ok(());
    }
    let entries = fs::read_dir(path)?.map(|entry| Ok(entry?.path()));
    let mut entries = entries.collect::<io::Result<Vec<PathBuf>>>()?;
    entries.sort();
    for entry in entries {
        let name = entry.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') {
            continue;
        }
        let mut inner = blake3::Hasher::new();
        add(&entry, &mut inner)?;
        hasher.update(&(name.len() as u64).to_le_bytes());
        hasher.update(name.as_bytes());
        hasher.update(inner.finalize().as_bytes());
    }
    Ok(())
}

/// How much of `all` is done: on a terminal in one line, elsewhere a line for each tenth.
pub fn progress(what: &str, before: usize, done: usize, all: usize) {
    use io::IsTerminal;
    let mut terminal = io::stderr();
    if terminal.is_terminal() {
        let end = if done == all { "\n" } else { "" };
        let _ = write!(terminal, "\r{what} {done} of {all}{end}");
    } else if 10 * done / all.max(1) > 10 * before / all.max(1) {
        let _ = writeln!(terminal, "{what} {done} of {all}");
    }
}
