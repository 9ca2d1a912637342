//! The inventory file as it is written. These structs are the one source of the JSON schema, of
//! what the checker accepts, and of the editor's documentation.
//!
//! Every field is optional here, also those that the schema requires: a file with a mistake is
//! read with that part left out, so that the rest of it is checked as well.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::layout::Layout;

/// A cluster that kprov builds.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "kprov inventory", extend("required" = ["cluster"]))]
pub(crate) struct Document {
    /// The cluster as a whole.
    pub(crate) cluster: ClusterSection,
    /// How hosts are reached; groups and hosts may override each setting.
    pub(crate) ssh: SshSection,
    /// The pod network between hosts, and the service proxy.
    pub(crate) network: NetworkSection,
    /// How hosts reach the API servers where there are several masters.
    pub(crate) load_balancer: LoadBalancerSection,
    /// Where the programs come from that kprov puts on hosts.
    pub(crate) artifacts: ArtifactsSection,
    /// Certificates and keys.
    pub(crate) pki: PkiSection,
    /// Options of the components.
    pub(crate) components: ComponentsSection,
    /// How changes reach nodes that are at work.
    pub(crate) rollout: RolloutSection,
    /// Commands that run before or after a phase of an apply, in this order.
    pub(crate) hooks: Vec<HookSection>,
    /// What is put into the cluster once its API answers, in this order.
    pub(crate) addons: Vec<AddonSection>,
    /// How the hosts' operating systems are prepared; groups and hosts may override each setting.
    pub(crate) system: SystemSection,
    /// What holds for every host.
    pub(crate) defaults: HostSettings,
    /// Sets of hosts that share settings, by name.
    pub(crate) groups: BTreeMap<String, GroupSection>,
    /// Hosts one by one.
    pub(crate) hosts: Vec<HostSection>,
}

/// The cluster as a whole.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name"]))]
pub(crate) struct ClusterSection {
    /// Name of the cluster: a DNS label. It names the state directory and the kubeconfig context.
    pub(crate) name: Option<String>,
    /// Where files lie on hosts. Default: `fhs`. What `classic` moves cannot be moved later.
    pub(crate) layout: Option<Layout>,
    /// What runs the components of masters. Default: `units`.
    pub(crate) masters: Option<MasterForm>,
    /// Who approves the first certificate of a new node. Default: `automatic`.
    pub(crate) node_approval: Option<NodeApproval>,
    /// DNS domain of services. Default: `cluster.local`.
    pub(crate) domain: Option<String>,
    /// Addresses of pods, cut into one range a node. Default: `10.244.0.0/16`.
    pub(crate) pod_cidr: Option<String>,
    /// Virtual addresses of services. Default: `10.254.0.0/16`.
    pub(crate) service_cidr: Option<String>,
    /// Answer names of the cluster, by a DNS server on each node. Off, `dns_address` is left to an addon.
    /// Default: true.
    pub(crate) dns: Option<bool>,
    /// Service address of the cluster DNS. Default: the tenth address of `service_cidr`.
    pub(crate) dns_address: Option<String>,
    /// Prefix length of each node's range. Default: 24.
    pub(crate) node_cidr_mask: Option<u8>,
    /// Ports of NodePort services, `FIRST-LAST`. Default: `30000-32767`.
    pub(crate) node_ports: Option<String>,
    /// Container image that holds each pod's namespaces. Default: `kprov.local/pause:3.10`.
    pub(crate) pause_image: Option<String>,
    /// Image archives (`docker save`) that are loaded on every node, relative to this file.
    pub(crate) images: Vec<String>,
}

/// What runs the components of a master.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MasterForm {
    /// systemd, a unit each.
    Units,
    /// The master's own kubelet, from a directory of manifests.
    StaticPods,
}

/// Who lets new nodes in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NodeApproval {
    /// The cluster: who has the bootstrap token may be a node.
    #[default]
    Automatic,
    /// People, by `kubectl certificate approve`.
    Manual,
}

