//! `StatefulSet`: pods that have a number and keep their names.
//!
//! The name of a pod is all that it takes to be the only one: the API holds no two of one name.
//! Which template a pod is of is told by the name of a controller revision, its label.
//!
//! Source: kubernetes 1.33, `pkg/controller/statefulset`.

mod claims;
mod control;
mod history;
mod identity;
mod status;

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use api::selector::Selector;
use api::{ApiError, Key, Kind, Object, Pod, Request, Time, meta};
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetSpec};
use machine::{Aspects, Cache, Delta, Index, Memory, Plan, Reconciler};

use self::history::History;
use crate::labels::{Labels, Orphans};
use crate::ownership::{self, Claim, required_labels, workload_selector};
use crate::readiness::Readiness;
use crate::replicas::seconds;
use crate::revisions::POD_LABEL;
use crate::selectors::{Selecting, Selectors};
use crate::{pods, quota_room};

/// No more pods are created, nor deleted, in one pass.
const BURST_MAX: usize = 500;

/// Keeps the pods of each stateful set.
pub struct StatefulSets;

impl Reconciler for StatefulSets {
    fn name(&self) -> &'static str {
        "statefulset-controller"
    }

    fn kinds(&self) -> &'static [Kind] {
        &[Kind::StatefulSet, Kind::ControllerRevision, Kind::Pod, Kind::PersistentVolumeClaim]
    }

    fn hears_of(&self) -> &'static [Kind] {
        quota_room::KINDS
    }

    fn indexes(&self) -> Vec<Box<dyn Index>> {
        vec![
            Box::<Orphans<Pod>>::default(),
            Box::<Orphans<ControllerRevision>>::default(),
            Box::<Selectors<StatefulSet>>::default(),
        ]
    }

    fn heeds(&self, kind: Kind) -> Aspects {
        match kind {
            Kind::Pod => Aspects::EXISTENCE | Aspects::META | Aspects::PHASE | Aspects::READINESS,
            _ => Aspects::ALL,
        }
    }

    fn keys_for(&self, cache: &Cache, delta: &Delta) -> Vec<Key> {
        if let Some(keys) = quota_room::affected(cache, delta, is_short) {
            return keys;
        }
        if delta.key.kind == Kind::StatefulSet {
            return vec![delta.key.clone()];
        }
        if delta.key.kind == Kind::PersistentVolumeClaim {
            return claims::affected(cache, delta);
        }
        if !ownership::concerns::<StatefulSet>(cache, delta) {
            return Vec::new();
        }
        let pod = |object: &Option<Object>| object.as_ref().and_then(Object::share::<Pod>);
        if let (Some(old), Some(new)) = (pod(&delta.old), pod(&delta.new))
            && relevant(&old) == relevant(&new)
        {
            return Vec::new();
        }
        of_dependent(cache, delta)
    }

    fn reconcile(&self, cache: &Cache, key: &Key, now: Time) -> Plan {
        self.reconcile_with(cache, key, now, &mut Memory::default())
    }

    fn reconcile_with(&self, cache: &Cache, key: &Key, now: Time, memory: &mut Memory) -> Plan {
        let mut plan = Plan::nothing();
        if let Some(mut pass) = Pass::new(cache, key, now, &mut plan) {
            let pods = pass.pods.values().copied();
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
        Pass::new(cache, key, now, &mut Plan::nothing())?.report(None, &mut Plan::nothing())
    }
}

impl Selecting for StatefulSet {
    fn required_labels(&self) -> Option<&Labels> {
        required_labels(&self.spec.as_ref()?.selector)
    }
}

/// Whether it had fewer pods than it asks for when it was last looked at.
fn is_short(set: &StatefulSet) -> bool {
    let has = set.status.as_ref().map_or(0, |s| s.replicas);
    set.spec.as_ref().is_some_and(|spec| has < spec.replicas.unwrap_or(1))
}

/// What may change the plan of a pod's owner.
fn relevant(pod: &Pod) -> impl PartialEq + '_ {
    let meta = &pod.metadata;
    (
        (meta.uid.as_ref(), meta.labels.as_ref(), meta::controller_of(meta)),
        (pods::phase(pod), meta::is_terminating(meta), pods::ready_since(pod)),
    )
}

/// The stateful sets that a change of a pod or a revision affects: owners, old and new, and whoever
/// may adopt an orphan.
fn of_dependent(cache: &Cache, delta: &Delta) -> Vec<Key> {
    let selector = |set: &StatefulSet| {
        set.spec.as_ref().map_or_else(Selector::nothing, |s| workload_selector(&s.selector))
    };
    ownership::affected(cache, delta, selector).into_iter().collect()
}

/// One look at one stateful set.
struct Pass<'a> {
    cache: &'a Cache,
    set: &'a StatefulSet,
    spec: &'a StatefulSetSpec,
    history: History<'a>,
    /// Its pods by their ordinals.
    pods: BTreeMap<i64, &'a Pod>,
    readiness: Readiness,
    now: Time,
}

