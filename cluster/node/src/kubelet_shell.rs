//! The shell around [`kubelet::Kubelet`]: feeds it the API's watches, the runtime's events and the
//! manifest directory, and carries out what it decides.

mod manifests;
mod pod_source;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::{ApiError, ApiObject, Kind, Object, Reply, Request, codec};
use client::{Client, Clock, WatchSpec};
use futures::future::BoxFuture;
use http::Method;
use k8s_openapi::api::authentication::v1::TokenRequest;
use kubelet::{Kubelet, KubeletConfig, NodeEffect, NodeInput, RuntimeRequest};
use machine::{ApiEffect, ApiInput, CallId, Machine, Recorded, Recorder, Report, WatchEvent};
use tokio::sync::{Semaphore, mpsc, watch};

pub use pod_source::KubeletPods;

/// Inputs waiting for the kubelet; the watches pause when it is full.
const INPUTS_MAX: usize = 1_024;
/// API calls under way at a time; more wait.
const CALLS_MAX: usize = 32;
/// Events waiting to be written; more are dropped.
const RECORDS_MAX: usize = 512;

/// What the shell is configured with.
#[derive(Clone, Debug)]
pub struct ShellConfig {
    /// What the kubelet is configured with.
    pub kubelet: KubeletConfig,
    /// The manifest directory of static pods.
    pub static_pod_path: Option<PathBuf>,
}

/// What runs the containers of a kubelet.
pub trait NodeRuntime: Send + Sync + 'static {
    /// Sends what happens without being asked for, until the receiver is gone.
    fn watch(&self, inputs: mpsc::Sender<NodeInput>) -> BoxFuture<'static, ()>;

    /// Begins to carry out a request; its one answer goes to `inputs`.
    fn request(&self, id: CallId, request: RuntimeRequest, inputs: &mpsc::Sender<NodeInput>);
}

/// The way to the API; kubelets of one process may share it.
#[derive(Clone)]
pub struct ApiAccess {
    client: Client,
    calls: Arc<Semaphore>,
    records: mpsc::Sender<Box<Report>>,
}

impl ApiAccess {
    /// Carries calls out by `client`, at most `calls_max` at a time, and writes events one by one.
    pub fn new(client: Client, calls_max: usize) -> Self {
        let (records, mut queue) = mpsc::channel::<Box<Report>>(RECORDS_MAX);
        let writer = client.clone();
        tokio::spawn(async move {
            let mut recorder = Recorder::default();
            while let Some(report) = queue.recv().await {
                if let Err(error) = writer.request(recorder.write(&report)).await {
                    tracing::debug!(%error, "event not written");
                }
            }
        });
        Self { client, calls: Arc::new(Semaphore::new(calls_max)), records }
    }
}

/// A kubelet that is about to run, and what its server needs to know of it.
pub struct KubeletShell {
    config: ShellConfig,
    machine: Arc<Mutex<Recorded<Kubelet>>>,
    inputs: mpsc::Sender<NodeInput>,
    incoming: mpsc::Receiver<NodeInput>,
}

impl KubeletShell {
    /// Takes the kubelet of this node, which has the configuration that is in `config`.
    pub fn new(config: ShellConfig, kubelet: Recorded<Kubelet>) -> Self {
        let machine = Arc::new(Mutex::new(kubelet));
        let (inputs, incoming) = mpsc::channel(INPUTS_MAX);
        Self { config, machine, inputs, incoming }
    }

    /// The pods of this kubelet, for its server.
    pub fn pods(&self) -> KubeletPods {
        KubeletPods::new(Arc::clone(&self.machine))
    }

    /// Takes news for this kubelet.
    pub(crate) fn inputs(&self) -> mpsc::Sender<NodeInput> {
        self.inputs.clone()
    }

    /// Watches the API for this kubelet alone and runs it until `shutdown` turns true. Containers
    /// keep running.
    pub async fn run(
        self,
        client: Client,
        runtime: impl NodeRuntime,
        shutdown: watch::Receiver<bool>,
    ) {
        let watches = self.watches(&client);
        self.drive(ApiAccess::new(client, CALLS_MAX), runtime, shutdown).await;
        for task in watches {
            task.abort();
        }
    }

