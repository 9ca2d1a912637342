//! [`Extended`]: asks the scheduler's extenders over HTTP, and the API everything else.

mod tls;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use api::{ApiError, ExtenderVerb, Reply, Request};
use bytes::Bytes;
use client::{Caller, Client};
use http::{Method, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use scheduler::{ExtenderConfig, ExtenderTls};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use tls::Tls;

/// No answer is larger: nodes of a large cluster, whole.
const ANSWER_MAX: usize = 256 << 20;
/// Connections to an extender that wait for the next question; more are closed.
const IDLE_MAX: usize = 4;

type Sender = SendRequest<Full<Bytes>>;

/// The API and the extenders.
#[derive(Clone)]
pub(crate) struct Extended {
    client: Client,
    extenders: Arc<Extenders>,
}

impl Extended {
    pub(crate) fn new(client: Client, extenders: Extenders) -> Self {
        Self { client, extenders: Arc::new(extenders) }
    }
}

impl Caller for Extended {
    async fn call(&self, request: Request) -> Result<Reply, ApiError> {
        match request {
            Request::Extend { extender, verb, body } => {
                self.extenders.ask(extender, verb, body).await
            }
            other => self.client.request(other).await,
        }
    }
}

/// How all extenders are reached.
#[derive(Default)]
pub(crate) struct Extenders(Vec<Extender>);

struct Extender {
    /// What its addresses begin with, without a slash at the end.
    prefix: String,
    host: String,
    port: u16,
    tls: Option<Tls>,
    config: ExtenderConfig,
    /// Connections that wait for the next question.
    idle: Mutex<Vec<Sender>>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("{0}")]
    Unsent(String),
    #[error("{0}")]
    Lost(String),
    #[error("failed {action} with extender at URL {url}, code {code}")]
    Refused { action: String, url: String, code: u16 },
}

impl Extenders {
    /// Makes them of a configuration; nothing is connected yet.
    pub(crate) fn load(
        configs: &[ExtenderConfig],
        tls: &[Option<ExtenderTls>],
    ) -> anyhow::Result<Self> {
        let load = |(i, config): (usize, &ExtenderConfig)| {
            let tls = tls.get(i).and_then(Option::as_ref);
            Extender::load(config, tls).with_context(|| format!("extenders[{i}]"))
        };
        Ok(Self(configs.iter().enumerate().map(load).collect::<Result<_, _>>()?))
    }

    async fn ask(
        &self,
        extender: u32,
        verb: ExtenderVerb,
        body: String,
    ) -> Result<Reply, ApiError> {
        let found = usize::try_from(extender).ok().and_then(|number| self.0.get(number));
        let found = found
            .ok_or_else(|| ApiError::Unreachable(format!("there is no extender {extender}")))?;
        let action = found.action(verb);
        let url = format!("{}/{action}", found.prefix);
        let limit = Duration::from_millis(found.config.timeout_milliseconds);
        let asked = tokio::time::timeout(limit, found.ask(&url, action, Bytes::from(body))).await;
        let error = match asked {
            Ok(Ok(answer)) => return Ok(Reply::Text(answer)),
            Ok(Err(AskError::Unsent(why))) => ApiError::Unreachable(format!("Post {url:?}: {why}")),
            Ok(Err(AskError::Lost(why))) => ApiError::Unknown(format!("Post {url:?}: {why}")),
            Ok(Err(error)) => ApiError::Unknown(error.to_string()),
            Err(_) => ApiError::Unknown(format!(
                "Post {url:?}: context deadline exceeded: no answer within {limit:?}"
            )),
        };
        tracing::warn!(extender = found.prefix, %error, "an extender did not answer");
        Err(error)
    }
}

