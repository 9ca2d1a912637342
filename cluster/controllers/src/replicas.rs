//! What replica sets and replication controllers share: so many pods of one template.
//!
//! Source: kubernetes 1.33, `pkg/controller/replicaset/replica_set.go`.

mod tally;

use std::collections::{BTreeMap, BTreeSet};
use std::marker::PhantomData;
use std::time::Duration;

use api::hash::{fnv64, letters};
use api::selector::Selector;
use api::{ApiError, ApiObject, Key, Kind, Object, Pod, Request, Time, meta};
use k8s_openapi::api::apps::v1::{ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use machine::{Announcement, Aspects, Cache, Delta, Index, Memory, Plan, Reconciler};

use self::tally::PodTallies;
use crate::labels::Orphans;
use crate::ownership::{self, Claim};
use crate::readiness::Readiness;
use crate::selectors::{Selecting, Selectors};
use crate::{announce, pods, quota_room};

/// No more pods are created or deleted in one pass: a mistake in a replica count must not flood
/// the API server before anybody can correct it.
const BURST_MAX: usize = 500;

/// The longest name that leaves room for the letters that tell siblings apart.
const NAME_PREFIX_MAX: usize = 58;

const REPLICA_FAILURE: &str = "ReplicaFailure";

/// What the two kinds ask for, in one form.
pub(crate) struct Desired<'a> {
    pub(crate) replicas: usize,
    pub(crate) selector: Selector,
    pub(crate) template: Option<&'a PodTemplateSpec>,
    pub(crate) min_ready: Duration,
}

/// A kind that keeps a number of pods.
pub(crate) trait Replicated: Selecting + Default {
    /// The name of its controller in logs, metrics and events.
    const CONTROLLER: &'static str;
    /// What the object asks for.
    fn desired(&self) -> Desired<'_>;
    /// The status, in the form of replica sets.
    fn status(&self) -> ReplicaSetStatus;
    /// Replaces the status.
    fn set_status(&mut self, status: ReplicaSetStatus);
}

/// Clamps an optional replica count: absent means one, negative means none.
pub(crate) fn count(replicas: Option<i32>) -> usize {
    usize::try_from(replicas.unwrap_or(1)).unwrap_or(0)
}

/// Seconds as a duration; absent and negative mean zero.
pub(crate) fn seconds(secs: Option<i32>) -> Duration {
    Duration::from_secs(u64::try_from(secs.unwrap_or(0)).unwrap_or(0))
}

/// Keeps each object of the type at its number of pods.
pub struct Replicas<T>(PhantomData<fn() -> T>);

impl<T> Replicas<T> {
    /// Makes the controller of the type.
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T: Replicated> Reconciler for Replicas<T> {
    fn name(&self) -> &'static str {
        T::CONTROLLER
    }

    fn kinds(&self) -> &'static [Kind] {
        const { &[T::KIND, Kind::Pod] }
    }

    fn hears_of(&self) -> &'static [Kind] {
        quota_room::KINDS
    }

    fn indexes(&self) -> Vec<Box<dyn Index>> {
        vec![
            Box::<PodTallies>::default(),
            Box::<Orphans<Pod>>::default(),
            Box::<Selectors<T>>::default(),
        ]
    }

    fn heeds(&self, kind: Kind) -> Aspects {
        match kind {
            Kind::Pod => Aspects::EXISTENCE | Aspects::META | Aspects::PHASE | Aspects::READINESS,
            _ => Aspects::ALL,
        }
    }

    fn keys_for(&self, cache: &Cache, delta: &Delta) -> Vec<Key> {
        if let Some(keys) = quota_room::affected(cache, delta, has_failed::<T>) {
            return keys;
        }
        if delta.key.kind == T::KIND {
            return vec![delta.key.clone()];
        }
        if !ownership::concerns::<T>(cache, delta) {
            return Vec::new();
        }
        let pod = |object: &'_ Option<Object>| object.as_ref().and_then(Object::share::<Pod>);
        let (old, new) = (pod(&delta.old), pod(&delta.new));
        if let (Some(old), Some(new)) = (&old, &new)
            && relevant(old) == relevant(new)
        {
            return Vec::new();
        }
        let owners = ownership::affected(cache, delta, |owner: &T| owner.desired().selector);
        owners.into_iter().collect()
    }

    fn reconcile(&self, cache: &Cache, key: &Key, now: Time) -> Plan {
        self.reconcile_with(cache, key, now, &mut Memory::default())
    }

    fn reconcile_with(&self, cache: &Cache, key: &Key, now: Time, memory: &mut Memory) -> Plan {
        reconcile::<T>(cache, key, now, memory)
    }

    fn note_refusal(
        &self,
        cache: &Cache,
        key: &Key,
        request: &Request,
        error: &ApiError,
        now: Time,
    ) -> Option<Request> {
        note_refusal::<T>(cache, key, request, error, now)
    }
}

