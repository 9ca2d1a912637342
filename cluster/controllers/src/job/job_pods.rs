//! The pods of each job, by what matters for the job: so that looking at a job costs what has
//! happened to it since, and not what it has done before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::{Key, Kind, Object, Pod, Time, meta};
use machine::{Cache, Index};

use super::pod::{self, COMPLETION_INDEX};
use crate::labels::Labels;
use crate::pods;
use crate::selectors::NO_LABELS;

/// The pods that each job controls, by its UID.
#[derive(Clone, Debug, Default)]
pub(super) struct JobPods(BTreeMap<String, Owned>);

/// The pods of one job.
#[derive(Clone, Debug, Default)]
pub(super) struct Owned {
    /// All of them.
    pub(super) total: usize,
    /// Those that neither have ended nor are being deleted, by completion index.
    pub(super) active: BTreeMap<Option<i32>, BTreeSet<Arc<Key>>>,
    /// How many these are.
    pub(super) active_count: usize,
    /// How many of them are ready.
    pub(super) ready: usize,
    /// Those of them that are not tracked.
    pub(super) untracked: BTreeSet<Arc<Key>>,
    /// How many are being deleted and have not ended.
    pub(super) ending: usize,
    /// How often containers were restarted of pods that have not ended.
    pub(super) restarts: i64,
    /// Those that have ended or are being deleted and are still tracked.
    pub(super) unaccounted: BTreeSet<Arc<Key>>,
    /// Those that succeeded, by when.
    pub(super) succeeded: BTreeSet<(Time, Arc<Key>)>,
    /// Those that failed, by when.
    pub(super) failed: BTreeSet<(Time, Arc<Key>)>,
    /// How many of those that are not done have which labels, but for that of the index.
    pub(super) labels: BTreeMap<Labels, usize>,
}

/// What is known of one pod.
#[derive(PartialEq)]
struct Facts<'a> {
    owner: &'a str,
    index: Option<i32>,
    active: bool,
    ready: bool,
    tracked: bool,
    ending: bool,
    ended: Option<(bool, Time)>,
    restarts: i64,
    labels: &'a Labels,
}

impl<'a> Facts<'a> {
    fn of(object: Option<&'a Object>) -> Option<Self> {
        let pod = object?.get::<Pod>()?;
        let owner = meta::controller_of(&pod.metadata)?;
        if owner.kind != Kind::Job.name() || owner.api_version != Kind::Job.api_version() {
            return None;
        }
        let active = pods::is_active(pod);
        let tracked = pod::is_tracked(pod);
        let succeeded = pods::phase(pod) == "Succeeded";
        // One that was let go before it was deleted, because there were too many, has not failed.
        let counts = succeeded || tracked || !meta::is_terminating(&pod.metadata);
        let ended = (pods::is_terminal(pod) && counts).then(|| (succeeded, pod::finish_time(pod)));
        Some(Self {
            owner: &owner.uid,
            index: pod::completion_index(pod),
            active,
            ready: active && pods::is_ready(pod),
            tracked,
            ending: pod::is_ending(pod),
            ended,
            restarts: pod::restarts(pod),
            labels: pod.metadata.labels.as_ref().unwrap_or(&NO_LABELS),
        })
    }

    const fn is_unaccounted(&self) -> bool {
        self.tracked && !self.active
    }

    fn is_done(&self) -> bool {
        !self.active && !self.tracked
    }

    /// The labels that the pods of a job have in common.
    fn common_labels(&self) -> Labels {
        let mut labels = self.labels.clone();
        labels.remove(COMPLETION_INDEX);
        labels
    }
}

impl Index for JobPods {
    fn kinds(&self) -> &'static [Kind] {
        &[Kind::Pod]
    }

    fn update(&mut self, key: &Arc<Key>, old: Option<&Object>, new: Option<&Object>) {
        let (old, new) = (Facts::of(old), Facts::of(new));
        if old == new {
            return;
        }
        if let Some(old) = old {
            self.discount(key, &old);
        }
        if let Some(new) = new {
            self.0.entry(new.owner.to_owned()).or_default().count(key, &new);
        }
    }
}

impl JobPods {
    /// The pods of the job of that UID, if it has any.
    pub(super) fn of<'a>(cache: &'a Cache, uid: &str) -> Option<&'a Owned> {
        cache.index::<Self>().0.get(uid)
    }

    fn discount(&mut self, key: &Arc<Key>, old: &Facts<'_>) {
        let Some(owned) = self.0.get_mut(old.owner) else { return };
        owned.discount(key, old);
        if owned.total == 0 {
            self.0.remove(old.owner);
        }
    }
}

impl Owned {
    fn count(&mut self, key: &Arc<Key>, pod: &Facts<'_>) {
        self.total += 1;
        self.restarts += pod.restarts;
        self.ready += usize::from(pod.ready);
        self.ending += usize::from(pod.ending);
        if pod.active {
            self.active_count += 1;
            self.active.entry(pod.index).or_default().insert(key.clone());
            if !pod.tracked {
                self.untracked.insert(key.clone());
            }
        }
        if pod.is_unaccounted() {
            self.unaccounted.insert(key.clone());
        }
        if !pod.is_done() {
            *self.labels.entry(pod.common_labels()).or_default() += 1;
        }
        match pod.ended {
            Some((true, time)) => drop(self.succeeded.insert((time, key.clone()))),
            Some((false, time)) => drop(self.failed.insert((time, key.clone()))),
            None => {}
        }
    }

