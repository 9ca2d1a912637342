//! The store and the API's rules for every write: P1, P3, P6, P7, P41.

use std::collections::BTreeMap;

use api::{Key, Kind, Object, Request, Revision, Table};
use machine::WatchEvent;

use super::of_process::OfProcess;
use crate::check::{Check, Cluster, Occurrence, Role};
use crate::oracle;
use crate::world::ProcessId;

/// The kind and the revision that a delivery is about.
pub(super) fn coordinates(event: &WatchEvent) -> (Kind, Revision) {
    match event {
        WatchEvent::Changed(object) => (object.kind(), object.revision()),
        WatchEvent::Deleted { key, revision } | WatchEvent::Renewing { key, revision } => {
            (key.kind, *revision)
        }
        WatchEvent::Replaced { kind, revision, .. } | WatchEvent::Progress { kind, revision } => {
            (*kind, *revision)
        }
    }
}

/// P1: revisions rise from write to write, and along every watch.
#[derive(Clone, Default)]
pub(super) struct Revisions {
    last: Revision,
    streams: OfProcess<BTreeMap<Kind, Revision>>,
}

impl Revisions {
    fn committed(
        &mut self,
        key: &Key,
        new: Option<&Object>,
        at: Revision,
        found: &mut Vec<String>,
    ) {
        if at <= self.last {
            found.push(format!("{key} was written at revision {at}, after revision {}", self.last));
        }
        if let Some(new) = new.filter(|o| o.revision() != at) {
            let says = new.revision();
            found.push(format!("{key} was written at revision {at} and says {says}"));
        }
        self.last = at;
    }

    fn delivered(&mut self, to: ProcessId, event: &WatchEvent, found: &mut Vec<String>) -> bool {
        let (kind, revision) = coordinates(event);
        let last = self.streams.of(to).entry(kind).or_default();
        let restarts = matches!(event, WatchEvent::Replaced { .. });
        let back = !restarts && revision < *last;
        if back {
            found.push(format!(
                "a watch of {} went back from revision {last} to {revision}",
                kind.plural()
            ));
        }
        *last = if restarts { revision } else { revision.max(*last) };
        back
    }
}

impl Check for Revisions {
    fn property(&self) -> &'static str {
        "P1"
    }

    fn statement(&self) -> &'static str {
        "revisions rise from write to write, and along every watch"
    }

    fn observe(
        &mut self,
        cluster: &dyn Cluster,
        occurrence: &Occurrence<'_>,
        found: &mut Vec<String>,
    ) {
        match occurrence {
            Occurrence::Committed { key, new, revision, .. } => {
                self.committed(key, *new, *revision, found);
            }
            Occurrence::Delivered { to, event } => {
                if self.delivered(*to, event, found)
                    && let Some(message) = found.last_mut()
                {
                    message.insert_str(0, &format!("{}: ", cluster.component(*to)));
                }
            }
            Occurrence::Started(process) | Occurrence::Crashed(process) => {
                self.streams.forget(*process);
            }
            _ => {}
        }
    }
}

/// P3: of two writes derived from one revision at most one is carried out.
#[derive(Clone, Default)]
pub(super) struct CompareAndSwap;

/// Why a write must not have been carried out on `old`.
fn lost_race(request: &Request, old: Option<&Object>) -> Option<String> {
    let is = old.map(Object::revision).unwrap_or_default();
    match request {
        Request::Create(_) => {
            old.map(|_| format!("was created although it existed at revision {is}"))
        }
        Request::Update { object, .. } => {
            let from = object.revision();
            (from != Revision::default() && from != is)
                .then(|| format!("was updated from revision {from} while it was at {is}"))
        }
        Request::Delete { uid, revision, .. } => {
            let uid_is = old.map(Object::uid).unwrap_or_default();
            if let Some(uid) = uid.as_deref().filter(|uid| *uid != uid_is) {
                return Some(format!("was deleted as UID {uid} while it was {uid_is}"));
            }
            let wanted = revision.filter(|wanted| *wanted != is)?;
            Some(format!("was deleted at revision {wanted} only, while it was at {is}"))
        }
        Request::Bind { uid, .. } => {
            let uid_is = old.map(Object::uid).unwrap_or_default();
            (uid != uid_is).then(|| format!("was bound as UID {uid} while it was {uid_is}"))
        }
        _ => None,
    }
}

impl Check for CompareAndSwap {
    fn property(&self) -> &'static str {
        "P3"
    }

    fn statement(&self) -> &'static str {
        "of two writes derived from one revision at most one is carried out"
    }

    fn observe(&mut self, _: &dyn Cluster, occurrence: &Occurrence<'_>, found: &mut Vec<String>) {
        if let Occurrence::Committed { request, key, old, .. } = occurrence
            && let Some(why) = lost_race(request, *old)
        {
            found.push(format!("{key} {why}"));
        }
    }
}

/// P6: an object keeps its UID, no UID comes back, and controllers are told when a name gets
/// another object behind it.
#[derive(Clone, Default)]
pub(super) struct UidsStay {
    used: Table<Box<str>, ()>,
}

