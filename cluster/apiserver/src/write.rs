//! Writes: read, decide, compare-and-swap, and again when somebody else was faster.

use std::time::Duration;

use api::{Key, Kind, Object, Patch, PatchKind, Reason, Revision, Status, Subresource, codec};
use bytes::Bytes;
use futures::TryStreamExt;
use http::{HeaderMap, StatusCode};
use k8s_openapi::api::core::v1::Binding;
use registry::operation::in_namespace;
use registry::window::{PageRequest, store_key, stored_bytes, with_revision};
use registry::{Caller, Claims, DeleteOptions, Mutation, Operation, PodBinding};
use serde_json::json;
use store::{Beside, Commit, CommitError, Record};

use crate::answer::{self, Answer};
use crate::body::{self, Decoded};
use crate::negotiate::{self, Form};
use crate::present::{self, ListMeta};
use crate::query::{FieldValidation, Query};
use crate::route::{Resource, not_allowed};
use crate::server::{Server, stamp};

/// How often a write is tried again because somebody else wrote the object or took an address.
const ATTEMPTS_MAX: u32 = 16;
/// How long an object that was just created elsewhere may take to become visible to admission.
const ADMISSION_WAITS: u32 = 10;
const ADMISSION_WAIT: Duration = Duration::from_millis(100);

/// How many objects of a collection are deleted at a time.
const DELETIONS_AT_A_TIME: usize = 8;

/// A write as it was asked for.
pub(crate) struct Asked<'a> {
    pub(crate) server: &'a Server,
    pub(crate) caller: &'a Caller,
    pub(crate) dry_run: bool,
}

/// What a write has left behind.
pub(crate) struct Written {
    /// The object after the write, or its last state.
    pub(crate) object: Object,
    /// Its JSON.
    pub(crate) json: Bytes,
    /// The revision of the write.
    pub(crate) revision: Revision,
    /// Whether the object is gone.
    pub(crate) removed: bool,
}

/// What an object is before a write.
enum Current {
    /// The watch cache's word, which may be out of date.
    Cached(Option<Object>),
    /// The store's word.
    Read(Option<Object>),
}

impl Current {
    const fn object(&self) -> Option<&Object> {
        match self {
            Self::Cached(object) | Self::Read(object) => object.as_ref(),
        }
    }
}

