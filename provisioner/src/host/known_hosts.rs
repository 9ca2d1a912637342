//! The host keys of one cluster, in OpenSSH's known-hosts format.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::HostError;
use crate::host_key::HostKey;
use crate::inventory::HostKeyPolicy;

/// The known keys. Shared by all connections of a run.
#[derive(Debug)]
pub struct KnownHosts {
    file: PathBuf,
    entries: Mutex<Vec<Entry>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    names: Names,
    key: HostKey,
}

/// Whose key a line holds.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Names {
    /// In clear.
    Clear(Vec<String>),
    /// One name, hashed with a salt, as of `HashKnownHosts`.
    Hashed { salt: Vec<u8>, hash: Vec<u8> },
}

impl Names {
    fn contain(&self, name: &str) -> bool {
        match self {
            Self::Clear(names) => names.iter().any(|own| own == name),
            Self::Hashed { salt, hash } => {
                let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, salt);
                hmac::verify(&key, name.as_bytes(), hash).is_ok()
            }
        }
    }
}

impl KnownHosts {
    /// Reads `file`; one that does not exist knows nobody.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn open(file: &Path) -> Result<Self, HostError> {
        let text = match fs::read_to_string(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            result => {
                result.map_err(|source| HostError::KnownHosts { file: file.to_owned(), source })?
            }
        };
        let entries = Mutex::new(text.lines().filter_map(entry).collect());
        Ok(Self { file: file.to_owned(), entries })
    }

    /// The file that holds the keys.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The key algorithms known for a host: asking for these only keeps a server from showing
    /// another of its keys, which would look like a change.
    #[must_use]
    pub fn algorithms(&self, address: &str, port: u16) -> Vec<String> {
        let name = name(address, port);
        let entries = self.entries.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let known = entries.iter().filter(|entry| entry.names.contain(&name));
        known.filter_map(|entry| entry.key.algorithm().map(str::to_owned)).collect()
    }

    /// Decides whether `key`, as the server sent it, is that of the host.
    ///
    /// # Errors
    /// When it is another key than before, unknown under the strict policy, or cannot be kept.
    pub fn check(
        &self,
        address: &str,
        port: u16,
        key: &HostKey,
        policy: HostKeyPolicy,
    ) -> Result<(), HostError> {
        let name = name(address, port);
        let shown = key.fingerprint();
        let mut entries = self.entries.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let known: Vec<_> = entries.iter().filter(|entry| entry.names.contain(&name)).collect();
        if known.iter().any(|entry| entry.key == *key) {
            return Ok(());
        }
        if let Some(entry) = known.first() {
            let known = entry.key.fingerprint();
            let file = self.file.clone();
            return Err(HostError::HostKeyChanged { address: name, known, shown, file });
        }
        if policy == HostKeyPolicy::Strict {
            let file = self.file.clone();
            return Err(HostError::HostKeyUnknown { address: name, shown, file });
        }
        let line = format!("{name} {key}\n");
        self.append(&line)
            .map_err(|source| HostError::KnownHosts { file: self.file.clone(), source })?;
        tracing::info!(host = name, fingerprint = shown, "accepted a new host key");
        entries.push(Entry { names: Names::Clear(vec![name]), key: key.clone() });
        Ok(())
    }

    /// Forgets the keys of a host that is known to be another machine now; what else is in the file
    /// stays.
    ///
    /// # Errors
    /// When the file cannot be replaced.
    pub fn forget(&self, address: &str, port: u16) -> Result<(), HostError> {
        let name = name(address, port);
        let failed = |source| HostError::KnownHosts { file: self.file.clone(), source };
        let mut entries = self.entries.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let text = fs::read_to_string(&self.file).map_err(failed)?;
        let left: String = text.lines().filter_map(|line| without(line, &name)).collect();
        let directory = self.file.parent().unwrap_or(Path::new("."));
        let replace = || {
            let mut new = tempfile::NamedTempFile::new_in(directory)?;
            new.write_all(left.as_bytes())?;
            new.as_file().sync_all()?;
            new.persist(&self.file).map_err(|error| error.error)
        };
        replace().map_err(failed)?;
        *entries = left.lines().filter_map(entry).collect();
        Ok(())
    }

    fn append(&self, line: &str) -> io::Result<()> {
        if let Some(directory) = self.file.parent() {
            fs::create_dir_all(directory)?;
        }
        let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.file)?;
        file.write_all(line.as_bytes())?;
        file.sync_all()
    }
}

/// The name of a host in the file: OpenSSH puts brackets only with an unusual port.
fn name(address: &str, port: u16) -> String {
    if port == 22 { address.to_owned() } else { format!("[{address}]:{port}") }
}

/// One line; comments and markers are no entries of ours.
fn entry(line: &str) -> Option<Entry> {
    let (names, key) = line.trim().split_once(char::is_whitespace)?;
    if names.starts_with(['#', '@']) {
        return None;
    }
    let names = match names.strip_prefix("|1|") {
        Some(hashed) => {
            let (salt, hash) = hashed.split_once('|')?;
            let (salt, hash) = (STANDARD.decode(salt).ok()?, STANDARD.decode(hash).ok()?);
            Names::Hashed { salt, hash }
        }
        None => Names::Clear(names.split(',').map(str::to_owned).collect()),
    };
    Some(Entry { names, key: key.parse().ok()? })
}

