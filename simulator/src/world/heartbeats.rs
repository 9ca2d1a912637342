//! Heartbeats of healthy nodes: known in closed form instead of sent.
//!
//! A settled kubelet renews its lease and measures its node every ten seconds, and that is all
//! there is to know of it. From then on its heartbeats are not events: the kubelet is told that
//! its duties were done, and the controller managers' watches that the lease is being renewed.
//! Some time before a fault that could be felt begins, and whenever the kubelet is not settled
//! any more, the lease is written as it would be by then and heartbeats are sent again.

use std::collections::BTreeMap;

use api::{ApiObject, Key, Kind, Object, Request, Time};
use k8s_openapi::api::coordination::v1::Lease;
use machine::WatchEvent;
use registry::Operation;

use super::process::{Program, Running};
use super::{Event, ProcessId, World, at, priority};
use crate::plan::{Component, Fault, Plan};
use crate::span::Span;

/// How long before a fault heartbeats are sent: two renewals, so that whoever counts from the
/// last one counts right.
const BEFORE: Span = Span::secs(25);
/// How long after a fault heartbeats are still sent.
const AFTER: Span = Span::secs(60);
/// The namespace of the nodes' leases.
const LEASES: &str = "kube-node-lease";

/// When heartbeats must be sent.
#[derive(Clone, Default)]
pub(super) struct Windows {
    /// By all nodes.
    all: Vec<(Time, Time)>,
    /// By the node of a host.
    of_host: BTreeMap<u32, Vec<(Time, Time)>>,
}

impl Windows {
    fn contain(&self, host: u32, now: Time) -> bool {
        let within = |(from, to): &(Time, Time)| *from <= now && now < *to;
        self.all.iter().any(within) || self.of_host.get(&host).is_some_and(|w| w.iter().any(within))
    }
}

/// The node that alone feels a fault; `None` when many may.
fn only_node(fault: &Fault) -> Option<&str> {
    match fault {
        Fault::HostCrash { node }
        | Fault::RuntimeErrors { node, .. }
        | Fault::RuntimeDown { node }
        | Fault::SlowDisk { node, .. } => Some(node),
        Fault::Crash { component }
        | Fault::CrashAtCall { component, .. }
        | Fault::Pause { component }
        | Fault::Partition { component, .. }
        | Fault::Delay { component, .. }
        | Fault::CallTimeout { component, .. }
        | Fault::Duplicate { component, .. }
        | Fault::Loss { component, .. }
        | Fault::Reorder { component, .. }
        | Fault::WatchStall { component }
        | Fault::WatchGap { component }
        | Fault::WatchExpired { component }
        | Fault::WatchBreak { component }
        | Fault::WatchCoalescing { component, .. }
        | Fault::ClockSkew { component, .. }
        | Fault::ClockBehind { component, .. } => match component {
            Component::Kubelet(node) => Some(node),
            _ => None,
        },
        Fault::LaggingServer { .. }
        | Fault::StaleReads { .. }
        | Fault::StoreDown
        | Fault::ConflictStorm { .. } => None,
    }
}

impl World {
    /// Finds out from the plan when heartbeats must be sent.
    pub(super) fn plan_heartbeats(&mut self) {
        let plan = std::sync::Arc::clone(&self.plan);
        if !plan.settings.lazy_heartbeats {
            return;
        }
        for planned in &plan.faults {
            let window = window(&plan, planned.at, planned.lasts);
            let host = only_node(&planned.fault).and_then(|node| self.host_of.get(node)).copied();
            let event = match host {
                Some(host) => {
                    self.windows.of_host.entry(host).or_default().push(window);
                    Event::Unsteady { host }
                }
                None => {
                    self.windows.all.push(window);
                    Event::UnsteadyAll
                }
            };
            self.queue.push(window.0, priority::FAULT, event);
        }
    }

    /// Whether the heartbeats of the host's node are known without being sent.
    fn is_steady(&self, id: ProcessId) -> Option<u32> {
        match self.processes[id.index()].program {
            Program::Kubelet(host) if self.hosts[host as usize].steady => Some(host),
            _ => None,
        }
    }

