//! [`Groups`]: the pods of each group, and those that are bound together.
//!
//! Pods with claims wait for these before they are bound. The rest of the group waits with them,
//! for a limited time, after which all give their places back.

use std::collections::{BTreeMap, BTreeSet};

use api::{Key, Name, Pod, Time};
use machine::{ApiEffect, Record, Regarding};

use super::Scheduler;
use super::together::PLUGIN;
use crate::desk::ProfileId;
use crate::group::{Group, GroupCounts, GroupName};
use crate::pod_info::PodInfo;

/// The groups of pods that want a node.
#[derive(Clone, Debug, Default)]
pub(super) struct Groups {
    /// Pods that can be tried, or are being bound.
    pub(super) members: BTreeMap<GroupName, BTreeSet<Key>>,
    /// Pods that had a node and have done what they were for.
    succeeded: BTreeMap<Key, GroupName>,
    /// How many of those there are.
    pub(super) succeeded_of: GroupCounts,
    /// Groups of which some wait for their claims.
    pub(super) permits: BTreeMap<GroupName, Permit>,
    /// The places of pods whose binding failed and whose groups are not whole without them.
    pub(super) kept: BTreeMap<Key, Name>,
}

/// Pods that are bound together.
#[derive(Clone, Debug)]
pub(super) struct Permit {
    pub(super) profile: ProfileId,
    /// The node of each.
    pub(super) members: BTreeMap<Key, String>,
    /// Those of them that wait for their claims.
    pub(super) waiting: BTreeSet<Key>,
    pub(super) deadline: Time,
    /// Whether one of them is gone: the others are not enough.
    pub(super) broken: bool,
}

impl Groups {
    /// Takes a pod that wants a node; one that is not `ready` is not tried.
    pub(super) fn join(&mut self, pod: &PodInfo, ready: bool) {
        if !ready {
            return self.part(pod);
        }
        let Some(group) = &pod.kin.identity.group else { return };
        self.members.entry(group.name.clone()).or_default().insert(pod.key.clone());
    }

    /// Forgets the group of a pod as it was before, unless it `is` the same.
    pub(super) fn leave_former(&mut self, before: &PodInfo, is: &PodInfo) {
        let name = |pod: &PodInfo| pod.kin.identity.group.as_ref().map(|group| group.name.clone());
        if name(before) != name(is) {
            self.part(before);
        }
    }

    /// Forgets a pod that wanted a node.
    pub(super) fn part(&mut self, pod: &PodInfo) {
        let Some(group) = &pod.kin.identity.group else { return };
        if let Some(members) = self.members.get_mut(&group.name) {
            members.remove(&pod.key);
            if members.is_empty() {
                self.members.remove(&group.name);
            }
        }
    }

    /// Notes whether a pod that takes no place any more has succeeded; `None` if there is no such
    /// pod.
    pub(super) fn ended(&mut self, key: &Key, pod: Option<&Pod>) {
        let group = pod.and_then(|pod| {
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            let labels = pod.metadata.labels.as_ref().filter(|_| phase == Some("Succeeded"))?;
            Group::of(&key.namespace, labels)
        });
        if let Some(before) = self.succeeded.remove(key) {
            self.succeeded_of.remove(&before);
        }
        if let Some(group) = group {
            self.succeeded_of.add(&group.name);
            self.succeeded.insert(key.clone(), group.name);
        }
    }

    /// When the first of those that wait for claims have waited for long enough.
    pub(super) fn wake_at(&self) -> Option<Time> {
        self.permits.values().map(|permit| permit.deadline).min()
    }

    /// A pod does not wait for the others of its group any more: it `left`, or somebody bound it.
    /// Tells whether the others may have to know.
    pub(super) fn withdraw(&mut self, key: &Key, left: bool) -> bool {
        let permit = self.permits.values_mut().find(|permit| permit.members.contains_key(key));
        let Some(permit) = permit else { return false };
        permit.members.remove(key);
        permit.waiting.remove(key);
        permit.broken |= left;
        true
    }

