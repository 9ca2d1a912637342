//! What happens to nodes that are not heard of, and to their pods: P43.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use api::{Key, Kind, Object, Pod, Request, Revision, Subresource, Time};
use k8s_openapi::api::core::v1::{Node, Taint};

use super::brood::{Life, Lives, PATIENCE};
use super::placement::NodesShown;
use crate::check::{Check, Cluster, Occurrence, Role};
use crate::oracle;
use crate::plan::{Component, Fault, Plan};
use crate::world::ProcessId;

/// The two marks of a lost node: one follows the other without a new beginning.
const LOST: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
const ZONE: &str = "topology.kubernetes.io/zone";
const REGION: &str = "topology.kubernetes.io/region";
const EXCLUDED: &str = "node.kubernetes.io/exclude-disruption";

/// `--node-eviction-rate`: one node in ten seconds.
const SPACING: Duration = Duration::from_secs(10);
/// `--secondary-node-eviction-rate`: one in a hundred seconds, in large zones that are disrupted.
const SPACING_DISRUPTED: Duration = Duration::from_secs(100);
/// `--unhealthy-zone-threshold`, percent.
const DISRUPTED_PERCENT: usize = 55;
/// `--large-cluster-size-threshold`: smaller zones that are disrupted evict nothing.
const LARGE_ZONE: usize = 50;
/// Stamps have whole seconds.
const SECOND: Duration = Duration::from_secs(1);
/// So long may the write of a taint take from its stamp to the store.
const WRITE_MAX: Duration = Duration::from_secs(30);

fn no_execute(node: &Node) -> impl Iterator<Item = &Taint> {
    let taints = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
    taints.filter(|t| t.effect == "NoExecute")
}

fn is_lost(taint: &Taint) -> bool {
    LOST.contains(&taint.key.as_str())
}

/// What counts as one and the same mark of a node.
fn mark(taint: &Taint) -> String {
    if is_lost(taint) { "lost".to_owned() } else { taint.key.clone() }
}

/// When marks were set on nodes, as stored.
#[derive(Clone, Default)]
struct Marks(BTreeMap<(String, String), Vec<(Revision, Time)>>);

impl Marks {
    fn committed(&mut self, now: Time, old: Option<&Node>, new: &Node, at: Revision) {
        let had: Vec<String> = old.into_iter().flat_map(no_execute).map(mark).collect();
        let name = new.metadata.name.clone().unwrap_or_default();
        let added = no_execute(new).map(mark).filter(|m| !had.contains(m));
        for mark in added {
            let since = self.0.entry((name.clone(), mark)).or_default();
            if since.last().is_none_or(|(r, _)| *r != at) {
                since.push((at, now));
            }
        }
    }

    /// Since when a node that was shown as of a revision has had a mark.
    fn since(&self, node: &str, taint: &Taint, shown: Revision) -> Option<Time> {
        let since = self.0.get(&(node.to_owned(), mark(taint)))?;
        since.iter().rev().find(|(at, _)| *at <= shown).map(|(_, time)| *time)
    }
}

/// A zone: region and name.
type Zone = (String, String);

fn zone_of(node: &Node) -> Zone {
    let labels = node.metadata.labels.as_ref();
    let label = |key| labels.and_then(|l| l.get(key)).cloned().unwrap_or_default();
    (label(REGION), label(ZONE))
}

/// How many nodes of a zone are ready, and how many are not.
#[derive(Clone, Copy, Debug, Default)]
struct Health {
    ready: usize,
    not_ready: usize,
}

impl Health {
    const fn is_disrupted(self) -> bool {
        let all = self.ready + self.not_ready;
        self.ready > 0 && self.not_ready > 2 && self.not_ready * 100 >= all * DISRUPTED_PERCENT
    }
}

fn health<'a>(nodes: impl Iterator<Item = &'a Node>) -> BTreeMap<Zone, Health> {
    let mut zones: BTreeMap<Zone, Health> = BTreeMap::new();
    for node in nodes {
        let labels = node.metadata.labels.as_ref();
        if labels.is_some_and(|l| l.contains_key(EXCLUDED)) {
            continue;
        }
        let zone = zones.entry(zone_of(node)).or_default();
        if oracle::readiness(node) == "True" {
            zone.ready += 1;
        } else {
            zone.not_ready += 1;
        }
    }
    zones
}

/// A plan to evict pods of a node, as far as it says who has to leave.
#[derive(Clone)]
struct Eviction {
    /// The marks of the node that were shown when it was made, and since when they were there.
    taints: Vec<(Taint, Time)>,
    began: Time,
    /// When the last of its calls was made.
    at: Time,
}

/// A mark that a controller manager has asked for.
#[derive(Clone)]
struct Asked {
    at: Time,
    zone: Zone,
    spacing: Duration,
}

