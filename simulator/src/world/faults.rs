//! Faults: what they do when they begin and how it is undone.

use api::Revision;

use super::process::{Program, Trouble};
use super::watching::Interruption;
use super::{Event, Phase, PlanError, ProcessId, World, at, priority};
use crate::check::Occurrence;
use crate::plan::{Component, Fault, Plan};
use crate::span::Span;

/// A fault that goes on.
#[derive(Clone)]
pub(super) struct ActiveFault {
    /// Index in the plan.
    pub(super) index: u32,
    since: api::Time,
}

/// Checks that faults refer to components that exist.
pub(super) fn validate(plan: &Plan) -> Result<(), PlanError> {
    let settings = &plan.settings;
    let names: std::collections::BTreeSet<&str> =
        plan.nodes.iter().map(|n| n.name.as_str()).collect();
    let node = |name: &String| {
        names
            .contains(name.as_str())
            .then_some(())
            .ok_or_else(|| PlanError::Unknown { what: "the node", name: name.clone() })
    };
    let component = |component: &Component| {
        let exists = match component {
            Component::ApiServer(i) => *i < settings.api_servers,
            Component::Scheduler(i) => *i < settings.schedulers,
            Component::ControllerManager(i) => *i < settings.controller_managers,
            Component::Kubelet(name) => names.contains(name.as_str()),
        };
        exists.then_some(()).ok_or_else(|| PlanError::Unknown {
            what: "the component",
            name: component.to_string(),
        })
    };
    for planned in &plan.faults {
        match &planned.fault {
            Fault::HostCrash { node: name }
            | Fault::RuntimeErrors { node: name, .. }
            | Fault::RuntimeDown { node: name }
            | Fault::SlowDisk { node: name, .. } => node(name)?,
            Fault::Crash { component: name }
            | Fault::CrashAtCall { component: name, .. }
            | Fault::Pause { component: name }
            | Fault::Partition { component: name, .. }
            | Fault::Delay { component: name, .. }
            | Fault::CallTimeout { component: name, .. }
            | Fault::Duplicate { component: name, .. }
            | Fault::Loss { component: name, .. }
            | Fault::Reorder { component: name, .. }
            | Fault::WatchStall { component: name }
            | Fault::WatchGap { component: name }
            | Fault::WatchExpired { component: name }
            | Fault::WatchBreak { component: name }
            | Fault::WatchCoalescing { component: name, .. }
            | Fault::ClockSkew { component: name, .. }
            | Fault::ClockBehind { component: name, .. } => component(name)?,
            Fault::LaggingServer { api_server, .. } | Fault::StaleReads { api_server, .. } => {
                component(&Component::ApiServer(*api_server))?
            }
            Fault::StoreDown | Fault::ConflictStorm { .. } => {}
        }
        if let Some(server) = planned.fault.api_server() {
            component(&Component::ApiServer(server))?;
        }
    }
    Ok(())
}

impl World {
    /// The process of a component; `None` for API servers.
    fn process_of(&self, component: &Component) -> Option<ProcessId> {
        match component {
            Component::ApiServer(_) => None,
            Component::Kubelet(node) => self.kubelet_of(node),
            Component::Scheduler(index) => self.process_with(Program::Scheduler(*index)),
            Component::ControllerManager(index) => {
                self.process_with(Program::ControllerManager(*index))
            }
        }
    }

    fn process_with(&self, program: Program) -> Option<ProcessId> {
        let found = self.processes.iter().position(|p| p.program == program)?;
        u32::try_from(found).ok().map(ProcessId)
    }

    fn host_named(&self, node: &str) -> Option<u32> {
        self.host_of.get(node).copied()
    }

    pub(super) fn begin_fault(&mut self, index: u32) {
        if self.phase != Phase::Safety {
            return;
        }
        let planned = self.plan.faults[index as usize].clone();
        self.log.number(u64::from(index));
        self.tell(&Occurrence::FaultBegan(&planned.fault));
        self.faults.push(ActiveFault { index, since: self.now });
        let lasting = self.begin(&planned.fault, index);
        if !lasting {
            self.end_fault(index);
            return;
        }
        if let Some(lasts) = planned.lasts {
            let due = self.now + lasts.duration();
            if due < at(self.plan.heals_at()) {
                self.queue.push(due, priority::FAULT, Event::FaultEnds { fault: index });
            }
        }
    }

