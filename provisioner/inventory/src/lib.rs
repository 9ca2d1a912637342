//! The inventory of kprov: what the operator writes, read and checked as a whole. kprov applies
//! it, and ksim simulates it before.
//!
//! [`load`] gives an [`Inventory`] in which every default is filled in, every host has its own
//! settings and every rule holds, or [`Diagnostics`] with *all* that is wrong. Nothing later in the
//! program parses or checks inventory text again.
//!
//! Hosts are sorted by name: their order in the file carries no meaning.

pub mod digest;
pub mod host_key;
pub mod layout;
pub mod snippet;

mod conduct;
mod diagnostics;
mod document;
mod fleet;
mod hosts;
mod place;
mod ranges;
mod reach;
mod resolve;
mod rules;
mod schema;
mod ssh_config;
mod suggest;
mod system;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::Arc,
};

use ipnet::Ipv4Net;
use ssh_config::SshConfig;

pub use conduct::{AddonSource, BatchSize, Hook, HookMoment, Rollout};
pub use diagnostics::{Diagnostics, Finding, Problem, Severity};
pub use document::{
    Backend, FirewallPolicy, HookPlace, HostKeyPolicy, KeyAlgorithm, MasterForm, NodeApproval,
    OvsDatapath, Phase, PodBridge, ProxyMode, Role,
};
pub use reach::{Jump, Ssh};
pub use schema::schema;
pub use suggest::did_you_mean;
pub use system::{DockerSource, Limits, Repository, System};

pub use crate::layout::Layout;

use crate::digest::Digest;

/// The pause image that comes with kprov; it is in no registry.
pub const PAUSE_IMAGE: &str = "kprov.local/pause:3.10";

/// A checked inventory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inventory {
    /// The file as the operator named it.
    pub path: PathBuf,
    /// The cluster as a whole.
    pub cluster: Cluster,
    /// The pod network and the service proxy.
    pub network: Network,
    /// How hosts reach the API servers.
    pub load_balancer: LoadBalancer,
    /// Where hyperkube comes from.
    pub hyperkube: ArtifactSource,
    /// Where etcd comes from.
    pub etcd: ArtifactSource,
    /// Certificates and keys.
    pub pki: PkiSettings,
    /// Options of the components.
    pub components: Components,
    /// How changes reach nodes that are at work.
    pub rollout: Rollout,
    /// Commands around the phases of an apply, in the order of the file.
    pub hooks: Vec<Hook>,
    /// What is put into the cluster once its API answers, in the order of the file.
    pub addons: Vec<AddonSource>,
    /// All hosts, sorted by name.
    pub hosts: Vec<Host>,
    /// What the operator should know although the inventory is usable.
    pub warnings: Diagnostics,
}

impl Inventory {
    /// The hosts that have `role`, sorted by name.
    pub fn with_role(&self, role: Role) -> impl Iterator<Item = &Host> {
        self.hosts.iter().filter(move |h| h.has(role))
    }

    /// The host called `name`.
    #[must_use]
    pub fn host(&self, name: &str) -> Option<&Host> {
        self.hosts.iter().find(|h| h.name == name)
    }

    /// Where the cluster's keys and known hosts are kept unless told otherwise:
    /// `.kprov/CLUSTER` beside the inventory file.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        directory_of(&self.path).join(".kprov").join(&self.cluster.name)
    }

    /// `https://ADDRESS:PORT` by which the components of `host` reach the API. A master asks its
    /// own API server, unless a balancer on it can turn to the others when that one is away.
    #[must_use]
    pub fn api_for(&self, host: &Host) -> String {
        let first = || self.with_role(Role::Master).next().unwrap_or(host).api_server();
        match &self.load_balancer {
            LoadBalancer::Local => format!("https://127.0.0.1:{API_PROXY_PORT}"),
            _ if host.has(Role::Master) => host.api_server(),
            LoadBalancer::External { .. } => self.api_for_people(),
            LoadBalancer::None => first(),
        }
    }

    /// `https://ADDRESS:PORT` by which the operator reaches the API.
    #[must_use]
    pub fn api_for_people(&self) -> String {
        match (&self.load_balancer, self.with_role(Role::Master).next()) {
            (LoadBalancer::External { name, port }, _) => format!("https://{name}:{port}"),
            (_, Some(master)) => master.api_server(),
            (_, None) => String::new(),
        }
    }
}

