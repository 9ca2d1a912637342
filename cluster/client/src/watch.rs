//! List and watch of one kind, kept going whatever happens to servers and connections.

use std::time::Duration;

use api::{ApiError, Key, Kind, Object, Reason, Revision, Status, codec};
use bytes::{Bytes, BytesMut};
use http::Method;
use http_body_util::BodyExt;
use machine::{Backoff, WatchEvent};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use crate::rest::{List, collection_path};
use crate::{Client, SendError};

/// What to watch.
#[derive(Clone, Debug)]
pub struct WatchSpec {
    /// The kind.
    pub kind: Kind,
    /// One namespace; all when empty.
    pub namespace: String,
    /// Field selector, empty for none.
    pub field_selector: String,
    /// Label selector, empty for none.
    pub label_selector: String,
}

impl WatchSpec {
    /// All objects of a kind.
    pub const fn all(kind: Kind) -> Self {
        Self {
            kind,
            namespace: String::new(),
            field_selector: String::new(),
            label_selector: String::new(),
        }
    }

    /// The objects of a kind that match a field selector.
    pub fn fields(kind: Kind, selector: &str) -> Self {
        Self { field_selector: selector.to_owned(), ..Self::all(kind) }
    }
}

/// From the first failed attempt to the tenth and later.
const BACKOFF: Backoff =
    Backoff { first: Duration::from_millis(100), max: Duration::from_secs(10) };
/// Objects of one page of a list.
const PAGE: usize = 5_000;
/// Servers end watches at a random time after this many seconds, so that load spreads.
const WATCH_SECONDS: u32 = 1_800;
/// A single object is never larger: etcd refuses more than 1.5 MB.
const LINE_MAX: usize = 8 << 20;

/// Lists and watches until the receiver is dropped. The first event is the complete list.
pub async fn watch(client: Client, spec: WatchSpec, sink: mpsc::Sender<WatchEvent>) {
    let mut failures = 0_u32;
    let mut from: Option<Revision> = None;
    while !sink.is_closed() {
        let result = match from {
            None => list(&client, &spec, &sink).await.map(Some),
            Some(revision) => follow(&client, &spec, revision, &sink).await,
        };
        match result {
            Ok(revision) => {
                failures = 0;
                from = revision;
            }
            Err(error) => {
                if error.code() == Some(410) {
                    from = None;
                }
                failures = failures.saturating_add(1);
                let delay = BACKOFF.delay(failures);
                tracing::debug!(kind = %spec.kind, %error, ?delay, "watch interrupted");
                tokio::select! {
                    () = tokio::time::sleep(delay) => {}
                    () = sink.closed() => return,
                }
            }
        }
    }
}

fn query(spec: &WatchSpec) -> String {
    let mut query = String::new();
    for (name, value) in
        [("fieldSelector", &spec.field_selector), ("labelSelector", &spec.label_selector)]
    {
        if !value.is_empty() {
            query.push_str(&format!("&{name}={}", escape(value)));
        }
    }
    query
}

/// Percent-encodes what may not stand in a query.
pub fn escape(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, b| {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                out.push(char::from(b));
            }
            _ => out.push_str(&format!("%{b:02X}")),
        }
        out
    })
}

async fn list(
    client: &Client,
    spec: &WatchSpec,
    sink: &mpsc::Sender<WatchEvent>,
) -> Result<Revision, ApiError> {
    let collection = collection_path(spec.kind, &spec.namespace);
    let mut objects = Vec::new();
    let mut token = String::new();
    loop {
        let mut path = format!("{collection}?limit={PAGE}{}", query(spec));
        if !token.is_empty() {
            path.push_str(&format!("&continue={}", escape(&token)));
        }
        let body = match client.call(Method::GET, &path, "", Bytes::new()).await {
            Ok((200, body)) => body,
            Ok((code, body)) => return Err(Status::from_json(code, &body).into()),
            Err(error) => return Err(ApiError::Unreachable(error.to_string())),
        };
        let malformed = |error: &dyn std::fmt::Display| ApiError::Unknown(error.to_string());
        let page: List<'_> = serde_json::from_slice(&body).map_err(|e| malformed(&e))?;
        for item in &page.items {
            objects.push(decode_item(spec.kind, item).map_err(|e| malformed(&e))?);
        }
        let Some(revision) = Revision::parse(&page.metadata.resource_version) else {
            return Err(ApiError::Unknown("a list without a revision".into()));
        };
        if page.metadata.continue_.is_empty() {
            let event = WatchEvent::Replaced { kind: spec.kind, objects, revision };
            let _ = sink.send(event).await;
            return Ok(revision);
        }
        token = page.metadata.continue_;
    }
}

fn decode_item(kind: Kind, item: &RawValue) -> Result<Object, codec::DecodeError> {
    Ok(codec::decode(kind, item.get().as_bytes())?.0)
}

#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(rename = "type")]
    type_: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

