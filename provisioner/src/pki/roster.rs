//! Which certificates a cluster has: who they name, what they are for.

use crate::inventory::{Cluster, Host, Inventory, LoadBalancer, MasterForm, Role};
use crate::layout::Layout;

/// What the users of kubelets begin with; the node's name follows.
pub(crate) const NODE_PREFIX: &str = "system:node:";

/// A kind of certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeafKind {
    /// etcd towards its clients; one an etcd host.
    EtcdServer,
    /// etcd towards its peers, in both directions; one an etcd host.
    EtcdPeer,
    /// Asks etcd for its health; one an etcd host.
    EtcdHealth,
    /// The API server towards etcd; one a master.
    ApiServerEtcdClient,
    /// The API server towards its clients; one a master.
    ApiServer,
    /// The API server towards kubelets; one a master.
    ApiServerKubeletClient,
    /// The controller manager towards the API server; one a master.
    ControllerManager,
    /// The controller manager's own endpoint; one a master.
    ControllerManagerServing,
    /// The scheduler towards the API server; one a master.
    Scheduler,
    /// The scheduler's own endpoint; one a master.
    SchedulerServing,
    /// The kubelet of a master whose components are its pods, so that it can start before them.
    Kubelet,
    /// kube-proxy towards the API server; one a node.
    KubeProxy,
    /// flanneld towards the API server; one a node.
    Flanneld,
    /// The DNS server towards the API server; one a node.
    ClusterDns,
    /// The operator; one a cluster, on no host.
    Admin,
}

impl LeafKind {
    /// All kinds.
    pub const ALL: [Self; 15] = [
        Self::EtcdServer,
        Self::EtcdPeer,
        Self::EtcdHealth,
        Self::ApiServerEtcdClient,
        Self::ApiServer,
        Self::ApiServerKubeletClient,
        Self::ControllerManager,
        Self::ControllerManagerServing,
        Self::Scheduler,
        Self::SchedulerServing,
        Self::Kubelet,
        Self::KubeProxy,
        Self::Flanneld,
        Self::ClusterDns,
        Self::Admin,
    ];

    /// The kind's word in names of files and on the command line.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::EtcdServer => "etcd-server",
            Self::EtcdPeer => "etcd-peer",
            Self::EtcdHealth => "etcd-health",
            Self::ApiServerEtcdClient => "apiserver-etcd-client",
            Self::ApiServer => "apiserver",
            Self::ApiServerKubeletClient => "apiserver-kubelet-client",
            Self::ControllerManager => "controller-manager",
            Self::ControllerManagerServing => "controller-manager-serving",
            Self::Scheduler => "scheduler",
            Self::SchedulerServing => "scheduler-serving",
            Self::Kubelet => "kubelet",
            Self::KubeProxy => "kube-proxy",
            Self::Flanneld => "flanneld",
            Self::ClusterDns => "cluster-dns",
            Self::Admin => "admin",
        }
    }

    /// Where a host keeps certificate and key. `None` for the operator's, which is on no host.
    #[must_use]
    pub fn paths(self, layout: Layout) -> Option<[String; 2]> {
        let (folder, stem) = match self {
            Self::Admin => return None,
            Self::EtcdServer => (layout.etcd_certificates(), "server"),
            Self::EtcdPeer => (layout.etcd_certificates(), "peer"),
            Self::EtcdHealth => (layout.etcd_certificates(), "healthcheck-client"),
            _ => (layout.certificates(), self.word()),
        };
        Some(layout.certificate(folder, stem))
    }

    /// Name of the files of this kind for `host`, without extension.
    #[must_use]
    pub fn id(self, host: &str) -> String {
        let kind = self.word();
        // Names of hosts are DNS labels, so a dot parts the two for sure.
        if host.is_empty() { kind.to_owned() } else { format!("{kind}.{host}") }
    }

    /// Tells whether the authority of etcd signs this kind.
    pub(super) fn is_etcd(self) -> bool {
        matches!(
            self,
            Self::EtcdServer | Self::EtcdPeer | Self::EtcdHealth | Self::ApiServerEtcdClient
        )
    }

    /// Common name, the user of a client certificate; `None` stands for the host's name, with
    /// [`NODE_PREFIX`] for a kubelet.
    fn common_name(self) -> Option<&'static str> {
        Some(match self {
            Self::EtcdServer | Self::EtcdPeer | Self::Kubelet => return None,
            Self::EtcdHealth => "kube-etcd-healthcheck-client",
            Self::ApiServerEtcdClient => "kube-apiserver-etcd-client",
            Self::ApiServer => "kube-apiserver",
            Self::ApiServerKubeletClient => "kube-apiserver-kubelet-client",
            Self::ControllerManager | Self::ControllerManagerServing => {
                "system:kube-controller-manager"
            }
            Self::Scheduler | Self::SchedulerServing => "system:kube-scheduler",
            Self::KubeProxy => "system:kube-proxy",
            Self::Flanneld => "system:flannel",
            Self::ClusterDns => "system:kube-dns",
            Self::Admin => "kubernetes-admin",
        })
    }

    /// Organization, the group of a client certificate.
    fn organization(self) -> Option<&'static str> {
        match self {
            // The kubelet asks the API server whether the user may; kubeadm's choice of group too.
            Self::ApiServerKubeletClient | Self::Admin => Some("system:masters"),
            Self::KubeProxy => Some("system:node-proxier"),
            Self::Kubelet => Some("system:nodes"),
            _ => None,
        }
    }

    /// Whether it is shown by a server, and by a client.
    fn usages(self) -> (bool, bool) {
        match self {
            // etcd's own gateway calls its server with the server's certificate.
            Self::EtcdServer | Self::EtcdPeer => (true, true),
            Self::ApiServer | Self::ControllerManagerServing | Self::SchedulerServing => {
                (true, false)
            }
            _ => (false, true),
        }
    }
}

