//! What the kubelet and its shell say to each other: closed, serializable enums.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::{Object, Time};
use machine::{ApiEffect, ApiInput, CallId};
use serde::{Deserialize, Serialize};

use crate::Labels;
use crate::volume::VolumeSpec;

/// What the kubelet is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum NodeInput {
    /// News from the API server.
    Api(ApiInput),
    /// The pods of the manifest directory, all of them, each time one changes.
    StaticPods(Vec<Object>),
    /// News from the container runtime.
    Runtime(RuntimeInput),
    /// The time that `wake_at` named has come.
    Wake,
}

/// What the shell must do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum NodeEffect {
    /// Speak to the API server.
    Api(ApiEffect),
    /// Speak to the container runtime; answered by one reply.
    Runtime {
        /// Names the answer.
        id: CallId,
        /// What to do.
        request: RuntimeRequest,
    },
}

/// News from the container runtime.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum RuntimeInput {
    /// Something happened that was not asked for.
    Event(RuntimeEvent),
    /// The answer to a request.
    Reply {
        /// The request.
        id: CallId,
        /// Its outcome.
        result: Result<RuntimeReply, RuntimeError>,
    },
}

/// Something the runtime did by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RuntimeEvent {
    /// The runtime answers (again).
    Connected,
    /// The runtime does not answer.
    Disconnected {
        /// Why.
        reason: String,
    },
    /// A container of ours started, died or was removed.
    ContainerChanged {
        /// The container.
        id: String,
        /// UID of its pod.
        pod_uid: String,
        /// Its name in the pod; [`crate::naming::SANDBOX`] for the pause container.
        container: String,
        /// The container as it was right after that, if whoever tells of it has looked; else the
        /// kubelet asks.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        record: Option<Box<ContainerRecord>>,
    },
}

/// What the runtime is asked to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum RuntimeRequest {
    /// Every container of ours, running or not, and every pod folder.
    List,
    /// One container, as it is now.
    Inspect {
        /// The container.
        id: String,
    },
    /// Measures the node.
    ReadFacts,
    /// Makes the pod network fit the range; does nothing when it does.
    EnsureNetwork {
        /// The node's share of the pod range.
        pod_cidr: String,
    },
    /// Creates and starts a pause container.
    StartSandbox(Box<SandboxSpec>),
    /// Creates and starts a container.
    StartContainer(Box<ContainerSpec>),
    /// Ends a container: TERM, then KILL when the time is over.
    Stop {
        /// The container.
        id: String,
        /// Seconds between the two.
        grace_seconds: u32,
    },
    /// Removes a container and its log, running or not.
    Remove {
        /// The container.
        id: String,
    },
    /// Looks for an image on the node.
    InspectImage {
        /// As in the pod.
        image: String,
    },
    /// Fetches an image.
    PullImage {
        /// As in the pod.
        image: String,
    },
    /// Probes a container once, or runs a lifecycle hook.
    Probe {
        /// The container.
        container_id: String,
        /// What to try.
        action: ProbeAction,
        /// When to give up.
        timeout_seconds: u32,
    },
    /// Writes the volumes of a pod; repeated when their content changes.
    PrepareVolumes {
        /// The pod's folder.
        folder: String,
        /// All volumes.
        volumes: Vec<VolumeSpec>,
        /// The group that owns what is written.
        fs_group: Option<i64>,
    },
    /// Removes what is left of a pod that is gone: containers that do not run, and its folder.
    RemovePod {
        /// The containers.
        containers: Vec<String>,
        /// The pod's UID.
        uid: String,
    },
    /// Removes the folder of a pod that is gone.
    RemovePodFolder {
        /// The pod's UID.
        uid: String,
    },
    /// Removes the folder of a provisioned volume, and all that it holds.
    RemoveLocalVolume {
        /// The volume's name.
        name: String,
    },
}

