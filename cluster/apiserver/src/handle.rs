//! One request: who asks, may they, what do they get.

use std::sync::Arc;
use std::time::Duration;

use api::{Kind, Reason, Status};
use http::{HeaderMap, Request};
use hyper::body::Incoming;
use registry::Caller;
use registry::authorize::Attributes;

use crate::answer::{self, Answer};
use crate::query::Query;
use crate::route::{Resource, Route, Verb, not_allowed};
use crate::server::{Server, now};
use crate::write::Asked;
use crate::{
    body, documents, evict, health, kubelet, read, review, token_request, usage, watching, write,
};

/// Requests other than watches and streams are answered by then.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// How long a request waits for its turn.
const TURN_MAX: Duration = Duration::from_secs(5);

/// Answers one request.
pub(crate) async fn handle(
    server: &Arc<Server>,
    certificate: Option<&Caller>,
    request: Request<Incoming>,
) -> Answer {
    let started = std::time::Instant::now();
    let path = request.uri().path().to_owned();
    let method = request.method().clone();
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let route = Route::parse(&method, &path, &query);
    let (verb, resource) = match &route {
        Ok(Route::Resource(r)) => (r.verb.name(), (r.kind.plural(), r.known_subresource())),
        _ => ("other", ("", "")),
    };
    let warning = match &route {
        Ok(Route::Resource(r)) => deprecation(r.kind),
        _ => None,
    };
    let mut answer = match serve(server, certificate, request, route, &query).await {
        Ok(answer) => answer,
        Err(status) => {
            if status.code >= 500 {
                tracing::warn!(%method, path, code = status.code, message = status.message,
                    "a request failed");
            }
            answer::refusal(&status)
        }
    };
    if let Some(warning) = warning {
        answer::warn(&mut answer, warning);
    }
    server.metrics.note(verb, resource, answer.status().as_u16(), started.elapsed());
    answer
}

/// What clients are told of kinds that will not be served for ever.
///
/// Source: kubernetes 1.33, `k8s.io/api/core/v1`, `zz_generated.prerelease-lifecycle.go`.
const fn deprecation(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Endpoints => {
            Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")
        }
        _ => None,
    }
}

async fn serve(
    server: &Arc<Server>,
    certificate: Option<&Caller>,
    request: Request<Incoming>,
    route: Result<Route, Status>,
    query: &Query,
) -> Result<Answer, Status> {
    let method = request.method();
    if let Some(answer) = health::check(server, method, request.uri().path(), query).await {
        return Ok(answer);
    }
    let (caller, warning) =
        server.authenticator.authenticate(request.headers(), certificate, &server.hub, now())?;
    let mut answer = answer(server, caller, request, route, query).await;
    if let (Ok(answer), Some(warning)) = (&mut answer, warning) {
        answer::warn(answer, warning);
    }
    answer
}

/// The answer to somebody who is known.
async fn answer(
    server: &Arc<Server>,
    caller: Caller,
    request: Request<Incoming>,
    route: Result<Route, Status>,
    query: &Query,
) -> Result<Answer, Status> {
    let caller = impersonated(server, caller, request.headers())?;
    let route = route?;
    let asked = route.attributes(request.method(), query)?;
    authorize(server, &caller, &asked)?;
    let resource = match route {
        Route::Resource(resource) => resource,
        Route::Path(path) => return documents::answer(server, &path, query, request.headers()),
    };
    if kubelet::is_proxied(&resource) {
        return kubelet::proxy(server, &resource, query, request).await;
    }
    if resource.verb == Verb::Watch && resource.subresource.is_empty() {
        return watching::watch(server, &resource, query, request.headers()).await;
    }
    let _permit = tokio::time::timeout(TURN_MAX, server.permits.acquire())
        .await
        .map_err(|_| answer::overloaded())?
        .map_err(Status::internal)?;
    let work = dispatch(server, &caller, &resource, query, request);
    tokio::time::timeout(ANSWER_MAX, work).await.unwrap_or_else(|_| {
        Err(Status::new(Reason::Timeout, "request did not complete within the allotted timeout"))
    })
}

/// Refuses what the caller may not do.
pub(crate) fn authorize(
    server: &Server,
    caller: &Caller,
    asked: &Attributes,
) -> Result<(), Status> {
    let decision = server.hub.read().authorizer.authorize(caller, asked);
    if decision.allowed { Ok(()) } else { Err(asked.forbidden(caller, &decision.reason)) }
}