impl Extender {
    fn load(config: &ExtenderConfig, tls: Option<&ExtenderTls>) -> anyhow::Result<Self> {
        let prefix = config.url_prefix.trim_end_matches('/');
        let uri: Uri = prefix.parse().with_context(|| format!("urlPrefix {prefix:?}"))?;
        let host = uri.host().with_context(|| format!("urlPrefix {prefix:?} names no host"))?;
        let secure = uri.scheme_str() == Some("https");
        ensure!(
            !uri.authority().is_some_and(|authority| authority.as_str().contains('@')),
            "urlPrefix must not hold a user: name a client certificate in tlsConfig instead"
        );
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let tls = tls.filter(|_| secure).map(|tls| Tls::new(tls, host)).transpose()?;
        ensure!(tls.is_some() == secure, "urlPrefix {prefix:?} needs TLS, or must not have it");
        Ok(Self {
            host: host.to_owned(),
            port: uri.port_u16().unwrap_or(if secure { 443 } else { 80 }),
            prefix: prefix.to_owned(),
            tls,
            config: config.clone(),
            idle: Mutex::new(Vec::new()),
        })
    }

    fn action(&self, verb: ExtenderVerb) -> &str {
        match verb {
            ExtenderVerb::Filter => &self.config.filter_verb,
            ExtenderVerb::Prioritize => &self.config.prioritize_verb,
            ExtenderVerb::Preempt => &self.config.preempt_verb,
            ExtenderVerb::Bind => &self.config.bind_verb,
        }
    }

    async fn ask(&self, url: &str, action: &str, body: Bytes) -> Result<String, AskError> {
        let (sender, response) = self.send(url, body).await?;
        let code = response.status();
        if code != StatusCode::OK {
            let (action, url) = (action.to_owned(), url.to_owned());
            return Err(AskError::Refused { action, url, code: code.as_u16() });
        }
        let answer = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
        let answer = answer.map_err(|error| AskError::Lost(error.to_string()))?.to_bytes();
        self.keep(sender);
        String::from_utf8(answer.into())
            .map_err(|_| AskError::Lost("the answer is no text".to_owned()))
    }

    /// Sends a question over a connection that waits, or else a new one.
    async fn send(
        &self,
        url: &str,
        body: Bytes,
    ) -> Result<(Sender, http::Response<Incoming>), AskError> {
        let unsent = |error: &dyn std::error::Error| AskError::Unsent(error.to_string());
        let uri: Uri = url.parse().map_err(|error: http::uri::InvalidUri| unsent(&error))?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let authority = uri.authority().map_or("", |authority| authority.as_str()).to_owned();
        let build = || {
            http::Request::builder()
                .method(Method::POST)
                .uri(&path)
                .header(header::HOST, &authority)
                .header(header::CONTENT_TYPE, "application/json")
                .header(header::USER_AGENT, "kube-scheduler")
                .body(Full::new(body.clone()))
                .map_err(|error| unsent(&error))
        };
        // One that waited may have been closed by the extender: then nothing was sent.
        while let Some(mut sender) = self.take() {
            match attempt(&mut sender, build()?).await {
                Err(AskError::Unsent(_)) => {}
                result => return Ok((sender, result?)),
            }
        }
        let mut sender = self.connect().await.map_err(|e| AskError::Unsent(format!("{e:#}")))?;
        let response = attempt(&mut sender, build()?).await?;
        Ok((sender, response))
    }

    fn take(&self) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        std::iter::from_fn(|| idle.pop()).find(|sender| !sender.is_closed())
    }

    fn keep(&self, sender: Sender) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|sender| !sender.is_closed());
        if idle.len() < IDLE_MAX {
            idle.push(sender);
        }
    }

    async fn connect(&self) -> anyhow::Result<Sender> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            None => self.handshake(stream).await,
            Some(tls) => {
                let stream = tls.connect(stream).await?;
                self.handshake(stream).await
            }
        }
    }

    async fn handshake<S>(&self, stream: S) -> anyhow::Result<Sender>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let extender = self.prefix.clone();
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(extender, %error, "the connection to an extender ended");
            }
        });
        Ok(sender)
    }
}

async fn attempt(
    sender: &mut Sender,
    request: http::Request<Full<Bytes>>,
) -> Result<http::Response<Incoming>, AskError> {
    sender.try_send_request(request).await.map_err(|mut error| {
        let unsent = error.take_message().is_some();
        let why = error.into_error().to_string();
        if unsent { AskError::Unsent(why) } else { AskError::Lost(why) }
    })
}
