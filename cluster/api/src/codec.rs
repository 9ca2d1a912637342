//! JSON in and out of every built-in type, instantiated here and nowhere else.
//!
//! Compiling serde code for the Kubernetes types is what makes builds slow, so the rest of the
//! workspace calls these plain functions.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::object::{decode_typed, encode_typed};
use crate::{Kind, Object};

/// Why bytes are no object.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The text is no JSON or a field has the wrong type.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// `apiVersion` and `kind` name nothing that is served.
    #[error("no kind {kind:?} is registered for version {api_version:?}")]
    UnknownKind {
        /// `apiVersion` as found.
        api_version: String,
        /// `kind` as found.
        kind: String,
    },
}

/// Decodes JSON as an object of `kind`. Fields unknown to Kubernetes 1.33 are dropped and
/// their paths (`spec.template.fooo`) returned.
///
/// # Errors
/// Malformed JSON, or a field of the wrong type.
pub fn decode(kind: Kind, json: &[u8]) -> Result<(Object, Vec<String>), DecodeError> {
    match decode_strictly(kind, json) {
        // Go clients send the status of a token request unfilled, with null for its time.
        Err(_) if kind == Kind::TokenRequest => {
            let mut value: Value = serde_json::from_slice(json)?;
            if value.pointer("/status/expirationTimestamp").is_none_or(Value::is_null)
                && let Some(fields) = value.as_object_mut()
            {
                fields.remove("status");
            }
            decode_strictly(kind, &serde_json::to_vec(&value)?)
        }
        decoded => decoded,
    }
}

fn decode_strictly(kind: Kind, json: &[u8]) -> Result<(Object, Vec<String>), DecodeError> {
    let mut unknown = Vec::new();
    let mut de = serde_json::Deserializer::from_slice(json);
    let mut note = |path: serde_ignored::Path<'_>| unknown.push(field_path(&path));
    let object = decode_typed(kind, serde_ignored::Deserializer::new(&mut de, &mut note))?;
    de.end()?;
    Ok((object, unknown))
}

/// Decodes JSON whose `apiVersion` and `kind` name the type.
///
/// # Errors
/// Malformed JSON, an unknown kind, or a field of the wrong type.
pub fn decode_any(json: &[u8]) -> Result<Object, DecodeError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct TypeMeta {
        #[serde(default)]
        api_version: String,
        #[serde(default)]
        kind: String,
    }
    let head: TypeMeta = serde_json::from_slice(json)?;
    let Some(kind) = Kind::of_manifest(&head.api_version, &head.kind) else {
        return Err(DecodeError::UnknownKind { api_version: head.api_version, kind: head.kind });
    };
    Ok(decode(kind, json)?.0)
}

/// Decodes a JSON value as an object of `kind`, dropping unknown fields.
///
/// # Errors
/// A field of the wrong type.
pub fn decode_value(kind: Kind, value: &Value) -> Result<Object, DecodeError> {
    Ok(decode(kind, &serde_json::to_vec(value)?)?.0)
}

/// Encodes as canonical JSON: `apiVersion`, `kind` and `metadata` come first, absent fields are
/// left out.
pub fn encode(object: &Object) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    let mut ser = serde_json::Serializer::new(&mut out);
    encode_typed(object, &mut ser).expect("Kubernetes types have string keys and finite numbers");
    metadata_first(object.kind(), out)
}

/// Moves `metadata` to its place behind `kind`: the types list their fields alphabetically.
fn metadata_first(kind: Kind, json: Vec<u8>) -> Vec<u8> {
    #[derive(Deserialize)]
    struct Meta<'a> {
        #[serde(borrow)]
        metadata: Option<&'a RawValue>,
    }
    const KEY: &[u8] = br#""metadata":"#;
    let head =
        r#"{"apiVersion":"","kind":"","#.len() + kind.api_version().len() + kind.name().len();
    if json.get(head..).is_none_or(|rest| rest.starts_with(KEY)) {
        return json;
    }
    let Ok(Meta { metadata: Some(metadata) }) = serde_json::from_slice(&json) else { return json };
    let value = metadata.get().as_bytes();
    let start = value.as_ptr() as usize - json.as_ptr() as usize;
    let mut out = Vec::with_capacity(json.len());
    out.extend_from_slice(&json[..head]);
    out.extend_from_slice(KEY);
    out.extend_from_slice(value);
    out.push(b',');
    // What stood before ends in the comma that stood before `metadata`.
    out.extend_from_slice(&json[head..start - KEY.len() - 1]);
    out.extend_from_slice(&json[start + value.len()..]);
    out
}

