//! The plain-HTTP health server of node components: health and version, for anyone.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::accept::accept;

/// A probe has no business taking longer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Probes only: more connections are a mistake.
const CONNECTIONS_MAX: usize = 64;

/// Tells what is wrong, if something is.
type Check = dyn Fn() -> Result<(), String> + Send + Sync;

/// Listens on `address` until `shutdown` turns true and answers anyone: `/healthz` (also `/livez`
/// and `/readyz`) with `ok`, or with status 503 and what `check` finds wrong; `/version` with
/// [`version`]. Returns the address it listens on (port 0 asks for a free one).
///
/// # Errors
/// The address cannot be listened on.
pub async fn serve(
    address: SocketAddr,
    check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    mut shutdown: watch::Receiver<bool>,
) -> std::io::Result<SocketAddr> {
    let check: Arc<Check> = Arc::new(check);
    let listener = TcpListener::bind(address).await?;
    let bound = listener.local_addr()?;
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => return,
                accepted = accept(&listener, &slots) => accepted,
            };
            let Some((stream, _, slot)) = accepted else { continue };
            let check = Arc::clone(&check);
            tokio::spawn(async move {
                let _slot = slot;
                let service = service_fn(move |request: Request<Incoming>| {
                    let response = answer(request.method(), request.uri().path(), check.as_ref());
                    async move { Ok::<_, Infallible>(response) }
                });
                let _ = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(REQUEST_TIMEOUT)
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    Ok(bound)
}

/// The version of this build as the API server's `/version` tells it, in JSON.
///
/// Source: kubernetes 1.33, `system:public-info-viewer` lets anyone read health and version.
pub fn version() -> String {
    use api::version::{GIT_VERSION, MAJOR, MINOR};
    let version = serde_json::json!({
        "major": MAJOR, "minor": MINOR, "gitVersion": GIT_VERSION, "compiler": "rustc",
    });
    version.to_string()
}

fn answer(method: &Method, path: &str, check: &Check) -> Response<Full<Bytes>> {
    const PLAIN: &str = "text/plain; charset=utf-8";
    let (status, kind, text) = match path {
        _ if !matches!(*method, Method::GET | Method::HEAD) => {
            (StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET is answered\n".to_owned())
        }
        "/healthz" | "/livez" | "/readyz" => match check() {
            Ok(()) => (StatusCode::OK, PLAIN, "ok".to_owned()),
            Err(problem) => (StatusCode::SERVICE_UNAVAILABLE, PLAIN, problem),
        },
        "/version" => (StatusCode::OK, "application/json", version()),
        _ => (StatusCode::NOT_FOUND, PLAIN, "404 page not found\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let kind = http::HeaderValue::from_static(kind);
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    async fn get(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("{request} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn health_and_version_are_told_to_anyone_and_nothing_else() {
        let sick = Arc::new(AtomicBool::new(false));
        let state = Arc::clone(&sick);
        let (_stop, stopped) = watch::channel(false);
        let check = move || {
            if state.load(Ordering::Relaxed) { Err("rules are stale".to_owned()) } else { Ok(()) }
        };
        let address = serve("127.0.0.1:0".parse().unwrap(), check, stopped).await.unwrap();
        let well = get(address, "GET /healthz").await;
        assert!(well.starts_with("HTTP/1.1 200") && well.ends_with("\r\nok"), "{well}");
        sick.store(true, Ordering::Relaxed);
        let ill = get(address, "GET /healthz").await;
        assert!(ill.starts_with("HTTP/1.1 503") && ill.ends_with("rules are stale"), "{ill}");
        let version = get(address, "GET /version").await;
        assert!(version.contains("content-type: application/json"), "{version}");
        assert!(version.contains(api::version::GIT_VERSION), "{version}");
        assert!(get(address, "GET /metrics").await.starts_with("HTTP/1.1 404"));
        assert!(get(address, "POST /healthz").await.starts_with("HTTP/1.1 405"));
    }
}
