//! Usage as the summary API's JSON and as the Prometheus text format.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{Measured, Usage};

impl Measured {
    /// The summary of the node and its pods.
    pub(crate) fn summary(&self) -> Value {
        let pods: Vec<Value> = self
            .pods
            .iter()
            .map(|pod| {
                let containers: Vec<Value> = pod
                    .containers
                    .iter()
                    .map(|c| {
                        let mut value = self.usage(&c.usage);
                        value.insert("name".into(), json!(c.name));
                        value.insert("startTime".into(), json!(seconds(c.started)));
                        Value::Object(value)
                    })
                    .collect();
                let mut value = self.usage(&pod.usage);
                value.insert(
                    "podRef".into(),
                    json!({"name": pod.name, "namespace": pod.namespace, "uid": pod.uid}),
                );
                value.insert("startTime".into(), json!(seconds(pod.started)));
                value.insert("containers".into(), Value::Array(containers));
                Value::Object(value)
            })
            .collect();
        let mut node = self.usage(&self.node);
        node.insert("nodeName".into(), json!(self.node_name));
        node.insert("startTime".into(), json!(seconds(self.node_started)));
        json!({"node": node, "pods": pods})
    }

    fn usage(&self, usage: &Usage) -> Map<String, Value> {
        let at = seconds(self.at);
        let mut cpu = json!({"time": at, "usageCoreNanoSeconds": usage.cpu_ns});
        if let Some(nano_cores) = usage.nano_cores {
            cpu["usageNanoCores"] = json!(nano_cores);
        }
        let mut memory = json!({"time": at, "usageBytes": usage.memory,
            "workingSetBytes": usage.working_set, "rssBytes": usage.rss,
            "pageFaults": usage.faults.0, "majorPageFaults": usage.faults.1});
        if let Some(available) = usage.available {
            memory["availableBytes"] = json!(available);
        }
        Map::from_iter([("cpu".to_owned(), cpu), ("memory".to_owned(), memory)])
    }

    /// The metrics that autoscalers read.
    pub(crate) fn metrics(&self) -> String {
        let at = self.at.as_millisecond();
        let mut out = Text::default();
        let pod_labels = |ns: &str, pod: &str| format!("namespace=\"{ns}\",pod=\"{pod}\"");
        let containers = || {
            self.pods.iter().flat_map(|pod| {
                pod.containers.iter().map(move |c| {
                    let labels = pod_labels(&pod.namespace, &pod.name);
                    (format!("{{container=\"{}\",{labels}}}", c.name), c)
                })
            })
        };
        let pods =
            || self.pods.iter().map(|p| (format!("{{{}}}", pod_labels(&p.namespace, &p.name)), p));
        let cpu = "Cumulative cpu time consumed, in core-seconds";
        let memory = "Current working set, in bytes";
        out.head("container_cpu_usage_seconds_total", "counter", cpu);
        for (labels, c) in containers() {
            out.line("container_cpu_usage_seconds_total", &labels, &core_secs(c.usage.cpu_ns), at);
        }
        out.head("container_memory_working_set_bytes", "gauge", memory);
        for (labels, c) in containers() {
            out.line("container_memory_working_set_bytes", &labels, &c.usage.working_set, at);
        }
        out.head("container_start_time_seconds", "gauge", "Start time since the Unix epoch");
        for (labels, c) in containers() {
            out.line("container_start_time_seconds", &labels, &c.started.as_second(), at);
        }
        out.head("node_cpu_usage_seconds_total", "counter", cpu);
        out.line("node_cpu_usage_seconds_total", "", &core_secs(self.node.cpu_ns), at);
        out.head("node_memory_working_set_bytes", "gauge", memory);
        out.line("node_memory_working_set_bytes", "", &self.node.working_set, at);
        out.head("pod_cpu_usage_seconds_total", "counter", cpu);
        for (labels, p) in pods() {
            out.line("pod_cpu_usage_seconds_total", &labels, &core_secs(p.usage.cpu_ns), at);
        }
        out.head("pod_memory_working_set_bytes", "gauge", memory);
        for (labels, p) in pods() {
            out.line("pod_memory_working_set_bytes", &labels, &p.usage.working_set, at);
        }
        out.head("resource_scrape_error", "gauge", "1 if the measurement failed, 0 otherwise");
        out.plain("resource_scrape_error", "", &0);
        out.text
    }
}

/// The kubelet's own metrics.
pub(super) fn kubelet_metrics(
    node_name: &str,
    started: Timestamp,
    pods: usize,
    containers: usize,
    requests: &BTreeMap<(&'static str, u16), u64>,
) -> String {
    let mut out = Text::default();
    out.head("kubelet_node_name", "gauge", "The node's name");
    out.plain("kubelet_node_name", &format!("{{node=\"{node_name}\"}}"), &1);
    out.head("kubelet_running_pods", "gauge", "Pods that have a running pause container");
    out.plain("kubelet_running_pods", "", &pods);
    out.head("kubelet_running_containers", "gauge", "Containers of pods by state");
    out.plain("kubelet_running_containers", "{container_state=\"running\"}", &containers);
    out.head("kubelet_http_requests_total", "counter", "Answered requests");
    for ((path, code), count) in requests {
        let labels = format!("{{code=\"{code}\",path=\"{path}\"}}");
        out.plain("kubelet_http_requests_total", &labels, count);
    }
    out.head("process_start_time_seconds", "gauge", "Start time since the Unix epoch");
    out.plain("process_start_time_seconds", "", &started.as_second());
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| {
        let value = line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?;
        value.parse::<u64>().ok()
    });
    if let Some(kib) = resident {
        out.head("process_resident_memory_bytes", "gauge", "Resident memory, in bytes");
        out.plain("process_resident_memory_bytes", "", &(kib << 10));
    }
    out.text
}

#[derive(Default)]
struct Text {
    text: String,
}

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn plain(&mut self, name: &str, labels: &str, value: &dyn std::fmt::Display) {
        let _ = writeln!(self.text, "{name}{labels} {value}");
    }

    fn line(&mut self, name: &str, labels: &str, value: &dyn std::fmt::Display, at_ms: i64) {
        let _ = writeln!(self.text, "{name}{labels} {value} {at_ms}");
    }
}

/// Seconds with as many decimals as needed.
fn core_secs(ns: u64) -> String {
    let text = format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn seconds(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second()).unwrap_or(time).to_string()
}
