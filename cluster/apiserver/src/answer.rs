//! Answers: bodies, headers, and the one way a refusal is written.

use api::{Reason, Status};
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};

/// What may end a body early.
pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The body of an answer.
pub(crate) type Body = UnsyncBoxBody<Bytes, BodyError>;

/// An answer.
pub(crate) type Answer = Response<Body>;

/// A body that is known as a whole.
pub(crate) fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body that is made while it is sent, at the pace of its reader.
pub(crate) fn streamed(chunks: impl futures::Stream<Item = Bytes> + Send + 'static) -> Body {
    use futures::StreamExt;
    StreamBody::new(chunks.map(|chunk| Ok(Frame::data(chunk)))).boxed_unsync()
}

/// An answer of any content type.
pub(crate) fn answer(code: StatusCode, content_type: &'static str, body: Body) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = code;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    answer
}

/// A JSON answer.
pub(crate) fn json(code: StatusCode, body: impl Into<Bytes>) -> Answer {
    answer(code, "application/json", whole(body))
}

/// A plain text answer.
pub(crate) fn text(code: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = answer(code, "text/plain; charset=utf-8", whole(body));
    answer.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    answer
}

/// A refusal.
pub(crate) fn refusal(status: &Status) -> Answer {
    refusal_json(status, &status.to_json())
}

fn refusal_json(status: &Status, document: &Value) -> Answer {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = json(code, document.to_string());
    if status.retry_after_seconds > 0 {
        answer.headers_mut().insert(header::RETRY_AFTER, status.retry_after_seconds.into());
    }
    answer
}

/// The refusal of a list that began too long ago, with a token to go on regardless.
pub(crate) fn expired_continue(token: &str) -> Answer {
    let status = Status::expired(
        "The provided continue parameter is too old to display a consistent list result. You can \
         start a new list without the continue parameter, or use the continue token in this \
         response to retrieve the remainder of the results. Continuing with the provided token \
         results in an inconsistent list - objects that were created, modified, or deleted \
         between the time the first chunk was returned and now may show up in the list.",
    );
    let mut document = status.to_json();
    document["metadata"]["continue"] = json!(token);
    refusal_json(&status, &document)
}

/// The answer that something was done that leaves no object to show. `revision` is that of the
/// write, so that a client knows how far its cache must come.
pub(crate) fn done(code: StatusCode, revision: api::Revision, details: Option<Value>) -> Answer {
    let mut document = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Success",
        "metadata": {"resourceVersion": revision.to_string()},
    });
    match details {
        Some(details) => document["details"] = details,
        None => document["code"] = json!(code.as_u16()),
    }
    json(code, document.to_string())
}

/// Adds a warning for people, which kubectl prints.
pub(crate) fn warn(answer: &mut Answer, warning: &str) {
    let text: String = warning
        .chars()
        .filter(|c| !c.is_control())
        .flat_map(|c| match c {
            '"' | '\\' => vec!['\\', c],
            _ => vec![c],
        })
        .collect();
    if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{text}\"").as_bytes()) {
        answer.headers_mut().append(header::WARNING, value);
    }
}

/// Too many requests at a time.
pub(crate) fn overloaded() -> Status {
    Status {
        retry_after_seconds: 1,
        ..Status::new(Reason::TooManyRequests, "Too many requests, please try again later.")
    }
}
