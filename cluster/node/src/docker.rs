//! Docker as the kubelet's container runtime: carries out [`kubelet::RuntimeRequest`]s.
//!
//! Containers of ours carry the label [`kubelet::naming::OWNER`]; no other is ever touched.

mod create;
mod error;
mod events;
mod image;
mod network;
mod record;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bollard::Docker;
use bollard::query_parameters::{
    KillContainerOptionsBuilder, RemoveContainerOptionsBuilder, StopContainerOptionsBuilder,
};
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use kubelet::runtime::ContainerRecord;
use kubelet::{
    NodeInput, RuntimeError, RuntimeErrorKind, RuntimeInput, RuntimeReply, RuntimeRequest,
};
use machine::CallId;
use tokio::sync::mpsc;

use crate::kubelet_shell::NodeRuntime;
use crate::{node_facts, probes, volumes};

pub(crate) use error::{chain, plain as plain_error};

/// The bridge that pods are attached to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PodBridge {
    /// `cni0`, of a network that the kubelet makes.
    #[default]
    Cni0,
    /// `docker0`, the daemon's own, which it must have been started with on the node's pod range.
    Docker0,
    /// `kbr0`, which flanneld makes a port of Open vSwitch's tunnels; the kubelet's network is put
    /// on it.
    Kbr0,
}

impl PodBridge {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Cni0, Self::Docker0, Self::Kbr0];

    /// The name of the Linux bridge.
    pub const fn device(self) -> &'static str {
        match self {
            Self::Cni0 => "cni0",
            Self::Docker0 => "docker0",
            Self::Kbr0 => "kbr0",
        }
    }

    /// The name of its Docker network.
    pub(crate) const fn network(self) -> &'static str {
        match self {
            Self::Cni0 | Self::Kbr0 => "kprov",
            Self::Docker0 => "bridge",
        }
    }
}

impl std::str::FromStr for PodBridge {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|bridge| bridge.device() == text);
        found.ok_or_else(|| format!("{text:?} is no bridge of pods: use cni0, docker0 or kbr0"))
    }
}

/// A call that Docker does not answer in this time has failed.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);
/// A pull may take this long.
const PULL_TIMEOUT: Duration = Duration::from_secs(1800);

/// Docker on this node.
#[derive(Clone)]
pub struct Runtime {
    docker: Docker,
    root_dir: PathBuf,
    resolv_conf: PathBuf,
    /// MTU of the pod network, bytes.
    mtu: u32,
    bridge: PodBridge,
    /// Whether this machine refuses to spare processes from the OOM killer.
    no_negative_oom: Arc<AtomicBool>,
}

impl Runtime {
    /// Speaks to the daemon through `docker`; pod folders are below `root_dir`, pods' resolver
    /// files are made from `resolv_conf`, and pods are attached to `bridge`.
    pub fn new(
        docker: Docker,
        root_dir: &Path,
        resolv_conf: &Path,
        mtu: u32,
        bridge: PodBridge,
    ) -> Self {
        Self {
            docker,
            root_dir: root_dir.to_owned(),
            resolv_conf: resolv_conf.to_owned(),
            mtu,
            bridge,
            no_negative_oom: Arc::new(AtomicBool::new(false)),
        }
    }

    /// Opens the daemon's socket. The daemon may be restarted meanwhile.
    ///
    /// # Errors
    /// There is no such socket.
    pub fn connect(socket: &Path) -> Result<Docker, bollard::errors::Error> {
        let path = socket.to_string_lossy();
        let version = bollard::API_DEFAULT_VERSION;
        Docker::connect_with_unix(&path, CALL_TIMEOUT.as_secs(), version)
    }

    /// Carries out a request, or gives up when Docker does not answer.
    async fn call(&self, request: RuntimeRequest) -> Result<RuntimeReply, RuntimeError> {
        let limit = match &request {
            RuntimeRequest::Stop { grace_seconds, .. } => {
                CALL_TIMEOUT + Duration::from_secs(u64::from(*grace_seconds))
            }
            RuntimeRequest::Probe { timeout_seconds, .. } => {
                CALL_TIMEOUT + Duration::from_secs(u64::from(*timeout_seconds))
            }
            RuntimeRequest::PullImage { .. } => PULL_TIMEOUT,
            _ => CALL_TIMEOUT,
        };
        match tokio::time::timeout(limit, self.carry_out(request)).await {
            Ok(result) => result,
            Err(_) => Err(RuntimeError {
                kind: RuntimeErrorKind::Other,
                message: format!("context deadline exceeded: no answer within {limit:?}"),
            }),
        }
    }

