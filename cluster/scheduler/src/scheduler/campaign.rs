//! Carries out what [`crate::preemption`] found: one [`Campaign`] for each pod that displaces
//! others.
//!
//! The node is noted in the status of the pod, each victim is marked and then deleted. The pod
//! waits until every call was answered and what they did was seen: whoever decided earlier would
//! displace still others. Nothing of this has to be remembered beyond the process: one that comes
//! after it finds the node in the pod's status and the victims on their way, or decides anew.
//!
//! Source: kubernetes 1.33, `prepareCandidateAsync`.

use super::{
    ApiEffect, ApiError, Flight, Key, Kind, Name, Object, Pod, ProfileId, Record, Regarding, Reply,
    Request, Revision, Scheduler, Time, Value, Victim, status_patch,
};
use crate::pod_info::{DISRUPTION_TARGET, PREEMPTED, disruption_target};
use crate::preemption::Eviction;
use crate::relations::Presence;
use crate::snapshot::Nomination;

/// What is under way for one pod.
#[derive(Clone)]
pub(super) struct Campaign {
    /// The UID of the pod.
    uid: String,
    /// The profile that decided.
    profile: ProfileId,
    /// The node that is cleared; empty if another pod has taken it since.
    node: Name,
    /// Calls that were not answered.
    open: usize,
    /// What has to be seen of the pods before the next decision about this one.
    seen: Revision,
    /// Whether something did not work: the pod has to be tried again.
    failed: bool,
    /// Whether something happened meanwhile for which the pod would have been tried again.
    pub(super) woken: bool,
}

impl Scheduler {
    /// Displaces pods for another; `patch` tells that the node is cleared for it.
    pub(super) fn begin_campaign(
        &mut self,
        now: Time,
        key: &Key,
        profile: ProfileId,
        eviction: &Eviction,
        patch: Option<Request>,
        out: &mut Vec<ApiEffect>,
    ) {
        let Some(pod) = self.pending.get(key) else { return };
        let priority = pod.priority;
        let mut campaign = Campaign {
            uid: pod.uid.clone(),
            profile,
            node: eviction.node.as_str().into(),
            open: 0,
            seen: Revision::default(),
            failed: false,
            woken: false,
        };
        self.snapshot.nominate(pod, &eviction.node);
        if let Some(request) = patch {
            self.fly(request, Flight::Nominate(key.clone()), out);
            campaign.open += 1;
        }
        let nominated = self.snapshot.nominations().on(&eviction.node);
        let lower = nominated.filter(|(_, nomination)| nomination.class.priority < priority);
        for loser in lower.map(|(loser, _)| loser.clone()).collect::<Vec<_>>() {
            self.lose(now, &loser, out);
        }
        for victim in &eviction.victims {
            campaign.open += 1;
            match self.mark(now, profile, victim) {
                Some(mark) => {
                    let flight = Flight::Mark { by: key.clone(), victim: victim.clone() };
                    self.fly(mark, flight, out);
                }
                None => self.evict(key.clone(), victim.clone(), out),
            }
        }
        self.campaigns.insert(key.clone(), campaign);
    }

    /// Takes its node from a pod of lower priority than one that gets it now.
    fn lose(&mut self, now: Time, loser: &Key, out: &mut Vec<ApiEffect>) {
        self.snapshot.withdraw(loser);
        if let Some(campaign) = self.campaigns.get_mut(loser) {
            campaign.node = Name::default();
            campaign.failed = true;
        }
        let kept = self.groups.kept.remove(loser).is_some();
        // A place that was kept is no promise that anybody was told of.
        if let Some(pod) = self.pending.get(loser).filter(|_| !kept) {
            let request = status_patch(loser, &pod.uid, Some(""), None);
            self.fly(request, Flight::Status(loser.clone()), out);
        }
        self.queue.try_again(loser.clone(), now);
    }

    /// Marks a victim; `None` if it is marked already.
    fn mark(&self, now: Time, profile: ProfileId, victim: &Victim) -> Option<Request> {
        let message = format!(
            "{}: preempting to accommodate a higher priority pod",
            self.desk.component(profile)
        );
        let pod = self.cache.object(&victim.key).filter(|object| object.uid() == victim.uid);
        let status = pod.and_then(Object::get::<Pod>).and_then(|pod| pod.status.as_deref());
        let known = status.and_then(disruption_target).filter(|c| c.status == "True");
        if known.is_some_and(|c| {
            c.reason.as_deref() == Some(PREEMPTED) && c.message.as_ref() == Some(&message)
        }) {
            return None;
        }
        let since = known.and_then(|c| c.last_transition_time.clone());
        let condition = serde_json::json!({
            "type": DISRUPTION_TARGET, "status": "True", "reason": PREEMPTED, "message": message,
            "lastTransitionTime": since.unwrap_or_else(|| now.to_meta()),
        });
        Some(status_patch(&victim.key, &victim.uid, None, Some::<Value>(condition)))
    }

    fn evict(&mut self, by: Key, victim: Victim, out: &mut Vec<ApiEffect>) {
        let request = Request::Delete {
            key: victim.key.clone(),
            uid: Some(victim.uid.clone()),
            revision: None,
            grace_seconds: None,
            propagation: None,
        };
        self.fly(request, Flight::Evict { by, victim }, out);
    }

    fn fly(&mut self, request: Request, flight: Flight, out: &mut Vec<ApiEffect>) {
        let id = self.calls.call(request, out);
        self.flights.insert(id, flight);
    }

    /// Takes the answer to a change of a pod's status.
    pub(super) fn status_told(&mut self, now: Time, key: &Key, result: &Result<Reply, ApiError>) {
        if result.is_err() {
            if let Some(pod) = self.pending.get_mut(key) {
                // Next time it is told again.
                pod.complaint.clear();
            }
            self.nominate_as_known(now, key);
        }
    }