    /// When a process wants to be woken, but for heartbeats that need not be sent.
    pub(super) fn wanted_wake(&self, id: ProcessId) -> Option<Time> {
        match (self.is_steady(id), &self.processes[id.index()].running) {
            // Steady is who was settled when it acted last.
            (Some(_), Running::Kubelet(kubelet)) => kubelet.pods_wake_at(),
            _ => self.machine_wake_at(id),
        }
    }

    /// Tells a kubelet that is about to act that its duties were done up to now.
    pub(super) fn catch_up_duties(&mut self, id: ProcessId) {
        if self.is_steady(id).is_none() {
            return;
        }
        let process = &mut self.processes[id.index()];
        let clock = process.clock(self.now);
        if let Running::Kubelet(kubelet) = &mut process.running {
            kubelet.duties_done(clock, None);
        }
    }

    /// After a kubelet has acted: whether its heartbeats need to be sent.
    pub(super) fn judge_heartbeats(&mut self, id: ProcessId) {
        let process = &self.processes[id.index()];
        let (Program::Kubelet(host), Running::Kubelet(kubelet)) =
            (process.program, &process.running)
        else {
            return;
        };
        let steady = self.hosts[host as usize].steady;
        let settled = kubelet.is_settled();
        if steady && !settled {
            self.end_steadiness(host);
        } else if !steady
            && settled
            && self.plan.settings.lazy_heartbeats
            && process.paused == 0
            && !self.windows.contain(host, self.now)
        {
            self.hosts[host as usize].steady = true;
            self.announce_steady(host);
        }
    }

    fn lease_key(&self, host: u32) -> Key {
        Key::new(Kind::Lease, LEASES, &self.hosts[host as usize].name)
    }

    fn announce_steady(&mut self, host: u32) {
        let revision = self.store.revision();
        let event = WatchEvent::Renewing { key: self.lease_key(host), revision };
        // Controller managers come right after the schedulers.
        let settings = &self.plan.settings;
        let first = u32::from(settings.schedulers);
        for index in first..first + u32::from(settings.controller_managers) {
            self.tell_directly(ProcessId(index), Kind::Lease, &event);
        }
    }

    /// A watcher that has listed leases learns which of them are being renewed.
    pub(super) fn steady_leases(&self) -> Vec<WatchEvent> {
        let revision = self.store.revision();
        let hosts = (0..self.hosts.len()).filter(|i| self.hosts[*i].steady);
        hosts
            .filter_map(|i| u32::try_from(i).ok())
            .map(|host| WatchEvent::Renewing { key: self.lease_key(host), revision })
            .collect()
    }

    /// Writes the lease as it would be by now; from here on heartbeats are sent.
    pub(super) fn end_steadiness(&mut self, host: u32) {
        if !std::mem::replace(&mut self.hosts[host as usize].steady, false) {
            return;
        }
        let id = self.hosts[host as usize].kubelet;
        let key = self.lease_key(host);
        let clock = self.processes[id.index()].clock(self.now);
        let mut renewed = None;
        if let Some(lease) = self.store.get(&key).and_then(Object::get::<Lease>) {
            let mut lease = lease.clone();
            if let Some(spec) = &mut lease.spec {
                spec.renew_time = Some(clock.to_micro());
            }
            let request = Request::Update { object: lease.into_object(), subresource: None };
            if let Some(operation) = Operation::of_request(&request) {
                let caller = self.processes[id.index()].caller.clone();
                // A lease that cannot be written is one that the kubelet could not renew either.
                let _ = self.write(Some(id), &request, &operation, &caller);
                renewed = self.store.get(&key).cloned();
            }
        }
        if let Running::Kubelet(kubelet) = &mut self.processes[id.index()].running {
            kubelet.duties_done(clock, renewed.as_ref());
            self.schedule_wake(id);
        }
    }

    pub(super) fn end_all_steadiness(&mut self) {
        for host in 0..self.hosts.len() {
            self.end_steadiness(u32::try_from(host).expect("an index of hosts"));
        }
    }
}

/// When a fault can be felt.
fn window(plan: &Plan, begins: Span, lasts: Option<Span>) -> (Time, Time) {
    let ends = lasts.map_or(plan.heals_at().0, |l| begins.0.saturating_add(l.0));
    (at(Span(begins.0.saturating_sub(BEFORE.0))), at(Span(ends.saturating_add(AFTER.0))))
}
