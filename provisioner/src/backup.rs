//! Backups: everything that a cluster needs to be made again, in one sealed file.
//!
//! A line that says what it is, a line that says how to open it ([`Header`]), then pieces, each
//! with its length before it. A piece is sealed with its number and whether it is the last one, so that
//! none can be left out, moved or cut off unnoticed. Inside is a tar archive: a [`Manifest`], the
//! inventory, the state directory, and etcd's snapshot.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::pki::vault::{Cost, Header, Vault, VaultError};
use crate::run_log;
use crate::secret::Secret;

const MAGIC: &str = "KPROV BACKUP 1";
/// The second line of a backup that is not sealed.
const PLAIN: &str = "plain";
/// Bytes of a piece before it is sealed.
const PIECE: usize = 1 << 20;
/// Bytes that sealing adds to a piece.
const PIECE_MORE: usize = 64;
/// No line at the beginning is longer.
const LINE_BYTES_MAX: u64 = 4096;
/// The format of the manifest that this version writes; a newer one is refused.
const FORMAT: u32 = 1;
const MANIFEST: &str = "manifest.json";
const INVENTORY: &str = "inventory.toml";
const SNAPSHOT: &str = "etcd.snapshot";
const STATE: &str = "state";

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this format.
    pub format: u32,
    /// The cluster's name.
    pub cluster: String,
    /// When it was made.
    pub made: Timestamp,
    /// The version of kprov that made it.
    pub kprov: String,
    /// The member of etcd that gave the snapshot, and its revision; `None` without one.
    pub etcd: Option<(String, u64)>,
}

impl Manifest {
    /// That of a backup made now by this version.
    pub fn new(cluster: impl Into<String>, made: Timestamp, etcd: Option<(String, u64)>) -> Self {
        let kprov = env!("CARGO_PKG_VERSION").to_owned();
        Self { format: FORMAT, cluster: cluster.into(), made, kprov, etcd }
    }
}

/// Why a backup cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A file cannot be read or written.
    #[error("cannot {act} {}", path.display())]
    File {
        /// What was tried.
        act: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is something else.
    #[error("{} is no backup of kprov", path.display())]
    NoBackup {
        /// The file.
        path: PathBuf,
    },
    /// Something in it is not as it was written.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It cannot be opened or sealed.
    #[error(transparent)]
    Sealed(#[from] VaultError),
}

/// Writes a backup to `file`, which must not exist: for its owner alone, and whole or not at all.
///
/// # Errors
/// When something cannot be read or written. Nothing is left at `file` then.
pub fn write(
    file: &Path,
    passphrase: Option<&Secret>,
    manifest: &Manifest,
    inventory: &Path,
    state_dir: &Path,
    snapshot: Option<&mut File>,
) -> Result<(), BackupError> {
    let failed = |source| BackupError::File { act: "write", path: file.to_owned(), source };
    if file.exists() {
        return Err(failed(io::ErrorKind::AlreadyExists.into()));
    }
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    // Temporary files are 0600 from the start.
    let new =
        tempfile::NamedTempFile::new_in(directory.unwrap_or(Path::new("."))).map_err(failed)?;
    let mut out = BufWriter::new(new.as_file());
    let vault = match passphrase {
        Some(passphrase) => {
            let (vault, header) = Vault::create(passphrase, Cost::USUAL)?;
            let header = serde_json::to_string(&header).map_err(|e| failed(e.into()))?;
            writeln!(out, "{MAGIC}\n{header}").map_err(failed)?;
            Some(vault)
        }
        None => {
            writeln!(out, "{MAGIC}\n{PLAIN}").map_err(failed)?;
            None
        }
    };
    let pieces = Pieces { out: &mut out, vault: vault.as_ref(), buffer: Vec::new(), number: 0 };
    let mut tar = tar::Builder::new(pieces);
    let text = serde_json::to_vec_pretty(manifest).map_err(|error| failed(error.into()))?;
    append(&mut tar, MANIFEST, text.len() as u64, text.as_slice()).map_err(failed)?;
    append_file(&mut tar, INVENTORY, inventory)?;
    append_directory(&mut tar, STATE, state_dir)?;
    if let Some(snapshot) = snapshot {
        let len = snapshot.metadata().map_err(failed)?.len();
        io::Seek::rewind(snapshot).map_err(failed)?;
        append(&mut tar, SNAPSHOT, len, snapshot).map_err(failed)?;
    }
    tar.into_inner().and_then(Pieces::finish).map_err(failed)?;
    out.flush().map_err(failed)?;
    drop(out);
    new.as_file().sync_all().map_err(failed)?;
    new.persist_noclobber(file).map_err(|error| failed(error.error))?;
    Ok(())
}

fn append<W: Write>(
    tar: &mut tar::Builder<W>,
    name: &str,
    len: u64,
    bytes: impl Read,
) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(len);
    header.set_mode(0o600);
    header.set_cksum();
    tar.append_data(&mut header, name, bytes.take(len))
}

