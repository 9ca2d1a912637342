//! The programs and container images that kprov puts on hosts: found, fetched, digested.

use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    process::Command,
};

use serde::Deserialize;
use thiserror::Error;

use crate::{
    bundle::PackageFile,
    digest::Digest,
    distribution::Architecture,
    inventory::{ArtifactSource, Inventory, MasterForm, PAUSE_IMAGE},
    skew::HYPERKUBE,
    state::{Blob, ImageState},
};

mod packed;

/// Where the archive of the pause image is, seen from kprov.
const PAUSE_ARCHIVE: &str = "images/pause-3.10.tar";
/// The largest manifest of an image archive: one line an image and layer.
const MANIFEST_LEN_MAX: u64 = 1 << 20;
/// As much of a program's file as tells its architecture.
const PROGRAM_HEADER_LEN: u64 = 20;
/// The largest configuration of an image.
const CONFIG_LEN_MAX: u64 = 8 << 20;

/// What is put on hosts, known by digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifacts {
    /// The multi-call program of all components.
    pub hyperkube: Blob,
    /// The etcd server.
    pub etcd: Blob,
    /// The image of `hyperkube` for masters that are pods; `None` where there are none.
    pub hyperkube_image: Option<ImageState>,
    /// Container images that every node loads, sorted by name.
    pub images: Vec<ImageState>,
    /// Packages as files, from a bundle.
    pub packages: Vec<PackageFile>,
    /// Texts of the keys that sign repositories of packages, by file.
    pub repository_keys: BTreeMap<PathBuf, String>,
}

impl Artifacts {
    /// The same, with the bytes of `kept` in the place of a program's.
    #[must_use]
    pub fn with_program(mut self, name: &str, kept: Blob) -> Self {
        match name {
            HYPERKUBE => self.hyperkube = kept,
            _ => self.etcd = kept,
        }
        self
    }
}

/// Why one artifact cannot be had.
#[derive(Debug, Error)]
pub enum ArtifactError {
    /// There is no such file.
    #[error("{what}: there is no file {}{hint}", path.display())]
    Missing {
        /// Which artifact.
        what: String,
        /// Where it should be.
        path: PathBuf,
        /// How to get it.
        hint: String,
    },
    /// The file cannot be read.
    #[error("{what}: cannot read {}: {source}", path.display())]
    Read {
        /// Which artifact.
        what: String,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The cache cannot be written.
    #[error("{what}: cannot write {}: {source}", path.display())]
    Write {
        /// Which artifact.
        what: String,
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The download failed.
    #[error("{what}: cannot fetch {url}: {output}")]
    Fetch {
        /// Which artifact.
        what: String,
        /// From where.
        url: String,
        /// What the program said that fetches.
        output: String,
    },
    /// What was fetched is not what the inventory says.
    #[error("{what}: {url} has the SHA-256 {found}, the inventory says {wanted}")]
    Digest {
        /// Which artifact.
        what: String,
        /// From where.
        url: String,
        /// What came.
        found: Digest,
        /// What should have come.
        wanted: Digest,
    },
    /// The program cannot be the only file of an image.
    #[error(
        "hyperkube: {} is linked dynamically, and masters that are pods run it in an image of its \
         own; `make build` links it statically",
        path.display()
    )]
    Dynamic {
        /// The program.
        path: PathBuf,
    },
    /// The file is no archive of container images.
    #[error("{what}: {} is no image archive (`docker save` writes one): {reason}", path.display())]
    Image {
        /// Which artifact.
        what: String,
        /// The file.
        path: PathBuf,
        /// What is missing or malformed.
        reason: String,
    },
}

/// All artifacts that cannot be had, and why.
#[derive(Debug)]
pub struct ArtifactErrors(pub Vec<ArtifactError>);

impl fmt::Display for ArtifactErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ArtifactErrors {}

