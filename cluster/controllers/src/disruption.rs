//! `PodDisruptionBudget`: counts the pods of each budget and says how many may be evicted.
//!
//! The API server takes from what is allowed when it grants an eviction and notes the pod in
//! `status.disruptedPods`; it does not count as healthy from then on, until it is seen to go or
//! two minutes have passed. Both write the status with the revision that they read, so
//! that neither undoes what the other did.
//!
//! Pods that were marked as targets of a disruption and that nobody deletes lose the mark.
//!
//! Source: kubernetes 1.33, `pkg/controller/disruption/disruption.go`.

mod expected;
mod stale;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use api::selector::Selector;
use api::{Key, Kind, Object, Pod, Time, disruption, meta};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{self, LabelSelector};
use machine::{Cache, Delta, Index, Plan, Reconciler};

use self::expected::Expected;
use crate::labels::{Labelled, Labels};
use crate::selectors::{NO_LABELS, Selecting, Selectors};
use crate::{announce, ownership, pods};

/// How long after its eviction was granted a pod is believed to be about to go.
const DELETION_TIMEOUT: Duration = Duration::from_secs(120);

/// Keeps the status of budgets, and takes back marks of disruptions that did not come.
///
/// The keys are budgets, and pods that are marked.
pub struct Disruptions;

impl Reconciler for Disruptions {
    fn name(&self) -> &'static str {
        "disruption-controller"
    }

    fn kinds(&self) -> &'static [Kind] {
        &[
            Kind::PodDisruptionBudget,
            Kind::Pod,
            Kind::ReplicationController,
            Kind::ReplicaSet,
            Kind::Deployment,
            Kind::StatefulSet,
        ]
    }

    fn indexes(&self) -> Vec<Box<dyn Index>> {
        vec![Box::<Labelled<Pod>>::default(), Box::<Selectors<PodDisruptionBudget>>::default()]
    }

    fn keys_for(&self, cache: &Cache, delta: &Delta) -> Vec<Key> {
        match delta.key.kind {
            Kind::PodDisruptionBudget => vec![delta.key.clone()],
            Kind::Pod => of_pod(cache, delta),
            _ => of_workload(cache, delta),
        }
    }

    fn reconcile(&self, cache: &Cache, key: &Key, now: Time) -> Plan {
        let mut plan = Plan::nothing();
        match cache.object(key) {
            Some(Object::PodDisruptionBudget(budget)) => count(cache, budget, now, &mut plan),
            Some(Object::Pod(pod)) => stale::clear(pod, now, &mut plan),
            _ => {}
        }
        plan
    }
}

impl Selecting for PodDisruptionBudget {
    fn required_labels(&self) -> Option<&Labels> {
        let selector = self.spec.as_ref()?.selector.as_ref()?;
        Some(selector.match_labels.as_ref().unwrap_or(&NO_LABELS))
    }
}

/// The budgets of pods of those labels.
fn budgets_of(cache: &Cache, namespace: &str, labels: Option<&Labels>) -> BTreeSet<Key> {
    Selectors::<PodDisruptionBudget>::find(cache, namespace, labels)
        .into_iter()
        .filter(|key| {
            let budget = cache.object(key).and_then(Object::get::<PodDisruptionBudget>);
            budget.is_some_and(|b| disruption::selector(b).matches(labels))
        })
        .map(|key| Key::clone(key))
        .collect()
}

/// The budgets that a change of a pod concerns, and the pod if it is marked.
fn of_pod(cache: &Cache, delta: &Delta) -> Vec<Key> {
    let old = delta.old.as_ref().and_then(Object::get::<Pod>);
    let new = delta.new.as_ref().and_then(Object::get::<Pod>);
    let mut keys = BTreeSet::new();
    let budgeted = Selectors::<PodDisruptionBudget>::are_in(cache, &delta.key.namespace);
    if budgeted && old.map(relevant) != new.map(relevant) {
        for pod in [old, new].into_iter().flatten() {
            let labels = pod.metadata.labels.as_ref();
            keys.extend(budgets_of(cache, &delta.key.namespace, labels));
        }
    }
    if new.and_then(stale::due).is_some() {
        keys.insert(delta.key.clone());
    }
    keys.into_iter().collect()
}