    /// Does what a fault does; false when it is over at once.
    fn begin(&mut self, fault: &Fault, index: u32) -> bool {
        match fault {
            Fault::HostCrash { node } => {
                if let Some(host) = self.host_named(node) {
                    self.crash_host(host);
                }
            }
            Fault::Crash { component: Component::ApiServer(server) } => {
                self.refresh_server(*server);
                self.lose_server(*server);
            }
            Fault::Crash { component } => {
                if let Some(process) = self.process_of(component) {
                    self.processes[process.index()].held_down += 1;
                    self.crash(process);
                }
            }
            Fault::CrashAtCall { component, call } => {
                if let Some(process) = self.process_of(component) {
                    self.processes[process.index()].crash_at_call = Some(*call);
                }
                return false;
            }
            Fault::Pause { component } => {
                if let Some(process) = self.process_of(component) {
                    self.processes[process.index()].paused += 1;
                }
            }
            Fault::Partition { component, .. }
            | Fault::Delay { component, .. }
            | Fault::CallTimeout { component, .. }
            | Fault::Duplicate { component, .. }
            | Fault::Loss { component, .. }
            | Fault::Reorder { component, .. } => self.refresh_trouble(component),
            Fault::WatchStall { component } => {
                if let Some(process) = self.process_of(component) {
                    self.stall_watches(process, true);
                }
            }
            Fault::WatchGap { component } => {
                if let Some(process) = self.process_of(component) {
                    self.hold_watches_down(process, Interruption::Forgotten);
                }
            }
            Fault::WatchBreak { component } => {
                if let Some(process) = self.process_of(component) {
                    self.hold_watches_down(process, Interruption::GoesOn);
                }
            }
            Fault::WatchCoalescing { component, period } => {
                if let Some(process) = self.process_of(component) {
                    self.stall_watches(process, true);
                }
                self.repeat_after(index, *period);
            }
            Fault::WatchExpired { component } => {
                if let Some(process) = self.process_of(component) {
                    self.expire_watches(process);
                }
                return false;
            }
            Fault::LaggingServer { api_server, .. } | Fault::StaleReads { api_server, .. } => {
                self.refresh_server(*api_server);
            }
            Fault::StoreDown => self.store_down = true,
            Fault::ConflictStorm { target, period } => {
                self.touch_all(*target);
                self.repeat_after(index, *period);
            }
            Fault::ClockSkew { component, .. } | Fault::ClockBehind { component, .. } => {
                self.refresh_clock(component);
            }
            Fault::RuntimeErrors { node, .. } | Fault::SlowDisk { node, .. } => {
                self.refresh_runtime(node);
            }
            Fault::RuntimeDown { node } => {
                if let Some(host) = self.host_named(node) {
                    self.hosts[host as usize].runtime_down += 1;
                }
            }
        }
        true
    }

    pub(super) fn repeat_fault(&mut self, index: u32) {
        if !self.faults.iter().any(|f| f.index == index) {
            return;
        }
        let plan = std::sync::Arc::clone(&self.plan);
        let period = match &plan.faults[index as usize].fault {
            Fault::ConflictStorm { target, period } => {
                self.touch_all(*target);
                *period
            }
            Fault::WatchCoalescing { component, period } => {
                if let Some(process) = self.process_of(component) {
                    self.deliver_batch(process, self.coalescings(component));
                }
                *period
            }
            _ => return,
        };
        self.repeat_after(index, period);
    }

    fn repeat_after(&mut self, index: u32, period: Span) {
        let due = self.now + Span(period.0.max(1_000_000)).duration();
        self.queue.push(due, priority::FAULT, Event::FaultRepeats { fault: index });
    }

    pub(super) fn end_fault(&mut self, index: u32) {
        let Some(position) = self.faults.iter().position(|f| f.index == index) else { return };
        self.faults.remove(position);
        let fault = self.plan.faults[index as usize].fault.clone();
        self.undo(&fault);
        self.tell(&Occurrence::FaultEnded(&fault));
    }

