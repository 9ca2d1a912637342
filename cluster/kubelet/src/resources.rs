//! Requests and limits: quality of service, cgroup figures, what a pod takes from its node.
//!
//! Source: kubernetes 1.33, `pkg/apis/core/v1/helper/qos`, `pkg/kubelet/qos/policy.go`,
//! `pkg/kubelet/cm/helpers_linux.go`.

use std::collections::{BTreeMap, BTreeSet};

use api::Pod;
use api::quantity::Quantity;
use k8s_openapi::api::core::v1::Container;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use crate::pod_worker::is_sidecar;
use crate::runtime::Limits;

pub(crate) type Amounts = BTreeMap<String, Text>;

/// An amount as a number; nonsense counts as nothing.
pub(crate) fn parse(text: &Text) -> Quantity {
    Quantity::parse(&text.0).unwrap_or(Quantity::whole(0))
}

fn amount(map: Option<&Amounts>, resource: &str) -> Option<Quantity> {
    map?.get(resource).map(parse).filter(|q| !q.is_zero())
}

/// A container's limit.
pub(crate) fn limit(container: &Container, resource: &str) -> Option<Quantity> {
    amount(container.resources.as_ref()?.limits.as_ref(), resource)
}

/// A container's request; its limit when it has none.
pub(crate) fn request(container: &Container, resource: &str) -> Option<Quantity> {
    amount(container.resources.as_ref()?.requests.as_ref(), resource)
        .or_else(|| limit(container, resource))
}

/// How sure a pod is of what it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QosClass {
    /// All its requests are limits.
    Guaranteed,
    /// It asks for something.
    Burstable,
    /// It asks for nothing.
    BestEffort,
}

impl QosClass {
    /// As the API shows it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

/// The pod's quality of service.
pub(crate) fn qos_class(pod: &Pod) -> QosClass {
    let Some(spec) = &pod.spec else { return QosClass::BestEffort };
    let all: Vec<&Container> =
        spec.containers.iter().chain(spec.init_containers.iter().flatten()).collect();
    let has_any = |c: &&Container| {
        ["cpu", "memory"].iter().any(|r| limit(c, r).is_some() || request(c, r).is_some())
    };
    if !all.iter().any(has_any) {
        return QosClass::BestEffort;
    }
    let guaranteed = |c: &&Container| {
        ["cpu", "memory"].iter().all(|r| match (limit(c, r), request(c, r)) {
            (Some(limit), Some(request)) => limit.nano() == request.nano(),
            _ => false,
        })
    };
    if all.iter().all(guaranteed) { QosClass::Guaranteed } else { QosClass::Burstable }
}

/// What a pod takes of a resource, in its smallest unit (thousandths of CPU, else bytes or
/// pieces): the larger of what the containers take together and what starting takes.
pub(crate) fn pod_request(pod: &Pod, resource: &str) -> i64 {
    let Some(spec) = &pod.spec else { return 0 };
    let of = |c: &Container| {
        let quantity = request(c, resource).unwrap_or(Quantity::whole(0));
        if resource == "cpu" { quantity.milli() } else { quantity.value() }
    };
    let mut sum = spec.containers.iter().map(of).fold(0_i64, i64::saturating_add);
    let mut sidecars = 0_i64;
    let mut starting = 0_i64;
    for container in spec.init_containers.iter().flatten() {
        if is_sidecar(container) {
            sidecars = sidecars.saturating_add(of(container));
            starting = starting.max(sidecars);
        } else {
            starting = starting.max(sidecars.saturating_add(of(container)));
        }
    }
    sum = sum.saturating_add(sidecars).max(starting);
    let overhead = spec.overhead.as_ref().and_then(|o| o.get(resource)).map(parse);
    let overhead = overhead.map_or(0, |q| if resource == "cpu" { q.milli() } else { q.value() });
    sum.saturating_add(overhead)
}

/// What a pod takes from its node, as numbers; see [`pod_request`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Takes {
    /// In the order of [`LIMITED`].
    pub(crate) amounts: [i64; LIMITED.len()],
    /// Ports of the node.
    pub(crate) ports: Box<[HostPort]>,
    /// Devices by the name of their extended resource, in order; few pods ask for any.
    pub(crate) devices: Box<[(Box<str>, i64)]>,
}

/// The resources that a node gives out, in the order in which they are judged.
pub(crate) const LIMITED: [&str; 4] = ["cpu", "ephemeral-storage", "memory", "pods"];