/// P43: pods leave a lost node only when they no longer tolerate it, and nodes are given up slowly
/// or, when most are lost, not at all.
///
/// What counts for the rate is when marks were asked for that were carried out. A node that was
/// given up and has come back does not count: nothing was lost by it. Neither does a mark that is
/// carried out when nobody waits for its answer any more. Whether the rate holds across two leaders
/// is not judged; each sees the marks of the other.
///
/// A plan to evict is carried out in batches, each after the answers to the last: who had to leave
/// when it was made may be evicted though the node is shown to have come back meanwhile.
#[derive(Clone)]
pub(super) struct GivenUpSlowly {
    shown: NodesShown,
    marks: Marks,
    lives: Lives,
    /// Pods that a controller manager has said to evict: mark and deletion go out together, so
    /// the store need not have the mark yet.
    evicted: BTreeSet<(ProcessId, Key)>,
    /// Plans to evict, by the name of the node.
    evictions: BTreeMap<(Life, String), Eviction>,
    /// Nodes that were asked to be marked, by name.
    asked: BTreeMap<(Life, String), Asked>,
    /// The node that was last given up in each zone, and when that was asked for.
    last: BTreeMap<(Life, Zone), (String, Time)>,
    /// How far the clocks of controller managers may be wrong: one that is behind writes marks that
    /// look older than they are.
    skew: Duration,
}

impl GivenUpSlowly {
    pub(super) fn new(plan: &Plan) -> Self {
        let off = |fault: &Fault| match fault.skews() {
            Some((Component::ControllerManager(_), off)) => off.0,
            _ => 0,
        };
        let skew = plan.faults.iter().map(|f| off(&f.fault)).max().unwrap_or(0);
        Self {
            shown: NodesShown::new(Role::ControllerManager),
            marks: Marks::default(),
            lives: Lives::default(),
            evicted: BTreeSet::new(),
            evictions: BTreeMap::new(),
            asked: BTreeMap::new(),
            last: BTreeMap::new(),
            skew: Duration::from_nanos(skew),
        }
    }

    /// The marks of a node that a process was shown, and since when they may have been there.
    fn taints(&self, by: ProcessId, node_name: &str) -> Option<Vec<(Taint, Time)>> {
        let node = self.shown.get(by, node_name)?;
        let shown = node.metadata.resource_version.as_deref().and_then(Revision::parse)?;
        let taints = no_execute(node).filter_map(|taint| {
            let since = self.marks.since(node_name, taint, shown)?;
            let stamped = Time(since.0.saturating_sub(nanos(WRITE_MAX)));
            Some((taint.clone(), stamped))
        });
        Some(taints.collect())
    }

    /// The plan that a call belongs to by which a pod of a node is evicted.
    fn eviction(&mut self, now: Time, by: ProcessId, node_name: &str) -> Option<&Eviction> {
        let name = (self.lives.of(by), node_name.to_owned());
        if self.evictions.get(&name).is_none_or(|plan| now.since(plan.at) > PATIENCE) {
            let taints = self.taints(by, node_name)?;
            self.evictions.insert(name.clone(), Eviction { taints, began: now, at: now });
        }
        let plan = self.evictions.get_mut(&name)?;
        plan.at = now;
        Some(plan)
    }

    /// Judges the deletion of a pod that the taint manager marked.
    fn evicts(
        &mut self,
        cluster: &dyn Cluster,
        by: ProcessId,
        key: &Key,
        pod: &Pod,
    ) -> Option<String> {
        let node_name = oracle::node_of(pod)?;
        let (now, skew) = (cluster.now(), self.skew);
        let mut conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
        let arrived = conditions.find(|c| c.type_ == "PodScheduled");
        let arrived = arrived.and_then(|c| c.last_transition_time.as_ref()).map(Time::from_meta);
        let due = |taints: &[(Taint, Time)]| {
            let taints: Vec<(&Taint, Time)> = taints.iter().map(|(t, at)| (t, *at)).collect();
            oracle::must_leave_at(pod, &taints, arrived.unwrap_or_default())
        };
        let plan = self.eviction(now, by, node_name)?;
        if due(&plan.taints).is_some_and(|due| due <= plan.began + skew) {
            return None;
        }
        let Some(due) = due(&self.taints(by, node_name)?) else {
            return Some(format!("{key} is evicted from {node_name}, whose taints it tolerates"));
        };
        let early = due.since(now + skew);
        (early > Duration::ZERO).then(|| {
            let early = early.as_secs();
            format!("{key} is evicted from {node_name} {early} s before its toleration is over")
        })
    }

