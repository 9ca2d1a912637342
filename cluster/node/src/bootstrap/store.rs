//! Certificates on disk: `NAME-TIME.pem` with certificate and key, `NAME-current.pem` a link to
//! the latest.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::BootstrapError;

/// One kind of certificate of the node.
pub(super) struct CertificateStore {
    directory: PathBuf,
    name: &'static str,
}

/// When a certificate counts, seconds since the epoch.
pub(super) struct Validity {
    not_before: i64,
    not_after: i64,
    /// Spreads renewals over time: each certificate has another.
    jitter: u8,
}

impl Validity {
    /// Days until it ends; negative when it did.
    pub(super) fn days_left(&self) -> f64 {
        let left = i32::try_from(self.not_after - now()).unwrap_or(i32::MAX);
        f64::from(left) / 86_400.0
    }

    /// Whether 70 to 90 % of its life are over.
    pub(super) fn due(&self) -> bool {
        let life = self.not_after.saturating_sub(self.not_before);
        let part = 70 + i64::from(self.jitter) * 20 / 255;
        now() >= self.not_before.saturating_add(life / 100 * part)
    }
}

fn now() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX)
}

impl CertificateStore {
    pub(super) fn new(directory: &Path, name: &'static str) -> Self {
        Self { directory: directory.to_owned(), name }
    }

    pub(super) fn current_path(&self) -> PathBuf {
        self.directory.join(format!("{}-current.pem", self.name))
    }

    /// The certificate in use.
    pub(super) fn current(&self) -> Option<Validity> {
        let pem = fs::read(self.current_path()).ok()?;
        let der = CertificateDer::from_pem_slice(&pem).ok()?;
        let (_, cert) = x509_parser::parse_x509_certificate(&der).ok()?;
        Some(Validity {
            not_before: cert.validity().not_before.timestamp(),
            not_after: cert.validity().not_after.timestamp(),
            jitter: cert.raw_serial().last().copied().unwrap_or(0),
        })
    }

    /// The key of the next request; kept so that an interrupted request goes on.
    pub(super) fn next_key(&self) -> Result<KeyPair, BootstrapError> {
        let path = self.directory.join(format!("{}.key.tmp", self.name));
        if let Ok(text) = fs::read_to_string(&path)
            && let Ok(key) = KeyPair::from_pem(&text)
        {
            return Ok(key);
        }
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        write_atomically(&path, key.serialize_pem().as_bytes())?;
        Ok(key)
    }

    /// The next request needs another key.
    pub(super) fn drop_key(&self) {
        let _ = fs::remove_file(self.directory.join(format!("{}.key.tmp", self.name)));
    }

    /// Keeps a certificate and makes it the current one.
    pub(super) fn put(&self, chain: &str, key: &str) -> Result<(), BootstrapError> {
        let stamp = jiff::Timestamp::from_second(now()).unwrap_or_default();
        let stamp = stamp.strftime("%Y-%m-%d-%H-%M-%S");
        let file = format!("{}-{stamp}.pem", self.name);
        let old = fs::read_link(self.current_path()).ok();
        write_atomically(&self.directory.join(&file), format!("{chain}{key}").as_bytes())?;
        let turning = self.directory.join(format!(".{}-current.tmp", self.name));
        let _ = fs::remove_file(&turning);
        let fail = |what: &'static str, path: &Path, source| BootstrapError::File {
            what,
            path: path.to_owned(),
            source,
        };
        symlink(&file, &turning).map_err(|e| fail("link", &turning, e))?;
        let current = self.current_path();
        fs::rename(&turning, &current).map_err(|e| fail("rename", &current, e))?;
        if let Some(old) = old.filter(|o| *o != Path::new(&file)) {
            let _ = fs::remove_file(self.directory.join(old));
        }
        self.drop_key();
        Ok(())
    }
}

/// Writes a secret file so that it is whole or not there.
pub(super) fn write_atomically(path: &Path, content: &[u8]) -> Result<(), BootstrapError> {
    let fail = |source| BootstrapError::File { what: "write", path: path.to_owned(), source };
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    fs::create_dir_all(folder).map_err(fail)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let fresh = folder.join(format!(".{name}.tmp"));
    let write = || {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    };
    write().map_err(fail)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_current_certificate_is_turned_over() {
        let dir = tempfile::tempdir().unwrap();
        let store = CertificateStore::new(dir.path(), "kubelet-client");
        assert!(store.current().is_none());
        let key = store.next_key().unwrap();
        assert_eq!(store.next_key().unwrap().serialize_pem(), key.serialize_pem());
        let mode = fs::metadata(dir.path().join("kubelet-client.key.tmp")).unwrap();
        assert_eq!(mode.permissions().mode() & 0o777, 0o600);
        let params = rcgen::CertificateParams::new(vec!["n".to_owned()]).unwrap();
        let cert = params.self_signed(&key).unwrap();
        store.put(&cert.pem(), &key.serialize_pem()).unwrap();
        let current = store.current().unwrap();
        assert!(current.days_left() > 300.0 && !dir.path().join("kubelet-client.key.tmp").exists());
    }

    #[test]
    fn renewal_is_due_late_in_life() {
        let at = |part: i64| Validity {
            not_before: now() - part,
            not_after: now() + 100 - part,
            jitter: 128,
        };
        assert!(!at(60).due() && at(91).due());
    }
}
