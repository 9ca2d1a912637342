//! The columns of each kind.

use api::Kind;
use serde::Serialize;

/// One column of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Column {
    /// The heading.
    pub name: &'static str,
    /// `string`, `integer`, `boolean` or `date`.
    #[serde(rename = "type")]
    pub ty: &'static str,
    /// `name` for the column that names the object.
    pub format: &'static str,
    /// What the cells say.
    pub description: &'static str,
    /// Zero is always shown, one with `-o wide`.
    pub priority: u8,
}

const fn column(name: &'static str, description: &'static str) -> Column {
    Column { name, ty: "string", format: "", description, priority: 0 }
}

const fn wide(name: &'static str, description: &'static str) -> Column {
    Column { priority: 1, ..column(name, description) }
}

const fn number(name: &'static str, description: &'static str) -> Column {
    Column { ty: "integer", ..column(name, description) }
}

const NAME: Column =
    Column { format: "name", ..column("Name", "The name, unique within the namespace.") };
const AGE: Column = column("Age", "The time since the object was created.");
const CONTAINERS: Column = wide("Containers", "The names of the containers in the template.");
const IMAGES: Column = wide("Images", "The images of the containers in the template.");
const SELECTOR: Column = wide("Selector", "The labels of the pods that are meant.");

/// The columns of a kind, in order; kinds without columns of their own show name and time of
/// creation.
pub const fn columns(kind: Kind) -> &'static [Column] {
    match kind {
        Kind::Pod => POD,
        Kind::Node => NODE,
        Kind::Service => SERVICE,
        Kind::Endpoints => ENDPOINTS,
        Kind::EndpointSlice => ENDPOINT_SLICE,
        Kind::Deployment => DEPLOYMENT,
        Kind::ReplicaSet | Kind::ReplicationController => REPLICAS,
        Kind::DaemonSet => DAEMON_SET,
        Kind::StatefulSet => STATEFUL_SET,
        Kind::ControllerRevision => CONTROLLER_REVISION,
        Kind::Job => JOB,
        Kind::CronJob => CRON_JOB,
        Kind::HorizontalPodAutoscaler => AUTOSCALER,
        Kind::NodeMetrics | Kind::PodMetrics => METRICS,
        Kind::Event => EVENT,
        Kind::CertificateSigningRequest => CERTIFICATE_SIGNING_REQUEST,
        Kind::RoleBinding | Kind::ClusterRoleBinding => BINDING,
        Kind::Namespace => NAMESPACE,
        Kind::ConfigMap => CONFIG_MAP,
        Kind::Secret => SECRET,
        Kind::ServiceAccount => SERVICE_ACCOUNT,
        Kind::Lease => LEASE,
        Kind::PriorityClass => PRIORITY_CLASS,
        Kind::PodDisruptionBudget => DISRUPTION_BUDGET,
        Kind::ResourceQuota => RESOURCE_QUOTA,
        Kind::PersistentVolume => PERSISTENT_VOLUME,
        Kind::PersistentVolumeClaim => PERSISTENT_VOLUME_CLAIM,
        Kind::StorageClass => STORAGE_CLASS,
        Kind::CsiNode => CSI_NODE,
        Kind::Scale => SCALE,
        _ => OTHER,
    }
}

const NAMESPACE: &[Column] = &[NAME, column("Status", "The phase of the namespace."), AGE];

const CONFIG_MAP: &[Column] = &[NAME, column("Data", "The number of entries."), AGE];

const SECRET: &[Column] = &[
    NAME,
    column("Type", "What the secret is for."),
    column("Data", "The number of entries."),
    AGE,
];

const SERVICE_ACCOUNT: &[Column] =
    &[NAME, column("Secrets", "The number of secrets that its pods may use."), AGE];

const LEASE: &[Column] = &[NAME, column("Holder", "Who holds the lease."), AGE];

