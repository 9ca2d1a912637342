//! Hosts: a container runtime each, which outlives its kubelet.

use api::Name;
use kubelet::container_runtime::{ContainerRuntime, Durations, NodeShape};
use kubelet::{RuntimeError, RuntimeErrorKind, RuntimeInput, RuntimeRequest};
use machine::CallId;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::alarm::Alarms;
use super::bound::Bound;
use super::process::{Input, Program};
use super::{Event, ProcessId, START, World, at, priority};
use crate::plan::{PlannedNode, Runtime};
use crate::span::Span;

/// Hosts of one moment are spread over this time, so that their duties do not fall together.
const BOOT_SPREAD: Span = Span::secs(10);
/// How long a host takes to boot after a crash.
const BOOT: Span = Span::secs(20);
/// Production gives a fetch up after this time. One that begins on a slow disk stays slow.
const PULL_MAX: Span = Span::secs(1800);

/// One host.
#[derive(Clone)]
pub(super) struct Host {
    pub(super) name: Name,
    pub(super) kubelet: ProcessId,
    pub(super) up: bool,
    pub(super) runtime: ContainerRuntime,
    /// When its runtime is looked at.
    alarms: Alarms,
    /// Requests of a hundred that fail.
    pub(super) errors_percent: u8,
    /// Counts reasons for which the runtime does not answer.
    pub(super) runtime_down: u32,
    /// How many times longer everything takes.
    pub(super) slowness: u32,
    /// The pods that are bound to its node.
    pub(super) bound: Bound,
    rng: ChaCha8Rng,
    /// Whether its node's heartbeats are known without being sent.
    pub(super) steady: bool,
}

/// Draws how long things take on one host.
struct Clockwork<'a> {
    model: &'a Runtime,
    slowness: u64,
    rng: &'a mut ChaCha8Rng,
}

impl Clockwork<'_> {
    fn slow(&self, span: Span) -> u64 {
        span.0.saturating_mul(self.slowness)
    }
}

impl Durations for Clockwork<'_> {
    fn sandbox_start(&mut self) -> u64 {
        let span = self.model.sandbox_start.sample(self.rng);
        self.slow(span)
    }

    fn container_start(&mut self) -> u64 {
        let span = self.model.container_start.sample(self.rng);
        self.slow(span)
    }

    fn stop(&mut self, grace_seconds: u32, obeys_after: u64) -> u64 {
        let takes = self.model.stop.sample(self.rng).0.saturating_add(obeys_after);
        let takes = takes.min(Span::secs(u64::from(grace_seconds)).0);
        self.slow(Span(takes.max(1_000_000)))
    }

    fn pull(&mut self, _image: &str) -> u64 {
        let span = self.model.pull.sample(self.rng);
        self.slow(span).min(PULL_MAX.0)
    }

    fn other(&mut self) -> u64 {
        let span = self.model.other.sample(self.rng);
        self.slow(span)
    }
}

impl World {
    pub(super) fn add_host(&mut self, index: u32, node: &PlannedNode) {
        let shape = &self.plan.shapes[node.shape as usize];
        let hardware = NodeShape {
            cpus: u32::try_from(shape.cpu_milli / 1_000).unwrap_or(u32::MAX),
            memory_bytes: shape.memory_bytes,
            disk_bytes: 500 << 30,
        };
        let [_, prefix, _, _] = index.to_be_bytes();
        let mut runtime = ContainerRuntime::new(hardware, prefix, u64::from(index));
        runtime.load_image("pause");
        runtime.set_devices(shape.extended.clone());
        let mut rng = self.rng.child("host").rng(&index.to_string());
        let spread = Span(rng.random_range(0..BOOT_SPREAD.0));
        let start = at(node.joins) + spread.duration();
        let name: Name = node.name.as_str().into();
        self.hosts.push(Host {
            name: name.clone(),
            kubelet: ProcessId(0),
            up: true,
            runtime,
            alarms: Alarms::default(),
            errors_percent: 0,
            runtime_down: 0,
            slowness: 1,
            bound: Bound::default(),
            rng,
            steady: false,
        });
        self.host_of.insert(name, index);
        let kubelet = self.add_process(Program::Kubelet(index), start.max(START));
        self.hosts[index as usize].kubelet = kubelet;
    }

