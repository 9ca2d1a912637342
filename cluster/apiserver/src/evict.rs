//! `pods/eviction`: a deletion that a budget can refuse. What is decided stands in
//! [`registry::evict`]; here it is carried out.

use api::{Key, Kind, Object, Reason, Revision, Status, Subresource, codec};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use registry::evict::{Decision, OnConflict};
use registry::operation::in_namespace;
use registry::{DeleteOptions, Operation, View, evict};

use crate::answer::{self, Answer};
use crate::body::{self, Decoded};
use crate::query::{FieldValidation, Query};
use crate::route::Resource;
use crate::server::stamp;
use crate::write::{self, Asked};

/// How often an eviction is decided anew because somebody else changed the pod or the budget: the
/// kubelet, the controller, an eviction at another API server. At each attempt one of them is first.
const ATTEMPTS_MAX: u32 = 20;

/// What one attempt has come to.
enum Outcome {
    /// The pod is gone or going, as of this revision.
    Evicted(Revision),
    /// Somebody was faster.
    Again(Status),
}

/// `create` of an eviction.
pub(crate) async fn create(
    asked: &Asked<'_>,
    resource: &Resource,
    query: &Query,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Answer, Status> {
    let Decoded { mut object, .. } =
        body::object(Kind::Eviction, headers, body, FieldValidation::Ignore)?;
    in_namespace(&mut object, &resource.namespace)?;
    if object.meta().name.as_deref() != Some(&*resource.name) {
        let why = "name in URL does not match name in Eviction object";
        return Err(Status::bad_request(why));
    }
    let value = codec::to_value(&object);
    let options = Bytes::from(value["deleteOptions"].to_string());
    let (options, dry_run) = body::delete_options(&HeaderMap::new(), &options, query)?;
    let asked = Asked { dry_run: asked.dry_run || dry_run, ..*asked };
    let pod = Key::new(Kind::Pod, &resource.namespace, &resource.name);
    let mut attempts = 0;
    loop {
        let _turn = asked.server.evicting.lock().await;
        match attempt(&asked, &pod, &options).await? {
            Outcome::Evicted(revision) => {
                return Ok(answer::done(StatusCode::CREATED, revision, None));
            }
            Outcome::Again(status) => {
                attempts += 1;
                if attempts == ATTEMPTS_MAX {
                    return Err(status);
                }
            }
        }
    }
}

/// Looks at pod and budgets, decides, and acts.
async fn attempt(asked: &Asked<'_>, pod: &Key, options: &DeleteOptions) -> Result<Outcome, Status> {
    let server = asked.server;
    // The budgets are read after the pod, and both as they are now.
    let object = write::stored(server, pod).await?;
    let object = object.ok_or_else(|| Status::not_found(pod.kind, &pod.name))?;
    crate::read::fresh_enough(server, None).await?;
    let budgets = {
        let state = server.hub.read();
        View::list(&state.window, Kind::PodDisruptionBudget, &pod.namespace)
    };
    let decision = evict::decide(asked.caller, &object, &budgets, options, stamp().now)?;
    let Decision { spend, options, on_conflict } = decision;
    if let Some(budget) = spend.filter(|_| !asked.dry_run)
        && let Err(status) = store_status(asked, budget).await
    {
        let raced = matches!(status.reason, Reason::Conflict | Reason::NotFound);
        return if raced { Ok(Outcome::Again(status)) } else { Err(status) };
    }
    match delete(asked, pod, options).await {
        Ok(revision) => Ok(Outcome::Evicted(revision)),
        Err(status) if status.reason == Reason::Conflict => match on_conflict {
            OnConflict::Refuse => Err(status),
            OnConflict::DecideAnew => Ok(Outcome::Again(status)),
            OnConflict::Answer(status) => Err(*status),
        },
        Err(status) => Err(status),
    }
}

/// Stores the status of a budget, unless it was changed since it was read.
async fn store_status(asked: &Asked<'_>, budget: Object) -> Result<(), Status> {
    let key = budget.key();
    let subresource = Some(Subresource::Status);
    asked.carry_out(&Operation::Update { key, object: budget, subresource }).await?;
    Ok(())
}

/// Marks the pod and deletes it.
async fn delete(
    asked: &Asked<'_>,
    pod: &Key,
    mut options: DeleteOptions,
) -> Result<Revision, Status> {
    if !asked.dry_run {
        let mark = Operation::Disrupt { pod: pod.clone(), options: options.clone() };
        let marked = asked.carry_out(&mark).await?;
        if options.revision.is_some() {
            // The mark is ours; nothing else may have changed.
            options.revision = Some(marked.revision);
        }
    }
    let deleted = asked.carry_out(&Operation::Delete { key: pod.clone(), options }).await?;
    Ok(deleted.revision)
}