/// Whether it could not make all its pods when it last tried.
fn has_failed<T: Replicated>(owner: &T) -> bool {
    owner.status().conditions.iter().flatten().any(|c| c.type_ == REPLICA_FAILURE)
}

/// What may change the plan of a pod's owner.
fn relevant(pod: &Pod) -> impl PartialEq + '_ {
    let meta = &pod.metadata;
    (
        (meta.uid.as_ref(), meta.labels.as_ref(), meta::controller_of(meta)),
        (pods::is_active(pod), meta::is_terminating(meta), pods::ready_since(pod)),
    )
}

/// Brings the number of pods to what `key` asks for and reports it.
fn reconcile<T: Replicated>(cache: &Cache, key: &Key, now: Time, memory: &mut Memory) -> Plan {
    let mut plan = Plan::nothing();
    let Some(owner) = cache.object(key).and_then(Object::get::<T>) else { return plan };
    let desired = owner.desired();
    let census = Census::take(cache, owner, &desired);
    // What is adopted or released now is counted when the cache shows it.
    claim_pods(cache, owner, &desired, &census, &mut plan);
    if !plan.requests.is_empty() {
        return plan;
    }
    if !meta::is_terminating(owner.meta()) {
        if census.owned < desired.replicas {
            create_pods(cache, owner, &desired, desired.replicas - census.owned, &mut plan);
        } else {
            delete_pods(cache, owner, census.owned - desired.replicas, now, &mut plan);
        }
    }
    let readiness = Readiness::note(memory, desired.min_ready, owned_pods(cache, owner), now);
    let status = observe(cache, owner, &desired, &census, &readiness, now, &mut plan);
    if status != owner.status() {
        let mut owner = owner.clone();
        owner.set_status(status);
        plan.request(ownership::update_status(owner));
    }
    plan
}

/// The write that notes in the status that a pod could not be created or deleted, and what pods
/// there are.
fn note_refusal<T: Replicated>(
    cache: &Cache,
    key: &Key,
    request: &Request,
    error: &ApiError,
    now: Time,
) -> Option<Request> {
    let reason = match request {
        Request::Create(Object::Pod(_)) => "FailedCreate",
        Request::Delete { key, .. } if key.kind == Kind::Pod => "FailedDelete",
        _ => return None,
    };
    let owner = cache.object(key)?.get::<T>()?;
    let desired = owner.desired();
    let census = Census::take(cache, owner, &desired);
    // The status is the end of a plan, of which nothing is carried out after a refusal.
    let mut status =
        observe(cache, owner, &desired, &census, &Readiness::default(), now, &mut Plan::nothing());
    let conditions = status.conditions.get_or_insert_default();
    if !conditions.iter().any(|c| c.type_ == REPLICA_FAILURE) {
        conditions.push(ReplicaSetCondition {
            type_: REPLICA_FAILURE.to_owned(),
            status: "True".to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(error.to_string()),
            last_transition_time: Some(now.to_meta()),
        });
    }
    if status == owner.status() {
        return None;
    }
    let mut owner = owner.clone();
    owner.set_status(status);
    Some(ownership::update_status(owner))
}

/// The active pods of an owner, in numbers.
#[derive(Default)]
struct Census {
    owned: usize,
    ready: usize,
    /// Those that have the labels of the template.
    labeled: usize,
    /// Pods that match no more.
    strays: usize,
}