/// Finds and digests all that `inventory` puts on hosts.
///
/// `beside` is the directory of the running program, `cache` the one for what is fetched.
///
/// # Errors
/// All artifacts that are missing or unreadable, at once.
pub fn resolve(
    inventory: &Inventory,
    beside: &Path,
    cache: &Path,
) -> Result<Artifacts, ArtifactErrors> {
    let mut errors = Vec::new();
    let mut keep = |result: Result<Blob, ArtifactError>| result.map_err(|e| errors.push(e)).ok();
    let hyperkube = keep(program("hyperkube", &inventory.hyperkube, beside, cache));
    let etcd = keep(program("etcd", &inventory.etcd, beside, cache));
    let image = match &hyperkube {
        Some(program) if inventory.cluster.masters == MasterForm::StaticPods => {
            packed::image(program, cache).map_err(|error| errors.push(error)).ok()
        }
        _ => None,
    };
    let mut loaded = Vec::new();
    for path in &inventory.cluster.images {
        match images(path) {
            Ok(found) => loaded.extend(found),
            Err(error) => errors.push(error),
        }
    }
    let named = loaded.iter().any(|image| image.reference == PAUSE_IMAGE);
    if inventory.cluster.pause_image == PAUSE_IMAGE && !named {
        match own_pause(beside) {
            Ok(found) => loaded.extend(found),
            Err(error) => errors.push(error),
        }
    }
    let mut repository_keys = BTreeMap::new();
    let repositories = inventory.hosts.iter().filter_map(|h| h.system.docker.repository.as_ref());
    for path in repositories.filter_map(|repository| repository.key.as_ref()) {
        if repository_keys.contains_key(path) {
            continue;
        }
        match fs::read_to_string(path) {
            Ok(text) => _ = repository_keys.insert(path.clone(), text),
            Err(source) => {
                let (what, path) = ("repository key".to_owned(), path.clone());
                errors.push(ArtifactError::Read { what, path, source });
            }
        }
    }
    loaded.sort_by(|a, b| a.reference.cmp(&b.reference));
    loaded.dedup();
    match (hyperkube, etcd) {
        (Some(hyperkube), Some(etcd)) if errors.is_empty() => Ok(Artifacts {
            hyperkube,
            etcd,
            hyperkube_image: image,
            images: loaded,
            packages: Vec::new(),
            repository_keys,
        }),
        _ => Err(ArtifactErrors(errors)),
    }
}

fn program(
    what: &str,
    source: &ArtifactSource,
    beside: &Path,
    cache: &Path,
) -> Result<Blob, ArtifactError> {
    match source {
        ArtifactSource::File { path, package } => {
            let hint = match package {
                Some(package) => format!("; the package {package} brings it"),
                None => String::new(),
            };
            blob(what, path, &hint)
        }
        ArtifactSource::Beside(name) => {
            let hint = format!("; put it beside kprov, or set `artifacts.{what}` in the inventory");
            blob(what, &beside.join(name), &hint)
        }
        ArtifactSource::Url { url, sha256 } => fetched(what, url, *sha256, cache),
    }
}

fn blob(what: &str, path: &Path, hint: &str) -> Result<Blob, ArtifactError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => ArtifactError::Missing {
            what: what.to_owned(),
            path: path.to_owned(),
            hint: hint.to_owned(),
        },
        _ => ArtifactError::Read { what: what.to_owned(), path: path.to_owned(), source },
    };
    let mut file = File::open(path).map_err(failed)?;
    let mut header = Vec::new();
    (&mut file).take(PROGRAM_HEADER_LEN).read_to_end(&mut header).map_err(failed)?;
    let architecture = Architecture::of_program(&header);
    let mut reader = NoteFinder::new(header.as_slice().chain(file));
    let (sha256, len) = Digest::of_reader(&mut reader).map_err(failed)?;
    // An archive of images may well hold one of our programs.
    let version = architecture.and(reader.version);
    Ok(Blob { sha256, len, source: path.to_owned(), architecture, version })
}

/// What stands before the version within a program of ours; it ends with a line's end.
const VERSION_NOTE: &[u8] = b"\x01kprov-program-version=";
/// The longest note, with its version.
const NOTE_LEN_MAX: usize = 128;

/// Passes bytes on and keeps the version that a program says it is. It is read, not run: the
/// program may be for another processor than the operator's.
struct NoteFinder<R> {
    inner: R,
    /// The end of what was passed on, which a note may begin in.
    tail: Vec<u8>,
    version: Option<String>,
}

impl<R: Read> NoteFinder<R> {
    fn new(inner: R) -> Self {
        Self { inner, tail: Vec::new(), version: None }
    }

    fn look(&mut self, bytes: &[u8]) {
        if self.version.is_some() {
            return;
        }
        self.tail.extend_from_slice(bytes);
        let mut starts = self.tail.iter().zip(0..).filter(|(byte, _)| **byte == VERSION_NOTE[0]);
        self.version = starts.find_map(|(_, at)| noted(self.tail.get(at..)?));
        let done = self.tail.len().saturating_sub(NOTE_LEN_MAX);
        self.tail.drain(..done);
    }
}

/// The version of a note that `bytes` begin with, as a whole.
fn noted(bytes: &[u8]) -> Option<String> {
    let text = bytes.strip_prefix(VERSION_NOTE)?;
    let text = &text[..text.len().min(NOTE_LEN_MAX - VERSION_NOTE.len())];
    let end = text.iter().position(|byte| *byte == b'\n')?;
    let version = std::str::from_utf8(&text[..end]).ok()?;
    version.bytes().all(|byte| byte.is_ascii_graphic()).then(|| version.to_owned())
}

