//! The files of a folder that are read, and those that are not.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    file::{DocumentFile, slashed},
    skipped::{SkipReason, Skipped},
};
use crate::error::Result;

/// The files found under a path, in the order of names.
#[derive(Default)]
pub(super) struct Found {
    pub(super) files: Vec<DocumentFile>,
    pub(super) skipped: Vec<Skipped>,
}

impl Found {
    /// The file, or the files of a folder and of the folders in it.
    pub(super) fn under(root: &Path) -> Result<Self> {
        let mut found = Self::default();
        if !fs::metadata(root)
            .map_err(rag_core::Error::io(root))?
            .is_dir()
        {
            let relative = root.file_name().unwrap_or(root.as_os_str());
            found.take(root.to_owned(), relative.to_string_lossy().into_owned());
            return Ok(found);
        }
        let mut folders = vec![(root.to_owned(), String::new())];
        while let Some((folder, within)) = folders.pop() {
            for entry in fs::read_dir(&folder).map_err(rag_core::Error::io(&folder))? {
                let entry = entry.map_err(rag_core::Error::io(&folder))?;
                let path = entry.path();
                let name = entry.file_name().to_string_lossy().into_owned();
                let kind = entry.file_type().map_err(rag_core::Error::io(&path))?;
                if name.starts_with('.') {
                    continue;
                } else if kind.is_dir() {
                    folders.push((path, format!("{within}{name}/")));
                } else if kind.is_symlink() && path.is_dir() {
                    found.skip(&path, SkipReason::FolderLink);
                } else {
                    found.take(path, within.clone() + &name);
                }
            }
        }
        found.files.sort_by(|a, b| a.relative.cmp(&b.relative));
        Ok(found)
    }

    fn take(&mut self, path: PathBuf, relative: String) {
        match DocumentFile::of(&path, relative) {
            Some(file) => self.files.push(file),
            None => self.skip(&path, SkipReason::Unsupported),
        }
    }

    fn skip(&mut self, path: &Path, reason: SkipReason) {
        self.skipped.push(Skipped {
            file: slashed(path),
            reason,
        });
    }
}