/// Encodes as a JSON value.
pub fn to_value(object: &Object) -> Value {
    serde_json::from_slice(&encode(object)).expect("encode writes valid JSON")
}

pub(crate) fn encode_raw(object: &Object) -> Box<RawValue> {
    let text = String::from_utf8(encode(object)).expect("JSON is UTF-8");
    RawValue::from_string(text).expect("encode writes valid JSON")
}

/// Renders a path as Kubernetes does: `spec.containers[0].imagee`.
pub fn field_path(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", field_path(parent)),
        Path::Map { parent, key } => {
            let parent = field_path(parent);
            if parent.is_empty() { key.clone() } else { format!("{parent}.{key}") }
        }
        Path::Some { parent }
        | Path::NewtypeStruct { parent }
        | Path::NewtypeVariant { parent } => field_path(parent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_json_starts_with_type_and_metadata() {
        let json = br#"{"spec":{"containers":[{"name":"a","image":"b","bogus":1}]},"kind":"Pod",
            "metadata":{"name":"x","labels":{"b":"2","a":"1"}},"apiVersion":"v1","extra":{"y":1}}"#;
        let (object, unknown) = decode(Kind::Pod, json).unwrap();
        assert_eq!(unknown, ["spec.containers[0].bogus", "extra"]);
        let text = String::from_utf8(encode(&object)).unwrap();
        assert!(text.starts_with(r#"{"apiVersion":"v1","kind":"Pod","metadata":{"#), "{text}");
        assert_eq!(decode_any(text.as_bytes()).unwrap(), object);
        let again: Object = serde_json::from_str(&serde_json::to_string(&object).unwrap()).unwrap();
        assert_eq!(again, object);
    }

    #[test]
    fn every_kind_round_trips_when_empty() {
        for kind in Kind::ALL {
            let json = format!(
                r#"{{"apiVersion":"{}","kind":"{}","metadata":{{"name":"x"}}}}"#,
                kind.api_version(),
                kind.name()
            );
            let object = decode_any(json.as_bytes()).unwrap();
            assert_eq!(object.kind(), *kind);
            assert_eq!(decode_any(&encode(&object)).unwrap(), object);
        }
    }

    #[test]
    fn metadata_moves_before_fields_of_smaller_names() {
        let check = |kind: Kind, fields: &str| {
            let (version, name) = (kind.api_version(), kind.name());
            let metadata = r#""metadata":{"annotations":{"a":"{\"metadata\":1}"},"name":"x"}"#;
            let json =
                format!(r#"{{"apiVersion":"{version}","kind":"{name}",{metadata},{fields}}}"#);
            let object = decode_any(json.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(encode(&object)).unwrap(), json);
        };
        check(Kind::ConfigMap, r#""data":{"metadata":"{}"},"immutable":true"#);
        check(Kind::Secret, r#""data":{"a":"YQ=="},"type":"Opaque""#);
        check(Kind::ServiceAccount, r#""automountServiceAccountToken":false"#);
        check(Kind::EndpointSlice, r#""addressType":"IPv4","endpoints":[],"ports":[]"#);
        check(Kind::Namespace, r#""spec":{"finalizers":["kubernetes"]}"#);
    }

    #[test]
    fn json_maps_are_sorted() {
        // A dependency could turn on `preserve_order` for the whole workspace.
        let value: Value = serde_json::from_str(r#"{"b":1,"a":2}"#).unwrap();
        assert_eq!(value.to_string(), r#"{"a":2,"b":1}"#);
    }

    #[test]
    fn an_unfilled_token_status_is_ignored() {
        let json = br#"{"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest",
            "spec":{"audiences":["x"]},"status":{"token":"","expirationTimestamp":null}}"#;
        let value = to_value(&decode_any(json).unwrap());
        assert_eq!((&value["spec"]["audiences"][0], value.get("status")), (&"x".into(), None));
        let json = br#"{"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest",
            "status":{"token":"t","expirationTimestamp":"2026-01-01T00:00:00Z"}}"#;
        assert_eq!(to_value(&decode_any(json).unwrap())["status"]["token"], "t");
    }

    #[test]
    fn bad_input_is_an_error() {
        assert!(decode(Kind::Pod, b"{").is_err());
        assert!(decode(Kind::Pod, br#"{"apiVersion":"v1","kind":"Pod"} trailing"#).is_err());
        let error = decode_any(br#"{"apiVersion":"v9","kind":"Pod"}"#).unwrap_err();
        assert_eq!(error.to_string(), r#"no kind "Pod" is registered for version "v9""#);
    }
}
