//! Hollow nodes: many kubelets in one process whose containers exist on paper only.
//!
//! Each node is the production [`kubelet::Kubelet`] in its production shell. Instead of Docker it
//! has the model of a container runtime that simulations have, by the wall clock. What can be
//! shared is: one watch a kind for all nodes, the connections, the writer of events.

mod news;
mod runtime;

use std::net::Ipv4Addr;
use std::time::Duration;

use api::{ApiError, Name, hash};
use client::{Client, Clock};
use http::Method;
use kubelet::container_runtime::{ContainerRuntime, NodeShape};
use kubelet::{Kubelet, KubeletConfig};
use machine::Recorded;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::kubelet_shell::{ApiAccess, KubeletShell, ShellConfig};
use news::{Router, deliver};
use runtime::HollowRuntime;

pub use runtime::Delays;

/// The label of hollow nodes: whoever set them up finds and deletes them by it.
pub const LABEL: (&str, &str) = ("kprov.io/hollow", "true");
/// Nodes get addresses of the network for benchmarks, which no host has: a request that is meant
/// for a kubelet fails instead of reaching a host that happens to have the address.
///
/// Source: RFC 2544, appendix C.2.2.
const NETWORK: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
/// So many have an address of [`NETWORK`], a /15.
pub const NODES_MAX: u32 = (1 << 17) - 2;
/// Calls under way at a time, of all nodes together; more wait. Fewer than a connection takes.
const CALLS_MAX: usize = 256;
/// Nobody pulls it, but pods are told of it by name.
const PAUSE_IMAGE: &str = "kprov.local/pause:3.10";
/// Nodes of one page of a list.
const PAGE: usize = 500;

/// What hollow nodes are.
#[derive(Clone, Debug)]
pub struct HollowConfig {
    /// A node's name is this and its number.
    pub name_prefix: String,
    /// The number of the first node.
    pub first: u32,
    /// How many nodes; with `first` at most [`NODES_MAX`].
    pub count: u32,
    /// What each offers.
    pub shape: NodeShape,
    /// Pods that fit on each.
    pub max_pods: u32,
    /// Labels of each, besides [`LABEL`].
    pub labels: Vec<(String, String)>,
    /// Taints that each registers with: key, value, effect.
    pub taints: Vec<(String, String, String)>,
    /// How long containers take.
    pub delays: Delays,
    /// The nodes start one after the other within this time, so that their periodic duties do not
    /// fall together.
    pub start_within: Duration,
}

/// Why hollow nodes cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum HollowError {
    /// The nodes that there are cannot be listed.
    #[error("cannot list the nodes of the cluster")]
    List(#[source] ApiError),
    /// A node of that name is there that is not hollow.
    #[error(
        "the cluster has a node {0} already that is not hollow: \
         choose another --name-prefix, or other numbers"
    )]
    Occupied(String),
}

impl HollowConfig {
    fn name(&self, number: u32) -> String {
        format!("{}{number}", self.name_prefix)
    }

    /// The number of the node of that name, if it is one of these.
    fn number(&self, name: &str) -> Option<u32> {
        let number = name.strip_prefix(&*self.name_prefix)?.parse().ok()?;
        // Other texts of the same number are other names.
        let ours = (self.first..self.first + self.count).contains(&number);
        (ours && self.name(number) == name).then_some(number)
    }

    fn kubelet(&self, number: u32) -> KubeletConfig {
        let label = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        let labels = self.labels.iter().cloned().chain([label(LABEL)]);
        KubeletConfig {
            node_name: self.name(number),
            node_ip: Ipv4Addr::from(u32::from(NETWORK) + 1 + number).to_string(),
            node_labels: labels.collect(),
            register_taints: self.taints.clone(),
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".to_owned(),
            max_pods: self.max_pods,
            pause_image: PAUSE_IMAGE.to_owned(),
            root_dir: "/var/lib/kubelet".to_owned(),
            // Nobody listens.
            port: 0,
            version: api::version::GIT_VERSION.to_owned(),
            reserved_cpu_milli: 0,
            reserved_memory_bytes: 0,
        }
    }

    fn runtime(&self, node_name: &str, clock: Clock) -> HollowRuntime {
        // What ran before this process is gone, and its identifiers shall not come again.
        let born = clock.now().0.to_le_bytes();
        let ids = hash::fnv64(&[node_name.as_bytes(), &born].concat());
        let mut model = ContainerRuntime::new(self.shape, 0, ids);
        model.load_image(PAUSE_IMAGE);
        HollowRuntime::new(model, self.delays, clock)
    }

