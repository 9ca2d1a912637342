//! What the Kubernetes API documents of pods and nodes, written down once more for the checks:
//! nothing in here calls the code that is judged.
//!
//! Source: kubernetes.io/docs/concepts: "Assigning Pods to Nodes", "Taints and Tolerations",
//! "Resource Management for Pods and Containers", "Init Containers", "Labels and Selectors".

pub mod company;
pub mod limits;
pub mod schedules;
pub mod sets;
pub mod surplus;
pub mod volumes;

use std::collections::{BTreeMap, BTreeSet};

use api::quantity::Quantity as Amount;
use api::{Object, Pod, Time};
use k8s_openapi::api::core::v1::{
    Container, Node, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint, Toleration,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

/// The taint that stands for a cordoned node.
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

// --- amounts of resources ------------------------------------------------------------------

/// The resources that nearly every pod and node names, in the order of their names.
const COMMON: [&str; 4] = ["cpu", "ephemeral-storage", "memory", PODS];
const PODS: &str = "pods";

/// Amounts of resources by name: CPU in thousandths, everything else in whole units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Those of [`COMMON`].
    common: [i128; COMMON.len()],
    others: BTreeMap<String, i128>,
}

impl Amounts {
    fn of_list(list: Option<&BTreeMap<String, Quantity>>) -> Self {
        let mut amounts = Self::default();
        for (name, quantity) in list.into_iter().flatten() {
            let Ok(amount) = Amount::parse(&quantity.0) else { continue };
            let number = if name == "cpu" { amount.milli() } else { amount.value() };
            *amounts.entry(name) = number.into();
        }
        amounts
    }

    fn entry(&mut self, name: &str) -> &mut i128 {
        match COMMON.iter().position(|common| *common == name) {
            Some(at) => &mut self.common[at],
            None => self.others.entry(name.to_owned()).or_default(),
        }
    }

    fn get(&self, name: &str) -> i128 {
        match COMMON.iter().position(|common| *common == name) {
            Some(at) => self.common[at],
            None => self.others.get(name).copied().unwrap_or(0),
        }
    }

    fn named(&self) -> impl Iterator<Item = (&str, i128)> {
        let common = COMMON.into_iter().zip(self.common);
        common.chain(self.others.iter().map(|(name, amount)| (name.as_str(), *amount)))
    }

    /// Adds the amounts, `sign` times (1 or -1).
    pub fn add(&mut self, other: &Self, sign: i128) {
        self.common.iter_mut().zip(other.common).for_each(|(sum, amount)| *sum += amount * sign);
        for (name, amount) in &other.others {
            *self.entry(name) += amount * sign;
        }
    }

    fn raise_to(&mut self, other: &Self) {
        self.common.iter_mut().zip(other.common).for_each(|(most, amount)| {
            *most = (*most).max(amount);
        });
        for (name, amount) in &other.others {
            let most = self.entry(name);
            *most = (*most).max(*amount);
        }
    }

    /// The amount of one resource, zero when it is not named.
    pub fn of(&self, name: &str) -> i64 {
        let amount = self.get(name);
        i64::try_from(amount).unwrap_or(if amount < 0 { i64::MIN } else { i64::MAX })
    }

    /// The first resource of which these amounts, all of them used, exceed what `limits` has,
    /// with the two numbers. What is asked for by nobody is never short.
    pub fn beyond(&self, limits: &Self) -> Option<(&str, i128, i128)> {
        let (name, used) =
            self.named().find(|(name, used)| *used > 0 && *used > limits.get(name))?;
        Some((name, used, limits.get(name)))
    }
}

/// What a pod asks for, itself counted as one of `pods`: the sum of its containers, or the
/// largest step of its initialisation if that is more, plus its overhead. Sidecars count in both.
pub fn requests(spec: &PodSpec) -> Amounts {
    let mut sum = steps(spec, |c| {
        Amounts::of_list(c.resources.as_ref().and_then(|resources| resources.requests.as_ref()))
    });
    sum.add(&Amounts::of_list(spec.overhead.as_ref()), 1);
    *sum.entry(PODS) = 1;
    sum
}

/// What a pod may have at most, added up as what it asks for; nothing where it is not limited.
pub fn limits_of(spec: &PodSpec) -> Amounts {
    steps(spec, |c| {
        Amounts::of_list(c.resources.as_ref().and_then(|resources| resources.limits.as_ref()))
    })
}