impl Census {
    fn take<T: Replicated>(cache: &Cache, owner: &T, desired: &Desired<'_>) -> Self {
        let namespace = owner.meta().namespace.as_deref().unwrap_or_default();
        let uid = owner.meta().uid.as_deref().unwrap_or_default();
        // The garbage collector decides about what a dying owner leaves behind.
        let keeps_all = meta::is_terminating(owner.meta());
        let wanted = desired.template.and_then(|t| t.metadata.as_ref()?.labels.as_ref());
        let template = wanted.map(Selector::of_map).unwrap_or_default();
        let mut census = Self::default();
        for (labels, tally) in PodTallies::of(cache, namespace, uid) {
            if !keeps_all && !desired.selector.matches(Some(labels)) {
                census.strays += tally.active;
                continue;
            }
            census.owned += tally.active;
            census.ready += tally.ready;
            if template.matches(Some(labels)) {
                census.labeled += tally.active;
            }
        }
        census
    }
}

/// The writes that adopt and release pods.
fn claim_pods<T: Replicated>(
    cache: &Cache,
    owner: &T,
    desired: &Desired<'_>,
    census: &Census,
    plan: &mut Plan,
) {
    let namespace = owner.meta().namespace.as_deref().unwrap_or_default();
    let uid = owner.meta().uid.as_deref().unwrap_or_default();
    // An owner that goes adopts nothing.
    let going = meta::is_terminating(owner.meta());
    let orphans = if going { Vec::new() } else { ownership::orphans(cache, owner) };
    let owned = if census.strays > 0 { Some(cache.owned::<Pod>(uid)) } else { None };
    let pods = owned.into_iter().flatten().chain(orphans);
    let candidates: BTreeMap<Option<&str>, &Pod> = pods
        .filter(|p| pods::is_active(p) && p.metadata.namespace.as_deref() == Some(namespace))
        .map(|p| (p.metadata.name.as_deref(), p))
        .collect();
    for pod in candidates.into_values() {
        match ownership::claim(owner.meta(), &desired.selector, &pod.metadata) {
            Claim::Keep | Claim::Ignore => {}
            Claim::Adopt => {
                plan.request(ownership::adopt(pod, meta::controller_reference(owner)));
            }
            Claim::Release => plan.request(ownership::release(pod, uid)),
        }
        if plan.requests.len() >= BURST_MAX {
            break;
        }
    }
}

/// The active pods that the owner controls, once none is a stray.
fn owned_pods<'a, T: Replicated>(cache: &'a Cache, owner: &T) -> impl Iterator<Item = &'a Pod> {
    let uid = owner.meta().uid.as_deref().unwrap_or_default();
    cache.owned::<Pod>(uid).filter(move |pod| {
        pods::is_active(pod)
            && pod.metadata.namespace == owner.meta().namespace
            && meta::controller_of(&pod.metadata).is_some_and(|o| o.uid == uid)
    })
}

fn create_pods<T: Replicated>(
    cache: &Cache,
    owner: &T,
    desired: &Desired<'_>,
    missing: usize,
    plan: &mut Plan,
) {
    let Some(template) = desired.template else { return };
    let labels = template.metadata.as_ref().and_then(|m| m.labels.as_ref());
    // Its pods would be released at once and created again, without end.
    if !desired.selector.matches(labels) {
        return;
    }
    let model = pod_of_template(owner, template);
    for name in pod_names(cache, owner).take(missing.min(BURST_MAX)) {
        let done = announce::normal(owner, "SuccessfulCreate", format!("Created pod: {name}"));
        let refused = announce::warning(owner, "FailedCreate", "Error creating: ".to_owned());
        let mut pod = model.clone();
        pod.metadata.name = Some(name);
        plan.request_announced(
            Request::Create(pod.into_object()),
            Announcement { done: Some(done), refused: Some(refused) },
        );
    }
}

/// Names for new pods. They depend on what is known alone, so that a write which arrives late
/// meets its own repetition instead of doubling a pod; a loss moves them on.
fn pod_names<'a, T: Replicated>(
    cache: &'a Cache,
    owner: &'a T,
) -> impl Iterator<Item = String> + 'a {
    let namespace = owner.meta().namespace.as_deref().unwrap_or_default();
    let uid = owner.meta().uid.as_deref().unwrap_or_default();
    let prefix = name_prefix(owner.meta().name.as_deref().unwrap_or_default());
    let epoch = cache.tombstone(uid);
    (0_u64..)
        .map(move |i| {
            let seed = format!("{uid}/{epoch}/{i}");
            format!("{prefix}{}", letters(fnv64(seed.as_bytes()), 5))
        })
        .filter(move |name| cache.object(&Key::new(Kind::Pod, namespace, name)).is_none())
}