/// The cluster as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Name of the cluster, a DNS label.
    pub name: String,
    /// DNS domain of services, without a final stop.
    pub domain: String,
    /// Where files lie on hosts.
    pub layout: Layout,
    /// What runs the components of masters.
    pub masters: MasterForm,
    /// Who approves the first certificate of a new node.
    pub node_approval: NodeApproval,
    /// Addresses of pods.
    pub pod_cidr: Ipv4Net,
    /// Virtual addresses of services.
    pub service_cidr: Ipv4Net,
    /// Whether each node answers names of the cluster.
    pub dns: bool,
    /// Service address of the cluster DNS.
    pub dns_address: Ipv4Addr,
    /// Prefix length of each node's part of `pod_cidr`.
    pub node_cidr_mask: u8,
    /// First and last port of NodePort services.
    pub node_ports: (u16, u16),
    /// Container image of the pause container.
    pub pause_image: String,
    /// Image archives that every node loads.
    pub images: Vec<PathBuf>,
}

impl Cluster {
    /// Service address of the API server: the first of the service range.
    #[must_use]
    pub fn api_address(&self) -> Ipv4Addr {
        nth_address(self.service_cidr, 1)
    }
}

/// The pod network and the service proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// How pod packets travel between hosts.
    pub backend: Backend,
    /// Who forwards for Open vSwitch.
    pub ovs_datapath: OvsDatapath,
    /// Largest packet of the pod network in bytes.
    pub mtu: u16,
    /// Whether packets from pods to the outside are masqueraded.
    pub masquerade: bool,
    /// How services are translated.
    pub proxy_mode: ProxyMode,
    /// The bridge that pods are attached to.
    pub pod_bridge: PodBridge,
}

/// Who spreads connections over the API servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadBalancer {
    /// Nobody: there is one master.
    None,
    /// `hyperkube apiserver-proxy` on each host, at 127.0.0.1:[`API_PROXY_PORT`].
    Local,
    /// One of the operator's own.
    External {
        /// DNS name or IPv4 address.
        name: String,
        /// TCP port.
        port: u16,
    },
}

/// Where a program comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArtifactSource {
    /// A file of the operator's machine.
    File {
        /// Where it is.
        path: PathBuf,
        /// The distribution package that brings it.
        package: Option<String>,
    },
    /// The file of this name beside the running kprov.
    Beside(String),
    /// Fetched once, then kept in a cache under its digest.
    Url {
        /// Where it is fetched, over HTTPS.
        url: String,
        /// What it must be.
        sha256: Digest,
    },
}

/// Certificates and keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PkiSettings {
    /// Kind of new keys.
    pub algorithm: KeyAlgorithm,
    /// Life of a new authority in days.
    pub ca_days: u32,
    /// Life of a new certificate in days.
    pub leaf_days: u32,
    /// Further names and addresses of the API server.
    pub api_server_names: Vec<String>,
    /// A certificate that ends within so many days is worth a warning.
    pub warn_days: u32,
    /// An authority of the operator's own for everything but etcd.
    pub ca: Option<GivenAuthority>,
    /// One for etcd.
    pub etcd_ca: Option<GivenAuthority>,
}

/// An authority that comes from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenAuthority {
    /// Its certificate (PEM).
    pub cert: PathBuf,
    /// Its key (PKCS#8 PEM).
    pub key: PathBuf,
}

/// Options of the components.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Components {
    /// How much all components log, 0 to 10.
    pub log_level: u8,
    /// Open files that etcd and the API server may have.
    pub open_files: u32,
    /// Further flags by component (`kube-apiserver`) and flag name without dashes.
    pub args: BTreeMap<String, BTreeMap<String, String>>,
}

/// One host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Name of the host and of its node, a DNS label.
    pub name: String,
    /// Address by which kprov and all other hosts reach it.
    pub address: Ipv4Addr,
    /// What it does.
    pub roles: BTreeSet<Role>,
    /// The groups that name it.
    pub groups: BTreeSet<String>,
    /// Labels of the node.
    pub labels: BTreeMap<String, String>,
    /// Taints of the node.
    pub taints: BTreeSet<Taint>,
    /// How it is reached.
    pub ssh: Ssh,
    /// How its operating system is prepared.
    pub system: System,
    /// Pods that the node may run.
    pub max_pods: u16,
}

impl Host {
    /// Tells whether the host has `role`.
    #[must_use]
    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// `https://ADDRESS:PORT` of the API server, were the host a master.
    #[must_use]
    pub fn api_server(&self) -> String {
        format!("https://{}:{API_SERVER_PORT}", self.address)
    }
}

/// Port of every API server.
pub const API_SERVER_PORT: u16 = 6443;
/// Port of the balancer on each host; masters listen on the API server's as well.
pub const API_PROXY_PORT: u16 = 6444;

/// A taint of a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Taint {
    /// Qualified name.
    pub key: String,
    /// Effect, one of Kubernetes' three.
    pub effect: String,
    /// Value, maybe empty.
    pub value: String,
}

