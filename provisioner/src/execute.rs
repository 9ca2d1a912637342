//! Carries a plan out, wave by wave, without making choices.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::host::{Host, HostError, HttpsEndpoint, StepEvent};
use crate::inventory::{Hook, HookMoment, Phase};
use crate::lock::Lease;
use crate::plan::{HostPlan, Plan, Wave};
use crate::ready;
use crate::state::{HostState, Stage};

#[cfg(test)]
mod cuts;
mod drain;
mod gate;
#[cfg(test)]
mod generations_tests;
mod hooks;
mod parallel;
mod quorum;
mod report;
#[cfg(test)]
mod rollout_tests;
mod spare;
#[cfg(test)]
mod tests;

pub use gate::GateError;
pub(crate) use gate::chain;
pub use parallel::in_parallel;
pub use report::{ApplyError, Outcome, PhaseTime, Progressed, Report};

/// The hosts of a run by name; each is used by one thread at a time.
pub type Hosts = BTreeMap<String, Box<dyn Host>>;

/// Bounds of a run.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Hosts worked on at the same time.
    pub at_once: usize,
    /// Longest wait for one health gate.
    pub gate: Duration,
    /// How many times in a row a gate must pass after something that ran went down.
    pub passes: u32,
    /// When the whole run must be over.
    pub deadline: Instant,
    /// Whether hosts that are lost on the way stop nothing but themselves, as long as the members
    /// of etcd that are left have a quorum.
    pub allow_unreachable: bool,
    /// Whether people let nodes in: one that has not been is not waited for.
    pub nodes_by_hand: bool,
}

impl Limits {
    /// The usual bounds of a run that must be over at `deadline`.
    #[must_use]
    pub fn until(deadline: Instant, at_once: usize) -> Self {
        let gate = Duration::from_secs(60);
        Self { at_once, gate, passes: 1, deadline, allow_unreachable: false, nodes_by_hand: false }
    }
}

