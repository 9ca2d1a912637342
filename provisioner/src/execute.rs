//! Carries a plan out, wave by wave, without making choices.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::host::{Host, HostError, StepEvent};
use crate::plan::{HostPlan, Plan, Wave};
use crate::state::{Gate, HostState, Stage};

mod gate;
mod quorum;
#[cfg(test)]
mod tests;

pub use gate::GateError;
pub(crate) use gate::chain;

/// The hosts of a run by name; each is used by one thread at a time.
pub type Hosts = BTreeMap<String, Box<dyn Host>>;

/// Bounds of a run.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Hosts worked on at the same time.
    pub at_once: usize,
    /// Longest wait for one health gate.
    pub gate: Duration,
    /// When the whole run must be over.
    pub deadline: Instant,
}

/// Who is told what happens; called from several threads.
pub trait Observer: Sync {
    /// Something happened on `host`.
    fn event(&self, host: &str, event: &Progress<'_>);
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
    /// All is done on this host.
    Done,
    /// The host failed.
    Failed(&'a ApplyError),
}

/// Why a host was not brought to its desired state.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// An operation on the host failed.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A unit did not become healthy.
    #[error(transparent)]
    Gate(#[from] GateError),
    /// Others failed first, and going on would have been unsafe.
    #[error("not reached: {because}")]
    NotReached {
        /// Why the run was stopped.
        because: String,
    },
}

impl ApplyError {
    /// What the operator can do about it.
    #[must_use]
    pub fn advice(&self) -> String {
        match self {
            Self::Host(error) => error.advice(),
            Self::Gate(error) => error.advice(),
            Self::NotReached { .. } => "apply again when the cause is gone".to_owned(),
        }
    }
}

/// What was done.
#[derive(Debug, Default)]
pub struct Report {
    /// By host; hosts without changes are not here.
    pub hosts: BTreeMap<String, Outcome>,
    /// Name and length of each phase, in order.
    pub phases: Vec<(String, Duration)>,
}

/// What was done on one host.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Steps begun that change something a user sees.
    pub steps: usize,
    /// Units started or restarted.
    pub restarted: Vec<String>,
    /// Notes from the host.
    pub notes: Vec<String>,
    /// Why it is not done.
    pub error: Option<ApplyError>,
}

impl Report {
    /// Whether every host is as it should be.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.hosts.values().all(|outcome| outcome.error.is_none())
    }

    /// Whether anything at all was changed on some host.
    #[must_use]
    pub fn changed_something(&self) -> bool {
        self.hosts.values().any(|outcome| outcome.steps > 0)
    }
}

/// One phase's time, for machines.
#[derive(Debug, Clone, Serialize)]
pub struct PhaseTime {
    /// The phase.
    pub phase: String,
    /// Its length in milliseconds.
    pub ms: u128,
}

/// Everything a run needs besides the hosts themselves.
pub struct Execution<'a> {
    /// Desired states; the health gates take their credentials from here.
    pub desired: &'a [HostState],
    /// What to do.
    pub plan: &'a Plan,
    /// Bounds.
    pub limits: Limits,
    /// Who is told.
    pub observer: &'a dyn Observer,
    /// Set when the operator wants to stop; looked at between steps' batches.
    pub stop: &'a AtomicBool,
}