    fn undo(&mut self, fault: &Fault) {
        match fault {
            Fault::HostCrash { node } => {
                if let Some(host) = self.host_named(node).filter(|_| !self.is_active(fault)) {
                    self.power_on(host);
                }
            }
            Fault::Crash { component: Component::ApiServer(server) } => {
                self.refresh_server(*server);
            }
            Fault::Crash { component } => {
                if let Some(process) = self.process_of(component) {
                    let held = &mut self.processes[process.index()].held_down;
                    *held = held.saturating_sub(1);
                    self.start(process);
                }
            }
            Fault::Pause { component } => {
                if let Some(process) = self.process_of(component) {
                    let paused = &mut self.processes[process.index()].paused;
                    *paused = paused.saturating_sub(1);
                    if *paused == 0 {
                        self.resume(process);
                    }
                }
            }
            Fault::Partition { component, .. } => {
                self.refresh_trouble(component);
                if let Some(process) = self.process_of(component) {
                    self.deliver_owed(process);
                }
            }
            Fault::Delay { component, .. }
            | Fault::CallTimeout { component, .. }
            | Fault::Duplicate { component, .. }
            | Fault::Loss { component, .. }
            | Fault::Reorder { component, .. } => self.refresh_trouble(component),
            Fault::WatchStall { component } => {
                if let Some(process) = self.process_of(component) {
                    self.stall_watches(process, false);
                }
            }
            Fault::WatchGap { component } | Fault::WatchBreak { component } => {
                if let Some(process) = self.process_of(component) {
                    self.let_watches_go_on(process);
                }
            }
            Fault::WatchCoalescing { component, .. } => {
                if let Some(process) = self.process_of(component) {
                    // It holds them back itself, though it counts no more.
                    self.deliver_batch(process, self.coalescings(component) + 1);
                    self.stall_watches(process, false);
                }
            }
            Fault::LaggingServer { api_server, .. } | Fault::StaleReads { api_server, .. } => {
                self.refresh_server(*api_server);
            }
            Fault::StoreDown => self.store_down = self.is_active(&Fault::StoreDown),
            Fault::ClockSkew { component, .. } | Fault::ClockBehind { component, .. } => {
                self.refresh_clock(component);
            }
            Fault::RuntimeErrors { node, .. } | Fault::SlowDisk { node, .. } => {
                self.refresh_runtime(node);
            }
            Fault::RuntimeDown { node } => {
                if let Some(host) = self.host_named(node) {
                    let down = &mut self.hosts[host as usize].runtime_down;
                    *down = down.saturating_sub(1);
                }
            }
            Fault::CrashAtCall { .. }
            | Fault::WatchExpired { .. }
            | Fault::ConflictStorm { .. } => {}
        }
    }

    fn is_active(&self, fault: &Fault) -> bool {
        self.faults().any(|active| active == fault)
    }

    /// How many faults that go on tell in batches what a component watches: each holds its watches
    /// back until its own next batch, and none the batches of another.
    fn coalescings(&self, of: &Component) -> u32 {
        let such = |fault: &&Fault| matches!(fault, Fault::WatchCoalescing { component, .. } if component == of);
        u32::try_from(self.faults().filter(such).count()).unwrap_or(u32::MAX)
    }

    /// Whether a fault keeps the host down.
    pub(super) fn is_held_down(&self, host: u32) -> bool {
        let name = self.hosts[host as usize].name.to_string();
        self.is_active(&Fault::HostCrash { node: name })
    }

    /// What the faults that go on do to a host's runtime: of several the worst counts.
    fn refresh_runtime(&mut self, node: &str) {
        let Some(host) = self.host_named(node) else { return };
        let (mut errors_percent, mut slowness) = (0, 1);
        for fault in self.faults() {
            match fault {
                Fault::RuntimeErrors { node: n, percent } if n == node => {
                    errors_percent = errors_percent.max(*percent);
                }
                Fault::SlowDisk { node: n, factor } if n == node => {
                    slowness = slowness.max(*factor);
                }
                _ => {}
            }
        }
        let host = &mut self.hosts[host as usize];
        (host.errors_percent, host.slowness) = (errors_percent, slowness);
    }

