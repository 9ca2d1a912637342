//! Patches: changes to apply to whatever an object is when they arrive.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::{PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::Shared;

/// The dialect of a patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PatchKind {
    /// RFC 6902.
    Json,
    /// RFC 7386.
    Merge,
    /// Kubernetes' strategic merge patch.
    Strategic,
}

/// A change to apply to whatever the object is when the patch arrives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Patch {
    /// The dialect of `body`.
    pub kind: PatchKind,
    /// The patch document.
    pub body: PatchBody,
}

/// The document of a patch, or what it is made from when somebody asks for it.
#[derive(Clone, Debug)]
pub enum PatchBody {
    /// The document.
    Json(Value),
    /// The strategic patch by which a kubelet reports the status of a pod. Where nobody else has
    /// touched the status, what it comes to is known without a document.
    PodStatus(Box<PodStatusChange>),
}

/// One status of a pod and the one that shall replace it.
#[derive(Clone, Debug)]
pub struct PodStatusChange {
    /// Only a pod of that UID takes the change.
    pub uid: Option<String>,
    /// What the author knows.
    pub from: Option<Shared<PodStatus>>,
    /// What shall be.
    pub to: Shared<PodStatus>,
}

impl PatchBody {
    /// The document.
    pub fn json(&self) -> Cow<'_, Value> {
        match self {
            Self::Json(value) => Cow::Borrowed(value),
            Self::PodStatus(change) => {
                let known = change.from.as_deref();
                let nothing = PodStatus::default();
                let status = changes(known.unwrap_or(&nothing), &change.to);
                Cow::Owned(status_body(change.uid.as_deref(), status))
            }
        }
    }
}

impl From<Value> for PatchBody {
    fn from(value: Value) -> Self {
        Self::Json(value)
    }
}

impl PartialEq for PatchBody {
    fn eq(&self, other: &Self) -> bool {
        self.json() == other.json()
    }
}

impl Serialize for PatchBody {
    fn serialize<S: Serializer>(&self, ser: S) -> Result<S::Ok, S::Error> {
        self.json().serialize(ser)
    }
}

impl<'de> Deserialize<'de> for PatchBody {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        Value::deserialize(de).map(Self::Json)
    }
}