/// Watches from a revision on until the server ends the watch. Returns the last revision seen.
async fn follow(
    client: &Client,
    spec: &WatchSpec,
    from: Revision,
    sink: &mpsc::Sender<WatchEvent>,
) -> Result<Option<Revision>, ApiError> {
    let path = format!(
        "{}?watch=true&allowWatchBookmarks=true&resourceVersion={from}&timeoutSeconds={}{}",
        collection_path(spec.kind, &spec.namespace),
        WATCH_SECONDS,
        query(spec)
    );
    let unreachable = |error: SendError| ApiError::Unreachable(error.to_string());
    let response = client
        .send(Method::GET, &path, "", "application/json", Bytes::new())
        .await
        .map_err(unreachable)?;
    let code = response.status().as_u16();
    let mut body = response.into_body();
    if code != 200 {
        let bytes = body.collect().await.map(http_body_util::Collected::to_bytes);
        return Err(Status::from_json(code, &bytes.unwrap_or_default()).into());
    }
    let mut last = from;
    let mut buffer = BytesMut::new();
    loop {
        let frame = tokio::select! {
            frame = body.frame() => frame,
            () = sink.closed() => return Ok(Some(last)),
        };
        let Some(frame) = frame else { return Ok(Some(last)) };
        let data = match frame.map(hyper::body::Frame::into_data) {
            Ok(Ok(data)) => data,
            Ok(Err(_)) => continue,
            // What was delivered counts; go on from there.
            Err(error) => {
                tracing::debug!(kind = %spec.kind, %error, "watch broke off");
                return Ok(Some(last));
            }
        };
        buffer.extend_from_slice(&data);
        while let Some(end) = buffer.iter().position(|b| *b == b'\n') {
            let line = buffer.split_to(end + 1);
            if let Some(event) = event_of(spec.kind, &line)? {
                last = last.max(revision_of(&event));
                if sink.send(event).await.is_err() {
                    return Ok(Some(last));
                }
            }
        }
        if buffer.len() > LINE_MAX {
            return Err(ApiError::Unknown(format!("a watch event of over {LINE_MAX} bytes")));
        }
    }
}

fn revision_of(event: &WatchEvent) -> Revision {
    match event {
        WatchEvent::Changed(object) => object.revision(),
        WatchEvent::Deleted { revision, .. }
        | WatchEvent::Replaced { revision, .. }
        | WatchEvent::Renewing { revision, .. }
        | WatchEvent::Progress { revision, .. } => *revision,
    }
}

fn event_of(kind: Kind, line: &[u8]) -> Result<Option<WatchEvent>, ApiError> {
    let malformed = |error: &dyn std::fmt::Display| ApiError::Unknown(error.to_string());
    if line.trim_ascii().is_empty() {
        return Ok(None);
    }
    let frame: Frame<'_> = serde_json::from_slice(line).map_err(|e| malformed(&e))?;
    if frame.type_ == "ERROR" {
        let status = Status::from_json(500, frame.object.get().as_bytes());
        // The code of the watch's answer was 200; the one inside counts.
        let code = if matches!(status.reason, Reason::Expired | Reason::Gone) { 410 } else { 500 };
        return Err(Status { code, ..status }.into());
    }
    let object = decode_item(kind, frame.object).map_err(|e| malformed(&e))?;
    let revision = object.revision();
    Ok(Some(match frame.type_ {
        "ADDED" | "MODIFIED" => WatchEvent::Changed(object),
        "DELETED" => {
            let key: Key = object.key();
            WatchEvent::Deleted { key, revision }
        }
        "BOOKMARK" => WatchEvent::Progress { kind, revision },
        other => return Err(ApiError::Unknown(format!("a watch event of type {other:?}"))),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_become_events() {
        let pod = |rv: u64| {
            format!(
                r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"a","namespace":"d","resourceVersion":"{rv}"}}}}"#
            )
        };
        let frame = |type_: &str, object: &str| {
            event_of(Kind::Pod, format!(r#"{{"type":"{type_}","object":{object}}}"#).as_bytes())
        };
        let Ok(Some(WatchEvent::Changed(object))) = frame("ADDED", &pod(3)) else { panic!() };
        assert_eq!(object.revision(), Revision(3));
        assert_eq!(
            frame("DELETED", &pod(4)).unwrap(),
            Some(WatchEvent::Deleted { key: Key::new(Kind::Pod, "d", "a"), revision: Revision(4) })
        );
        assert_eq!(
            frame("BOOKMARK", &pod(5)).unwrap(),
            Some(WatchEvent::Progress { kind: Kind::Pod, revision: Revision(5) })
        );
        let expired = r#"{"kind":"Status","code":410,"reason":"Expired","message":"too old"}"#;
        assert_eq!(frame("ERROR", expired).unwrap_err().code(), Some(410));
        assert!(event_of(Kind::Pod, b"\n").unwrap().is_none());
        assert!(event_of(Kind::Pod, b"{").is_err());
    }

    #[test]
    fn selectors_are_escaped() {
        let spec = WatchSpec::fields(Kind::Pod, "spec.nodeName=a b");
        assert_eq!(query(&spec), "&fieldSelector=spec.nodeName%3Da%20b");
    }
}
