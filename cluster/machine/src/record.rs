//! Events for people (`kubectl get events`): repeated ones are counted, not multiplied.

use std::collections::{BTreeMap, BTreeSet};

use api::hash::fnv64;
use api::{ApiObject, Key, Kind, Name, Patch, PatchKind, Request, Revision, Time};
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The object that something happened to: a [`ObjectReference`] that costs next to nothing, as
/// most of what components tell is counted or dropped, and never written as an event.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Regarding {
    /// The version that the reference names; empty for none.
    pub api_version: Name,
    /// The name of the kind.
    pub kind: Name,
    /// Empty for an object of the cluster.
    pub namespace: Name,
    /// The object's name.
    pub name: Name,
    /// The object's UID; empty when it is not known.
    pub uid: Name,
    /// The revision that was looked at, if one was.
    pub revision: Option<Revision>,
    /// The path of the part of the object that it is about; empty for all of it.
    pub part: Name,
}

impl Regarding {
    /// The object of that key, in the version that it is stored in.
    pub fn object(key: &Key, uid: &str) -> Self {
        Self {
            api_version: Name::new_static(key.kind.api_version()),
            kind: Name::new_static(key.kind.name()),
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            uid: uid.into(),
            revision: None,
            part: Name::default(),
        }
    }

    /// As an event shows it.
    fn reference(&self) -> ObjectReference {
        let told = |name: &Name| Some(name.to_string()).filter(|text| !text.is_empty());
        ObjectReference {
            api_version: told(&self.api_version),
            kind: told(&self.kind),
            namespace: told(&self.namespace),
            name: told(&self.name),
            uid: told(&self.uid),
            resource_version: self.revision.map(|r| r.to_string()),
            field_path: told(&self.part),
        }
    }
}

/// Something that happened to an object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The object it happened to.
    pub regarding: Regarding,
    /// Whether it is a warning; else it is normal.
    pub warning: bool,
    /// One word in camel case, for machines.
    pub reason: Name,
    /// A sentence, for people.
    pub message: String,
}

/// A record as a component tells it: who, and when by its own clock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// When.
    pub time: Time,
    /// The component.
    pub component: Name,
    /// The host that the component is part of; empty if it is part of none.
    pub host: Name,
    /// What happened.
    pub record: Record,
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

/// Turns what the components of one process report into writes of `v1.Event`, counting
/// repetitions. It belongs to whoever carries effects out: components only report.
///
/// Source: kubernetes 1.33, `client-go/tools/record/events_cache.go`.
#[derive(Clone, Default)]
pub struct Recorder {
    seen: BTreeMap<u64, Seen>,
    /// The same by when they were last told.
    by_age: BTreeSet<(Time, u64)>,
    sequence: u64,
}

impl Recorder {
    /// The write that tells people of it: a new event, or a higher count of an old one.
    pub fn write(&mut self, report: &Report) -> Request {
        let Report { time: now, component, record, .. } = report;
        let now = *now;
        let regarding = &record.regarding;
        let (uid, path) = (&regarding.uid, &regarding.part);
        let identity = fnv64(
            format!(
                "{component}\0{uid}\0{path}\0{}\0{}\0{}",
                record.warning, record.reason, record.message
            )
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
                    body: json!({"count": seen.count, "lastTimestamp": now.to_meta()}).into(),
                },
            };
        }
        self.forget_oldest();
        let event = self.event(report);
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

    fn event(&mut self, report: &Report) -> Event {
        let Report { time: now, component, host, record } = report;
        // Several events of one object at one time must not share a name.
        self.sequence += 1;
        let name = &record.regarding.name;
        let mut event = Event {
            involved_object: record.regarding.reference(),
            type_: Some(if record.warning { "Warning" } else { "Normal" }.to_owned()),
            reason: Some(record.reason.to_string()),
            message: Some(record.message.clone()),
            count: Some(1),
            first_timestamp: Some(now.to_meta()),
            last_timestamp: Some(now.to_meta()),
            source: Some(EventSource {
                component: Some(component.to_string()),
                host: Some(host.to_string()).filter(|h| !h.is_empty()),
            }),
            reporting_component: Some(component.to_string()),
            reporting_instance: Some(host.to_string()),
            ..Event::default()
        };
        event.metadata.name = Some(format!("{name}.{:x}", now.0.wrapping_add(self.sequence)));
        // Events about cluster-scoped objects live in the default namespace.
        let namespace = Some(&*record.regarding.namespace).filter(|n| !n.is_empty());
        event.metadata.namespace = Some(namespace.unwrap_or("default").to_owned());
        event
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_are_counted() {
        let mut recorder = Recorder::default();
        let regarding = Regarding::object(&Key::new(Kind::Pod, "shop", "web"), "u1");
        let report = |time: u64, component: &str, reason: &str| Report {
            time: Time(time),
            component: component.into(),
            host: "node-1".into(),
            record: Record {
                regarding: regarding.clone(),
                warning: true,
                reason: reason.into(),
                message: "m".into(),
            },
        };
        let Request::Create(first) = recorder.write(&report(10, "kubelet", "BackOff")) else {
            panic!("the first is created")
        };
        let Request::Patch { key, patch, .. } = recorder.write(&report(20, "kubelet", "BackOff"))
        else {
            panic!("the second is counted")
        };
        assert_eq!(key, first.key());
        assert_eq!(patch.body.json()["count"], 2);
        for (component, reason) in [("kubelet", "Killing"), ("scheduler", "BackOff")] {
            let Request::Create(other) = recorder.write(&report(20, component, reason)) else {
                panic!("another reason or component makes another event")
            };
            assert_ne!(other.key(), first.key());
        }
    }

    #[test]
    fn what_was_told_longest_ago_is_forgotten_first() {
        let mut recorder = Recorder::default();
        let report = |at: u64, n: usize| Report {
            time: Time(at),
            component: "kubelet".into(),
            host: Name::default(),
            record: Record {
                regarding: Regarding::default(),
                warning: false,
                reason: "R".into(),
                message: n.to_string(),
            },
        };
        let mut is_new =
            |at: u64, n: usize| matches!(recorder.write(&report(at, n)), Request::Create(_));
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