/// The answer to a [`RuntimeRequest`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum RuntimeReply {
    /// It is done.
    Done,
    /// To `List`.
    Listing {
        /// Containers of ours.
        containers: Vec<ContainerRecord>,
        /// UIDs that have a pod folder.
        folders: Vec<String>,
    },
    /// To `Inspect`, `StartSandbox` and `StartContainer`: the container, unless it is gone.
    Container(Option<Box<ContainerRecord>>),
    /// To `InspectImage` and `PullImage`: the image, unless it is not there.
    Image(Option<ImageRecord>),
    /// To `Probe`.
    Probe(ProbeOutcome),
    /// To `ReadFacts`.
    Facts(Box<NodeFacts>),
}

/// Which step of a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RuntimeErrorKind {
    /// The container could not be created.
    Create,
    /// The container was created and could not be started.
    Start,
    /// The runtime does not answer.
    Unavailable,
    /// Anything else.
    Other,
}

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct RuntimeError {
    /// Which step failed.
    pub kind: RuntimeErrorKind,
    /// For people.
    pub message: String,
}

/// The pause container that holds a pod's network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// The runtime's name for it.
    pub name: String,
    /// Labels that identify it after a restart.
    pub labels: Labels,
    /// The pause image.
    pub image: String,
    /// Host name inside the pod.
    pub hostname: String,
    /// Share the node's network instead of having an address.
    pub host_network: bool,
    /// Share the node's inter-process communication.
    pub host_ipc: bool,
    /// Share the node's processes.
    pub host_pid: bool,
    /// Ports of the node that lead into the pod.
    pub ports: Vec<PortBinding>,
    /// Kernel settings of the pod.
    pub sysctls: BTreeMap<String, String>,
}

/// A port of the node that leads into a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortBinding {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The node's address; empty for all.
    pub host_ip: String,
    /// The node's port.
    pub host_port: u16,
    /// The pod's port.
    pub container_port: u16,
}

/// A container with everything resolved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// The runtime's name for it.
    pub name: String,
    /// Labels that identify it after a restart.
    pub labels: Labels,
    /// The image, as in the pod.
    pub image: String,
    /// Replaces the image's entry point.
    pub command: Option<Vec<String>>,
    /// Replaces the image's arguments.
    pub args: Option<Vec<String>>,
    /// Variables, `NAME=value`.
    pub env: Vec<String>,
    /// Replaces the image's working directory.
    pub working_dir: Option<String>,
    /// Folders and files of the node that appear inside.
    pub mounts: Vec<Mount>,
    /// Files the kubelet writes for the pod (`/etc/hosts`, `/etc/resolv.conf`).
    pub files: Vec<PodFile>,
    /// The pod's folder on the node.
    pub pod_folder: String,
    /// Where the container may leave its last words, inside.
    pub termination_message_path: String,
    /// The pause container whose network is shared.
    pub sandbox_id: String,
    /// Share the processes of the node.
    pub host_pid: bool,
    /// Share the processes of the pod.
    pub share_pid: bool,
    /// Share the inter-process communication of the node.
    pub host_ipc: bool,
    /// Limits.
    pub limits: Limits,
    /// Rights.
    pub security: Security,
    /// Keep standard input open.
    pub stdin: bool,
    /// Close standard input when the first client leaves.
    pub stdin_once: bool,
    /// Allocate a terminal.
    pub tty: bool,
    /// Signal that asks the container to end, if not the image's.
    pub stop_signal: Option<String>,
}

/// Something of the node that appears inside a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Path on the node.
    pub source: String,
    /// A path below the source; created when missing, never followed out of it.
    pub sub_path: Option<String>,
    /// Path in the container.
    pub target: String,
    /// Whether writing is refused.
    pub read_only: bool,
    /// `None`, `HostToContainer` or `Bidirectional`.
    pub propagation: String,
}

/// A file the kubelet writes for every container of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodFile {
    /// Name in the pod's folder.
    pub name: String,
    /// Path in the container.
    pub target: String,
    /// What it holds.
    pub content: String,
}

