//! [`Client`]: one multiplexed TLS connection to one of the API servers, renewed and moved to
//! another server when it fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;

use crate::{Config, ConfigError, Credentials};

/// Longer than a handshake under load, short enough to try the next server soon.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
/// The API answers any call that is no watch within this time or not at all.
const CALL_TIMEOUT: Duration = Duration::from_secs(34);
/// A server that answers no ping for this long is gone, whatever TCP thinks.
const PING: Duration = Duration::from_secs(4);
/// No answer to a call is larger: a list of 150,000 pods is about 500 MB.
const BODY_MAX: usize = 1 << 30;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// No server could be reached: the request was not sent.
    #[error("no API server can be reached: {0}")]
    Unreachable(String),
    /// The request was sent, the answer was lost.
    #[error("the answer was lost: {0}")]
    Lost(String),
    /// The client's own settings are unusable.
    #[error("the client is misconfigured: {0}")]
    Config(String),
}

struct Endpoint {
    authority: String,
    address: String,
    name: ServerName<'static>,
}

struct Open {
    sender: SendRequest<Full<Bytes>>,
    endpoint: usize,
}

struct Shared {
    config: Config,
    endpoints: Vec<Endpoint>,
    preferred: AtomicUsize,
    open: Mutex<Option<Open>>,
}

/// A client of the API, cheap to clone; clones share one connection.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