fn append_file<W: Write>(
    tar: &mut tar::Builder<W>,
    name: &str,
    path: &Path,
) -> Result<(), BackupError> {
    let failed = |source| BackupError::File { act: "read", path: path.to_owned(), source };
    let bytes = fs::read(path).map_err(failed)?;
    append(tar, name, bytes.len() as u64, bytes.as_slice()).map_err(failed)
}

fn append_directory<W: Write>(
    tar: &mut tar::Builder<W>,
    name: &str,
    path: &Path,
) -> Result<(), BackupError> {
    let failed = |source| BackupError::File { act: "read", path: path.to_owned(), source };
    let mut entries: Vec<_> = fs::read_dir(path).and_then(Iterator::collect).map_err(failed)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let kind = entry.file_type().map_err(failed)?;
        let Ok(own) = entry.file_name().into_string() else { continue };
        let name = format!("{name}/{own}");
        if kind.is_dir() && own == run_log::DIRECTORY {
            // What earlier runs said is long, and no part of the cluster.
            continue;
        }
        if kind.is_dir() {
            append_directory(tar, &name, &entry.path())?;
        } else if kind.is_file() {
            append_file(tar, &name, &entry.path())?;
        }
    }
    Ok(())
}

/// A backup that was opened and unpacked.
#[derive(Debug)]
pub struct Unpacked {
    /// What it holds.
    pub manifest: Manifest,
    /// The inventory.
    pub inventory: PathBuf,
    /// The state directory.
    pub state_dir: PathBuf,
    /// etcd's snapshot, if it holds one.
    pub snapshot: Option<PathBuf>,
}

/// Whether `file` is a backup that takes a passphrase to open.
///
/// # Errors
/// When it cannot be read or is something else.
pub fn is_sealed(file: &Path) -> Result<bool, BackupError> {
    open(file).map(|(_, header)| header.is_some())
}

/// Opens `file` and unpacks it into the directory `into`, for its owner alone.
///
/// # Errors
/// When it is no backup, is damaged, or the passphrase is not its own; what is in `into` then must
/// not be used.
pub fn unpack(
    file: &Path,
    passphrase: Option<&Secret>,
    into: &Path,
) -> Result<Unpacked, BackupError> {
    let (input, header) = open(file)?;
    let vault = match (header, passphrase) {
        (None, _) => None,
        (Some(_), None) => {
            return Err(VaultError::NoPassphrase { path: file.to_owned() }.into());
        }
        (Some(header), Some(passphrase)) => Some(Vault::open(&header, passphrase, file)?),
    };
    let damaged = |reason: String| BackupError::Damaged { path: file.to_owned(), reason };
    let joined = Joined { input, vault, piece: Vec::new(), at: 0, number: 0, ended: false };
    let mut tar = tar::Archive::new(joined);
    let entries = tar.entries().map_err(|error| damaged(error.to_string()))?;
    for entry in entries {
        let mut entry = entry.map_err(|error| damaged(error.to_string()))?;
        let name = entry.path().map_err(|error| damaged(error.to_string()))?.into_owned();
        if !is_plain(&name) || !entry.header().entry_type().is_file() {
            return Err(damaged(format!("it holds {}, which is no file", name.display())));
        }
        let path = into.join(&name);
        let failed = |source| BackupError::File { act: "write", path: path.clone(), source };
        if let Some(parent) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(failed)?;
        }
        let mut options = fs::OpenOptions::new();
        let new = options.write(true).create_new(true).mode(0o600).open(&path);
        io::copy(&mut entry, &mut new.map_err(failed)?)
            .map_err(|error| damaged(error.to_string()))?;
    }
    // Behind the archive's own end there must be the last piece.
    let mut rest = tar.into_inner();
    io::copy(&mut rest, &mut io::sink()).map_err(|error| damaged(error.to_string()))?;
    let manifest =
        fs::read(into.join(MANIFEST)).map_err(|_| damaged("it has no manifest".to_owned()))?;
    let manifest: Manifest =
        serde_json::from_slice(&manifest).map_err(|error| damaged(error.to_string()))?;
    if manifest.format > FORMAT {
        return Err(damaged("a newer kprov has made it".to_owned()));
    }
    let snapshot = Some(into.join(SNAPSHOT)).filter(|path| path.exists());
    let (inventory, state_dir) = (into.join(INVENTORY), into.join(STATE));
    Ok(Unpacked { manifest, inventory, state_dir, snapshot })
}

