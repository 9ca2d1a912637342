//! Which nodes shall run a daemon.

use std::collections::BTreeMap;

use api::selector::Selector;
use api::{Pod, meta};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{
    Affinity, Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint,
    Toleration,
};

use crate::node_lifecycle::NO_EXECUTE;
use crate::taint_eviction::tolerates;

/// The field by which a pod is tied to its node.
const NODE_NAME: &str = "metadata.name";

/// Taints that keep other pods away and no daemon: most daemons are needed most when their node is
/// in trouble.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", NO_EXECUTE),
    ("node.kubernetes.io/unreachable", NO_EXECUTE),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];

/// Without a network only what needs none of its own can run.
const TOLERATED_ON_HOST_NETWORK: (&str, &str) =
    ("node.kubernetes.io/network-unavailable", "NoSchedule");

/// What a node means to a daemon set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fit {
    /// It shall run a pod.
    pub(crate) run: bool,
    /// A pod that it runs may stay.
    pub(crate) stay: bool,
}

/// What a daemon set asks of its nodes.
pub(crate) struct Demand {
    /// The one node that the template names; empty for any.
    node: String,
    node_selector: Selector,
    /// Required node affinity: labels and fields of each term, of which one must match.
    terms: Option<Vec<[Selector; 2]>>,
    tolerations: Vec<Toleration>,
}

impl Demand {
    pub(crate) fn of(set: &DaemonSet) -> Self {
        let template = set.spec.as_ref().and_then(|s| s.template.spec.as_ref());
        let mut tolerations = template.and_then(|s| s.tolerations.clone()).unwrap_or_default();
        let host_network = template.and_then(|s| s.host_network) == Some(true);
        add_tolerations(&mut tolerations, host_network);
        let required = template.and_then(|s| s.affinity.as_ref()).and_then(required);
        Self {
            node: template.and_then(|s| s.node_name.clone()).unwrap_or_default(),
            node_selector: template
                .and_then(|s| s.node_selector.as_ref())
                .map(Selector::of_map)
                .unwrap_or_default(),
            terms: required.map(|r| r.node_selector_terms.iter().filter_map(parse).collect()),
            tolerations,
        }
    }

    /// Whether the node shall run a pod, and keep one.
    ///
    /// Source: kubernetes 1.33, `pkg/controller/daemon/daemon_controller.go`,
    /// `NodeShouldRunDaemonPod`.
    pub(crate) fn fit(&self, node: &Node) -> Fit {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let named = self.node.is_empty() || self.node == name;
        if !named || !self.matches(node, name) {
            return Fit::default();
        }
        let suffers =
            |t: &Taint| !self.tolerations.iter().any(|toleration| tolerates(toleration, t));
        let taints = node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default();
        let drives_away = |t: &&Taint| t.effect == NO_EXECUTE;
        let keeps_away = |t: &&Taint| t.effect == NO_EXECUTE || t.effect == "NoSchedule";
        Fit {
            run: !taints.iter().filter(keeps_away).any(suffers),
            stay: !taints.iter().filter(drives_away).any(suffers),
        }
    }

    fn matches(&self, node: &Node, name: &str) -> bool {
        let labels = node.metadata.labels.as_ref();
        if !self.node_selector.matches(labels) {
            return false;
        }
        let Some(terms) = &self.terms else { return true };
        let fields = BTreeMap::from([(NODE_NAME.to_owned(), name.to_owned())]);
        terms.iter().any(|[of_labels, of_fields]| {
            of_labels.matches(labels) && of_fields.matches(Some(&fields))
        })
    }
}

/// Labels and fields that a term requires; `None` for one that matches nothing: because it requires
/// nothing, or what nobody understands.
fn parse(term: &NodeSelectorTerm) -> Option<[Selector; 2]> {
    let [mut labels, mut fields] = [Selector::default(), Selector::default()];
    for (list, selector) in
        [(&term.match_expressions, &mut labels), (&term.match_fields, &mut fields)]
    {
        for r in list.iter().flatten() {
            selector.require(&r.key, &r.operator, r.values.as_deref().unwrap_or_default()).ok()?;
        }
    }
    let empty = labels.is_everything() && fields.is_everything();
    (!empty).then_some([labels, fields])
}

/// Whether what changed of a node may change what it means to any daemon set.
pub(crate) fn differ(old: &Node, new: &Node) -> bool {
    let taints = |node: &Node| node.spec.as_ref().and_then(|s| s.taints.clone());
    old.metadata.labels != new.metadata.labels || taints(old) != taints(new)
}

/// Gives the pods of a daemon set what lets them stay where no other pod could.
fn add_tolerations(tolerations: &mut Vec<Toleration>, host_network: bool) {
    let on_host = host_network.then_some(TOLERATED_ON_HOST_NETWORK);
    for (key, effect) in TOLERATED.into_iter().chain(on_host) {
        let wanted = Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            value: None,
            toleration_seconds: None,
        };
        let same = |t: &&mut Toleration| {
            t.key == wanted.key
                && t.effect == wanted.effect
                && t.operator == wanted.operator
                && t.value.as_deref().unwrap_or_default().is_empty()
        };
        // One that lasts for a while only is made to last.
        match tolerations.iter_mut().find(same) {
            Some(present) => *present = wanted,
            None => tolerations.push(wanted),
        }
    }
}

fn required(affinity: &Affinity) -> Option<&NodeSelector> {
    affinity.node_affinity.as_ref()?.required_during_scheduling_ignored_during_execution.as_ref()
}

/// Completes the spec of all pods of a daemon set.
pub(crate) fn tolerate(spec: &mut PodSpec) {
    let host_network = spec.host_network == Some(true);
    add_tolerations(spec.tolerations.get_or_insert_default(), host_network);
}

/// Ties a pod to a node that it fits: the scheduler binds it, once there is room. Required affinity
/// of the template, which the node has met, gives way.
pub(crate) fn tie(spec: &mut PodSpec, node: &str) {
    let name = NodeSelectorRequirement {
        key: NODE_NAME.to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let term = NodeSelectorTerm { match_expressions: None, match_fields: Some(vec![name]) };
    spec.affinity
        .get_or_insert_default()
        .node_affinity
        .get_or_insert_default()
        .required_during_scheduling_ignored_during_execution =
        Some(NodeSelector { node_selector_terms: vec![term] });
}

/// The node that a pod is bound to, or tied to; `None` if it is neither.
pub(crate) fn target(pod: &Pod) -> Option<&str> {
    if !pod.node().is_empty() {
        return Some(pod.node());
    }
    let required = required(pod.spec.as_ref()?.affinity.as_ref()?)?;
    let mut fields =
        required.node_selector_terms.iter().flat_map(|t| t.match_fields.iter().flatten());
    let tie = fields.find(|f| f.key == NODE_NAME && f.operator == "In")?;
    match tie.values.as_deref() {
        Some([name]) => Some(name),
        _ => None,
    }
}

/// The order of the pods of one node: the first stays.
pub(crate) fn seniority(pod: &Pod) -> (bool, api::Time, &str) {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    (pod.node().is_empty(), meta::created_at(&pod.metadata), name)
}