    /// When the node starts, from the start of the first.
    fn start(&self, number: u32) -> Duration {
        self.start_within * (number - self.first) / self.count.max(1)
    }
}

/// Runs the nodes until `shutdown` turns true; calls `ready` when they begin to register. They
/// stay registered. News comes by `watches`, calls go by `client`: two clients, so that neither
/// waits for the other.
///
/// # Errors
/// The API cannot be read, or the cluster has real nodes of these names.
pub async fn run(
    config: HollowConfig,
    client: Client,
    watches: Client,
    mut shutdown: watch::Receiver<bool>,
    ready: impl FnOnce(),
) -> Result<(), HollowError> {
    tokio::select! {
        checked = spare_real_nodes(&config, &client) => checked?,
        _ = shutdown.wait_for(|stop| *stop) => return Ok(()),
    }
    let clock = Clock::new();
    let api = ApiAccess::new(client, CALLS_MAX);
    let mut router = Router::default();
    let mut nodes = JoinSet::new();
    for number in config.first..config.first + config.count {
        let kubelet = config.kubelet(number);
        let runtime = config.runtime(&kubelet.node_name, clock);
        let name = Name::new(&kubelet.node_name);
        let machine = Recorded::silent(Kubelet::new(kubelet.clone()));
        let shell = KubeletShell::new(ShellConfig { kubelet, static_pod_path: None }, machine);
        router.add(name, shell.inputs());
        let (start, api, mut shutdown) = (config.start(number), api.clone(), shutdown.clone());
        nodes.spawn(async move {
            let stop = shutdown.wait_for(|stop| *stop);
            let stopped = tokio::time::timeout(start, stop).await.is_ok();
            if !stopped {
                shell.drive(api, runtime, shutdown).await;
            }
        });
    }
    let news = tokio::spawn(deliver(watches, router));
    ready();
    while let Some(ended) = nodes.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a hollow node died");
        }
    }
    news.abort();
    Ok(())
}

/// Makes sure that no node of the cluster is taken over that is not hollow.
async fn spare_real_nodes(config: &HollowConfig, client: &Client) -> Result<(), HollowError> {
    let mut token = String::new();
    loop {
        let path = format!(
            "/api/v1/nodes?labelSelector=%21{}&limit={PAGE}&continue={token}",
            LABEL.0.replace('/', "%2F")
        );
        let list = client.json(Method::GET, &path, "", String::new()).await;
        let list = list.map_err(HollowError::List)?;
        let names = list["items"].as_array().into_iter().flatten();
        let mut names = names.filter_map(|n| n["metadata"]["name"].as_str());
        if let Some(name) = names.find(|n| config.number(n).is_some()) {
            return Err(HollowError::Occupied(name.to_owned()));
        }
        match list["metadata"]["continue"].as_str().unwrap_or_default() {
            "" => return Ok(()),
            next => token = client::escape(next),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> HollowConfig {
        HollowConfig {
            name_prefix: "hollow-".to_owned(),
            first: 10,
            count: 300,
            shape: NodeShape { cpus: 4, memory_bytes: 1 << 30, disk_bytes: 1 << 30 },
            max_pods: 110,
            labels: vec![("zone".to_owned(), "a".to_owned())],
            taints: Vec::new(),
            delays: Delays::default(),
            start_within: Duration::from_secs(10),
        }
    }

    #[test]
    fn nodes_are_told_apart_and_known_by_their_names() {
        let config = config();
        let node = config.kubelet(309);
        assert_eq!((&*node.node_name, &*node.node_ip), ("hollow-309", "198.18.1.54"));
        let labels: Vec<_> = node.node_labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(labels, ["zone=a", "kprov.io/hollow=true"]);
        assert_eq!(config.number("hollow-309"), Some(309));
        for other in ["hollow-9", "hollow-310", "hollow-010", "hollow-", "node-10", "hollow-10a"] {
            assert_eq!(config.number(other), None, "{other}");
        }
    }

    #[test]
    fn starts_are_spread_evenly() {
        let config = config();
        assert_eq!(config.start(10), Duration::ZERO);
        assert_eq!(config.start(160), Duration::from_secs(5));
        assert!(config.start(309) < config.start_within);
    }
}
