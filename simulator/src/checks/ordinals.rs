//! The order in which the pods of a stateful set come and go: a part of P36.

mod plans;

use api::{Key, Kind, Object, Pod, Request, Revision};
use k8s_openapi::api::apps::v1::StatefulSet;

use self::plans::Plans;
use super::asked::{Disrupted, Known, Lately};
use super::brood::known_owner;
use crate::check::{Cluster, Occurrence, Role};
use crate::oracle::{self, sets};
use crate::world::ProcessId;

/// The label with the revision that a pod is of.
const REVISION: &str = "controller-revision-hash";

/// Judges creations and deletions by what the controller manager knows that asks for them: a plan
/// in order is one call.
///
/// A plan that is not in order is carried out in batches, each after the answers to the last: what
/// it makes and takes away is what was asked for, and what was not, when it was made. Nor is a pod
/// that it replaces judged by a template, or by other pods, that its process was shown since.
#[derive(Clone, Default)]
pub(super) struct InOrder {
    disrupted: Disrupted,
    lately: Lately,
    plans: Plans,
}

/// A stateful set and its pods as a process knows them.
struct View<'a> {
    key: Key,
    set: &'a StatefulSet,
    pods: Vec<(i64, &'a Pod)>,
}

impl<'a> View<'a> {
    fn of(cluster: &'a dyn Cluster, by: ProcessId, pod: &Pod) -> Option<Self> {
        let owner = known_owner(cluster, by, pod)?;
        let set = owner.get::<StatefulSet>()?;
        let all = cluster.all_known(by, Kind::Pod)?.into_iter().filter_map(Object::get::<Pod>);
        let own = all.filter(|p| oracle::controller(&p.metadata) == Some(owner.uid()));
        let pods = own.filter_map(|p| Some((sets::ordinal(set, p)?, p))).collect();
        Some(Self { key: owner.key(), set, pods })
    }

    fn is_well(&self, ordinal: i64) -> bool {
        let mut pods = self.pods.iter().filter(|(i, _)| *i == ordinal);
        pods.any(|(_, pod)| {
            oracle::phase(pod) == "Running" && oracle::is_ready(pod) && oracle::is_active(pod)
        })
    }

    /// The first of the ordinals whose pod is not running and ready.
    fn first_ill(&self, mut ordinals: std::ops::Range<i64>) -> Option<i64> {
        ordinals.find(|i| !self.is_well(*i))
    }
}

fn revision(pod: &Pod) -> &str {
    let labels = pod.metadata.labels.as_ref();
    labels.and_then(|l| l.get(REVISION)).map(String::as_str).unwrap_or_default()
}

impl InOrder {
    fn creates(&mut self, cluster: &dyn Cluster, by: ProcessId, pod: &Pod) -> Option<String> {
        let view = View::of(cluster, by, pod)?;
        let ordinal = sets::ordinal(view.set, pod)?;
        let (first, end) = sets::ordinals(view.set);
        let key = &view.key;
        let now = Known { at: cluster.now(), limit: end, seen: Revision::default() };
        let ends = self.lately.known(by, oracle::controller(&pod.metadata)?, now);
        let was_wanted = !sets::is_ordered(view.set) && ends.iter().any(|k| ordinal < k.limit);
        if was_wanted {
            return None;
        }
        if !(first..end).contains(&ordinal) {
            return Some(format!("{key} gets a pod {ordinal}, which it does not ask for"));
        }
        let ill = view.first_ill(first..ordinal).filter(|_| sets::is_ordered(view.set))?;
        Some(format!("{key} gets its pod {ordinal} although pod {ill} is not ready"))
    }

