//! All that an apply puts on hosts, in one file: for networks without a way out.
//!
//! A bundle is a tar archive: its list of contents first, then the bytes of each, under their digest.
//! It is for one version of kprov and one architecture. [`open`] unpacks it into a cache and checks
//! every digest on the way; what it gives takes the place of the inventory's own sources.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::artifacts::Artifacts;
use crate::digest::Digest;
use crate::distribution::Architecture;
use crate::inventory::{ArtifactSource, Inventory};
use crate::state::Blob;

mod package;

pub use package::{PackageFile, PackageFormat};

/// The format that this version writes and reads.
const FORMAT: u32 = 1;
/// The list of contents, the first file of the archive.
const CONTENTS: &str = "kprov-bundle.json";
/// The folder of the bytes.
const BLOBS: &str = "blobs";
/// No list of contents is longer, in bytes.
const CONTENTS_BYTES_MAX: u64 = 8 << 20;
/// No bundle holds more files.
const ENTRIES_MAX: usize = 10_000;

/// What a bundle is for, and what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contents {
    /// [`FORMAT`].
    format: u32,
    /// The version of kprov that made it, and that it is for.
    pub version: String,
    /// The processors that its programs run on.
    pub architecture: Architecture,
    /// Its files.
    pub entries: Vec<Entry>,
}

/// One file of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What it is.
    pub kind: EntryKind,
    /// Its name: of a program, or the file's own.
    pub name: String,
    /// Digest of the bytes.
    pub sha256: Digest,
    /// Length in bytes.
    pub len: u64,
}

/// What a file of a bundle is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// `hyperkube` or `etcd`.
    Program,
    /// An archive of container images.
    Image,
    /// A package of a distribution.
    Package,
}

impl EntryKind {
    /// The word for people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Program => "program",
            Self::Image => "image archive",
            Self::Package => "package",
        }
    }
}

/// Why a bundle cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
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
    /// It is no bundle, or not all of one.
    #[error("{} is no usable bundle: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Bytes are not what the list of contents says.
    #[error(
        "{}: the {} {name} has the SHA-256 {found}, and the bundle says {wanted}",
        path.display(),
        kind.as_str()
    )]
    Digest {
        /// The bundle.
        path: PathBuf,
        /// What the file is.
        kind: EntryKind,
        /// Its name.
        name: String,
        /// The digest of its bytes.
        found: Digest,
        /// What it should be.
        wanted: Digest,
    },
    /// It is for another kprov.
    #[error("{} is for kprov {version}, and this is kprov {own}", path.display())]
    Version {
        /// The bundle.
        path: PathBuf,
        /// The version that it is for.
        version: String,
        /// This version.
        own: &'static str,
    },
    /// A program or a package is for other processors.
    #[error("{name} is for {found}, and the bundle is to be for {wanted}")]
    Architecture {
        /// The file.
        name: String,
        /// What it is for.
        found: String,
        /// What the bundle is for.
        wanted: Architecture,
    },
    /// The file is no package, by its name.
    #[error("{} is no package: {why}", path.display())]
    Package {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: &'static str,
    },
}

impl BundleError {
    /// What the operator can do about it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::File { .. } => "check the path, and that the file can be read and written",
            Self::Damaged { .. } | Self::Digest { .. } => {
                "nothing was changed on any host; copy the bundle again, or make it anew with kprov \
                 bundle create"
            }
            Self::Version { .. } => "use that kprov, or make a bundle with this one",
            Self::Architecture { .. } => {
                "name programs and packages for one architecture, or another --arch"
            }
            Self::Package { .. } => {
                "packages are called NAME_VERSION_ARCH.deb or NAME-VERSION-RELEASE.ARCH.rpm"
            }
        }
    }
}

