//! Bringing objects in as their manifests say, and taking out those that have left them.
//!
//! What was asked for last is kept on each object, in the annotation of `kubectl apply`: a manifest
//! that is the same is not written again, and what it no longer says is taken out of the object.
//! A config map keeps which objects were made here, so that those alone are ever deleted.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::readiness::{self, Readiness};
use super::{Addon, Manifest};
use crate::execute::chain;
use crate::host::https::ANSWER_TIMEOUT;
use crate::host::{Host, HttpsAnswer, HttpsEndpoint};
use crate::wait;

/// Source: `kubectl apply`, well-known annotations of Kubernetes.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

const RECORDS: &str = "/api/v1/namespaces/kube-system/configmaps";
const RECORD: &str = "kprov-addons";
/// The key within the config map.
const OBJECTS: &str = "objects.json";

/// Pause between two looks at workloads.
const PAUSE: Duration = Duration::from_millis(500);

/// What is done about an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// It is not there.
    Create,
    /// It was made of another manifest, or of none.
    Update,
    /// It left the inventory.
    Delete,
}

/// One difference between manifests and cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AddonChange {
    /// The addon that the object is, or was, part of.
    pub addon: String,
    /// The object, as in `Deployment kube-system/dns`.
    pub object: String,
    /// What is done.
    pub act: Act,
}

impl AddonChange {
    /// One line for people.
    #[must_use]
    pub fn line(&self) -> String {
        let sign = match self.act {
            Act::Create => '+',
            Act::Update => '~',
            Act::Delete => '-',
        };
        format!("{sign} addon {}: {}", self.addon, self.object)
    }
}

/// All changes for a cluster that is not there yet.
#[must_use]
pub fn all_new(addons: &[Addon]) -> Vec<AddonChange> {
    let of = |addon: &Addon| {
        let change = |object: &Manifest| AddonChange {
            addon: addon.name.clone(),
            object: object.to_string(),
            act: Act::Create,
        };
        addon.objects.iter().map(change).collect::<Vec<_>>()
    };
    addons.iter().flat_map(of).collect()
}

/// An object that was made here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Owned {
    addon: String,
    object: String,
}

/// Objects that were made here, by path.
type Record = BTreeMap<String, Owned>;

/// Says what an apply would do. Asks for each object once, and writes nothing.
///
/// # Errors
/// Why the API server cannot be asked, in one line.
pub fn plan(
    host: &mut dyn Host,
    api: &HttpsEndpoint,
    addons: &[Addon],
) -> Result<Vec<AddonChange>, String> {
    look(&mut Api { host, endpoint: api }, addons).map(|seen| seen.changes())
}

/// Makes the cluster as the manifests say: each addon when the one before is ready; then takes out
/// what has left. Gives what was changed.
///
/// # Errors
/// Why it is not done, in one line; what was done stays, and the next apply goes on from there.
pub fn apply(
    host: &mut dyn Host,
    api: &HttpsEndpoint,
    addons: &[Addon],
    until: Instant,
    stop: &AtomicBool,
    say: &mut dyn FnMut(&str),
) -> Result<Vec<AddonChange>, String> {
    let mut api = Api { host, endpoint: api };
    let seen = look(&mut api, addons)?;
    let mut record = seen.record.clone();
    // Before they are made: one whose making was broken off is still known to be ours.
    let made = seen.objects.iter().filter(|object| object.act == Some(Act::Create));
    record.extend(made.map(|object| (object.manifest.path(), object.owned())));
    api.keep(&seen.record, &record)?;
    for addon in addons {
        if stop.load(Ordering::Relaxed) {
            return Err(format!("interrupted before the addon {}", addon.name));
        }
        let objects = seen.objects.iter().filter(|object| object.addon == addon.name);
        let objects: Vec<_> = objects.collect();
        for object in &objects {
            match object.act {
                Some(Act::Create) => api.create(object.manifest)?,
                Some(Act::Update) => api.update(object.manifest, &object.live)?,
                Some(Act::Delete) | None => {}
            }
        }
        if let Some(longest) = addon.wait {
            say(&format!("waiting for the addon {} to be ready", addon.name));
            let until = until.min(Instant::now() + longest);
            ready(&mut api, &objects, until, stop)
                .map_err(|why| format!("the addon {} is not ready: {why}", addon.name))?;
        }
    }
    for path in seen.gone.keys().rev() {
        api.delete(path)?;
    }
    let left = record.iter().filter(|(path, _)| !seen.gone.contains_key(*path));
    let left: Record = left.map(|(path, owned)| (path.clone(), owned.clone())).collect();
    api.keep(&record, &left)?;
    Ok(seen.changes())
}

