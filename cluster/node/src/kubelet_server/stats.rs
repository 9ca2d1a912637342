//! What the node and its pods use, as the summary API and as metrics.
//!
//! Source: kubernetes 1.33, `k8s.io/kubelet/pkg/apis/stats/v1alpha1` and
//! `pkg/kubelet/metrics/collectors/resource_metrics.go`.

mod node_usage;
mod render;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bollard::Docker;
use bollard::models::{ContainerStatsResponse, ContainerSummary};
use bollard::query_parameters::StatsOptions;
use futures::{StreamExt, stream};
use jiff::Timestamp;
use kubelet::naming;
use tokio::time::{Instant, timeout};

use super::answer::Refusal;
use super::containers::{Containers, label};

/// Containers that are measured at the same time.
const PARALLEL: usize = 8;
const MEASURE_MAX: Duration = Duration::from_secs(5);
/// Rates over less than this are noise: the one before is told again.
const RATE_MIN: Duration = Duration::from_secs(5);

/// Measures, and remembers the last measurement for rates.
pub(crate) struct Stats {
    node_name: String,
    started: Timestamp,
    rates: Mutex<BTreeMap<String, Rate>>,
}

#[derive(Clone, Copy)]
struct Rate {
    at: Instant,
    cpu_ns: u64,
    nano_cores: Option<u64>,
}

/// What something uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// CPU time since it started, in nanoseconds.
    pub(crate) cpu_ns: u64,
    /// Billionths of a core in use at present; unknown at the first measurement.
    pub(crate) nano_cores: Option<u64>,
    /// Memory in use, in bytes.
    pub(crate) memory: u64,
    /// Memory that cannot be reclaimed without harm, in bytes.
    pub(crate) working_set: u64,
    /// Anonymous memory, in bytes.
    pub(crate) rss: u64,
    /// Memory still to be had, in bytes, when there is a limit.
    pub(crate) available: Option<u64>,
    /// Page faults, and those that had to wait for a disk.
    pub(crate) faults: (u64, u64),
}

/// One container of a pod.
#[derive(Clone, Debug)]
pub(crate) struct ContainerUsage {
    pub(crate) name: String,
    pub(crate) started: Timestamp,
    pub(crate) usage: Usage,
}

/// One pod.
#[derive(Clone, Debug)]
pub(crate) struct PodUsage {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) started: Timestamp,
    /// The pause container too.
    pub(crate) usage: Usage,
    pub(crate) containers: Vec<ContainerUsage>,
}

/// The node and all its pods, in the order of their names.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) at: Timestamp,
    pub(crate) node_name: String,
    pub(crate) node_started: Timestamp,
    pub(crate) node: Usage,
    pub(crate) pods: Vec<PodUsage>,
}

impl Stats {
    /// Starts with nothing measured.
    pub(crate) fn new(node_name: String) -> Self {
        Self { node_name, started: Timestamp::now(), rates: Mutex::new(BTreeMap::new()) }
    }

    /// Measures the node and every running container of a pod.
    pub(crate) async fn measure(
        &self,
        docker: &Docker,
        containers: &Containers,
    ) -> Result<Measured, Refusal> {
        let listed = containers.all_running().await.map_err(Refusal::internal)?;
        let samples: Vec<_> = stream::iter(listed)
            .map(|container| async {
                let id = container.id.as_deref().unwrap_or_default();
                let sample = sample(docker, id).await;
                (container, sample)
            })
            .buffer_unordered(PARALLEL)
            .collect()
            .await;
        let mut node = node_usage::read().await;
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::take(&mut *rates);
        let mut rate = |id: &str, usage: &mut Usage| {
            let next = next_rate(before.get(id).copied(), usage.cpu_ns, Instant::now());
            usage.nano_cores = next.nano_cores;
            rates.insert(id.to_owned(), next);
        };
        rate("", &mut node.usage);
        let mut pods = BTreeMap::new();
        for (container, sample) in samples {
            // It may have ended in the meantime.
            let Some(sample) = sample else { continue };
            let mut usage = usage_of(&sample);
            rate(container.id.as_deref().unwrap_or_default(), &mut usage);
            add(&mut pods, &container, usage);
        }
        Ok(Measured {
            at: Timestamp::now(),
            node_name: self.node_name.clone(),
            node_started: node.started,
            node: node.usage,
            pods: pods.into_values().collect(),
        })
    }