/// The merge patch that turns one document into another.
pub fn merge_diff(old: &Value, new: &Value) -> Value {
    let (Some(from), Some(to)) = (old.as_object(), new.as_object()) else { return new.clone() };
    let mut patch = Map::new();
    for (key, value) in to {
        match from.get(key) {
            Some(before) if before == value => {}
            Some(before) if before.is_object() && value.is_object() => {
                patch.insert(key.clone(), merge_diff(before, value));
            }
            _ => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    for key in from.keys().filter(|k| !to.contains_key(*k)) {
        patch.insert(key.clone(), Value::Null);
    }
    Value::Object(patch)
}

/// The strategic patch of a list whose elements are known by their `key`: what turns the list
/// `old` into `new`, and leaves elements that others have put into it where they are.
///
/// Returns the fields of the patch: `name` and `$setElementOrder/name`.
pub fn keyed_list_diff(name: &str, key: &str, old: &[Value], new: &[Value]) -> Map<String, Value> {
    let is_keyed = |list: &[Value]| {
        let keys: Vec<&Value> = list.iter().filter_map(|element| element.get(key)).collect();
        keys.len() == list.len() && (1..keys.len()).all(|at| !keys[..at].contains(&keys[at]))
    };
    let mut patch = Map::new();
    if !is_keyed(old) || !is_keyed(new) {
        // Not what the API calls a map: no part of it can be named.
        let whole = std::iter::once(json!({DIRECTIVE: "replace"})).chain(new.iter().cloned());
        patch.insert(name.to_owned(), Value::Array(whole.collect()));
        return patch;
    }
    let find = |list: &'_ [Value], id: &Value| list.iter().position(|e| e.get(key) == Some(id));
    let mut changes = Vec::new();
    for element in new {
        match find(old, &element[key]) {
            Some(at) if old[at] == *element => {}
            Some(at) => {
                // A field that is left out is kept; the key must be there.
                let mut change = merge_diff(&old[at], element);
                change[key] = element[key].clone();
                changes.push(change);
            }
            None => changes.push(element.clone()),
        }
    }
    for element in old.iter().filter(|element| find(new, &element[key]).is_none()) {
        changes.push(json!({DIRECTIVE: "delete", key: element[key]}));
    }
    if old != new {
        // Elements that are named would else come in the order of the patch.
        let order = new.iter().map(|element| json!({key: element[key]})).collect();
        patch.insert(format!("$setElementOrder/{name}"), Value::Array(order));
        patch.insert(name.to_owned(), Value::Array(changes));
    }
    patch
}

/// What a strategic patch has for what is no value.
const DIRECTIVE: &str = "$patch";

/// The body of a status patch that only an object of that UID takes.
pub fn status_body(uid: Option<&str>, status: Value) -> Value {
    let mut body = Map::new();
    if let Some(uid) = uid {
        let metadata = Map::from_iter([("uid".to_owned(), Value::from(uid))]);
        body.insert("metadata".to_owned(), Value::Object(metadata));
    }
    body.insert("status".to_owned(), status);
    Value::Object(body)
}

/// The strategic patch that turns one pod status into another. It compares what a kubelet writes;
/// the rest must be the same. Conditions go by their type: others write some of their own at any
/// time.
fn changes(old: &PodStatus, new: &PodStatus) -> Value {
    let mut patch = Map::new();
    if old.conditions != new.conditions {
        let values = |status: &PodStatus| status.conditions.as_deref().map(conditions);
        patch = keyed_list_diff(
            "conditions",
            "type",
            &values(old).unwrap_or_default(),
            &values(new).unwrap_or_default(),
        );
    }
    change(&mut patch, "containerStatuses", &old.container_statuses, &new.container_statuses);
    change(&mut patch, "hostIP", &old.host_ip, &new.host_ip);
    change_list(&mut patch, "hostIPs", &old.host_ips, &new.host_ips);
    let (old_init, new_init) = (&old.init_container_statuses, &new.init_container_statuses);
    change(&mut patch, "initContainerStatuses", old_init, new_init);
    change(&mut patch, "message", &old.message, &new.message);
    change(&mut patch, "phase", &old.phase, &new.phase);
    change(&mut patch, "podIP", &old.pod_ip, &new.pod_ip);
    change_list(&mut patch, "podIPs", &old.pod_ips, &new.pod_ips);
    change(&mut patch, "qosClass", &old.qos_class, &new.qos_class);
    change(&mut patch, "reason", &old.reason, &new.reason);
    change(&mut patch, "startTime", &old.start_time, &new.start_time);
    Value::Object(patch)
}

fn change<T: Serialize + PartialEq>(
    patch: &mut Map<String, Value>,
    name: &str,
    old: &Option<T>,
    new: &Option<T>,
) {
    if old != new {
        let value = serde_json::to_value(new).expect("a status is JSON");
        patch.insert(name.to_owned(), value);
    }
}

/// As [`change`], of a list that would be merged with what it was.
fn change_list<T: Serialize + PartialEq>(
    patch: &mut Map<String, Value>,
    name: &str,
    old: &Option<Vec<T>>,
    new: &Option<Vec<T>>,
) {
    change(patch, name, old, new);
    if let Some(Value::Array(list)) = patch.get_mut(name) {
        list.insert(0, json!({DIRECTIVE: "replace"}));
    }
}

/// As their serialization, which is most of what a status write costs: conditions are in every
/// one, and their times are few.
fn conditions(conditions: &[PodCondition]) -> Vec<Value> {
    let mut known: Option<(&Time, String)> = None;
    let mut values = Vec::with_capacity(conditions.len());
    for condition in conditions {
        let PodCondition {
            last_probe_time,
            last_transition_time,
            message,
            observed_generation,
            reason,
            status,
            type_,
        } = condition;
        let mut map = Map::new();
        let mut put = |name: &str, value: Value| {
            map.insert(name.to_owned(), value);
        };
        if let Some(time) = last_probe_time {
            put("lastProbeTime", Value::String(text(time)));
        }
        if let Some(time) = last_transition_time {
            let text = match &known {
                Some((other, text)) if *other == time => text.clone(),
                _ => known.insert((time, text(time))).1.clone(),
            };
            put("lastTransitionTime", Value::String(text));
        }
        if let Some(message) = message {
            put("message", Value::String(message.clone()));
        }
        if let Some(generation) = observed_generation {
            put("observedGeneration", Value::from(*generation));
        }
        if let Some(reason) = reason {
            put("reason", Value::String(reason.clone()));
        }
        put("status", Value::String(status.clone()));
        put("type", Value::String(type_.clone()));
        values.push(Value::Object(map));
    }
    values
}

/// As `metav1.Time` is written: whole seconds, in UTC.
fn text(time: &Time) -> String {
    format!("{:.0}", time.0)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PodIP;

    use super::*;

    #[test]
    fn conditions_are_written_as_their_type_says() {
        let time = |secs: u64| Some(crate::Time::from_secs(secs).to_meta());
        let full = PodCondition {
            last_probe_time: time(5),
            last_transition_time: time(1_700_000_000),
            message: Some("m".into()),
            observed_generation: Some(3),
            reason: Some("r".into()),
            status: "True".into(),
            type_: "Ready".into(),
        };
        let bare = PodCondition {
            status: "False".into(),
            type_: "Initialized".into(),
            last_transition_time: time(1_700_000_001),
            ..PodCondition::default()
        };
        let all = vec![full.clone(), bare, full];
        assert_eq!(Value::Array(conditions(&all)), serde_json::to_value(&all).unwrap());
    }

    #[test]
    fn a_patch_names_what_differs() {
        let old = PodStatus {
            phase: Some("Pending".into()),
            reason: Some("Why".into()),
            pod_ip: Some("10.0.0.1".into()),
            ..PodStatus::default()
        };
        let new = PodStatus { phase: Some("Running".into()), reason: None, ..old.clone() };
        assert_eq!(changes(&old, &new), json!({"phase": "Running", "reason": null}));
        let whole = |status: &PodStatus| serde_json::to_value(status).unwrap();
        assert_eq!(changes(&old, &new), merge_diff(&whole(&old), &whole(&new)));
    }
    #[test]
    fn a_list_is_changed_element_by_element() {
        let diff = |old: Value, new: Value| {
            let (old, new) = (old.as_array().unwrap(), new.as_array().unwrap());
            Value::Object(keyed_list_diff("conditions", "type", old, new))
        };
        let ready = |status: &str| json!({"type": "Ready", "status": status});
        let told = json!({"type": "Ready", "status": "False", "reason": "Why", "message": "m"});
        assert_eq!(
            diff(json!([told, ready("x")]), json!([])),
            json!({"conditions": [{"$patch": "replace"}]})
        );
        assert_eq!(
            diff(json!([told, {"type": "A"}]), json!([ready("True"), {"type": "A"}])),
            json!({
                "conditions": [
                    {"type": "Ready", "status": "True", "reason": null, "message": null}],
                "$setElementOrder/conditions": [{"type": "Ready"}, {"type": "A"}],
            }),
        );
        assert_eq!(
            diff(json!([{"type": "A"}, {"type": "B"}]), json!([{"type": "C"}, {"type": "A"}])),
            json!({
                "conditions": [{"type": "C"}, {"$patch": "delete", "type": "B"}],
                "$setElementOrder/conditions": [{"type": "C"}, {"type": "A"}],
            }),
        );
        assert_eq!(diff(json!([told]), json!([told])), json!({}));
    }

    #[test]
    fn addresses_are_replaced() {
        let of = |ip: &str| PodStatus {
            pod_ips: Some(vec![PodIP { ip: ip.to_owned() }]),
            ..PodStatus::default()
        };
        assert_eq!(
            changes(&of("10.0.0.1"), &of("10.0.0.2")),
            json!({"podIPs": [{"$patch": "replace"}, {"ip": "10.0.0.2"}]}),
        );
    }
}
