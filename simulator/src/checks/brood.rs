//! The active pods of each controller, followed write by write, and the lives of processes: what
//! several checks of replication need to know.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use api::{Key, Kind, Object, Pod};

use crate::check::{Cluster, Occurrence};
use crate::oracle;
use crate::world::ProcessId;

/// Whoever has waited so long for an answer does not know whether the call was carried out.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// A process in one of its lives.
pub(super) type Life = (ProcessId, u32);

/// Counts the lives of processes.
#[derive(Clone, Default)]
pub(super) struct Lives(BTreeMap<ProcessId, u32>);

impl Lives {
    /// Takes in what happened.
    pub(super) fn observe(&mut self, occurrence: &Occurrence<'_>) {
        if let Occurrence::Started(process) = occurrence {
            *self.0.entry(*process).or_default() += 1;
        }
    }

    /// The process in its present life.
    pub(super) fn of(&self, process: ProcessId) -> Life {
        (process, self.0.get(&process).copied().unwrap_or(0))
    }
}

/// How a write changed the active pods of a controller.
pub(super) enum Change {
    /// It has one more.
    Joined(String),
    /// It has one less.
    Left(String),
}

/// The active pods of each controller, by its UID; or of parts of what controllers have.
#[derive(Clone)]
pub(super) struct Broods {
    group: fn(&Pod) -> Option<String>,
    keys: BTreeMap<String, BTreeSet<Key>>,
}

impl Default for Broods {
    fn default() -> Self {
        Self::by(|pod| oracle::controller(&pod.metadata).map(str::to_owned))
    }
}

impl Broods {
    /// Pods belong together if they have the same name of a group; not at all without one.
    pub(super) const fn by(group: fn(&Pod) -> Option<String>) -> Self {
        Self { group, keys: BTreeMap::new() }
    }

    /// The group of a pod.
    pub(super) fn group(&self, pod: &Pod) -> Option<String> {
        (self.group)(pod)
    }

    /// Takes in a write of a pod; says whose brood it changed.
    pub(super) fn committed(
        &mut self,
        key: &Key,
        old: Option<&Object>,
        new: Option<&Object>,
    ) -> Option<Change> {
        if key.kind != Kind::Pod {
            return None;
        }
        let owner = |o| {
            let pod: Option<&Pod> = oracle::pod(o).filter(|p| oracle::is_active(p));
            pod.and_then(self.group)
        };
        match (owner(old), owner(new)) {
            (before, after) if before == after => None,
            (_, Some(after)) => {
                self.keys.entry(after.clone()).or_default().insert(key.clone());
                Some(Change::Joined(after))
            }
            (Some(before), None) => {
                if let Some(keys) = self.keys.get_mut(&before) {
                    keys.remove(key);
                    if keys.is_empty() {
                        self.keys.remove(&before);
                    }
                }
                Some(Change::Left(before))
            }
            (None, None) => None,
        }
    }

    /// The active pods of a controller.
    pub(super) fn of(&self, uid: &str) -> impl Iterator<Item = &Key> {
        self.keys.get(uid).into_iter().flatten()
    }

    /// How many active pods a controller has.
    pub(super) fn size(&self, uid: &str) -> i64 {
        self.keys.get(uid).map_or(0, |keys| i64::try_from(keys.len()).unwrap_or(i64::MAX))
    }
}

/// How many pods an object asks for, if it keeps a number of pods itself.
pub(super) fn replicas(owner: &Object) -> Option<i64> {
    let given = match owner {
        Object::ReplicaSet(set) => set.spec.as_ref()?.replicas,
        Object::ReplicationController(rc) => rc.spec.as_ref()?.replicas,
        _ => return None,
    };
    Some(i64::from(given.unwrap_or(1).max(0)))
}

/// The owner that a pod names as its controller, as a controller manager itself knows it.
pub(super) fn known_owner<'a>(
    cluster: &'a dyn Cluster,
    manager: ProcessId,
    pod: &Pod,
) -> Option<&'a Object> {
    let meta = &pod.metadata;
    let owner = meta.owner_references.iter().flatten().find(|o| o.controller == Some(true))?;
    let kind = Kind::of_manifest(&owner.api_version, &owner.kind)?;
    let key = Key::new(kind, meta.namespace.as_deref().unwrap_or_default(), &owner.name);
    cluster.known(manager, &key).filter(|o| o.uid() == owner.uid)
}
