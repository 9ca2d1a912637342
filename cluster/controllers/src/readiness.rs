//! [`Readiness`]: since when pods are ready, by the clock of this process.
//!
//! The time in the condition of a pod is its node's. Where clocks differ a pod would count as
//! available too early. So the becoming ready that this process has seen counts as well: a pod
//! is available when it has been ready for long enough by both clocks. What a process has not seen,
//! since it was started later, it takes from the condition alone.
//!
//! One difference from Kubernetes 1.33, which compares the node's time with its own
//! (kubernetes#29229).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use api::hash::fnv64;
use api::{Pod, Time};
use machine::Memory;

use crate::pods;

/// The notes of the pods that were last seen not to be ready, and of those that were seen to become
/// so and have not been ready for long enough since.
const UNREADY: &str = "unready";
const READY: &str = "ready";

/// When pods became ready that are not long enough so yet.
#[derive(Default)]
pub(crate) struct Readiness(BTreeMap<i64, Time>);

/// What stands for a pod in notes.
fn number(pod: &Pod) -> i64 {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    i64::from_ne_bytes(fnv64(uid.as_bytes()).to_ne_bytes())
}

impl Readiness {
    /// Notes in the memory of their owner which pods are ready, if it matters for how long.
    pub(crate) fn note<'a>(
        memory: &mut Memory,
        min_ready: Duration,
        pods: impl Iterator<Item = &'a Pod>,
        now: Time,
    ) -> Self {
        let mut notes = |name: &str| memory.notes.remove(name).unwrap_or_default().into_iter();
        let unready_before: BTreeSet<i64> = notes(UNREADY).map(|(_, pod)| pod).collect();
        let before: BTreeMap<i64, Time> = notes(READY).map(|(at, pod)| (pod, at)).collect();
        if min_ready.is_zero() {
            return Self::default();
        }
        let (mut unready, mut ready) = (Vec::new(), BTreeMap::new());
        for pod in pods {
            let pod_number = number(pod);
            if !pods::is_ready(pod) {
                unready.push((now, pod_number));
                continue;
            }
            let came = unready_before.contains(&pod_number).then_some(now);
            let since = before.get(&pod_number).copied().or(came);
            if let Some(since) = since.filter(|since| *since + min_ready > now) {
                ready.insert(pod_number, since);
            }
        }
        let noted: Vec<(Time, i64)> = ready.iter().map(|(pod, at)| (*at, *pod)).collect();
        for (name, notes) in [(UNREADY, unready), (READY, noted)] {
            if !notes.is_empty() {
                memory.notes.insert(name, notes);
            }
        }
        Self(ready)
    }

    /// When the pod will have been ready for `min_ready`; `None` when it is not ready.
    pub(crate) fn available_at(&self, pod: &Pod, min_ready: Duration) -> Option<Time> {
        let by_node = pods::available_at(pod, min_ready)?;
        let seen = self.0.get(&number(pod)).map(|since| *since + min_ready);
        Some(by_node.max(seen.unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use api::{Kind, codec};
    use serde_json::json;

    use super::*;

    const MIN_READY: Duration = Duration::from_secs(30);

    /// A pod that became ready at that second by its node's clock, if it is.
    fn pod(ready: Option<u64>) -> Pod {
        let mut value = json!({"metadata": {"name": "a", "uid": "a"}, "spec": {"containers": []}});
        if let Some(secs) = ready {
            value["status"] = json!({"conditions": [{"type": "Ready", "status": "True",
                "lastTransitionTime": Time::from_secs(secs).to_meta()}]});
        }
        codec::decode_value(Kind::Pod, &value).unwrap().get::<Pod>().unwrap().clone()
    }

    /// When the pod is available in the last of some looks, at those seconds.
    fn check(looks: &[(u64, Option<u64>)], expected: Option<u64>) {
        let mut memory = Memory::default();
        let mut available = None;
        for (secs, ready) in looks {
            let (pod, now) = (pod(*ready), Time::from_secs(*secs));
            let readiness = Readiness::note(&mut memory, MIN_READY, [&pod].into_iter(), now);
            available = readiness.available_at(&pod, MIN_READY);
        }
        assert_eq!(available, expected.map(Time::from_secs), "{looks:?}");
    }

    #[test]
    fn both_clocks_count() {
        // The node's clock is right, behind, and ahead.
        check(&[(100, None), (110, Some(110))], Some(140));
        check(&[(100, None), (110, Some(50))], Some(140));
        check(&[(100, None), (110, Some(170))], Some(200));
        // It stays as it was first seen, and falls back to the node's word when it is over.
        check(&[(100, None), (110, Some(50)), (120, Some(50))], Some(140));
        check(&[(100, None), (110, Some(50)), (140, Some(50))], Some(80));
        // Nobody saw it come.
        check(&[(110, Some(50))], Some(80));
        // It comes again.
        check(&[(100, None), (110, Some(50)), (120, None), (125, Some(65))], Some(155));
        check(&[(100, None)], None);
    }

    #[test]
    fn nothing_is_remembered_where_it_does_not_matter() {
        let mut memory = Memory::default();
        let (pod, now) = (pod(None), Time::from_secs(1));
        Readiness::note(&mut memory, MIN_READY, [&pod].into_iter(), now);
        assert!(!memory.is_empty());
        Readiness::note(&mut memory, Duration::ZERO, [&pod].into_iter(), now);
        assert!(memory.is_empty());
    }
}