/// Who is told what happens; called from several threads.
pub trait Observer: Sync {
    /// Something happened on `host`.
    fn event(&self, host: &str, event: &Progress<'_>);

    /// A phase of the whole run begins; the one before it is over.
    fn phase(&self, _name: &str) {}
}

/// What happens on a host.
#[derive(Debug, Clone, Copy)]
pub enum Progress<'a> {
    /// Bytes sent so far, of how many.
    Sending {
        /// So far.
        sent: u64,
        /// In all.
        total: u64,
    },
    /// A step begins.
    Step(&'a str),
    /// A health gate is waited for.
    Gate(&'a str),
    /// A note for the operator.
    Note(&'a str),
    /// A hook begins.
    Hook(&'a str),
    /// What a hook printed.
    Output(&'a str),
    /// The host has nothing to do until others are as far.
    Idle,
    /// All is done on this host.
    Done,
    /// The host failed.
    Failed(&'a ApplyError),
}

/// Everything a run needs besides the hosts themselves.
pub struct Execution<'a> {
    /// Desired states of all hosts, also of those that the plan leaves out; the health gates take
    /// their credentials from here.
    pub desired: &'a [HostState],
    /// What to do.
    pub plan: &'a Plan,
    /// Bounds.
    pub limits: Limits,
    /// Who is told.
    pub observer: &'a dyn Observer,
    /// Set when the operator wants to stop; looked at between steps' batches.
    pub stop: &'a AtomicBool,
    /// The right to write, where the run needs one.
    pub lease: Option<&'a Lease>,
    /// The operator's commands around phases, and the cluster's name for them.
    pub hooks: (&'a [Hook], &'a str),
    /// Where to ask whether a restarted node is ready, one question a master; empty to not ask.
    pub nodes: &'a [HttpsEndpoint],
    /// Whether nodes at work are drained before they change, and uncordoned after it.
    pub drain: bool,
}

impl Execution<'_> {
    /// Claims the lease, sends all bytes, then runs the waves. Hosts that fail are left out of
    /// later waves; a failure that touches etcd or the control plane ends the run, because the
    /// next member may be the one that holds the quorum, and so does one of a node at work,
    /// because the next nodes would fail as well.
    pub fn run(&self, hosts: &mut Hosts) -> Report {
        let report = self.begin(hosts);
        self.go_on(hosts, report)
    }

    /// The first part of [`Self::run`]: the lease, and the hooks before everything else.
    pub fn begin(&self, hosts: &mut Hosts) -> Report {
        let mut report = Report::default();
        self.enlist(&mut report);
        if report.hosts.is_empty() {
            return report;
        }
        if let Err(because) = self.claim(hosts) {
            end_all(&mut report, &because);
        }
        self.hooks(hosts, HookMoment::Before, Phase::Apply, &mut report);
        report
    }

    /// The rest of [`Self::run`], maybe with another plan: what was done between the two may have
    /// left less to do. `report` is that of [`Self::begin`].
    pub fn go_on(&self, hosts: &mut Hosts, mut report: Report) -> Report {
        self.enlist(&mut report);
        if report.hosts.is_empty() {
            return report;
        }
        if self.halted(&report, None).is_none() {
            self.send_all(hosts, &mut report);
        }
        let mut waves = &self.plan.waves[..];
        while let Some(first) = waves.first() {
            let phase = phase_of(first);
            let same = waves.iter().take_while(|wave| phase_of(wave) == phase).count();
            let (now, later) = waves.split_at(same);
            self.hooks(hosts, HookMoment::Before, phase, &mut report);
            for wave in now {
                let began = Instant::now();
                let name = phase_name(wave);
                self.observer.phase(&name);
                self.wave(hosts, wave, &mut report);
                report.phases.push((name, began.elapsed()));
            }
            self.hooks(hosts, HookMoment::After, phase, &mut report);
            waves = later;
        }
        self.hooks(hosts, HookMoment::After, Phase::Apply, &mut report);
        for (host, outcome) in &report.hosts {
            match &outcome.error {
                Some(error) => self.observer.event(host, &Progress::Failed(error)),
                None => self.observer.event(host, &Progress::Done),
            }
        }
        report
    }

    fn enlist(&self, report: &mut Report) {
        for plan in self.plan.hosts.iter().filter(|plan| !plan.is_empty()) {
            report.hosts.entry(plan.host.clone()).or_default();
        }
    }

    /// Makes sure that no older run can write any more, before this one writes.
    fn claim(&self, hosts: &mut Hosts) -> Result<(), String> {
        match self.lease {
            Some(lease) => lease.claim(hosts, self.limits.at_once),
            None => Ok(()),
        }
    }

    fn send_all(&self, hosts: &mut Hosts, report: &mut Report) {
        let began = Instant::now();
        let sending = self.plan.hosts.iter().filter(|plan| !plan.uploads.is_empty());
        let names: BTreeSet<_> = sending.map(|plan| plan.host.clone()).collect();
        if names.is_empty() {
            return;
        }
        self.observer.phase("send");
        self.on_hosts(hosts, &names, report, |host, plan, _| self.send(host, plan));
        report.phases.push(("send".to_owned(), began.elapsed()));
    }

    fn wave(&self, hosts: &mut Hosts, wave: &Wave, report: &mut Report) {
        let halted = self.halted(report, Some(wave)).or_else(|| self.endangers(hosts, wave));
        let mut names = BTreeSet::new();
        for name in &wave.hosts {
            let outcome = report.hosts.entry(name.clone()).or_default();
            match (&outcome.error, &halted) {
                (None, None) => _ = names.insert(name.clone()),
                (None, Some(because)) => {
                    outcome.error = Some(ApplyError::NotReached { because: because.clone() });
                }
                (Some(_), _) => {}
            }
        }
        if self.drains(wave) {
            self.drain_nodes(hosts, &mut names, report);
        }
        self.on_hosts(hosts, &names, report, |host, plan, outcome| {
            self.batch(host, plan, wave.stage, outcome)
        });
        if wave.part.is_some() && wave.stage == Stage::Node && self.limits.passes > 1 {
            names.retain(|name| report.hosts.get(name).is_some_and(|o| o.error.is_none()));
            self.nodes_ready(hosts, &names, report);
        }
        if self.drains(wave) {
            self.fill_nodes(hosts, &names, report);
        }
    }

    /// After the restart of nodes at work, the cluster itself must be content with them before
    /// the next ones follow.
    fn nodes_ready(&self, hosts: &mut Hosts, names: &BTreeSet<String>, report: &mut Report) {
        let Some(asked) = names.iter().next() else { return };
        if self.nodes.is_empty() {
            return;
        }
        names.iter().for_each(|name| self.observer.event(name, &Progress::Gate("the node")));
        let Some(host) = hosts.get_mut(asked) else { return };
        let until = (Instant::now() + self.limits.gate).min(self.limits.deadline);
        let passes = self.limits.passes;
        let by_hand = self.limits.nodes_by_hand;
        let ready = ready::steadily(host.as_mut(), self.nodes, names, passes, by_hand, until);
        let Err(missing) = ready else { return };
        for (name, why) in missing {
            let outcome = report.hosts.entry(name.clone()).or_default();
            let unit = format!("the node {name}");
            let journal = match hosts.get_mut(&name) {
                Some(host) => host.journal("kubelet.service", gate::JOURNAL_LINES),
                None => continue,
            };
            let (waited, journal) = (self.limits.gate, journal.unwrap_or_default());
            outcome.error = Some(GateError::Unhealthy { unit, waited, last: why, journal }.into());
        }
    }

    /// Why nothing more may be done, if so; `wave` is what would be next.
    fn halted(&self, report: &Report, wave: Option<&Wave>) -> Option<String> {
        if self.stop.load(Ordering::Relaxed) {
            return Some("the operator interrupted the run".to_owned());
        }
        if Instant::now() >= self.limits.deadline {
            return Some("the time allowed by --timeout is over".to_owned());
        }
        if let Some(failure) = &report.hook_failure {
            return Some(failure.clone());
        }
        let spared = |error: &ApplyError| {
            self.limits.allow_unreachable && error.is_lost() && self.etcd_can_spare(report)
        };
        let failed: Vec<_> = (report.hosts.iter())
            .filter(|(_, outcome)| outcome.error.as_ref().is_some_and(|error| !spared(error)))
            .map(|(name, _)| name)
            .collect();
        if let Some(name) = failed.iter().find(|name| self.is_vital(name)) {
            return Some(format!("{name} failed, and it carries etcd or the control plane"));
        }
        if wave?.part.is_some() {
            // Only what has had its turn can have failed by the change itself.
            let name = failed.first()?;
            return Some(format!("{name} failed, so that no further node at work is changed"));
        }
        None
    }

    fn is_vital(&self, name: &str) -> bool {
        let stages = [Stage::Etcd, Stage::ControlPlane];
        let state = self.desired.iter().find(|state| state.host == name);
        state.is_some_and(|state| state.units.iter().any(|u| stages.contains(&u.stage)))
    }

    /// Whether the members of etcd that were lost on the way leave the others a quorum.
    fn etcd_can_spare(&self, report: &Report) -> bool {
        let members: Vec<_> = quorum::members(self.desired).map(|(state, _)| state).collect();
        let lost = members.iter().filter(|state| {
            let error = report.hosts.get(&state.host).and_then(|outcome| outcome.error.as_ref());
            error.is_some_and(ApplyError::is_lost)
        });
        members.is_empty() || members.len() - lost.count() > members.len() / 2
    }

    /// Whether a wave takes a member of etcd or an API server down that the others cannot spare now.
    fn endangers(&self, hosts: &mut Hosts, wave: &Wave) -> Option<String> {
        let interrupts = |name: &String| {
            let batch = self.plan.host(name).and_then(|plan| plan.batches.get(&wave.stage));
            batch.is_some_and(|batch| batch.interrupts)
        };
        let interrupted = wave.hosts.iter().find(|name| interrupts(name))?;
        match wave.stage {
            Stage::Etcd => quorum::check(hosts, self.desired, interrupted, self.limits).err(),
            Stage::ControlPlane => {
                spare::check(hosts, self.desired, interrupted, self.limits).err()
            }
            Stage::HostPrep | Stage::Node => None,
        }
    }

    fn send(&self, host: &mut dyn Host, plan: &HostPlan) -> Result<(), ApplyError> {
        let total = plan.upload_bytes();
        let observer = self.observer;
        host.push(&plan.uploads, &mut |sent| {
            // The archive is a little longer than its content; all has arrived when it was checked.
            let sent = sent.min(total.saturating_sub(1));
            observer.event(&plan.host, &Progress::Sending { sent, total });
        })?;
        observer.event(&plan.host, &Progress::Sending { sent: total, total });
        observer.event(&plan.host, &Progress::Idle);
        Ok(())
    }

    fn batch(
        &self,
        host: &mut dyn Host,
        plan: &HostPlan,
        stage: Stage,
        outcome: &mut Outcome,
    ) -> Result<(), ApplyError> {
        let Some(batch) = plan.batches.get(&stage) else { return Ok(()) };
        let observer = self.observer;
        let ran = host.run(&batch.steps, &mut |event| match event {
            StepEvent::Begin(step) => {
                outcome.steps += 1;
                if let crate::step::Step::Restart { unit } = step {
                    outcome.restarted.push(unit.clone());
                }
                observer.event(&plan.host, &Progress::Step(&step.describe()));
            }
            StepEvent::Note(note) => {
                outcome.notes.push(note.to_owned());
                observer.event(&plan.host, &Progress::Note(note));
            }
        });
        if let Err(HostError::Step { step, code, output, unit: Some(unit) }) = ran {
            let output = with_journal(host, &unit, output);
            return Err(HostError::Step { step, code, output, unit: Some(unit) }.into());
        }
        ran?;
        let state = self.desired.iter().find(|state| state.host == plan.host);
        // A start is watched once: what was down before can only get better.
        let passes = if batch.interrupts { self.limits.passes } else { 1 };
        let limits = Limits { passes, ..self.limits };
        for (unit, gate) in batch.gates.iter().filter(|(_, gate)| gate.asks(passes)) {
            self.observer.event(&plan.host, &Progress::Gate(unit));
            let state = state.expect("a plan is made from desired states");
            gate::wait(host, state, unit, gate, limits)?;
        }
        self.observer.event(&plan.host, &Progress::Idle);
        Ok(())
    }

    /// Runs `work` on the named hosts in parallel and notes their errors.
    fn on_hosts(
        &self,
        hosts: &mut Hosts,
        names: &BTreeSet<String>,
        report: &mut Report,
        work: impl Fn(&mut dyn Host, &HostPlan, &mut Outcome) -> Result<(), ApplyError> + Sync,
    ) {
        let chosen: Vec<_> = hosts.iter_mut().filter(|(name, _)| names.contains(*name)).collect();
        let done = in_parallel(chosen, self.limits.at_once, |(name, host)| {
            let plan = self.plan.host(name).expect("waves name hosts of the plan");
            let mut outcome = Outcome::default();
            outcome.error = work(host.as_mut(), plan, &mut outcome).err();
            (name.clone(), outcome)
        });
        for (name, new) in done {
            let outcome = report.hosts.entry(name).or_default();
            outcome.steps += new.steps;
            outcome.restarted.extend(new.restarted);
            outcome.notes.extend(new.notes);
            outcome.error = new.error;
        }
    }
}

fn end_all(report: &mut Report, because: &str) {
    for outcome in report.hosts.values_mut() {
        outcome.error = Some(ApplyError::NotReached { because: because.to_owned() });
    }
}

/// The phase that a wave is part of: all that a rollout does belongs to the nodes.
fn phase_of(wave: &Wave) -> Phase {
    match (wave.part, wave.stage) {
        (Some(_), _) | (None, Stage::Node) => Phase::Node,
        (None, Stage::HostPrep) => Phase::Host,
        (None, Stage::Etcd) => Phase::Etcd,
        (None, Stage::ControlPlane) => Phase::ControlPlane,
    }
}

fn phase_name(wave: &Wave) -> String {
    let part = wave.part.map_or(String::new(), |part| format!(" ({part})"));
    match &wave.hosts[..] {
        [host] => format!("{} on {host}{part}", wave.stage),
        hosts => format!("{} on {} hosts{part}", wave.stage, hosts.len()),
    }
}

fn with_journal(host: &mut dyn Host, unit: &str, output: String) -> String {
    match host.journal(unit, gate::JOURNAL_LINES) {
        Ok(journal) if !journal.trim().is_empty() => {
            format!("{output}\n{}", journal.trim_end()).trim_start().to_owned()
        }
        _ => output,
    }
}
