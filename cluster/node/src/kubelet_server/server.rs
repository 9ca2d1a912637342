//! Answers requests: who calls, whether they may, and what they asked for.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use bollard::Docker;
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::access::Access;
use super::answer::{Answer, Refusal, json, of_type, text, whole};
use super::containers::Containers;
use super::exec::{self, Command};
use super::identity::{Identity, Tokens, unauthorized};
use super::logs::{self, LogOptions};
use super::port_forward;
use super::query::Query;
use super::route::{Route, Target};
use super::spdy::Session;
use super::spdy_command;
use super::stats::Stats;
use super::streams::{Outcome, Streams, Wanted};
use super::upgrade::Upgrade;
use super::websocket::{self, ByteStream, Version};

/// Shells, attached streams and port-forwards at the same time.
pub(crate) const SESSIONS_MAX: usize = 512;

/// Everything that answers need.
pub(crate) struct Server {
    pub(crate) docker: Docker,
    pub(crate) containers: Containers,
    pub(crate) tokens: Tokens,
    pub(crate) access: Access,
    pub(crate) stats: Stats,
    pub(crate) requests: Requests,
    /// Places for exec, attach and port-forward.
    pub(crate) sessions: Arc<Semaphore>,
    /// Cancelled when the server stops.
    pub(crate) stop: CancellationToken,
    /// Every task that outlives its request.
    pub(crate) tasks: TaskTracker,
}

/// How many requests were answered, by route and status code.
#[derive(Default)]
pub(crate) struct Requests {
    counts: Mutex<BTreeMap<(&'static str, u16), u64>>,
}

impl Requests {
    fn count(&self, route: &'static str, code: StatusCode) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry((route, code.as_u16())).or_default() += 1;
    }

    /// The counts so far.
    pub(crate) fn snapshot(&self) -> BTreeMap<(&'static str, u16), u64> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Server {
    /// Answers one request of a caller, who is known when it has a certificate.
    pub(crate) async fn answer(
        self: Arc<Self>,
        peer: Option<Identity>,
        request: Request<Incoming>,
    ) -> Answer {
        let route = Route::find(request.uri().path());
        let name = route.as_ref().map_or("other", Route::name);
        let answer = match self.admit(peer, route, &request).await {
            Ok(route) => Arc::clone(&self).act(route, request).await,
            Err(refusal) => Err(refusal),
        };
        let answer = answer.unwrap_or_else(Answer::from);
        self.requests.count(name, answer.status());
        answer
    }

    /// Finds out who calls and whether they may.
    async fn admit(
        &self,
        peer: Option<Identity>,
        route: Option<Route>,
        request: &Request<Incoming>,
    ) -> Result<Route, Refusal> {
        if route == Some(Route::Healthz) && request.method() == Method::GET {
            return Ok(Route::Healthz);
        }
        let who = match peer {
            Some(who) => Some(who),
            None => self.tokens.of_headers(request.headers()).await?,
        };
        let who = who.ok_or_else(unauthorized)?;
        self.access.check(&who, request.method(), request.uri().path()).await?;
        let route = route.ok_or_else(|| Refusal::not_found("404 page not found\n"))?;
        if !route.takes(request.method()) {
            let message = "405: Method Not Allowed";
            return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, message));
        }
        Ok(route)
    }

    async fn act(
        self: Arc<Self>,
        route: Route,
        request: Request<Incoming>,
    ) -> Result<Answer, Refusal> {
        let query = Query::parse(request.uri().query().unwrap_or_default());
        match route {
            Route::Healthz => Ok(text(StatusCode::OK, "ok")),
            Route::Version => Ok(text(StatusCode::OK, api::version::GIT_VERSION)),
            Route::Pods => Ok(self.pods()),
            Route::Logs(target) => {
                let options = LogOptions::parse(&query, Timestamp::now())?;
                let id = self.containers.of_log(&target, options.previous).await?;
                if self.containers.inspect(&id).await?.is_none() {
                    let why = format!("the container {:?} was removed\n", target.container);
                    return Err(Refusal::not_found(why));
                }
                Ok(logs::answer(&self.docker, &id, &options))
            }
            Route::Exec(target) => self.exec(&target, &query, request).await,
            Route::Attach(target) => self.attach(&target, &query, request).await,
            Route::PortForward(target) => self.port_forward(&target, request).await,
            Route::Summary => {
                let usage = self.stats.measure(&self.docker, &self.containers).await?;
                Ok(json(&usage.summary()))
            }
            Route::Metrics => {
                let listed = self.containers.all_running().await.map_err(Refusal::internal)?;
                Ok(metrics(self.stats.kubelet_metrics(&listed, &self.requests.snapshot())))
            }
            Route::ResourceMetrics => {
                let usage = self.stats.measure(&self.docker, &self.containers).await?;
                Ok(metrics(usage.metrics()))
            }
        }
    }

