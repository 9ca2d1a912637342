//! Nodes as the scheduler sees them: parsed once, compact, with the sum of what is on them.

use std::collections::BTreeMap;

use api::Key;
use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Node, Taint};

use crate::disk::Disk;
use crate::pod_info::{HostPort, Load};
use crate::resources::{Resources, Sum};

/// A node with the sum of the pods that are bound to it or assumed to be.
///
/// What changes with every pod, and is read again for it, comes first and together: there may be
/// a hundred thousand of these, far more than processors hold close.
#[derive(Clone, Debug, Default, PartialEq)]
#[repr(C)]
pub struct NodeInfo {
    /// How many pods it takes.
    pub pods_max: i64,
    /// How many pods it has.
    pub pods: i64,
    /// What pods may ask for in all.
    pub allocatable: Resources,
    /// What its pods ask for.
    pub requested: Sum,
    /// What its pods count for when nodes are scored.
    pub scored: Sum,
    /// Ports of the host in use, and by how many pods.
    pub host_ports: BTreeMap<HostPort, u32>,
    /// The node's name.
    pub name: String,
    /// Whether there is such a node; else there are only pods that name it.
    pub(crate) known: bool,
    /// Whether it is cordoned.
    pub unschedulable: bool,
    /// The number of its zone in the order of nodes.
    pub(crate) zone_id: u32,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Taints.
    pub taints: Vec<Taint>,
    /// Images present, with their size in bytes.
    pub images: BTreeMap<String, i64>,
    /// Claims of its pods, and how many of them use each.
    pub claims: BTreeMap<Key, u32>,
    /// Disks that its pods name, and how many of them use each so.
    pub disks: BTreeMap<Disk, u32>,
    /// How many volumes it takes of each driver that says so.
    pub volume_limits: BTreeMap<String, usize>,
}

impl NodeInfo {
    /// Takes the node's own properties; the pods stay.
    pub fn set(&mut self, node: &Node) {
        self.name = node.metadata.name.clone().unwrap_or_default();
        self.known = true;
        self.labels = node.metadata.labels.clone().unwrap_or_default();
        let spec = node.spec.as_ref();
        self.taints = spec.and_then(|s| s.taints.clone()).unwrap_or_default();
        self.unschedulable = spec.and_then(|s| s.unschedulable).unwrap_or(false);
        let status = node.status.as_ref();
        let list = status.and_then(|s| s.allocatable.as_ref().or(s.capacity.as_ref()));
        self.allocatable = Resources::of_list(list);
        self.pods_max = list
            .and_then(|l| l.get("pods"))
            .and_then(|q| Quantity::parse(&q.0).ok())
            .map_or(0, Quantity::value);
        self.images = status
            .iter()
            .flat_map(|s| s.images.iter().flatten())
            .flat_map(|image| {
                let size = image.size_bytes.unwrap_or(0);
                image.names.iter().flatten().map(move |name| (name.clone(), size))
            })
            .collect();
    }

    /// Counts a pod in.
    pub fn add(&mut self, load: &Load) {
        self.pods += 1;
        self.requested.add(&load.requests);
        self.scored.add(&load.scored);
        count_in(&mut self.host_ports, &load.host_ports);
        count_in(&mut self.claims, &load.claims);
        count_in(&mut self.disks, &load.disks);
    }

    /// Counts a pod out that was counted in.
    pub fn remove(&mut self, load: &Load) {
        self.pods -= 1;
        self.requested.subtract(&load.requests);
        self.scored.subtract(&load.scored);
        count_out(&mut self.host_ports, &load.host_ports);
        count_out(&mut self.claims, &load.claims);
        count_out(&mut self.disks, &load.disks);
    }

    /// The zone, for interleaving; empty if the node has none.
    pub fn zone(&self) -> &str {
        self.labels.get("topology.kubernetes.io/zone").map_or("", String::as_str)
    }
}

fn count_in<T: Ord + Clone>(counts: &mut BTreeMap<T, u32>, used: &[T]) {
    for thing in used {
        *counts.entry(thing.clone()).or_default() += 1;
    }
}

fn count_out<T: Ord>(counts: &mut BTreeMap<T, u32>, used: &[T]) {
    for thing in used {
        if let Some(count) = counts.get_mut(thing) {
            *count -= 1;
            if *count == 0 {
                counts.remove(thing);
            }
        }
    }
}