/// A line of the file without one of its names, and with its end; `None` when no other is left.
fn without(line: &str, name: &str) -> Option<String> {
    let names = match entry(line) {
        Some(Entry { names, .. }) if names.contain(name) => names,
        _ => return Some(format!("{line}\n")),
    };
    let Names::Clear(names) = names else { return None };
    let left: Vec<_> = names.iter().map(String::as_str).filter(|n| *n != name).collect();
    let (_, rest) = line.trim_start().split_once(char::is_whitespace)?;
    (!left.is_empty()).then(|| format!("{} {rest}\n", left.join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(fill: u8) -> HostKey {
        let mut key = b"\0\0\0\x0bssh-ed25519".to_vec();
        key.extend([0, 0, 0, 32]);
        key.extend([fill; 32]);
        HostKey::of_wire(key)
    }

    #[test]
    fn a_new_key_is_kept_and_a_changed_one_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("lab/known_hosts");
        let known = KnownHosts::open(&file).unwrap();
        known.check("10.0.0.1", 22, &key(1), HostKeyPolicy::AcceptNew).unwrap();
        known.check("10.0.0.1", 2222, &key(2), HostKeyPolicy::AcceptNew).unwrap();

        let again = KnownHosts::open(&file).unwrap();
        again.check("10.0.0.1", 22, &key(1), HostKeyPolicy::Strict).unwrap();
        assert_eq!(again.algorithms("10.0.0.1", 2222), ["ssh-ed25519"]);
        let error = again.check("10.0.0.1", 22, &key(2), HostKeyPolicy::AcceptNew).unwrap_err();
        let text = format!("{error} {}", error.advice());
        assert!(text.contains(&key(1).fingerprint()), "{text}");
        assert!(text.contains(&key(2).fingerprint()), "{text}");
        assert!(text.contains("known_hosts"), "{text}");
        let error = again.check("10.0.0.9", 22, &key(1), HostKeyPolicy::Strict).unwrap_err();
        assert!(matches!(error, HostError::HostKeyUnknown { .. }));
    }

    #[test]
    fn the_key_of_another_machine_is_forgotten_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("known_hosts");
        let known = KnownHosts::open(&file).unwrap();
        known.check("10.0.0.1", 22, &key(1), HostKeyPolicy::AcceptNew).unwrap();
        known.check("10.0.0.2", 22, &key(2), HostKeyPolicy::AcceptNew).unwrap();
        let shared = format!("10.0.0.1,n3 {}\n", key(3));
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, format!("# kept\n{text}{shared}")).unwrap();

        let known = KnownHosts::open(&file).unwrap();
        known.forget("10.0.0.1", 22).unwrap();
        known.check("10.0.0.1", 22, &key(9), HostKeyPolicy::AcceptNew).unwrap();
        let again = KnownHosts::open(&file).unwrap();
        assert!(again.check("10.0.0.1", 22, &key(1), HostKeyPolicy::AcceptNew).is_err());
        again.check("10.0.0.2", 22, &key(2), HostKeyPolicy::Strict).unwrap();
        again.check("n3", 22, &key(3), HostKeyPolicy::Strict).unwrap();
        assert!(fs::read_to_string(&file).unwrap().starts_with("# kept\n"));
    }

    #[test]
    fn lines_of_other_kinds_are_skipped() {
        let key = key(1);
        let text = format!("# note\n@revoked x {key}\n|1|?|? {key}\nh1,h2 {key}\nh3 ssh-rsa A\n");
        let entries: Vec<_> = text.lines().filter_map(entry).collect();
        assert_eq!(entries.len(), 1);
        assert!(entries[0].names.contain("h2") && !entries[0].names.contain("h"));
    }

    #[test]
    fn hashed_names_are_those_of_ssh_keygen() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("known_hosts");
        fs::write(&file, format!("10.0.0.1 {}\n[10.0.0.1]:2222 {}\n", key(1), key(2))).unwrap();
        let hashed =
            std::process::Command::new("ssh-keygen").arg("-H").arg("-f").arg(&file).output();
        assert!(hashed.unwrap().status.success());
        assert!(!fs::read_to_string(&file).unwrap().contains("10.0.0.1"));
        let known = KnownHosts::open(&file).unwrap();
        known.check("10.0.0.1", 22, &key(1), HostKeyPolicy::Strict).unwrap();
        known.check("10.0.0.1", 2222, &key(2), HostKeyPolicy::Strict).unwrap();
        let error = known.check("10.0.0.1", 22, &key(2), HostKeyPolicy::AcceptNew).unwrap_err();
        assert!(matches!(error, HostError::HostKeyChanged { .. }), "{error}");
        known.forget("10.0.0.1", 22).unwrap();
        known.check("10.0.0.1", 22, &key(3), HostKeyPolicy::AcceptNew).unwrap();
        known.check("10.0.0.1", 2222, &key(2), HostKeyPolicy::Strict).unwrap();
    }
}