/// A path that stays where it is unpacked.
fn is_plain(path: &Path) -> bool {
    path.components().all(|component| matches!(component, Component::Normal(_)))
}

/// Reads the two lines at the beginning; no header where the backup is not sealed.
fn open(file: &Path) -> Result<(BufReader<File>, Option<Header>), BackupError> {
    let failed = |source| BackupError::File { act: "read", path: file.to_owned(), source };
    let no_backup = || BackupError::NoBackup { path: file.to_owned() };
    let mut input = BufReader::new(File::open(file).map_err(failed)?);
    let mut line = || {
        let mut line = Vec::new();
        Read::take(&mut input, LINE_BYTES_MAX).read_until(b'\n', &mut line).map_err(failed)?;
        String::from_utf8(line).map_err(|_| no_backup())
    };
    if line()?.trim_end() != MAGIC {
        return Err(no_backup());
    }
    let header = line()?;
    let header = match header.trim_end() {
        PLAIN => None,
        header => Some(serde_json::from_str(header).map_err(|_| no_backup())?),
    };
    Ok((input, header))
}

fn context(number: u64, is_last: bool) -> String {
    format!("piece {number}{}", if is_last { ", the last" } else { "" })
}

/// Cuts a stream into sealed pieces.
struct Pieces<'a, W> {
    out: W,
    vault: Option<&'a Vault>,
    buffer: Vec<u8>,
    number: u64,
}

impl<W: Write> Pieces<'_, W> {
    fn piece(&mut self, is_last: bool) -> io::Result<()> {
        let plain = std::mem::take(&mut self.buffer);
        let sealed = match self.vault {
            Some(vault) => vault.seal(&context(self.number, is_last), &plain),
            None => Ok(plain),
        };
        let sealed = sealed.map_err(io::Error::other)?;
        let len = u32::try_from(sealed.len()).map_err(io::Error::other)?;
        self.number += 1;
        self.out.write_all(&[u8::from(is_last)])?;
        self.out.write_all(&len.to_be_bytes())?;
        self.out.write_all(&sealed)
    }

    fn finish(mut self) -> io::Result<()> {
        self.piece(true)
    }
}

