//! How many pods each controller has, by what matters for their number.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::{Key, Kind, Name, Object, Pod, meta};
use machine::{Cache, Index};

use crate::labels::Labels;
use crate::pods;
use crate::selectors::NO_LABELS;

/// Pods of one owner with the same labels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Those that count as replicas.
    pub(crate) active: usize,
    /// Those of them that are ready.
    pub(crate) ready: usize,
}

/// Tallies by namespace, UID of the controller, and labels.
#[derive(Clone, Debug, Default)]
pub(crate) struct PodTallies {
    namespaces: BTreeMap<Name, BTreeMap<String, BTreeMap<Labels, Tally>>>,
}

/// What is tallied of an active pod that has a controller.
#[derive(PartialEq)]
struct Counted<'a> {
    owner: &'a str,
    labels: &'a Labels,
    ready: bool,
}

impl<'a> Counted<'a> {
    fn of(object: Option<&'a Object>) -> Option<Self> {
        let pod = object?.get::<Pod>().filter(|p| pods::is_active(p))?;
        Some(Self {
            owner: &meta::controller_of(&pod.metadata)?.uid,
            labels: pod.metadata.labels.as_ref().unwrap_or(&NO_LABELS),
            ready: pods::is_ready(pod),
        })
    }
}

impl Index for PodTallies {
    fn kinds(&self) -> &'static [Kind] {
        &[Kind::Pod]
    }

    fn update(&mut self, key: &Arc<Key>, old: Option<&Object>, new: Option<&Object>) {
        let (old, new) = (Counted::of(old), Counted::of(new));
        if old == new {
            return;
        }
        if let Some(old) = old {
            self.discount(&key.namespace, &old);
        }
        if let Some(new) = new {
            self.count(&key.namespace, &new);
        }
    }
}

impl PodTallies {
    /// The tallies of the pods in the namespace that the owner of that UID controls.
    pub(crate) fn of<'a>(
        cache: &'a Cache,
        namespace: &str,
        uid: &str,
    ) -> impl Iterator<Item = (&'a Labels, Tally)> {
        let owners = cache.index::<Self>().namespaces.get(namespace);
        let tallies = owners.and_then(|owners| owners.get(uid));
        tallies.into_iter().flatten().map(|(labels, tally)| (labels, *tally))
    }

    fn count(&mut self, namespace: &Name, pod: &Counted<'_>) {
        let owners = match self.namespaces.get_mut(namespace) {
            Some(owners) => owners,
            None => self.namespaces.entry(namespace.clone()).or_default(),
        };
        let tallies = match owners.get_mut(pod.owner) {
            Some(tallies) => tallies,
            None => owners.entry(pod.owner.to_owned()).or_default(),
        };
        let tally = match tallies.get_mut(pod.labels) {
            Some(tally) => tally,
            None => tallies.entry(pod.labels.clone()).or_default(),
        };
        tally.active += 1;
        tally.ready += usize::from(pod.ready);
    }

    fn discount(&mut self, namespace: &Name, pod: &Counted<'_>) {
        let Some(owners) = self.namespaces.get_mut(namespace) else { return };
        let Some(tallies) = owners.get_mut(pod.owner) else { return };
        let Some(tally) = tallies.get_mut(pod.labels) else { return };
        tally.active -= 1;
        tally.ready -= usize::from(pod.ready);
        if tally.active == 0 {
            tallies.remove(pod.labels);
        }
        if tallies.is_empty() {
            owners.remove(pod.owner);
        }
        if owners.is_empty() {
            self.namespaces.remove(namespace);
        }
    }
}

#[cfg(test)]
mod tests {
    use api::{Revision, Time, codec};
    use machine::WatchEvent;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// Owner, label, phase, readiness and deletion of a pod.
    type State = (Option<u8>, Option<u8>, bool, bool, bool);

    fn pod(name: &str, revision: Revision, state: &State) -> Object {
        let (owner, label, ended, ready, terminating) = *state;
        let status = |yes: bool| if yes { "True" } else { "False" };
        let mut value = json!({"metadata": {"name": name, "namespace": "n",
            "resourceVersion": revision.to_string()}, "spec": {"containers": []},
            "status": {"phase": if ended { "Failed" } else { "Running" },
                "conditions": [{"type": "Ready", "status": status(ready)}]}});
        if let Some(owner) = owner {
            value["metadata"]["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "X",
                "name": "x", "uid": owner.to_string(), "controller": true}]);
        }
        if let Some(label) = label {
            value["metadata"]["labels"] = json!({"a": label.to_string()});
        }
        if terminating {
            value["metadata"]["deletionTimestamp"] = json!(Time::ZERO.to_meta());
        }
        codec::decode_value(Kind::Pod, &value).unwrap()
    }

    fn state() -> impl Strategy<Value = State> {
        let some = || proptest::option::of(0..2_u8);
        (some(), some(), any::<bool>(), any::<bool>(), any::<bool>())
    }

    proptest! {
        #[test]
        fn tallies_are_what_a_count_gives(
            changes in proptest::collection::vec(
                (0..5_u8, proptest::option::of(state())), 1..40),
        ) {
            let index: Box<dyn Index> = Box::<PodTallies>::default();
            let mut cache = Cache::with_indexes([index]);
            for (i, (name, change)) in changes.iter().enumerate() {
                let name = format!("p{name}");
                let revision = Revision(u64::try_from(i).unwrap() + 1);
                let event = match change {
                    Some(state) => WatchEvent::Changed(pod(&name, revision, state)),
                    None => WatchEvent::Deleted { key: Key::new(Kind::Pod, "n", &name), revision },
                };
                cache.apply(Time(0), event);
            }
            for uid in ["0", "1"] {
                let mut expected: BTreeMap<Labels, Tally> = BTreeMap::new();
                let controlled = |p: &&Pod| {
                    meta::controller_of(&p.metadata).is_some_and(|o| o.uid == uid)
                };
                for pod in cache.list::<Pod>().filter(controlled).filter(|p| pods::is_active(p)) {
                    let labels = pod.metadata.labels.clone().unwrap_or_default();
                    let tally = expected.entry(labels).or_default();
                    tally.active += 1;
                    tally.ready += usize::from(pods::is_ready(pod));
                }
                let found: BTreeMap<Labels, Tally> = PodTallies::of(&cache, "n", uid)
                    .map(|(labels, tally)| (labels.clone(), tally))
                    .collect();
                prop_assert_eq!(found, expected);
                prop_assert_eq!(PodTallies::of(&cache, "other", uid).count(), 0);
            }
        }
    }
}