    async fn carry_out(&self, request: RuntimeRequest) -> Result<RuntimeReply, RuntimeError> {
        match request {
            RuntimeRequest::List => self.list().await,
            RuntimeRequest::Inspect { id } => self.record(&id).await.map(container),
            RuntimeRequest::ReadFacts => {
                let facts =
                    node_facts::read(&self.docker, &self.root_dir, &self.resolv_conf).await?;
                Ok(RuntimeReply::Facts(Box::new(facts)))
            }
            RuntimeRequest::EnsureNetwork { pod_cidr } => {
                self.ensure_network(&pod_cidr).await.map(|()| RuntimeReply::Done)
            }
            RuntimeRequest::StartSandbox(spec) => self.start_sandbox(&spec).await.map(container),
            RuntimeRequest::StartContainer(spec) => {
                self.start_container(&spec).await.map(container)
            }
            RuntimeRequest::Stop { id, grace_seconds } => self.stop(&id, grace_seconds).await,
            RuntimeRequest::Remove { id } => self.remove(&id).await.map(|()| RuntimeReply::Done),
            RuntimeRequest::InspectImage { image } => {
                self.inspect_image(&image).await.map(RuntimeReply::Image)
            }
            RuntimeRequest::PullImage { image } => {
                self.pull_image(&image).await.map(RuntimeReply::Image)
            }
            RuntimeRequest::Probe { container_id, action, timeout_seconds } => {
                let timeout = Duration::from_secs(u64::from(timeout_seconds.max(1)));
                let outcome = probes::run(&self.docker, &container_id, &action, timeout).await?;
                Ok(RuntimeReply::Probe(outcome))
            }
            RuntimeRequest::PrepareVolumes { folder, volumes: specs, fs_group } => {
                let folder = PathBuf::from(folder);
                blocking(move || volumes::prepare(&folder, &specs, fs_group)).await?;
                Ok(RuntimeReply::Done)
            }
            RuntimeRequest::RemovePod { containers, uid } => {
                let removals = containers.iter().map(|id| self.remove(id));
                let removed: Result<(), RuntimeError> =
                    join_all(removals).await.into_iter().collect();
                let folder = self.remove_folder(uid).await;
                removed.and(folder)
            }
            RuntimeRequest::RemovePodFolder { uid } => self.remove_folder(uid).await,
            RuntimeRequest::RemoveLocalVolume { name } => {
                let root = PathBuf::from(api::volume::LOCAL_FOLDER);
                blocking(move || volumes::remove_local(&root, &name)).await?;
                Ok(RuntimeReply::Done)
            }
        }
    }

    async fn stop(&self, id: &str, grace_seconds: u32) -> Result<RuntimeReply, RuntimeError> {
        let result = if grace_seconds == 0 {
            let options = KillContainerOptionsBuilder::new().signal("SIGKILL").build();
            let result = self.docker.kill_container(id, Some(options)).await;
            // Killing takes a moment; stopping waits for it.
            let options = StopContainerOptionsBuilder::new().t(1).build();
            result.and(self.docker.stop_container(id, Some(options)).await)
        } else {
            let seconds = i32::try_from(grace_seconds).unwrap_or(i32::MAX);
            let patience = CALL_TIMEOUT + Duration::from_secs(u64::from(grace_seconds));
            let docker = self.docker.clone().with_timeout(patience);
            let options = StopContainerOptionsBuilder::new().t(seconds).build();
            docker.stop_container(id, Some(options)).await
        };
        match result {
            // It is not running (304, 409) or not there (404): that is what was asked.
            Err(error) if !matches!(error::code(&error), Some(304 | 404 | 409)) => {
                Err(error::plain(&error))
            }
            _ => self.record(id).await.map(container),
        }
    }

    async fn remove_folder(&self, uid: String) -> Result<RuntimeReply, RuntimeError> {
        let root = self.root_dir.clone();
        blocking(move || volumes::remove_pod_folder(&root, &uid)).await?;
        Ok(RuntimeReply::Done)
    }

    async fn remove(&self, id: &str) -> Result<(), RuntimeError> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        match self.docker.remove_container(id, Some(options)).await {
            // It is gone, or being removed.
            Err(error) if !matches!(error::code(&error), Some(404 | 409)) => {
                Err(error::plain(&error))
            }
            _ => Ok(()),
        }
    }
}

impl NodeRuntime for Runtime {
    fn watch(&self, inputs: mpsc::Sender<NodeInput>) -> BoxFuture<'static, ()> {
        events::watch(self.clone(), inputs).boxed()
    }

    fn request(&self, id: CallId, request: RuntimeRequest, inputs: &mpsc::Sender<NodeInput>) {
        let (runtime, inputs) = (self.clone(), inputs.clone());
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
        RuntimeRequest::RemovePod { uid, .. } => format!("remove what is left of {uid}"),
        RuntimeRequest::RemovePodFolder { uid } => format!("remove the folder of {uid}"),
        RuntimeRequest::RemoveLocalVolume { name } => format!("remove the volume {name}"),
    }
}

fn container(record: Option<ContainerRecord>) -> RuntimeReply {
    RuntimeReply::Container(record.map(Box::new))
}

/// Runs file system work where it may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, volumes::VolumeError> + Send + 'static,
) -> Result<T, RuntimeError> {
    let other = |message: String| RuntimeError { kind: RuntimeErrorKind::Other, message };
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|e| other(e.chain())),
        Err(error) => Err(other(error.to_string())),
    }
}
