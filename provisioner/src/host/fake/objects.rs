//! An API server of a fake machine that keeps objects as they were sent.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::host::HttpsAnswer;

/// Answers a request to `path`. There is no admission, and what is merged is merged as it stands.
pub(super) fn answer(
    objects: &mut BTreeMap<String, Value>,
    method: &str,
    path: &str,
    body: &str,
) -> HttpsAnswer {
    let said = |status, body: &Value| HttpsAnswer { status, body: body.to_string().into_bytes() };
    let body: Value = serde_json::from_str(body).unwrap_or(Value::Null);
    match (method, objects.get_mut(path)) {
        ("POST", _) => {
            let name = body["metadata"]["name"].as_str().unwrap_or_default();
            let there = objects.insert(format!("{path}/{name}"), body.clone()).is_some();
            said(if there { 409 } else { 201 }, &body)
        }
        (_, None) => said(404, &Value::Null),
        ("PATCH", Some(object)) => {
            merge(object, &body);
            said(200, object)
        }
        ("DELETE", Some(_)) => said(200, &objects.remove(path).unwrap_or_default()),
        (_, Some(object)) => said(200, object),
    }
}

/// Source: RFC 7396, section 2.
fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        object.clone_from(patch);
        return;
    };
    if !object.is_object() {
        *object = Value::Object(serde_json::Map::new());
    }
    for (key, value) in patch {
        match (value, object.as_object_mut()) {
            (Value::Null, Some(fields)) => _ = fields.remove(key),
            _ => merge(&mut object[key], value),
        }
    }
}
