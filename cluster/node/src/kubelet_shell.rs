//! The shell around [`kubelet::Kubelet`]: feeds it the API's watches, Docker's events and the
//! manifest directory, and carries out what it decides.

mod manifests;
mod pod_source;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::{ApiError, ApiObject, Kind, Object, Reply, Request, codec};
use bollard::Docker;
use client::{Client, Clock, WatchSpec};
use http::Method;
use k8s_openapi::api::authentication::v1::TokenRequest;
use kubelet::{Kubelet, KubeletConfig, NodeEffect, NodeInput, RuntimeInput, RuntimeRequest};
use machine::{ApiEffect, ApiInput, Machine, Recorder, Report, WatchEvent};
use tokio::sync::{Semaphore, mpsc, watch};

use crate::docker::{Runtime, watch_events};

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
    /// MTU of the pod network, bytes.
    pub mtu: u32,
    /// The resolver file that pods' own are made from.
    pub resolv_conf: PathBuf,
}

/// A kubelet that is about to run, and what its server needs to know of it.
pub struct KubeletShell {
    config: ShellConfig,
    machine: Arc<Mutex<Kubelet>>,
}

impl KubeletShell {
    /// Makes the kubelet of this node.
    pub fn new(config: ShellConfig) -> Self {
        let machine = Arc::new(Mutex::new(Kubelet::new(config.kubelet.clone())));
        Self { config, machine }
    }

    /// The pods of this kubelet, for its server.
    pub fn pods(&self) -> KubeletPods {
        KubeletPods::new(Arc::clone(&self.machine))
    }

    /// Runs the kubelet until `shutdown` turns true. Containers keep running.
    pub async fn run(self, client: Client, docker: Docker, mut shutdown: watch::Receiver<bool>) {
        let clock = Clock::new();
        let (inputs, mut incoming) = mpsc::channel::<NodeInput>(INPUTS_MAX);
        let root = PathBuf::from(&self.config.kubelet.root_dir);
        let tasks = self.sources(&client, &docker, &inputs);
        let runtime = Runtime::new(docker, &root, &self.config.resolv_conf, self.config.mtu);
        let hands = Hands::new(client, runtime, inputs);
        let mut effects = Vec::new();
        let mut next = NodeInput::Wake;
        loop {
            let wake = {
                let mut machine = self.machine.lock().unwrap_or_else(PoisonError::into_inner);
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

    /// Starts what brings news.
    fn sources(
        &self,
        client: &Client,
        docker: &Docker,
        inputs: &mpsc::Sender<NodeInput>,
    ) -> Vec<tokio::task::JoinHandle<()>> {
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
            let inputs = inputs.clone();
            tasks.push(tokio::spawn(async move {
                while let Some(event) = events.recv().await {
                    if inputs.send(NodeInput::Api(ApiInput::Watch(event))).await.is_err() {
                        return;
                    }
                }
            }));
        }
        tasks.push(tokio::spawn(watch_events(docker.clone(), inputs.clone())));
        let directory = self.config.static_pod_path.clone();
        tasks.push(tokio::spawn(manifests::watch(directory, inputs.clone())));
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
struct Hands {
    client: Client,
    runtime: Runtime,
    inputs: mpsc::Sender<NodeInput>,
    calls: Arc<Semaphore>,
    records: mpsc::Sender<Box<Report>>,
}

impl Hands {
    fn new(client: Client, runtime: Runtime, inputs: mpsc::Sender<NodeInput>) -> Self {
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
        Self { client, runtime, inputs, calls: Arc::new(Semaphore::new(CALLS_MAX)), records }
    }

    fn carry_out(&self, effects: &mut Vec<NodeEffect>) {
        for effect in effects.drain(..) {
            match effect {
                NodeEffect::Api(ApiEffect::Record(report)) => {
                    if self.records.try_send(report).is_err() {
                        tracing::debug!("too many events: one is dropped");
                    }
                }
                NodeEffect::Api(ApiEffect::Call { id, request }) => {
                    let client = self.client.clone();
                    let inputs = self.inputs.clone();
                    let calls = Arc::clone(&self.calls);
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
                    let runtime = self.runtime.clone();
                    let inputs = self.inputs.clone();
                    tokio::spawn(async move {
                        let what = subject(&request);
                        let result = runtime.call(request).await;
                        if let Err(error) = &result {
                            tracing::warn!(%error, %what, "runtime call failed");
                        }
                        let reply = RuntimeInput::Reply { id, result };
                        let _ = inputs.send(NodeInput::Runtime(reply)).await;
                    });
                }
            }
        }
    }
}

/// A request in a few words, for the log: specifications hold secrets.
fn subject(request: &RuntimeRequest) -> String {
    match request {
        RuntimeRequest::List => "list".to_owned(),
        RuntimeRequest::ReadFacts => "read facts".to_owned(),
        RuntimeRequest::Inspect { id } => format!("inspect {id}"),
        RuntimeRequest::EnsureNetwork { pod_cidr } => format!("network {pod_cidr}"),
        RuntimeRequest::StartSandbox(spec) => format!("start {}", spec.name),
        RuntimeRequest::StartContainer(spec) => format!("start {}", spec.name),
        RuntimeRequest::Stop { id, .. } => format!("stop {id}"),
        RuntimeRequest::Remove { id } => format!("remove {id}"),
        RuntimeRequest::InspectImage { image } => format!("inspect image {image}"),
        RuntimeRequest::PullImage { image } => format!("pull {image}"),
        RuntimeRequest::Probe { container_id, .. } => format!("probe {container_id}"),
        RuntimeRequest::PrepareVolumes { folder, .. } => format!("volumes of {folder}"),
        RuntimeRequest::RemovePodFolder { uid } => format!("remove the folder of {uid}"),
        RuntimeRequest::RemoveLocalVolume { name } => format!("remove the volume {name}"),
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