const PRIORITY_CLASS: &[Column] = &[
    NAME,
    number("Value", "The priority of its pods."),
    Column { ty: "boolean", ..column("Global-Default", "Whether pods without a class have it.") },
    AGE,
    column("PreemptionPolicy", "Whether its pods may displace others."),
];

const SCALE: &[Column] = &[
    NAME,
    number("Desired", "The number of pods that is wanted."),
    number("Available", "The number of pods there are."),
    AGE,
];

const DISRUPTION_BUDGET: &[Column] = &[
    NAME,
    column("Min Available", "The number or share of pods that must stay available."),
    column("Max Unavailable", "The number or share of pods that may be unavailable."),
    number("Allowed Disruptions", "The number of pods that may be evicted now."),
    AGE,
];

const RESOURCE_QUOTA: &[Column] = &[
    NAME,
    column("Request", "How much is used, and may be, of what is counted or requested."),
    column("Limit", "How much is used, and may be, of what containers are limited to."),
    AGE,
];

const PERSISTENT_VOLUME: &[Column] = &[
    NAME,
    column("Capacity", "The size of the volume."),
    column("Access Modes", "The ways in which it can be mounted."),
    column("Reclaim Policy", "What becomes of it when its claim is gone."),
    column("Status", "Whether it is free, bound to a claim or released by one."),
    column("Claim", "The claim that it is bound to or reserved for."),
    column("StorageClass", "The class of claims that it serves."),
    column("VolumeAttributesClass", "The class of its attributes."),
    column("Reason", "Why it has failed."),
    AGE,
    wide("VolumeMode", "Whether it is a file system or a block device."),
];

const PERSISTENT_VOLUME_CLAIM: &[Column] = &[
    NAME,
    column("Status", "Whether the claim has a volume."),
    column("Volume", "The volume that it is bound to."),
    column("Capacity", "The size of that volume."),
    column("Access Modes", "The ways in which that volume can be mounted."),
    column("StorageClass", "The class of volumes that is wanted."),
    column("VolumeAttributesClass", "The class of attributes that is wanted."),
    AGE,
    wide("VolumeMode", "Whether a file system or a block device is wanted."),
];

const STORAGE_CLASS: &[Column] = &[
    NAME,
    column("Provisioner", "Who makes volumes of the class."),
    column("ReclaimPolicy", "What becomes of them when their claims are gone."),
    column("VolumeBindingMode", "When they are made and bound."),
    Column { ty: "boolean", ..column("AllowVolumeExpansion", "Whether claims may grow.") },
    AGE,
];

const CSI_NODE: &[Column] =
    &[NAME, number("Drivers", "The number of storage drivers on the node."), AGE];

const OTHER: &[Column] =
    &[NAME, Column { ty: "date", ..column("Created At", "The time the object was created.") }];

const ENDPOINTS: &[Column] =
    &[NAME, column("Endpoints", "The addresses that serve, with their ports."), AGE];

const POD: &[Column] = &[
    NAME,
    column("Ready", "The number of containers that are ready, and of all."),
    column("Status", "What the pod does, or what keeps it from running."),
    column("Restarts", "How often containers were restarted, and when the last time."),
    AGE,
    wide("IP", "The address of the pod."),
    wide("Node", "The node the pod runs on."),
    wide("Nominated Node", "The node on which room is made for the pod."),
    wide("Readiness Gates", "The number of readiness gates that are open, and of all."),
];

const NODE: &[Column] = &[
    NAME,
    column("Status", "Whether the node is ready and takes pods."),
    column("Roles", "The roles its labels name."),
    AGE,
    column("Version", "The version of its kubelet."),
    wide("Internal-IP", "Its address within the cluster."),
    wide("External-IP", "Its address from outside."),
    wide("OS-Image", "The name of its operating system."),
    wide("Kernel-Version", "The version of its kernel."),
    wide("Container-Runtime", "The name and version of what runs its containers."),
];

const SERVICE: &[Column] = &[
    NAME,
    column("Type", "How the service can be reached."),
    column("Cluster-IP", "Its address within the cluster."),
    column("External-IP", "Its addresses from outside."),
    column("Port(s)", "Its ports, with the node ports and protocols."),
    AGE,
    SELECTOR,
];