impl fmt::Display for Taint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}:{}", self.key, self.value, self.effect)
    }
}

/// What an inventory refers to outside of itself.
pub(crate) struct Surroundings<'a> {
    /// Directory that relative paths start from: that of the inventory file.
    pub(crate) dir: &'a Path,
    /// What `~/` stands for.
    pub(crate) home: Option<PathBuf>,
    /// Tells whether a file exists.
    pub(crate) is_file: &'a dyn Fn(&Path) -> bool,
    /// Reads a configuration of ssh's own.
    pub(crate) ssh_config: &'a dyn Fn(&Path) -> std::io::Result<SshConfig>,
}

impl Surroundings<'_> {
    /// Makes a path of the inventory one of the file system.
    pub(crate) fn path(&self, text: &str) -> PathBuf {
        match (text.strip_prefix("~/"), &self.home) {
            (Some(rest), Some(home)) => home.join(rest),
            _ => self.dir.join(text),
        }
    }
}

/// Reads and checks the inventory file at `path`.
///
/// # Errors
/// All that is wrong with it, at once; also when the file cannot be read.
pub fn load(path: &Path) -> Result<Inventory, Diagnostics> {
    let source = match std::fs::read_to_string(path) {
        Ok(source) => source,
        Err(error) => {
            let problem = Problem::error(format!("cannot read {}: {error}", path.display()))
                .help("an inventory is a TOML file; `inventory/example.toml` shows every setting");
            return Err(Diagnostics::new(path, "".into(), vec![problem]));
        }
    };
    of_text(path, &source)
}

/// Checks the text of an inventory that is, or will be, the file at `path`.
///
/// # Errors
/// All that is wrong with it, at once.
pub fn of_text(path: &Path, source: &str) -> Result<Inventory, Diagnostics> {
    let home = std::env::home_dir();
    let surroundings = Surroundings {
        dir: directory_of(path),
        home: home.clone(),
        is_file: &|path| path.is_file(),
        ssh_config: &|path| SshConfig::read(path, home.as_deref()),
    };
    read(path, source, &surroundings)
}

/// Checks the text of an inventory of which nothing but the file itself is at hand, and whose hosts
/// nobody will reach: keys and other files that it names need not exist, and what ssh's own
/// configuration says of hosts does not matter.
///
/// # Errors
/// All that is wrong with it, at once.
pub fn of_text_alone(path: &Path, source: &str) -> Result<Inventory, Diagnostics> {
    let surroundings = Surroundings {
        dir: directory_of(path),
        home: None,
        is_file: &|_| true,
        ssh_config: &|_| Ok(SshConfig::default()),
    };
    read(path, source, &surroundings)
}

/// Checks the inventory text `source`, without touching the file system.
pub(crate) fn read(
    path: &Path,
    source: &str,
    surroundings: &Surroundings<'_>,
) -> Result<Inventory, Diagnostics> {
    let (table, syntax) = toml::de::DeTable::parse_recoverable(source);
    let mut problems: Vec<Problem> = syntax
        .iter()
        .map(|error| {
            let problem = Problem::error(format!("not valid TOML: {}", error.message()));
            match error.span() {
                Some(span) => problem.at(span, "here"),
                None => problem,
            }
        })
        .collect();
    // What the parser guessed after a syntax error is read too, but a section that it lost must
    // not be reported as missing.
    let broken = !problems.is_empty();
    let well_formed = schema::check(&schema(), &table, &mut problems);
    if broken {
        problems.retain(|p| !p.label.starts_with("needs "));
    }
    let inventory = match serde_json::from_value(well_formed) {
        Ok(document) => {
            resolve::resolve(path, &document, &table, surroundings, broken, &mut problems)
        }
        // Only a rule that the schema cannot express gets here.
        Err(error) => {
            problems.push(Problem::error(error.to_string()));
            None
        }
    };
    let diagnostics = Diagnostics::new(path, Arc::from(source), problems);
    match inventory {
        Some(inventory) if !diagnostics.has_errors() => {
            Ok(Inventory { warnings: diagnostics, ..inventory })
        }
        _ => Err(diagnostics),
    }
}

/// Expands `node-[01-03]` into names; a pattern without brackets is one name.
///
/// # Errors
/// Why it is no pattern, in one line.
pub fn expand_hosts(pattern: &str) -> Result<Vec<String>, String> {
    ranges::expand(pattern).map_err(|error| error.to_string())
}

/// The `index`-th address of `range`; the last one if there are not so many.
pub fn nth_address(range: Ipv4Net, index: u32) -> Ipv4Addr {
    let first = u32::from(range.network());
    Ipv4Addr::from(first.saturating_add(index).min(u32::from(range.broadcast())))
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
