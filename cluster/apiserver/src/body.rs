//! Bodies of requests.

use std::time::Duration;

use api::{Kind, Object, Reason, Status, codec};
use bytes::Bytes;
use http::HeaderMap;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use registry::DeleteOptions;
use serde_json::Value;

use crate::negotiate::{self, Encoding};
use crate::query::{FieldValidation, Query};

/// No request is larger.
const BODY_BYTES_MAX: usize = 3 << 20;
/// No client takes longer to send it.
const BODY_SECONDS_MAX: Duration = Duration::from_secs(30);

/// A decoded object and what there is to warn of.
pub(crate) struct Decoded {
    pub(crate) object: Object,
    pub(crate) warnings: Vec<String>,
}

/// Reads a body.
///
/// # Errors
/// It is too large, too slow, or ends early.
pub(crate) async fn read(body: Incoming) -> Result<Bytes, Status> {
    let limited = Limited::new(body, BODY_BYTES_MAX);
    match tokio::time::timeout(BODY_SECONDS_MAX, limited.collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Status::new(
            Reason::RequestEntityTooLarge,
            format!("Request entity too large: limit is {BODY_BYTES_MAX}"),
        )),
        Ok(Err(error)) => Err(Status::bad_request(format!("the body ended early: {error}"))),
        Err(_) => Err(Status::new(Reason::Timeout, "the body was not received in time")),
    }
}

/// The JSON that a body in any form stands for.
///
/// # Errors
/// It cannot be read.
fn to_json(headers: &HeaderMap, body: &Bytes) -> Result<Bytes, Status> {
    match negotiate::encoding(headers)? {
        Encoding::Json => Ok(body.clone()),
        Encoding::Yaml => {
            let text = std::str::from_utf8(body).map_err(|e| Status::bad_request(e.to_string()))?;
            let value: Value =
                serde_saphyr::from_str(text).map_err(|e| Status::bad_request(e.to_string()))?;
            Ok(value.to_string().into())
        }
        Encoding::Protobuf => Ok(registry::protobuf::to_json(body)?.1.into()),
    }
}

/// Decodes an object of the kind.
///
/// # Errors
/// It is no object of the kind, or has unknown fields and those are refused.
pub(crate) fn object(
    kind: Kind,
    headers: &HeaderMap,
    body: &Bytes,
    validation: FieldValidation,
) -> Result<Decoded, Status> {
    let json = to_json(headers, body)?;
    let cannot = |why: String| {
        let (name, version) = (kind.name(), kind.info().version);
        Status::bad_request(format!(
            "{name} in version {version:?} cannot be handled as a {name}: {why}"
        ))
    };
    check_type(kind, &json)?;
    let (object, unknown) = codec::decode(kind, &json).map_err(|e| cannot(e.to_string()))?;
    let mut warnings: Vec<String> =
        unknown.iter().map(|path| format!("unknown field \"{path}\"")).collect();
    match validation {
        FieldValidation::Strict if !warnings.is_empty() => {
            return Err(cannot(format!("strict decoding error: {}", warnings.join(", "))));
        }
        FieldValidation::Ignore => warnings.clear(),
        FieldValidation::Strict | FieldValidation::Warn => {}
    }
    Ok(Decoded { object, warnings })
}

/// Refuses a body of another type than the path names. A body may leave its type out.
fn check_type(kind: Kind, json: &[u8]) -> Result<(), Status> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct TypeMeta {
        #[serde(default)]
        api_version: String,
        #[serde(default)]
        kind: String,
    }
    let meta: TypeMeta = serde_json::from_slice(json).map_err(|e| {
        Status::bad_request(format!("couldn't get version/kind; json parse error: {e}"))
    })?;
    let expected = kind.api_version();
    if !meta.api_version.is_empty() && meta.api_version != expected {
        return Err(Status::bad_request(format!(
            "the API version in the data ({}) does not match the expected API version ({expected})",
            meta.api_version
        )));
    }
    if !meta.kind.is_empty() && meta.kind != kind.name() {
        return Err(Status::bad_request(format!(
            "{} in version {:?} cannot be handled as a {}: the kind in the data does not match",
            meta.kind,
            kind.info().version,
            kind.name()
        )));
    }
    Ok(())
}

/// Preconditions and manner of a deletion, from the body or the query. The second value says
/// whether nothing may be stored.
///
/// # Errors
/// They cannot be read.
pub(crate) fn delete_options(
    headers: &HeaderMap,
    body: &Bytes,
    query: &Query,
) -> Result<(DeleteOptions, bool), Status> {
    let value: Value = if body.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(&to_json(headers, body)?)
            .map_err(|e| Status::bad_request(e.to_string()))?
    };
    let (options, dry_run) = options_of(&value, query)?;
    Ok((options, dry_run || query.dry_run()?))
}

fn options_of(value: &Value, query: &Query) -> Result<(DeleteOptions, bool), Status> {
    let text = |v: &Value| v.as_str().filter(|s| !s.is_empty()).map(str::to_owned);
    let preconditions = &value["preconditions"];
    let policy = text(&value["propagationPolicy"])
        .or_else(|| text(&Value::from(query.get("propagationPolicy"))));
    let orphan =
        value["orphanDependents"].as_bool().or_else(|| query.get("orphanDependents").parse().ok());
    let propagation = match (policy.as_deref(), orphan) {
        (Some("Background"), _) | (None, Some(false)) => Some(api::Propagation::Background),
        (Some("Foreground"), _) => Some(api::Propagation::Foreground),
        (Some("Orphan"), _) | (None, Some(true)) => Some(api::Propagation::Orphan),
        (None, None) => None,
        (Some(other), _) => {
            return Err(Status::bad_request(format!(
                "propagationPolicy: Unsupported value: {other:?}: supported values: \
                 \"Background\", \"Foreground\", \"Orphan\""
            )));
        }
    };
    let revision = match text(&preconditions["resourceVersion"]) {
        Some(text) => Some(api::Revision::parse(&text).ok_or_else(|| {
            Status::bad_request(format!("preconditions.resourceVersion: {text:?} is no revision"))
        })?),
        None => None,
    };
    let options = DeleteOptions {
        uid: text(&preconditions["uid"]),
        revision,
        grace_seconds: value["gracePeriodSeconds"]
            .as_i64()
            .or_else(|| query.get("gracePeriodSeconds").parse().ok()),
        propagation,
    };
    let dry_run = value["dryRun"].as_array().is_some_and(|v| v.iter().any(|v| v == "All"));
    Ok((options, dry_run))
}
