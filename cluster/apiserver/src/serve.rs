//! Listening, TLS and connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::authenticate::{Authenticator, caller_of_certificate};
use crate::bootstrap::bootstrap;
use crate::config::Config;
use crate::handle::handle;
use crate::hub::Hub;
use crate::last_use::Uses;
use crate::metrics::Metrics;
use crate::server::Server;
use crate::service_account::TokenAuthority;
use crate::start::{StartError, open_store};
use crate::tls::{self, Acceptor};
use crate::{expiry, last_use, masters};

/// A client that does not finish its handshake holds a socket no longer.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// A client that does not finish its headers holds a connection no longer.
const HEADERS_MAX: Duration = Duration::from_secs(30);
/// Silence after which a connection is asked whether it still lives.
const PING_AFTER: Duration = Duration::from_secs(30);
/// Requests at a time on one connection.
const STREAMS_MAX: u32 = 1_000;
/// Connections at a time.
const CONNECTIONS_MAX: usize = 20_000;
/// How long requests may go on after the server was told to stop.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// Serves until `shutdown` completes, then drains. `ready` is called once, with the address
/// listened on, when requests can be answered.
///
/// # Errors
/// The configuration cannot be used, or the address cannot be listened on.
pub async fn run(
    config: Config,
    ready: impl FnOnce(SocketAddr) + Send + 'static,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), StartError> {
    let acceptor = Arc::new(Acceptor::new(&config.tls)?);
    let authority = TokenAuthority::new(&config.service_accounts, config.audiences())?;
    let (uses, used) = Uses::new();
    let authenticator =
        Authenticator::new(config.token_file.as_deref(), config.bootstrap_tokens, authority, uses)?;
    let kubelet_tls = Arc::new(tls::kubelet_client(&config.kubelets)?);
    let store = open_store(&config.store).await?;
    let address = config.bind;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| StartError::Listen { address, source })?;
    let address = listener.local_addr().map_err(|source| StartError::Listen { address, source })?;

    let mut tasks = JoinSet::new();
    let hub = Hub::start(store, config.history, &mut tasks);
    let advertised_port =
        if config.advertise_port > 0 { config.advertise_port } else { address.port() };
    let server = Arc::new(Server {
        permits: Semaphore::new(config.requests_max),
        config,
        hub,
        authenticator,
        kubelet_tls,
        advertised_port,
        metrics: Metrics::default(),
        stopping: watch::Sender::new(false),
        draining: watch::Sender::new(false),
        ready: watch::Sender::new(false),
        masters: tokio::sync::Mutex::new(()),
        evicting: tokio::sync::Mutex::new(()),
        charging: tokio::sync::Mutex::new(()),
        usage: crate::usage::Usage::default(),
    });
    tracing::info!(%address, "listening");
    let following = acceptor.clone();
    tasks.spawn(async move { following.follow_files().await });
    tasks.spawn(expiry::keep(server.clone()));
    tasks.spawn(last_use::keep(server.clone(), used));
    let starting = server.clone();
    tasks.spawn(async move {
        starting.hub.filled().await;
        bootstrap(&starting).await;
        starting.ready.send_replace(true);
        ready(address);
        masters::keep(starting).await;
    });
    accept(&server, listener, &acceptor, shutdown).await;
    tasks.shutdown().await;
    Ok(())
}

/// Accepts connections until `shutdown` completes, then lets them finish.
async fn accept(
    server: &Arc<Server>,
    listener: TcpListener,
    acceptor: &Acceptor,
    shutdown: impl Future<Output = ()> + Send,
) {
    let graceful = GracefulShutdown::new();
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    let leaving = async {
        shutdown.await;
        server.stopping.send_replace(true);
        let leave = async {
            if server.is_ready() {
                masters::leave(server).await;
            }
        };
        // Whoever comes meanwhile is served: a queue that nobody takes from would be reset.
        tokio::join!(leave, tokio::time::sleep(server.config.shutdown_delay));
    };
    tokio::pin!(leaving);
    loop {
        let slot = tokio::select! {
            () = &mut leaving => break,
            slot = slots.clone().acquire_owned() => slot.expect("the semaphore is never closed"),
        };
        let accepted = tokio::select! {
            () = &mut leaving => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection =
                    connect(server.clone(), acceptor.current(), stream, graceful.watcher());
                connections.spawn(async move {
                    connection.await;
                    drop(slot);
                });
            }
            Err(error) => {
                // Mostly: too many open files. Those who wait in the queue keep waiting.
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    server.draining.send_replace(true);
    if timeout(DRAIN_MAX, graceful.shutdown()).await.is_err() {
        tracing::warn!("some requests did not finish before the server stopped");
    }
    connections.shutdown().await;
}

/// Serves one connection.
async fn connect(server: Arc<Server>, acceptor: TlsAcceptor, stream: TcpStream, watcher: Watcher) {
    // Watch events are small and must not wait for each other.
    let _ = stream.set_nodelay(true);
    let stream = match timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a TLS handshake failed");
            return;
        }
        Err(_) => return,
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let caller = Arc::new(certificate.and_then(|c| caller_of_certificate(c)));
    let service = service_fn(move |request: Request<Incoming>| {
        let (server, caller) = (server.clone(), caller.clone());
        async move {
            Ok::<_, std::convert::Infallible>(
                handle(&server, caller.as_ref().as_ref(), request).await,
            )
        }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .keep_alive_interval(PING_AFTER)
        .keep_alive_timeout(PING_AFTER);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    if let Err(error) = watcher.watch(connection.into_owned()).await {
        tracing::debug!(%error, "a connection ended early");
    }
}