impl Check for UidsStay {
    fn property(&self) -> &'static str {
        "P6"
    }

    fn statement(&self) -> &'static str {
        "an object keeps its UID, and another object of its name has another one and is noticed"
    }

    fn observe(
        &mut self,
        cluster: &dyn Cluster,
        occurrence: &Occurrence<'_>,
        found: &mut Vec<String>,
    ) {
        match occurrence {
            Occurrence::Committed { key, old: Some(old), new: Some(new), .. }
                if old.uid() != new.uid() =>
            {
                found.push(format!("{key} changed its UID from {} to {}", old.uid(), new.uid()));
            }
            Occurrence::Committed { key, old: None, new: Some(new), .. }
                if new.uid().is_empty() || self.used.insert(new.uid().into(), ()).is_some() =>
            {
                found.push(format!("{key} was created with the used UID {:?}", new.uid()));
            }
            Occurrence::Delivered { to, event: WatchEvent::Changed(object) }
                if cluster.role(*to) == Role::ControllerManager =>
            {
                let key = object.key();
                // Old news: the cache ignores it.
                let known = cluster.known(*to, &key).filter(|o| o.revision() < object.revision());
                if let Some(known) = known.filter(|known| known.uid() != object.uid()) {
                    found.push(format!(
                        "{} was told that {key} changed, and never that the one with UID {} is \
                         gone and {} is another",
                        cluster.component(*to),
                        known.uid(),
                        object.uid()
                    ));
                }
            }
            _ => {}
        }
    }
}

/// P7: an object whose deletion was asked for is there exactly as long as somebody holds it.
#[derive(Clone, Default)]
pub(super) struct Finalizers;

/// Whether anything keeps an object whose deletion was asked for: finalizers, the finalizers of a
/// namespace, or the time that a pod has to end.
fn is_held(object: &Object) -> bool {
    let meta = object.meta();
    let spec = match object {
        Object::Namespace(n) => n.spec.as_ref().and_then(|s| s.finalizers.as_ref()),
        _ => None,
    };
    let grace = meta.deletion_grace_period_seconds.unwrap_or(0) > 0;
    let some = |list: Option<&Vec<String>>| list.is_some_and(|f| !f.is_empty());
    some(meta.finalizers.as_ref()) || some(spec) || (grace && object.kind() == Kind::Pod)
}

fn misheld(request: &Request, old: Option<&Object>, new: Option<&Object>) -> Option<String> {
    let (before, after) = (old.map(Object::meta), new.map(Object::meta));
    match (before, after) {
        (Some(before), None) => {
            let deletes = matches!(request, Request::Delete { .. });
            // The write that takes the last finalizer away removes the object, too.
            if !deletes && before.deletion_timestamp.is_none() {
                return Some("was removed and nobody had asked for it".to_owned());
            }
            let held = before.finalizers.as_ref().filter(|f| deletes && !f.is_empty());
            held.map(|f| format!("was removed while {} held it", f.join(", ")))
        }
        (before, Some(after)) => {
            if before.is_some_and(oracle::is_going) && !oracle::is_going(after) {
                return Some("was deleted and lives again".to_owned());
            }
            let gone = oracle::is_going(after) && !new.is_some_and(is_held);
            gone.then(|| "was deleted, is held by nobody, and is there".to_owned())
        }
        (None, None) => None,
    }
}

impl Check for Finalizers {
    fn property(&self) -> &'static str {
        "P7"
    }

    fn statement(&self) -> &'static str {
        "an object whose deletion was asked for is there exactly as long as somebody holds it"
    }

    fn observe(&mut self, _: &dyn Cluster, occurrence: &Occurrence<'_>, found: &mut Vec<String>) {
        if let Occurrence::Committed { request, key, old, new, .. } = occurrence
            && let Some(why) = misheld(request, *old, *new)
        {
            found.push(format!("{key} {why}"));
        }
    }
}

/// P41: at most one controller owns an object, and none takes it from another.
///
/// A claim of a stateful set is handed on: it goes with the set or, when its ordinal is no longer
/// wanted, with its pod.
#[derive(Clone, Default)]
pub(super) struct OneController;

impl Check for OneController {
    fn property(&self) -> &'static str {
        "P41"
    }

    fn statement(&self) -> &'static str {
        "at most one controller owns an object, and none takes it from another"
    }

    fn observe(&mut self, _: &dyn Cluster, occurrence: &Occurrence<'_>, found: &mut Vec<String>) {
        let Occurrence::Committed { key, old, new: Some(new), .. } = occurrence else { return };
        let owners = new.meta().owner_references.iter().flatten();
        let controllers = owners.filter(|o| o.controller == Some(true)).count();
        if controllers > 1 {
            found.push(format!("{key} has {controllers} controllers"));
        }
        let before = old.and_then(|o| oracle::controller(o.meta()));
        let after = oracle::controller(new.meta());
        if let (Some(before), Some(after)) = (before, after)
            && before != after
            && !is_handed_on(new)
        {
            found.push(format!("{key} was taken from controller {before} by {after}"));
        }
    }
}

/// Whether the object is a claim that belongs to a stateful set or to one of its pods.
fn is_handed_on(object: &Object) -> bool {
    let mut owners = object.meta().owner_references.iter().flatten();
    object.kind() == Kind::PersistentVolumeClaim
        && owners.all(|o| matches!(o.kind.as_str(), "StatefulSet" | "Pod"))
}

#[cfg(test)]
mod tests;
