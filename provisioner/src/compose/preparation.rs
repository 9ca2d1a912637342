//! How a host's operating system is prepared: packages, swap, names, limits and its firewall.

use serde_json::json;

use super::{
    ComposeError,
    builder::{Builder, port},
};
use crate::{
    firewall::{FirewallState, Opening},
    inventory::{API_SERVER_PORT, Backend, Host, Role},
    layout::Layout,
    state::{BlockState, EngineSource, Protocol, RepositoryState},
};

/// Port of vxlan packets, as flannel uses it.
const VXLAN_PORT: u16 = 8472;

/// Lets people who log in call the programs by name.
const CLASSIC_PATH: &str = "export PATH=\"$PATH:/k8s/kubernetes/bin:/k8s/etcd/bin\"\n";

pub(super) fn add(builder: &mut Builder<'_>) -> Result<(), ComposeError> {
    let system = &builder.host.system;
    builder.state.packages = system.packages.clone();
    builder.state.package_files = builder.artifacts.packages.clone();
    builder.state.swap_off = system.swap_off;
    let key_of = |file: &std::path::PathBuf| builder.artifacts.repository_keys.get(file).cloned();
    builder.state.engine = EngineSource {
        install: system.docker.install,
        packages: system.docker.packages.clone(),
        repository: system.docker.repository.as_ref().map(|repository| RepositoryState {
            url: repository.url.clone(),
            suite: repository.suite.clone(),
            key: repository.key.as_ref().and_then(key_of),
        }),
    };
    if system.hosts_file {
        let line = |host: &Host| format!("{} {}\n", host.address, host.name);
        let text = builder.inventory.hosts.iter().map(line).collect();
        builder.state.blocks.push(BlockState { path: "/etc/hosts".to_owned(), text });
    }
    if builder.layout() == Layout::Classic {
        let (path, text) = ("/etc/profile".to_owned(), CLASSIC_PATH.to_owned());
        builder.state.blocks.push(BlockState { path, text });
    }
    let limits = [("nofile", system.limits.open_files), ("nproc", system.limits.processes)];
    let limits: Vec<_> = (limits.into_iter())
        .filter_map(|(name, value)| Some(json!({ "name": name, "value": value? })))
        .collect();
    if !limits.is_empty() {
        let path = "/etc/security/limits.d/90-kprov.conf";
        let text = builder.render("limits.conf", path, &json!({ "limits": limits }))?;
        builder.text(path, text);
    }
    builder.state.firewall = firewall(builder);
    Ok(())
}

/// What must pass, by role: etcd from its members and the masters, kubelets from the masters, the
/// pod network between nodes, DNS from pods, the API server from anyone. Node ports need no opening: the service
/// rules turn their packets into packets to pods before a firewall judges them.
fn firewall(builder: &Builder<'_>) -> FirewallState {
    let (inventory, host) = (builder.inventory, builder.host);
    let with = |roles: &'static [Role]| {
        (inventory.hosts.iter())
            .filter(move |other| other.name != host.name)
            .filter(move |other| roles.iter().any(|role| other.has(*role)))
            .map(|other| other.address)
    };
    let tcp = |port, roles| Opening::port_for(Protocol::Tcp, port, with(roles));
    let mut openings = Vec::new();
    if host.has(Role::Etcd) {
        openings.extend(tcp(port::ETCD_CLIENT, &[Role::Etcd, Role::Master]));
        openings.extend(tcp(port::ETCD_PEER, &[Role::Etcd]));
    }
    if host.has(Role::Master) {
        let (protocol, port) = (Protocol::Tcp, API_SERVER_PORT);
        openings.push(Opening::Port { protocol, port, from: None });
    }
    if host.has(Role::Node) {
        openings.extend(tcp(port::KUBELET, &[Role::Master]));
        if inventory.network.backend == Backend::Vxlan {
            openings.extend(Opening::port_for(Protocol::Udp, VXLAN_PORT, with(&[Role::Node])));
        }
        if inventory.network.backend == Backend::OvsGre {
            openings.extend(Opening::gre_for(with(&[Role::Node])));
        }
        if inventory.cluster.dns {
            let from = Some([inventory.cluster.pod_cidr].into());
            let port = |protocol| {
                let (port, from) = (port::CLUSTER_DNS, from.clone());
                Opening::Port { protocol, port, from }
            };
            openings.extend([Protocol::Tcp, Protocol::Udp].map(port));
        }
        openings.push(Opening::Pods { range: inventory.cluster.pod_cidr });
    }
    FirewallState {
        policy: host.system.firewall,
        address: Some(host.address),
        openings: openings.into_iter().collect(),
    }
}
