//! How many pods a scheduler places in a second, and how long each takes: the whole machine, from
//! the pod's appearance to its binding, the binding's answer and the news of it.
//!
//! Each case is a run of its own: `throughput CASE` prints its figures as one line of JSON.

#![expect(clippy::unwrap_used, reason = "a benchmark may stop")]
#![expect(clippy::print_stdout, reason = "figures are the result")]
#![expect(clippy::disallowed_types, reason = "a benchmark measures time")]

use std::time::{Duration, Instant};

use api::{Kind, Object, Reply, Request, Revision, Time, codec};
use machine::{ApiEffect, ApiInput, CallId, Machine, RngTree, WatchEvent};
use scheduler::{Desk, Scheduler, SchedulerConfig};
use serde_json::{Value, json};

/// Pods that have to go so that others find a place.
const DISPLACED: usize = 20_000;
const NOW: Time = Time::from_secs(100);
/// The namespaces of pods that look at those of others.
const TEAMS: usize = 10;

/// One case: how large the cluster is, and what pods come.
struct Case {
    name: &'static str,
    nodes: usize,
    /// Pods placed before anything is measured.
    before: usize,
    pods: usize,
    pod: fn(usize) -> Value,
}

const CASES: [Case; 7] = [
    Case { name: "basic", nodes: 5_000, before: 1_000, pods: 10_000, pod: plain },
    Case { name: "affinity", nodes: 5_000, before: 1_000, pods: 5_000, pod: together },
    Case { name: "anti-affinity", nodes: 7_000, before: 500, pods: 6_000, pod: apart },
    Case { name: "spread", nodes: 5_000, before: 1_000, pods: 5_000, pod: spread },
    Case { name: "preemption", nodes: 5_000, before: DISPLACED, pods: 5_000, pod: ranked },
    Case { name: "basic-100k", nodes: 100_000, before: 1_000, pods: 50_000, pod: plain },
    Case { name: "memory", nodes: 10_000, before: 0, pods: 100_000, pod: plain },
];

fn object(value: &Value) -> Object {
    codec::decode_any(value.to_string().as_bytes()).unwrap()
}

fn node(number: usize) -> Object {
    object(&json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": format!("node-{number:06}"), "resourceVersion": "1", "labels": {
            "topology.kubernetes.io/zone": format!("zone-{}", number % 3),
            "kubernetes.io/hostname": format!("node-{number:06}")}},
        "status": {"allocatable": {"cpu": "4", "memory": "32Gi", "pods": "110"}}}))
}

fn namespace(name: &str) -> Object {
    object(&json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": name, "resourceVersion": "1", "labels": {"team": "devops"}}}))
}

fn plain(number: usize) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("pod-{number:07}"), "namespace": "default",
            "uid": format!("4c2f0a5e-0000-4000-8000-{number:012}")},
        "spec": {"containers": [{"name": "c", "image": "registry/pause:1",
            "resources": {"requests": {"cpu": "100m", "memory": "500Mi"}}}]}})
}

fn coloured(number: usize, colour: &str) -> Value {
    let mut pod = plain(number);
    pod["metadata"]["labels"] = json!({"color": colour});
    pod
}

fn required(colour: &str, key: &str) -> Value {
    json!({"requiredDuringSchedulingIgnoredDuringExecution": [{
        "topologyKey": key, "labelSelector": {"matchLabels": {"color": colour}}}]})
}

/// All in one zone.
fn together(number: usize) -> Value {
    let mut pod = coloured(number, "blue");
    pod["spec"]["affinity"]["podAffinity"] = required("blue", "topology.kubernetes.io/zone");
    // A zone of 1,667 nodes has to take them all.
    pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("50m");
    pod
}

/// Each on a node of its own, in namespaces chosen by their labels.
fn apart(number: usize) -> Value {
    let mut pod = coloured(number, "green");
    pod["metadata"]["namespace"] = json!(format!("team-{}", number % TEAMS));
    let mut terms = required("green", "kubernetes.io/hostname");
    terms["requiredDuringSchedulingIgnoredDuringExecution"][0]["namespaceSelector"] =
        json!({"matchLabels": {"team": "devops"}});
    pod["spec"]["affinity"]["podAntiAffinity"] = terms;
    pod
}

