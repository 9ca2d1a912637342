//! Pods whose claims get their volumes before they get their node.
//!
//! The pod is assumed on its node; a volume is made to name each claim, or the claim names the node
//! on which one shall be made for it. When controllers have bound all of them, the pod is bound.
//! Whatever goes wrong, the pod is tried anew, and finds what was written: a scheduler that ends
//! in between leaves nothing that its successor does not understand.
//!
//! Source: kubernetes 1.33, `pkg/scheduler/framework/plugins/volumebinding`.

use std::collections::{BTreeMap, BTreeSet};

use api::volume::{SELECTED_NODE, is_fully_bound, volume_name};
use api::{ApiError, Key, Name, Reply, Request, Revision, Time, meta};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use machine::{ApiEffect, Cache, Record, Regarding};

use super::{Decision, Flight, Scheduler};
use crate::cycle::Diagnosis;
use crate::desk::ProfileId;
use crate::pod_info::PodInfo;
use crate::snapshot::Snapshot;
use crate::volumes::{self, Binding, Volumes};

/// A pod that waits for its claims.
#[derive(Clone, Debug)]
struct Waiting {
    node: String,
    profile: ProfileId,
    bindings: Vec<(Key, Binding)>,
    deadline: Time,
    /// Writes that are not answered.
    flights: usize,
    /// The revisions of what was written.
    written: BTreeMap<Key, Revision>,
}

/// The pods that wait for their claims.
#[derive(Clone, Debug, Default)]
pub(super) struct Reservations {
    pods: BTreeMap<Key, Waiting>,
    /// Whether something changed that they may wait for.
    changed: bool,
}

/// How a pod's claims are getting on.
enum Progress {
    Waits,
    Bound,
    Failed(String),
}

impl Reservations {
    /// Notes that a claim or volume changed.
    pub(super) fn happened(&mut self) {
        self.changed = true;
    }

    /// When the first of the pods has waited for long enough.
    pub(super) fn wake_at(&self) -> Option<Time> {
        self.pods.values().map(|waiting| waiting.deadline).min()
    }

    /// The pod does not wait any more; tells whether it did.
    pub(super) fn forget(&mut self, pod: &Key) -> bool {
        self.pods.remove(pod).is_some()
    }

    /// Whether the volume was given to the claim of a pod that waits.
    fn has_given(&self, volume: &str) -> bool {
        let mut bindings = self.pods.values().flat_map(|waiting| &waiting.bindings);
        bindings.any(|(_, binding)| matches!(binding, Binding::Volume(name) if name == volume))
    }
}

impl Waiting {
    fn progress(&self, cache: &Cache, snapshot: &Snapshot, now: Time) -> Progress {
        if self.flights > 0 {
            return Progress::Waits;
        }
        let mut progress = Progress::Bound;
        for (key, binding) in &self.bindings {
            let Some(object) = cache.object(key) else {
                return Progress::Failed(format!("persistentvolumeclaim {:?} not found", key.name));
            };
            let Some(claim) = object.get::<PersistentVolumeClaim>() else { continue };
            let seen = self.written.get(key).is_none_or(|written| object.revision() >= *written);
            let selected = meta::annotation(&claim.metadata, SELECTED_NODE);
            if is_fully_bound(claim) {
                match self.is_here(cache, snapshot, claim) {
                    Some(true) => {}
                    Some(false) => {
                        return Progress::Failed(format!(
                            "pv {:?} node affinity doesn't match node {:?}: no matching \
                             NodeSelectorTerms",
                            volume_name(claim),
                            self.node
                        ));
                    }
                    None => progress = Progress::Waits,
                }
            } else if seen && *binding == Binding::Provision && selected != Some(&self.node) {
                return Progress::Failed(format!("provisioning failed for PVC {:?}", key.name));
            } else {
                progress = Progress::Waits;
            }
        }
        match progress {
            Progress::Waits if now >= self.deadline => {
                Progress::Failed("context deadline exceeded".to_owned())
            }
            progress => progress,
        }
    }

    /// Whether the claim's volume can be had on the node; `None` while the volume is not known.
    fn is_here(
        &self,
        cache: &Cache,
        snapshot: &Snapshot,
        claim: &PersistentVolumeClaim,
    ) -> Option<bool> {
        let found = cache.get::<PersistentVolume>("", volume_name(claim))?;
        let labels = snapshot.known(&self.node).map(|id| &snapshot.row(id).labels);
        Some(api::volume::fits_node(found, labels))
    }
}

