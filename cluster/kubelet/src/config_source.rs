//! Configmaps, secrets, claims and their volumes that pods of this node refer to, read one by one:
//! the node authorizer lets a node read no others.

use std::collections::BTreeMap;
use std::time::Duration;

use api::{ApiError, Key, Kind, Object, Reply, Request, Time};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};

/// What was read is used this long before it is read again.
pub(crate) const FRESH: Duration = Duration::from_secs(60);
/// What is missing, or could not be read, is asked for again after this time.
const RETRY: Duration = Duration::from_secs(2);
/// What nobody asked for this long is forgotten.
const FORGET: Duration = Duration::from_secs(600);

#[derive(Clone, Default)]
struct Entry {
    object: Option<Object>,
    /// Why there is no object.
    error: Option<String>,
    /// Whether it is not what somebody needs: perhaps it has changed.
    doubted: bool,
    asked: Option<Time>,
    answered: Time,
    used: Time,
}

/// Configmaps and secrets, as last read.
#[derive(Clone, Default)]
pub(crate) struct ConfigSource {
    entries: BTreeMap<Key, Entry>,
}

/// The outcome of looking a configmap or secret up.
pub(crate) enum Lookup<T> {
    Found(T),
    /// It does not exist: the message of Kubernetes.
    Missing(String),
    /// It is being read.
    Pending,
    /// It could not be read.
    Failed(String),
}

/// The data of a configmap or secret: text and binary alike.
pub(crate) type Data = BTreeMap<String, Vec<u8>>;

impl ConfigSource {
    /// Looks up `kind`; adds what must be read to `requests`.
    pub(crate) fn data(
        &mut self,
        now: Time,
        kind: Kind,
        namespace: &str,
        name: &str,
        requests: &mut Vec<Key>,
    ) -> Lookup<Data> {
        let key = Key::new(kind, namespace, name);
        let entry = self.entries.entry(key.clone()).or_default();
        entry.used = now;
        let age = now.since(entry.answered);
        let stale = match (&entry.object, entry.answered) {
            (_, Time::ZERO) => true,
            (Some(_), _) => age >= FRESH,
            (None, _) => age >= RETRY,
        };
        if stale && entry.asked.is_none() {
            entry.asked = Some(now);
            requests.push(key);
        }
        match (&entry.object, &entry.error) {
            (Some(object), _) => Lookup::Found(data_of(object)),
            (None, Some(error)) => Lookup::Failed(error.clone()),
            (None, None) if entry.answered == Time::ZERO => Lookup::Pending,
            (None, None) => {
                let what = if kind == Kind::Secret { "secret" } else { "configmap" };
                Lookup::Missing(format!("{what} \"{name}\" not found"))
            }
        }
    }

    /// Looks up an object that must not have been read before `since`; adds what must be read to
    /// `requests`.
    pub(crate) fn object(
        &mut self,
        now: Time,
        key: &Key,
        since: Time,
        requests: &mut Vec<Key>,
    ) -> Lookup<Object> {
        let entry = self.entries.entry(key.clone()).or_default();
        entry.used = now;
        let old = entry.answered == Time::ZERO || entry.answered < since;
        let waits = entry.doubted || entry.object.is_none();
        let stale = old || (waits && now.since(entry.answered) >= RETRY);
        if stale && entry.asked.is_none() {
            entry.asked = Some(now);
            entry.doubted = false;
            requests.push(key.clone());
        }
        match (&entry.object, &entry.error) {
            _ if old => Lookup::Pending,
            (Some(object), _) => Lookup::Found(object.clone()),
            (None, Some(error)) => Lookup::Failed(error.clone()),
            (None, None) => {
                let resource = key.kind.group_resource();
                Lookup::Missing(format!("{resource} \"{}\" not found", key.name))
            }
        }
    }

    /// The object is not what is needed: when it is looked up again, it is also read again.
    pub(crate) fn doubt(&mut self, key: &Key) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.doubted = true;
        }
    }

    /// Takes the answer to a read. Returns whether it tells anything new.
    pub(crate) fn answer(&mut self, now: Time, key: &Key, result: Result<Reply, ApiError>) -> bool {
        let Some(entry) = self.entries.get_mut(key) else { return false };
        let state = |e: &Entry| {
            (e.answered == Time::ZERO, e.object.as_ref().map(Object::revision), e.error.clone())
        };
        let before = state(entry);
        entry.asked = None;
        entry.answered = now;
        match result {
            Ok(Reply::Object(object)) => {
                entry.object = Some(object);
                entry.error = None;
            }
            Ok(Reply::Done(_) | Reply::Objects(_) | Reply::Text(_)) => {}
            Err(error) if error.code() == Some(404) => {
                entry.object = None;
                entry.error = None;
            }
            // What was read before is better than nothing.
            Err(error) => entry.error = Some(error.to_string()),
        }
        let news = state(entry) != before;
        self.entries.retain(|_, e| now.since(e.used) < FORGET || e.asked.is_some());
        news
    }

    /// The read that [`ConfigSource::data`] asked for.
    pub(crate) fn request(key: &Key) -> Request {
        Request::Get(key.clone())
    }
}

fn data_of(object: &Object) -> Data {
    let mut data = Data::new();
    if let Some(map) = object.get::<ConfigMap>() {
        for (key, value) in map.data.iter().flatten() {
            data.insert(key.clone(), value.clone().into_bytes());
        }
        for (key, value) in map.binary_data.iter().flatten() {
            data.insert(key.clone(), value.0.clone());
        }
    } else if let Some(secret) = object.get::<Secret>() {
        for (key, value) in secret.data.iter().flatten() {
            data.insert(key.clone(), value.0.clone());
        }
    }
    data
}