impl<R: Read> Read for NoteFinder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.look(&buffer[..count]);
        Ok(count)
    }
}

/// Fetches into the cache unless it is there. The name in the cache is the digest, and a file
/// gets its name only when its digest was checked.
fn fetched(what: &str, url: &str, wanted: Digest, cache: &Path) -> Result<Blob, ArtifactError> {
    let path = cache.join(wanted.to_string());
    if let Ok(blob) = blob(what, &path, "")
        && blob.sha256 == wanted
    {
        return Ok(blob);
    }
    let failed =
        |source| ArtifactError::Write { what: what.to_owned(), path: cache.to_owned(), source };
    fs::create_dir_all(cache).map_err(failed)?;
    let partial = tempfile::NamedTempFile::new_in(cache).map_err(failed)?;
    download(what, url, partial.path())?;
    let found = blob(what, partial.path(), "")?;
    if found.sha256 != wanted {
        let (what, url) = (what.to_owned(), url.to_owned());
        return Err(ArtifactError::Digest { what, url, found: found.sha256, wanted });
    }
    partial.persist(&path).map_err(|error| failed(error.error))?;
    Ok(Blob { source: path, ..found })
}

/// Every Linux and macOS has curl, and it knows the operator's proxies and authorities.
fn download(what: &str, url: &str, to: &Path) -> Result<(), ArtifactError> {
    let output = Command::new("curl")
        .args(["--fail", "--silent", "--show-error", "--location", "--proto", "=https"])
        .args(["--connect-timeout", "20", "--max-time", "1800", "--retry", "3", "--output"])
        .arg(to)
        .arg(url)
        .output();
    let said = match output {
        Ok(output) if output.status.success() => return Ok(()),
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => format!("cannot run curl: {error}"),
    };
    Err(ArtifactError::Fetch { what: what.to_owned(), url: url.to_owned(), output: said })
}

/// One image of an archive's `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ManifestEntry {
    config: String,
    repo_tags: Option<Vec<String>>,
}

/// The pause image beside kprov: no pod starts without it, and it cannot be pulled.
fn own_pause(beside: &Path) -> Result<Vec<ImageState>, ArtifactError> {
    images(&beside.join(PAUSE_ARCHIVE)).map_err(|error| match error {
        ArtifactError::Missing { path, .. } => ArtifactError::Missing {
            what: "the pause image".to_owned(),
            path,
            hint: "; put it beside kprov, or name an archive that holds it in `cluster.images`"
                .to_owned(),
        },
        other => other,
    })
}

/// Reads the images of an archive: each of its names with its id.
fn images(path: &Path) -> Result<Vec<ImageState>, ArtifactError> {
    let what = "image".to_owned();
    let archive = blob(&what, path, "; `images` in the inventory names it")?;
    let malformed =
        |reason: String| ArtifactError::Image { what: what.clone(), path: path.to_owned(), reason };
    let manifest = member(path, "manifest.json", MANIFEST_LEN_MAX).map_err(malformed)?;
    let entries: Vec<ManifestEntry> =
        serde_json::from_slice(&manifest).map_err(|e| malformed(format!("manifest.json: {e}")))?;
    let mut found = Vec::new();
    for entry in entries {
        // An image's id is the digest of its configuration.
        let config = member(path, &entry.config, CONFIG_LEN_MAX).map_err(malformed)?;
        let id = format!("sha256:{}", Digest::of(&config));
        for reference in entry.repo_tags.unwrap_or_default() {
            found.push(ImageState { reference, id: id.clone(), archive: archive.clone() });
        }
    }
    if found.is_empty() {
        return Err(malformed("none of its images has a name".to_owned()));
    }
    Ok(found)
}

/// Reads the file `name` of a tar archive, of at most `len_max` bytes.
fn member(archive: &Path, name: &str, len_max: u64) -> Result<Vec<u8>, String> {
    let file = File::open(archive).map_err(|e| e.to_string())?;
    let mut tar = tar::Archive::new(file);
    for entry in tar.entries().map_err(|e| e.to_string())? {
        let mut entry = entry.map_err(|e| e.to_string())?;
        let matches = entry.path().is_ok_and(|p| p == Path::new(name));
        if !matches {
            continue;
        }
        if entry.size() > len_max {
            return Err(format!("{name} is larger than {len_max} bytes"));
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(|e| e.to_string())?;
        return Ok(bytes);
    }
    Err(format!("it has no {name}"))
}

#[cfg(test)]
mod tests;
