//! `metav1.Status`: the one place where the API's errors are worded.
//!
//! Source: kubernetes 1.33, `k8s.io/apimachinery/pkg/api/errors`.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::Kind;

/// The machine-readable reason of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each variant is the Kubernetes reason of that name")]
pub enum Reason {
    Unauthorized,
    Forbidden,
    NotFound,
    AlreadyExists,
    Conflict,
    Gone,
    Expired,
    Invalid,
    ServerTimeout,
    Timeout,
    TooManyRequests,
    BadRequest,
    MethodNotAllowed,
    NotAcceptable,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    InternalError,
    ServiceUnavailable,
}

impl Reason {
    /// The HTTP status code that goes with the reason.
    pub const fn code(self) -> u16 {
        match self {
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::NotAcceptable => 406,
            Self::AlreadyExists | Self::Conflict => 409,
            Self::Gone | Self::Expired => 410,
            Self::RequestEntityTooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::Invalid => 422,
            Self::TooManyRequests => 429,
            Self::BadRequest => 400,
            Self::InternalError => 500,
            Self::ServiceUnavailable => 503,
            Self::ServerTimeout | Self::Timeout => 504,
        }
    }
}

/// One field that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// `FieldValueRequired`, `FieldValueInvalid`, `FieldValueNotSupported`, …
    pub reason: String,
    /// What is wrong with the value.
    pub message: String,
    /// The path of the field; empty when the cause is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
}

/// A refusal by the API.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    /// HTTP status code.
    pub code: u16,
    /// Machine-readable reason.
    pub reason: Reason,
    /// Message for people, as kubectl prints it.
    pub message: String,
    /// Resource (or kind) and group of the object concerned.
    pub kind: String,
    /// API group of the object concerned.
    pub group: String,
    /// Name of the object concerned.
    pub name: String,
    /// UID of the object concerned, if it matters.
    pub uid: String,
    /// Fields that are wrong.
    pub causes: Vec<Cause>,
    /// Seconds to wait before a retry; zero when it makes no sense or is not known.
    pub retry_after_seconds: u32,
}