    /// Notes that the claims of a pod are bound; `false` if it does not wait for others.
    fn arrived(&mut self, key: &Key) -> bool {
        let permit = self.permits.values_mut().find(|permit| permit.members.contains_key(key));
        permit.map(|permit| permit.waiting.remove(key)).is_some()
    }
}

impl Scheduler {
    /// Binds a pod whose claims are bound, or notes that its group can do without waiting for it.
    pub(super) fn claims_are_bound(
        &mut self,
        key: Key,
        profile: ProfileId,
        node: String,
        out: &mut Vec<ApiEffect>,
    ) {
        if !self.groups.arrived(&key) {
            self.bind(key, profile, node, out);
        }
    }

    /// Binds groups of which all claims are bound, and gives those up that wait in vain.
    pub(super) fn proceed_together(&mut self, now: Time, out: &mut Vec<ApiEffect>) {
        let ends =
            |permit: &Permit| permit.broken || permit.waiting.is_empty() || now >= permit.deadline;
        let ended: Vec<_> = self.groups.permits.extract_if(.., |_, permit| ends(permit)).collect();
        for (group, permit) in ended {
            if permit.waiting.is_empty() && !permit.broken {
                for (key, node) in permit.members {
                    self.bind(key, permit.profile, node, out);
                }
            } else {
                let why = if permit.broken {
                    format!("pod group \"{group}\" has lost a pod")
                } else {
                    let patience = self.desk.profile(permit.profile).coscheduling;
                    let seconds = patience.unwrap_or_default().as_secs();
                    format!(
                        "rejected due to timeout after waiting {seconds}s at plugin {PLUGIN}: pod \
                         group \"{group}\" waits for the claims of {} pods",
                        permit.waiting.len()
                    )
                };
                self.release_group(now, permit, &why, out);
            }
            self.wake_group(now, &group);
        }
    }

    /// Keeps the place of a pod whose binding failed, if its group is not whole without it: others of
    /// the group may be bound already. The place is kept as one that was cleared for the pod, so that
    /// none of the same or a lower priority gets it; when the pod is tried again, it may find that
    /// the node will not do any more.
    pub(super) fn keep_place(&mut self, now: Time, key: &Key, node: Name) {
        let Some(pod) = self.pending.get(key) else { return };
        let profile = self.desk.find(&pod.scheduler).map(|id| self.desk.profile(id));
        if profile.is_none_or(|profile| profile.coscheduling.is_none()) {
            return;
        }
        let Some(Group { name, min_available: Ok(wanted) }) = &pod.kin.identity.group else {
            return;
        };
        if self.snapshot.placed_of(name) + self.groups.succeeded_of.of(name) < *wanted {
            self.groups.kept.insert(key.clone(), node);
            self.nominate_as_known(now, key);
        }
    }

    /// Gives a pod up, and with it those of its group that wait for it.
    pub(super) fn give_up_together(
        &mut self,
        now: Time,
        key: &Key,
        why: &str,
        out: &mut Vec<ApiEffect>,
    ) {
        let of_pod = |(_, permit): &(&GroupName, &Permit)| permit.members.contains_key(key);
        let Some((group, _)) = self.groups.permits.iter().find(of_pod) else { return };
        let group = group.clone();
        if let Some(mut permit) = self.groups.permits.remove(&group) {
            permit.members.remove(key);
            let why = format!("pod group \"{group}\" cannot be bound without {}: {why}", key.name);
            self.release_group(now, permit, &why, out);
            self.wake_group(now, &group);
        }
    }

    /// Takes back where pods of a group were assumed to be, and tries them again.
    fn release_group(&mut self, now: Time, permit: Permit, why: &str, out: &mut Vec<ApiEffect>) {
        for key in permit.members.into_keys() {
            self.reservations.forget(&key);
            let Some(pod) = self.pending.get(&key) else { continue };
            let regarding = Regarding::object(&key, &pod.uid);
            let reason = Name::new_static("FailedScheduling");
            let record = Record { regarding, warning: true, reason, message: why.to_owned() };
            self.record(now, permit.profile, record, out);
            self.forget(now, key);
        }
    }
}
