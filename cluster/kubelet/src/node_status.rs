//! What the API is told about the node.
//!
//! Source: kubernetes 1.33, `pkg/kubelet/nodestatus/setters.go`.

use std::collections::BTreeMap;

use api::Time;
use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints,
    NodeStatus, NodeSystemInfo,
};

use crate::KubeletConfig;
use crate::context::Context;
use crate::resources::{Amounts, LIMITED};
use crate::runtime::NodeFacts;

/// Less available memory than this is pressure (Kubernetes' default eviction threshold).
const MEMORY_LOW_BYTES: u64 = 100 << 20;
/// Less than one part in ten of the disk is pressure.
const DISK_LOW_PARTS: u64 = 10;
/// Fewer free process slots than this is pressure.
const PIDS_LOW: u64 = 256;
/// More images are not listed.
const IMAGES_MAX: usize = 50;

fn text(quantity: Quantity) -> k8s_openapi::apimachinery::pkg::api::resource::Quantity {
    k8s_openapi::apimachinery::pkg::api::resource::Quantity(quantity.to_string())
}

/// All that the node has.
pub(crate) fn capacity(config: &KubeletConfig, facts: &NodeFacts) -> Amounts {
    let kib = |bytes: u64| Quantity::from_bytes(i64::try_from(bytes & !1023).unwrap_or(i64::MAX));
    let mut amounts = BTreeMap::from([
        ("cpu".to_owned(), text(Quantity::whole(i64::from(facts.cpus)))),
        ("memory".to_owned(), text(kib(facts.memory_bytes))),
        ("ephemeral-storage".to_owned(), text(kib(facts.disk_bytes))),
        ("pods".to_owned(), text(Quantity::whole(i64::from(config.max_pods)))),
        ("hugepages-1Gi".to_owned(), text(Quantity::whole(0))),
        ("hugepages-2Mi".to_owned(), text(Quantity::whole(0))),
    ]);
    let devices = facts.devices.iter();
    let devices = devices.map(|(name, n)| (name, i64::try_from(*n).unwrap_or(i64::MAX)));
    amounts.extend(devices.map(|(name, n)| (name.clone(), text(Quantity::whole(n)))));
    amounts
}

/// What pods may have of it.
pub(crate) fn allocatable(config: &KubeletConfig, facts: &NodeFacts) -> Amounts {
    let mut amounts = capacity(config, facts);
    let [cpu, storage, memory, _pods] = limits(config, facts);
    if config.reserved_cpu_milli > 0 {
        amounts.insert("cpu".to_owned(), text(Quantity::from_milli(cpu)));
    }
    amounts.insert("memory".to_owned(), text(Quantity::from_bytes(memory & !1023)));
    amounts.insert("ephemeral-storage".to_owned(), text(Quantity::whole(storage)));
    amounts
}

/// The same as numbers in the order of [`LIMITED`]: CPU in thousandths, the rest in bytes or
/// pieces.
pub(crate) fn limits(config: &KubeletConfig, facts: &NodeFacts) -> [i64; LIMITED.len()] {
    let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let memory = signed(facts.memory_bytes)
        .saturating_sub(config.reserved_memory_bytes)
        .saturating_sub(signed(MEMORY_LOW_BYTES));
    let disk = facts.disk_bytes - facts.disk_bytes / DISK_LOW_PARTS;
    let cpu = (i64::from(facts.cpus) * 1000).saturating_sub(config.reserved_cpu_milli);
    [cpu.max(0), signed(disk), memory.max(0), i64::from(config.max_pods)]
}

fn node_info(config: &KubeletConfig, facts: &NodeFacts) -> NodeSystemInfo {
    NodeSystemInfo {
        architecture: facts.architecture.clone(),
        boot_id: facts.boot_id.clone(),
        container_runtime_version: facts.runtime_version.clone(),
        kernel_version: facts.kernel_version.clone(),
        // Kubernetes 1.33 leaves this to kube-proxy and writes nothing.
        kube_proxy_version: String::new(),
        kubelet_version: config.version.clone(),
        machine_id: facts.machine_id.clone(),
        operating_system: "linux".to_owned(),
        os_image: facts.os_image.clone(),
        system_uuid: facts.system_uuid.clone(),
        ..NodeSystemInfo::default()
    }
}