/// What was found in the cluster.
struct Seen<'a> {
    record: Record,
    objects: Vec<Found<'a>>,
    /// Made here once, and in no manifest any more.
    gone: Record,
}

struct Found<'a> {
    addon: &'a str,
    manifest: &'a Manifest,
    /// Null for one that is not there.
    live: Value,
    act: Option<Act>,
}

impl Found<'_> {
    fn owned(&self) -> Owned {
        Owned { addon: self.addon.to_owned(), object: self.manifest.to_string() }
    }
}

impl Seen<'_> {
    fn changes(&self) -> Vec<AddonChange> {
        let change = |Owned { addon, object }, act| AddonChange { addon, object, act };
        let here = self.objects.iter().filter_map(|o| Some(change(o.owned(), o.act?)));
        here.chain(self.gone.values().rev().map(|owned| change(owned.clone(), Act::Delete)))
            .collect()
    }
}

fn look<'a>(api: &mut Api<'_>, addons: &'a [Addon]) -> Result<Seen<'a>, String> {
    let record = api.record()?;
    let mut gone = record.clone();
    let mut objects = Vec::new();
    for addon in addons {
        for manifest in &addon.objects {
            gone.remove(&manifest.path());
            let live = api.get(&manifest.path())?.unwrap_or(Value::Null);
            let act = match (&live, last_applied(&live)) {
                (Value::Null, _) => Some(Act::Create),
                (_, Some(last)) if last == manifest.value => None,
                _ => Some(Act::Update),
            };
            objects.push(Found { addon: &addon.name, manifest, live, act });
        }
    }
    Ok(Seen { record, objects, gone })
}

/// The manifest that an object was last made of.
fn last_applied(live: &Value) -> Option<Value> {
    serde_json::from_str(live["metadata"]["annotations"][LAST_APPLIED].as_str()?).ok()
}

/// The object to send: the manifest, with itself as its annotation.
fn annotated(manifest: &Value) -> Value {
    let mut object = manifest.clone();
    let annotations = &mut object["metadata"]["annotations"];
    if annotations.is_null() {
        *annotations = json!({});
    }
    annotations[LAST_APPLIED] = Value::from(manifest.to_string());
    object
}

/// A merge patch (RFC 7396) to what `wanted` says; what only `last` says is taken out, and what
/// neither says stays.
fn patch(last: &Value, wanted: &Value) -> Value {
    let (Value::Object(wanted), Value::Object(last)) = (wanted, last) else {
        return wanted.clone();
    };
    let said = wanted.iter().map(|(key, value)| {
        let before = last.get(key).unwrap_or(&Value::Null);
        (key.clone(), patch(before, value))
    });
    let unsaid = last.keys().filter(|key| !wanted.contains_key(*key));
    said.chain(unsaid.map(|key| (key.clone(), Value::Null))).collect()
}

/// Waits until all workloads among `objects` are as their manifests say.
fn ready(
    api: &mut Api<'_>,
    objects: &[&Found<'_>],
    until: Instant,
    stop: &AtomicBool,
) -> Result<(), String> {
    for object in objects.iter().filter(|object| readiness::is_awaited(object.manifest.kind)) {
        let kind = object.manifest.kind;
        // What was seen a moment ago will do for one that nobody has changed.
        if object.act.is_none() && readiness::of(kind, &object.live) == Readiness::Ready {
            continue;
        }
        let path = object.manifest.path();
        let found = wait::poll(until, PAUSE, || {
            let live = match api.get(&path) {
                Ok(Some(live)) => live,
                Ok(None) => return Err(format!("{} is gone", object.manifest)),
                // A master that is being restarted, say.
                Err(why) => return Err(why),
            };
            match readiness::of(kind, &live) {
                Readiness::Ready => Ok(Ok(())),
                Readiness::Failed(why) => Ok(Err(format!("{}: {why}", object.manifest))),
                Readiness::Waiting(_) if stop.load(Ordering::Relaxed) => {
                    Ok(Err("interrupted".to_owned()))
                }
                Readiness::Waiting(why) => Err(format!("{}: {why}", object.manifest)),
            }
        });
        found??;
    }
    Ok(())
}

/// The API server, as seen from a host.
struct Api<'a> {
    host: &'a mut dyn Host,
    endpoint: &'a HttpsEndpoint,
}