impl<W: Write> Write for Pieces<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(PIECE - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..count]);
        if self.buffer.len() == PIECE {
            self.piece(false)?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Puts the pieces together again.
struct Joined {
    input: BufReader<File>,
    vault: Option<Vault>,
    piece: Vec<u8>,
    at: usize,
    number: u64,
    ended: bool,
}

impl Joined {
    fn next_piece(&mut self) -> io::Result<()> {
        let invalid = |text: &str| io::Error::new(io::ErrorKind::InvalidData, text.to_owned());
        let mut head = [0; 5];
        self.input.read_exact(&mut head).map_err(|_| invalid("it is cut off"))?;
        let is_last = head[0] == 1;
        let len = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if len > PIECE + PIECE_MORE {
            return Err(invalid("a piece is too long"));
        }
        let mut sealed = vec![0; len];
        self.input.read_exact(&mut sealed).map_err(|_| invalid("it is cut off"))?;
        self.piece = match &self.vault {
            None => sealed,
            Some(vault) => vault
                .unseal(&context(self.number, is_last), &sealed)
                .ok_or_else(|| invalid("a piece of it was changed"))?,
        };
        self.at = 0;
        self.number += 1;
        self.ended = is_last;
        if is_last && !self.input.fill_buf()?.is_empty() {
            return Err(invalid("something follows its end"));
        }
        Ok(())
    }
}

impl Read for Joined {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            if self.ended {
                return Ok(0);
            }
            self.next_piece()?;
        }
        let count = buffer.len().min(self.piece.len() - self.at);
        buffer[..count].copy_from_slice(&self.piece[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    struct Made {
        dir: tempfile::TempDir,
        file: PathBuf,
    }

    /// A backup with a snapshot of more than two pieces.
    fn made(passphrase: Option<&Secret>) -> Made {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state-dir");
        fs::create_dir_all(state.join("pki")).unwrap();
        fs::write(state.join("pki/ca.key"), "KEY MATERIAL").unwrap();
        fs::write(state.join("known_hosts"), "hosts").unwrap();
        let inventory = dir.path().join("lab.toml");
        fs::write(&inventory, "[cluster]\n").unwrap();
        let mut snapshot = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..=250_u8).cycle().take(5 * PIECE / 2).collect();
        snapshot.write_all(&bytes).unwrap();
        let file = dir.path().join("lab.kbackup");
        let manifest = Manifest::new("lab", Timestamp::UNIX_EPOCH, Some(("n1".to_owned(), 7)));
        let snapshot = Some(&mut snapshot);
        write(&file, passphrase, &manifest, &inventory, &state, snapshot).unwrap();
        Made { dir, file }
    }

    #[test]
    fn everything_comes_back_and_nothing_can_be_read_without_the_passphrase() {
        let passphrase = Secret::new("correct horse");
        let made = made(Some(&passphrase));
        let bytes = fs::read(&made.file).unwrap();
        assert!(!bytes.windows(8).any(|window| window == b"MATERIAL"));
        assert_eq!(fs::metadata(&made.file).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(is_sealed(&made.file).unwrap());
        let into = made.dir.path().join("into");
        let back = unpack(&made.file, Some(&passphrase), &into).unwrap();
        assert_eq!(
            (back.manifest.cluster.as_str(), back.manifest.etcd),
            ("lab", Some(("n1".to_owned(), 7)))
        );
        assert_eq!(fs::read_to_string(back.inventory).unwrap(), "[cluster]\n");
        let key = back.state_dir.join("pki/ca.key");
        assert_eq!(fs::read_to_string(&key).unwrap(), "KEY MATERIAL");
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        let snapshot = fs::read(back.snapshot.unwrap()).unwrap();
        assert!(snapshot.iter().copied().eq((0..=250_u8).cycle().take(5 * PIECE / 2)));

        let wrong = unpack(&made.file, Some(&Secret::new("wrong")), &made.dir.path().join("w"));
        let said = wrong.unwrap_err().to_string();
        assert!(said.starts_with("this is not the passphrase of"), "{said}");
        let none = unpack(&made.file, None, &made.dir.path().join("n")).unwrap_err();
        assert!(matches!(none, BackupError::Sealed(VaultError::NoPassphrase { .. })), "{none}");
    }

    #[test]
    fn a_backup_that_was_cut_or_changed_is_refused() {
        let passphrase = Secret::new("p");
        let made = made(Some(&passphrase));
        let whole = fs::read(&made.file).unwrap();
        let try_with = |name: &str, bytes: &[u8]| {
            let file = made.dir.path().join(name);
            fs::write(&file, bytes).unwrap();
            let into = made.dir.path().join(format!("{name}-into"));
            unpack(&file, Some(&passphrase), &into).map(drop).unwrap_err().to_string()
        };
        let cut = try_with("cut", &whole[..whole.len() - 1]);
        assert!(cut.ends_with("is damaged: it is cut off"), "{cut}");
        let mut changed = whole.clone();
        let at = whole.len() / 2;
        changed[at] ^= 1;
        let changed = try_with("changed", &changed);
        assert!(changed.ends_with("a piece of it was changed"), "{changed}");
        let mut longer = whole.clone();
        longer.push(0);
        let longer = try_with("longer", &longer);
        assert!(longer.ends_with("something follows its end"), "{longer}");
        // Without its last piece: its first two are whole, but none of them is the last.
        let heads = whole.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(1).unwrap().0;
        let piece = 5 + PIECE + 28;
        let two = try_with("two", &whole[..heads + 1 + 2 * piece]);
        assert!(two.ends_with("is damaged: it is cut off"), "{two}");
        assert!(try_with("other", b"hello\n").ends_with("is no backup of kprov"));
    }

    #[test]
    fn an_existing_file_is_not_overwritten_and_plain_ones_say_so() {
        let made = made(None);
        assert!(!is_sealed(&made.file).unwrap());
        let back = unpack(&made.file, None, &made.dir.path().join("into")).unwrap();
        assert_eq!(back.manifest.cluster, "lab");
        let manifest = Manifest::new("lab", Timestamp::UNIX_EPOCH, None);
        let (inventory, state) =
            (made.dir.path().join("lab.toml"), made.dir.path().join("state-dir"));
        let error = write(&made.file, None, &manifest, &inventory, &state, None).unwrap_err();
        assert!(matches!(error, BackupError::File { act: "write", .. }), "{error}");
        assert!(!is_plain(Path::new("../x")) && !is_plain(Path::new("/x")));
    }
}