    /// What the faults that go on do to an API server: of several lags the longest counts.
    fn refresh_server(&mut self, server: u16) {
        let crash = Fault::Crash { component: Component::ApiServer(server) };
        let up = !self.is_active(&crash);
        let (mut lag, mut stale) = (Span::ZERO, Span::ZERO);
        for fault in self.faults() {
            match fault {
                Fault::LaggingServer { api_server, lag: by } if *api_server == server => {
                    lag = lag.max(*by);
                }
                Fault::StaleReads { api_server, lag: by } if *api_server == server => {
                    lag = lag.max(*by);
                    stale = stale.max(*by);
                }
                _ => {}
            }
        }
        let revision = self.store.revision();
        let server = &mut self.servers[server as usize];
        if up && !server.up {
            // Its watch cache begins with what is stored when it starts.
            server.knows_since = revision;
        }
        (server.up, server.lag, server.stale) = (up, lag, stale);
    }

    /// How far the faults that go on set a clock ahead and back: the farthest of each counts.
    /// Checks allow each skew for as long as it lasts, so two must not come to more than the
    /// greater one.
    fn refresh_clock(&mut self, component: &Component) {
        let Some(process) = self.process_of(component) else { return };
        let (mut ahead, mut behind) = (Span::ZERO, Span::ZERO);
        for fault in self.faults() {
            match fault {
                Fault::ClockSkew { component: c, ahead: by } if c == component => {
                    ahead = ahead.max(*by);
                }
                Fault::ClockBehind { component: c, behind: by } if c == component => {
                    behind = behind.max(*by);
                }
                _ => {}
            }
        }
        let process_of = &mut self.processes[process.index()];
        (process_of.ahead, process_of.behind) = (ahead, behind);
        self.schedule_wake(process);
    }

    pub(super) fn end_all_faults(&mut self) {
        while let Some(active) = self.faults.first() {
            let index = active.index;
            self.end_fault(index);
        }
        for process in &mut self.processes {
            process.crash_at_call = None;
        }
    }

    /// Sums up what is wrong with a process' messages.
    fn refresh_trouble(&mut self, component: &Component) {
        let Some(process) = self.process_of(component) else { return };
        let before = self.processes[process.index()].trouble.take();
        let rng = before.map_or_else(
            || {
                let tree = self.rng.child("links").child(&process.index().to_string());
                // Another one each time: the faults of a process do not repeat each other.
                tree.rng(&self.events.to_string())
            },
            |trouble| trouble.rng,
        );
        let mut trouble = Trouble::new(rng);
        let mut any = false;
        for active in &self.faults {
            let fault = &self.plan.faults[active.index as usize].fault;
            match fault {
                Fault::Partition { component: c, api_server, direction } if c == component => {
                    trouble.partitions.push((*api_server, *direction, active.since));
                }
                Fault::Delay { component: c, api_server, extra } if c == component => {
                    trouble.delays.push((*api_server, extra.clone()));
                }
                Fault::CallTimeout { component: c, percent, outcome } if c == component => {
                    trouble.timeouts.push((*percent, *outcome));
                }
                Fault::Duplicate { component: c, api_server, percent } if c == component => {
                    trouble.duplicates.push((*api_server, *percent));
                }
                Fault::Loss { component: c, api_server, direction, percent } if c == component => {
                    trouble.losses.push((*api_server, *direction, *percent));
                }
                Fault::Reorder { component: c, api_server, percent, by } if c == component => {
                    trouble.held_back.push((*api_server, *percent, *by));
                }
                _ => continue,
            }
            any = true;
        }
        self.processes[process.index()].trouble = any.then(|| Box::new(trouble));
    }

    /// Remembers when the store came to a revision, for watch caches that lag.
    pub(super) fn note_revision(&mut self, revision: Revision) {
        const REMEMBERED: usize = 8_192;
        if self.revisions.len() == REMEMBERED {
            self.revisions.pop_front();
        }
        self.revisions.push_back((self.now, revision));
    }

    /// The revision of the store at a time in the recent past.
    pub(super) fn revision_before(&self, time: api::Time) -> Revision {
        let later = self.revisions.partition_point(|(at, _)| *at <= time);
        match later.checked_sub(1) {
            Some(index) => self.revisions[index].1,
            None => self.revisions.front().map_or(self.store.revision(), |(_, revision)| *revision),
        }
    }
}

#[cfg(test)]
mod tests;