impl Api<'_> {
    fn at(&self, path: &str) -> HttpsEndpoint {
        HttpsEndpoint { path: path.to_owned(), ..self.endpoint.clone() }
    }

    fn get(&mut self, path: &str) -> Result<Option<Value>, String> {
        let at = self.at(path);
        let answer = self.host.get(&at).map_err(|error| chain(&error))?;
        match answer.status {
            200 => serde_json::from_slice(&answer.body)
                .map(Some)
                .map_err(|error| format!("{} answers no object: {error}", at.endpoint())),
            404 => Ok(None),
            _ => Err(refusal(&at, &answer)),
        }
    }

    fn post(&mut self, path: &str, object: &Value) -> Result<(), String> {
        let at = self.at(path);
        let answer = self.host.post(&at, &object.to_string(), ANSWER_TIMEOUT);
        let answer = answer.map_err(|error| chain(&error))?;
        match answer.status {
            200..=299 => Ok(()),
            _ => Err(refusal(&at, &answer)),
        }
    }

    fn merge(&mut self, path: &str, patch: &Value) -> Result<(), String> {
        let at = self.at(path);
        let answer = self.host.merge_patch(&at, &patch.to_string());
        let answer = answer.map_err(|error| chain(&error))?;
        match answer.status {
            200..=299 => Ok(()),
            _ => Err(refusal(&at, &answer)),
        }
    }

    fn create(&mut self, manifest: &Manifest) -> Result<(), String> {
        self.post(&manifest.collection(), &annotated(&manifest.value))
            .map_err(|why| format!("cannot create {manifest}: {why}"))
    }

    fn update(&mut self, manifest: &Manifest, live: &Value) -> Result<(), String> {
        let last = last_applied(live).unwrap_or_else(|| json!({}));
        self.merge(&manifest.path(), &patch(&last, &annotated(&manifest.value))).map_err(|why| {
            format!(
                "cannot change {manifest}: {why} (fields that cannot change need the object to be \
                 deleted first)"
            )
        })
    }

    fn delete(&mut self, path: &str) -> Result<(), String> {
        let at = self.at(path);
        let answer = self.host.delete(&at).map_err(|error| chain(&error))?;
        match answer.status {
            200..=299 | 404 => Ok(()),
            _ => Err(refusal(&at, &answer)),
        }
    }

    fn record(&mut self) -> Result<Record, String> {
        let Some(map) = self.get(&format!("{RECORDS}/{RECORD}"))? else {
            return Ok(Record::new());
        };
        serde_json::from_str(map["data"][OBJECTS].as_str().unwrap_or("{}")).map_err(|error| {
            format!("the config map kube-system/{RECORD} is damaged or of a newer kprov: {error}")
        })
    }

    /// Writes the record, if it is another one.
    fn keep(&mut self, was: &Record, record: &Record) -> Result<(), String> {
        if was == record {
            return Ok(());
        }
        let text = serde_json::to_string(record).expect("paths are texts");
        let data = json!({ "data": { OBJECTS: text } });
        let path = format!("{RECORDS}/{RECORD}");
        let kept = match self.get(&path)? {
            Some(_) => self.merge(&path, &data),
            None => {
                let mut map = data;
                map["apiVersion"] = Value::from("v1");
                map["kind"] = Value::from("ConfigMap");
                map["metadata"] = json!({ "name": RECORD, "namespace": "kube-system" });
                self.post(RECORDS, &map)
            }
        };
        kept.map_err(|why| format!("cannot note which objects are kprov's: {why}"))
    }
}

fn refusal(at: &HttpsEndpoint, answer: &HttpsAnswer) -> String {
    let (endpoint, status) = (at.endpoint(), answer.status);
    format!("{endpoint} answers {status} {}", answer.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_says_what_is_new_and_takes_out_what_is_no_longer_said() {
        let last = json!({ "spec": { "a": 1, "b": { "x": 1, "y": 2 }, "list": [1, 2] }, "z": 1 });
        let wanted = json!({ "spec": { "a": 1, "b": { "y": 3 }, "list": [2] } });
        let expected = json!({ "spec": { "a": 1, "b": { "x": null, "y": 3 }, "list": [2] },
            "z": null });
        assert_eq!(patch(&last, &wanted), expected);
    }

    #[test]
    fn what_was_applied_is_read_from_the_object() {
        let manifest = json!({ "metadata": { "name": "a" }, "data": { "k": "v" } });
        let object = annotated(&manifest);
        assert_eq!(last_applied(&object), Some(manifest));
        assert_eq!(last_applied(&json!({ "metadata": { "name": "a" } })), None);
    }
}
