//! One object as it is served.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use api::{Key, Kind, Object, Revision, codec};
use bytes::Bytes;

use super::cursor::EventType;
use super::fields::{self, Peek};

/// Where objects live in the store.
pub const PREFIX: &str = "/registry/";

/// The key under which an object is stored: `/registry/deployments.apps/default/web`.
pub fn store_key(key: &Key) -> Arc<str> {
    let info = key.kind.info();
    let dot = if info.group.is_empty() { "" } else { "." };
    let slash = if key.namespace.is_empty() { "" } else { "/" };
    [PREFIX, info.plural, dot, info.group, "/", &key.namespace, slash, &key.name].concat().into()
}

/// The kind and the `namespace/name` (or name) of a key in the store; `None` when it is no
/// object's.
pub fn parse_store_key(key: &str) -> Option<(Kind, &str)> {
    let (resource, path) = key.strip_prefix(PREFIX)?.split_once('/')?;
    let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
    let kind = Kind::stored().find(|k| k.plural() == plural && k.info().group == group)?;
    let parts = path.split('/').count();
    (!path.is_empty() && parts == 1 + usize::from(kind.namespaced())).then_some((kind, path))
}

/// An object as it is served, with what selectors ask of it.
#[derive(Debug)]
pub struct Entry {
    path: Arc<str>,
    /// A whole watch event, of type `ADDED` or `MODIFIED`; the object is a part of it.
    frame: Bytes,
    event: EventType,
    kind: Kind,
    revision: Revision,
    pub(super) labels: Option<BTreeMap<String, String>>,
    /// Values of [`fields::names`], in that order.
    pub(super) fields: Box<[Box<str>]>,
    /// Filled at first use, of kinds that every write consults.
    decoded: OnceLock<Object>,
}

impl Entry {
    /// Reads a stored value.
    ///
    /// # Errors
    /// It is no object of the kind.
    pub(super) fn new(
        kind: Kind,
        path: &str,
        value: &Bytes,
        revision: Revision,
        fresh: bool,
    ) -> Result<Self, String> {
        let head = head(kind);
        let mut peek = Peek::of(value)?;
        let canonical;
        let mut value: &[u8] = value;
        if !value.starts_with(head.as_bytes()) || peek.metadata.resource_version.is_some() {
            let (object, _) = codec::decode(kind, value).map_err(|e| e.to_string())?;
            canonical = super::stored_bytes(&object);
            value = &canonical;
        }
        let event = if fresh { EventType::Added } else { EventType::Modified };
        let mut frame = Vec::with_capacity(value.len() + 80);
        event.open(&mut frame);
        splice(&mut frame, value, head.len(), revision);
        frame.extend_from_slice(EventType::CLOSE);
        Ok(Self {
            path: Arc::from(path),
            frame: Bytes::from(frame),
            event,
            kind,
            revision,
            labels: peek.metadata.labels.take(),
            fields: fields::values(kind, &peek),
            decoded: OnceLock::new(),
        })
    }

    /// `namespace/name`, or the name.
    pub const fn path(&self) -> &Arc<str> {
        &self.path
    }

    /// The namespace, empty for cluster-scoped objects.
    pub fn namespace(&self) -> &str {
        self.path.split_once('/').map_or("", |(namespace, _)| namespace)
    }

    /// The name.
    pub fn name(&self) -> &str {
        self.path.split_once('/').map_or(&self.path, |(_, name)| name)
    }

    /// The revision of the object's last write.
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// The kind of the object.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The JSON that is served.
    pub fn json(&self) -> Bytes {
        self.event.object_of(&self.frame)
    }

    /// The decoded object.
    ///
    /// # Errors
    /// Fields have other types than the kind demands.
    pub fn object(&self) -> Result<Object, codec::DecodeError> {
        if let Some(object) = self.decoded.get() {
            return Ok(object.clone());
        }
        let (object, _) = codec::decode(self.kind, &self.json())?;
        if consulted_by_every_write(self.kind) {
            let _ = self.decoded.set(object.clone());
        }
        Ok(object)
    }

    /// Approximate size in memory, in bytes.
    pub(super) fn size(&self) -> usize {
        let labels = self.labels.iter().flatten().map(|(k, v)| k.len() + v.len() + 48);
        self.frame.len() + labels.sum::<usize>() + 160
    }

    /// The watch event of this state with the type `event`, at the object's own revision.
    pub(super) fn frame(&self, event: EventType) -> Bytes {
        if event == self.event {
            return self.frame.clone();
        }
        self.frame_as(self.kind, event, self.revision)
    }

    /// The watch event of this state with the type `event`, as of another revision.
    pub(super) fn frame_as(&self, kind: Kind, event: EventType, revision: Revision) -> Bytes {
        let json = self.json();
        let mut frame = Vec::with_capacity(json.len() + 40);
        event.open(&mut frame);
        respliced(&mut frame, &json, kind, revision);
        frame.extend_from_slice(EventType::CLOSE);
        Bytes::from(frame)
    }
}

/// Kinds so small and so often asked for that their decoded form is kept.
const fn consulted_by_every_write(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Namespace
            | Kind::ServiceAccount
            | Kind::PriorityClass
            | Kind::ResourceQuota
            | Kind::LimitRange
            | Kind::Service
            | Kind::Role
            | Kind::RoleBinding
            | Kind::ClusterRole
            | Kind::ClusterRoleBinding
    )
}

/// What the JSON of an object of the kind starts with.
fn head(kind: Kind) -> String {
    format!(r#"{{"apiVersion":"{}","kind":"{}","metadata":{{"#, kind.api_version(), kind.name())
}

/// Writes `value` with the revision as the first field of its metadata.
fn splice(out: &mut Vec<u8>, value: &[u8], head: usize, revision: Revision) {
    out.extend_from_slice(&value[..head]);
    out.extend_from_slice(format!(r#""resourceVersion":"{revision}""#).as_bytes());
    if value.get(head) != Some(&b'}') {
        out.push(b',');
    }
    out.extend_from_slice(&value[head..]);
}

/// Writes JSON that [`splice`] made, with another revision.
fn respliced(out: &mut Vec<u8>, json: &[u8], kind: Kind, revision: Revision) {
    const FIELD: &str = r#""resourceVersion":""#;
    let head = head(kind).len();
    let digits = head + FIELD.len();
    let end = json[digits..].iter().position(|b| *b == b'"').unwrap_or(0);
    out.extend_from_slice(&json[..digits]);
    out.extend_from_slice(revision.to_string().as_bytes());
    out.extend_from_slice(&json[digits + end..]);
}

/// The JSON that is served of an object stored at `revision` as `value` (canonical JSON of the
/// kind, without a `resourceVersion`).
pub fn with_revision(kind: Kind, value: &[u8], revision: Revision) -> Bytes {
    let head = head(kind);
    debug_assert!(value.starts_with(head.as_bytes()), "stored JSON is canonical");
    let mut out = Vec::with_capacity(value.len() + 40);
    splice(&mut out, value, head.len(), revision);
    Bytes::from(out)
}
