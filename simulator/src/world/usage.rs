//! `metrics.k8s.io`: what pods use, measured when a controller asks.
//!
//! The load of a workload is shared by its pods that are ready; pods without a load use nothing.
//! As in production the kubelets are asked: what runs on a node whose kubelet does not answer is
//! left out.

use std::collections::BTreeMap;

use api::metrics::{ContainerMetrics, PodMetrics};
use api::quantity::Quantity as Amount;
use api::selector::Selector;
use api::{ApiObject, Kind, Object, Pod, Reason, Status};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::World;
use crate::plan::Direction;

/// What was used is told as that of so much time.
const WINDOW: &str = "15s";
/// Billionths in a thousandth.
const NANO: u64 = 1_000_000;

/// The label that says to which workload a pod belongs.
const APP: &str = "app";

fn app(pod: &Pod) -> Option<&str> {
    pod.metadata.labels.as_ref()?.get(APP).map(String::as_str)
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

/// Whether users reach the pod.
fn is_ready(pod: &Pod) -> bool {
    let mut conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    phase(pod) == "Running" && conditions.any(|c| c.type_ == "Ready" && c.status == "True")
}

impl World {
    /// What the pods of a namespace that a selector selects use.
    pub(super) fn pods_use(&self, namespace: &str, selector: &str) -> Result<Vec<Object>, Status> {
        let selector = Selector::parse(selector)
            .map_err(|error| Status::new(Reason::BadRequest, error.to_string()))?;
        let all = || {
            let pods = self.store.objects(Kind::Pod).filter_map(Object::get::<Pod>);
            pods.filter(|pod| pod.metadata.namespace.as_deref() == Some(namespace))
        };
        let mut sharers: BTreeMap<&str, u64> = BTreeMap::new();
        for app in all().filter(|pod| is_ready(pod)).filter_map(app) {
            *sharers.entry(app).or_default() += 1;
        }
        let measured = all().filter(|pod| {
            phase(pod) == "Running"
                && selector.matches(pod.metadata.labels.as_ref())
                && self.is_measured(pod.node())
        });
        let used = |pod: &Pod| {
            let share = app(pod).filter(|_| is_ready(pod)).and_then(|app| {
                let load = self.loads.get(namespace, app)?;
                let milli = load.at(self.loads.moment(self.elapsed()));
                milli.saturating_mul(NANO).checked_div(*sharers.get(app)?)
            });
            share.unwrap_or(0)
        };
        Ok(measured.map(|pod| self.metrics_of(pod, used(pod))).collect())
    }

    /// Whether an API server gets an answer from the kubelet of a node.
    fn is_measured(&self, node: &str) -> bool {
        let Some(kubelet) = self.kubelet_of(node) else { return false };
        let process = &self.processes[kubelet.index()];
        process.is_up() && process.paused == 0 && !self.is_cut_off(kubelet, Direction::Both)
    }

    /// The CPU is used by the containers in equal parts, and of memory what they request.
    fn metrics_of(&self, pod: &Pod, nano_cores: u64) -> Object {
        let containers = pod.spec.as_ref().map(|s| s.containers.as_slice()).unwrap_or_default();
        let each = nano_cores / u64::try_from(containers.len().max(1)).unwrap_or(1);
        let cpu = Amount::from_nano(i64::try_from(each).unwrap_or(i64::MAX));
        let containers = containers.iter().map(|container| {
            let requests = container.resources.as_ref().and_then(|r| r.requests.as_ref());
            let memory = requests.and_then(|r| r.get("memory")).cloned();
            let memory = memory.unwrap_or_else(|| Quantity("0".to_owned()));
            let usage = BTreeMap::from([
                ("cpu".to_owned(), Quantity(cpu.to_string())),
                ("memory".to_owned(), memory),
            ]);
            ContainerMetrics { name: container.name.clone(), usage }
        });
        PodMetrics {
            metadata: ObjectMeta {
                name: pod.metadata.name.clone(),
                namespace: pod.metadata.namespace.clone(),
                labels: pod.metadata.labels.clone(),
                creation_timestamp: Some(self.now.to_meta()),
                ..ObjectMeta::default()
            },
            timestamp: self.now.to_meta(),
            window: WINDOW.to_owned(),
            containers: containers.collect(),
        }
        .into_object()
    }
}