/// Writes a bundle of `artifacts` and `packages`, as a whole or not at all; for `architecture`, or
/// that of the programs.
///
/// # Errors
/// When a file cannot be read or written, or is for other processors.
pub fn create(
    path: &Path,
    artifacts: &Artifacts,
    packages: &[PathBuf],
    architecture: Option<Architecture>,
) -> Result<Contents, BundleError> {
    let programs = [("hyperkube", &artifacts.hyperkube), ("etcd", &artifacts.etcd)];
    let architecture = architecture
        .or_else(|| programs.iter().find_map(|(_, blob)| blob.architecture))
        .unwrap_or(Architecture::X86_64);
    for (name, blob) in programs {
        if let Some(other) = blob.architecture.filter(|other| *other != architecture) {
            let (name, found) = (name.to_owned(), other.to_string());
            return Err(BundleError::Architecture { name, found, wanted: architecture });
        }
    }
    let program = |(name, blob): (&str, &Blob)| {
        (entry(EntryKind::Program, name.to_owned(), blob), blob.source.clone())
    };
    let mut files: Vec<(Entry, PathBuf)> = programs.into_iter().map(program).collect();
    let mut seen = BTreeSet::new();
    for image in &artifacts.images {
        if seen.insert(image.archive.sha256) {
            let entry = entry(EntryKind::Image, file_name(&image.archive.source), &image.archive);
            files.push((entry, image.archive.source.clone()));
        }
    }
    for source in packages {
        let package = PackageFile::read(source)?;
        if !package.fits(architecture) {
            let (name, found) = (package.file.clone(), package.architecture);
            return Err(BundleError::Architecture { name, found, wanted: architecture });
        }
        files.push((entry(EntryKind::Package, package.file, &package.blob), source.clone()));
    }
    let contents = Contents {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        architecture,
        entries: files.iter().map(|(entry, _)| entry.clone()).collect(),
    };
    write(path, &contents, &files)?;
    Ok(contents)
}

fn entry(kind: EntryKind, name: String, blob: &Blob) -> Entry {
    Entry { kind, name, sha256: blob.sha256, len: blob.len }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn write(path: &Path, contents: &Contents, files: &[(Entry, PathBuf)]) -> Result<(), BundleError> {
    let failed = |source| BundleError::File { act: "write", path: path.to_owned(), source };
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let partial = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")));
    let mut tar = tar::Builder::new(partial.map_err(failed)?);
    let list = serde_json::to_vec_pretty(contents).expect("a list has only string keys");
    append(&mut tar, CONTENTS, list.len() as u64, list.as_slice()).map_err(failed)?;
    let mut seen = BTreeSet::new();
    for (entry, source) in files.iter().filter(|(entry, _)| seen.insert(entry.sha256)) {
        let unreadable =
            |error| BundleError::File { act: "read", path: source.clone(), source: error };
        let file = File::open(source).map_err(unreadable)?;
        let name = format!("{BLOBS}/{}", entry.sha256);
        append(&mut tar, &name, entry.len, file.take(entry.len)).map_err(failed)?;
    }
    let partial = tar.into_inner().map_err(failed)?;
    partial.as_file().sync_all().map_err(failed)?;
    partial.persist(path).map_err(|error| failed(error.error))?;
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
    header.set_mode(0o644);
    header.set_cksum();
    tar.append_data(&mut header, name, bytes)
}

/// A bundle whose bytes were found to be what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    contents: Contents,
    /// Where the bytes of each digest are now.
    files: BTreeMap<Digest, PathBuf>,
    /// The packages in it.
    pub packages: Vec<PackageFile>,
}

/// Unpacks the bundle at `path` into the folder `cache`, where files are named by their digests,
/// and checks all of it.
///
/// # Errors
/// When it is damaged, for another version, or any digest is another one.
pub fn open(path: &Path, cache: &Path) -> Result<Bundle, BundleError> {
    let read = |source| BundleError::File { act: "read", path: path.to_owned(), source };
    let damaged = |why: &str| BundleError::Damaged { path: path.to_owned(), why: why.to_owned() };
    let mut archive = tar::Archive::new(File::open(path).map_err(read)?);
    let mut entries = archive.entries().map_err(read)?;
    let first = entries.next().ok_or_else(|| damaged("it is empty"))?;
    let mut first = first.map_err(|error| damaged(&error.to_string()))?;
    if first.path().map_or(true, |name| name != Path::new(CONTENTS))
        || first.size() > CONTENTS_BYTES_MAX
    {
        return Err(damaged(&format!("it does not begin with {CONTENTS}")));
    }
    let mut list = Vec::new();
    first.read_to_end(&mut list).map_err(|error| damaged(&error.to_string()))?;
    let contents = contents(path, &list)?;
    let mut wanted: BTreeMap<Digest, &Entry> = BTreeMap::new();
    wanted.extend(contents.entries.iter().map(|entry| (entry.sha256, entry)));
    let mut files = BTreeMap::new();
    for member in entries {
        let mut member = member.map_err(|error| damaged(&error.to_string()))?;
        let name = member.path().map(|name| name.display().to_string()).unwrap_or_default();
        let digest = name.strip_prefix(BLOBS).and_then(|name| name.strip_prefix('/'));
        let entry = digest.and_then(|digest| wanted.get(&digest.parse().ok()?).copied());
        let Some(entry) = entry else {
            return Err(damaged(&format!("{name} is not in its list of contents")));
        };
        let place = unpack(path, entry, &mut member, cache)?;
        files.insert(entry.sha256, place);
    }
    if let Some(missing) = contents.entries.iter().find(|e| !files.contains_key(&e.sha256)) {
        return Err(damaged(&format!("the bytes of {} are missing", missing.name)));
    }
    let packages = contents.entries.iter().filter(|entry| entry.kind == EntryKind::Package);
    let packages = packages.map(|entry| {
        let blob = Blob {
            sha256: entry.sha256,
            len: entry.len,
            source: files[&entry.sha256].clone(),
            architecture: None,
            version: None,
        };
        PackageFile::of(&entry.name, blob)
            .map_err(|why| damaged(&format!("{} is no package: {why}", entry.name)))
    });
    let packages = packages.collect::<Result<_, _>>()?;
    Ok(Bundle { contents, files, packages })
}

