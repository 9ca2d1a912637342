//! The plain-HTTP health server of node components: `/healthz` and what else its owner chooses
//! to show to anyone.

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

/// A probe has no business taking longer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Probes and a scraper: more connections are a mistake.
const CONNECTIONS_MAX: usize = 64;

/// Answers a path: `None` when there is no such page, the text, or what is wrong.
pub type Pages = Arc<dyn Fn(&str) -> Option<Result<String, String>> + Send + Sync>;

/// Listens on `address` and answers `/healthz` (also `/livez` and `/readyz`) with `ok`, or with
/// status 503 and what `check` finds wrong, until `shutdown` turns true. Returns the address it
/// listens on (port 0 asks for a free one).
///
/// # Errors
/// The address cannot be listened on.
pub async fn serve(
    address: SocketAddr,
    check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    shutdown: watch::Receiver<bool>,
) -> std::io::Result<SocketAddr> {
    let pages: Pages = Arc::new(move |path| match path {
        "/healthz" | "/livez" | "/readyz" => Some(check().map(|()| "ok".to_owned())),
        _ => None,
    });
    serve_pages(address, pages, shutdown).await
}

/// Listens on `address` and answers with `pages` until `shutdown` turns true. Returns the
/// address it listens on.
///
/// # Errors
/// The address cannot be listened on.
pub async fn serve_pages(
    address: SocketAddr,
    pages: Pages,
    mut shutdown: watch::Receiver<bool>,
) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(address).await?;
    let bound = listener.local_addr()?;
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => return,
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
                // Out of descriptors: accepting again at once would spin.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else { continue };
            let pages = Arc::clone(&pages);
            tokio::spawn(async move {
                let _slot = slot;
                let service = service_fn(move |request: Request<Incoming>| {
                    let response = answer(request.method(), request.uri().path(), &pages);
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

fn answer(method: &Method, path: &str, pages: &Pages) -> Response<Full<Bytes>> {
    let (status, text) = match pages(path) {
        _ if !matches!(*method, Method::GET | Method::HEAD) => {
            (StatusCode::METHOD_NOT_ALLOWED, "only GET is answered\n".to_owned())
        }
        None => (StatusCode::NOT_FOUND, "404 page not found\n".to_owned()),
        Some(Ok(text)) => (StatusCode::OK, text),
        Some(Err(problem)) => (StatusCode::SERVICE_UNAVAILABLE, problem),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let plain = http::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(http::header::CONTENT_TYPE, plain);
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
    async fn health_is_told_to_anyone_and_nothing_else() {
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
        assert!(get(address, "GET /metrics").await.starts_with("HTTP/1.1 404"));
        assert!(get(address, "POST /healthz").await.starts_with("HTTP/1.1 405"));
    }
}
