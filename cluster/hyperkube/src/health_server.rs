//! The small HTTPS server of components that serve nothing but health checks and metrics.
//!
//! Health checks answer anyone; everything else needs a client certificate of the cluster.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use crate::flags::Serving;

/// A probe has no business taking longer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Probes and one scraper: more connections are a mistake.
const CONNECTIONS_MAX: usize = 64;

/// What the server tells.
pub(crate) trait Health: Send + Sync + 'static {
    /// Whether the component works; the error says what does not.
    fn check(&self) -> Result<(), String>;
    /// Metrics in Prometheus' text format.
    fn metrics(&self) -> String;
}

/// Listens and serves until `shutdown` turns true.
pub(crate) async fn serve(
    flags: &Serving,
    port: u16,
    health: Arc<dyn Health>,
    mut shutdown: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let address = SocketAddr::new(flags.bind_address, port);
    let listener =
        TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    let acceptor = TlsAcceptor::from(Arc::new(tls(flags)?));
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => return,
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else { continue };
            let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else { continue };
            let (acceptor, health) = (acceptor.clone(), Arc::clone(&health));
            tokio::spawn(async move {
                let _slot = slot;
                let handshake = tokio::time::timeout(REQUEST_TIMEOUT, acceptor.accept(stream));
                let Ok(Ok(stream)) = handshake.await else { return };
                let known = stream.get_ref().1.peer_certificates().is_some();
                let service = service_fn(move |request| {
                    let response = answer(&request, health.as_ref(), known);
                    async move { Ok::<_, Infallible>(response) }
                });
                let _ = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
                    .http1()
                    .timer(TokioTimer::new())
                    .header_read_timeout(REQUEST_TIMEOUT)
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    Ok(())
}

fn tls(flags: &Serving) -> anyhow::Result<rustls::ServerConfig> {
    let mut roots = rustls::RootCertStore::empty();
    for cert in CertificateDer::pem_file_iter(&flags.client_ca_file)
        .with_context(|| format!("cannot read {}", flags.client_ca_file.display()))?
    {
        roots.add(cert?)?;
    }
    let verifier =
        WebPkiClientVerifier::builder(Arc::new(roots)).allow_unauthenticated().build()?;
    let chain = CertificateDer::pem_file_iter(&flags.tls_cert_file)
        .with_context(|| format!("cannot read {}", flags.tls_cert_file.display()))?
        .collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(&flags.tls_private_key_file)
        .with_context(|| format!("cannot read {}", flags.tls_private_key_file.display()))?;
    Ok(rustls::ServerConfig::builder()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?)
}

fn answer(request: &Request<Incoming>, health: &dyn Health, known: bool) -> Response<Full<Bytes>> {
    let (code, text) = if request.method() == Method::GET {
        respond(request.uri().path(), health, known)
    } else {
        (StatusCode::METHOD_NOT_ALLOWED, "method not allowed".to_owned())
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = code;
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain"));
    response
}

fn respond(path: &str, health: &dyn Health, known: bool) -> (StatusCode, String) {
    match path {
        "/healthz" | "/livez" | "/readyz" => match health.check() {
            Ok(()) => (StatusCode::OK, "ok".to_owned()),
            Err(why) => (StatusCode::INTERNAL_SERVER_ERROR, why),
        },
        _ if !known => (StatusCode::UNAUTHORIZED, "Unauthorized".to_owned()),
        "/metrics" => (StatusCode::OK, health.metrics()),
        "/version" => (StatusCode::OK, api::version::GIT_VERSION.to_owned()),
        _ => (StatusCode::NOT_FOUND, "404 page not found".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fine;

    impl Health for Fine {
        fn check(&self) -> Result<(), String> {
            Ok(())
        }
        fn metrics(&self) -> String {
            "m 1\n".to_owned()
        }
    }

    #[test]
    fn only_health_is_public() {
        let check = |path: &str, known: bool, code: u16| {
            assert_eq!(respond(path, &Fine, known).0.as_u16(), code, "{path} {known}");
        };
        check("/healthz", false, 200);
        check("/metrics", false, 401);
        check("/metrics", true, 200);
        check("/nothing", false, 401);
        check("/nothing", true, 404);
    }
}