/// How a host is reached.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SshSection {
    /// User to log in as. Default: `root`.
    pub(crate) user: Option<String>,
    /// TCP port of sshd. Default: 22.
    pub(crate) port: Option<u16>,
    /// Private key file, relative to this file; `~/` is the home directory.
    pub(crate) key: Option<String>,
    /// Take keys from the SSH agent. Default: true when no `key` is given.
    pub(crate) agent: Option<bool>,
    /// Run commands through sudo. Default: true unless the user is `root`.
    pub(crate) sudo: Option<bool>,
    /// What to do about a host key not seen before. Default: `accept-new`.
    pub(crate) host_key_policy: Option<HostKeyPolicy>,
    /// File of known host keys, relative to this file. Default: one of the cluster's own, in the
    /// state directory.
    pub(crate) known_hosts: Option<String>,
    /// Hosts to go through, from the operator's machine on: `USER@NAME:PORT`. Default: those of
    /// `ProxyJump` in ssh's own configuration.
    pub(crate) jump: Option<Vec<String>>,
    /// ssh's own configuration, relative to this file, or `none`. What this file says goes first.
    /// Default: `~/.ssh/config`, if it is there.
    pub(crate) config: Option<String>,
    /// Seconds to wait for a connection. Default: 10.
    pub(crate) connect_timeout_s: Option<u16>,
}

/// What to do about a host key not seen before. A changed key is refused in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HostKeyPolicy {
    /// Remember it.
    AcceptNew,
    /// Refuse the host.
    Strict,
}

/// How an operating system is prepared.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SystemSection {
    /// What is done about the host's firewall. Default: `auto`.
    pub(crate) firewall: Option<FirewallPolicy>,
    /// What is done about swap. Default: `keep`.
    pub(crate) swap: Option<SwapPolicy>,
    /// Whether a block of `/etc/hosts` names all hosts of the cluster. Default: false.
    pub(crate) hosts_file: Option<bool>,
    /// Further packages of the distribution.
    pub(crate) packages: Option<Vec<String>>,
    /// Where a Docker engine comes from when the host has none.
    pub(crate) docker: DockerSection,
    /// Limits of people and programs that log in; units have their own.
    pub(crate) limits: LimitsSection,
}

/// What is done about a firewall that is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FirewallPolicy {
    /// The ports that the host's roles need are opened, to those who need them.
    Auto,
    /// It is left alone; `plan` names the ports.
    None,
    /// It is switched off.
    Disable,
}

/// What is done about swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SwapPolicy {
    /// It stays as it is; kubelets are told to put up with it.
    Keep,
    /// It is switched off, now and at boot.
    Off,
}

/// Where a Docker engine comes from when a host has none.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct DockerSection {
    /// Whether kprov installs it. Default: true.
    pub(crate) install: Option<bool>,
    /// Its packages. Default: those of the distribution, or of Docker's own repository.
    pub(crate) packages: Option<Vec<String>>,
    /// A repository that has them, besides those that the host knows.
    pub(crate) repository: Option<RepositorySection>,
}

/// A repository of packages.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RepositorySection {
    /// Where it is: for `dnf` and `yum` the directory above `repodata`.
    pub(crate) url: Option<String>,
    /// For `apt`: the suite and its components.
    pub(crate) suite: Vec<String>,
    /// File of the key that signs it, in armor, relative to this file.
    pub(crate) key: Option<String>,
    /// Use it without a key. Default: false.
    pub(crate) unsigned: Option<bool>,
}

/// Limits of people and programs that log in.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LimitsSection {
    /// Open files of a process. Default: as the host has it.
    #[schemars(range(min = 1024, max = 1_048_576))]
    pub(crate) open_files: Option<u32>,
    /// Processes of a user. Default: as the host has it.
    #[schemars(range(min = 1024, max = 4_194_304))]
    pub(crate) processes: Option<u32>,
}

/// The pod network between hosts, and the service proxy.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct NetworkSection {
    /// How pod packets travel between hosts. Default: `vxlan`.
    pub(crate) backend: Option<Backend>,
    /// Who forwards for Open vSwitch, with `ovs-gre`. Default: `auto`.
    pub(crate) ovs_datapath: Option<OvsDatapath>,
    /// Largest packet of the pod network in bytes. Default: 1450 for vxlan, 1500 for host-gw,
    /// 1462 for ovs-gre.
    pub(crate) mtu: Option<u16>,
    /// Masquerade packets from pods to addresses outside the pod network. Default: true.
    pub(crate) masquerade: Option<bool>,
    /// How services are translated. Default: `auto`.
    pub(crate) proxy_mode: Option<ProxyMode>,
    /// The bridge of pods. Default: `cni0`, and `kbr0` with `ovs-gre`.
    pub(crate) pod_bridge: Option<PodBridge>,
}

