//! Namespaces: empties those that are being deleted, and then lets them go.
//!
//! Source: kubernetes 1.33, `pkg/controller/namespace/deletion`.

mod contents;

use api::{ApiObject, Key, Kind, Object, Propagation, Request, Subresource, Time, meta};
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};
use machine::{Cache, Delta, Index, Plan, Reconciler};

use self::contents::{Contents, Ending};
use crate::ownership;

/// The finalizer that this controller removes when a namespace is empty.
const FINALIZER: &str = "kubernetes";

/// No more objects are deleted in one pass.
const BURST_MAX: usize = 500;

/// Namespaces, and the stored kinds that live in them.
const KINDS: &[Kind] =
    api::kinds_where!(|kind| matches!(kind, Kind::Namespace) || is_content(kind));

/// What namespaces hold, in the order in which it goes.
const ORDER: &[Kind] = &{
    const CONTENTS: &[Kind] = api::kinds_where!(|kind| is_content(kind));
    let mut order = [Kind::Namespace; CONTENTS.len()];
    let (mut stage, mut count) = (0, 0);
    while stage <= LAST_STAGE {
        let mut i = 0;
        while i < CONTENTS.len() {
            if stage_of(CONTENTS[i]) == stage {
                order[count] = CONTENTS[i];
                count += 1;
            }
            i += 1;
        }
        stage += 1;
    }
    assert!(count == CONTENTS.len(), "every kind has a stage");
    order
};

const fn is_content(kind: Kind) -> bool {
    kind.info().stored && kind.namespaced()
}

/// The stage at which pods go. What comes later waits until there are none: what runs keeps its
/// configuration, its accounts and its services as long as it runs.
///
/// Source: kubernetes 1.33, KEP-5080, ordered deletion of namespaces.
const PODS: u8 = 3;
const LAST_STAGE: u8 = 6;

/// When contents go: first what would make new objects, so that nothing is made good that is being
/// removed; last what tells of it.
const fn stage_of(kind: Kind) -> u8 {
    match kind {
        Kind::CronJob => 0,
        Kind::Deployment | Kind::DaemonSet | Kind::StatefulSet => 1,
        Kind::ReplicaSet | Kind::ReplicationController | Kind::Job => 2,
        Kind::Pod => PODS,
        Kind::PersistentVolumeClaim | Kind::ControllerRevision => 4,
        _ if kind.is_record() => LAST_STAGE,
        _ => 5,
    }
}

/// Empties and finalizes namespaces that are being deleted.
pub struct Namespaces;

impl Reconciler for Namespaces {
    fn name(&self) -> &'static str {
        "namespace-controller"
    }

    fn kinds(&self) -> &'static [Kind] {
        KINDS
    }

    fn indexes(&self) -> Vec<Box<dyn Index>> {
        vec![Box::<Contents>::default(), Box::<Ending>::default()]
    }

    fn keys_for(&self, cache: &Cache, delta: &Delta) -> Vec<Key> {
        if delta.key.kind == Kind::Namespace {
            return vec![delta.key.clone()];
        }
        let name = &delta.key.namespace;
        let ending = Ending::contains(cache, name);
        if ending { vec![Key::cluster(Kind::Namespace, name)] } else { Vec::new() }
    }

    fn reconcile(&self, cache: &Cache, key: &Key, now: Time) -> Plan {
        let mut plan = Plan::nothing();
        let Some(namespace) = cache.object(key).and_then(Object::get::<Namespace>) else {
            return plan;
        };
        let finalizers = namespace.spec.as_ref().and_then(|s| s.finalizers.as_ref());
        let ours = finalizers.is_some_and(|f| f.iter().any(|f| f == FINALIZER));
        if !meta::is_terminating(&namespace.metadata) || !ours {
            return plan;
        }
        for object in undeleted(cache, &key.name).take(BURST_MAX) {
            plan.request(Request::Delete {
                key: object.key(),
                uid: Some(object.uid().to_owned()),
                revision: None,
                grace_seconds: None,
                // What would leave its dependents behind takes them along here.
                propagation: Some(Propagation::Background),
            });
        }
        if !plan.requests.is_empty() {
            return plan;
        }
        if ORDER.iter().any(|kind| cache.count_in(*kind, &key.name) > 0) {
            report(cache, namespace, &key.name, now, &mut plan);
            return plan;
        }
        // Since the namespace is terminating nothing new is admitted to it; but the watch of a
        // kind may not have shown yet what was admitted before.
        let revision = Object::Namespace(namespace.clone().into()).revision();
        for kind in ORDER.iter().filter(|k| cache.revision(**k) < revision) {
            plan.request(Request::ReadRevision(*kind));
        }
        if plan.requests.is_empty() {
            plan.request(finalized(namespace));
        }
        plan
    }
}

