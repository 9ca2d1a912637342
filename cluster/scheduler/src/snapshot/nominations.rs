//! Nodes that were cleared for pods which are not there yet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::{Key, Name};

use crate::node_info::NodeInfo;
use crate::pod_info::PodClass;
use crate::relations::{Kin, Numbered};

/// A pod, and the node that was cleared for it.
#[derive(Clone, Debug)]
pub(crate) struct Nomination {
    pub(crate) node: Name,
    pub(crate) class: Arc<PodClass>,
    pub(crate) kin: Arc<Numbered<Kin>>,
}

/// Pods by the node that was cleared for them, which need not exist any more.
#[derive(Clone, Debug, Default)]
pub(crate) struct Nominations {
    pods: BTreeMap<Key, Nomination>,
    nodes: BTreeMap<Name, BTreeSet<Key>>,
    /// How many pods there are of each priority, and how many of them have terms.
    priorities: BTreeMap<i32, (usize, usize)>,
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

    /// The pods that a node was cleared for and to which one of that priority yields, but `but`.
    pub(crate) fn ahead<'a>(
        &'a self,
        node: &str,
        priority: i32,
        but: Option<&'a Key>,
    ) -> impl Iterator<Item = &'a Nomination> {
        let ahead = self.on(node).filter(move |(pod, nomination)| {
            nomination.class.priority >= priority && Some(*pod) != but
        });
        ahead.map(|(_, nomination)| nomination)
    }

    /// The node as if the pods were on it that [`Self::ahead`] tells; `None` if there are none.
    pub(crate) fn join(
        &self,
        priority: i32,
        but: Option<&Key>,
        node: &NodeInfo,
    ) -> Option<NodeInfo> {
        let mut joined = None;
        for nomination in self.ahead(&node.name, priority, but) {
            joined.get_or_insert_with(|| node.clone()).add(&nomination.class.load);
        }
        joined
    }

    /// Whether a pod to which one of that priority yields may make a difference by other things
    /// than its load: any may to one that `looks` at other pods.
    pub(crate) fn bear(&self, priority: i32, looks: bool) -> bool {
        self.priorities.range(priority..).any(|(_, (_, terms))| looks || *terms > 0)
    }

    pub(super) fn insert(&mut self, pod: Key, nomination: Nomination) {
        self.nodes.entry(nomination.node.clone()).or_default().insert(pod.clone());
        let (pods, terms) = self.priorities.entry(nomination.class.priority).or_default();
        *pods += 1;
        *terms += usize::from(nomination.kin.terms.is_some());
        self.pods.insert(pod, nomination);
    }

    pub(super) fn remove(&mut self, pod: &Key) -> Option<Nomination> {
        let nomination = self.pods.remove(pod)?;
        let priority = nomination.class.priority;
        if let Some((pods, terms)) = self.priorities.get_mut(&priority) {
            *pods -= 1;
            *terms -= usize::from(nomination.kin.terms.is_some());
            if *pods == 0 {
                self.priorities.remove(&priority);
            }
        }
        if let Some(pods) = self.nodes.get_mut(&nomination.node) {
            pods.remove(pod);
            if pods.is_empty() {
                self.nodes.remove(&nomination.node);
            }
        }
        Some(nomination)
    }
}
