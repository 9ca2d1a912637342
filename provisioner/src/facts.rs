//! What is true of a host now, as far as kprov asks.
//!
//! A [`FactsQuery`] names what to look at; one command on the host answers it (`facts::script`),
//! and `facts::answer` reads the answer. A fake host makes [`Facts`] directly.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use serde::Serialize;

use crate::digest::Digest;
use crate::distribution::PackageManager;
use crate::firewall::FirewallFact;
use crate::record::{Prior, Record};
use crate::repository;
use crate::state::{Content, FileState, HostState, Mode, Owner, Protocol};

mod answer;
mod script;

pub(crate) use answer::last_lines;
pub use answer::{FactsError, parse};
pub(crate) use script::sysctl_path;
pub use script::{FILE_SYSTEMS, LockRequest, script};

/// The unit of the container engine.
pub const ENGINE: &str = "docker.service";

/// What to look at on a host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FactsQuery {
    /// Paths whose type, mode, owner and link target are asked for.
    pub paths: BTreeSet<String>,
    /// Those of `paths` whose digest is asked for too.
    pub hashed: BTreeSet<String>,
    /// Large files whose digest is asked for: one that has not changed since kprov put it in place
    /// is not read again.
    pub large: BTreeSet<String>,
    /// Whether to look at all programs that kprov keeps on the host, as at large files.
    pub programs: bool,
    /// Directories of which it matters whether they are empty.
    pub data: BTreeSet<String>,
    /// Units.
    pub units: BTreeSet<String>,
    /// Kernel settings.
    pub sysctls: BTreeSet<String>,
    /// Kernel modules.
    pub modules: BTreeSet<String>,
    /// Ports.
    pub ports: BTreeSet<u16>,
    /// Whether to ask Docker for its version and images.
    pub docker: bool,
    /// Packages.
    pub packages: BTreeSet<String>,
    /// Whether to ask for swap.
    pub swap: bool,
    /// Files whose block of ours is asked for.
    pub blocks: BTreeSet<String>,
    /// Whether to ask for the rules of a firewall that is on.
    pub firewall: bool,
    /// The host's address, which tells the interface and so the zone of firewalld.
    pub address: Option<Ipv4Addr>,
}

impl FactsQuery {
    /// All that a plan for `desired` needs to know.
    #[must_use]
    pub fn for_state(desired: &HostState) -> Self {
        let is_large = |file: &&FileState| matches!(file.content, Content::Blob(_));
        let (large, small): (Vec<_>, Vec<_>) = desired.files.iter().partition(is_large);
        let set = |files: Vec<&FileState>| -> BTreeSet<_> {
            files.into_iter().map(|file| file.path.clone()).collect()
        };
        let (large, hashed) = (set(large), set(small));
        let mut paths: BTreeSet<_> = hashed.union(&large).cloned().collect();
        paths.extend(desired.links.iter().map(|link| link.path.clone()));
        paths.extend(desired.directories.iter().map(|directory| directory.path.clone()));
        let above: Vec<_> =
            paths.iter().flat_map(|path| parents(path)).map(str::to_owned).collect();
        paths.extend(above);
        paths.extend(desired.data.iter().cloned());
        paths.extend(desired.blocks.iter().map(|block| block.path.clone()));
        let mut hashed = hashed;
        let mut data = desired.data.clone();
        if desired.docker {
            data.extend(ENGINE_DATA.map(str::to_owned));
            paths.extend(ENGINE_DATA.map(str::to_owned));
        }
        if desired.open_vswitch {
            let asked = SWITCH_DATA.iter().chain([&SWITCH_PROGRAM]);
            paths.extend(asked.map(|path| (*path).to_owned()));
            data.extend(SWITCH_DATA.map(str::to_owned));
        }
        if desired.engine.repository.is_some() {
            // Which of them it will be depends on the distribution, which nobody knows yet.
            let files = repository::FILES.iter().map(|path| (*path).to_owned());
            hashed.extend(files.clone());
            paths.extend(files);
            let above = repository::FILES.iter().flat_map(|path| parents(path));
            paths.extend(above.map(str::to_owned));
        }
        let firewall = &desired.firewall;
        Self {
            paths,
            hashed,
            large,
            programs: !desired.programs.is_empty(),
            data,
            units: (desired.units.iter().map(|unit| unit.name.clone()))
                .chain(desired.docker.then(|| ENGINE.to_owned()))
                .collect(),
            sysctls: desired.sysctls.keys().cloned().collect(),
            modules: desired.modules.clone(),
            ports: desired.ports.iter().map(|port| port.port).collect(),
            docker: desired.docker || !desired.images.is_empty(),
            packages: desired.packages.clone(),
            swap: desired.swap_off,
            blocks: desired.blocks.iter().map(|block| block.path.clone()).collect(),
            firewall: !firewall.openings.is_empty(),
            address: firewall.address,
        }
    }
}