fn contents(path: &Path, list: &[u8]) -> Result<Contents, BundleError> {
    #[derive(Deserialize)]
    struct Head {
        format: u32,
        version: String,
    }
    let damaged = |why: String| BundleError::Damaged { path: path.to_owned(), why };
    // The version first: another one may well have other fields.
    let head: Head = serde_json::from_slice(list).map_err(|error| damaged(error.to_string()))?;
    let own = env!("CARGO_PKG_VERSION");
    if (head.format, head.version.as_str()) != (FORMAT, own) {
        return Err(BundleError::Version { path: path.to_owned(), version: head.version, own });
    }
    let contents: Contents =
        serde_json::from_slice(list).map_err(|error| damaged(error.to_string()))?;
    if contents.entries.len() > ENTRIES_MAX {
        return Err(damaged("it holds too many files".to_owned()));
    }
    Ok(contents)
}

/// Puts the bytes of one entry into the cache, unless they are there. A file gets its name only when
/// its digest was checked.
fn unpack(
    bundle: &Path,
    entry: &Entry,
    bytes: &mut impl Read,
    cache: &Path,
) -> Result<PathBuf, BundleError> {
    let place = cache.join(entry.sha256.to_string());
    let failed = |source| BundleError::File { act: "write", path: place.clone(), source };
    fs::create_dir_all(cache).map_err(failed)?;
    let mut partial = tempfile::NamedTempFile::new_in(cache).map_err(failed)?;
    let mut copy = Copying { from: bytes.take(entry.len), to: partial.as_file_mut() };
    let (found, len) = Digest::of_reader(&mut copy).map_err(failed)?;
    if len != entry.len {
        let why = format!("it is cut within {}", entry.name);
        return Err(BundleError::Damaged { path: bundle.to_owned(), why });
    }
    if found != entry.sha256 {
        return Err(BundleError::Digest {
            path: bundle.to_owned(),
            kind: entry.kind,
            name: entry.name.clone(),
            found,
            wanted: entry.sha256,
        });
    }
    partial.persist(&place).map_err(|error| failed(error.error))?;
    Ok(place)
}

/// Writes down what is read.
struct Copying<'a, R> {
    from: R,
    to: &'a mut File,
}

impl<R: Read> Read for Copying<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        self.to.write_all(&buffer[..count])?;
        Ok(count)
    }
}

impl Bundle {
    /// The inventory with what is in the bundle in the place of its own programs and images.
    #[must_use]
    pub fn instead_of_sources(&self, inventory: &Inventory) -> Inventory {
        let mut inventory = inventory.clone();
        let entries = self.contents.entries.iter();
        let place = |entry: &Entry| self.files[&entry.sha256].clone();
        for entry in entries.clone().filter(|entry| entry.kind == EntryKind::Program) {
            let source = ArtifactSource::File { path: place(entry), package: None };
            match entry.name.as_str() {
                "hyperkube" => inventory.hyperkube = source,
                "etcd" => inventory.etcd = source,
                _ => {}
            }
        }
        let images = entries.filter(|entry| entry.kind == EntryKind::Image);
        inventory.cluster.images = images.map(place).collect();
        inventory
    }
}

#[cfg(test)]
mod tests;