    /// Judges that a node is to be given up.
    fn gives_up(&mut self, cluster: &dyn Cluster, by: ProcessId, node: &Node) -> Option<String> {
        let name = node.metadata.name.clone()?;
        let before = self.shown.get(by, &name)?;
        if no_execute(before).any(is_lost) || !no_execute(node).any(is_lost) {
            return None;
        }
        let zones = health(self.shown.all(by));
        if !zones.is_empty() && zones.values().all(|z| z.ready == 0) {
            return Some(format!("{name} is given up while no node at all is ready"));
        }
        let zone = zone_of(before);
        let health = zones.get(&zone).copied().unwrap_or_default();
        let all = health.ready + health.not_ready;
        let spacing = match health.is_disrupted() {
            false => SPACING,
            true if all > LARGE_ZONE => SPACING_DISRUPTED,
            true => {
                let lost = health.not_ready;
                return Some(format!(
                    "{name} is given up while {lost} of the {all} nodes of its zone are lost"
                ));
            }
        };
        let asked = Asked { at: cluster.now(), zone, spacing };
        self.asked.insert((self.lives.of(by), name), asked);
        None
    }

    /// Judges the time at which a node was given up.
    fn given_up(&mut self, now: Time, by: ProcessId, node: &Node) -> Option<String> {
        let name = node.metadata.name.clone()?;
        let life = self.lives.of(by);
        let Asked { at, zone, spacing } = self.asked.remove(&(life, name.clone()))?;
        if now.since(at) > PATIENCE {
            return None;
        }
        let (other, before) = self.last.insert((life, zone), (name.clone(), at))?;
        let shown = self.shown.get(by, &other);
        let is_back = shown.is_none_or(|node| oracle::readiness(node) == "True");
        let apart = at.since(before);
        (other != name && !is_back && self.skew.is_zero() && apart + SECOND < spacing).then(|| {
            format!(
                "{name} is given up {} s after {other}, and {} s is the least",
                apart.as_secs(),
                spacing.as_secs()
            )
        })
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Whether the taint manager has marked the pod.
fn is_marked(pod: &Pod) -> bool {
    let mut conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.any(|c| c.reason.as_deref() == Some("DeletionByTaintManager") && c.status == "True")
}

impl Check for GivenUpSlowly {
    fn property(&self) -> &'static str {
        "P43"
    }

    fn statement(&self) -> &'static str {
        "pods leave a lost node only when they no longer tolerate it, and nodes are given up slowly"
    }

    fn observe(
        &mut self,
        cluster: &dyn Cluster,
        occurrence: &Occurrence<'_>,
        found: &mut Vec<String>,
    ) {
        self.lives.observe(occurrence);
        self.shown.observe(cluster, occurrence);
        if let Some((by, key)) = occurrence.pod_given_up(cluster) {
            let evicted = self.evicted.remove(&(by, key.clone()));
            let pod = oracle::pod(cluster.object(key));
            // What was marked in another life may now be given up by its controller.
            let alone = |p: &Pod| oracle::controller(&p.metadata).is_none();
            if let Some(pod) = pod.filter(|p| evicted || is_marked(p) && alone(p)) {
                found.extend(self.evicts(cluster, by, key, pod));
            }
            return;
        }
        match occurrence {
            Occurrence::Committed { by, key, old, new: Some(new), revision, .. }
                if key.kind == Kind::Node =>
            {
                if let Some(node) = new.get() {
                    let old = old.and_then(Object::get);
                    self.marks.committed(cluster.now(), old, node, *revision);
                    let was_lost = old.is_some_and(|old| no_execute(old).any(is_lost));
                    if let Some(by) = by.filter(|_| !was_lost && no_execute(node).any(is_lost)) {
                        found.extend(self.given_up(cluster.now(), by, node));
                    }
                }
            }
            Occurrence::Called {
                by,
                request:
                    Request::Update {
                        object: object @ Object::Pod(pod),
                        subresource: Some(Subresource::Status),
                    },
            } if cluster.role(*by) == Role::ControllerManager && is_marked(pod) => {
                self.evicted.insert((*by, object.key()));
                if let Some(node_name) = oracle::node_of(pod) {
                    self.eviction(cluster.now(), *by, node_name);
                }
            }
            Occurrence::Answered { by: Some(by), request, refusal: Some(_) } => {
                let pod = match request {
                    Request::Delete { key, .. } => oracle::pod(cluster.object(key)),
                    Request::Update { object, .. } => oracle::pod(Some(object)),
                    _ => None,
                };
                if let Some(node_name) = pod.and_then(oracle::node_of) {
                    self.evictions.remove(&(self.lives.of(*by), node_name.to_owned()));
                    // What it has marked it may never delete, or another of its controllers may.
                    let of_plan = |key: &Key| {
                        oracle::pod(cluster.object(key)).and_then(oracle::node_of)
                            == Some(node_name)
                    };
                    self.evicted.retain(|(who, key)| who != by || !of_plan(key));
                }
            }
            Occurrence::Started(process) => {
                self.evictions.retain(|((by, _), _), _| by != process);
            }
            Occurrence::Called {
                by,
                request: Request::Update { object: Object::Node(node), subresource: None },
            } if cluster.role(*by) == Role::ControllerManager => {
                found.extend(self.gives_up(cluster, *by, node));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