    fn discount(&mut self, key: &Arc<Key>, pod: &Facts<'_>) {
        self.total -= 1;
        self.restarts -= pod.restarts;
        self.ready -= usize::from(pod.ready);
        self.ending -= usize::from(pod.ending);
        if pod.active {
            self.active_count -= 1;
            if let Some(keys) = self.active.get_mut(&pod.index) {
                keys.remove(key);
                if keys.is_empty() {
                    self.active.remove(&pod.index);
                }
            }
            self.untracked.remove(key);
        }
        if pod.is_unaccounted() {
            self.unaccounted.remove(key);
        }
        if !pod.is_done() {
            let labels = pod.common_labels();
            if let Some(count) = self.labels.get_mut(&labels) {
                *count -= 1;
                if *count == 0 {
                    self.labels.remove(&labels);
                }
            }
        }
        match pod.ended {
            Some((true, time)) => drop(self.succeeded.remove(&(time, key.clone()))),
            Some((false, time)) => drop(self.failed.remove(&(time, key.clone()))),
            None => {}
        }
    }

    /// The active pods, by completion index.
    pub(super) fn active_keys(&self) -> impl Iterator<Item = &Arc<Key>> {
        self.active.values().flatten()
    }

    /// Those that are tracked.
    pub(super) fn tracked_keys(&self) -> impl Iterator<Item = &Arc<Key>> {
        let active = self.active_keys().filter(|key| !self.untracked.contains(*key));
        active.chain(&self.unaccounted)
    }
}

#[cfg(test)]
mod tests {
    use api::{Revision, codec};
    use machine::WatchEvent;
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::pod::TRACKING;
    use super::*;

    /// Owner, completion index, phase, whether ready, tracked and terminating.
    type State = (Option<u8>, Option<u8>, u8, bool, bool, bool);

    fn state() -> impl Strategy<Value = State> {
        let some = || proptest::option::of(0..2_u8);
        (some(), some(), 0..4_u8, any::<bool>(), any::<bool>(), any::<bool>())
    }

    fn object(name: &str, revision: Revision, state: State) -> Object {
        let (owner, index, phase, ready, tracked, terminating) = state;
        let phase = ["Pending", "Running", "Succeeded", "Failed"][usize::from(phase)];
        let status = if ready { "True" } else { "False" };
        let mut value = json!({"metadata": {"name": name, "namespace": "n",
            "resourceVersion": revision.to_string(), "labels": {"a": "b"}, "annotations": {}},
            "spec": {"containers": []},
            "status": {"phase": phase, "conditions": [{"type": "Ready", "status": status}],
                "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": ready,
                    "restartCount": 2}]}});
        if let Some(owner) = owner {
            value["metadata"]["ownerReferences"] = json!([{"apiVersion": "batch/v1",
                "kind": "Job", "name": "j", "uid": owner.to_string(), "controller": true}]);
        }
        if let Some(index) = index {
            value["metadata"]["annotations"][COMPLETION_INDEX] = index.to_string().into();
            value["metadata"]["labels"][COMPLETION_INDEX] = index.to_string().into();
        }
        if tracked {
            value["metadata"]["finalizers"] = json!([TRACKING]);
        }
        if terminating {
            value["metadata"]["deletionTimestamp"] = json!(Time::from_secs(5).to_meta());
        }
        codec::decode_value(Kind::Pod, &value).unwrap()
    }

    proptest! {
        #[test]
        fn what_changes_lead_to_is_what_a_count_gives(
            changes in proptest::collection::vec(
                (0..5_u8, proptest::option::of(state())), 1..40),
        ) {
            let index: Box<dyn Index> = Box::<JobPods>::default();
            let mut cache = Cache::with_indexes([index]);
            for (i, (name, change)) in changes.iter().enumerate() {
                let name = format!("p{name}");
                let revision = Revision(u64::try_from(i).unwrap() + 1);
                let event = match change {
                    Some(state) => WatchEvent::Changed(object(&name, revision, *state)),
                    None => WatchEvent::Deleted { key: Key::new(Kind::Pod, "n", &name), revision },
                };
                cache.apply(Time(0), event);
            }
            let mut fresh = JobPods::default();
            for object in cache.objects(Kind::Pod) {
                fresh.update(&Arc::new(object.key()), None, Some(object));
            }
            let kept = cache.index::<JobPods>();
            prop_assert_eq!(format!("{kept:?}"), format!("{fresh:?}"));
            let mut cleared = kept.clone();
            for object in cache.objects(Kind::Pod) {
                cleared.update(&Arc::new(object.key()), Some(object), None);
            }
            prop_assert!(cleared.0.is_empty());
        }
    }
}
