//! Which distribution a host runs, and so how packages are installed on it.
//!
//! The set is closed: what kprov does not know it refuses before anything changes.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::facts::OsRelease;

/// A distribution that kprov knows the ways of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Distribution {
    /// Which one, or which one it is like.
    pub kind: Kind,
    /// First number of its release; 0 on a rolling release, and where the numbers are those of a
    /// derived distribution.
    pub release: u16,
}

/// The distributions by their ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Debian and what is like it.
    Debian,
    /// Ubuntu and what is like it.
    Ubuntu,
    /// CentOS, CentOS Stream, Red Hat Enterprise Linux and its rebuilds.
    EnterpriseLinux,
    /// Fedora.
    Fedora,
    /// Amazon Linux.
    Amazon,
}

/// What a kind shares with others: formats of packages and places of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// `.deb` packages.
    Debian,
    /// `.rpm` packages.
    RedHat,
}

/// The program that installs packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PackageManager {
    /// `apt-get`.
    Apt,
    /// `dnf`.
    Dnf,
    /// `yum`, where there is no `dnf`.
    Yum,
}

impl PackageManager {
    /// The program's name.
    #[must_use]
    pub fn program(self) -> &'static str {
        match self {
            Self::Apt => "apt-get",
            Self::Dnf => "dnf",
            Self::Yum => "yum",
        }
    }

    /// The manager that `program` is, if it is one.
    #[must_use]
    pub fn of_program(program: &str) -> Option<Self> {
        [Self::Apt, Self::Dnf, Self::Yum].into_iter().find(|manager| manager.program() == program)
    }
}

impl fmt::Display for PackageManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.program())
    }
}

/// Why a host's distribution is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnsupportedDistribution {
    /// Neither its `ID` nor its `ID_LIKE` is known.
    #[error("{name} is not a distribution that kprov supports")]
    Unknown {
        /// What it calls itself.
        name: String,
    },
    /// It is known, and older than what kprov supports.
    #[error("{name} is too old: {oldest} is the oldest release that kprov supports")]
    TooOld {
        /// What it calls itself.
        name: String,
        /// The oldest release that will do.
        oldest: &'static str,
    },
}

/// What is supported, for messages.
pub const SUPPORTED: &str = "Debian from 9, Ubuntu from 16.04, CentOS and CentOS Stream from 7, \
                             Red Hat Enterprise Linux from 7 and its rebuilds, Fedora, Amazon \
                             Linux from 2, and distributions that name one of them in ID_LIKE";

impl Distribution {
    /// Tells the distribution by `/etc/os-release`.
    ///
    /// A derived distribution is taken for the first known word of its `ID_LIKE`.
    ///
    /// # Errors
    /// When it is unknown, or older than what is supported.
    pub fn of(os: &OsRelease) -> Result<Self, UnsupportedDistribution> {
        let name = || match [&os.pretty_name, &os.id].into_iter().find(|name| !name.is_empty()) {
            Some(name) => name.clone(),
            None => "the distribution".to_owned(),
        };
        let own = Kind::of(&os.id);
        let like = || os.id_like.split_whitespace().find_map(Kind::of);
        let Some(kind) = own.or_else(like) else {
            return Err(UnsupportedDistribution::Unknown { name: name() });
        };
        // Rebuilds of Enterprise Linux have its numbers; others that are like one have their own.
        let numbered = own.is_some() || kind == Kind::EnterpriseLinux;
        let release = match os.version_id.split('.').next().map(str::parse) {
            Some(Ok(release)) if numbered => release,
            _ => 0,
        };
        let (oldest, called) = kind.oldest();
        if release != 0 && release < oldest {
            return Err(UnsupportedDistribution::TooOld { name: name(), oldest: called });
        }
        Ok(Self { kind, release })
    }