impl Status {
    /// Makes a refusal that concerns no object.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            code: reason.code(),
            reason,
            message: message.into(),
            kind: String::new(),
            group: String::new(),
            name: String::new(),
            uid: String::new(),
            causes: Vec::new(),
            retry_after_seconds: 0,
        }
    }

    fn about(reason: Reason, kind: Kind, name: &str, message: String) -> Self {
        Self {
            kind: kind.plural().to_owned(),
            group: kind.info().group.to_owned(),
            name: name.to_owned(),
            ..Self::new(reason, message)
        }
    }

    /// The object does not exist.
    pub fn not_found(kind: Kind, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", kind.group_resource());
        Self::about(Reason::NotFound, kind, name, message)
    }

    /// The path names nothing that is served.
    pub fn no_route() -> Self {
        Self::new(Reason::NotFound, "the server could not find the requested resource")
    }

    /// An object of that name exists.
    pub fn already_exists(kind: Kind, name: &str) -> Self {
        let message = format!("{} \"{name}\" already exists", kind.group_resource());
        Self::about(Reason::AlreadyExists, kind, name, message)
    }

    /// The write lost a race.
    pub fn conflict(kind: Kind, name: &str, why: &str) -> Self {
        let message =
            format!("Operation cannot be fulfilled on {} \"{name}\": {why}", kind.group_resource());
        Self::about(Reason::Conflict, kind, name, message)
    }

    /// The object was changed since the caller read it.
    pub fn modified(kind: Kind, name: &str) -> Self {
        Self::conflict(
            kind,
            name,
            "the object has been modified; please apply your changes to the latest version and \
             try again",
        )
    }

    /// Admission refused the write.
    pub fn forbidden(kind: Kind, name: &str, why: &str) -> Self {
        let message = if name.is_empty() {
            format!("{} is forbidden: {why}", kind.group_resource())
        } else {
            format!("{} \"{name}\" is forbidden: {why}", kind.group_resource())
        };
        Self::about(Reason::Forbidden, kind, name, message)
    }

    /// Fields are wrong; `kind` is named as in manifests (`Pod`, `Deployment.apps`).
    pub fn invalid(kind: Kind, name: &str, causes: Vec<Cause>) -> Self {
        let info = kind.info();
        let qualified = if info.group.is_empty() {
            info.kind.to_owned()
        } else {
            format!("{}.{}", info.kind, info.group)
        };
        let wrong: Vec<String> =
            causes.iter().map(|c| format!("{}: {}", c.field, c.message)).collect();
        let list = match wrong.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        Self {
            kind: info.kind.to_owned(),
            group: info.group.to_owned(),
            name: name.to_owned(),
            causes,
            ..Self::new(Reason::Invalid, format!("{qualified} \"{name}\" is invalid: {list}"))
        }
    }

    /// The request makes no sense.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(Reason::BadRequest, message)
    }

    /// Something failed that is not the caller's fault.
    pub fn internal(message: impl std::fmt::Display) -> Self {
        Self::new(Reason::InternalError, format!("Internal error occurred: {message}"))
    }

    /// The caller is nobody we know.
    pub fn unauthorized() -> Self {
        Self::new(Reason::Unauthorized, "Unauthorized")
    }

    /// The requested history is gone: list again.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(Reason::Expired, message)
    }

    /// As the JSON document the API answers with.
    pub fn to_json(&self) -> Value {
        let mut details = serde_json::Map::new();
        for (key, value) in
            [("name", &self.name), ("group", &self.group), ("kind", &self.kind), ("uid", &self.uid)]
        {
            if !value.is_empty() {
                details.insert(key.to_owned(), json!(value));
            }
        }
        if !self.causes.is_empty() {
            details.insert("causes".to_owned(), json!(self.causes));
        }
        if self.retry_after_seconds > 0 {
            details.insert("retryAfterSeconds".to_owned(), json!(self.retry_after_seconds));
        }
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        if !details.is_empty() {
            status["details"] = Value::Object(details);
        }
        status
    }

    /// From the JSON document of an answer with an error code; what is missing is guessed from
    /// the code.
    pub fn from_json(code: u16, body: &[u8]) -> Self {
        let value: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |v: &Value, key: &str| v[key].as_str().unwrap_or_default().to_owned();
        let details = &value["details"];
        let reason = serde_json::from_value(value["reason"].clone()).unwrap_or(match code {
            401 => Reason::Unauthorized,
            403 => Reason::Forbidden,
            404 => Reason::NotFound,
            409 => Reason::Conflict,
            410 => Reason::Expired,
            422 => Reason::Invalid,
            429 => Reason::TooManyRequests,
            503 => Reason::ServiceUnavailable,
            504 => Reason::Timeout,
            400..500 => Reason::BadRequest,
            _ => Reason::InternalError,
        });
        let message = match value["message"].as_str() {
            Some(message) => message.to_owned(),
            None => String::from_utf8_lossy(&body[..body.len().min(512)]).into_owned(),
        };
        Self {
            code,
            reason,
            message,
            kind: text(details, "kind"),
            group: text(details, "group"),
            name: text(details, "name"),
            uid: text(details, "uid"),
            causes: serde_json::from_value(details["causes"].clone()).unwrap_or_default(),
            retry_after_seconds: details["retryAfterSeconds"]
                .as_u64()
                .and_then(|s| u32::try_from(s).ok())
                .unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_those_of_kubernetes() {
        let check = |status: Status, code: u16, message: &str| {
            assert_eq!(status.code, code);
            assert_eq!(status.message, message);
            let body = serde_json::to_vec(&status.to_json()).unwrap();
            assert_eq!(Status::from_json(code, &body), status);
        };
        check(Status::not_found(Kind::Pod, "a"), 404, r#"pods "a" not found"#);
        check(
            Status::already_exists(Kind::Deployment, "a"),
            409,
            r#"deployments.apps "a" already exists"#,
        );
        let cause = Cause {
            reason: "FieldValueRequired".into(),
            message: "Required value".into(),
            field: "spec.containers".into(),
        };
        check(
            Status::invalid(Kind::Pod, "a", vec![cause]),
            422,
            r#"Pod "a" is invalid: spec.containers: Required value"#,
        );
    }
}
