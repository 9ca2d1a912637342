//! [`Snapshot`]: all nodes and the pods on them, kept current by changes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;

use crate::rows::{NodeInfo, PodInfo};

/// The nodes in the order in which they are tried: zones in turn, then by name.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    nodes: BTreeMap<String, NodeInfo>,
    /// Names of known nodes, zones interleaved.
    order: Vec<String>,
    images: BTreeMap<String, usize>,
}

impl Snapshot {
    /// How many nodes there are.
    pub const fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether there is no node.
    pub const fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// The node at `index` of the order.
    pub fn at(&self, index: usize) -> &NodeInfo {
        &self.nodes[&self.order[index]]
    }

    /// The node of that name.
    pub fn get(&self, name: &str) -> Option<&NodeInfo> {
        self.nodes.get(name).filter(|n| !n.name.is_empty())
    }

    /// All nodes in order.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeInfo> {
        self.order.iter().map(|name| &self.nodes[name])
    }

    /// On how many nodes an image is present.
    pub fn nodes_with_image(&self, image: &str) -> usize {
        self.images.get(image).copied().unwrap_or(0)
    }

    /// Takes a new or changed node.
    pub fn set_node(&mut self, node: &Node) {
        let name = node.metadata.name.clone().unwrap_or_default();
        let info = self.nodes.entry(name).or_default();
        let (new, zone) = (info.name.is_empty(), info.zone().to_owned());
        let before: Vec<String> = info.images.keys().cloned().collect();
        info.set(node);
        let moved = info.zone() != zone;
        for image in info.images.keys() {
            *self.images.entry(image.clone()).or_default() += 1;
        }
        for image in before {
            self.forget_image(&image);
        }
        if new || moved {
            self.reorder();
        }
    }

    /// Forgets a node; pods bound to it stay counted in case it comes back.
    pub fn remove_node(&mut self, name: &str) {
        let Some(info) = self.nodes.get_mut(name) else { return };
        let images: Vec<String> = std::mem::take(&mut info.images).into_keys().collect();
        info.name.clear();
        if info.pods.is_empty() {
            self.nodes.remove(name);
        }
        for image in images {
            self.forget_image(&image);
        }
        self.reorder();
    }

    /// Counts a pod in on its node.
    pub fn add_pod(&mut self, pod: &PodInfo) {
        self.nodes.entry(pod.node.clone()).or_default().add(pod);
    }

    /// Counts a pod out of its node.
    pub fn remove_pod(&mut self, pod: &PodInfo) {
        if let Some(info) = self.nodes.get_mut(&pod.node) {
            info.remove(pod);
            if info.name.is_empty() && info.pods.is_empty() {
                self.nodes.remove(&pod.node);
            }
        }
    }

    fn forget_image(&mut self, image: &str) {
        if let Some(count) = self.images.get_mut(image) {
            *count -= 1;
            if *count == 0 {
                self.images.remove(image);
            }
        }
    }

    fn reorder(&mut self) {
        let mut zones: BTreeMap<&str, Vec<&String>> = BTreeMap::new();
        for (name, info) in self.nodes.iter().filter(|(_, info)| !info.name.is_empty()) {
            zones.entry(info.zone()).or_default().push(name);
        }
        let longest = zones.values().map(Vec::len).max().unwrap_or(0);
        let mut order = Vec::with_capacity(self.nodes.len());
        for i in 0..longest {
            order.extend(zones.values().filter_map(|names| names.get(i)).map(|n| (*n).clone()));
        }
        self.order = order;
    }
}