/// What a budget looks at in a pod.
fn relevant(pod: &Pod) -> impl PartialEq + '_ {
    let meta = &pod.metadata;
    let owner = meta::controller_of(meta).map(|o| &o.uid);
    (meta.labels.as_ref(), meta::is_terminating(meta), pods::is_ready(pod), owner)
}

/// The budgets that a change of what makes pods concerns: those that select pods of its template.
fn of_workload(cache: &Cache, delta: &Delta) -> Vec<Key> {
    let (old, new) = (delta.old.as_ref().and_then(template), delta.new.as_ref().and_then(template));
    if old == new {
        return Vec::new();
    }
    let mut keys = BTreeSet::new();
    for (_, labels) in [old, new].into_iter().flatten() {
        keys.extend(budgets_of(cache, &delta.key.namespace, labels));
    }
    keys.into_iter().collect()
}

/// How many pods are asked for, and their labels.
fn template(object: &Object) -> Option<(i32, Option<&Labels>)> {
    fn labels(template: Option<&PodTemplateSpec>) -> Option<&Labels> {
        template?.metadata.as_ref()?.labels.as_ref()
    }
    let (replicas, labels) = match object {
        Object::ReplicationController(o) => {
            let spec = o.spec.as_ref()?;
            (spec.replicas, labels(spec.template.as_ref()))
        }
        Object::ReplicaSet(o) => {
            let spec = o.spec.as_ref()?;
            (spec.replicas, labels(spec.template.as_ref()))
        }
        Object::Deployment(o) => {
            let spec = o.spec.as_ref()?;
            (spec.replicas, labels(Some(&spec.template)))
        }
        Object::StatefulSet(o) => {
            let spec = o.spec.as_ref()?;
            (spec.replicas, labels(Some(&spec.template)))
        }
        _ => return None,
    };
    Some((replicas.unwrap_or(1), labels))
}

/// The pods of a budget, by name.
fn pods_of<'a>(
    cache: &'a Cache,
    budget: &PodDisruptionBudget,
    selector: &Selector,
) -> Vec<&'a Pod> {
    let namespace = budget.metadata.namespace.as_deref().unwrap_or_default();
    let candidates: Vec<&Pod> = match budget.required_labels() {
        None => Vec::new(),
        Some(labels) if labels.is_empty() => cache.list_in(namespace).collect(),
        Some(labels) => Labelled::find(cache, namespace, labels),
    };
    candidates.into_iter().filter(|p| selector.matches(p.metadata.labels.as_ref())).collect()
}

/// Counts the pods of a budget and reports it.
fn count(cache: &Cache, budget: &PodDisruptionBudget, now: Time, plan: &mut Plan) {
    let pods = pods_of(cache, budget, &disruption::selector(budget));
    if pods.is_empty() {
        let message = "No matching pods found".to_owned();
        plan.events.push(announce::normal(budget, "NoPods", message));
    }
    let status = match expected::expected(cache, budget, &pods) {
        Ok(expected) => {
            if expected.unmanaged {
                plan.events.push(announce::warning(budget, "UnmanagedPods", unmanaged(budget)));
            }
            let disrupted = disrupted(budget, &pods, now, plan);
            let healthy = healthy(&pods, &disrupted);
            counted(budget, &expected, healthy, disrupted, now)
        }
        Err(why) => {
            let message = format!("Failed to calculate the number of expected pods: {why}");
            let reason = "CalculateExpectedPodCountFailed";
            plan.events.push(announce::warning(budget, reason, message));
            // What cannot be counted must not be disrupted.
            let mut status = budget.status.clone().unwrap_or_default();
            status.disruptions_allowed = 0;
            disruption::set_sync_failed(&mut status, why, now);
            status
        }
    };
    if budget.status.as_ref() != Some(&status) {
        let mut budget = budget.clone();
        budget.status = Some(status);
        plan.request(ownership::update_status(budget));
    }
}