impl Scheduler {
    /// The pod with what its volumes ask for; `None` if it has no claims. Volumes that are `given`
    /// to others are not for it.
    ///
    /// # Errors
    /// No node will do.
    pub(super) fn with_volumes(
        &self,
        pod: &PodInfo,
        profile: ProfileId,
        given: &BTreeSet<String>,
    ) -> Result<Option<PodInfo>, Diagnosis> {
        if pod.claims.is_empty() || self.desk.profile(profile).volume_timeout.is_none() {
            return Ok(None);
        }
        let taken = |volume: &str| given.contains(volume) || self.reservations.has_given(volume);
        let (key, uid) = (&pod.key, &pod.uid);
        let users = |claim: &Key| self.snapshot.nodes_with_claim(claim);
        match Volumes::of(&self.cache, key, uid, &pod.claims, &users, &taken) {
            Ok(volumes) if self.snapshot.limits_volumes() => {
                let attachments = self.attaching.current(&self.cache);
                Ok(Some(pod.with_volumes(volumes.limited(&pod.class.load.claims, attachments))))
            }
            Ok(volumes) => Ok(Some(pod.with_volumes(volumes))),
            Err(refusal) => {
                Err(Diagnosis::refused("VolumeBinding", self.snapshot.len(), refusal.0))
            }
        }
    }

    /// Notes that no node will do for a pod.
    pub(super) fn refuse(
        &mut self,
        now: Time,
        key: &Key,
        profile: ProfileId,
        diagnosis: Diagnosis,
        out: &mut Vec<ApiEffect>,
    ) {
        self.reject(now, key, profile, &diagnosis, out);
        if let Some(decisions) = &mut self.decisions {
            decisions.push(Decision { time: now, pod: key.clone(), result: Err(diagnosis) });
        }
    }

    /// Begins to bind the claims of a pod that is assumed on the node.
    pub(super) fn reserve(
        &mut self,
        now: Time,
        pod: &PodInfo,
        profile: ProfileId,
        node: String,
        out: &mut Vec<ApiEffect>,
    ) {
        let row = self.snapshot.known(&node).map(|id| self.snapshot.row(id));
        let bindings = row.and_then(|row| pod.class.volumes.on(row).ok()).unwrap_or_default();
        let key = &pod.key;
        let writes = volumes::writes(&self.cache, &node, &bindings).unwrap_or_default();
        let timeout = self.desk.profile(profile).volume_timeout.unwrap_or_default();
        let waiting = Waiting {
            node,
            profile,
            bindings,
            deadline: now + timeout,
            flights: writes.len(),
            written: BTreeMap::new(),
        };
        for object in writes {
            let written = object.key();
            let id = self.calls.call(Request::Update { object, subresource: None }, out);
            self.flights.insert(id, Flight::Volume { pod: key.clone(), written });
        }
        self.reservations.pods.insert(key.clone(), waiting);
        self.reservations.changed = true;
    }

    /// Takes the answer to a write for a pod's claims.
    pub(super) fn volume_written(
        &mut self,
        now: Time,
        pod: &Key,
        written: Key,
        result: Result<Reply, ApiError>,
        out: &mut Vec<ApiEffect>,
    ) {
        let Some(waiting) = self.reservations.pods.get_mut(pod) else { return };
        match result {
            Ok(reply) => {
                waiting.flights = waiting.flights.saturating_sub(1);
                waiting.written.insert(written, reply.revision());
                self.reservations.changed = true;
            }
            // Of unknown outcome or not: the next attempt sees what there is.
            Err(error) => self.give_up(now, pod, &error.to_string(), out),
        }
    }

    /// Binds pods whose claims are bound, and gives those up that wait in vain.
    pub(super) fn proceed(&mut self, now: Time, out: &mut Vec<ApiEffect>) {
        let due = self.reservations.wake_at().is_some_and(|at| at <= now);
        let due = due || self.groups.wake_at().is_some_and(|at| at <= now);
        if !std::mem::take(&mut self.reservations.changed) && !due {
            return;
        }
        let (cache, snapshot) = (&self.cache, &self.snapshot);
        let pods = self.reservations.pods.iter();
        let progress: Vec<(Key, Progress)> = pods
            .map(|(key, waiting)| (key.clone(), waiting.progress(cache, snapshot, now)))
            .collect();
        for (key, progress) in progress {
            match progress {
                Progress::Waits => {}
                Progress::Failed(why) => self.give_up(now, &key, &why, out),
                Progress::Bound => {
                    if let Some(waiting) = self.reservations.pods.remove(&key) {
                        self.claims_are_bound(key, waiting.profile, waiting.node, out);
                    }
                }
            }
        }
        self.proceed_together(now, out);
    }

    fn give_up(&mut self, now: Time, pod: &Key, why: &str, out: &mut Vec<ApiEffect>) {
        if self.reservations.pods.remove(pod).is_none() {
            // It went with another of its group.
            return;
        }
        let Some(info) = self.pending.get(pod) else { return };
        let Some(profile) = self.desk.find(&info.scheduler) else { return };
        let record = Record {
            regarding: Regarding::object(pod, &info.uid),
            warning: true,
            reason: Name::new_static("FailedScheduling"),
            message: format!("running PreBind plugin \"VolumeBinding\": binding volumes: {why}"),
        };
        self.record(now, profile, record, out);
        self.forget(now, pod.clone());
        self.give_up_together(now, pod, why, out);
    }
}