    /// The kubelet of that node.
    pub(super) fn kubelet_of(&self, node: &str) -> Option<ProcessId> {
        self.host_of.get(node).map(|host| self.hosts[*host as usize].kubelet)
    }

    /// A kubelet process connects to the runtime of its host.
    pub(super) fn connect_runtime(&mut self, host: u32) {
        let now = self.now;
        self.hosts[host as usize].runtime.connect(now);
        self.schedule_runtime(host);
    }

    pub(super) fn runtime_request(&mut self, index: u32, id: CallId, request: RuntimeRequest) {
        let now = self.now;
        let host = &mut self.hosts[index as usize];
        let unavailable = host.runtime_down > 0;
        let fails = unavailable
            || host.errors_percent > 0 && host.rng.random_range(0..100) < host.errors_percent;
        let fail = fails.then(|| RuntimeError {
            kind: if unavailable { RuntimeErrorKind::Unavailable } else { RuntimeErrorKind::Other },
            message: "the container runtime failed (simulated)".to_owned(),
        });
        let mut clockwork = Clockwork {
            model: &self.plan.settings.runtime,
            slowness: u64::from(host.slowness),
            rng: &mut host.rng,
        };
        host.runtime.request(now, id, request, &mut clockwork, fail);
        self.schedule_runtime(index);
    }

    fn schedule_runtime(&mut self, index: u32) {
        let host = &mut self.hosts[index as usize];
        let Some(due) = host.runtime.next_due().filter(|_| host.up) else { return };
        let due = due.max(self.now);
        if host.alarms.set(due) {
            self.queue.push(due, priority::MESSAGE, Event::Runtime { host: index });
        }
    }

    pub(super) fn runtime_due(&mut self, index: u32) {
        let host = &mut self.hosts[index as usize];
        if !host.alarms.ring(self.now) {
            return;
        }
        let mut inputs: Vec<RuntimeInput> = Vec::new();
        host.runtime.due(self.now, &mut inputs);
        let kubelet = host.kubelet;
        for input in inputs {
            self.feed(kubelet, Input::Runtime(input));
        }
        self.schedule_runtime(index);
    }

    /// The host dies with all that runs on it.
    pub(super) fn crash_host(&mut self, index: u32) {
        let kubelet = self.hosts[index as usize].kubelet;
        self.crash(kubelet);
        let host = &mut self.hosts[index as usize];
        host.up = false;
        host.alarms.forget();
        host.runtime.crash();
    }

    /// Somebody has switched the host on again.
    pub(super) fn power_on(&mut self, index: u32) {
        self.queue.push(self.now + BOOT.duration(), priority::FAULT, Event::Boot { host: index });
    }

    pub(super) fn boot(&mut self, index: u32) {
        let now = self.now;
        // It may have been switched off again while it booted.
        if self.hosts[index as usize].up || self.is_held_down(index) {
            return;
        }
        let host = &mut self.hosts[index as usize];
        host.up = true;
        host.runtime.restart(now);
        let kubelet = host.kubelet;
        self.start(kubelet);
    }

    /// Whether some container will end by itself, or is being started, stopped or fetched for
    /// long: the cluster is silent, not at rest.
    ///
    /// What is done within a second does not count: a container that ends and starts again and
    /// again, or a probe, would never let the cluster rest.
    pub(super) fn expects_changes(&self) -> bool {
        let soon = self.now + Span::secs(1).duration();
        self.hosts.iter().any(|h| h.runtime.exits_after(soon) || h.runtime.works_after(soon))
    }
}
