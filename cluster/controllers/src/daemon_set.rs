//! `DaemonSet`: one pod on each node that is meant.
//!
//! A pod is tied to its node by required affinity; the scheduler binds it. What the template was
//! before is kept in controller revisions, whose hash the pods are labelled with.
//!
//! Source: kubernetes 1.33, `pkg/controller/daemon`.

mod history;
pub(crate) mod nodes;
mod placement;
mod rollout;
mod status;

use std::collections::BTreeMap;
use std::time::Duration;

use api::selector::Selector;
use api::{ApiError, Key, Kind, Object, Pod, Request, Time, meta};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetSpec};
use k8s_openapi::api::core::v1::Node;
use machine::{Aspects, Cache, Delta, Index, Memory, Plan, Reconciler};

use self::history::History;
use self::nodes::{Demand, Fit};
use crate::labels::{Labels, Orphans};
use crate::ownership::{self, Claim, required_labels, workload_selector};
use crate::readiness::Readiness;
use crate::replicas::seconds;
use crate::revisions::POD_LABEL as HASH;
use crate::selectors::{Selecting, Selectors};
use crate::{announce, pods, quota_room};

/// The same as a number, which only the annotation of the daemon set explains.
const GENERATION_LABEL: &str = "pod-template-generation";

/// How often the template of a daemon set was changed.
const GENERATION: &str = "deprecated.daemonset.template.generation";

/// No more pods are created, nor deleted, in one pass.
const BURST_MAX: usize = 250;

/// Keeps a pod of each daemon set on each node that it asks for.
pub struct DaemonSets;

impl Reconciler for DaemonSets {
    fn name(&self) -> &'static str {
        "daemonset-controller"
    }

    fn kinds(&self) -> &'static [Kind] {
        &[Kind::DaemonSet, Kind::ControllerRevision, Kind::Pod, Kind::Node]
    }

    fn hears_of(&self) -> &'static [Kind] {
        quota_room::KINDS
    }

    fn indexes(&self) -> Vec<Box<dyn Index>> {
        vec![
            Box::<Orphans<Pod>>::default(),
            Box::<Orphans<ControllerRevision>>::default(),
            Box::<Selectors<DaemonSet>>::default(),
        ]
    }

    fn heeds(&self, kind: Kind) -> Aspects {
        match kind {
            Kind::Pod => {
                let counted = Aspects::EXISTENCE | Aspects::META | Aspects::PHASE;
                counted | Aspects::READINESS | Aspects::NODE
            }
            _ => Aspects::ALL,
        }
    }

    fn keys_for(&self, cache: &Cache, delta: &Delta) -> Vec<Key> {
        if let Some(keys) = quota_room::affected(cache, delta, is_short) {
            return keys;
        }
        match delta.key.kind {
            Kind::DaemonSet => vec![delta.key.clone()],
            Kind::Node => of_node(cache, delta),
            _ if !ownership::concerns::<DaemonSet>(cache, delta) => Vec::new(),
            Kind::Pod => {
                let pod = |object: &Option<Object>| object.as_ref().and_then(Object::share::<Pod>);
                let (old, new) = (pod(&delta.old), pod(&delta.new));
                let same = match (&old, &new) {
                    (Some(old), Some(new)) => relevant(old) == relevant(new),
                    _ => false,
                };
                if same { Vec::new() } else { of_dependent(cache, delta) }
            }
            _ => of_dependent(cache, delta),
        }
    }

    fn reconcile(&self, cache: &Cache, key: &Key, now: Time) -> Plan {
        self.reconcile_with(cache, key, now, &mut Memory::default())
    }

    fn reconcile_with(&self, cache: &Cache, key: &Key, now: Time, memory: &mut Memory) -> Plan {
        let mut plan = Plan::nothing();
        if let Some(mut pass) = Pass::new(cache, key, now, &mut plan) {
            let pods = pass.pods.iter().copied();
            pass.readiness = Readiness::note(memory, pass.min_ready(), pods, now);
            pass.run(&mut plan);
        }
        plan
    }

    fn note_refusal(
        &self,
        cache: &Cache,
        key: &Key,
        request: &Request,
        _error: &ApiError,
        now: Time,
    ) -> Option<Request> {
        // The status is the end of a plan, of which nothing is carried out after a refusal.
        if request.writes() != Some(Kind::Pod) {
            return None;
        }
        Pass::new(cache, key, now, &mut Plan::nothing())?.report(&mut Plan::nothing())
    }
}

impl Selecting for DaemonSet {
    fn required_labels(&self) -> Option<&Labels> {
        required_labels(&self.spec.as_ref()?.selector)
    }
}

/// Whether a node was without its pod when it was last looked at.
fn is_short(set: &DaemonSet) -> bool {
    let status = set.status.as_ref();
    status.is_some_and(|s| s.current_number_scheduled < s.desired_number_scheduled)
}

/// What may change the plan of a pod's owner.
fn relevant(pod: &Pod) -> impl PartialEq + '_ {
    let meta = &pod.metadata;
    (
        (meta.uid.as_ref(), meta.labels.as_ref(), meta::controller_of(meta)),
        (pods::is_terminal(pod), meta::is_terminating(meta), pods::ready_since(pod)),
        pod.node(),
    )
}

/// The daemon sets that a change of a pod or a revision affects: owners, old and new, and whoever
/// may adopt an orphan.
fn of_dependent(cache: &Cache, delta: &Delta) -> Vec<Key> {
    let selector = |set: &DaemonSet| {
        set.spec.as_ref().map_or_else(Selector::nothing, |s| workload_selector(&s.selector))
    };
    ownership::affected(cache, delta, selector).into_iter().collect()
}

