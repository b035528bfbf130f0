//! Atomic replacement of files and folders: everything is written beside its target and renamed into its place, so that
//! a crash leaves the previous file or folder whole.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::error::{Error, Result};

/// The beginning of the names of temporary files and folders.
const TEMPORARY: &str = ".writing-";
/// The end of the names of temporary files, so that none is taken for one of somebody else's.
const PART: &str = ".burn-rag-part";
/// How long nobody has written to a temporary file that a killed process has left.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// Writes a file through `write`, then moves it into place. Temporary files in its folder that nobody has written to for a
/// day, since their process was killed, are removed.
///
/// # Errors
/// [`Error::Io`]; the previous file is untouched then.
pub fn write_file(
    path: impl AsRef<Path>,
    write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
) -> Result<()> {
    let path = path.as_ref();
    let folder = parent(path);
    fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
    remove_abandoned(&folder);
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY).suffix(PART);
    // Temporary files are private by default; what is kept has the usual permissions.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644));
    let temporary = builder.tempfile_in(&folder).map_err(Error::io(&folder))?;
    let mut buffered = BufWriter::new(temporary.as_file());
    write(&mut buffered)
        .and_then(|()| buffered.flush())
        .and_then(|()| temporary.as_file().sync_all())
        .map_err(Error::io(path))?;
    drop(buffered);
    temporary.persist(path).map_err(|error| Error::Io {
        path: path.to_owned(),
        source: error.error,
    })?;
    sync_folder(&folder)
}

/// Fills a new folder through `fill`, then puts it in the place of `path`.
///
/// Where a folder stands there already, Linux exchanges the two in one step; elsewhere it is set
/// aside for the instant between two renames. Temporary folders of an earlier process that was killed are removed.
///
/// # Errors
/// Those of `fill`, and [`Error::Io`]; the previous folder is untouched then.
pub fn replace_folder<E: From<Error>>(
    path: impl AsRef<Path>,
    fill: impl FnOnce(&Path) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let path = path.as_ref();
    let folder = parent(path);
    fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let prefix = format!("{TEMPORARY}{name}-");
    remove_leftovers(&folder, &prefix)?;
    let temporary = tempfile::Builder::new()
        .prefix(&prefix)
        .tempdir_in(&folder)
        .map_err(Error::io(&folder))?;
    fill(temporary.path())?;
    sync_tree(temporary.path())?;
    readable(temporary.path())?;
    if path.exists() {
        exchange(temporary.path(), path).map_err(Error::io(path))?;
    } else {
        fs::rename(temporary.path(), path).map_err(Error::io(path))?;
    }
    sync_folder(&folder)?;
    Ok(())
}

/// As far as it can: a file that stays does no harm.
fn remove_abandoned(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let is_abandoned = |metadata: fs::Metadata| {
            let age = metadata.modified().ok().and_then(|at| at.elapsed().ok());
            metadata.is_file() && age.is_some_and(|age| age > ABANDONED)
        };
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_temporary = name.starts_with(TEMPORARY) && name.ends_with(PART);
        if is_temporary && entry.metadata().is_ok_and(is_abandoned) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn remove_leftovers(folder: &Path, prefix: &str) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
        let entry = entry.map_err(Error::io(folder))?;
        let name = entry.file_name();
        let random = name.to_str().and_then(|name| name.strip_prefix(prefix));
        // Another target's name may begin like this one's, and go on after a dash.
        if random.is_some_and(|random| !random.contains('-')) {
            fs::remove_dir_all(entry.path()).map_err(Error::io(entry.path()))?;
        }
    }
    Ok(())
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(target_os = "linux")]
fn exchange(new: &Path, old: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, new, CWD, old, RenameFlags::EXCHANGE)?)
}

#[cfg(not(target_os = "linux"))]
fn exchange(new: &Path, old: &Path) -> io::Result<()> {
    let aside = new.with_extension("previous");
    fs::rename(old, &aside)?;
    fs::rename(new, old)?;
    fs::remove_dir_all(aside)
}

fn sync_tree(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        if path.is_dir() {
            sync_tree(&path)?;
        } else {
            File::open(&path)
                .and_then(|file| file.sync_all())
                .map_err(Error::io(&path))?;
        }
    }
    sync_folder(folder)
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder)
        .and_then(|file| file.sync_all())
        .map_err(Error::io(folder))
}

#[cfg(not(unix))]
fn sync_folder(_folder: &Path) -> Result<()> {
    Ok(())
}

#[cfg(unix)]
fn readable(folder: &Path) -> Result<()> {
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(folder, permissions).map_err(Error::io(folder))
}

#[cfg(not(unix))]
fn readable(_folder: &Path) -> Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_previous_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b.txt");
        write_file(&path, |file| file.write_all(b"first")).unwrap();
        let failed = write_file(&path, |file| {
            file.write_all(b"half")?;
            Err(io::Error::other("disk full"))
        });
        assert!(matches!(failed, Err(Error::Io { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "first");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_killed_process_was_writing_is_removed_when_it_is_old() {
        let folder = tempfile::tempdir().unwrap();
        let now = std::time::SystemTime::now();
        for (name, age) in [
            (".writing-old.burn-rag-part", 2 * ABANDONED),
            (".writing-new.burn-rag-part", ABANDONED / 2),
            (".writing-a-book", 2 * ABANDONED),
        ] {
            let file = File::create(folder.path().join(name)).unwrap();
            file.set_modified(now - age).unwrap();
        }
        write_file(folder.path().join("a"), |file| file.write_all(b"a")).unwrap();
        let names = fs::read_dir(folder.path()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        assert_eq!(
            names,
            [".writing-a-book", ".writing-new.burn-rag-part", "a"]
        );
    }

    #[test]
    fn a_folder_is_replaced_whole() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("model");
        let write = |name: &'static str| {
            move |folder: &Path| -> Result<()> { write_file(folder.join(name), |_| Ok(())) }
        };
        fs::create_dir(parent.path().join(".writing-model-killed")).unwrap();
        replace_folder(&path, write("first")).unwrap();
        replace_folder(&path, write("second")).unwrap();
        assert!(path.join("second").exists() && !path.join("first").exists());
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
    }
}
