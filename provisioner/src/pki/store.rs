//! The directory of keys: 0700, its files 0600, each replaced as a whole or not at all.

use std::{
    fs::{self, File, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use super::{
    PkiError,
    vault::{self, Cost, Header, Vault, VaultError},
};
use crate::secret::Secret;

/// Says how the secrets are sealed, where they are.
pub(super) const SEAL: &str = "seal.json";

/// The folder `pki` of a cluster's state directory.
pub(super) struct Store {
    dir: PathBuf,
    vault: Option<Vault>,
}

impl Store {
    /// Opens the folder within `state`, making both and closing them to others. With a passphrase,
    /// all secrets in it are sealed, also those that were not.
    pub(super) fn open(state: &Path, passphrase: Option<&Secret>) -> Result<Self, PkiError> {
        let dir = state.join("pki");
        let failed = |act| {
            let path = dir.clone();
            move |source| PkiError::File { act, path, source }
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(failed("make"))?;
        for closed in [state, &dir] {
            fs::set_permissions(closed, Permissions::from_mode(0o700)).map_err(failed("close"))?;
        }
        let mut store = Self { dir, vault: None };
        store.vault = store.unlock(passphrase)?;
        if store.vault.is_some() {
            store.seal_all()?;
        }
        Ok(store)
    }

    fn unlock(&self, passphrase: Option<&Secret>) -> Result<Option<Vault>, PkiError> {
        let path = self.path(SEAL);
        match (self.read(SEAL)?, passphrase) {
            (None, None) => Ok(None),
            (None, Some(passphrase)) => {
                let (vault, header) = Vault::create(passphrase, Cost::USUAL)?;
                let text = serde_json::to_string_pretty(&header)
                    .map_err(|source| PkiError::Pins { path, source })?;
                self.write(SEAL, &format!("{text}\n"))?;
                Ok(Some(vault))
            }
            (Some(_), None) => Err(VaultError::NoPassphrase { path: self.dir.clone() }.into()),
            (Some(text), Some(passphrase)) => {
                let header: Header = serde_json::from_str(&text)
                    .map_err(|source| PkiError::Pins { path, source })?;
                Ok(Some(Vault::open(&header, passphrase, &self.dir)?))
            }
        }
    }

    /// Seals what a version without a passphrase, or a run that died, has left in clear.
    fn seal_all(&self) -> Result<(), PkiError> {
        for name in self.secrets()? {
            let text = self.bytes(&name)?.unwrap_or_default();
            if !vault::is_sealed(&text) {
                self.write(&name, &text)?;
            }
        }
        Ok(())
    }

    /// Writes all secrets in clear again. The header goes last: until then the passphrase opens
    /// what is still sealed.
    pub(super) fn unseal_all(mut self) -> Result<usize, PkiError> {
        let secrets = self.secrets()?;
        for name in &secrets {
            let text = self.read(name)?.unwrap_or_default();
            let vault = self.vault.take();
            let written = self.write(name, &text);
            self.vault = vault;
            written?;
        }
        self.remove(SEAL)?;
        Ok(secrets.len())
    }

    fn secrets(&self) -> Result<Vec<String>, PkiError> {
        let failed = |source| PkiError::File { act: "list", path: self.dir.clone(), source };
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            names.extend(name.to_str().filter(|name| is_secret(name)).map(str::to_owned));
        }
        names.sort();
        Ok(names)
    }

    /// Whether the secrets are sealed.
    pub(super) fn is_sealed(&self) -> bool {
        self.vault.is_some()
    }

    /// Removes a file, for good once this returns; one that is not there is fine.
    pub(super) fn remove(&self, name: &str) -> Result<(), PkiError> {
        let path = self.path(name);
        let act = || match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => File::open(&self.dir)?.sync_all(),
        };
        act().map_err(|source| PkiError::File { act: "remove", path: path.clone(), source })
    }

    /// The file called `name`.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Reads a file and opens it where it is sealed; `None` when there is none.
    pub(super) fn read(&self, name: &str) -> Result<Option<String>, PkiError> {
        let text = self.bytes(name)?;
        let Some(text) = text.as_deref().filter(|text| vault::is_sealed(text)) else {
            return Ok(text);
        };
        let path = self.path(name);
        let Some(vault) = &self.vault else {
            return Err(VaultError::NoPassphrase { path }.into());
        };
        let reason = "it was sealed with another key, or under another name".to_owned();
        let plain = vault.unseal_text(name, text);
        plain.map(Some).ok_or_else(|| VaultError::Damaged { path, reason }.into())
    }

    fn bytes(&self, name: &str) -> Result<Option<String>, PkiError> {
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
        let sealed = match &self.vault {
            Some(vault) if is_secret(name) => Some(vault.seal_text(name, text)?),
            _ => None,
        };
        let text = sealed.as_deref().unwrap_or(text);
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

/// Keys and tokens; certificates, requests and public keys are for everybody.
fn is_secret(name: &str) -> bool {
    name == super::token::TOKEN_FILE || name.rsplit_once('.').is_some_and(|(_, end)| end == "key")
}