/// The daemon sets to which a node means something else than before. Nodes report all the time, and
/// hardly ever anything that matters here.
fn of_node(cache: &Cache, delta: &Delta) -> Vec<Key> {
    let node = |object: &Option<Object>| object.as_ref().and_then(Object::share::<Node>);
    let (old, new) = (node(&delta.old), node(&delta.new));
    if let (Some(old), Some(new)) = (&old, &new)
        && !nodes::differ(old, new)
    {
        return Vec::new();
    }
    let concerns = |set: &&DaemonSet| {
        let demand = Demand::of(set);
        let fit = |node: &Option<_>| {
            node.as_ref().map_or(Fit::default(), |n: &std::sync::Arc<Node>| demand.fit(n))
        };
        fit(&old) != fit(&new)
    };
    let key = |set: &DaemonSet| {
        let meta = &set.metadata;
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        Key::new(Kind::DaemonSet, namespace, meta.name.as_deref().unwrap_or_default())
    };
    cache.list::<DaemonSet>().filter(concerns).map(key).collect()
}

/// One look at one daemon set.
struct Pass<'a> {
    cache: &'a Cache,
    set: &'a DaemonSet,
    spec: &'a DaemonSetSpec,
    history: History<'a>,
    /// How often the template was changed, if that is known.
    generation: Option<&'a str>,
    /// Every node and what it means to the daemon set, by name.
    nodes: BTreeMap<&'a str, Fit>,
    /// Its pods.
    pods: Vec<&'a Pod>,
    /// The same by the node that they are bound or tied to, in order of seniority; without those
    /// that have ended and are being deleted.
    on_node: BTreeMap<&'a str, Vec<&'a Pod>>,
    readiness: Readiness,
    now: Time,
}

impl<'a> Pass<'a> {
    /// Collects pods, nodes and revisions; `None` when something must be put in order first.
    fn new(cache: &'a Cache, key: &Key, now: Time, plan: &mut Plan) -> Option<Self> {
        let set = cache.object(key)?.get::<DaemonSet>()?;
        let spec = set.spec.as_ref()?;
        if meta::is_terminating(&set.metadata) {
            // The garbage collector decides about what it leaves behind.
            return None;
        }
        set.required_labels().or_else(|| {
            let message =
                "This daemon set is selecting all pods. A non-empty selector is required.";
            plan.events.push(announce::warning(set, "SelectingAll", message.to_owned()));
            None
        })?;
        let pods = claimed(cache, set, spec, plan)?;
        let history = History::of(cache, set, &pods, plan)?;
        let demand = Demand::of(set);
        let nodes = cache
            .list::<Node>()
            .map(|node| (node.metadata.name.as_deref().unwrap_or_default(), demand.fit(node)))
            .collect();
        let mut on_node: BTreeMap<&str, Vec<&Pod>> = BTreeMap::new();
        for pod in &pods {
            let gone = pods::is_terminal(pod) && meta::is_terminating(&pod.metadata);
            if let Some(node) = nodes::target(pod).filter(|_| !gone) {
                on_node.entry(node).or_default().push(pod);
            }
        }
        for pods in on_node.values_mut() {
            pods.sort_by(|a, b| nodes::seniority(a).cmp(&nodes::seniority(b)));
        }
        let generation =
            meta::annotation(&set.metadata, GENERATION).filter(|text| text.parse::<i64>().is_ok());
        let readiness = Readiness::default();
        Some(Self { cache, set, spec, history, generation, nodes, pods, on_node, readiness, now })
    }

    fn run(self, plan: &mut Plan) {
        let mut changes = self.place(plan);
        // What a rollout may do is known when every node has its pods and no more.
        if changes.is_empty() && self.rolls() {
            changes = self.roll();
        }
        self.carry_out(&changes, plan);
        self.history.clean_up(self.set, &self.pods, plan);
        if let Some(report) = self.report(plan) {
            plan.request(report);
        }
    }

    fn min_ready(&self) -> Duration {
        seconds(self.spec.min_ready_seconds)
    }

    fn available_at(&self, pod: &Pod) -> Option<Time> {
        self.readiness.available_at(pod, self.min_ready())
    }

    fn is_available(&self, pod: &Pod) -> bool {
        self.available_at(pod).is_some_and(|at| at <= self.now)
    }

    /// Whether the pod is of today's template.
    fn is_updated(&self, pod: &Pod) -> bool {
        let label = |key: &str| meta::label(&pod.metadata, key);
        label(HASH) == Some(self.history.hash())
            || self.generation.is_some() && label(GENERATION_LABEL) == self.generation
    }

    fn fit(&self, node: &str) -> Fit {
        self.nodes.get(node).copied().unwrap_or_default()
    }

    fn pods_of(&self, node: &str) -> &[&'a Pod] {
        self.on_node.get(node).map(Vec::as_slice).unwrap_or_default()
    }
}

/// The pods that the daemon set controls; `None` when it must adopt or release some first.
fn claimed<'a>(
    cache: &'a Cache,
    set: &DaemonSet,
    spec: &DaemonSetSpec,
    plan: &mut Plan,
) -> Option<Vec<&'a Pod>> {
    let uid = set.metadata.uid.as_deref().unwrap_or_default();
    let selector = workload_selector(&spec.selector);
    let mut owned = Vec::new();
    for pod in ownership::candidates::<Pod, _>(cache, set) {
        match ownership::claim(&set.metadata, &selector, &pod.metadata) {
            Claim::Keep => owned.push(pod),
            Claim::Ignore => {}
            Claim::Adopt => plan.request(ownership::adopt(pod, meta::controller_reference(set))),
            Claim::Release => plan.request(ownership::release(pod, uid)),
        }
        if plan.requests.len() >= BURST_MAX {
            break;
        }
    }
    plan.requests.is_empty().then_some(owned)
}

#[cfg(test)]
mod tests;
