//! The small HTTPS server of components that serve nothing but health checks and metrics.
//!
//! Health checks and the version answer anyone; everything else needs a client certificate of the
//! cluster.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use client::Pem;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use node::accept::accept;
use node::kubelet_server::ServingCertificate;
use node::plain_health;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::net::TcpListener;
use tokio::sync::{OnceCell, Semaphore, oneshot, watch};
use tokio_rustls::TlsAcceptor;

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
    /// What else a known client is told, by path.
    fn page(&self, _path: &str) -> Option<String> {
        None
    }
    /// What a known client is told later, by path and query.
    fn ask(&self, _path: &str, _query: &str) -> Option<Asked> {
        None
    }
}

/// What a client is told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) code: StatusCode,
    pub(crate) kind: &'static str,
    pub(crate) text: String,
}

impl Page {
    /// A page of plain text.
    pub(crate) fn plain(code: StatusCode, text: impl Into<String>) -> Self {
        Self { code, kind: PLAIN, text: text.into() }
    }
}

/// A page that comes later; or what there is to say at once.
pub(crate) type Asked = Result<oneshot::Receiver<Page>, Page>;

/// How the server proves who it is, and whose clients it trusts.
pub(crate) struct Identity {
    pub(crate) certificate: Certificate,
    /// Authorities whose client certificates may read metrics.
    pub(crate) client_ca: Pem,
}

/// The server's own certificate.
pub(crate) enum Certificate {
    /// PEM files of the certificate and its key.
    Files(PathBuf, PathBuf),
    /// Signed by itself for these names and addresses, never written anywhere.
    SelfSigned(Vec<String>),
}

/// Listens and serves until `shutdown` turns true.
pub(crate) async fn serve(
    address: SocketAddr,
    identity: Identity,
    health: Arc<dyn Health>,
    mut shutdown: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let listener =
        TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    // Mistakes in files are told at the start. A certificate of one's own is made for the first
    // client: most nodes' metrics are never read, and the memory of their daemons is counted.
    let made = match &identity.certificate {
        Certificate::Files(..) => Some(identity.acceptor()?),
        Certificate::SelfSigned(_) => None,
    };
    let acceptor = Arc::new(OnceCell::new_with(made));
    let identity = Arc::new(identity);
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => return,
                accepted = accept(&listener, &slots) => accepted,
            };
            let Some((stream, _, slot)) = accepted else { continue };
            let (acceptor, health) = (Arc::clone(&acceptor), Arc::clone(&health));
            let identity = Arc::clone(&identity);
            tokio::spawn(async move {
                let _slot = slot;
                let made = acceptor.get_or_try_init(async || identity.acceptor()).await;
                let acceptor = match made {
                    Ok(acceptor) => acceptor,
                    Err(error) => {
                        tracing::warn!(error = format!("{error:#}"), "metrics cannot be served");
                        return;
                    }
                };
                let handshake = tokio::time::timeout(REQUEST_TIMEOUT, acceptor.accept(stream));
                let Ok(Ok(stream)) = handshake.await else { return };
                let known = stream.get_ref().1.peer_certificates().is_some();
                let service = service_fn(move |request| {
                    let health = Arc::clone(&health);
                    async move { Ok::<_, Infallible>(answer(&request, health.as_ref(), known).await) }
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

impl Identity {
    fn acceptor(&self) -> anyhow::Result<TlsAcceptor> {
        let mut roots = rustls::RootCertStore::empty();
        let authorities = match &self.client_ca {
            Pem::Inline(text) => text.clone().into_bytes(),
            Pem::File(path) => {
                std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?
            }
        };
        for authority in CertificateDer::pem_slice_iter(&authorities) {
            roots.add(authority.context("the client authority is no PEM")?)?;
        }
        let verifier =
            WebPkiClientVerifier::builder(Arc::new(roots)).allow_unauthenticated().build()?;
        let builder = rustls::ServerConfig::builder().with_client_cert_verifier(verifier);
        let config = match &self.certificate {
            Certificate::Files(cert, key) => {
                let chain = CertificateDer::pem_file_iter(cert)
                    .with_context(|| format!("cannot read {}", cert.display()))?
                    .collect::<Result<Vec<_>, _>>()?;
                let key = PrivateKeyDer::from_pem_file(key)
                    .with_context(|| format!("cannot read {}", key.display()))?;
                builder.with_single_cert(chain, key)?
            }
            Certificate::SelfSigned(names) => {
                builder.with_cert_resolver(Arc::new(ServingCertificate::self_signed(names)?))
            }
        };
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

async fn answer(
    request: &Request<Incoming>,
    health: &dyn Health,
    known: bool,
) -> Response<Full<Bytes>> {
    let page = if request.method() == Method::GET {
        let uri = request.uri();
        respond(uri.path(), uri.query().unwrap_or_default(), health, known).await
    } else {
        Page::plain(StatusCode::METHOD_NOT_ALLOWED, "method not allowed")
    };
    let mut response = Response::new(Full::new(Bytes::from(page.text)));
    *response.status_mut() = page.code;
    let kind = http::HeaderValue::from_static(page.kind);
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    response
}

const PLAIN: &str = "text/plain";
pub(crate) const JSON: &str = "application/json";

async fn respond(path: &str, query: &str, health: &dyn Health, known: bool) -> Page {
    match path {
        "/healthz" | "/livez" | "/readyz" => match health.check() {
            Ok(()) => Page::plain(StatusCode::OK, "ok"),
            Err(why) => Page::plain(StatusCode::INTERNAL_SERVER_ERROR, why),
        },
        "/version" => Page { code: StatusCode::OK, kind: JSON, text: plain_health::version() },
        _ if !known => Page::plain(StatusCode::UNAUTHORIZED, "Unauthorized"),
        "/metrics" => Page::plain(StatusCode::OK, health.metrics()),
        _ => match (health.page(path), health.ask(path, query)) {
            (Some(text), _) => Page::plain(StatusCode::OK, text),
            (None, Some(Err(page))) => page,
            (None, Some(Ok(later))) => match tokio::time::timeout(REQUEST_TIMEOUT, later).await {
                Ok(Ok(page)) => page,
                _ => Page::plain(StatusCode::SERVICE_UNAVAILABLE, "no answer in time: ask again"),
            },
            (None, None) => Page::plain(StatusCode::NOT_FOUND, "404 page not found"),
        },
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
        fn ask(&self, path: &str, _query: &str) -> Option<Asked> {
            // Whoever should answer is gone.
            (path == "/later").then(|| Ok(oneshot::channel().1))
        }
    }

    #[tokio::test]
    async fn only_health_and_version_are_public() {
        for (path, known, code) in [
            ("/healthz", false, 200),
            ("/version", false, 200),
            ("/metrics", false, 401),
            ("/metrics", true, 200),
            ("/nothing", false, 401),
            ("/nothing", true, 404),
            ("/later", false, 401),
            ("/later", true, 503),
        ] {
            let page = respond(path, "", &Fine, known).await;
            assert_eq!(page.code.as_u16(), code, "{path} {known}");
        }
    }
}