    /// The kubelet's own metrics.
    pub(crate) fn kubelet_metrics(
        &self,
        running: &[ContainerSummary],
        requests: &BTreeMap<(&'static str, u16), u64>,
    ) -> String {
        let pods = running.iter().filter(|c| label(c, naming::CONTAINER_NAME) == naming::SANDBOX);
        let pods = pods.count();
        let containers = running.len() - pods;
        render::kubelet_metrics(&self.node_name, self.started, pods, containers, requests)
    }
}

async fn sample(docker: &Docker, id: &str) -> Option<ContainerStatsResponse> {
    let options = StatsOptions { stream: false, one_shot: true };
    let mut samples = Box::pin(docker.stats(id, Some(options)));
    timeout(MEASURE_MAX, samples.next()).await.ok()??.ok()
}

fn usage_of(sample: &ContainerStatsResponse) -> Usage {
    let cpu = sample.cpu_stats.as_ref().and_then(|c| c.cpu_usage.as_ref());
    let Some(memory) = sample.memory_stats.as_ref() else { return Usage::default() };
    let detail = |names: [&str; 2]| {
        let stats = memory.stats.as_ref()?;
        names.iter().find_map(|name| stats.get(*name).copied())
    };
    let used = memory.usage.unwrap_or_default();
    let inactive = detail(["total_inactive_file", "inactive_file"]).unwrap_or_default();
    let working_set = used.saturating_sub(inactive);
    Usage {
        cpu_ns: cpu.and_then(|c| c.total_usage).unwrap_or_default(),
        nano_cores: None,
        memory: used,
        working_set,
        rss: detail(["total_rss", "anon"]).unwrap_or_default(),
        available: memory.limit.map(|limit| limit.saturating_sub(working_set)),
        faults: (
            detail(["total_pgfault", "pgfault"]).unwrap_or_default(),
            detail(["total_pgmajfault", "pgmajfault"]).unwrap_or_default(),
        ),
    }
}

fn next_rate(before: Option<Rate>, cpu_ns: u64, now: Instant) -> Rate {
    let Some(before) = before else { return Rate { at: now, cpu_ns, nano_cores: None } };
    let elapsed = now.saturating_duration_since(before.at);
    if elapsed < RATE_MIN {
        return before;
    }
    let used = u128::from(cpu_ns.saturating_sub(before.cpu_ns));
    let nano_cores = u64::try_from(used * 1_000_000_000 / elapsed.as_nanos()).ok();
    Rate { at: now, cpu_ns, nano_cores }
}

type Pods = BTreeMap<(String, String, String), PodUsage>;

fn add(pods: &mut Pods, container: &ContainerSummary, usage: Usage) {
    let text = |key| label(container, key).to_owned();
    let (namespace, name, uid) =
        (text(naming::POD_NAMESPACE), text(naming::POD_NAME), text(naming::POD_UID));
    let started = container.created.and_then(|secs| Timestamp::from_second(secs).ok());
    let started = started.unwrap_or_default();
    let pod = pods.entry((namespace.clone(), name.clone(), uid.clone())).or_insert_with(|| {
        PodUsage { namespace, name, uid, started, usage: Usage::default(), containers: Vec::new() }
    });
    pod.started = pod.started.min(started);
    pod.usage = sum(pod.usage, usage);
    let name = text(naming::CONTAINER_NAME);
    if name != naming::SANDBOX {
        pod.containers.push(ContainerUsage { name, started, usage });
        pod.containers.sort_by(|a, b| a.name.cmp(&b.name));
    }
}

fn sum(a: Usage, b: Usage) -> Usage {
    let nano_cores = match (a.nano_cores, b.nano_cores) {
        (None, None) => None,
        (a, b) => Some(a.unwrap_or_default() + b.unwrap_or_default()),
    };
    Usage {
        cpu_ns: a.cpu_ns + b.cpu_ns,
        nano_cores,
        memory: a.memory + b.memory,
        working_set: a.working_set + b.working_set,
        rss: a.rss + b.rss,
        available: None,
        faults: (a.faults.0 + b.faults.0, a.faults.1 + b.faults.1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rates_need_time() {
        let start = Instant::now();
        let first = next_rate(None, 1_000_000_000, start);
        assert_eq!(first.nano_cores, None);
        let soon = next_rate(Some(first), 9_000_000_000, start + Duration::from_secs(1));
        assert_eq!((soon.at, soon.nano_cores), (start, None));
        let later = next_rate(Some(soon), 6_000_000_000, start + Duration::from_secs(10));
        assert_eq!(later.nano_cores, Some(500_000_000));
    }

    #[test]
    fn a_pod_uses_what_its_containers_use() {
        let mut pods = Pods::new();
        for (name, created) in [("POD", 5), ("b", 9), ("a", 7)] {
            let container = ContainerSummary {
                created: Some(created),
                labels: Some(
                    [
                        (naming::POD_NAMESPACE, "ns"),
                        (naming::POD_NAME, "p"),
                        (naming::POD_UID, "u"),
                        (naming::CONTAINER_NAME, name),
                    ]
                    .map(|(k, v)| (k.to_owned(), v.to_owned()))
                    .into(),
                ),
                ..ContainerSummary::default()
            };
            let sample: ContainerStatsResponse = serde_json::from_value(json!({
                "cpu_stats": {"cpu_usage": {"total_usage": 10}},
                "memory_stats": {"usage": 100, "limit": 1_000,
                    "stats": {"inactive_file": 30, "anon": 50, "pgfault": 4, "pgmajfault": 1}},
            }))
            .unwrap();
            add(&mut pods, &container, usage_of(&sample));
        }
        let measured = Measured {
            at: Timestamp::from_second(60).unwrap(),
            node_name: "n".into(),
            node_started: Timestamp::from_second(1).unwrap(),
            node: Usage { cpu_ns: 2_000_000_000, nano_cores: Some(7), ..Usage::default() },
            pods: pods.into_values().collect(),
        };
        let summary = measured.summary();
        assert_eq!(summary["node"]["nodeName"], "n");
        assert_eq!(summary["node"]["cpu"]["usageNanoCores"], 7);
        let pod = &summary["pods"][0];
        assert_eq!(pod["podRef"], json!({"name": "p", "namespace": "ns", "uid": "u"}));
        assert_eq!(pod["startTime"], "1970-01-01T00:00:05Z");
        assert_eq!(pod["memory"]["workingSetBytes"], 210);
        assert_eq!(pod["containers"][0]["name"], "a");
        assert_eq!(pod["containers"][1]["memory"]["availableBytes"], 930);
        assert_eq!(pod["containers"].as_array().unwrap().len(), 2);
        let metrics = measured.metrics();
        for line in [
            "node_cpu_usage_seconds_total 2 60000",
            "pod_memory_working_set_bytes{namespace=\"ns\",pod=\"p\"} 210 60000",
            "container_start_time_seconds{container=\"a\",namespace=\"ns\",pod=\"p\"} 7 60000",
            "container_cpu_usage_seconds_total{container=\"b\",namespace=\"ns\",pod=\"p\"} \
             0.00000001 60000",
        ] {
            assert!(metrics.lines().any(|l| l == line), "{line}\n{metrics}");
        }
    }

    #[tokio::test]
    async fn this_machine_uses_something() {
        let node = node_usage::read().await;
        assert!(node.usage.cpu_ns > 0 && node.usage.working_set > 0);
        assert!(node.started > Timestamp::UNIX_EPOCH && node.started <= Timestamp::now());
        let metrics = Stats::new("n".into()).kubelet_metrics(&[], &BTreeMap::new());
        assert!(metrics.contains("kubelet_running_pods 0\n"), "{metrics}");
        assert!(metrics.contains("process_resident_memory_bytes "), "{metrics}");
    }
}
