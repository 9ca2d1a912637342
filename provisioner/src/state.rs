//! The desired state of one host, as data.
//!
//! `compose` makes one [`HostState`] a host from the inventory; `plan` compares it with the facts.
//! Nothing here knows about SSH, templates or certificates.
//! Paths are absolute, normalized UTF-8 paths on the host.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::bundle::PackageFile;
use crate::digest::Digest;
use crate::distribution::Architecture;
use crate::firewall::FirewallState;
use crate::layout::Layout;
use crate::program::Program;
use crate::secret::Secret;

/// All that should be true of one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostState {
    /// The host's name in the inventory.
    pub host: String,
    /// The cluster's name; a host that belongs to another cluster is refused.
    pub cluster: String,
    /// Fingerprint of the cluster's certificate authority; a host that another authority of that
    /// name owns is refused. Empty where no authority is at hand.
    pub authority: String,
    /// Fingerprint of the authority that is being replaced, or will take its place: a host that it
    /// owns is the cluster's, too.
    pub former_authority: Option<String>,
    /// Where files lie; a host whose data lie elsewhere is refused.
    pub layout: Layout,
    /// Directories, parents before children.
    pub directories: Vec<DirectoryState>,
    /// Regular files; one entry a path.
    pub files: Vec<FileState>,
    /// Programs by name: their bytes are among `files`, and what runs them among `links`.
    pub programs: BTreeMap<String, Program>,
    /// Symbolic links.
    pub links: Vec<LinkState>,
    /// systemd units, in the order in which they start within a stage.
    pub units: Vec<UnitState>,
    /// Kernel settings by dotted name (`net.ipv4.ip_forward`), set at once; a file of
    /// `/etc/sysctl.d` that keeps them over a reboot is one of `files`.
    pub sysctls: BTreeMap<String, String>,
    /// Kernel modules to load where the kernel has them as modules.
    pub modules: BTreeSet<String>,
    /// Container images that the host's Docker must have.
    pub images: Vec<ImageState>,
    /// Ports that the units of this host will listen on; one taken by another program is refused.
    pub ports: Vec<PortUse>,
    /// Paths that the components themselves fill (`/var/lib/etcd`, `/var/lib/kubelet`) and that
    /// `reset` removes when they did not exist before.
    pub data: BTreeSet<String>,
    /// Whether the host must have a Docker engine.
    pub docker: bool,
    /// Where that comes from when there is none.
    pub engine: EngineSource,
    /// Whether the host must have Open vSwitch.
    pub open_vswitch: bool,
    /// Further packages of the distribution.
    pub packages: BTreeSet<String>,
    /// Packages as files, of all distributions at hand: where there are any of the host's own, no
    /// repository is asked.
    pub package_files: Vec<PackageFile>,
    /// Whether swap must be off.
    pub swap_off: bool,
    /// Blocks of lines within files that belong to somebody else; one entry a path.
    pub blocks: Vec<BlockState>,
    /// What the host's firewall must let through.
    pub firewall: FirewallState,
}

impl HostState {
    /// An empty state: a host of `cluster` where nothing of ours is wanted.
    pub fn new(cluster: impl Into<String>, host: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            cluster: cluster.into(),
            authority: String::new(),
            former_authority: None,
            layout: Layout::default(),
            directories: Vec::new(),
            files: Vec::new(),
            programs: BTreeMap::new(),
            links: Vec::new(),
            units: Vec::new(),
            sysctls: BTreeMap::new(),
            modules: BTreeSet::new(),
            images: Vec::new(),
            ports: Vec::new(),
            data: BTreeSet::new(),
            docker: false,
            engine: EngineSource::default(),
            open_vswitch: false,
            packages: BTreeSet::new(),
            package_files: Vec::new(),
            swap_off: false,
            blocks: Vec::new(),
            firewall: FirewallState::default(),
        }
    }

    /// The wanted file at `path`.
    #[must_use]
    pub fn file(&self, path: &str) -> Option<&FileState> {
        self.files.iter().find(|file| file.path == path)
    }
}