/// Who the caller wants to be.
///
/// Source: kubernetes 1.33, `k8s.io/apiserver/pkg/endpoints/filters/impersonation.go`.
fn impersonated(server: &Server, caller: Caller, headers: &HeaderMap) -> Result<Caller, Status> {
    let text = |name: &str| {
        let values = headers.get_all(name).iter();
        values.filter_map(|v| v.to_str().ok()).map(str::to_owned).collect::<Vec<_>>()
    };
    let user = text("impersonate-user").into_iter().next().unwrap_or_default();
    let mut groups = text("impersonate-group");
    let uid = text("impersonate-uid").into_iter().next().unwrap_or_default();
    if user.is_empty() {
        if groups.is_empty() && uid.is_empty() {
            return Ok(caller);
        }
        return Err(Status::bad_request(
            "requested to impersonate groups or a uid without impersonating a user",
        ));
    }
    let may = |resource: &str, namespace: &str, name: &str| {
        let asked = Attributes {
            verb: "impersonate".to_owned(),
            resource: resource.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            version: "v1".to_owned(),
            ..Attributes::default()
        };
        authorize(server, &caller, &asked)
    };
    match user.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':')) {
        Some((namespace, name)) => {
            may("serviceaccounts", namespace, name)?;
            if groups.is_empty() {
                groups.push("system:serviceaccounts".to_owned());
                groups.push(format!("system:serviceaccounts:{namespace}"));
            }
        }
        None => may("users", "", &user)?,
    }
    for group in &text("impersonate-group") {
        may("groups", "", group)?;
    }
    let mut extra = std::collections::BTreeMap::<String, Vec<String>>::new();
    for (name, value) in headers {
        if let Some(key) = name.as_str().strip_prefix("impersonate-extra-") {
            let value = value.to_str().unwrap_or_default().to_owned();
            may(&format!("userextras/{key}"), "", &value)?;
            extra.entry(crate::query::percent(key)).or_default().push(value);
        }
    }
    if !uid.is_empty() {
        may("uids", "", &uid)?;
    }
    if user != "system:anonymous" && !groups.iter().any(|g| g == "system:authenticated") {
        groups.push("system:authenticated".to_owned());
    }
    Ok(Caller { name: user, uid, groups, extra })
}

/// Resources, watches excepted.
async fn dispatch(
    server: &Arc<Server>,
    caller: &Caller,
    resource: &Resource,
    query: &Query,
    request: Request<Incoming>,
) -> Result<Answer, Status> {
    match (resource.verb, resource.subresource.as_str()) {
        (Verb::Get | Verb::List, _) if usage::is_measured(resource.kind) => {
            return usage::answer(server, resource, query, request.headers()).await;
        }
        (Verb::Get, "" | "status" | "scale") => {
            return read::get(server, resource, query, request.headers()).await;
        }
        (Verb::List, "") => return read::list(server, resource, query, request.headers()).await,
        _ => {}
    }
    let (parts, incoming) = request.into_parts();
    let headers = &parts.headers;
    let body = body::read(incoming).await?;
    let asked = Asked { server, caller, dry_run: query.dry_run()? };
    match (resource.verb, resource.subresource.as_str()) {
        (Verb::Create, "") if resource.kind == Kind::Binding => {
            write::bind(&asked, resource, headers, &body).await
        }
        (Verb::Create, "token") => {
            token_request::create(server, caller, resource, headers, &body).await
        }
        (Verb::Create, "") if review::is_review(resource.kind) => {
            review::review(server, caller, resource, headers, &body)
        }
        (Verb::Create, "") => write::create(&asked, resource, query, headers, &body).await,
        (Verb::Create, "binding") => write::bind(&asked, resource, headers, &body).await,
        (Verb::Create, "eviction") => evict::create(&asked, resource, query, headers, &body).await,
        (Verb::Update, _) => write::update(&asked, resource, query, headers, &body).await,
        (Verb::Patch, _) => write::patch(&asked, resource, query, headers, &body).await,
        (Verb::Delete, "") => {
            let (options, dry_run) = body::delete_options(headers, &body, query)?;
            let asked = Asked { dry_run: asked.dry_run || dry_run, ..asked };
            write::delete(&asked, resource, query, headers, options).await
        }
        (Verb::DeleteCollection, "") => {
            let (options, dry_run) = body::delete_options(headers, &body, query)?;
            let asked = Asked { dry_run: asked.dry_run || dry_run, ..asked };
            write::delete_collection(&asked, resource, query, headers, options).await
        }
        _ => Err(not_allowed()),
    }
}