/// The sum of the containers, or the largest step of the initialisation if that is more.
fn steps(spec: &PodSpec, of: impl Fn(&Container) -> Amounts) -> Amounts {
    let (mut running, mut sidecars, mut peak) =
        (Amounts::default(), Amounts::default(), Amounts::default());
    for container in spec.init_containers.iter().flatten() {
        let mut step = of(container);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars.add(&step, 1);
            peak.raise_to(&sidecars);
        } else {
            step.add(&sidecars, 1);
            peak.raise_to(&step);
        }
    }
    running.add(&sidecars, 1);
    for container in &spec.containers {
        running.add(&of(container), 1);
    }
    running.raise_to(&peak);
    running
}

/// What pods may have of a node.
pub fn allocatable(node: &Node) -> Amounts {
    let status = node.status.as_ref();
    Amounts::of_list(status.and_then(|s| s.allocatable.as_ref().or(s.capacity.as_ref())))
}

/// A port of the node that a pod takes: number, protocol, address (empty for all).
pub type HostPort = (i32, String, String);

/// The ports of the node that a pod takes.
pub fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecar = |c: &&Container| c.restart_policy.as_deref() == Some("Always");
    let sidecars = spec.init_containers.iter().flatten().filter(sidecar);
    let ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    ports
        .filter_map(|p| {
            let number = p.host_port.filter(|n| *n > 0)?;
            let address = p.host_ip.clone().filter(|ip| ip != "0.0.0.0").unwrap_or_default();
            Some((number, p.protocol.clone().unwrap_or_else(|| "TCP".to_owned()), address))
        })
        .collect()
}

/// Whether two pods cannot both have these ports on one node.
pub fn ports_clash(a: &HostPort, b: &HostPort) -> bool {
    a.0 == b.0 && a.1 == b.1 && (a.2 == b.2 || a.2.is_empty() || b.2.is_empty())
}

// --- where a pod may go --------------------------------------------------------------------

/// Whether a toleration covers a taint: effects and keys are equal or left out (a key only with
/// `Exists`), values are equal unless the operator is `Exists`.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let given = |text: &Option<String>| text.clone().filter(|t| !t.is_empty());
    let exists = match toleration.operator.as_deref() {
        None | Some("" | "Equal") => false,
        Some("Exists") => true,
        Some(_) => return false,
    };
    let key = given(&toleration.key);
    if key.is_none() && !exists {
        return false;
    }
    given(&toleration.effect).is_none_or(|effect| effect == taint.effect)
        && key.is_none_or(|key| key == taint.key)
        && (exists || given(&toleration.value) == given(&taint.value))
}

fn tolerations(spec: &PodSpec) -> &[Toleration] {
    spec.tolerations.as_deref().unwrap_or_default()
}

/// Why the node's taints, or that it is cordoned, keep the pod away.
///
/// # Errors
/// The words for what keeps it away.
pub fn taints_allow(spec: &PodSpec, node: &Node) -> Result<(), String> {
    let cordon = Taint {
        key: UNSCHEDULABLE.to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    };
    let covered = |taint: &Taint| tolerations(spec).iter().any(|t| tolerates(t, taint));
    let Some(node) = &node.spec else { return Ok(()) };
    if node.unschedulable == Some(true) && !covered(&cordon) {
        return Err("it is cordoned".to_owned());
    }
    let hard = |t: &&Taint| t.effect == "NoSchedule" || t.effect == "NoExecute";
    match node.taints.iter().flatten().filter(hard).find(|taint| !covered(taint)) {
        Some(taint) => Err(format!("it has the taint {}:{}", taint.key, taint.effect)),
        None => Ok(()),
    }
}

/// Why the pod's node selector or required node affinity excludes the node.
///
/// # Errors
/// The words for what excludes it.
pub fn labels_allow(spec: &PodSpec, node: &Node) -> Result<(), String> {
    let labels = node.metadata.labels.as_ref();
    let has = |key: &String, value: &String| labels.and_then(|l| l.get(key)) == Some(value);
    if let Some((key, value)) = spec.node_selector.iter().flatten().find(|(k, v)| !has(k, v)) {
        return Err(format!("it lacks the label {key}={value}"));
    }
    let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    let required =
        affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    match required {
        Some(r) if !r.node_selector_terms.iter().any(|term| term_matches(term, node)) => {
            Err("no term of the required node affinity matches it".to_owned())
        }
        _ => Ok(()),
    }
}

fn term_matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let labels = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let label = |key: &str| node.metadata.labels.as_ref().and_then(|l| l.get(key)).cloned();
    let field = |key: &str| node.metadata.name.clone().filter(|_| key == "metadata.name");
    !(labels.is_empty() && fields.is_empty())
        && labels.iter().all(|r| requirement_holds(r, label(&r.key)))
        && fields.iter().all(|r| requirement_holds(r, field(&r.key)))
}