    fn pods(&self) -> Answer {
        let mut list = br#"{"kind":"PodList","apiVersion":"v1","metadata":{},"items":["#.to_vec();
        for (index, pod) in self.containers.pods().iter().enumerate() {
            if index > 0 {
                list.push(b',');
            }
            list.extend_from_slice(&api::codec::encode(pod));
        }
        list.extend_from_slice(b"]}");
        of_type(StatusCode::OK, "application/json", whole(list))
    }

    async fn exec(
        self: Arc<Self>,
        target: &Target,
        query: &Query,
        request: Request<Incoming>,
    ) -> Result<Answer, Refusal> {
        let wanted = Wanted::parse(query)?;
        let command = query.all("command");
        if command.is_empty() {
            return Err(Refusal::bad_request("you must specify at least one command"));
        }
        let container = self.containers.running(target).await?;
        let docker = self.docker.clone();
        self.command(wanted, request, async move |streams| {
            match Command::new(docker, &container.id, command, wanted).await {
                Ok(command) => command.run(streams).await,
                Err(error) => Outcome::Failed(error.to_string()),
            }
        })
    }

    async fn attach(
        self: Arc<Self>,
        target: &Target,
        query: &Query,
        request: Request<Incoming>,
    ) -> Result<Answer, Refusal> {
        let mut wanted = Wanted::parse(query)?;
        let container = self.containers.running(target).await?;
        if container.tty {
            wanted.stderr = false;
        }
        let docker = self.docker.clone();
        self.command(wanted, request, async move |streams| {
            exec::attach(&docker, container, wanted, streams).await
        })
    }

    /// Changes the protocol and runs something on the client's streams.
    fn command<F, R>(
        self: Arc<Self>,
        wanted: Wanted,
        mut request: Request<Incoming>,
        run: F,
    ) -> Result<Answer, Refusal>
    where
        F: FnOnce(Streams) -> R + Send + 'static,
        R: Future<Output = Outcome> + Send + 'static,
    {
        let upgrade = Upgrade::negotiate(request.headers(), Version::NAMES, spdy_command::VERSIONS);
        let upgrade = match upgrade {
            Ok(upgrade) => upgrade,
            Err(answer) => return Ok(*answer),
        };
        let place = self.place()?;
        let answer = upgrade.answer();
        let upgraded = hyper::upgrade::on(&mut request);
        let gone = self.stop.child_token();
        self.tasks.spawn(async move {
            let _place = place;
            let Ok(io) = upgraded.await else { return };
            let io = TokioIo::new(io);
            match upgrade {
                Upgrade::WebSocket { protocol, .. } => {
                    let version = Version::of(protocol);
                    let (streams, connection) = websocket::open(io, version, wanted, gone).await;
                    let outcome = run(streams).await;
                    connection.finish(&outcome).await;
                }
                Upgrade::Spdy { protocol } => {
                    let opened = spdy_command::open(io, protocol, wanted, gone).await;
                    let Some((streams, connection)) = opened else { return };
                    let outcome = run(streams).await;
                    connection.finish(&outcome).await;
                }
            }
        });
        Ok(answer)
    }

    fn place(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        Arc::clone(&self.sessions)
            .try_acquire_owned()
            .map_err(|_| Refusal::new(StatusCode::TOO_MANY_REQUESTS, "too many streaming sessions"))
    }

    async fn port_forward(
        self: Arc<Self>,
        target: &Target,
        mut request: Request<Incoming>,
    ) -> Result<Answer, Refusal> {
        let sandbox = self.containers.sandbox(target).await?;
        let upgrade = Upgrade::negotiate(
            request.headers(),
            &[port_forward::TUNNELED],
            &[port_forward::PROTOCOL],
        );
        let upgrade = match upgrade {
            Ok(upgrade) => upgrade,
            Err(answer) => return Ok(*answer),
        };
        let place = self.place()?;
        let answer = upgrade.answer();
        let upgraded = hyper::upgrade::on(&mut request);
        let gone = self.stop.child_token();
        let pod = format!("{}_{}", target.pod, target.namespace);
        self.tasks.spawn(async move {
            let _place = place;
            let Ok(io) = upgraded.await else { return };
            let io = TokioIo::new(io);
            let session = match upgrade {
                Upgrade::WebSocket { .. } => {
                    Session::start(ByteStream::new(io).await, gone.clone())
                }
                Upgrade::Spdy { .. } => Session::start(io, gone.clone()),
            };
            port_forward::serve(session, sandbox, pod, gone).await;
        });
        Ok(answer)
    }
}

fn metrics(body: String) -> Answer {
    of_type(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", whole(body))
}