/// What an engine makes by itself, and so no package takes away.
pub(crate) const ENGINE_DATA: [&str; 9] = [
    "/etc/cni",
    "/etc/containerd",
    "/etc/docker",
    "/etc/docker/key.json",
    // Of a containerd that Docker starts without a file of settings.
    "/opt/containerd",
    "/opt/containerd/bin",
    "/opt/containerd/lib",
    "/var/lib/containerd",
    "/var/lib/docker",
];

/// The program by which Open vSwitch is told what to do.
pub(crate) const SWITCH_PROGRAM: &str = "/usr/bin/ovs-vsctl";

/// What Open vSwitch makes by itself, and so no package takes away.
pub(crate) const SWITCH_DATA: [&str; 3] =
    ["/etc/openvswitch", "/var/lib/openvswitch", "/var/log/openvswitch"];

/// The directories above `path`, nearest first, without the root.
pub(crate) fn parents(path: &str) -> impl Iterator<Item = &str> {
    let mut at = path;
    std::iter::from_fn(move || {
        at = &at[..at.rfind('/').filter(|end| *end > 0)?];
        Some(at)
    })
}

/// The state of a host at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// Distribution, from `/etc/os-release`.
    pub os: OsRelease,
    /// Machine name as `uname -m` prints it.
    pub arch: String,
    /// Kernel release.
    pub kernel: String,
    /// What no other running machine says: its boot and, as containers share a kernel, its root.
    pub machine: Option<String>,
    /// Memory in bytes; `None` where the host did not say.
    pub memory: Option<u64>,
    /// Whether the modules of the running kernel are there, so that one that is not known is
    /// missing.
    pub module_tree: bool,
    /// Whether systemd is the init process.
    pub systemd: bool,
    /// A firewall that is on.
    pub firewall: Option<FirewallFact>,
    /// Whether a change of the firewall is still to be confirmed, and else taken back.
    pub firewall_guarded: bool,
    /// Programs that install packages.
    pub managers: BTreeSet<PackageManager>,
    /// Those of the packages asked for that are installed.
    pub packages: BTreeSet<String>,
    /// Whether an installation of packages was broken off.
    pub packages_unfinished: bool,
    /// Swap that is on or that the next boot would switch on, by device or file.
    pub swaps: BTreeSet<String>,
    /// Digests of the blocks asked for; a file without one has no entry.
    pub blocks: BTreeMap<String, Digest>,
    /// Whether SELinux is there and enforcing.
    pub selinux_enforcing: bool,
    /// Those of the paths asked for whose label is not the one that the policy says.
    pub mislabelled: BTreeSet<String>,
    /// A service that keeps the clock right and runs.
    pub time_service: Option<String>,
    /// The kind of container that the host is; its clock is another one's then.
    pub container: Option<String>,
    /// Programs that kprov needs and the host lacks.
    pub missing_programs: BTreeSet<String>,
    /// The host's clock less the operator's, in milliseconds.
    pub clock_skew_ms: i64,
    /// Free bytes by mount point.
    pub disk_free: BTreeMap<String, u64>,
    /// What is at the paths asked for; a path that is not there has no entry.
    pub paths: BTreeMap<String, PathFact>,
    /// The units asked for.
    pub units: BTreeMap<String, UnitFact>,
    /// The kernel settings asked for; one that the kernel lacks has no entry.
    pub sysctls: BTreeMap<String, String>,
    /// The kernel modules asked for.
    pub modules: BTreeMap<String, ModuleFact>,
    /// Listeners on the ports asked for.
    pub listeners: Vec<Listener>,
    /// The container engine.
    pub docker: DockerFact,
    /// Settings of the engine's own file (`daemon.json`) that it does not take as options as well,
    /// of those that put its bridge on another range.
    pub engine_settings: BTreeSet<String>,
    /// Image ids by reference.
    pub images: BTreeMap<String, String>,
    /// What kprov owns here; `None` for a host that it never touched.
    pub record: Option<Record>,
    /// Why a record that is there could not be read.
    pub record_error: Option<String>,
    /// With which inputs each unit of ours was last started.
    pub started: BTreeMap<String, Digest>,
    /// Which archive each image of ours was loaded from, and the id that it got.
    pub loaded: BTreeMap<String, LoadedImage>,
    /// Whether bytes that a broken-off run sent still lie in the staging area.
    pub staged: bool,
    /// The highest generation of a run that has written here; see [`crate::lock`].
    pub fence: u64,
    /// Who holds the host's lock, when that was asked for without taking it.
    pub holder: Option<String>,
}