    /// Formats of packages and places of files.
    #[must_use]
    pub fn family(self) -> Family {
        match self.kind {
            Kind::Debian | Kind::Ubuntu => Family::Debian,
            Kind::EnterpriseLinux | Kind::Fedora | Kind::Amazon => Family::RedHat,
        }
    }

    /// The program that installs packages, of those that the host has; `None` where the family's
    /// own is missing.
    #[must_use]
    pub fn manager(self, there: &BTreeSet<PackageManager>) -> Option<PackageManager> {
        let usable: &[PackageManager] = match self.family() {
            Family::Debian => &[PackageManager::Apt],
            // Where both are there, `yum` is another name of `dnf`.
            Family::RedHat => &[PackageManager::Dnf, PackageManager::Yum],
        };
        usable.iter().find(|manager| there.contains(manager)).copied()
    }

    /// The distribution's own packages of a Docker engine; none where it has none.
    #[must_use]
    pub fn engine_packages(self) -> &'static [&'static str] {
        match (self.kind, self.release) {
            (Kind::Debian | Kind::Ubuntu, _) => &["docker.io"],
            (Kind::EnterpriseLinux, 7) | (Kind::Amazon, _) => &["docker"],
            (Kind::Fedora, _) => &["moby-engine"],
            (Kind::EnterpriseLinux, _) => &[],
        }
    }

    /// The distribution's own packages of Open vSwitch; none where it has none.
    #[must_use]
    pub fn switch_packages(self) -> &'static [&'static str] {
        match self.kind {
            Kind::Debian | Kind::Ubuntu => &["openvswitch-switch"],
            Kind::Fedora => &["openvswitch"],
            // Others have it, in repositories of their own.
            Kind::EnterpriseLinux | Kind::Amazon => &[],
        }
    }
}

/// The packages of Docker's own repository.
pub const DOCKER_CE: [&str; 3] = ["containerd.io", "docker-ce", "docker-ce-cli"];

impl Kind {
    fn of(id: &str) -> Option<Self> {
        match id {
            "debian" => Some(Self::Debian),
            "ubuntu" => Some(Self::Ubuntu),
            "centos" | "rhel" | "rocky" | "almalinux" | "ol" | "scientific" | "eurolinux"
            | "virtuozzo" => Some(Self::EnterpriseLinux),
            "fedora" => Some(Self::Fedora),
            "amzn" => Some(Self::Amazon),
            _ => None,
        }
    }

    /// The oldest first number of a release that has a systemd with timers, and its name.
    fn oldest(self) -> (u16, &'static str) {
        match self {
            Self::Debian => (9, "Debian 9"),
            Self::Ubuntu => (16, "Ubuntu 16.04"),
            Self::EnterpriseLinux => (7, "release 7"),
            Self::Fedora => (28, "Fedora 28"),
            Self::Amazon => (2, "Amazon Linux 2"),
        }
    }
}

/// A processor architecture that Kubernetes components are built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Architecture {
    /// 64-bit x86.
    X86_64,
    /// 64-bit ARM.
    Aarch64,
}