impl Client {
    /// Makes a client; nothing is connected yet.
    ///
    /// # Errors
    /// Unusable servers, certificates or keys.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        config.tls()?;
        let endpoints =
            config.servers.iter().map(|s| endpoint(s)).collect::<Result<Vec<_>, _>>()?;
        if endpoints.is_empty() {
            return Err(ConfigError::NoServer);
        }
        Ok(Self {
            shared: Arc::new(Shared {
                config,
                endpoints,
                preferred: AtomicUsize::new(0),
                open: Mutex::new(None),
            }),
        })
    }

    /// The settings the client was made with.
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// Closes the connection; the next call opens a new one (with renewed certificates).
    pub async fn reconnect(&self) {
        *self.shared.open.lock().await = None;
    }

    /// Moves to the next server, for example because the present one cannot reach its store.
    pub async fn fail_over(&self) {
        self.prefer_next();
        self.reconnect().await;
    }

    fn prefer_next(&self) {
        let next = self.shared.preferred.load(Ordering::Relaxed) + 1;
        self.shared.preferred.store(next % self.shared.endpoints.len(), Ordering::Relaxed);
    }

    /// Sends a request and returns the answer's head; the body is still to be read.
    ///
    /// # Errors
    /// No server could be reached, or the answer was lost.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        accept: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, SendError> {
        let mut last = String::new();
        // Once around, and once more for a connection that died unnoticed.
        for _ in 0..=self.shared.endpoints.len() {
            let (mut sender, endpoint) = match self.sender().await {
                Ok(open) => open,
                Err(SendError::Unreachable(error)) => {
                    last = error;
                    self.prefer_next();
                    continue;
                }
                Err(error) => return Err(error),
            };
            let request =
                self.build(endpoint, method.clone(), path, content_type, accept, body.clone())?;
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(response),
                Err(mut error) => {
                    let unsent = error.take_message().is_some();
                    self.drop_connection(endpoint).await;
                    last = chain(&error.into_error());
                    if !unsent {
                        return Err(SendError::Lost(last));
                    }
                }
            }
        }
        Err(SendError::Unreachable(last))
    }

    /// Sends a request and returns status code and body.
    ///
    /// # Errors
    /// As [`Client::send`], or the body was lost or came too late.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Bytes,
    ) -> Result<(u16, Bytes), SendError> {
        let exchange = async {
            let response = self.send(method, path, content_type, "application/json", body).await?;
            let code = response.status().as_u16();
            let body = Limited::new(response.into_body(), BODY_MAX)
                .collect()
                .await
                .map_err(|error| SendError::Lost(error.to_string()))?;
            Ok((code, body.to_bytes()))
        };
        match tokio::time::timeout(CALL_TIMEOUT, exchange).await {
            Ok(result) => result,
            Err(_) => {
                self.fail_over().await;
                Err(SendError::Lost(format!("no answer within {CALL_TIMEOUT:?}")))
            }
        }
    }

    fn build(
        &self,
        endpoint: usize,
        method: Method,
        path: &str,
        content_type: &str,
        accept: &str,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, SendError> {
        let config = &self.shared.config;
        let uri = format!("https://{}{path}", self.shared.endpoints[endpoint].authority);
        let mut builder = Request::builder()
            .method(method)
            .uri(uri)
            .header(header::ACCEPT, accept)
            .header(header::USER_AGENT, &config.user_agent);
        if !content_type.is_empty() {
            builder = builder.header(header::CONTENT_TYPE, content_type);
        }
        if let Credentials::Token(token) = &config.credentials {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
                .map_err(|_| SendError::Config("the token has illegal characters".into()))?;
            value.set_sensitive(true);
            builder = builder.header(header::AUTHORIZATION, value);
        }
        builder.body(Full::new(body)).map_err(|error| SendError::Config(error.to_string()))
    }

    async fn sender(&self) -> Result<(SendRequest<Full<Bytes>>, usize), SendError> {
        let mut open = self.shared.open.lock().await;
        if let Some(o) = open.as_ref().filter(|o| !o.sender.is_closed()) {
            return Ok((o.sender.clone(), o.endpoint));
        }
        let endpoint = self.shared.preferred.load(Ordering::Relaxed) % self.shared.endpoints.len();
        let sender = tokio::time::timeout(CONNECT_TIMEOUT, self.connect(endpoint))
            .await
            .unwrap_or_else(|_| {
                Err(SendError::Unreachable(format!(
                    "{}: no connection within {CONNECT_TIMEOUT:?}",
                    self.shared.endpoints[endpoint].authority
                )))
            })?;
        *open = Some(Open { sender: sender.clone(), endpoint });
        Ok((sender, endpoint))
    }

    async fn drop_connection(&self, endpoint: usize) {
        let mut open = self.shared.open.lock().await;
        if open.as_ref().is_some_and(|o| o.endpoint == endpoint && o.sender.is_closed()) {
            *open = None;
        }
    }

    async fn connect(&self, endpoint: usize) -> Result<SendRequest<Full<Bytes>>, SendError> {
        let Endpoint { authority, address, name } = &self.shared.endpoints[endpoint];
        let unreachable = |error: &dyn std::error::Error| {
            SendError::Unreachable(format!("{authority}: {}", chain(error)))
        };
        let tls = self.shared.config.tls().map_err(|e| SendError::Config(chain(&e)))?;
        let tcp = TcpStream::connect(address).await.map_err(|e| unreachable(&e))?;
        tcp.set_nodelay(true).map_err(|e| unreachable(&e))?;
        let stream = TlsConnector::from(tls)
            .connect(name.clone(), tcp)
            .await
            .map_err(|e| unreachable(&e))?;
        let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING)
            .keep_alive_while_idle(true)
            .initial_connection_window_size(4 << 20)
            .initial_stream_window_size(1 << 20)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|e| unreachable(&e))?;
        let server = authority.clone();
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(
                    server,
                    error = chain(&error),
                    "connection to the API server ended"
                );
            }
        });
        Ok(sender)
    }
}

fn endpoint(server: &str) -> Result<Endpoint, ConfigError> {
    let bad = || ConfigError::Server(server.to_owned());
    let authority = server.strip_prefix("https://").ok_or_else(bad)?.trim_end_matches('/');
    let uri: http::uri::Authority = authority.parse().map_err(|_| bad())?;
    let host = uri.host().trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().unwrap_or(443);
    let name = ServerName::try_from(host.to_owned()).map_err(|_| bad())?;
    let address =
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    Ok(Endpoint { authority: address.clone(), address, name })
}

/// An error with all its sources, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
