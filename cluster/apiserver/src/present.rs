//! Objects and lists in the form the client asked for.

use std::sync::Arc;

use api::{Kind, Object, Revision, Status, codec};
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use registry::window::Entry;
use registry::{table, versions};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::answer::{self, Answer};
use crate::negotiate::Form;
use crate::server::now;

/// A chunk of a list that is streamed.
const CHUNK_BYTES: usize = 64 << 10;
/// Lists up to this size are sent as one piece, with their length.
const WHOLE_BYTES_MAX: usize = 256 << 10;

/// The JSON of a stored object in that version of its kind.
fn in_version(kind: Kind, json: Bytes) -> Result<Bytes, Status> {
    if kind.stored_as() == kind {
        return Ok(json);
    }
    let object = versions::of_stored(kind, &decode(kind.stored_as(), &json)?);
    Ok(codec::encode(&object).into())
}

/// One object, in that version of its kind.
///
/// # Errors
/// The object cannot be shown in that form.
pub(crate) fn object(
    form: Form,
    code: StatusCode,
    kind: Kind,
    json: Bytes,
) -> Result<Answer, Status> {
    let body = match form {
        Form::Object => in_version(kind, json)?,
        Form::Metadata => metadata_only(&json)?,
        Form::Table(include) => {
            let object = decode(kind.stored_as(), &json)?;
            let meta = table::ListMeta {
                resource_version: object.meta().resource_version.clone().unwrap_or_default(),
                ..table::ListMeta::default()
            };
            table::table(kind, [&object], now(), include, &meta).into()
        }
    };
    Ok(answer::json(code, body))
}

/// The part of a list that describes it.
pub(crate) struct ListMeta {
    pub(crate) revision: Revision,
    pub(crate) next: Option<String>,
    pub(crate) remaining: Option<usize>,
}

impl ListMeta {
    fn json(&self) -> String {
        let mut meta = format!(r#"{{"resourceVersion":"{}""#, self.revision);
        if let Some(next) = &self.next {
            meta.push_str(&format!(r#","continue":"{next}""#));
        }
        if let Some(remaining) = self.remaining {
            meta.push_str(&format!(r#","remainingItemCount":{remaining}"#));
        }
        meta.push('}');
        meta
    }
}

/// A list.
///
/// # Errors
/// An object cannot be shown in that form.
pub(crate) fn list(
    form: Form,
    kind: Kind,
    meta: &ListMeta,
    entries: Vec<Arc<Entry>>,
) -> Result<Answer, Status> {
    if let Form::Table(include) = form {
        let objects: Result<Vec<_>, _> = entries.iter().map(|e| e.object()).collect();
        let objects = objects.map_err(Status::internal)?;
        let meta = table::ListMeta {
            resource_version: meta.revision.to_string(),
            continue_token: meta.next.clone().unwrap_or_default(),
            remaining_item_count: meta.remaining.and_then(|n| u64::try_from(n).ok()),
        };
        let body = table::table(kind, &objects, now(), include, &meta);
        return Ok(answer::json(StatusCode::OK, body));
    }
    let (list_kind, api_version) = match form {
        Form::Metadata => ("PartialObjectMetadataList".to_owned(), "meta.k8s.io/v1"),
        _ => (format!("{kind}List"), kind.api_version()),
    };
    let head = format!(
        r#"{{"kind":"{list_kind}","apiVersion":"{api_version}","metadata":{},"items":["#,
        meta.json()
    );
    let item = move |entry: &Entry| match form {
        Form::Metadata => metadata_only(&entry.json()).unwrap_or_else(|_| entry.json()),
        _ => in_version(kind, entry.json()).unwrap_or_else(|_| entry.json()),
    };
    let size: usize = entries.iter().map(|e| e.json().len()).sum();
    if size <= WHOLE_BYTES_MAX {
        let mut body = BytesMut::with_capacity(head.len() + size + entries.len() + 3);
        body.extend_from_slice(head.as_bytes());
        for (i, entry) in entries.iter().enumerate() {
            body.extend_from_slice(if i > 0 { b"," } else { b"" });
            body.extend_from_slice(&item(entry));
        }
        body.extend_from_slice(b"]}\n");
        return Ok(answer::json(StatusCode::OK, body.freeze()));
    }
    let chunks = chunks(head, entries, item);
    Ok(answer::answer(
        StatusCode::OK,
        "application/json",
        answer::streamed(futures::stream::iter(chunks)),
    ))
}

/// A list in pieces that are made when they are sent.
fn chunks(
    head: String,
    entries: Vec<Arc<Entry>>,
    item: impl Fn(&Entry) -> Bytes,
) -> impl Iterator<Item = Bytes> {
    let mut entries = entries.into_iter().peekable();
    let mut head = Some(head);
    let mut first = true;
    let mut ended = false;
    std::iter::from_fn(move || {
        if ended {
            return None;
        }
        let mut chunk = BytesMut::with_capacity(CHUNK_BYTES + 4096);
        if let Some(head) = head.take() {
            chunk.extend_from_slice(head.as_bytes());
        }
        while chunk.len() < CHUNK_BYTES
            && let Some(entry) = entries.next()
        {
            chunk.extend_from_slice(if first { b"" } else { b"," });
            first = false;
            chunk.extend_from_slice(&item(&entry));
        }
        if entries.peek().is_none() {
            ended = true;
            chunk.extend_from_slice(b"]}\n");
        }
        Some(chunk.freeze())
    })
}

/// An object's metadata alone.
pub(crate) fn metadata_only(json: &[u8]) -> Result<Bytes, Status> {
    #[derive(Deserialize)]
    struct Meta<'a> {
        #[serde(borrow)]
        metadata: &'a RawValue,
    }
    let meta: Meta<'_> = serde_json::from_slice(json).map_err(Status::internal)?;
    Ok(Bytes::from(format!(
        r#"{{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{}}}"#,
        meta.metadata.get()
    )))
}

/// The object of a watch event.
pub(crate) fn watched(form: Form, kind: Kind, json: &Bytes, first: bool) -> Bytes {
    let shown = match form {
        Form::Object => in_version(kind, json.clone()),
        Form::Metadata => metadata_only(json),
        Form::Table(include) => decode(kind.stored_as(), json)
            .map(|object| table::watch_table(&object, now(), include, first).into()),
    };
    shown.unwrap_or_else(|_| json.clone())
}

fn decode(kind: Kind, json: &[u8]) -> Result<Object, Status> {
    codec::decode(kind, json).map(|(object, _)| object).map_err(Status::internal)
}
