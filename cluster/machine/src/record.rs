//! Events for people (`kubectl get events`): repeated ones are counted, not multiplied.

use std::collections::{BTreeMap, BTreeSet};

use api::hash::fnv64;
use api::{ApiObject, Key, Kind, Patch, PatchKind, Request, Time};
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Something that happened to an object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The object it happened to.
    pub regarding: ObjectReference,
    /// Whether it is a warning; else it is normal.
    pub warning: bool,
    /// One word in camel case, for machines.
    pub reason: String,
    /// A sentence, for people.
    pub message: String,
}

/// How many different events are remembered for counting. Older ones are forgotten first, and
/// then written as new ones.
const REMEMBERED_MAX: usize = 4096;

#[derive(Clone)]
struct Seen {
    key: Key,
    count: i32,
    last: Time,
}

/// Turns records into writes of `v1.Event`, counting repetitions.
///
/// Source: kubernetes 1.33, `client-go/tools/record/events_cache.go`.
#[derive(Clone)]
pub struct Recorder {
    component: String,
    host: String,
    seen: BTreeMap<u64, Seen>,
    /// The same by when they were last told.
    by_age: BTreeSet<(Time, u64)>,
    sequence: u64,
}

impl Recorder {
    /// Makes the recorder of a component, on a host if the component is part of one.
    pub fn new(component: &str, host: &str) -> Self {
        Self {
            component: component.to_owned(),
            host: host.to_owned(),
            seen: BTreeMap::new(),
            by_age: BTreeSet::new(),
            sequence: 0,
        }
    }

    /// The write that tells people of the record: a new event, or a higher count of an old one.
    pub fn write(&mut self, now: Time, record: &Record) -> Request {
        let regarding = &record.regarding;
        let uid = regarding.uid.as_deref().unwrap_or_default();
        let path = regarding.field_path.as_deref().unwrap_or_default();
        let identity = fnv64(
            format!("{uid}\0{path}\0{}\0{}\0{}", record.warning, record.reason, record.message)
                .as_bytes(),
        );
        if let Some(seen) = self.seen.get_mut(&identity) {
            seen.count = seen.count.saturating_add(1);
            self.by_age.remove(&(seen.last, identity));
            self.by_age.insert((now, identity));
            seen.last = now;
            return Request::Patch {
                key: seen.key.clone(),
                subresource: None,
                patch: Patch {
                    kind: PatchKind::Merge,
                    body: json!({"count": seen.count, "lastTimestamp": now.to_meta()}),
                },
            };
        }
        self.forget_oldest();
        let event = self.event(now, record);
        let namespace = event.metadata.namespace.as_deref().unwrap_or_default();
        let name = event.metadata.name.as_deref().unwrap_or_default();
        let key = Key::new(Kind::Event, namespace, name);
        self.seen.insert(identity, Seen { key, count: 1, last: now });
        self.by_age.insert((now, identity));
        Request::Create(event.into_object())
    }

    fn forget_oldest(&mut self) {
        if self.seen.len() < REMEMBERED_MAX {
            return;
        }
        if let Some((_, identity)) = self.by_age.pop_first() {
            self.seen.remove(&identity);
        }
    }

    fn event(&mut self, now: Time, record: &Record) -> Event {
        // Several events of one object at one time must not share a name.
        self.sequence += 1;
        let name = record.regarding.name.as_deref().unwrap_or_default();
        let mut event = Event {
            involved_object: record.regarding.clone(),
            type_: Some(if record.warning { "Warning" } else { "Normal" }.to_owned()),
            reason: Some(record.reason.clone()),
            message: Some(record.message.clone()),
            count: Some(1),
            first_timestamp: Some(now.to_meta()),
            last_timestamp: Some(now.to_meta()),
            source: Some(EventSource {
                component: Some(self.component.clone()),
                host: Some(self.host.clone()).filter(|h| !h.is_empty()),
            }),
            reporting_component: Some(self.component.clone()),
            reporting_instance: Some(self.host.clone()),
            ..Event::default()
        };
        event.metadata.name = Some(format!("{name}.{:x}", now.0.wrapping_add(self.sequence)));
        // Events about cluster-scoped objects live in the default namespace.
        let namespace = record.regarding.namespace.as_deref().filter(|n| !n.is_empty());
        event.metadata.namespace = Some(namespace.unwrap_or("default").to_owned());
        event
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_are_counted() {
        let mut recorder = Recorder::new("kubelet", "node-1");
        let regarding = ObjectReference {
            name: Some("web".into()),
            namespace: Some("shop".into()),
            uid: Some("u1".into()),
            ..ObjectReference::default()
        };
        let record = |reason: &str| Record {
            regarding: regarding.clone(),
            warning: true,
            reason: reason.into(),
            message: "m".into(),
        };
        let Request::Create(first) = recorder.write(Time(10), &record("BackOff")) else {
            panic!("the first is created")
        };
        let Request::Patch { key, patch, .. } = recorder.write(Time(20), &record("BackOff")) else {
            panic!("the second is counted")
        };
        assert_eq!(key, first.key());
        assert_eq!(patch.body["count"], 2);
        let Request::Create(other) = recorder.write(Time(20), &record("Killing")) else {
            panic!("another reason is another event")
        };
        assert_ne!(other.key(), first.key());
    }

    #[test]
    fn what_was_told_longest_ago_is_forgotten_first() {
        let mut recorder = Recorder::new("kubelet", "node-1");
        let record = |n: usize| Record {
            regarding: ObjectReference::default(),
            warning: false,
            reason: "R".into(),
            message: n.to_string(),
        };
        let mut is_new =
            |at: u64, n: usize| matches!(recorder.write(Time(at), &record(n)), Request::Create(_));
        for n in 0..REMEMBERED_MAX {
            assert!(is_new(1, n));
        }
        for n in 1..REMEMBERED_MAX {
            assert!(!is_new(2, n));
        }
        assert!(is_new(3, REMEMBERED_MAX));
        assert!(!is_new(4, 1));
        assert!(is_new(5, 0));
    }
}