impl<'a> Pass<'a> {
    /// Collects pods and revisions; `None` when something must be put in order first.
    fn new(cache: &'a Cache, key: &Key, now: Time, plan: &mut Plan) -> Option<Self> {
        let set = cache.object(key)?.get::<StatefulSet>()?;
        let spec = set.spec.as_ref()?;
        let pods = claimed(cache, set, spec, plan)?;
        let history = if meta::is_terminating(&set.metadata) {
            History::of_old(set)?
        } else {
            History::of(cache, set, plan)?
        };
        Some(Self { cache, set, spec, history, pods, readiness: Readiness::default(), now })
    }

    fn run(self, plan: &mut Plan) {
        let mut given_up = None;
        // The garbage collector decides about what a dying set leaves behind.
        if !meta::is_terminating(&self.set.metadata) {
            if self.scale(plan) && self.rolls() {
                given_up = self.roll(plan);
            }
            self.history.clean_up(self.set, self.pods.values().copied(), plan);
        }
        if let Some(report) = self.report(given_up, plan) {
            plan.request(report);
        }
    }

    /// The name of the set, with which those of its pods begin.
    fn name(&self) -> &'a str {
        self.set.metadata.name.as_deref().unwrap_or_default()
    }

    /// The ordinals that shall have a pod.
    fn range(&self) -> Range<i64> {
        let start = self.spec.ordinals.as_ref().and_then(|o| o.start).unwrap_or(0);
        let start = i64::from(start.max(0));
        start..start + i64::from(self.spec.replicas.unwrap_or(1).max(0))
    }

    /// Whether one pod at a time comes and goes, in order.
    fn is_ordered(&self) -> bool {
        self.spec.pod_management_policy.as_deref() != Some("Parallel")
    }

    /// Whether pods are replaced without anybody deleting them.
    fn rolls(&self) -> bool {
        let strategy = self.spec.update_strategy.as_ref();
        strategy.and_then(|s| s.type_.as_deref()).is_none_or(|kind| kind == "RollingUpdate")
    }

    /// The first ordinal that a rollout replaces; `None` when the strategy has no parameters.
    fn partition(&self) -> Option<i64> {
        let rolling = self.spec.update_strategy.as_ref()?.rolling_update.as_ref()?;
        Some(self.range().start + i64::from(rolling.partition.unwrap_or(0).max(0)))
    }

    fn min_ready(&self) -> Duration {
        seconds(self.spec.min_ready_seconds)
    }

    fn available_at(&self, pod: &Pod) -> Option<Time> {
        self.readiness.available_at(pod, self.min_ready())
    }

    /// Whether the pod has been ready for long enough.
    fn is_available(&self, pod: &Pod) -> bool {
        is_running(pod) && self.available_at(pod).is_some_and(|at| at <= self.now)
    }

    /// Whether the pod is available and stays so, as far as one can tell.
    fn is_healthy(&self, pod: &Pod) -> bool {
        !meta::is_terminating(&pod.metadata) && self.is_available(pod)
    }
}

fn is_running(pod: &Pod) -> bool {
    pods::phase(pod) == "Running"
}

/// The name of the revision that the pod is of; empty when nobody knows.
fn revision_of(pod: &Pod) -> &str {
    meta::label(&pod.metadata, POD_LABEL).unwrap_or_default()
}

/// The pods that the stateful set controls; `None` when it must adopt or release some first.
fn claimed<'a>(
    cache: &'a Cache,
    set: &StatefulSet,
    spec: &StatefulSetSpec,
    plan: &mut Plan,
) -> Option<BTreeMap<i64, &'a Pod>> {
    let uid = set.metadata.uid.as_deref().unwrap_or_default();
    let selector = workload_selector(&spec.selector);
    let mut owned = BTreeMap::new();
    for pod in ownership::candidates::<Pod, _>(cache, set) {
        let ordinal = identity::ordinal(set, pod);
        // A pod of another name can be none of the set's, whatever its labels.
        let claim = match ordinal {
            Some(_) => ownership::claim(&set.metadata, &selector, &pod.metadata),
            None => ownership::claim(&set.metadata, &Selector::nothing(), &pod.metadata),
        };
        match (claim, ordinal) {
            (Claim::Keep, Some(ordinal)) => {
                owned.insert(ordinal, pod);
            }
            (Claim::Keep, None) | (Claim::Ignore, _) => {}
            (Claim::Adopt, _) => {
                plan.request(ownership::adopt(pod, meta::controller_reference(set)));
            }
            (Claim::Release, _) => plan.request(ownership::release(pod, uid)),
        }
        if plan.requests.len() >= BURST_MAX {
            break;
        }
    }
    plan.requests.is_empty().then_some(owned)
}

#[cfg(test)]
mod tests;
