//! The three patch dialects of the API.
//!
//! Source: RFC 6902, RFC 7386, and for the strategic dialect kubernetes 1.33,
//! `k8s.io/apimachinery/pkg/util/strategicpatch`.

use api::{Kind, Patch, PatchKind, Reason, Status};
use serde_json::{Map, Value};

use crate::schema::Message;

mod json;
mod strategic;

#[cfg(test)]
mod tests;

/// Applies a patch to the JSON form of an object of `kind`; `kind` decides how the strategic
/// dialect merges lists.
///
/// # Errors
/// 400 when the document is no patch, 422 when it does not fit the object, 413 when it asks for
/// too much work.
pub fn apply(kind: Kind, current: Value, patch: &Patch) -> Result<Value, Status> {
    let body = &*patch.body.json();
    let patched = match patch.kind {
        PatchKind::Json => json::apply(current, body)?,
        PatchKind::Merge => {
            let Value::Object(patch) = body else { return Err(no_document()) };
            let mut patched = current;
            merge(&mut patched, patch);
            patched
        }
        PatchKind::Strategic => {
            let Value::Object(patch) = body else { return Err(no_document()) };
            let original = match current {
                Value::Object(fields) => fields,
                _ => Map::new(),
            };
            let message = Some(Message::of_kind(kind));
            Value::Object(strategic::merge_object(original, patch.clone(), message)?)
        }
    };
    if patched.is_object() { Ok(patched) } else { Err(unfit()) }
}

fn no_document() -> Status {
    Status::bad_request("Invalid JSON Patch")
}

/// The refusal of a patch that is well formed but cannot be applied to the object.
fn unfit() -> Status {
    Status::new(Reason::Invalid, "the server rejected our request due to an error in our request")
}

/// RFC 7386: objects merge, null deletes, everything else replaces.
fn merge(target: &mut Value, patch: &Map<String, Value>) {
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(fields) = target else { return };
    for (key, value) in patch {
        match value {
            Value::Null => drop(fields.remove(key)),
            Value::Object(inner) => merge(fields.entry(key.as_str()).or_insert(Value::Null), inner),
            other => drop(fields.insert(key.clone(), other.clone())),
        }
    }
}
