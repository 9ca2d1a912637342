//! Packages of distributions, as files.

use std::fs::File;
use std::path::Path;

use serde::Serialize;

use super::BundleError;
use crate::digest::Digest;
use crate::distribution::{Architecture, PackageManager};
use crate::state::Blob;

/// Who installs a package file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PackageFormat {
    /// `dpkg`.
    Deb,
    /// `rpm`.
    Rpm,
}

impl PackageFormat {
    /// Whether `manager` installs such files.
    #[must_use]
    pub fn is_of(self, manager: PackageManager) -> bool {
        (self == Self::Deb) == (manager == PackageManager::Apt)
    }
}

/// A package as a file, known by its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PackageFile {
    /// The package's name.
    pub name: String,
    /// The file's name.
    pub file: String,
    /// Who installs it.
    pub format: PackageFormat,
    /// The distribution's word for the processors that it is for; `all` and `noarch` are for any.
    pub architecture: String,
    /// The bytes.
    pub blob: Blob,
}

impl PackageFile {
    /// The package at `path`.
    ///
    /// # Errors
    /// When it cannot be read, or is no package by its name.
    pub fn read(path: &Path) -> Result<Self, BundleError> {
        let failed = |source| BundleError::File { act: "read", path: path.to_owned(), source };
        let mut file = File::open(path).map_err(failed)?;
        let (sha256, len) = Digest::of_reader(&mut file).map_err(failed)?;
        let source = path.to_owned();
        let blob = Blob { sha256, len, source, architecture: None, version: None };
        Self::of(&super::file_name(path), blob)
            .map_err(|why| BundleError::Package { path: path.to_owned(), why })
    }

    /// The package whose file is called `file`.
    pub(super) fn of(file: &str, blob: Blob) -> Result<Self, &'static str> {
        // It becomes a path on hosts.
        let fit = |c: char| c.is_ascii_alphanumeric() || "-_.+~:%".contains(c);
        if file.starts_with(['.', '-']) || !file.chars().all(fit) {
            return Err("its name has characters that no package's has");
        }
        let (name, architecture, format) = if let Some(stem) = file.strip_suffix(".deb") {
            let mut parts = stem.split('_');
            match (parts.next(), parts.next(), parts.next(), parts.next()) {
                (Some(name), Some(_), Some(architecture), None) => {
                    (name, architecture, PackageFormat::Deb)
                }
                _ => return Err("it is not called NAME_VERSION_ARCH.deb"),
            }
        } else if let Some(stem) = file.strip_suffix(".rpm") {
            let usual = "it is not called NAME-VERSION-RELEASE.ARCH.rpm";
            let (stem, architecture) = stem.rsplit_once('.').ok_or(usual)?;
            let name = stem.rsplitn(3, '-').nth(2).ok_or(usual)?;
            (name, architecture, PackageFormat::Rpm)
        } else {
            return Err("its name ends with neither .deb nor .rpm");
        };
        let (name, architecture) = (name.to_owned(), architecture.to_owned());
        Ok(Self { name, file: file.to_owned(), format, architecture, blob })
    }

    /// Whether it can be installed where programs for `architecture` run.
    #[must_use]
    pub fn fits(&self, architecture: Architecture) -> bool {
        let own = match architecture {
            Architecture::X86_64 => ["x86_64", "amd64"],
            Architecture::Aarch64 => ["aarch64", "arm64"],
        };
        own.contains(&self.architecture.as_str())
            || matches!(self.architecture.as_str(), "all" | "noarch")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_known_by_the_names_of_their_files() {
        let check = |file: &str, expected: Result<(&str, &str), &str>| {
            let blob = Blob {
                sha256: Digest::of(b""),
                len: 0,
                source: file.into(),
                architecture: None,
                version: None,
            };
            let found = PackageFile::of(file, blob);
            let found = found.as_ref().map(|p| (p.name.as_str(), p.architecture.as_str()));
            assert_eq!(found.map_err(|why| *why), expected, "{file}");
        };
        check("docker.io_20.10.24+dfsg1-1_amd64.deb", Ok(("docker.io", "amd64")));
        check("docker-ce-3:26.1.0-1.el9.x86_64.rpm", Ok(("docker-ce", "x86_64")));
        check("container-selinux-2.229.0-1.el9.noarch.rpm", Ok(("container-selinux", "noarch")));
        check("a.deb", Err("it is not called NAME_VERSION_ARCH.deb"));
        check("a-1.x86_64.rpm", Err("it is not called NAME-VERSION-RELEASE.ARCH.rpm"));
        check("a.tar", Err("its name ends with neither .deb nor .rpm"));
        check("a b_1_all.deb", Err("its name has characters that no package's has"));
        check("../a_1_all.deb", Err("its name has characters that no package's has"));
    }
}
