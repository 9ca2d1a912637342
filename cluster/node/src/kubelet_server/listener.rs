//! Connections: TLS, at most so many at a time, ended in good order.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::server::Server;
use super::{ServeError, ServerConfig, identity};

/// Connections at the same time; logs that are followed and shells take one each.
const CONNECTIONS_MAX: usize = 1_024;
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
const HEADERS_MAX: Duration = Duration::from_secs(30);
/// What requests have to end when the server stops.
const STOP_MAX: Duration = Duration::from_secs(5);
/// After a failed accept (too many open files) the next would fail too.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Makes the TLS settings of the server.
pub(crate) fn tls(config: &ServerConfig) -> Result<TlsAcceptor, ServeError> {
    let unusable = |reason: String| ServeError::ClientCa { path: config.client_ca.clone(), reason };
    let mut roots = RootCertStore::empty();
    let pem = std::fs::read(&config.client_ca).map_err(|error| unusable(error.to_string()))?;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .map_err(|error| unusable(error.to_string()))?;
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(error.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::clone(&config.serving) as Arc<_>);
    // Only this version can change to another protocol.
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(tls)))
}

/// Serves until the server's `stop` is cancelled.
pub(crate) async fn run(listener: TcpListener, tls: TlsAcceptor, server: Arc<Server>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accept = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            accepted = accept => accepted,
            () = server.stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let (tls, connection) = (tls.clone(), Arc::clone(&server));
                server.tasks.spawn(async move {
                    serve(stream, tls, connection).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    server.tasks.close();
    if timeout(STOP_MAX, server.tasks.wait()).await.is_err() {
        tracing::warn!(tasks = server.tasks.len(), "requests were cut off");
    }
}

async fn serve(stream: TcpStream, tls: TlsAcceptor, server: Arc<Server>) {
    let _ = stream.set_nodelay(true);
    let handshake = timeout(HANDSHAKE_MAX, tls.accept(stream)).await;
    let Ok(Ok(stream)) = handshake else {
        tracing::debug!("a TLS handshake failed");
        return;
    };
    let certificates = stream.get_ref().1.peer_certificates();
    let peer = certificates.and_then(|chain| identity::of_certificate(chain.first()?));
    let answering = Arc::clone(&server);
    let service = service_fn(move |request| {
        let (server, peer) = (Arc::clone(&answering), peer.clone());
        async move { Ok::<_, Infallible>(server.answer(peer, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = server.stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            timeout(STOP_MAX, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection ended early");
    }
}
