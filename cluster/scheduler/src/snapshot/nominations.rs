//! Nodes that were cleared for pods which are not there yet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::{Key, Name};

use crate::node_info::NodeInfo;
use crate::pod_info::PodClass;

/// A pod, and the node that was cleared for it.
#[derive(Clone, Debug)]
pub(crate) struct Nomination {
    pub(crate) node: Name,
    pub(crate) class: Arc<PodClass>,
}

/// Pods by the node that was cleared for them, which need not exist any more.
#[derive(Clone, Debug, Default)]
pub(crate) struct Nominations {
    pods: BTreeMap<Key, Nomination>,
    nodes: BTreeMap<Name, BTreeSet<Key>>,
}

impl Nominations {
    /// What was cleared for a pod.
    pub(crate) fn of(&self, pod: &Key) -> Option<&Nomination> {
        self.pods.get(pod)
    }

    /// The pods that a node was cleared for.
    pub(crate) fn on(&self, node: &str) -> impl Iterator<Item = (&Key, &Nomination)> {
        let pods = self.nodes.get(node).into_iter().flatten();
        pods.filter_map(|pod| Some((pod, self.pods.get(pod)?)))
    }

    /// The node as if the pods were there that it was cleared for, but for those of lower
    /// priority and `but`; `None` if that makes no difference.
    pub(crate) fn join(
        &self,
        priority: i32,
        but: Option<&Key>,
        node: &NodeInfo,
    ) -> Option<NodeInfo> {
        if self.nodes.is_empty() {
            return None;
        }
        let mut joined = None;
        for (pod, nomination) in self.on(&node.name) {
            if nomination.class.priority >= priority && Some(pod) != but {
                joined.get_or_insert_with(|| node.clone()).add(&nomination.class.load);
            }
        }
        joined
    }

    pub(super) fn insert(&mut self, pod: Key, nomination: Nomination) {
        self.nodes.entry(nomination.node.clone()).or_default().insert(pod.clone());
        self.pods.insert(pod, nomination);
    }

    pub(super) fn remove(&mut self, pod: &Key) -> Option<Nomination> {
        let nomination = self.pods.remove(pod)?;
        if let Some(pods) = self.nodes.get_mut(&nomination.node) {
            pods.remove(pod);
            if pods.is_empty() {
                self.nodes.remove(&nomination.node);
            }
        }
        Some(nomination)
    }
}