/// The kinds whose turn it is to go.
fn due(cache: &Cache, namespace: &str) -> impl Iterator<Item = &'static Kind> + Clone {
    let last = if cache.count_in(Kind::Pod, namespace) > 0 { PODS } else { LAST_STAGE };
    ORDER.iter().filter(move |kind| stage_of(**kind) <= last)
}

/// What the namespace holds that nobody deleted yet, though its turn has come.
fn undeleted<'a>(cache: &'a Cache, namespace: &'a str) -> impl Iterator<Item = &'a Object> {
    let kinds = due(cache, namespace).filter(|kind| {
        cache.count_in(**kind, namespace) > Contents::terminating(cache, **kind, namespace)
    });
    let objects = kinds.flat_map(|kind| cache.objects_in(*kind, namespace));
    objects.filter(|o| !meta::is_terminating(o.meta()))
}

fn finalized(namespace: &Namespace) -> Request {
    let mut namespace = namespace.clone();
    if let Some(finalizers) = namespace.spec.as_mut().and_then(|s| s.finalizers.as_mut()) {
        finalizers.retain(|f| f != FINALIZER);
    }
    Request::Update { object: namespace.into_object(), subresource: Some(Subresource::Finalize) }
}

/// Says in the status what the deletion waits for.
fn report(cache: &Cache, namespace: &Namespace, name: &str, now: Time, plan: &mut Plan) {
    let count = |kind: &Kind| {
        let (info, count) = (kind.info(), cache.count_in(*kind, name));
        let text = format!("{}.{} has {count} resource instances", info.plural, info.group);
        (count > 0).then_some(text)
    };
    let mut resources: Vec<String> = due(cache, name).filter_map(count).collect();
    resources.sort();
    let resources = resources.join(", ");
    let held: Vec<String> = Contents::finalizers(cache, name)
        .map(|(finalizer, count)| format!("{finalizer} in {count} resource instances"))
        .collect();
    let finalizers = held.join(", ");
    let mut wanted = namespace.clone();
    let status = wanted.status.get_or_insert_default();
    status.phase = Some("Terminating".to_owned());
    let conditions = status.conditions.get_or_insert_default();
    let mut set = |kind: &str, status: bool, reason: &str, message: String| {
        set_condition(conditions, kind, status, reason, message, now);
    };
    set(
        "NamespaceDeletionDiscoveryFailure",
        false,
        "ResourcesDiscovered",
        "All resources successfully discovered".to_owned(),
    );
    set(
        "NamespaceDeletionGroupVersionParsingFailure",
        false,
        "ParsedGroupVersions",
        "All legacy kube types successfully parsed".to_owned(),
    );
    set(
        "NamespaceDeletionContentFailure",
        false,
        "ContentDeleted",
        "All content successfully deleted, may be waiting on finalization".to_owned(),
    );
    set(
        "NamespaceContentRemaining",
        true,
        "SomeResourcesRemain",
        format!("Some resources are remaining: {resources}"),
    );
    if held.is_empty() {
        set(
            "NamespaceFinalizersRemaining",
            false,
            "ContentHasNoFinalizers",
            "All content-preserving finalizers finished".to_owned(),
        );
    } else {
        set(
            "NamespaceFinalizersRemaining",
            true,
            "SomeFinalizersRemain",
            format!("Some content in the namespace has finalizers remaining: {finalizers}"),
        );
    }
    if wanted != *namespace {
        plan.request(ownership::update_status(wanted));
    }
}

fn set_condition(
    conditions: &mut Vec<NamespaceCondition>,
    kind: &str,
    status: bool,
    reason: &str,
    message: String,
    now: Time,
) {
    let status = if status { "True" } else { "False" };
    let mut new = NamespaceCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_transition_time: Some(now.to_meta()),
    };
    match conditions.iter_mut().find(|c| c.type_ == kind) {
        Some(old) => {
            if old.status == status {
                new.last_transition_time = old.last_transition_time.clone();
            }
            *old = new;
        }
        None => conditions.push(new),
    }
}

#[cfg(test)]
mod tests;