    /// Runs the kubelet until `shutdown` turns true; somebody else sends it what its watches tell.
    pub(crate) async fn drive(
        self,
        api: ApiAccess,
        runtime: impl NodeRuntime,
        mut shutdown: watch::Receiver<bool>,
    ) {
        let Self { config, machine, inputs, mut incoming } = self;
        let clock = Clock::new();
        let tasks = [
            tokio::spawn(runtime.watch(inputs.clone())),
            tokio::spawn(manifests::watch(config.static_pod_path, inputs.clone())),
        ];
        let hands = Hands { api, runtime, inputs };
        let mut effects = Vec::new();
        let mut next = NodeInput::Wake;
        loop {
            let wake = {
                let mut machine = machine.lock().unwrap_or_else(PoisonError::into_inner);
                machine.step(clock.now(), next, &mut effects);
                machine.wake_at()
            };
            hands.carry_out(&mut effects);
            let pause = wake.map(|at| at.since(clock.now()));
            next = tokio::select! {
                biased;
                _ = shutdown.wait_for(|stop| *stop) => break,
                Some(input) = incoming.recv() => input,
                () = pause_for(pause) => NodeInput::Wake,
            };
        }
        for task in tasks {
            task.abort();
        }
    }

    /// Watches what concerns this node.
    fn watches(&self, client: &Client) -> Vec<tokio::task::JoinHandle<()>> {
        let name = &self.config.kubelet.node_name;
        let specs = [
            WatchSpec::fields(Kind::Pod, &format!("spec.nodeName={name}")),
            WatchSpec::fields(Kind::Node, &format!("metadata.name={name}")),
            WatchSpec::all(Kind::Service),
        ];
        let mut tasks = Vec::new();
        for spec in specs {
            let (sink, mut events) = mpsc::channel::<WatchEvent>(64);
            tasks.push(tokio::spawn(client::watch(client.clone(), spec, sink)));
            let inputs = self.inputs.clone();
            tasks.push(tokio::spawn(async move {
                while let Some(event) = events.recv().await {
                    if inputs.send(NodeInput::Api(ApiInput::Watch(event))).await.is_err() {
                        return;
                    }
                }
            }));
        }
        tasks
    }
}

async fn pause_for(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}

/// Carries effects out.
struct Hands<R> {
    api: ApiAccess,
    runtime: R,
    inputs: mpsc::Sender<NodeInput>,
}

impl<R: NodeRuntime> Hands<R> {
    fn carry_out(&self, effects: &mut Vec<NodeEffect>) {
        for effect in effects.drain(..) {
            match effect {
                NodeEffect::Api(ApiEffect::Record(report)) => {
                    if self.api.records.try_send(report).is_err() {
                        tracing::debug!("too many events: one is dropped");
                    }
                }
                NodeEffect::Api(ApiEffect::Call { id, request }) => {
                    let client = self.api.client.clone();
                    let inputs = self.inputs.clone();
                    let calls = Arc::clone(&self.api.calls);
                    tokio::spawn(async move {
                        let Ok(_slot) = calls.acquire().await else { return };
                        let result = call(&client, request).await;
                        if let Err(error) = &result {
                            tracing::debug!(%error, "API call failed");
                        }
                        let reply = ApiInput::Reply { id, result };
                        let _ = inputs.send(NodeInput::Api(reply)).await;
                    });
                }
                NodeEffect::Runtime { id, request } => {
                    self.runtime.request(id, request, &self.inputs);
                }
            }
        }
    }
}

/// Carries out an API request. Tokens are made by a subresource of their service account.
async fn call(client: &Client, request: Request) -> Result<Reply, ApiError> {
    let Request::Create(object) = &request else { return client.request(request).await };
    let Some(token) = object.get::<TokenRequest>() else { return client.request(request).await };
    let namespace = token.metadata.namespace.as_deref().unwrap_or_default();
    let account = token.metadata.name.as_deref().unwrap_or_default();
    let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
    let body = TokenRequest { metadata: token.metadata.clone(), ..token.clone() };
    let text = String::from_utf8_lossy(&codec::encode(&body.into_object())).into_owned();
    let answer = client.json(Method::POST, &path, "application/json", text).await?;
    let object: Object = codec::decode_value(Kind::TokenRequest, &answer)
        .map_err(|error| ApiError::Unknown(error.to_string()))?;
    Ok(Reply::Object(object))
}