/// A directory that must exist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DirectoryState {
    /// Absolute path.
    pub path: String,
    /// Permission bits.
    pub mode: Mode,
    /// Owner and group.
    pub owner: Owner,
}

/// A regular file with its whole content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileState {
    /// Absolute path.
    pub path: String,
    /// Permission bits.
    pub mode: Mode,
    /// Owner and group.
    pub owner: Owner,
    /// The bytes.
    pub content: Content,
}

/// The bytes of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// Text that a plan may show as a diff.
    Text(String),
    /// Text that is never shown.
    Secret(Secret),
    /// Bytes of a file on the operator's machine; sent only when the digest differs.
    Blob(Blob),
}

impl Content {
    /// The digest that the file must have on the host.
    #[must_use]
    pub fn digest(&self) -> Digest {
        match self {
            Self::Text(text) => Digest::of(text.as_bytes()),
            Self::Secret(secret) => Digest::of(secret.expose().as_bytes()),
            Self::Blob(blob) => blob.sha256,
        }
    }

    /// The length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Text(text) => text.len() as u64,
            Self::Secret(secret) => secret.expose().len() as u64,
            Self::Blob(blob) => blob.len,
        }
    }

    /// Whether there are no bytes at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A large file on the operator's machine, known by its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob {
    /// Digest of the bytes.
    pub sha256: Digest,
    /// Length in bytes.
    pub len: u64,
    /// Where the bytes are on the operator's machine.
    pub source: PathBuf,
    /// What processors it runs on, where it is a program.
    pub architecture: Option<Architecture>,
    /// What version a program calls itself, where it says so.
    #[serde(default)]
    pub version: Option<String>,
}

impl Blob {
    /// The build that the bytes are, where they are a program.
    #[must_use]
    pub fn program(&self) -> Program {
        Program { sha256: self.sha256, version: self.version.clone() }
    }
}

/// A block of lines within a file that belongs to somebody else, between two marks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BlockState {
    /// Absolute path of the file.
    pub path: String,
    /// The lines, each with its end.
    pub text: String,
}

/// Where a Docker engine comes from when a host has none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct EngineSource {
    /// Whether kprov installs it.
    pub install: bool,
    /// Its packages; empty for those of the distribution, or of Docker's own repository.
    pub packages: BTreeSet<String>,
    /// A repository besides those that the host has.
    pub repository: Option<RepositoryState>,
}

/// A repository of packages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RepositoryState {
    /// Where it is.
    pub url: String,
    /// Suite and components, for `apt`.
    pub suite: Vec<String>,
    /// The key that signs it, in armor; `None` for one that is trusted without.
    pub key: Option<String>,
}

/// A symbolic link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LinkState {
    /// Absolute path of the link itself.
    pub path: String,
    /// What the link says, verbatim.
    pub target: String,
}

/// A systemd unit that must run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnitState {
    /// Full unit name, such as `etcd.service`.
    pub name: String,
    /// Whether it starts at boot.
    pub enabled: bool,
    /// The wave in which it is started or restarted.
    pub stage: Stage,
    /// Paths in `files` and `links` whose change needs a restart: the unit's own file, its
    /// environment file, configuration, certificates and program.
    pub inputs: BTreeSet<String>,
    /// How to know that it works after a start.
    pub health: Gate,
}

/// The waves of an apply, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Kernel settings, modules, Docker, images: all hosts at once.
    HostPrep,
    /// etcd members: all at once for a new cluster, else one at a time.
    Etcd,
    /// Master components: all at once for a new cluster, else one host at a time.
    ControlPlane,
    /// Node components: in parallel, bounded.
    Node,
}

impl Stage {
    /// All stages, first to last.
    pub const ALL: [Self; 4] = [Self::HostPrep, Self::Etcd, Self::ControlPlane, Self::Node];