impl Execution<'_> {
    /// Sends all bytes, then runs the waves. Hosts that fail are left out of later waves; a failure
    /// that touches etcd or the control plane ends the run, because the next member may be the
    /// one that holds the quorum.
    pub fn run(&self, hosts: &mut Hosts) -> Report {
        let mut report = Report::default();
        for plan in self.plan.hosts.iter().filter(|plan| !plan.is_empty()) {
            report.hosts.insert(plan.host.clone(), Outcome::default());
        }
        let began = Instant::now();
        let sending: Vec<_> =
            self.plan.hosts.iter().filter(|plan| !plan.uploads.is_empty()).collect();
        let names: BTreeSet<_> = sending.iter().map(|plan| plan.host.clone()).collect();
        self.on_hosts(hosts, &names, &mut report, |host, plan, _| self.send(host, plan));
        report.phases.push(("send".to_owned(), began.elapsed()));
        for wave in &self.plan.waves {
            let began = Instant::now();
            self.wave(hosts, wave, &mut report);
            report.phases.push((phase_name(wave), began.elapsed()));
        }
        for (host, outcome) in &report.hosts {
            match &outcome.error {
                Some(error) => self.observer.event(host, &Progress::Failed(error)),
                None => self.observer.event(host, &Progress::Done),
            }
        }
        report
    }

    fn wave(&self, hosts: &mut Hosts, wave: &Wave, report: &mut Report) {
        let halted = self.halted(report).or_else(|| self.endangers_quorum(hosts, wave));
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
        self.on_hosts(hosts, &names, report, |host, plan, outcome| {
            self.batch(host, plan, wave.stage, outcome)
        });
    }

    /// Why nothing more may be done, if so.
    fn halted(&self, report: &Report) -> Option<String> {
        if self.stop.load(Ordering::Relaxed) {
            return Some("the operator interrupted the run".to_owned());
        }
        if Instant::now() >= self.limits.deadline {
            return Some("the time allowed by --timeout is over".to_owned());
        }
        let vital = |name: &str| {
            let stages = [Stage::Etcd, Stage::ControlPlane];
            let state = self.desired.iter().find(|state| state.host == name);
            state.is_some_and(|state| state.units.iter().any(|u| stages.contains(&u.stage)))
        };
        let mut failed = report.hosts.iter().filter(|(_, outcome)| outcome.error.is_some());
        let (name, _) = failed.find(|(name, _)| vital(name))?;
        Some(format!("{name} failed, and it carries etcd or the control plane"))
    }

    /// Whether a wave takes an etcd member down that the others cannot spare now.
    fn endangers_quorum(&self, hosts: &mut Hosts, wave: &Wave) -> Option<String> {
        let interrupts = |name: &String| {
            let batch = self.plan.host(name).and_then(|plan| plan.batches.get(&wave.stage));
            batch.is_some_and(|batch| batch.interrupts)
        };
        let interrupted = wave.hosts.iter().find(|name| interrupts(name))?;
        if wave.stage != Stage::Etcd {
            return None;
        }
        quorum::check(hosts, self.desired, interrupted, self.limits).err()
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
        let asked = batch.gates.iter().filter(|(_, gate)| *gate != Gate::Active);
        for (unit, gate) in asked {
            self.observer.event(&plan.host, &Progress::Gate(unit));
            let state = state.expect("a plan is made from desired states");
            gate::wait(host, state, unit, gate, self.limits)?;
        }
        self.observer.event(&plan.host, &Progress::Step("wait for the other hosts"));
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

fn phase_name(wave: &Wave) -> String {
    match &wave.hosts[..] {
        [host] => format!("{} on {host}", wave.stage),
        hosts => format!("{} on {} hosts", wave.stage, hosts.len()),
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

/// Runs `work` on all items, at most `at_once` at a time; the answers are in the items' order.
///
/// Threads instead of tasks: every host blocks in libssh2, and borrowed hosts need no sharing.
pub fn in_parallel<T: Send, R: Send>(
    items: Vec<T>,
    at_once: usize,
    work: impl Fn(T) -> R + Sync,
) -> Vec<R> {
    let count = items.len();
    let queue: Mutex<VecDeque<_>> = Mutex::new(items.into_iter().enumerate().collect());
    let done = Mutex::new(BTreeMap::new());
    let worker = || {
        loop {
            let next = lock(&queue).pop_front();
            let Some((index, item)) = next else { return };
            let result = work(item);
            lock(&done).insert(index, result);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..count.min(at_once.max(1)) {
            scope.spawn(worker);
        }
    });
    done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).into_values().collect()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