fn requirement_holds(requirement: &NodeSelectorRequirement, value: Option<String>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let numbers = || {
        let bound: i64 = values.first()?.parse().ok()?;
        Some((value.as_ref()?.parse::<i64>().ok()?, bound))
    };
    match requirement.operator.as_str() {
        "In" => value.is_some_and(|v| values.contains(&v)),
        "NotIn" => value.is_none_or(|v| !values.contains(&v)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => numbers().is_some_and(|(value, bound)| value > bound),
        "Lt" => numbers().is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}

// --- labels --------------------------------------------------------------------------------

/// Whether labels satisfy a selector; the empty selector matches everything.
pub fn selects(selector: &LabelSelector, labels: Option<&BTreeMap<String, String>>) -> bool {
    let value = |key: &str| labels.and_then(|l| l.get(key));
    let equal = selector.match_labels.iter().flatten().all(|(k, v)| value(k) == Some(v));
    equal
        && selector.match_expressions.iter().flatten().all(|r| {
            let values = r.values.as_deref().unwrap_or_default();
            match r.operator.as_str() {
                "In" => value(&r.key).is_some_and(|v| values.contains(v)),
                "NotIn" => value(&r.key).is_none_or(|v| !values.contains(v)),
                "Exists" => value(&r.key).is_some(),
                "DoesNotExist" => value(&r.key).is_none(),
                _ => false,
            }
        })
}

// --- pods ----------------------------------------------------------------------------------

/// The pod inside an object, if it is one.
pub fn pod(object: Option<&Object>) -> Option<&Pod> {
    object?.get()
}

/// The node a pod is bound to.
pub fn node_of(pod: &Pod) -> Option<&str> {
    pod.node_name.as_deref()
}

/// The phase, empty when it was never reported.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

/// Whether the pod has ended for good.
pub fn has_ended(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether deletion has been asked for.
pub const fn is_going(meta: &ObjectMeta) -> bool {
    meta.deletion_timestamp.is_some()
}

/// Whether the pod counts as a replica: it has not ended and is not being deleted.
pub fn is_active(pod: &Pod) -> bool {
    !has_ended(pod) && !is_going(&pod.metadata)
}

/// Whether a condition of the pod is true.
pub fn condition_is_true(pod: &Pod, kind: &str) -> bool {
    let mut conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.any(|c| c.type_ == kind && c.status == "True")
}

/// Whether the pod is ready.
pub fn is_ready(pod: &Pod) -> bool {
    condition_is_true(pod, "Ready")
}

/// Whether gates hold the pod back from scheduling.
pub fn is_gated(pod: &Pod) -> bool {
    pod.spec.iter().flat_map(|s| s.scheduling_gates.iter().flatten()).next().is_some()
}

/// The group that a pod is placed together with, and how many of it have to be, as its labels say.
pub fn group(pod: &Pod) -> Option<(&str, usize)> {
    let labels = pod.metadata.labels.as_ref()?;
    let name = labels.get("scheduling.x-k8s.io/pod-group")?;
    let min = labels.get("scheduling.x-k8s.io/pod-group-min-available")?;
    Some((name, min.parse().ok()?))
}

/// The UID of the controller that owns an object.
pub fn controller(meta: &ObjectMeta) -> Option<&str> {
    let mut owners = meta.owner_references.iter().flatten();
    owners.find(|o| o.controller == Some(true)).map(|o| o.uid.as_str())
}

/// When a pod must leave a node because of taints with `NoExecute`, each given with the time
/// since when it has been there; `None` when it may stay. A pod that arrived later counts from
/// its arrival.
pub fn must_leave_at(pod: &Pod, taints: &[(&Taint, Time)], arrived: Time) -> Option<Time> {
    let spec = pod.spec.as_ref()?;
    let due = taints.iter().filter_map(|(taint, since)| {
        let Some(covering) = tolerations(spec).iter().find(|t| tolerates(t, taint)) else {
            return Some(Time::ZERO);
        };
        let seconds = u64::try_from(covering.toleration_seconds?).unwrap_or(0);
        Some((*since).max(arrived) + std::time::Duration::from_secs(seconds))
    });
    due.min()
}

/// The condition `Ready` of a node: `True`, `False`, `Unknown`, or empty when it never reported.
pub fn readiness(node: &Node) -> &str {
    let mut conditions = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.find(|c| c.type_ == "Ready").map_or("", |c| c.status.as_str())
}

/// Names of a set, the first few, for messages.
pub fn some_of<T: std::fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    const SHOWN: usize = 4;
    let all: Vec<String> = items.into_iter().map(|i| i.to_string()).collect();
    let more = all.len().saturating_sub(SHOWN);
    let shown: BTreeSet<&String> = all.iter().take(SHOWN).collect();
    let mut text = shown.into_iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    if text.is_empty() { "none".to_owned() } else { text }
}

#[cfg(test)]
mod tests;