impl Architecture {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::X86_64, Self::Aarch64];

    /// The name that `uname -m` prints.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// The architecture of this name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|architecture| architecture.name() == name)
    }

    /// The architecture of a Linux program, by the first 20 bytes of its file; `None` for other
    /// files and other architectures.
    /// Source: ELF-64 Object File Format, `e_ident` and `e_machine`.
    #[must_use]
    pub fn of_program(header: &[u8]) -> Option<Self> {
        let machine = header.get(18..20)?;
        match (header.starts_with(b"\x7fELF\x02\x01"), machine) {
            (true, [62, 0]) => Some(Self::X86_64),
            (true, [183, 0]) => Some(Self::Aarch64),
            _ => None,
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(id: &str, like: &str, version: &str) -> String {
        let os = OsRelease {
            id: id.to_owned(),
            id_like: like.to_owned(),
            version_id: version.to_owned(),
            pretty_name: format!("{id} {version}"),
        };
        let there = [PackageManager::Apt, PackageManager::Dnf, PackageManager::Yum].into();
        match Distribution::of(&os) {
            Ok(known) => {
                let manager = known.manager(&there).unwrap();
                let engine = known.engine_packages().join(" ");
                format!("{:?} {} {manager} {engine}", known.kind, known.release)
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn distributions_are_told_by_their_release_files() {
        let check = |id: &str, like: &str, version: &str, expected: &str| {
            assert_eq!(told(id, like, version), expected, "{id} {version}");
        };
        check("debian", "", "12", "Debian 12 apt-get docker.io");
        check("debian", "", "", "Debian 0 apt-get docker.io");
        check("ubuntu", "debian", "16.04", "Ubuntu 16 apt-get docker.io");
        check("ubuntu", "debian", "24.04", "Ubuntu 24 apt-get docker.io");
        check("linuxmint", "ubuntu debian", "9.1", "Ubuntu 0 apt-get docker.io");
        check("centos", "rhel fedora", "7", "EnterpriseLinux 7 dnf docker");
        check("centos", "rhel fedora", "8", "EnterpriseLinux 8 dnf ");
        check("rocky", "rhel centos fedora", "9.3", "EnterpriseLinux 9 dnf ");
        check("ol", "fedora", "8.9", "EnterpriseLinux 8 dnf ");
        check("newrebuild", "rhel fedora", "9.0", "EnterpriseLinux 9 dnf ");
        check("fedora", "", "40", "Fedora 40 dnf moby-engine");
        check("amzn", "centos rhel fedora", "2", "Amazon 2 dnf docker");
        check("amzn", "fedora", "2023", "Amazon 2023 dnf docker");
    }

    #[test]
    fn what_is_unknown_or_too_old_is_named() {
        let check = |id: &str, like: &str, version: &str, expected: &str| {
            assert_eq!(told(id, like, version), expected);
        };
        let unknown = "is not a distribution that kprov supports";
        check("opensuse-leap", "suse", "15.6", &format!("opensuse-leap 15.6 {unknown}"));
        check("alpine", "", "3.20", &format!("alpine 3.20 {unknown}"));
        let oldest = "is the oldest release that kprov supports";
        check(
            "ubuntu",
            "debian",
            "14.04",
            &format!("ubuntu 14.04 is too old: Ubuntu 16.04 {oldest}"),
        );
        check("centos", "rhel fedora", "6", &format!("centos 6 is too old: release 7 {oldest}"));
        check("debian", "", "8", &format!("debian 8 is too old: Debian 9 {oldest}"));
    }

    #[test]
    fn yum_serves_where_dnf_is_missing_and_apt_serves_nobody_else() {
        let of = |kind, there: &[PackageManager]| {
            Distribution { kind, release: 7 }.manager(&there.iter().copied().collect())
        };
        use PackageManager::{Apt, Dnf, Yum};
        assert_eq!(of(Kind::EnterpriseLinux, &[Yum]), Some(Yum));
        assert_eq!(of(Kind::EnterpriseLinux, &[Yum, Dnf]), Some(Dnf));
        assert_eq!(of(Kind::EnterpriseLinux, &[Apt]), None);
        assert_eq!(of(Kind::Debian, &[Yum, Dnf]), None);
        assert_eq!(of(Kind::Ubuntu, &[Apt, Dnf]), Some(Apt));
    }

    #[test]
    fn the_architecture_of_a_program_is_in_its_header() {
        let header = |machine: u8| {
            let mut header = b"\x7fELF\x02\x01\x01".to_vec();
            header.resize(18, 0);
            header.extend([machine, 0]);
            header
        };
        assert_eq!(Architecture::of_program(&header(62)), Some(Architecture::X86_64));
        assert_eq!(Architecture::of_program(&header(183)), Some(Architecture::Aarch64));
        assert_eq!(Architecture::of_program(&header(243)), None);
        assert_eq!(Architecture::of_program(b"#!/bin/sh\n"), None);
    }
}