/// The pods that are about to go because their eviction was granted. Asks to be called again when
/// the first of them will have stayed for too long; tells of those that have.
fn disrupted(
    budget: &PodDisruptionBudget,
    pods: &[&Pod],
    now: Time,
    plan: &mut Plan,
) -> BTreeMap<String, v1::Time> {
    let noted = budget.status.as_ref().and_then(|s| s.disrupted_pods.as_ref());
    let mut still = BTreeMap::new();
    let Some(noted) = noted else { return still };
    for pod in pods {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let Some(since) = noted.get(name) else { continue };
        if meta::is_terminating(&pod.metadata) {
            continue;
        }
        let until = Time::from_meta(since) + DELETION_TIMEOUT;
        if until > now {
            plan.revisit_in(until.since(now));
            still.insert(name.to_owned(), since.clone());
        } else {
            let meta = &budget.metadata;
            let message = format!(
                "Pod was expected by PDB {}/{} to be deleted but it wasn't",
                meta.namespace.as_deref().unwrap_or_default(),
                meta.name.as_deref().unwrap_or_default()
            );
            plan.events.push(announce::warning(*pod, "NotDeleted", message));
        }
    }
    still
}

/// The pods that can be relied on.
fn healthy(pods: &[&Pod], disrupted: &BTreeMap<String, v1::Time>) -> i32 {
    let stays = |pod: &&&Pod| {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        pods::is_ready(pod) && !meta::is_terminating(&pod.metadata) && !disrupted.contains_key(name)
    };
    i32::try_from(pods.iter().filter(stays).count()).unwrap_or(i32::MAX)
}

fn counted(
    budget: &PodDisruptionBudget,
    expected: &Expected,
    healthy: i32,
    disrupted: BTreeMap<String, v1::Time>,
    now: Time,
) -> PodDisruptionBudgetStatus {
    // A budget without pods allows nothing: its first pods may appear before they are counted.
    let spare = if expected.pods > 0 { healthy.saturating_sub(expected.desired) } else { 0 };
    let mut status = PodDisruptionBudgetStatus {
        conditions: budget.status.as_ref().and_then(|s| s.conditions.clone()),
        current_healthy: healthy,
        desired_healthy: expected.desired,
        disrupted_pods: (!disrupted.is_empty()).then_some(disrupted),
        disruptions_allowed: spare.max(0),
        expected_pods: expected.pods,
        observed_generation: budget.metadata.generation,
    };
    disruption::set_condition(&mut status, now);
    status
}

fn unmanaged(budget: &PodDisruptionBudget) -> String {
    let selector = budget.spec.as_ref().and_then(|s| s.selector.as_ref());
    format!(
        "Pods selected by this PodDisruptionBudget (selector: {}) were found to be unmanaged. As a \
         result, the status of the PDB cannot be calculated correctly, which may result in \
         undefined behavior. To account for these pods please set \".spec.minAvailable\" field of \
         the PDB to an integer value.",
        selector.map_or_else(|| "nil".to_owned(), shown)
    )
}

/// The selector in Kubernetes' notation.
fn shown(selector: &LabelSelector) -> String {
    let labels: String = selector
        .match_labels
        .iter()
        .flatten()
        .map(|(label, value)| format!("{label}: {value},"))
        .collect();
    let expressions: String = selector
        .match_expressions
        .iter()
        .flatten()
        .map(|e| {
            let values = e.values.as_deref().unwrap_or_default().join(" ");
            let (key, operator) = (&e.key, &e.operator);
            format!("LabelSelectorRequirement{{Key:{key},Operator:{operator},Values:[{values}],}},")
        })
        .collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},\
         MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}"
    )
}

#[cfg(test)]
mod tests;