impl Facts {
    /// What is at `path`, as a record keeps it.
    #[must_use]
    pub fn prior(&self, path: &str) -> Prior {
        match self.paths.get(path) {
            None => Prior::Absent,
            Some(PathFact::File { mode, owner, sha256, .. }) => {
                Prior::File { mode: *mode, owner: owner.clone(), sha256: *sha256 }
            }
            Some(PathFact::Link { target }) => Prior::Link { target: target.clone() },
            Some(PathFact::Directory { mode, owner, empty }) => {
                Prior::Directory { mode: *mode, owner: owner.clone(), empty: *empty }
            }
            Some(PathFact::Other) => Prior::Other,
        }
    }

    /// Whether the unit runs.
    #[must_use]
    pub fn is_active(&self, unit: &str) -> bool {
        self.units.get(unit).is_some_and(|unit| unit.active == "active")
    }

    /// Free bytes where `path` would be written, if the host said so.
    #[must_use]
    pub fn free_at(&self, path: &str) -> Option<(&str, u64)> {
        let within =
            |mount: &str| mount == "/" || path == mount || path.starts_with(&format!("{mount}/"));
        self.disk_free
            .iter()
            .filter(|(mount, _)| within(mount))
            .max_by_key(|(mount, _)| mount.len())
            .map(|(mount, free)| (mount.as_str(), *free))
    }
}

/// The distribution.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct OsRelease {
    /// `ID`, such as `debian`.
    pub id: String,
    /// `ID_LIKE`, words apart by blanks.
    pub id_like: String,
    /// `VERSION_ID`; empty on a rolling release.
    pub version_id: String,
    /// `PRETTY_NAME`.
    pub pretty_name: String,
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PathFact {
    /// A regular file.
    File {
        /// Permission bits.
        mode: Mode,
        /// Owner and group.
        owner: Owner,
        /// Digest, where it was asked for.
        sha256: Option<Digest>,
        /// Length in bytes.
        len: u64,
    },
    /// A symbolic link.
    Link {
        /// What it says.
        target: String,
    },
    /// A directory.
    Directory {
        /// Permission bits.
        mode: Mode,
        /// Owner and group.
        owner: Owner,
        /// Whether it is known to have no entries.
        empty: bool,
    },
    /// Anything else.
    Other,
}

/// A unit as systemd sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct UnitFact {
    /// `LoadState`: `loaded`, `not-found`, `masked` …
    pub load: String,
    /// `ActiveState`: `active`, `inactive`, `failed`, `activating` …
    pub active: String,
    /// `UnitFileState`: `enabled`, `disabled`, `static` … or nothing.
    pub enablement: String,
    /// Whether the unit file changed since systemd read it.
    pub needs_reload: bool,
}

impl UnitFact {
    /// Whether it starts at boot, by its own links or as another unit's part.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        matches!(self.enablement.as_str(), "enabled" | "static" | "alias" | "indirect")
    }
}

/// A kernel module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ModuleFact {
    /// Loaded, or a visible part of the kernel.
    Loaded,
    /// `modprobe` knows it.
    Loadable,
    /// Not known as a module; the kernel may have it built in.
    Unknown,
}

/// A program that listens on a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listener {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Port number.
    pub port: u16,
    /// The service that the program belongs to.
    pub unit: Option<String>,
    /// The program's name.
    pub program: Option<String>,
}

/// The container engine of a host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DockerFact {
    /// There is no `docker` program, or nobody asked.
    #[default]
    Absent,
    /// Installed, but the engine does not answer.
    Stopped,
    /// It answers.
    Running {
        /// The engine's version.
        version: String,
    },
}

/// An image that kprov loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LoadedImage {
    /// Digest of the archive that it came from.
    pub archive: Digest,
    /// The id that the engine gave it; engines differ in how they make ids.
    pub id: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_go_up_without_the_root() {
        assert_eq!(parents("/etc/a/b").collect::<Vec<_>>(), ["/etc/a", "/etc"]);
        assert_eq!(parents("/etc").count(), 0);
    }

    #[test]
    fn free_space_is_that_of_the_nearest_mount() {
        let disk_free = [("/".to_owned(), 5), ("/var/lib".to_owned(), 7)].into();
        let facts = Facts { disk_free, ..Facts::default() };
        assert_eq!(facts.free_at("/var/lib/kprov"), Some(("/var/lib", 7)));
        assert_eq!(facts.free_at("/var/library"), Some(("/", 5)));
    }
}