impl Asked<'_> {
    /// Carries out one write.
    pub(crate) async fn carry_out(&self, operation: &Operation) -> Result<Written, Status> {
        if !self.server.hub.is_filled() {
            return Err(crate::hub::unavailable("the server is starting"));
        }
        let creates = matches!(operation, Operation::Create { .. });
        let mut current = self.cached(operation);
        let mut waits = 0;
        let mut turn = None;
        for _ in 0..ATTEMPTS_MAX {
            let mutation = match self.admit(operation, current.object()) {
                Ok(mutation) => mutation,
                Err(status) => {
                    if !self.look_again(&status, &mut current, operation, &mut waits).await? {
                        return Err(status);
                    }
                    continue;
                }
            };
            if let (Mutation::Unchanged(_), Current::Cached(_)) = (&mutation, &current) {
                current = self.read(operation).await?;
                continue;
            }
            let expected = current.object().map_or(Revision(0), Object::revision);
            match self.commit(mutation, expected).await {
                Ok(written) => return Ok(written),
                Err(CommitError::Conflict(found)) if creates => {
                    let generated = operation.key().is_none();
                    if !generated {
                        let key = operation.key().unwrap_or_else(|| key_of_record(found.as_ref()));
                        return Err(Status::already_exists(key.kind, &key.name));
                    }
                }
                Err(CommitError::Conflict(found)) => {
                    current = Current::Read(decode(operation.kind(), found)?);
                }
                Err(CommitError::Moved) => {
                    // Many are charged at once: from now on one at a time here, and each sees what
                    // the one before was charged.
                    if turn.is_none() {
                        turn = Some(self.server.charging.lock().await);
                    }
                    self.server.hub.barrier().await?;
                }
                Err(CommitError::Taken(_)) => {
                    // The view that chose it lags: let it catch up before it chooses again.
                    self.server.hub.barrier().await?;
                }
                Err(error) => return Err(refused(error)),
            }
        }
        let name = operation.key().map(|k| k.name.to_string()).unwrap_or_default();
        Err(Status::modified(operation.kind(), &name))
    }

    fn cached(&self, operation: &Operation) -> Current {
        if matches!(operation, Operation::Create { .. }) {
            return Current::Read(None);
        }
        let key = operation.key();
        let state = self.server.hub.read();
        let entry = key.and_then(|key| state.window.get(&key));
        Current::Cached(entry.and_then(|e| e.object().ok()))
    }

    async fn read(&self, operation: &Operation) -> Result<Current, Status> {
        let Some(key) = operation.key() else { return Ok(Current::Read(None)) };
        Ok(Current::Read(stored(self.server, &key).await?))
    }

    fn admit(&self, operation: &Operation, current: Option<&Object>) -> Result<Mutation, Status> {
        let state = self.server.hub.read();
        let options = &self.server.config.admission;
        registry::admit(operation, current, &state.window, self.caller, options, stamp())
    }

    /// After a refusal: whether it may rest on something out of date, and is to be tried again.
    async fn look_again(
        &self,
        status: &Status,
        current: &mut Current,
        operation: &Operation,
        waits: &mut u32,
    ) -> Result<bool, Status> {
        if matches!(current, Current::Cached(_)) {
            *current = self.read(operation).await?;
            return Ok(true);
        }
        if !matches!(operation, Operation::Create { .. }) {
            return Ok(false);
        }
        // A namespace may just have been made; its account follows in a moment.
        let account = status.message.contains("error looking up service account");
        let limit = if account { ADMISSION_WAITS } else { 1 };
        let depends = matches!(status.reason, Reason::NotFound | Reason::Forbidden);
        if !depends || *waits >= limit {
            return Ok(false);
        }
        if *waits > 0 {
            tokio::time::sleep(ADMISSION_WAIT).await;
        }
        *waits += 1;
        self.server.hub.barrier().await?;
        Ok(true)
    }

    /// Stores what was decided.
    async fn commit(&self, mutation: Mutation, expected: Revision) -> Result<Written, CommitError> {
        let (object, claims, charges, removed) = match mutation {
            Mutation::Put { object, claims, charges } => (object, claims, charges, false),
            Mutation::Remove { last, claims } => (last, claims, Vec::new(), true),
            Mutation::Unchanged(object) => {
                return Ok(Written {
                    json: Bytes::from(codec::encode(&object)),
                    revision: object.revision(),
                    object,
                    removed: false,
                });
            }
        };
        let value = stored_bytes(&object);
        let revision = if self.dry_run {
            expected
        } else {
            let Claims { take, free } = claims;
            let stored = (!removed).then(|| value.clone());
            let key = store_key(&object.key());
            let beside = |quota: &Object| Beside {
                key: store_key(&quota.key()),
                expected: quota.revision(),
                value: stored_bytes(quota),
            };
            let besides = charges.iter().map(beside).collect();
            let commit = Commit { key, expected, value: stored, take, free, besides };
            self.server.hub.store.commit(commit).await?
        };
        let mut object = object;
        let json = if revision == Revision(0) {
            value
        } else {
            object.meta_mut().resource_version = Some(revision.to_string());
            with_revision(object.kind(), &value, revision)
        };
        Ok(Written { object, json, revision, removed })
    }
}

/// The object as the store has it.
pub(crate) async fn stored(server: &Server, key: &Key) -> Result<Option<Object>, Status> {
    let found = server.hub.store.get(&store_key(key)).await;
    let found = found.map_err(|e| crate::hub::unavailable(&e.to_string()))?;
    decode(key.kind, found)
}

fn decode(kind: Kind, record: Option<Record>) -> Result<Option<Object>, Status> {
    let Some(record) = record else { return Ok(None) };
    let (mut object, _) = codec::decode(kind, &record.value).map_err(Status::internal)?;
    object.meta_mut().resource_version = Some(record.revision.to_string());
    Ok(Some(object))
}

