//! A patch becomes the object that an update would have sent.
//!
//! Source: kubernetes 1.33, `k8s.io/apiserver/pkg/endpoints/handlers/patch.go`.

use api::codec;
use api::{ApiObject, Cause, Object, Patch, PatchKind, Reason, Status, Subresource};
use serde_json::Value;

mod parts;

use crate::field::quote;
use crate::{patch, scale};

/// The object (or its `Scale`) with the patch applied.
///
/// # Errors
/// The patch does not apply, the result is no such object, or it has unknown fields and
/// `strict` refuses them.
pub(super) fn patched(
    current: &Object,
    subresource: Option<Subresource>,
    patch: &Patch,
    strict: bool,
) -> Result<Object, Status> {
    if subresource == Some(Subresource::Scale) {
        let base = scale::of(current).ok_or_else(Status::no_route)?.into_object();
        return whole(&base, patch, strict);
    }
    match parts::patched(current, patch) {
        Some(object) => Ok(object),
        None => whole(current, patch, strict),
    }
}

/// Applies the patch to the JSON of the whole object.
fn whole(base: &Object, patch: &Patch, strict: bool) -> Result<Object, Status> {
    let kind = base.kind();
    let mut after = patch::apply(kind, codec::to_value(base), patch)?;
    if let Some(map) = after.as_object_mut() {
        // What kind of object it is cannot be patched.
        map.insert("apiVersion".to_owned(), kind.api_version().into());
        map.insert("kind".to_owned(), kind.name().into());
    }
    let json = after.to_string();
    let shown = || match patch.kind {
        PatchKind::Strategic => plain(&patch.body.json()),
        PatchKind::Json | PatchKind::Merge => json.clone(),
    };
    let (object, unknown) = codec::decode(kind, json.as_bytes())
        .map_err(|error| refusal(&shown(), &error.to_string()))?;
    if strict && !unknown.is_empty() {
        let fields: Vec<String> =
            unknown.iter().map(|f| format!("unknown field {}", quote(f))).collect();
        return Err(refusal(&shown(), &format!("strict decoding error: {}", fields.join(", "))));
    }
    Ok(object)
}

/// The refusal names no object: it is the patch that is wrong.
fn refusal(shown: &str, why: &str) -> Status {
    let message = format!("Invalid value: {}: {why}", quote(shown));
    let mut status = Status::new(Reason::Invalid, format!(" \"\" is invalid: patch: {message}"));
    status.causes =
        vec![Cause { reason: "FieldValueInvalid".to_owned(), message, field: "patch".to_owned() }];
    status
}

/// A document without quotes, as Kubernetes shows strategic merge patches.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(list) => {
            let items: Vec<String> = list.iter().map(plain).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Object(map) => {
            let items: Vec<String> = map.iter().map(|(k, v)| format!("{k}:{}", plain(v))).collect();
            format!("map[{}]", items.join(" "))
        }
        other => other.to_string(),
    }
}
