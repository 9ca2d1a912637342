//! Names and labels of the containers that belong to a kubelet.
//!
//! Source: kubernetes 1.23, `pkg/kubelet/dockershim/naming.go`; the labels are those of
//! `pkg/kubelet/types/labels.go` and `kuberuntime/labels.go`.

use api::Pod;
use api::hash::{fnv32a, hex};
use k8s_openapi::api::core::v1::Container;

use crate::Labels;
use crate::runtime::ContainerRecord;

/// The container name of a pod's pause container.
pub const SANDBOX: &str = "POD";
/// Marks containers as ours; all others are never touched.
pub const OWNER: &str = "io.kprov.kubelet";
/// The pod's name.
pub const POD_NAME: &str = "io.kubernetes.pod.name";
/// The pod's namespace.
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// The pod's UID.
pub const POD_UID: &str = "io.kubernetes.pod.uid";
/// The container's name in the pod.
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// How often the container was started before.
pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
/// A hash of the container's definition.
pub const CONTAINER_HASH: &str = "io.kubernetes.container.hash";
/// The pause container's identifier.
pub const SANDBOX_ID: &str = "io.kubernetes.sandbox.id";
/// Where the container leaves its last words.
pub const TERMINATION_MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
/// Seconds the pod has to end.
pub const TERMINATION_GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";

/// The runtime's name of a container: `k8s_CONTAINER_POD_NAMESPACE_UID_ATTEMPT`.
pub fn container_name(pod: &Pod, uid: &str, container: &str, attempt: u32) -> String {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let attempt = attempt.to_string();
    ["k8s", container, name, namespace, uid, &*attempt].join("_")
}

/// The labels of a pause container.
pub fn sandbox_labels(pod: &Pod, uid: &str, attempt: u32) -> Labels {
    labels_of(pod, uid, SANDBOX, attempt, [])
}

/// The labels of a container.
pub fn container_labels(
    pod: &Pod,
    uid: &str,
    container: &Container,
    attempt: u32,
    sandbox_id: &str,
) -> Labels {
    let path = container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
    let hash = container_hash(container);
    let own =
        [(CONTAINER_HASH, &*hash), (SANDBOX_ID, sandbox_id), (TERMINATION_MESSAGE_PATH, path)];
    labels_of(pod, uid, &container.name, attempt, own)
}

fn labels_of<'a, const N: usize>(
    pod: &'a Pod,
    uid: &'a str,
    container: &'a str,
    attempt: u32,
    own: [(&'a str, &'a str); N],
) -> Labels {
    let spec = pod.spec.as_ref();
    let grace = spec.and_then(|s| s.termination_grace_period_seconds).unwrap_or(30).to_string();
    let attempt = attempt.to_string();
    let common = [
        (OWNER, "true"),
        (CONTAINER_NAME, container),
        (RESTART_COUNT, &*attempt),
        (POD_NAME, pod.metadata.name.as_deref().unwrap_or_default()),
        (POD_NAMESPACE, pod.metadata.namespace.as_deref().unwrap_or_default()),
        (TERMINATION_GRACE, &*grace),
        (POD_UID, uid),
    ];
    common.into_iter().chain(own).collect()
}

/// A hash of what makes a running container out of date: its name and image.
pub fn container_hash(container: &Container) -> String {
    hex(definition_hash(container).into(), 1)
}

/// The same as a number.
pub(crate) fn definition_hash(container: &Container) -> u32 {
    let image = container.image.as_deref().unwrap_or_default();
    fnv32a([container.name.as_bytes(), b"\0", image.as_bytes()].into_iter().flatten())
}

impl ContainerRecord {
    fn label(&self, key: &str) -> &str {
        self.labels.get(key).unwrap_or_default()
    }

    /// UID of the container's pod.
    pub fn pod_uid(&self) -> &str {
        self.label(POD_UID)
    }

    /// Whether it is of a pod of this name, which may be another one than now has the name.
    pub(crate) fn is_of(&self, pod: &Pod) -> bool {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        self.label(POD_NAME) == name && self.label(POD_NAMESPACE) == namespace
    }

    /// The container's name in the pod.
    pub fn container(&self) -> &str {
        self.label(CONTAINER_NAME)
    }

    /// How often the container was started before.
    pub fn attempt(&self) -> u32 {
        self.label(RESTART_COUNT).parse().unwrap_or(0)
    }

    /// The pause container it was made for.
    pub fn sandbox_id(&self) -> &str {
        self.label(SANDBOX_ID)
    }

    /// The hash of its definition.
    pub fn hash(&self) -> &str {
        self.label(CONTAINER_HASH)
    }

    /// Seconds the pod has to end.
    pub fn grace_seconds(&self) -> u32 {
        self.label(TERMINATION_GRACE).parse().unwrap_or(30)
    }
}