/// The node's status now; what others wrote into `old` is kept.
pub(crate) fn generate(
    ctx: &Context,
    facts: &NodeFacts,
    old: &NodeStatus,
    now: Time,
) -> NodeStatus {
    let config = &ctx.config;
    let address = |type_: &str, address: &str| NodeAddress {
        type_: type_.to_owned(),
        address: address.to_owned(),
    };
    let images = facts.images.iter().take(IMAGES_MAX).map(|(names, bytes)| ContainerImage {
        names: Some(names.clone()),
        size_bytes: i64::try_from(*bytes).ok(),
    });
    NodeStatus {
        addresses: Some(vec![
            address("InternalIP", &config.node_ip),
            address("Hostname", &config.node_name),
        ]),
        capacity: Some(capacity(config, facts)),
        allocatable: Some(allocatable(config, facts)),
        conditions: Some(conditions(ctx, facts, old, now)),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(config.port) }),
        }),
        images: Some(images.collect()),
        node_info: Some(node_info(config, facts)),
        ..old.clone()
    }
}

fn conditions(ctx: &Context, facts: &NodeFacts, old: &NodeStatus, now: Time) -> Vec<NodeCondition> {
    let pressure = |bad: bool, yes: [&'static str; 2], no: [&'static str; 2]| {
        if bad { ("True", yes[0], yes[1].to_owned()) } else { ("False", no[0], no[1].to_owned()) }
    };
    let memory = facts.memory_bytes > 0 && facts.memory_available_bytes < MEMORY_LOW_BYTES;
    let disk = facts.disk_available_bytes < facts.disk_bytes / DISK_LOW_PARTS;
    let ready = match (&ctx.runtime, &ctx.network) {
        (Err(why), _) | (Ok(()), Err(why)) => ("False", "KubeletNotReady", why.clone()),
        (Ok(()), Ok(())) => ("True", "KubeletReady", "kubelet is posting ready status".to_owned()),
    };
    let ours = [
        (
            "MemoryPressure",
            pressure(
                memory,
                ["KubeletHasInsufficientMemory", "kubelet has insufficient memory available"],
                ["KubeletHasSufficientMemory", "kubelet has sufficient memory available"],
            ),
        ),
        (
            "DiskPressure",
            pressure(
                disk,
                ["KubeletHasDiskPressure", "kubelet has disk pressure"],
                ["KubeletHasNoDiskPressure", "kubelet has no disk pressure"],
            ),
        ),
        (
            "PIDPressure",
            pressure(
                facts.pids_available < PIDS_LOW,
                ["KubeletHasInsufficientPID", "kubelet has insufficient PID available"],
                ["KubeletHasSufficientPID", "kubelet has sufficient PID available"],
            ),
        ),
        ("Ready", ready),
    ];
    let before = |type_: &str| old.conditions.iter().flatten().find(|c| c.type_ == type_);
    let others = old.conditions.iter().flatten();
    let mut all: Vec<NodeCondition> =
        others.filter(|c| !ours.iter().any(|(t, _)| *t == c.type_)).cloned().collect();
    for (type_, (status, reason, message)) in ours {
        let same = before(type_).filter(|c| c.status == status);
        all.push(NodeCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_heartbeat_time: Some(now.to_meta()),
            last_transition_time: same
                .and_then(|c| c.last_transition_time.clone())
                .or_else(|| Some(now.to_meta())),
        });
    }
    all
}

/// Whether two statuses say the same, apart from when they were said. How much memory or disk
/// is free is in neither.
pub(crate) fn same(a: &NodeStatus, b: &NodeStatus) -> bool {
    let strip = |status: &NodeStatus| {
        let mut status = status.clone();
        for condition in status.conditions.iter_mut().flatten() {
            condition.last_heartbeat_time = None;
            condition.last_transition_time = None;
        }
        status
    };
    strip(a) == strip(b)
}

/// The labels every node has, and those it is configured with.
pub(crate) fn labels(config: &KubeletConfig, facts: &NodeFacts) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from([
        ("kubernetes.io/hostname".to_owned(), config.node_name.clone()),
        ("kubernetes.io/os".to_owned(), "linux".to_owned()),
        ("kubernetes.io/arch".to_owned(), facts.architecture.clone()),
        ("beta.kubernetes.io/os".to_owned(), "linux".to_owned()),
        ("beta.kubernetes.io/arch".to_owned(), facts.architecture.clone()),
    ]);
    labels.extend(config.node_labels.clone());
    labels
}

/// Whether the node has what pods' addresses are taken from.
pub(crate) fn pod_cidr(node: &Node) -> Option<&str> {
    node.spec.as_ref()?.pod_cidr.as_deref().filter(|c| !c.is_empty())
}

/// Whether the API has the node as ready.
pub(crate) fn is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.filter(|c| c.type_ == "Ready").any(|c| c.status == "True")
}