/// `NAME-`, cut so that the full name stays within the limit for names.
pub(crate) fn name_prefix(name: &str) -> String {
    let mut end = name.len().min(NAME_PREFIX_MAX - 1);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}-", &name[..end])
}

/// What the pods of an owner have in common: all but the name.
pub(crate) fn pod_of_template<T: ApiObject>(owner: &T, template: &PodTemplateSpec) -> Pod {
    let mut pod = template.spec.clone().map(Pod::of_spec).unwrap_or_default();
    let wanted = template.metadata.as_ref();
    pod.metadata.labels = wanted.and_then(|m| m.labels.clone());
    pod.metadata.annotations = wanted.and_then(|m| m.annotations.clone());
    pod.metadata.finalizers = wanted.and_then(|m| m.finalizers.clone());
    pod.metadata.generate_name = owner.meta().name.as_deref().map(name_prefix);
    pod.metadata.namespace = owner.meta().namespace.clone();
    pod.metadata.owner_references = Some(vec![meta::controller_reference(owner)]);
    pod
}

fn delete_pods<T: Replicated>(
    cache: &Cache,
    owner: &T,
    surplus: usize,
    now: Time,
    plan: &mut Plan,
) {
    if surplus == 0 {
        return;
    }
    let crowd = related_pods(cache, owner);
    let mut ranked: Vec<&Pod> = owned_pods(cache, owner).collect();
    ranked.sort_by_cached_key(|pod| pods::deletion_rank(pod, &crowd, now));
    for pod in ranked.into_iter().take(surplus.min(BURST_MAX)) {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let done = announce::normal(owner, "SuccessfulDelete", format!("Deleted pod: {name}"));
        let refused = announce::warning(owner, "FailedDelete", "Error deleting: ".to_owned());
        plan.request_announced(
            ownership::delete(pod),
            Announcement { done: Some(done), refused: Some(refused) },
        );
    }
}

/// How many pods each node runs of all owners that have the same controller as this one.
fn related_pods<'a, T: Replicated>(cache: &'a Cache, owner: &T) -> BTreeMap<&'a str, usize> {
    let uid = owner.meta().uid.as_deref().unwrap_or_default();
    let mut owners = BTreeSet::from([uid]);
    if let Some(controller) = meta::controller_of(owner.meta()) {
        owners.extend(cache.owned::<T>(&controller.uid).filter_map(|o| o.meta().uid.as_deref()));
    }
    let mut crowd = BTreeMap::new();
    for uid in owners {
        for pod in cache.owned::<Pod>(uid).filter(|p| pods::is_active(p)) {
            *crowd.entry(pod.node()).or_insert(0) += 1;
        }
    }
    crowd
}

/// The status that the pods add up to; asks to be called again when one becomes available.
fn observe<T: Replicated>(
    cache: &Cache,
    owner: &T,
    desired: &Desired<'_>,
    census: &Census,
    readiness: &Readiness,
    now: Time,
    plan: &mut Plan,
) -> ReplicaSetStatus {
    let mut available = census.ready;
    if !desired.min_ready.is_zero() {
        available = 0;
        let available_at = |pod| readiness.available_at(pod, desired.min_ready);
        for at in owned_pods(cache, owner).filter_map(available_at) {
            if at <= now {
                available += 1;
            } else {
                plan.revisit_in(at.since(now));
            }
        }
    }
    let mut status = owner.status();
    status.replicas = number(census.owned);
    status.fully_labeled_replicas = nonzero(census.labeled);
    status.ready_replicas = nonzero(census.ready);
    status.available_replicas = nonzero(available);
    status.observed_generation = owner.meta().generation;
    if census.owned == desired.replicas
        && let Some(conditions) = &mut status.conditions
    {
        conditions.retain(|c| c.type_ != REPLICA_FAILURE);
        if conditions.is_empty() {
            status.conditions = None;
        }
    }
    status
}

pub(crate) fn number(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

/// Kubernetes leaves counts of zero out.
pub(crate) fn nonzero(n: usize) -> Option<i32> {
    Some(number(n)).filter(|n| *n != 0)
}

#[cfg(test)]
mod tests;
