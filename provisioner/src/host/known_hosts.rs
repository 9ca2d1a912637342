//! The host keys of one cluster, in OpenSSH's known-hosts format.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use sha2::Digest as _;

use super::HostError;
use crate::inventory::HostKeyPolicy;

/// The known keys. Shared by all connections of a run.
#[derive(Debug)]
pub struct KnownHosts {
    file: PathBuf,
    entries: Mutex<Vec<Entry>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    names: Vec<String>,
    algorithm: String,
    key: Vec<u8>,
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
        let known = entries.iter().filter(|entry| entry.names.contains(&name));
        known.map(|entry| entry.algorithm.clone()).collect()
    }

    /// Decides whether `key`, as the server sent it, is that of the host.
    ///
    /// # Errors
    /// When it is another key than before, unknown under the strict policy, or cannot be kept.
    pub fn check(
        &self,
        address: &str,
        port: u16,
        key: &[u8],
        policy: HostKeyPolicy,
    ) -> Result<(), HostError> {
        let name = name(address, port);
        let shown = fingerprint(key);
        let algorithm = algorithm(key).unwrap_or_default();
        let mut entries = self.entries.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let known: Vec<_> = entries.iter().filter(|entry| entry.names.contains(&name)).collect();
        if known.iter().any(|entry| entry.key == key) {
            return Ok(());
        }
        if let Some(entry) = known.first() {
            let known = fingerprint(&entry.key);
            let file = self.file.clone();
            return Err(HostError::HostKeyChanged { address: name, known, shown, file });
        }
        if policy == HostKeyPolicy::Strict {
            let file = self.file.clone();
            return Err(HostError::HostKeyUnknown { address: name, shown, file });
        }
        let line = format!("{name} {algorithm} {}\n", STANDARD.encode(key));
        self.append(&line)
            .map_err(|source| HostError::KnownHosts { file: self.file.clone(), source })?;
        tracing::info!(host = name, fingerprint = shown, "accepted a new host key");
        entries.push(Entry { names: vec![name], algorithm, key: key.to_vec() });
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

/// A key's fingerprint as `ssh-keygen -l` prints it.
#[must_use]
pub fn fingerprint(key: &[u8]) -> String {
    format!("SHA256:{}", STANDARD_NO_PAD.encode(sha2::Sha256::digest(key)))
}

/// The name of a host in the file: OpenSSH puts brackets only with an unusual port.
fn name(address: &str, port: u16) -> String {
    if port == 22 { address.to_owned() } else { format!("[{address}]:{port}") }
}

/// A key begins with its algorithm's name as a length-prefixed text (RFC 4253, 6.6).
fn algorithm(key: &[u8]) -> Option<String> {
    let (len, rest) = key.split_first_chunk::<4>()?;
    let len = usize::try_from(u32::from_be_bytes(*len)).ok()?;
    String::from_utf8(rest.get(..len)?.to_vec()).ok()
}

/// One line; comments, markers and hashed names are no entries of ours.
fn entry(line: &str) -> Option<Entry> {
    let mut fields = line.split_whitespace();
    let names = fields.next().filter(|field| !field.starts_with(['#', '@', '|']))?;
    let algorithm = fields.next()?.to_owned();
    let key = STANDARD.decode(fields.next()?).ok()?;
    Some(Entry { names: names.split(',').map(str::to_owned).collect(), algorithm, key })
}

/// A line of the file without one of its names, and with its end; `None` when no other is left.
fn without(line: &str, name: &str) -> Option<String> {
    let names = match entry(line) {
        Some(entry) if entry.names.iter().any(|n| n == name) => entry.names,
        _ => return Some(format!("{line}\n")),
    };
    let left: Vec<_> = names.iter().map(String::as_str).filter(|n| *n != name).collect();
    let (_, rest) = line.trim_start().split_once(char::is_whitespace)?;
    (!left.is_empty()).then(|| format!("{} {rest}\n", left.join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(fill: u8) -> Vec<u8> {
        let mut key = b"\0\0\0\x0bssh-ed25519".to_vec();
        key.extend([0, 0, 0, 32]);
        key.extend([fill; 32]);
        key
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
        assert!(text.contains(&fingerprint(&key(1))), "{text}");
        assert!(text.contains(&fingerprint(&key(2))), "{text}");
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
        let shared = format!("10.0.0.1,n3 ssh-ed25519 {}\n", STANDARD.encode(key(3)));
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
        let text = "# note\n@revoked x ssh-ed25519 AAAA\n|1|a|b ssh-rsa AAAA\nh1,h2 ssh-rsa AAAA\n";
        let entries: Vec<_> = text.lines().filter_map(entry).collect();
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].names, ["h1", "h2"]);
    }
}