/// How hosts reach the API servers.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LoadBalancerSection {
    /// Who spreads connections over the masters. Default: `external` with an `address`, else
    /// `local` where there are several masters.
    pub(crate) kind: Option<BalancerKind>,
    /// Of an external one: name or address, and port where it is not 6443. The API servers'
    /// certificates get the name.
    pub(crate) address: Option<String>,
}

/// Who spreads connections over the masters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BalancerKind {
    /// `hyperkube apiserver-proxy` on each host, at 127.0.0.1:6444.
    Local,
    /// A balancer of your own in front of all masters; masters use their own API server.
    External,
}

/// How pod packets travel between hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// In UDP, over any network.
    Vxlan,
    /// By routes, for hosts on one Ethernet segment.
    HostGw,
    /// In GRE, by tunnels of Open vSwitch.
    OvsGre,
}

impl Backend {
    /// The value of flanneld's `--backend`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vxlan => "vxlan",
            Self::HostGw => "host-gw",
            Self::OvsGre => "ovs-gre",
        }
    }

    /// Bytes that it adds to a packet of a pod: of vxlan the outer Ethernet, IPv4, UDP and vxlan
    /// headers less that of Ethernet, which no MTU counts, and the pod's own Ethernet header.
    pub fn overhead(self) -> u16 {
        match self {
            Self::Vxlan => 50,
            Self::HostGw => 0,
            // IPv4, GRE and the pod's own Ethernet header.
            Self::OvsGre => 38,
        }
    }
}

/// Who forwards for Open vSwitch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OvsDatapath {
    /// The kernel where it has the module `openvswitch`, else `ovs-vswitchd`.
    Auto,
    /// The kernel.
    System,
    /// `ovs-vswitchd` itself: works on any kernel, and is slow.
    Netdev,
}

impl OvsDatapath {
    /// The value of flanneld's `--ovs-datapath`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::System => "system",
            Self::Netdev => "netdev",
        }
    }
}

/// The bridge that pods are attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PodBridge {
    /// One of their own.
    Cni0,
    /// Docker's, on the range that flanneld tells it: what is started without Kubernetes is on it,
    /// too.
    Docker0,
    /// The one that Open vSwitch's tunnels end at, with `ovs-gre`.
    Kbr0,
}

impl PodBridge {
    /// The name of the bridge.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cni0 => "cni0",
            Self::Docker0 => "docker0",
            Self::Kbr0 => "kbr0",
        }
    }
}

/// How services are translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProxyMode {
    /// nftables where the host has it, else iptables.
    Auto,
    /// nftables.
    Nftables,
    /// iptables.
    Iptables,
}

impl ProxyMode {
    /// The `mode` of KubeProxyConfiguration, where the empty text means automatic.
    pub fn as_config(self) -> &'static str {
        match self {
            Self::Auto => "",
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        }
    }
}

/// Where the programs come from that kprov puts on hosts.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ArtifactsSection {
    /// The multi-call program of all components. Default: the file `hyperkube` beside kprov.
    pub(crate) hyperkube: Option<ArtifactSection>,
    /// The etcd server. Default: the file `etcd` beside kprov.
    pub(crate) etcd: Option<ArtifactSection>,
}

/// One program: `file`, or `url` with `sha256`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ArtifactSection {
    /// A file of the operator's machine, relative to this file.
    pub(crate) file: Option<String>,
    /// Distribution package that brings `file`: named in the message when it is missing.
    pub(crate) package: Option<String>,
    /// Where to fetch it, once, over HTTPS.
    pub(crate) url: Option<String>,
    /// SHA-256 of the program, 64 hexadecimal digits.
    pub(crate) sha256: Option<String>,
}

/// Certificates and keys.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PkiSection {
    /// Kind of new keys. Default: `ecdsa-p256`.
    pub(crate) algorithm: Option<KeyAlgorithm>,
    /// Life of a new authority in days. Default: 3650.
    #[schemars(range(min = 1, max = 36500))]
    pub(crate) ca_days: Option<u32>,
    /// Life of a new certificate in days. Default: 365.
    #[schemars(range(min = 1, max = 36500))]
    pub(crate) leaf_days: Option<u32>,
    /// Further names and addresses of the API server, such as that of a load balancer.
    pub(crate) api_server_names: Vec<String>,
    /// Warn about certificates that end within so many days. Default: 30.
    #[schemars(range(min = 1, max = 36500))]
    pub(crate) warn_days: Option<u32>,
    /// An authority of your own for everything but etcd. Default: kprov makes one.
    pub(crate) ca: Option<AuthoritySection>,
    /// An authority of your own for etcd. Default: kprov makes one.
    pub(crate) etcd_ca: Option<AuthoritySection>,
}