/// A certificate as it is wanted.
pub(super) struct LeafSpec {
    pub(super) id: String,
    pub(super) kind: LeafKind,
    pub(super) common_name: String,
    pub(super) organization: Option<&'static str>,
    /// DNS names and addresses, sorted, each once.
    pub(super) names: Vec<String>,
    pub(super) server: bool,
    pub(super) client: bool,
}

/// All certificates of the cluster.
pub(super) fn roster(inventory: &Inventory) -> Vec<LeafSpec> {
    let mut specs = Vec::new();
    for host in &inventory.hosts {
        for kind in kinds(host, &inventory.cluster) {
            specs.push(spec(kind, Some(host), inventory));
        }
    }
    specs.push(spec(LeafKind::Admin, None, inventory));
    specs
}

fn kinds(host: &Host, cluster: &Cluster) -> Vec<LeafKind> {
    let mut kinds = Vec::new();
    if host.has(Role::Etcd) {
        kinds.extend([LeafKind::EtcdServer, LeafKind::EtcdPeer, LeafKind::EtcdHealth]);
    }
    if host.has(Role::Master) {
        kinds.extend([
            LeafKind::ApiServerEtcdClient,
            LeafKind::ApiServer,
            LeafKind::ApiServerKubeletClient,
            LeafKind::ControllerManager,
            LeafKind::ControllerManagerServing,
            LeafKind::Scheduler,
            LeafKind::SchedulerServing,
        ]);
    }
    if host.has(Role::Master) && cluster.masters == MasterForm::StaticPods {
        kinds.push(LeafKind::Kubelet);
    }
    if host.has(Role::Node) {
        kinds.extend([LeafKind::KubeProxy, LeafKind::Flanneld]);
        kinds.extend(cluster.dns.then_some(LeafKind::ClusterDns));
    }
    kinds
}

fn spec(kind: LeafKind, host: Option<&Host>, inventory: &Inventory) -> LeafSpec {
    let host_name = host.map_or("", |h| h.name.as_str());
    let (server, client) = kind.usages();
    let mut names = match (server, host) {
        (true, Some(_)) if kind == LeafKind::ApiServer => api_server_names(inventory),
        (true, Some(host)) => loopback_and(host),
        _ => Vec::new(),
    };
    names.sort();
    names.dedup();
    LeafSpec {
        id: kind.id(host_name),
        kind,
        common_name: match (kind, kind.common_name()) {
            (LeafKind::Kubelet, _) => format!("{NODE_PREFIX}{host_name}"),
            (_, name) => name.unwrap_or(host_name).to_owned(),
        },
        organization: kind.organization(),
        names,
        server,
        client,
    }
}

fn loopback_and(host: &Host) -> Vec<String> {
    vec![
        host.name.clone(),
        host.address.to_string(),
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
    ]
}

/// Every master's certificate has the names of all: a client that falls over to another master
/// through one name must not be refused.
fn api_server_names(inventory: &Inventory) -> Vec<String> {
    let cluster = &inventory.cluster;
    let mut names = vec![
        cluster.api_address().to_string(),
        "kubernetes".to_owned(),
        "kubernetes.default".to_owned(),
        "kubernetes.default.svc".to_owned(),
        "kubernetes.default.svc.cluster".to_owned(),
        format!("kubernetes.default.svc.{}", cluster.domain),
    ];
    for master in inventory.with_role(Role::Master) {
        names.extend(loopback_and(master));
    }
    if let LoadBalancer::External { name, .. } = &inventory.load_balancer {
        names.push(name.clone());
    }
    names.extend(inventory.pki.api_server_names.iter().cloned());
    names
}
