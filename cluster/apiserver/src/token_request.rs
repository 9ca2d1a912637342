//! `serviceaccounts/token`: makes a token of a service account.
//!
//! Source: kubernetes 1.33, `pkg/registry/core/serviceaccount/storage/token.go` and
//! `plugin/pkg/admission/noderestriction`.

use std::time::Duration;

use api::{Cause, Key, Kind, Object, Pod, Status, Time, codec, meta};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use k8s_openapi::api::authentication::v1::{
    BoundObjectReference, TokenRequest, TokenRequestStatus,
};
use k8s_openapi::api::core::v1::Secret;
use registry::Caller;
use registry::authorize::node_name;
use registry::window::Window;

use crate::answer::{self, Answer};
use crate::body::{self, Decoded};
use crate::query::FieldValidation;
use crate::route::Resource;
use crate::server::{Server, entropy, now};
use crate::service_account::{Bound, Grant, LegacyClaims, Reference};

/// The user that the controller manager is.
const CONTROLLERS: &str = "system:kube-controller-manager";
const LIFETIME_SECONDS_MIN: i64 = 600;
const LIFETIME_SECONDS_DEFAULT: i64 = 3_600;
const LIFETIME_SECONDS_MAX: i64 = 1 << 32;

/// Answers with a token.
pub(crate) async fn create(
    server: &Server,
    caller: &Caller,
    resource: &Resource,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Answer, Status> {
    let Decoded { object, .. } =
        body::object(Kind::TokenRequest, headers, body, FieldValidation::Ignore)?;
    let request: &TokenRequest =
        object.get().ok_or_else(|| Status::internal("not a token request"))?;
    let authority = server.authenticator.authority();
    if !authority.can_sign() {
        return Err(Status::internal("this server has no key to sign tokens with"));
    }
    let seconds = lifetime(request, &resource.name)?;
    // The pod may have been made a moment ago by another server.
    server.hub.barrier().await?;
    let bound = {
        let state = server.hub.read();
        bound(&state.window, caller, resource, request.spec.bound_object_ref.as_ref())?
    };
    if let Some(claims) = in_secret(server, caller, &bound) {
        let token = authority.sign_legacy(&claims);
        let token = token.ok_or_else(|| Status::internal("the token was not signed"))?;
        let expiration_timestamp = Time(u64::MAX).to_meta();
        return Ok(answered(request, resource, TokenRequestStatus { token, expiration_timestamp }));
    }
    let mut audiences = request.spec.audiences.clone();
    if audiences.is_empty() {
        audiences = authority.audiences().to_vec();
    }
    let id = uuid::Builder::from_random_bytes(entropy()).into_uuid().to_string();
    let lifetime = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let grant = Grant { audiences: audiences.clone(), lifetime, bound, id };
    let (token, expires) =
        authority.sign(grant, now()).ok_or_else(|| Status::internal("the token was not signed"))?;
    let mut granted = request.clone();
    granted.spec.audiences = audiences;
    granted.spec.expiration_seconds = Some(seconds);
    let status = TokenRequestStatus { token, expiration_timestamp: expires.to_meta() };
    Ok(answered(&granted, resource, status))
}

fn answered(granted: &TokenRequest, resource: &Resource, status: TokenRequestStatus) -> Answer {
    let mut answered = granted.clone();
    answered.metadata.name = Some(resource.name.clone());
    answered.metadata.namespace = Some(resource.namespace.clone());
    answered.metadata.creation_timestamp = Some(now().to_meta());
    answered.status = Some(status);
    let answered = api::ApiObject::into_object(answered);
    answer::json(StatusCode::CREATED, codec::encode(&answered))
}

/// What the token says that the controller manager asks for to put it into a secret: it has no end
/// but that of the secret.
fn in_secret(server: &Server, caller: &Caller, bound: &Bound) -> Option<LegacyClaims> {
    let secret = bound.secret.as_ref().filter(|_| caller.name == CONTROLLERS)?;
    let key = Key::new(Kind::Secret, &bound.namespace, &secret.name);
    let object = server.hub.read().window.get(&key)?.object().ok()?;
    let found = object.get::<Secret>()?;
    let account = meta::annotation(&found.metadata, "kubernetes.io/service-account.name");
    let is_for_it = found.type_.as_deref() == Some("kubernetes.io/service-account-token")
        && account == Some(&bound.serviceaccount.name);
    LegacyClaims::of(bound).filter(|_| is_for_it)
}

fn lifetime(request: &TokenRequest, name: &str) -> Result<i64, Status> {
    let seconds = request.spec.expiration_seconds.unwrap_or(LIFETIME_SECONDS_DEFAULT);
    let why = match seconds {
        ..LIFETIME_SECONDS_MIN => "may not specify a duration less than 10 minutes",
        LIFETIME_SECONDS_MIN..=LIFETIME_SECONDS_MAX => return Ok(seconds),
        _ => "may not specify a duration larger than 2^32 seconds",
    };
    let cause = Cause {
        reason: "FieldValueInvalid".to_owned(),
        message: format!("Invalid value: {seconds}: {why}"),
        field: "spec.expirationSeconds".to_owned(),
    };
    Err(Status::invalid(Kind::TokenRequest, name, vec![cause]))
}

/// The objects the token is bound to, as they are now.
fn bound(
    window: &Window,
    caller: &Caller,
    resource: &Resource,
    wanted: Option<&BoundObjectReference>,
) -> Result<Bound, Status> {
    let find = |kind: Kind, name: &str| {
        let namespace = if kind.namespaced() { resource.namespace.as_str() } else { "" };
        let entry = window.get(&Key::new(kind, namespace, name));
        entry
            .ok_or_else(|| Status::not_found(kind, name))
            .and_then(|e| e.object().map_err(Status::internal))
    };
    let account = find(Kind::ServiceAccount, &resource.name)?;
    let mut bound = Bound {
        namespace: resource.namespace.clone(),
        serviceaccount: reference(&account),
        ..Bound::default()
    };
    let pod = match wanted.map(|w| (w, w.kind.as_deref().unwrap_or_default())) {
        None => None,
        Some((wanted, "Pod")) => {
            let object = find(Kind::Pod, wanted.name.as_deref().unwrap_or_default())?;
            same_uid(&object, wanted)?;
            bound.pod = Some(reference(&object));
            Some(object)
        }
        Some((wanted, "Secret")) => {
            let object = find(Kind::Secret, wanted.name.as_deref().unwrap_or_default())?;
            same_uid(&object, wanted)?;
            bound.secret = Some(reference(&object));
            None
        }
        Some((wanted, "Node")) => {
            let object = find(Kind::Node, wanted.name.as_deref().unwrap_or_default())?;
            same_uid(&object, wanted)?;
            bound.node = Some(reference(&object));
            None
        }
        Some((_, other)) => {
            return Err(Status::bad_request(format!(
                "cannot bind token to object of type {other}"
            )));
        }
    };
    let pod = pod.as_ref().and_then(Object::get::<Pod>);
    if let Some(spec) = pod.and_then(|p| p.spec.as_ref()) {
        if spec.service_account_name.as_deref() != Some(resource.name.as_str()) {
            return Err(Status::bad_request(format!(
                "cannot bind token for serviceaccount {:?} to pod running with different \
                 serviceaccount name.",
                resource.name
            )));
        }
        if let Some(node) = pod.and_then(|p| p.node_name.as_deref()) {
            let uid = find(Kind::Node, node).map(|o| o.uid().to_owned()).unwrap_or_default();
            bound.node = Some(Reference { name: node.to_owned(), uid });
        }
    }
    if let Some(node) = node_name(caller) {
        restrict(node, resource, wanted, pod)?;
    }
    Ok(bound)
}

/// A node may only ask for tokens of the pods that run on it.
fn restrict(
    node: &str,
    resource: &Resource,
    wanted: Option<&BoundObjectReference>,
    pod: Option<&Pod>,
) -> Result<(), Status> {
    let refuse = |why: &str| Err(Status::forbidden(Kind::ServiceAccount, &resource.name, why));
    let (Some(wanted), Some(pod)) = (wanted, pod) else {
        return refuse("node requested token not bound to a pod");
    };
    if wanted.uid.as_deref().unwrap_or_default().is_empty() {
        return refuse("node requested token with a pod binding without a uid");
    }
    if pod.node() != node {
        return refuse("node requested token bound to a pod scheduled on a different node");
    }
    Ok(())
}

fn reference(object: &Object) -> Reference {
    Reference { name: object.meta().name.clone().unwrap_or_default(), uid: object.uid().to_owned() }
}

fn same_uid(object: &Object, wanted: &BoundObjectReference) -> Result<(), Status> {
    match wanted.uid.as_deref() {
        None | Some("") => Ok(()),
        Some(uid) if uid == object.uid() => Ok(()),
        Some(uid) => Err(Status::conflict(
            object.kind(),
            object.meta().name.as_deref().unwrap_or_default(),
            &format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. \
                 The object might have been deleted and then recreated"
            ),
        )),
    }
}
