//! [`api::Request`] as REST calls.

use api::{
    ApiError, Key, Kind, PatchKind, Propagation, Reply, Request, Revision, Status, Subresource,
    codec,
};
use bytes::Bytes;
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::watch::escape;
use crate::{Client, SendError};

/// The path of a kind's collection, in a namespace unless it is empty.
pub fn collection_path(kind: Kind, namespace: &str) -> String {
    let info = kind.info();
    let root = if info.group.is_empty() { "/api" } else { "/apis" };
    let version = info.api_version;
    if kind.namespaced() && !namespace.is_empty() {
        format!("{root}/{version}/namespaces/{namespace}/{}", info.plural)
    } else {
        format!("{root}/{version}/{}", info.plural)
    }
}

/// The path of an object, or of one of its subresources.
pub fn object_path(key: &Key, subresource: Option<&str>) -> String {
    let collection = collection_path(key.kind, &key.namespace);
    match subresource {
        Some(sub) => format!("{collection}/{}/{sub}", key.name),
        None => format!("{collection}/{}", key.name),
    }
}

impl Client {
    /// Carries out one request.
    ///
    /// # Errors
    /// The API refused, could not be reached, or its answer was lost.
    pub async fn request(&self, request: Request) -> Result<Reply, ApiError> {
        match request {
            Request::Create(object) => {
                let key = object.key();
                let path = collection_path(key.kind, &key.namespace);
                self.object(key.kind, Method::POST, &path, JSON, codec::encode(&object)).await
            }
            Request::Update { object, subresource } => {
                let key = object.key();
                let path = object_path(&key, subresource.map(Subresource::path));
                self.object(key.kind, Method::PUT, &path, JSON, codec::encode(&object)).await
            }
            Request::Patch { key, subresource, patch } => {
                let path = object_path(&key, subresource.map(Subresource::path));
                let content_type = match patch.kind {
                    PatchKind::Json => "application/json-patch+json",
                    PatchKind::Merge => "application/merge-patch+json",
                    PatchKind::Strategic => "application/strategic-merge-patch+json",
                };
                let body = patch.body.json().to_string();
                if subresource == Some(Subresource::Scale) {
                    // The answer is a `Scale`, with the revision of what is scaled.
                    let answer = self.json(Method::PATCH, &path, content_type, body).await?;
                    return Ok(Reply::Done(revision_of(&answer).unwrap_or_default()));
                }
                self.object(key.kind, Method::PATCH, &path, content_type, body.into_bytes()).await
            }
            Request::Delete { key, uid, revision, grace_seconds, propagation } => {
                let options = delete_options(uid, revision, grace_seconds, propagation);
                self.delete(&key, &options).await
            }
            Request::Bind { pod, uid, node } => {
                let body = json!({
                    "apiVersion": "v1", "kind": "Binding",
                    "metadata": {"name": pod.name, "namespace": pod.namespace, "uid": uid},
                    "target": {"apiVersion": "v1", "kind": "Node", "name": node},
                });
                let path = object_path(&pod, Some("binding"));
                let answer = self.json(Method::POST, &path, JSON, body.to_string()).await?;
                Ok(Reply::Done(revision_of(&answer).unwrap_or_default()))
            }
            Request::Get(key) => {
                self.object(key.kind, Method::GET, &object_path(&key, None), "", Vec::new()).await
            }
            Request::List { kind, namespace, selector } => {
                self.list(kind, &namespace, &selector).await
            }
            Request::ReadRevision(kind) => {
                let path = format!("{}?limit=1", collection_path(kind, ""));
                let answer = self.json(Method::GET, &path, "", String::new()).await?;
                let revision = revision_of(&answer)
                    .ok_or_else(|| ApiError::Unknown("a list without a revision".into()))?;
                Ok(Reply::Done(revision))
            }
            Request::Sign(key) => {
                Err(Status::bad_request(format!("{key} must be signed by who holds the key"))
                    .into())
            }
            Request::Extend { extender, .. } => {
                let why = format!("extender {extender} must be asked by who knows where it is");
                Err(Status::bad_request(why).into())
            }
        }
    }

    /// Sends a JSON document and returns the answer's.
    ///
    /// # Errors
    /// As [`Client::request`].
    pub async fn json(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: String,
    ) -> Result<Value, ApiError> {
        let bytes = self.bytes(method, path, content_type, body.into_bytes()).await?;
        serde_json::from_slice(&bytes).map_err(|error| ApiError::Unknown(error.to_string()))
    }