/// A certificate authority from outside.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["cert", "key"]))]
pub(crate) struct AuthoritySection {
    /// Its certificate (PEM), relative to this file.
    pub(crate) cert: Option<String>,
    /// Its key (PKCS#8 PEM, not encrypted), relative to this file.
    pub(crate) key: Option<String>,
}

/// Kind of new keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum KeyAlgorithm {
    /// ECDSA on the curve P-256.
    #[serde(rename = "ecdsa-p256")]
    EcdsaP256,
    /// RSA with 2048 bits.
    #[serde(rename = "rsa-2048")]
    Rsa2048,
}

/// Options of the components.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ComponentsSection {
    /// How much all components log, 0 (little) to 10. Default: 2; 4 in the layout `classic`.
    #[schemars(range(max = 10))]
    pub(crate) log_level: Option<u8>,
    /// Open files that etcd and the API server may have. Default: 16384; 65536 in the layout
    /// `classic`.
    #[schemars(range(min = 1024, max = 1_048_576))]
    pub(crate) open_files: Option<u32>,
    /// etcd.
    pub(crate) etcd: ComponentSection,
    /// kube-apiserver.
    #[serde(rename = "kube-apiserver")]
    pub(crate) kube_apiserver: ComponentSection,
    /// kube-controller-manager.
    #[serde(rename = "kube-controller-manager")]
    pub(crate) kube_controller_manager: ComponentSection,
    /// kube-scheduler.
    #[serde(rename = "kube-scheduler")]
    pub(crate) kube_scheduler: ComponentSection,
    /// kubelet.
    pub(crate) kubelet: ComponentSection,
    /// kube-proxy.
    #[serde(rename = "kube-proxy")]
    pub(crate) kube_proxy: ComponentSection,
    /// cluster-dns, the names of the cluster.
    #[serde(rename = "cluster-dns")]
    pub(crate) cluster_dns: ComponentSection,
    /// flanneld, the pod network.
    pub(crate) flanneld: ComponentSection,
    /// The balancer on each host.
    #[serde(rename = "apiserver-proxy")]
    pub(crate) apiserver_proxy: ComponentSection,
}

/// Options of one component.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ComponentSection {
    /// Further command-line flags, without the leading dashes; they win over kprov's own.
    pub(crate) args: BTreeMap<String, Scalar>,
}

/// How changes reach nodes that are at work.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RolloutSection {
    /// Nodes that change at the same time: a number, or a part of all such as `25%`. Default: `25%`.
    pub(crate) batch: Option<Scalar>,
    /// Nodes that change before all others. Default: 1.
    #[schemars(range(max = 1000))]
    pub(crate) canary: Option<u16>,
    /// How many times in a row a health gate must pass after something that ran was restarted.
    /// Default: 3.
    #[schemars(range(min = 1, max = 100))]
    pub(crate) passes: Option<u8>,
}

/// A command that runs before or after a phase of an apply that has something to do.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name", "command"]))]
pub(crate) struct HookSection {
    /// What it is called in reports.
    pub(crate) name: Option<String>,
    /// The phase that it runs before.
    pub(crate) before: Option<Phase>,
    /// The phase that it runs after, when that has gone well.
    pub(crate) after: Option<Phase>,
    /// Where it runs. Default: `operator`.
    pub(crate) on: Option<HookPlace>,
    /// With `on = "hosts"`: names of hosts, `node-[01-40]` for forty; all that the phase changes
    /// when left out.
    pub(crate) hosts: Vec<String>,
    /// A command for a POSIX shell; on hosts it runs as root.
    pub(crate) command: Option<String>,
    /// Seconds after which it is killed and the run ends. Default: 60.
    #[schemars(range(min = 1, max = 3600))]
    pub(crate) timeout_s: Option<u16>,
}

/// A part of the cluster that comes from manifests.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name", "manifests"]))]
pub(crate) struct AddonSection {
    /// What it is called in reports.
    pub(crate) name: Option<String>,
    /// Files of manifests (YAML or JSON), in this order, relative to this file.
    pub(crate) manifests: Vec<String>,
    /// Whether the next addon waits until the workloads of this one are ready. Default: true.
    pub(crate) wait: Option<bool>,
    /// Seconds after which the run ends if they are not. Default: 120.
    #[schemars(range(min = 1, max = 3600))]
    pub(crate) timeout_s: Option<u16>,
}