    fn gives_up(&mut self, cluster: &dyn Cluster, by: ProcessId, key: &Key) -> Option<String> {
        let pod = oracle::pod(cluster.known(by, key)).filter(|p| oracle::is_active(p))?;
        let view = View::of(cluster, by, pod)?;
        let namespace = cluster.known(by, &Key::cluster(Kind::Namespace, &key.namespace));
        let dying = namespace.is_some_and(|n| oracle::is_going(n.meta()));
        let evicted = self.disrupted.contains(key, oracle::pod(cluster.object(key))?);
        if dying || evicted || oracle::is_going(&view.set.metadata) {
            return None;
        }
        let ordinal = sets::ordinal(view.set, pod)?;
        let (first, end) = sets::ordinals(view.set);
        let now = Known { at: cluster.now(), limit: end, seen: Revision::default() };
        let ends = self.lately.known(by, oracle::controller(&pod.metadata)?, now);
        let was_surplus = !sets::is_ordered(view.set) && ends.iter().any(|k| k.limit <= ordinal);
        if was_surplus {
            return None;
        }
        if (first..end).contains(&ordinal) {
            let overtaken = self.plans.is_overtaken(by, oracle::controller(&pod.metadata)?);
            return if overtaken { None } else { Self::replaces(&view, pod, ordinal) };
        }
        if !sets::is_ordered(view.set) {
            return None;
        }
        if let Some((later, _)) = view.pods.iter().find(|(i, _)| *i > ordinal && *i >= end) {
            return Some(format!("{key} goes although pod {later} is still there"));
        }
        let ill = view.first_ill(first..end)?;
        Some(format!("{key} goes although pod {ill} is not ready"))
    }

    /// Judges that a pod is replaced by a rollout.
    fn replaces(view: &View<'_>, pod: &Pod, ordinal: i64) -> Option<String> {
        let (first, end) = sets::ordinals(view.set);
        let key = &view.key;
        if ordinal < first + sets::partition(view.set) {
            return Some(format!("{key} replaces its pod {ordinal}, before the partition"));
        }
        let update = view.set.status.as_ref().and_then(|s| s.update_revision.as_deref());
        let status = view.set.status.as_ref().and_then(|s| s.observed_generation);
        let seen = status == view.set.metadata.generation;
        if seen && update == Some(revision(pod)) {
            return Some(format!("{key} replaces its pod {ordinal}, which is of its template"));
        }
        let ill = view.first_ill(ordinal + 1..end)?;
        Some(format!("{key} replaces its pod {ordinal} although pod {ill} is not ready"))
    }

    /// Takes in what happened, and judges it.
    pub(super) fn observe(
        &mut self,
        cluster: &dyn Cluster,
        occurrence: &Occurrence<'_>,
    ) -> Option<String> {
        self.disrupted.observe(cluster, occurrence);
        self.plans.observe(cluster, occurrence);
        if let Some((by, key)) = occurrence.pod_given_up(cluster) {
            return self.gives_up(cluster, by, key);
        }
        match occurrence {
            Occurrence::Called { by, request: Request::Create(Object::Pod(pod)) }
                if cluster.role(*by) == Role::ControllerManager =>
            {
                self.creates(cluster, *by, pod)
            }
            _ => None,
        }
    }

    /// At rest no pod from the partition on is of an old template, unless a pod is not ready.
    pub(super) fn at_rest(cluster: &dyn Cluster, found: &mut Vec<String>) {
        for object in cluster.objects(Kind::StatefulSet).filter(|o| !oracle::is_going(o.meta())) {
            let Some(set) = object.get::<StatefulSet>() else { continue };
            let Some(template) = set.spec.as_ref().and_then(|s| s.template.spec.as_ref()) else {
                continue;
            };
            let pods = cluster.objects(Kind::Pod).filter_map(Object::get::<Pod>);
            let own = pods.filter(|p| oracle::controller(&p.metadata) == Some(object.uid()));
            let pods = own.filter_map(|p| Some((sets::ordinal(set, p)?, p))).collect();
            let view = View { key: object.key(), set, pods };
            let (first, end) = sets::ordinals(set);
            if view.first_ill(first..end).is_some() {
                continue;
            }
            let images = |spec: &k8s_openapi::api::core::v1::PodSpec| -> Vec<Option<String>> {
                spec.containers.iter().map(|c| c.image.clone()).collect()
            };
            let old = view.pods.iter().find(|(i, pod)| {
                *i >= first + sets::partition(set)
                    && pod.spec.as_deref().is_some_and(|spec| images(spec) != images(template))
            });
            if let Some((ordinal, _)) = old {
                let key = &view.key;
                found.push(format!("{key} has a pod {ordinal} of an old template at rest"));
            }
        }
    }
}

#[cfg(test)]
mod tests;
