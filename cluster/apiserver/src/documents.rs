//! Paths that are no resources: discovery, schemas, version, metrics, keys.

use std::collections::BTreeSet;

use api::Status;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::answer::{self, Answer};
use crate::discovery::{self, Document};
use crate::health;
use crate::openapi;
use crate::query::Query;
use crate::server::Server;

/// The version of Kubernetes whose API this is.
const GIT_VERSION: &str = "v1.33.0+kprov";

/// Answers with what a path names.
///
/// # Errors
/// `NotFound`, or `NotAcceptable` for documents.
pub(crate) fn answer(
    server: &Server,
    path: &str,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Answer, Status> {
    let text = |name: header::HeaderName| {
        headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    };
    match path.trim_end_matches('/') {
        "" => return Ok(of_value(&json!({ "paths": paths() }))),
        "/version" => return Ok(of_value(&version())),
        "/metrics" => {
            let body = answer::whole(server.metrics.render(server));
            return Ok(answer::answer(StatusCode::OK, "text/plain; version=0.0.4", body));
        }
        "/.well-known/openid-configuration" => {
            return Ok(of_value(&server.authenticator.authority().discovery()));
        }
        "/openid/v1/jwks" => {
            return Ok(of_value(&server.authenticator.authority().key_set()));
        }
        _ => {}
    }
    let accept = text(header::ACCEPT);
    let found = discovery::find(path, accept, text(header::HOST))
        .or_else(|| openapi::find(path, query.get("hash"), accept));
    let document = found.ok_or_else(Status::no_route)??;
    Ok(of_document(&document, text(header::IF_NONE_MATCH)))
}

/// All paths that are no resources, in their order: what `/` lists.
fn paths() -> BTreeSet<String> {
    let own = [
        "/.well-known/openid-configuration",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/openid/v1/jwks",
        "/version",
    ];
    let own = own.into_iter().map(str::to_owned);
    own.chain(discovery::paths()).chain(health::paths()).collect()
}

fn of_value(value: &Value) -> Answer {
    answer::json(StatusCode::OK, value.to_string())
}

fn of_document(document: &Document, known: &str) -> Answer {
    let mut answer = if document.is_known(known) {
        answer::answer(StatusCode::NOT_MODIFIED, document.content_type, answer::whole(""))
    } else {
        let body = answer::whole(document.body.clone());
        answer::answer(StatusCode::OK, document.content_type, body)
    };
    let headers = answer.headers_mut();
    if let Ok(etag) = HeaderValue::from_str(&document.etag) {
        headers.insert(header::ETAG, etag);
    }
    headers.insert(header::VARY, HeaderValue::from_static("Accept"));
    if document.immutable {
        let forever = HeaderValue::from_static("public, immutable, max-age=31536000");
        headers.insert(header::CACHE_CONTROL, forever);
    }
    answer
}

fn version() -> Value {
    json!({
        "major": "1", "minor": "33", "gitVersion": GIT_VERSION, "gitCommit": "",
        "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z", "goVersion": "none",
        "compiler": "rustc", "platform": format!("linux/{}", platform()),
    })
}

const fn platform() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_lists_what_can_be_asked_for() {
        let paths = paths();
        for path in ["/api", "/api/v1", "/apis", "/apis/apps", "/apis/apps/v1", "/healthz/ping"] {
            assert!(paths.contains(path), "{path}: {paths:?}");
        }
        // A process is kept while etcd is away.
        assert!(paths.contains("/livez/log") && !paths.contains("/livez/etcd"), "{paths:?}");
        for path in paths.iter().filter(|path| path.starts_with("/api")) {
            assert!(matches!(discovery::find(path, "", ""), Some(Ok(_))), "{path}");
        }
    }
}