/// Address (empty for all), port and protocol.
pub(crate) type HostPort = (String, i32, String);

impl Takes {
    pub(crate) fn of(pod: &Pod) -> Self {
        let of = |name: &str| if name == "pods" { 1 } else { pod_request(pod, name) };
        Self { amounts: LIMITED.map(of), ports: host_ports(pod), devices: devices(pod) }
    }
}

/// Source: kubernetes 1.33, `IsExtendedResourceName`.
fn is_extended(resource: &str) -> bool {
    resource.contains('/') && !resource.contains("kubernetes.io/")
}

fn devices(pod: &Pod) -> Box<[(Box<str>, i64)]> {
    let Some(spec) = &pod.spec else { return Box::default() };
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let resources = containers.filter_map(|c| c.resources.as_ref());
    let amounts = resources.flat_map(|r| r.requests.iter().chain(&r.limits));
    let names: BTreeSet<&str> =
        amounts.flat_map(BTreeMap::keys).map(String::as_str).filter(|n| is_extended(n)).collect();
    names.into_iter().map(|name| (name.into(), pod_request(pod, name))).collect()
}

fn host_ports(pod: &Pod) -> Box<[HostPort]> {
    let containers = pod.spec.iter().flat_map(|s| &s.containers);
    let ports = containers.flat_map(|c| c.ports.iter().flatten());
    ports
        .filter_map(|p| {
            let port = p.host_port.filter(|p| *p > 0)?;
            let ip = p.host_ip.clone().unwrap_or_default();
            let ip = if ip == "0.0.0.0" { String::new() } else { ip };
            Some((ip, port, p.protocol.clone().unwrap_or_else(|| "TCP".to_owned())))
        })
        .collect()
}

/// The cgroup figures of a container of a pod of that class, on a node with that much memory.
pub(crate) fn limits(qos: QosClass, container: &Container, node_memory: u64) -> Limits {
    let cpu_limit = limit(container, "cpu").map(Quantity::milli);
    let cpu_request = request(container, "cpu").map_or(0, Quantity::milli);
    // The kernel takes no less than 2 shares and no quota below 1 ms in 100 ms.
    let shares = cpu_request.saturating_mul(1024) / 1000;
    Limits {
        cpu_shares: shares.clamp(2, 262_144),
        cpu_quota: cpu_limit.map_or(0, |milli| milli.saturating_mul(100).max(1_000)),
        memory: limit(container, "memory").map_or(0, Quantity::value),
        oom_score_adj: oom_score(qos, container, node_memory),
    }
}

fn oom_score(qos: QosClass, container: &Container, node_memory: u64) -> i64 {
    match qos {
        QosClass::Guaranteed => -997,
        QosClass::BestEffort => 1000,
        QosClass::Burstable => {
            let memory = i128::from(request(container, "memory").map_or(0, Quantity::value));
            let capacity = i128::from(node_memory.max(1));
            let score = i64::try_from(1000 - 1000 * memory / capacity).unwrap_or(2);
            score.clamp(3, 999)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(json: &str) -> Pod {
        let text = format!(
            r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"a"}},"spec":{json}}}"#
        );
        api::codec::decode_any(text.as_bytes()).unwrap().get::<Pod>().unwrap().clone()
    }

    #[test]
    fn quality_and_figures() {
        let check = |spec: &str, class: &str, cpu: i64, shares: i64, quota: i64, oom: i64| {
            let pod = pod(spec);
            assert_eq!(qos_class(&pod).name(), class, "{spec}");
            assert_eq!(pod_request(&pod, "cpu"), cpu, "{spec}");
            let l = limits(qos_class(&pod), &pod.spec.as_ref().unwrap().containers[0], 1 << 30);
            assert_eq!((l.cpu_shares, l.cpu_quota, l.oom_score_adj), (shares, quota, oom));
        };
        check(r#"{"containers":[{"name":"a"}]}"#, "BestEffort", 0, 2, 0, 1000);
        check(
            r#"{"containers":[{"name":"a","resources":{"limits":{"cpu":"500m","memory":"1Mi"}}}]}"#,
            "Guaranteed",
            500,
            512,
            50_000,
            -997,
        );
        check(
            r#"{"containers":[{"name":"a","resources":{"requests":{"cpu":"100m","memory":"512Mi"}}},
                {"name":"b"}],
                "initContainers":[{"name":"i","resources":{"requests":{"cpu":"2"}}}]}"#,
            "Burstable",
            2000,
            102,
            0,
            500,
        );
    }
}
