//! The directory of keys: 0700, its files 0600, each replaced as a whole or not at all.

use std::{
    fs::{self, File, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use super::PkiError;

/// The folder `pki` of a cluster's state directory.
pub(super) struct Store {
    dir: PathBuf,
}

impl Store {
    /// Opens the folder within `state`, making both and closing them to others.
    pub(super) fn open(state: &Path) -> Result<Self, PkiError> {
        let dir = state.join("pki");
        let failed = |act| {
            let path = dir.clone();
            move |source| PkiError::File { act, path, source }
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(failed("make"))?;
        for closed in [state, &dir] {
            fs::set_permissions(closed, Permissions::from_mode(0o700)).map_err(failed("close"))?;
        }
        Ok(Self { dir })
    }

    /// The file called `name`.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Reads a file; `None` when there is none.
    pub(super) fn read(&self, name: &str) -> Result<Option<String>, PkiError> {
        let path = self.path(name);
        let failed = |source| PkiError::File { act: "read", path: path.clone(), source };
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        // A copy or a restored backup may have come with open permissions.
        let mode = fs::metadata(&path).map_err(failed)?.permissions().mode();
        if mode & 0o077 != 0 {
            fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(failed)?;
        }
        // Not text means damaged, which every reader notices by itself.
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Replaces a file for good: after a crash there is the old content or the new, never a part,
    /// and once this returns it is the new.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<(), PkiError> {
        self.replace(name, text, true)
    }

    /// Replaces a file that can be made again, without waiting for the disk: a large cluster has
    /// thousands, and what a power failure leaves of one is checked when it is read.
    pub(super) fn write_renewable(&self, name: &str, text: &str) -> Result<(), PkiError> {
        self.replace(name, text, false)
    }

    fn replace(&self, name: &str, text: &str, durable: bool) -> Result<(), PkiError> {
        let path = self.path(name);
        let act = || {
            // Temporary files are 0600 from the start.
            let mut file = tempfile::NamedTempFile::new_in(&self.dir)?;
            file.write_all(text.as_bytes())?;
            if durable {
                file.as_file().sync_all()?;
            }
            file.persist(&path).map_err(|error| error.error)?;
            if durable { File::open(&self.dir)?.sync_all() } else { Ok(()) }
        };
        act().map_err(|source| PkiError::File { act: "write", path: path.clone(), source })
    }
}