    async fn object(
        &self,
        kind: Kind,
        method: Method,
        path: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> Result<Reply, ApiError> {
        let bytes = self.bytes(method, path, content_type, body).await?;
        match codec::decode(kind, &bytes) {
            Ok((object, _)) => Ok(Reply::Object(object)),
            Err(error) => Err(ApiError::Unknown(error.to_string())),
        }
    }

    async fn list(&self, kind: Kind, namespace: &str, selector: &str) -> Result<Reply, ApiError> {
        let mut path = collection_path(kind, namespace);
        if !selector.is_empty() {
            path.push_str(&format!("?labelSelector={}", escape(selector)));
        }
        let bytes = self.bytes(Method::GET, &path, "", Vec::new()).await?;
        let unreadable = |error: &dyn std::fmt::Display| ApiError::Unknown(error.to_string());
        let list: List<'_> = serde_json::from_slice(&bytes).map_err(|e| unreadable(&e))?;
        let objects = list.items.iter().map(|item| {
            let decoded = codec::decode(kind, item.get().as_bytes());
            decoded.map(|(object, _)| object).map_err(|e| unreadable(&e))
        });
        Ok(Reply::Objects(objects.collect::<Result<_, _>>()?))
    }

    async fn delete(&self, key: &Key, options: &Value) -> Result<Reply, ApiError> {
        let path = object_path(key, None);
        let answer = self.json(Method::DELETE, &path, JSON, options.to_string()).await?;
        match revision_of(&answer) {
            Some(revision) => Ok(Reply::Done(revision)),
            // The answer does not say when the object went: ask how far the store is by now.
            None => {
                let read = Box::pin(self.request(Request::ReadRevision(key.kind))).await;
                read.map_err(|error| ApiError::Unknown(error.to_string()))
            }
        }
    }

    async fn bytes(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> Result<Bytes, ApiError> {
        let read = method == Method::GET;
        match self.call(method, path, content_type, Bytes::from(body)).await {
            Ok((200..300, body)) => Ok(body),
            Ok((code, body)) => {
                if code >= 500 {
                    // Another server may be better connected.
                    self.fail_over().await;
                }
                Err(Status::from_json(code, &body).into())
            }
            Err(SendError::Lost(error)) if !read => Err(ApiError::Unknown(error)),
            Err(error) => Err(ApiError::Unreachable(error.to_string())),
        }
    }
}

const JSON: &str = "application/json";

fn delete_options(
    uid: Option<String>,
    revision: Option<Revision>,
    grace_seconds: Option<i64>,
    propagation: Option<Propagation>,
) -> Value {
    let mut options = json!({"apiVersion": "v1", "kind": "DeleteOptions"});
    if let Some(uid) = uid {
        options["preconditions"]["uid"] = json!(uid);
    }
    if let Some(revision) = revision {
        options["preconditions"]["resourceVersion"] = json!(revision.to_string());
    }
    if let Some(seconds) = grace_seconds {
        options["gracePeriodSeconds"] = json!(seconds);
    }
    if let Some(propagation) = propagation {
        options["propagationPolicy"] = json!(match propagation {
            Propagation::Background => "Background",
            Propagation::Foreground => "Foreground",
            Propagation::Orphan => "Orphan",
        });
    }
    options
}

fn revision_of(answer: &Value) -> Option<Revision> {
    Revision::parse(answer["metadata"]["resourceVersion"].as_str()?)
}

/// The parts of a list that a client needs; items stay bytes until their type is known.
#[derive(Deserialize)]
pub(crate) struct List<'a> {
    pub(crate) metadata: ListMeta,
    #[serde(borrow, default)]
    pub(crate) items: Vec<&'a serde_json::value::RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ListMeta {
    #[serde(default)]
    pub(crate) resource_version: String,
    #[serde(default, rename = "continue")]
    pub(crate) continue_: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let check = |key: Key, sub, path: &str| assert_eq!(object_path(&key, sub), path);
        check(Key::new(Kind::Pod, "d", "a"), None, "/api/v1/namespaces/d/pods/a");
        check(Key::cluster(Kind::Node, "n"), Some("status"), "/api/v1/nodes/n/status");
        check(
            Key::new(Kind::Deployment, "d", "a"),
            Some("scale"),
            "/apis/apps/v1/namespaces/d/deployments/a/scale",
        );
        assert_eq!(collection_path(Kind::Pod, ""), "/api/v1/pods");
    }

    #[test]
    fn delete_options_hold_what_was_asked() {
        let options = delete_options(
            Some("u".into()),
            Some(Revision(7)),
            Some(0),
            Some(Propagation::Foreground),
        );
        assert_eq!(
            options,
            json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0,
                "preconditions": {"uid": "u", "resourceVersion": "7"},
                "propagationPolicy": "Foreground"})
        );
    }
}