const ENDPOINT_SLICE: &[Column] = &[
    NAME,
    column("AddressType", "The kind of addresses in the slice."),
    column("Ports", "The ports of the endpoints."),
    column("Endpoints", "The addresses of the endpoints."),
    AGE,
];

const DEPLOYMENT: &[Column] = &[
    NAME,
    column("Ready", "The number of pods that are ready, and that is wanted."),
    column("Up-to-date", "The number of pods of the newest template."),
    column("Available", "The number of pods that have been ready for long enough."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

const REPLICAS: &[Column] = &[
    NAME,
    number("Desired", "The number of pods that is wanted."),
    number("Current", "The number of pods there are."),
    number("Ready", "The number of pods that are ready."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

const DAEMON_SET: &[Column] = &[
    NAME,
    number("Desired", "The number of nodes that shall run a pod."),
    number("Current", "The number of nodes that have one and shall."),
    number("Ready", "The number of nodes whose pod is ready."),
    number("Up-to-date", "The number of nodes whose pod is of the newest template."),
    number("Available", "The number of nodes whose pod has been ready for long enough."),
    column("Node Selector", "The labels of the nodes that are meant."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

const JOB: &[Column] = &[
    NAME,
    column("Status", "Whether the job runs, is suspended, or how it ended."),
    column("Completions", "The number of pods that succeeded, and that is wanted."),
    column("Duration", "How long the job has run, or did until it was complete."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

const CRON_JOB: &[Column] = &[
    NAME,
    column("Schedule", "When its jobs are started."),
    column("Timezone", "The time zone of the schedule."),
    Column { ty: "boolean", ..column("Suspend", "Whether no further jobs are started.") },
    number("Active", "The number of its jobs that run."),
    column("Last Schedule", "The time since a job was due last."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

const AUTOSCALER: &[Column] = &[
    NAME,
    column("Reference", "What is scaled."),
    column("Targets", "What is used, and what should be."),
    column("MinPods", "The least number of pods."),
    column("MaxPods", "The greatest number of pods."),
    column("Replicas", "The number of pods that was found last."),
    AGE,
];

const METRICS: &[Column] = &[
    NAME,
    Column { format: "quantity", ..column("cpu", "The CPU in use.") },
    Column { format: "quantity", ..column("memory", "The memory in use.") },
    Column { format: "duration", ..column("Window", "The span of time that was looked at.") },
];

const STATEFUL_SET: &[Column] = &[
    NAME,
    column("Ready", "The number of pods that are ready, and that is wanted."),
    AGE,
    CONTAINERS,
    IMAGES,
];

const CONTROLLER_REVISION: &[Column] = &[
    NAME,
    column("Controller", "Who remembers its state here."),
    column("Revision", "The number of the state; higher ones are newer."),
    AGE,
];

const EVENT: &[Column] = &[
    column("Last Seen", "The time since it happened last."),
    column("Type", "Normal or Warning."),
    column("Reason", "What happened, in one word."),
    column("Object", "What it happened to."),
    wide("Subobject", "The part of the object it happened to."),
    wide("Source", "Who reported it."),
    column("Message", "What happened."),
    wide("First Seen", "The time since it happened first."),
    wide("Count", "How often it happened."),
    Column { priority: 1, ..NAME },
];

const CERTIFICATE_SIGNING_REQUEST: &[Column] = &[
    NAME,
    AGE,
    column("SignerName", "Who is asked to sign."),
    column("Requestor", "Who asks."),
    column("RequestedDuration", "How long the certificate is to be valid."),
    column("Condition", "Whether it was approved or denied, and issued."),
];

const BINDING: &[Column] = &[
    NAME,
    column("Role", "The role that is granted."),
    AGE,
    wide("Users", "The users it is granted to."),
    wide("Groups", "The groups it is granted to."),
    wide("ServiceAccounts", "The service accounts it is granted to."),
];