    /// Takes the answer to the note that a node is cleared for a pod.
    pub(super) fn nominated(&mut self, now: Time, key: &Key, result: &Result<Reply, ApiError>) {
        self.status_told(now, key, result);
        self.answered(key, result.as_ref().ok().map(Reply::revision));
    }

    /// Takes the answer to a mark: what is not marked must not be deleted.
    pub(super) fn marked(
        &mut self,
        now: Time,
        by: Key,
        victim: Victim,
        result: &Result<Reply, ApiError>,
        out: &mut Vec<ApiEffect>,
    ) {
        match result {
            // Another process may lead by now and decide otherwise.
            Ok(_) if self.is_leader(now) => self.evict(by, victim, out),
            Err(error) if error.code() == Some(404) => {
                self.answered(&by, Some(Revision::default()));
            }
            _ => self.answered(&by, None),
        }
    }

    /// Takes the answer to a deletion.
    pub(super) fn evicted(
        &mut self,
        now: Time,
        by: Key,
        victim: Victim,
        result: &Result<Reply, ApiError>,
        out: &mut Vec<ApiEffect>,
    ) {
        match result {
            Ok(reply) => {
                self.announce_eviction(now, &by, &victim, out);
                self.answered(&by, Some(reply.revision()));
            }
            // It is gone; by its name there is at most another pod.
            Err(error) if matches!(error.code(), Some(404 | 409)) => {
                self.answered(&by, Some(Revision::default()));
            }
            // It may have been carried out: only the store knows.
            Err(ApiError::Unknown(_)) => {
                let request = Request::Get(victim.key.clone());
                self.fly(request, Flight::CheckEviction { by, victim }, out);
            }
            Err(_) => self.answered(&by, None),
        }
    }

    /// Takes the answer to the question whether a deletion was carried out.
    pub(super) fn eviction_checked(
        &mut self,
        now: Time,
        by: &Key,
        victim: &Victim,
        result: &Result<Reply, ApiError>,
        out: &mut Vec<ApiEffect>,
    ) {
        let seen = match result {
            Ok(Reply::Object(object)) if object.uid() != victim.uid => Some(Revision::default()),
            Ok(Reply::Object(object)) => {
                api::meta::is_terminating(object.meta()).then(|| object.revision())
            }
            Err(error) if error.code() == Some(404) => Some(Revision::default()),
            _ => None,
        };
        if seen.is_some() {
            self.announce_eviction(now, by, victim, out);
        }
        self.answered(by, seen);
    }

    fn announce_eviction(&self, now: Time, by: &Key, victim: &Victim, out: &mut Vec<ApiEffect>) {
        let Some(campaign) = self.campaigns.get(by) else { return };
        let pod = self.snapshot.pod(&victim.key).filter(|pod| pod.uid == victim.uid);
        let node = pod.map_or(&*campaign.node, |pod| pod.node);
        let message = format!("Preempted by pod {} on node {node}", campaign.uid);
        let regarding = Regarding::object(&victim.key, &victim.uid);
        let reason = Name::new_static("Preempted");
        let record = Record { regarding, warning: false, reason, message };
        self.record(now, campaign.profile, record, out);
    }

    /// Counts an answer; with what has to be seen, if it is a good one.
    fn answered(&mut self, by: &Key, seen: Option<Revision>) {
        let Some(campaign) = self.campaigns.get_mut(by) else { return };
        campaign.open -= 1;
        campaign.failed |= seen.is_none();
        campaign.seen = campaign.seen.max(seen.unwrap_or_default());
        if campaign.open == 0 {
            self.campaigns_answered.insert((campaign.seen, by.clone()));
        }
    }

    /// Ends the campaigns of which all is seen.
    pub(super) fn end_campaigns(&mut self, now: Time) {
        let seen = self.cache.revision(Kind::Pod);
        while self.campaigns_answered.first().is_some_and(|(revision, _)| *revision <= seen) {
            let Some((_, key)) = self.campaigns_answered.pop_first() else { return };
            let Some(campaign) = self.campaigns.remove(&key) else { continue };
            self.nominate_as_known(now, &key);
            if campaign.failed {
                self.queue.retry(key, now);
            } else if campaign.woken {
                self.queue.try_again(key, now);
            }
        }
    }

    /// Notes the node that is cleared for a pod without one: what its campaign is about, or where it
    /// keeps its place, or else what the API says.
    pub(super) fn nominate_as_known(&mut self, now: Time, key: &Key) {
        let Some(pod) = self.pending.get(key) else { return };
        let campaign = self.campaigns.get(key).filter(|campaign| campaign.uid == pod.uid);
        let node = campaign.map(|campaign| &campaign.node).or_else(|| self.groups.kept.get(key));
        let node = node.unwrap_or(&pod.nominated).clone();
        let known = self.snapshot.nominations().of(key);
        if known.map_or("", |known| &known.node) == node
            && known.is_none_or(|known| known.class == pod.class && known.kin == pod.kin)
        {
            return;
        }
        if node.is_empty() {
            self.withdraw(now, key, "");
            return;
        }
        let (pod, left) = (pod.clone(), known.is_some_and(|known| known.node != node));
        if left {
            self.withdraw(now, key, "");
        }
        self.snapshot.nominate(&pod, &node);
    }

    /// Forgets the node that was cleared for a pod; others may take it, but if the pod itself is
    /// on it.
    pub(super) fn withdraw(&mut self, now: Time, key: &Key, on: &str) {
        self.groups.kept.remove(key);
        if let Some(Nomination { node, class, kin }) = self.snapshot.withdraw(key)
            && *node != *on
        {
            self.left(now, &Presence::of(&kin), &class.load);
        }
    }
}