fn key_of_record(record: Option<&Record>) -> Key {
    let key = record.and_then(|r| registry::window::parse_store_key(&r.key));
    key.map_or_else(|| Key::cluster(Kind::Namespace, ""), |(k, p)| crate::hub::key_of(k, p))
}

/// The answer to a write that the store did not carry out.
fn refused(error: CommitError) -> Status {
    match error {
        CommitError::Unknown(why) => {
            Status::new(Reason::Timeout, format!("the outcome of the request is unknown: {why}"))
        }
        other => crate::hub::unavailable(&other.to_string()),
    }
}

/// `create` of an object.
pub(crate) async fn create(
    asked: &Asked<'_>,
    resource: &Resource,
    query: &Query,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Answer, Status> {
    let form = negotiate::form(headers, query)?;
    let validation = query.field_validation()?;
    let Decoded { mut object, warnings } =
        body::object(resource.served, headers, body, validation)?;
    in_namespace(&mut object, &resource.namespace)?;
    let written = asked.carry_out(&Operation::Create { object }).await?;
    let mut answer = present::object(form, StatusCode::CREATED, resource.served, written.json)?;
    warnings.iter().for_each(|w| answer::warn(&mut answer, w));
    Ok(answer)
}

fn subresource(resource: &Resource) -> Result<Option<Subresource>, Status> {
    Ok(Some(match resource.subresource.as_str() {
        "" => return Ok(None),
        "status" => Subresource::Status,
        "scale" => Subresource::Scale,
        "approval" => Subresource::Approval,
        "finalize" => Subresource::Finalize,
        _ => return Err(not_allowed()),
    }))
}

/// `update` of an object or a subresource.
pub(crate) async fn update(
    asked: &Asked<'_>,
    resource: &Resource,
    query: &Query,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Answer, Status> {
    let form = negotiate::form(headers, query)?;
    let validation = query.field_validation()?;
    let subresource = subresource(resource)?;
    let scale = subresource == Some(Subresource::Scale);
    let kind = if scale { Kind::Scale } else { resource.served };
    let Decoded { mut object, warnings } = body::object(kind, headers, body, validation)?;
    in_namespace(&mut object, &resource.namespace)?;
    let key = Key::new(resource.kind, &resource.namespace, &resource.name);
    let named = object.meta().name.clone().unwrap_or_default();
    if named.is_empty() {
        object.meta_mut().name = Some(resource.name.clone());
    } else if named != resource.name {
        return Err(Status::bad_request(format!(
            "the name of the object ({named}) does not match the name on the URL ({})",
            resource.name
        )));
    }
    let written = asked.carry_out(&Operation::Update { key, object, subresource }).await?;
    let mut answer = written_answer(form, resource, scale, &written)?;
    warnings.iter().for_each(|w| answer::warn(&mut answer, w));
    Ok(answer)
}

/// `patch` of an object or a subresource.
pub(crate) async fn patch(
    asked: &Asked<'_>,
    resource: &Resource,
    query: &Query,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Answer, Status> {
    let form = negotiate::form(headers, query)?;
    let kind = match negotiate::content_type(headers).as_str() {
        "application/json-patch+json" => PatchKind::Json,
        "application/merge-patch+json" => PatchKind::Merge,
        "application/strategic-merge-patch+json" => PatchKind::Strategic,
        _ => {
            return Err(negotiate::unsupported(
                "application/json-patch+json, application/merge-patch+json, \
                 application/strategic-merge-patch+json",
            ));
        }
    };
    let document = serde_json::from_slice(body).map_err(|e| Status::bad_request(e.to_string()))?;
    let subresource = subresource(resource)?;
    let operation = Operation::Patch {
        key: Key::new(resource.served, &resource.namespace, &resource.name),
        subresource,
        patch: Patch { kind, body: document },
        strict: query.field_validation()? == FieldValidation::Strict,
    };
    let written = asked.carry_out(&operation).await?;
    written_answer(form, resource, subresource == Some(Subresource::Scale), &written)
}

fn written_answer(
    form: Form,
    resource: &Resource,
    scale: bool,
    written: &Written,
) -> Result<Answer, Status> {
    if scale {
        return scale_answer(StatusCode::OK, &written.object);
    }
    present::object(form, StatusCode::OK, resource.served, written.json.clone())
}

/// The `Scale` of an object.
pub(crate) fn scale_answer(code: StatusCode, object: &Object) -> Result<Answer, Status> {
    use api::ApiObject;
    let scale = registry::scale::of(object).ok_or_else(Status::no_route)?;
    Ok(answer::json(code, codec::encode(&scale.into_object())))
}

/// `delete` of an object.
pub(crate) async fn delete(
    asked: &Asked<'_>,
    resource: &Resource,
    query: &Query,
    headers: &HeaderMap,
    options: DeleteOptions,
) -> Result<Answer, Status> {
    let form = negotiate::form(headers, query)?;
    let key = Key::new(resource.kind, &resource.namespace, &resource.name);
    let written = asked.carry_out(&Operation::Delete { key, options }).await?;
    let shows_object = matches!(resource.kind, Kind::Pod | Kind::Service | Kind::ServiceAccount);
    if written.removed && !shows_object {
        let mut details = json!({
            "name": resource.name, "kind": resource.kind.plural(), "uid": written.object.uid(),
        });
        if !resource.kind.info().group.is_empty() {
            details["group"] = json!(resource.kind.info().group);
        }
        return Ok(answer::done(StatusCode::OK, written.revision, Some(details)));
    }
    present::object(form, StatusCode::OK, resource.served, written.json)
}

/// `deletecollection`.
pub(crate) async fn delete_collection(
    asked: &Asked<'_>,
    resource: &Resource,
    query: &Query,
    headers: &HeaderMap,
    options: DeleteOptions,
) -> Result<Answer, Status> {
    let form = negotiate::form(headers, query)?;
    let filter = query.filter(resource.kind, &resource.namespace)?;
    crate::read::fresh_enough(asked.server, None).await?;
    let listing = {
        let state = asked.server.hub.read();
        let listing = state.window.list(resource.kind, &filter, &PageRequest::default());
        listing.map_err(|e| Status::expired(format!("history ends at {}", e.oldest)))?
    };
    futures::stream::iter(listing.entries.iter().map(Ok))
        .try_for_each_concurrent(DELETIONS_AT_A_TIME, |entry| async {
            let key = Key::new(resource.kind, entry.namespace(), entry.name());
            match asked.carry_out(&Operation::Delete { key, options: options.clone() }).await {
                Ok(_) => Ok(()),
                Err(status) if status.reason == Reason::NotFound => Ok(()),
                Err(status) => Err(status),
            }
        })
        .await?;
    let meta = ListMeta { revision: listing.revision, next: None, remaining: None };
    present::list(form, resource.served, &meta, listing.entries)
}

/// `pods/binding`, and `bindings` itself.
pub(crate) async fn bind(
    asked: &Asked<'_>,
    resource: &Resource,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Answer, Status> {
    let Decoded { mut object, .. } =
        body::object(Kind::Binding, headers, body, FieldValidation::Ignore)?;
    in_namespace(&mut object, &resource.namespace)?;
    let binding: &Binding = object.get().ok_or_else(|| Status::internal("not a binding"))?;
    let meta = &binding.metadata;
    let name = if resource.name.is_empty() {
        meta.name.clone().unwrap_or_default()
    } else {
        resource.name.clone()
    };
    let operation = Operation::Bind {
        pod: Key::new(Kind::Pod, &resource.namespace, &name),
        binding: PodBinding {
            uid: meta.uid.clone().unwrap_or_default(),
            target_kind: binding.target.kind.clone().unwrap_or_default(),
            node: binding.target.name.clone().unwrap_or_default(),
            labels: meta.labels.clone().unwrap_or_default(),
            annotations: meta.annotations.clone().unwrap_or_default(),
        },
    };
    let written = asked.carry_out(&operation).await?;
    Ok(answer::done(StatusCode::CREATED, written.revision, None))
}