/// A part of an apply.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, serde::Serialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// All of it.
    Apply,
    /// Kernel settings, files of no unit, images.
    Host,
    /// The members of etcd.
    Etcd,
    /// The components of masters.
    ControlPlane,
    /// The components of nodes.
    Node,
}

impl Phase {
    /// The word in the inventory.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Apply => "apply",
            Self::Host => "host",
            Self::Etcd => "etcd",
            Self::ControlPlane => "control-plane",
            Self::Node => "node",
        }
    }
}

/// Where a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, serde::Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HookPlace {
    /// On the machine that kprov runs on.
    Operator,
    /// On hosts.
    Hosts,
}

/// Settings that a host has, from itself, its groups or the defaults, nearest first.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct HostSettings {
    /// What the host does.
    pub(crate) roles: Option<Vec<Role>>,
    /// Labels of the node.
    pub(crate) labels: BTreeMap<String, String>,
    /// Taints of the node, `KEY=VALUE:EFFECT` or `KEY:EFFECT`.
    pub(crate) taints: Vec<String>,
    /// How the host is reached.
    pub(crate) ssh: SshSection,
    /// How the host's operating system is prepared.
    pub(crate) system: SystemSection,
    /// Pods that the node may run. Default: 110.
    #[schemars(range(min = 1, max = 1000))]
    pub(crate) max_pods: Option<u16>,
}

/// A set of hosts that share settings.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["hosts"]))]
pub(crate) struct GroupSection {
    /// Names of hosts; `node-[01-40]` stands for forty.
    pub(crate) hosts: Vec<String>,
    /// Address of the first host: the others follow in order, and need no entry of their own.
    pub(crate) address_first: Option<String>,
    /// What the hosts do.
    pub(crate) roles: Option<Vec<Role>>,
    /// Labels of the nodes.
    pub(crate) labels: BTreeMap<String, String>,
    /// Taints of the nodes, `KEY=VALUE:EFFECT` or `KEY:EFFECT`.
    pub(crate) taints: Vec<String>,
    /// How the hosts are reached.
    pub(crate) ssh: SshSection,
    /// How the hosts' operating systems are prepared.
    pub(crate) system: SystemSection,
    /// Pods that each node may run. Default: 110.
    #[schemars(range(min = 1, max = 1000))]
    pub(crate) max_pods: Option<u16>,
}

/// One host.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name", "address"]))]
pub(crate) struct HostSection {
    /// Name of the host and of its node: a DNS label.
    pub(crate) name: Option<String>,
    /// IPv4 address by which kprov and all other hosts reach it.
    pub(crate) address: Option<String>,
    /// The only key that its sshd may show, as in `/etc/ssh/ssh_host_ed25519_key.pub` on the host.
    pub(crate) host_key: Option<String>,
    /// What the host does.
    pub(crate) roles: Option<Vec<Role>>,
    /// Labels of the node.
    pub(crate) labels: BTreeMap<String, String>,
    /// Taints of the node, `KEY=VALUE:EFFECT` or `KEY:EFFECT`.
    pub(crate) taints: Vec<String>,
    /// How the host is reached.
    pub(crate) ssh: SshSection,
    /// How the host's operating system is prepared.
    pub(crate) system: SystemSection,
    /// Pods that the node may run. Default: 110.
    #[schemars(range(min = 1, max = 1000))]
    pub(crate) max_pods: Option<u16>,
}

/// What a host does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Keeps the cluster's data.
    Etcd,
    /// Runs the API server, the controllers and the scheduler.
    Master,
    /// Runs pods.
    Node,
}

impl Role {
    /// The word in the inventory.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Master => "master",
            Self::Node => "node",
        }
    }
}

/// A flag's value: text, a whole number or a truth value.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(crate) enum Scalar {
    /// `true` or `false`.
    Truth(bool),
    /// A whole number.
    Number(i64),
    /// Text.
    Text(String),
}

impl std::fmt::Display for Scalar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Truth(value) => value.fmt(f),
            Self::Number(value) => value.fmt(f),
            Self::Text(value) => f.write_str(value),
        }
    }
}

impl JsonSchema for Scalar {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Scalar".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer", "boolean"] })
    }
}