/// Limits of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Relative weight.
    pub cpu_shares: i64,
    /// Microseconds of CPU in each period of 100 ms; zero for no limit.
    pub cpu_quota: i64,
    /// Bytes; zero for no limit.
    pub memory: i64,
    /// Which process dies first when memory runs out.
    pub oom_score_adj: i64,
}

/// Rights of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Security {
    /// Everything is allowed.
    pub privileged: bool,
    /// `UID` or `UID:GID`, if not the image's.
    pub user: Option<String>,
    /// Further groups.
    pub groups: Vec<i64>,
    /// Refuse to run as root.
    pub non_root: bool,
    /// Capabilities to add.
    pub add: Vec<String>,
    /// Capabilities to take away.
    pub drop: Vec<String>,
    /// The image's files cannot be changed.
    pub read_only_root: bool,
    /// Processes cannot gain rights.
    pub no_new_privileges: bool,
    /// System calls are not filtered.
    pub seccomp_unconfined: bool,
}

/// Whether a container runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ContainerState {
    /// It was made and never started.
    Created,
    /// It runs.
    Running,
    /// It ended.
    Exited,
}

/// A container of ours, as the runtime sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// The runtime's identifier.
    pub id: String,
    /// The labels it was made with.
    pub labels: Labels,
    /// The image's name.
    pub image: Arc<str>,
    /// The image's identity, as the API shows it.
    pub image_id: Arc<str>,
    /// Whether it runs.
    pub state: ContainerState,
    /// When it was made.
    pub created_at: Time,
    /// When it was started; the epoch if never.
    pub started_at: Time,
    /// When it ended; the epoch if it did not.
    pub finished_at: Time,
    /// How it ended.
    pub exit_code: i32,
    /// Whether the kernel ended it for want of memory.
    pub oom_killed: bool,
    /// The runtime's or the container's own last words.
    pub message: String,
    /// Its address, if it has one of its own.
    pub ip: String,
}

/// An image on the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// The runtime's identifier.
    pub id: String,
    /// The user it runs as, as the image says.
    pub user: String,
    /// Size on disk.
    pub size_bytes: u64,
}

/// What a probe or hook tries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProbeAction {
    /// An HTTP request; 200–399 is success.
    Http {
        /// `http` or `https` (certificates are not verified).
        scheme: String,
        /// Host or address.
        host: String,
        /// Port.
        port: u16,
        /// Path and query.
        path: String,
        /// Headers.
        headers: Vec<(String, String)>,
    },
    /// A connection that opens.
    Tcp {
        /// Host or address.
        host: String,
        /// Port.
        port: u16,
    },
    /// A command in the container that exits with zero.
    Exec {
        /// The command.
        command: Vec<String>,
    },
    /// Waiting.
    Sleep {
        /// How long.
        seconds: u32,
    },
}

/// How a probe ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeOutcome {
    /// Whether it succeeded.
    pub success: bool,
    /// What was seen, for people.
    pub output: String,
}

/// What the shell measures on the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFacts {
    /// CPUs.
    pub cpus: u32,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Bytes of memory that can be had.
    pub memory_available_bytes: u64,
    /// Bytes of the disk that holds pods.
    pub disk_bytes: u64,
    /// Free bytes of it.
    pub disk_available_bytes: u64,
    /// Processes that may still be started.
    pub pids_available: u64,
    /// `machine-id`, `system uuid` and `boot id`.
    pub machine_id: String,
    /// SMBIOS identity, or the machine's.
    pub system_uuid: String,
    /// Changes with every boot.
    pub boot_id: String,
    /// Kernel release.
    pub kernel_version: String,
    /// The distribution's name.
    pub os_image: String,
    /// `amd64`, `arm64`.
    pub architecture: String,
    /// Version of the runtime, `docker://24.0.5`.
    pub runtime_version: String,
    /// The node's resolver file.
    pub resolv_conf: String,
    /// Images on the node: names and bytes.
    pub images: Vec<(Vec<String>, u64)>,
    /// Devices that pods may ask for, by the name of their extended resource.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub devices: BTreeMap<String, u64>,
}
