//! Bindings: by the API, or by an extender for it, and what becomes of them.

use std::sync::Arc;

use api::{ApiError, ExtenderVerb, Key, Name, Object, Pod, Reply, Request, Time};
use machine::{ApiEffect, Record, Regarding};

use super::consultation::complaint;
use super::{Flight, Scheduler};
use crate::desk::ProfileId;
use crate::extender::wire;

impl Scheduler {
    pub(super) fn bind(
        &mut self,
        key: Key,
        profile: ProfileId,
        node: String,
        out: &mut Vec<ApiEffect>,
    ) {
        let extended = !self.desk.extenders().is_empty();
        if !(extended && self.delegate(&key, profile, &node, out)) {
            self.bind_alone(key, profile, node, out);
        }
    }

    pub(super) fn bind_alone(
        &mut self,
        key: Key,
        profile: ProfileId,
        node: String,
        out: &mut Vec<ApiEffect>,
    ) {
        let Some(pod) = self.pending.get(&key) else { return };
        let request = Request::Bind { pod: key.clone(), uid: pod.uid.clone(), node };
        let id = self.calls.call(request, out);
        self.flights.insert(id, Flight::Bind(key, profile));
    }

    pub(super) fn bound(
        &mut self,
        now: Time,
        key: Key,
        profile: ProfileId,
        result: Result<Reply, ApiError>,
        out: &mut Vec<ApiEffect>,
    ) {
        match result {
            Ok(_) => self.tell_bound(now, &key, profile, out),
            Err(ApiError::Unreachable(_)) => self.not_bound(now, &key),
            // It may have been carried out: only the store knows.
            Err(error) => {
                let error = complaint(error);
                let why = format!("running Bind plugin \"DefaultBinder\": {error}");
                self.check(key, (profile, why), out);
            }
        }
    }

    fn tell_bound(&self, now: Time, key: &Key, profile: ProfileId, out: &mut Vec<ApiEffect>) {
        let Some(pod) = self.snapshot.pod(key) else { return };
        let message = format!("Successfully assigned {} to {}", key.path(), pod.node);
        let regarding = Regarding::object(key, pod.uid);
        let reason = Name::new_static("Scheduled");
        let record = Record { regarding, warning: false, reason, message };
        self.record(now, profile, record, out);
    }

    /// Asks the API whether a pod was bound; if it was not, `why` is told.
    pub(super) fn check(&mut self, key: Key, why: (ProfileId, String), out: &mut Vec<ApiEffect>) {
        if self.assumed.contains(&key) {
            let id = self.calls.call(Request::Get(key.clone()), out);
            self.flights.insert(id, Flight::Check(key, why));
        }
    }

    pub(super) fn checked(
        &mut self,
        now: Time,
        key: Key,
        why: (ProfileId, String),
        result: Result<Reply, ApiError>,
        out: &mut Vec<ApiEffect>,
    ) {
        match result {
            Ok(Reply::Object(object)) => {
                let bound =
                    object.get::<Pod>().is_some_and(|pod| pod.node_name.as_deref().is_some());
                let same = self.snapshot.pod(&key).is_some_and(|p| p.uid == object.uid());
                // Bound: the watch will say so. Another pod of that name: the watch, too.
                if !bound && same {
                    self.not_bound(now, &key);
                    // Another process may lead by now, and tell what becomes of it there.
                    if self.is_leader(now) {
                        let (profile, why) = why;
                        self.fail(now, &key, profile, &why, out);
                    }
                }
            }
            Err(error) if error.code() == Some(404) => self.leave(now, &key),
            _ => self.check(key, why, out),
        }
    }

    /// Takes back an assumed placement after its binding failed, and tries the pod again.
    fn not_bound(&mut self, now: Time, key: &Key) {
        let placed = self.snapshot.pod(key).filter(|_| self.assumed.contains(key));
        let node = placed.map(|pod| Name::from(pod.node));
        self.forget(now, key.clone());
        if let Some(node) = node {
            self.keep_place(now, key, node);
        }
    }

    /// Takes back an assumed placement and tries the pod again.
    pub(super) fn forget(&mut self, now: Time, key: Key) {
        if self.assumed.remove(&key) {
            self.leave_node(now, &key);
            self.nominate_as_known(now, &key);
            self.queue.retry(key, now);
        }
    }

    /// Has the extender bind a pod that does so for it, if there is one.
    pub(super) fn delegate(
        &mut self,
        key: &Key,
        profile: ProfileId,
        node: &str,
        out: &mut Vec<ApiEffect>,
    ) -> bool {
        let all = Arc::clone(self.desk.extenders());
        let object = self.cache.object(key).and_then(Object::get::<Pod>);
        let interested = object.map(|pod| all.interested(pod)).unwrap_or_default();
        let binds = |number: &u32| !all.get(*number).config.bind_verb.is_empty();
        let Some(extender) = interested.into_iter().find(binds) else { return false };
        let Some(pod) = self.pending.get(key) else { return false };
        let body = wire::binding(&key.namespace, &key.name, &pod.uid, node);
        let request = Request::Extend { extender, verb: ExtenderVerb::Bind, body };
        let id = self.calls.call(request, out);
        let node = node.to_owned();
        self.flights.insert(id, Flight::Delegate { pod: key.clone(), profile, extender, node });
        true
    }

    /// Takes the answer of an extender that was to bind a pod.
    pub(super) fn delegated(
        &mut self,
        now: Time,
        (key, profile, extender, node): (Key, ProfileId, u32, String),
        result: Result<Reply, ApiError>,
        out: &mut Vec<ApiEffect>,
    ) {
        let answer = match result {
            Ok(Reply::Text(text)) => wire::bound(&text),
            Ok(_) => Err("an answer that is no text".to_owned()),
            Err(error) => Err(complaint(error)),
        };
        match answer {
            Ok(()) => self.tell_bound(now, &key, profile, out),
            Err(_)
                if self.desk.extenders().get(extender).config.ignorable && self.is_leader(now) =>
            {
                // The API binds no pod twice.
                self.bind_alone(key, profile, node, out);
            }
            // It may have been carried out even so.
            Err(why) => self.check(key, (profile, why), out),
        }
    }
}