/// As many in each zone.
fn spread(number: usize) -> Value {
    let mut pod = coloured(number, "red");
    pod["spec"]["topologySpreadConstraints"] = json!([{"maxSkew": 5,
        "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"color": "red"}}}]);
    pod
}

/// First those that fill the nodes, then those of high priority that displace most of them.
fn ranked(number: usize) -> Value {
    let high = number >= DISPLACED;
    let mut pod = plain(number);
    pod["spec"]["priority"] = json!(if high { 1000 } else { 0 });
    let cpu = if high { "3" } else { "900m" };
    pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!(cpu);
    pod
}

/// A scheduler with the nodes of a case.
fn scheduler(nodes: usize) -> Scheduler {
    let desk = Desk::new(&SchedulerConfig::default()).unwrap();
    let mut scheduler = Scheduler::new(desk, None, &RngTree::new(1));
    scheduler.keep_lean();
    for kind in Scheduler::KINDS.iter().copied() {
        let objects = match kind {
            Kind::Node => (0..nodes).map(node).collect(),
            Kind::Namespace => (0..TEAMS).map(|team| namespace(&format!("team-{team}"))).collect(),
            _ => Vec::new(),
        };
        let list = WatchEvent::Replaced { kind, objects, revision: Revision(1) };
        scheduler.step(NOW, ApiInput::Watch(list), &mut Vec::new());
    }
    scheduler
}

fn is_binding(effect: &ApiEffect) -> Option<(CallId, String)> {
    match effect {
        ApiEffect::Call { id, request: Request::Bind { node, .. } } => Some((*id, node.clone())),
        _ => None,
    }
}

/// Does what the scheduler asks for so that a pod finds a place: others go, at once.
fn make_way(
    scheduler: &mut Scheduler,
    pod: &mut Value,
    out: &mut Vec<ApiEffect>,
    step: &mut impl FnMut(&mut Scheduler, ApiInput, &mut Vec<ApiEffect>),
) {
    let changed = |pod: &Value| ApiInput::Watch(WatchEvent::Changed(object(pod)));
    let last = pod["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
    let mut bindings = Vec::new();
    while !out.is_empty() {
        for effect in std::mem::take(out) {
            if is_binding(&effect).is_some() {
                // Who has nothing else to do does not wait for the pause to end.
                bindings.push(effect);
                continue;
            }
            let ApiEffect::Call { id, request } = effect else { continue };
            step(scheduler, ApiInput::Reply { id, result: Ok(Reply::Done(Revision(1))) }, out);
            match request {
                Request::Patch { patch, .. } => {
                    let node = patch.body.json()["status"]["nominatedNodeName"].clone();
                    if node.is_string() {
                        pod["status"] = json!({"nominatedNodeName": node});
                        pod["metadata"]["resourceVersion"] = json!((last + 1).to_string());
                        step(scheduler, changed(pod), out);
                    }
                }
                Request::Delete { key, .. } => {
                    let revision = Revision(1 << 40);
                    let gone = WatchEvent::Deleted { key, revision };
                    step(scheduler, ApiInput::Watch(gone), out);
                }
                _ => {}
            }
        }
    }
    step(scheduler, ApiInput::Wake, out);
    out.extend(bindings);
}

/// Lives one pod through; gives the time that the scheduler took, in nanoseconds.
fn live(scheduler: &mut Scheduler, case: &Case, number: usize, out: &mut Vec<ApiEffect>) -> u64 {
    let mut pod = (case.pod)(number);
    pod["metadata"]["resourceVersion"] = json!((10 + 3 * number).to_string());
    let new = ApiInput::Watch(WatchEvent::Changed(object(&pod)));
    let mut took = 0;
    let mut step = |scheduler: &mut Scheduler, input: ApiInput, out: &mut Vec<ApiEffect>| {
        // Who waits for the place of another is tried again after a second.
        let now = if matches!(input, ApiInput::Wake) { NOW + Duration::from_secs(2) } else { NOW };
        let start = Instant::now();
        scheduler.step(now, input, out);
        took += u64::try_from(start.elapsed().as_nanos()).unwrap();
    };
    step(scheduler, new, out);
    if !out.iter().any(|effect| is_binding(effect).is_some()) {
        make_way(scheduler, &mut pod, out, &mut step);
    }
    let binding = out.drain(..).find_map(|effect| is_binding(&effect));
    let (id, node) =
        binding.unwrap_or_else(|| panic!("pod {number} of {} goes nowhere", case.name));
    step(scheduler, ApiInput::Reply { id, result: Ok(Reply::Done(Revision(1))) }, out);
    pod["spec"]["nodeName"] = json!(node);
    pod["metadata"]["resourceVersion"] = json!((12 + 3 * number).to_string());
    step(scheduler, ApiInput::Watch(WatchEvent::Changed(object(&pod))), out);
    out.clear();
    took
}

/// What the process holds in memory.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    number.unwrap_or(0) * 1024
}

fn run(case: &Case) {
    let mut scheduler = scheduler(case.nodes);
    let mut out = Vec::new();
    for number in 0..case.before {
        live(&mut scheduler, case, number, &mut out);
    }
    let pods = case.before..case.before + case.pods;
    let mut took: Vec<u64> =
        pods.map(|number| live(&mut scheduler, case, number, &mut out)).collect();
    let total: u64 = took.iter().sum();
    took.sort_unstable();
    let figures = json!({
        "case": case.name,
        "nodes": case.nodes,
        "pods": case.pods,
        "pods_per_second": case.pods as f64 / (total as f64 / 1e9),
        "p50_seconds": took[took.len() / 2] as f64 / 1e9,
        "p99_seconds": took[took.len() * 99 / 100] as f64 / 1e9,
        "resident_bytes": resident_bytes(),
    });
    println!("{figures}");
}

fn main() {
    // Cargo adds flags of its own.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    for case in
        CASES.iter().filter(|case| wanted.is_empty() || wanted.iter().any(|w| w == case.name))
    {
        run(case);
    }
}