    /// The stage's name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::HostPrep => "host",
            Self::Etcd => "etcd",
            Self::ControlPlane => "control plane",
            Self::Node => "node",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How to know that a unit works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gate {
    /// systemd says that it is active; a `Type=notify` unit says so itself when it is ready.
    Active,
    /// Active, and a GET over TLS answers 200. It is asked by kprov through the SSH connection, so
    /// that the host needs no program for it; the credentials are taken from the desired state.
    Https(HttpsGate),
    /// Active, the host's API server is ready, and it calls the host's static pods ready.
    StaticPods(StaticPodsGate),
}

/// The components of a master as static pods of its kubelet.
///
/// The API server that a change replaces answers well until its kubelet stops it, so that its health
/// alone says nothing about the change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaticPodsGate {
    /// The health of the API server; its client may read pods.
    pub api: HttpsGate,
    /// What [`INPUTS`](crate::compose::INPUTS) says on each pod, by the name that it has in the API.
    pub pods: BTreeMap<String, String>,
}

/// A health endpoint over TLS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpsGate {
    /// Address that the unit listens on, as reached from the host itself; also the name that
    /// its certificate must carry.
    pub address: String,
    /// TCP port.
    pub port: u16,
    /// Path and query, such as `/health`.
    pub path: String,
    /// Path in `files` of the authority's certificate (PEM).
    pub ca: String,
    /// Paths in `files` of the client's certificate and key (PEM), where one is asked for.
    pub client: Option<ClientFiles>,
}

/// Where a client certificate and its key are in the desired state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientFiles {
    /// Path in `files` of the certificate (PEM).
    pub cert: String,
    /// Path in `files` of the key (PEM).
    pub key: String,
}

/// A container image that Docker must have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImageState {
    /// Name and tag, such as `kprov/pause:1`.
    pub reference: String,
    /// Image id, `sha256:` and 64 digits, as `docker image ls --no-trunc` prints it.
    pub id: String,
    /// The tar that `docker load` takes.
    pub archive: Blob,
}

/// A port that a unit of ours listens on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortUse {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Port number.
    pub port: u16,
    /// The unit that will hold it.
    pub unit: String,
}

/// Transport protocol of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// Permission bits of a file, shown in octal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mode(pub u32);

impl Mode {
    /// Owner alone may read and write.
    pub const PRIVATE: Self = Self(0o600);
    /// Owner alone may enter.
    pub const PRIVATE_DIRECTORY: Self = Self(0o700);
    /// Everybody may read.
    pub const PUBLIC: Self = Self(0o644);
    /// Everybody may run it, or enter the directory.
    pub const EXECUTABLE: Self = Self(0o755);
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl fmt::Debug for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Mode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        u32::from_str_radix(&text, 8).map(Self).map_err(serde::de::Error::custom)
    }
}

/// Owner and group of a file by name, `USER:GROUP`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Owner(pub String);

impl Owner {
    /// `root:root`.
    #[must_use]
    pub fn root() -> Self {
        Self("root:root".to_owned())
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal_in_json() {
        let json = serde_json::to_string(&Mode::PRIVATE).unwrap();
        assert_eq!(json, r#""0600""#);
        assert_eq!(serde_json::from_str::<Mode>(&json).unwrap(), Mode::PRIVATE);
    }

    #[test]
    fn a_secret_file_serializes_without_its_text() {
        let file = FileState {
            path: "/etc/kubernetes/pki/ca.key".to_owned(),
            mode: Mode::PRIVATE,
            owner: Owner::root(),
            content: Content::Secret(Secret::new("KEY MATERIAL")),
        };
        let shown = format!("{file:?}{}", serde_json::to_string(&file).unwrap());
        assert!(!shown.contains("MATERIAL"), "{shown}");
        assert_eq!(file.content.digest(), Digest::of(b"KEY MATERIAL"));
    }
}
