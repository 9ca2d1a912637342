//! [`World`]: the simulated cluster and the engine that runs it.
//!
//! It holds the production machines (schedulers, controller managers, kubelets) and stands where
//! production has the network, the API servers' sockets, the store's disk and Docker. Everything
//! happens as an event in one total order; a machine is stepped only by an event, and what it
//! emits becomes events.

mod alarm;
mod api_server;
mod bound;
mod bugs;
mod calls;
mod drains;
mod effect_log;
mod faults;
mod heartbeats;
mod host;
mod objects;
mod operations;
mod process;
mod store;
mod usage;
#[cfg(test)]
mod volumes;
mod watching;

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU32;
use std::sync::Arc;

use api::{Key, Kind, Name, Object, Revision, Shared, Time};
use k8s_openapi::api::core::v1::PodSpec;
use kubelet::container_runtime::ContainerRuntime;
use kubelet::{Kubelet, NodeEffect};
use machine::{ApiEffect, ControllerManager, RngTree};
use scheduler::plugin_args::{LEAST_ALLOCATED, MOST_ALLOCATED, ScoringStrategy};
use scheduler::{Scheduler, SchedulerConfig};

use self::api_server::ApiServer;
use self::calls::CallTable;
use self::effect_log::EffectLog;
use self::faults::ActiveFault;
use self::heartbeats::Windows;
use self::host::Host;
use self::process::{Process, Program};
use self::store::Store;
use self::watching::{Interest, Watcher};
use crate::bug::Bug;
use crate::check::{Check, Occurrence, Violation};
use crate::meter::Meter;
use crate::outcome::Outcome;
use crate::plan::{Component, Fault, Loads, Operation, Plan, SchedulerSettings};
use crate::queue::Queue;
use crate::span::Span;
use crate::timeline::Timeline;

/// When every run begins: 2026-01-01T00:00:00Z.
pub const START: Time = Time::from_secs(1_767_225_600);
/// Events at one moment after which a run counts as one that makes no progress, however large.
const EVENTS_OF_A_MOMENT_MAX: u64 = 20_000_000;
/// The same of a small one, and how many more for each node and each thing that is asked for:
/// far more than what all of them cause if they come at once and no message takes time.
const EVENTS_OF_A_MOMENT: u64 = 1_000_000;
const EVENTS_OF_A_MOMENT_EACH: u64 = 200;
/// Violations after which a run is not worth going on with.
const VIOLATIONS_MAX: usize = 16;
/// By then everybody has heard of work that was done and written about it.
const AFTER_WORK: Span = Span::secs(5);
/// How long after the faults are healed cron jobs go on.
pub(crate) const CRON_JOBS_GO_ON: Span = Span::secs(240);
/// Samples of a run.
const SAMPLES: u64 = 240;

/// A process: an index into the world's processes, in the order schedulers, controller managers,
/// kubelets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProcessId(u32);

impl ProcessId {
    /// The index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The process of that index.
    pub(crate) fn at(index: usize) -> Self {
        Self(u32::try_from(index).expect("fewer processes than numbers"))
    }
}

/// How far a run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Operations and faults happen.
    Safety,
    /// Faults are healed; the cluster must come to rest.
    Liveness,
    /// The cluster has been silent for as long as was asked.
    Rest,
}

/// Why a plan cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// There are no nodes.
    #[error("the cluster has no nodes")]
    NoNodes,
    /// Something refers to nothing.
    #[error("{what} {name} does not exist")]
    Unknown {
        /// What is referred to.
        what: &'static str,
        /// By which name or index.
        name: String,
    },
    /// The scheduler's configuration is unusable.
    #[error("the scheduler's settings: {0}")]
    Scheduler(String),
    /// A number is out of its range.
    #[error("{0}")]
    Range(String),
}

/// Why a run was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GaveUp {
    /// Events at one moment without end; the process that the last of them concerned.
    NoProgress(String),
    /// Too many violations to be of use.
    Violations,
}

/// What can be due. Small, so that millions fit.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// A process asked to be woken.
    Wake { process: u32 },
    /// A process (re)starts, unless it has meanwhile.
    Start { process: u32 },
    /// A call arrives at its API server.
    Arrive { call: u32 },
    /// An answer arrives at its caller.
    Answer { call: u32 },
    /// A watch is to be started with a list.
    List { watcher: u32, epoch: u16 },
    /// A watch delivers.
    Deliver { watcher: u32, epoch: u16 },
    /// A host's container runtime has something.
    Runtime { host: u32 },
    /// A host boots.
    Boot { host: u32 },
    /// The next operation of the plan.
    Operation,
    /// An operation that could not be carried out yet.
    Retry { operation: u32 },
    /// A fault begins.
    FaultBegins { fault: u32 },
    /// A fault is over.
    FaultEnds { fault: u32 },
    /// A fault does it again.
    FaultRepeats { fault: u32 },
    /// All faults are healed.
    Heal,
    /// Users suspend all cron jobs.
    SuspendCronJobs,
    /// A node's heartbeats must be sent from now on.
    Unsteady { host: u32 },
    /// All nodes' heartbeats must be sent from now on.
    UnsteadyAll,
    /// Whether the cluster is at rest.
    LookForRest,
    /// The meter takes a sample.
    Sample,
}

impl Event {
    /// Whether somebody hears of something, or is asked for something.
    const fn is_message(&self) -> bool {
        matches!(
            self,
            Self::Arrive { .. } | Self::Answer { .. } | Self::List { .. } | Self::Deliver { .. }
        )
    }
}

mod priority {
    pub(super) const FAULT: u8 = 0;
    pub(super) const OPERATION: u8 = 1;
    pub(super) const MESSAGE: u8 = 2;
    pub(super) const WAKE: u8 = 3;
    pub(super) const LOOK: u8 = 9;
}

/// The simulated cluster.
///
/// A clone of it, taken between any two events, is a checkpoint: it goes on as the original does.
/// It costs a copy of all that processes remember, but not of the objects, which are shared.
#[derive(Clone)]
pub struct World {
    plan: Arc<Plan>,
    rng: RngTree,
    now: Time,
    phase: Phase,
    queue: Queue<Event>,
    events: u64,
    /// Events since time last moved.
    events_of_moment: u64,
    store: Store,
    servers: Vec<ApiServer>,
    processes: Vec<Process>,
    hosts: Vec<Host>,
    /// Index of the host of a node.
    host_of: BTreeMap<Name, u32>,
    watchers: Vec<Watcher>,
    interest: Interest,
    calls: CallTable,
    faults: Vec<ActiveFault>,
    windows: Windows,
    store_down: bool,
    /// What the pods of workloads use.
    loads: Arc<Loads>,
    /// Whether somebody is going to suspend the cron jobs.
    cron_jobs_go_on: bool,
    next_operation: usize,
    retries: BTreeMap<u32, u32>,
    given_up: operations::GivenUp,
    /// Nodes that are being drained, by operation.
    drains: BTreeMap<u32, drains::Drain>,
    /// The last spec that was made from each template of bare pods, and how long it runs.
    specs: BTreeMap<u32, (Option<Span>, Shared<PodSpec>)>,
    /// When the store came to its latest revisions.
    revisions: VecDeque<(Time, Revision)>,
    last_write: Time,
    /// Who wrote what then, once the faults are healed.
    last_written: Option<(Option<ProcessId>, Arc<Key>)>,
    events_of_moment_max: u64,
    /// When something was last seen to go on, or is to come, that may end in a write.
    worked_at: Time,
    writes: u64,
    records: u64,
    settled_after: Option<Span>,
    gave_up: Option<GaveUp>,
    log: EffectLog,
    /// Room for the effects of one step, used again and again.
    effects: Vec<ApiEffect>,
    node_effects: Vec<NodeEffect>,
    checks: Vec<Box<dyn Check>>,
    /// One decision in how many the schedulers compare with the reference, if any.
    one_compared_in: Option<NonZeroU32>,
    violations: Vec<Violation>,
    meter: Option<Box<Meter>>,
    timeline: Option<Box<Timeline>>,
}

impl World {
    /// Makes the cluster of a plan, with all checks.
    ///
    /// # Errors
    /// The plan refers to something that it does not have, or cannot be run.
    pub fn new(plan: Plan) -> Result<Self, PlanError> {
        let checks = crate::checks::all(&plan);
        Self::with_checks(plan, checks)
    }

    /// Makes the cluster of a plan, judged by the given checks.
    ///
    /// # Errors
    /// The plan refers to something that it does not have, or cannot be run.
    pub fn with_checks(plan: Plan, checks: Vec<Box<dyn Check>>) -> Result<Self, PlanError> {
        validate(&plan)?;
        let rng = RngTree::new(plan.seed).child("world");
        let plan = Arc::new(plan);
        let mut world = Self {
            rng,
            now: START,
            phase: Phase::Safety,
            queue: Queue::new(),
            events: 0,
            events_of_moment: 0,
            // Lists are consistent and watches do not break, but for faults and known bugs.
            store: Store::new(
                rng.child("store"),
                plan.settings.bug.is_some_and(Bug::lists_the_past)
                    || plan.faults.iter().any(|planned| planned.fault.reads_past()),
                bugs::Serving::with(plan.settings.bug),
            ),
            servers: (0..plan.settings.api_servers).map(|i| ApiServer::new(i, rng)).collect(),
            processes: Vec::new(),
            hosts: Vec::new(),
            host_of: BTreeMap::new(),
            watchers: Vec::new(),
            interest: Interest::default(),
            calls: CallTable::default(),
            faults: Vec::new(),
            windows: Windows::default(),
            store_down: false,
            loads: Arc::new(Loads::of(&plan)),
            cron_jobs_go_on: plan
                .operations
                .iter()
                .any(|o| matches!(o.operation, Operation::CreateCronJob(_))),
            next_operation: 0,
            retries: BTreeMap::new(),
            given_up: operations::GivenUp::default(),
            drains: BTreeMap::new(),
            specs: BTreeMap::new(),
            revisions: VecDeque::new(),
            last_write: START,
            last_written: None,
            events_of_moment_max: events_of_moment_max(&plan),
            worked_at: START,
            writes: 0,
            records: 0,
            settled_after: None,
            gave_up: None,
            log: EffectLog::new(plan.settings.hash_contents),
            effects: Vec::new(),
            node_effects: Vec::new(),
            one_compared_in: crate::checks::one_compared_in(&plan, &checks),
            checks,
            violations: Vec::new(),
            meter: Some(Box::new(Meter::new(&plan))),
            timeline: None,
            plan,
        };
        world.populate()?;
        Ok(world)
    }

    /// Keeps a readable log of what happens from now on.
    pub fn keep_timeline(&mut self) {
        self.timeline = Some(Box::new(Timeline::default()));
    }

    /// What happened, for people, if it was kept.
    pub fn timeline(&self) -> Option<&Timeline> {
        self.timeline.as_deref()
    }

    fn populate(&mut self) -> Result<(), PlanError> {
        self.bootstrap();
        let settings = self.plan.settings.clone();
        for index in 0..settings.schedulers {
            self.add_process(Program::Scheduler(index), START);
        }
        for index in 0..settings.controller_managers {
            self.add_process(Program::ControllerManager(index), START);
        }
        let plan = self.plan.clone();
        self.hosts.reserve_exact(plan.nodes.len());
        self.processes.reserve_exact(plan.nodes.len());
        self.watchers.reserve_exact(plan.nodes.len() * Kubelet::KINDS.len());
        for (index, node) in plan.nodes.iter().enumerate() {
            let index =
                u32::try_from(index).map_err(|_| PlanError::Range("too many nodes".into()))?;
            self.add_host(index, node);
        }
        if !plan.operations.is_empty() {
            self.queue.push(at(plan.operations[0].at), priority::OPERATION, Event::Operation);
        }
        for index in 0..plan.faults.len() {
            let fault =
                u32::try_from(index).map_err(|_| PlanError::Range("too many faults".into()))?;
            let time = at(plan.faults[index].at);
            self.queue.push(time, priority::FAULT, Event::FaultBegins { fault });
        }
        self.plan_heartbeats();
        self.queue.push(at(plan.heals_at()), priority::FAULT, Event::Heal);
        self.queue.push(START, priority::LOOK, Event::Sample);
        Ok(())
    }

    // --- running ---------------------------------------------------------------------------

    /// Runs to the end.
    pub fn run(&mut self) {
        while self.step() {}
    }

    /// Carries out the next event; false when the run is over.
    pub fn step(&mut self) -> bool {
        if self.phase == Phase::Rest || self.gave_up.is_some() {
            return false;
        }
        let Some((time, event)) = self.queue.pop() else { return false };
        if time > self.now {
            self.now = time;
            self.events_of_moment = 0;
        }
        self.events += 1;
        self.events_of_moment += 1;
        if self.events_of_moment > self.events_of_moment_max {
            self.gave_up = Some(GaveUp::NoProgress(self.concerned(event)));
            return false;
        }
        self.handle(event);
        true
    }

    /// Whom an event concerns, for people.
    fn concerned(&self, event: Event) -> String {
        let process = match event {
            Event::Wake { process } | Event::Start { process } => Some(ProcessId(process)),
            Event::List { watcher, .. } | Event::Deliver { watcher, .. } => {
                Some(self.watcher_of(watcher))
            }
            Event::Arrive { call } | Event::Answer { call } => self.calls.process_of(call),
            _ => None,
        };
        process.map_or_else(|| format!("{event:?}"), |process| self.component(process).to_string())
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Wake { process } => self.wake(ProcessId(process)),
            Event::Start { process } => self.start(ProcessId(process)),
            Event::Arrive { call } => self.arrive(call),
            Event::Answer { call } => self.answer(call),
            Event::List { watcher, epoch } => self.list(watcher, epoch),
            Event::Deliver { watcher, epoch } => self.deliver(watcher, epoch),
            Event::Runtime { host } => self.runtime_due(host),
            Event::Boot { host } => self.boot(host),
            Event::Operation => self.operate(),
            Event::Retry { operation } => self.carry_out(operation),
            Event::FaultBegins { fault } => self.begin_fault(fault),
            Event::FaultEnds { fault } => self.end_fault(fault),
            Event::FaultRepeats { fault } => self.repeat_fault(fault),
            Event::Heal => self.heal(),
            Event::SuspendCronJobs => {
                self.cron_jobs_go_on = false;
                self.suspend_cron_jobs();
            }
            Event::Unsteady { host } => self.end_steadiness(host),
            Event::UnsteadyAll => self.end_all_steadiness(),
            Event::LookForRest => self.look_for_rest(),
            Event::Sample => self.sample(),
        }
    }

    /// From here on nothing goes wrong any more.
    fn heal(&mut self) {
        self.end_all_faults();
        self.phase = Phase::Liveness;
        self.tell(&Occurrence::Healed);
        self.last_write = self.last_write.max(self.now);
        // What a fault has delayed comes when it was to come.
        let under_way = self.queue.latest(Event::is_message).unwrap_or(self.now);
        self.worked_at = self.worked_at.max(under_way);
        if self.cron_jobs_go_on {
            let due = self.now + CRON_JOBS_GO_ON.duration();
            self.queue.push(due, priority::OPERATION, Event::SuspendCronJobs);
        }
        self.look_for_rest();
    }

    fn look_for_rest(&mut self) {
        let settings = &self.plan.settings;
        let after_work = AFTER_WORK.max(settings.network.reaction());
        let silent_at = self.last_write + settings.quiet.duration();
        if self.expects_changes() {
            self.worked_at = self.worked_at.max(self.now);
        }
        let rested_at = silent_at.max(self.worked_at + after_work.duration());
        let operations = self.next_operation < self.plan.operations.len()
            || !self.retries.is_empty()
            || self.drains()
            || self.cron_jobs_go_on;
        if self.now >= rested_at && !operations {
            let healed = at(self.plan.heals_at());
            let settled = self.last_write.since(healed);
            self.settled_after = Some(Span(u64::try_from(settled.as_nanos()).unwrap_or(u64::MAX)));
            self.finish();
            return;
        }
        let deadline = at(self.plan.ends_at());
        if self.now >= deadline {
            self.finish();
            return;
        }
        let next = silent_at.max(self.now + Span::millis(100).duration()).min(deadline);
        self.queue.push(next, priority::LOOK, Event::LookForRest);
    }

    fn finish(&mut self) {
        self.phase = Phase::Rest;
        let mut checks = std::mem::take(&mut self.checks);
        for check in &mut checks {
            let mut found = Vec::new();
            check.at_rest(self, &mut found);
            self.accuse(check.property(), found);
        }
        self.checks = checks;
    }

    fn sample(&mut self) {
        if let Some(mut meter) = self.meter.take() {
            meter.sample(self);
            self.meter = Some(meter);
        }
        let apart = Span((self.plan.heals_at().0 / SAMPLES).max(1_000_000_000));
        self.queue.push(self.now + apart.duration(), priority::LOOK, Event::Sample);
    }

    /// Whether anybody but the meter, which looks at writes alone, wants to know what happens.
    fn is_watched(&self) -> bool {
        self.timeline.is_some() || !self.checks.is_empty()
    }

    /// Tells checks, meter and timeline what has just happened.
    fn tell(&mut self, occurrence: &Occurrence<'_>) {
        if let Some(mut timeline) = self.timeline.take() {
            timeline.observe(self, occurrence);
            self.timeline = Some(timeline);
        }
        if let Some(mut meter) = self.meter.take() {
            meter.observe(self, occurrence);
            self.meter = Some(meter);
        }
        if self.checks.is_empty() {
            return;
        }
        let mut checks = std::mem::take(&mut self.checks);
        let mut found = Vec::new();
        for check in &mut checks {
            check.observe(self, occurrence, &mut found);
            if !found.is_empty() {
                self.accuse(check.property(), std::mem::take(&mut found));
            }
        }
        self.checks = checks;
    }

    fn accuse(&mut self, property: &str, found: Vec<String>) {
        for message in found {
            let violation = Violation {
                property: property.to_owned(),
                at: self.now,
                event: self.events,
                message,
            };
            if let Some(timeline) = &mut self.timeline {
                timeline.violated(&violation);
            }
            self.violations.push(violation);
        }
        if self.violations.len() >= VIOLATIONS_MAX {
            self.gave_up = Some(GaveUp::Violations);
        }
    }

    // --- what can be seen from outside -----------------------------------------------------

    /// The present, in virtual time.
    pub const fn now(&self) -> Time {
        self.now
    }

    /// Virtual time since the start.
    pub fn elapsed(&self) -> Span {
        Span(self.now.0 - START.0)
    }

    /// How far the run has come.
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// What is run.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Events so far.
    pub const fn events(&self) -> u64 {
        self.events
    }

    /// The revision of the store.
    pub fn revision(&self) -> Revision {
        self.store.revision()
    }

    /// An object as committed.
    pub fn object(&self, key: &Key) -> Option<&Object> {
        self.store.get(key)
    }

    /// All objects of a kind as committed, in the order of their keys.
    pub fn objects(&self, kind: Kind) -> impl Iterator<Item = &Object> {
        self.store.objects(kind)
    }

    /// All processes.
    pub fn processes(&self) -> impl Iterator<Item = ProcessId> {
        (0..self.processes.len()).filter_map(|i| u32::try_from(i).ok()).map(ProcessId)
    }

    /// Which process that is.
    pub fn component(&self, process: ProcessId) -> Component {
        match self.processes[process.index()].program {
            Program::Scheduler(index) => Component::Scheduler(index),
            Program::ControllerManager(index) => Component::ControllerManager(index),
            Program::Kubelet(host) => {
                Component::Kubelet(self.hosts[host as usize].name.to_string())
            }
        }
    }

    /// Whether the process runs.
    pub fn is_up(&self, process: ProcessId) -> bool {
        self.processes[process.index()].is_up()
    }

    /// The process' scheduler, if it is one and runs.
    pub fn scheduler(&self, process: ProcessId) -> Option<&Scheduler> {
        self.processes[process.index()].scheduler()
    }

    /// The process' controller manager, if it is one and runs.
    pub fn controller_manager(&self, process: ProcessId) -> Option<&ControllerManager> {
        self.processes[process.index()].controller_manager()
    }

    /// The process' kubelet, if it is one and runs.
    pub fn kubelet(&self, process: ProcessId) -> Option<&Kubelet> {
        self.processes[process.index()].kubelet()
    }

    /// The container runtime of a kubelet's host.
    pub fn runtime(&self, kubelet: ProcessId) -> Option<&ContainerRuntime> {
        match self.processes[kubelet.index()].program {
            Program::Kubelet(host) => Some(&self.hosts[host as usize].runtime),
            Program::Scheduler(_) | Program::ControllerManager(_) => None,
        }
    }

    /// What a process' own clock shows.
    pub fn clock(&self, process: ProcessId) -> Time {
        self.processes[process.index()].clock(self.now)
    }

    /// The faults of this moment.
    pub fn faults(&self) -> impl Iterator<Item = &Fault> {
        self.faults.iter().map(|active| &self.plan.faults[active.index as usize].fault)
    }

    /// When anything but heartbeats was last written.
    pub const fn last_write(&self) -> Time {
        self.last_write
    }

    /// Pods that were bound so far.
    pub fn pods_bound(&self) -> u64 {
        self.meter.as_ref().map_or(0, |meter| meter.pods_bound())
    }

    /// Properties that did not hold so far.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// Whether the cluster came to rest after the faults were healed.
    pub const fn settled(&self) -> bool {
        self.settled_after.is_some()
    }

    /// Why the run was given up, if it was.
    pub const fn gave_up(&self) -> Option<&GaveUp> {
        self.gave_up.as_ref()
    }

    /// The hash over all effects so far.
    pub fn effect_log_hash(&self) -> String {
        self.log.to_hex()
    }

    /// What the run came to.
    pub fn outcome(&mut self) -> Outcome {
        let mut outcome = match self.meter.take() {
            Some(mut meter) => meter.finish(self),
            None => Outcome::default(),
        };
        outcome.name.clone_from(&self.plan.name);
        outcome.seed = self.plan.seed;
        outcome.virtual_seconds = self.elapsed().as_secs_f64();
        outcome.events = self.events;
        outcome.writes = self.writes;
        outcome.records = self.records;
        outcome.operations_given_up = self.given_up.count;
        outcome.given_up.clone_from(&self.given_up.first);
        outcome.settled_after = self.settled_after;
        outcome.violations.extend_from_slice(&self.violations);
        outcome.effect_log_hash = self.log.to_hex();
        outcome
    }
}

/// The scheduler's configuration.
fn scheduler_desk(settings: &SchedulerSettings) -> Result<scheduler::Desk, PlanError> {
    let strategy = settings.fit_strategy.as_deref().unwrap_or(LEAST_ALLOCATED);
    if ![LEAST_ALLOCATED, MOST_ALLOCATED].contains(&strategy) {
        return Err(PlanError::Scheduler(format!(
            "no fit strategy is called {strategy:?}; there are LeastAllocated and MostAllocated"
        )));
    }
    let mut profile = scheduler::ProfileConfig {
        percentage_of_nodes_to_score: settings.percentage_of_nodes_to_score,
        weights: settings.weights.clone(),
        disabled: settings.disabled.clone(),
        enabled: settings.enabled.clone(),
        ..scheduler::ProfileConfig::default()
    };
    profile.args.fit.scoring_strategy = ScoringStrategy::named(strategy);
    let config = SchedulerConfig { profiles: vec![profile], ..SchedulerConfig::default() };
    scheduler::Desk::new(&config).map_err(|e| PlanError::Scheduler(e.to_string()))
}

/// Events at one moment after which the plan counts as one that makes no progress.
fn events_of_moment_max(plan: &Plan) -> u64 {
    let replicas = plan.operations.iter().map(|o| o.operation.replicas().map_or(1, u64::from));
    let things = replicas.fold(plan.nodes.len() as u64, u64::saturating_add);
    let events = EVENTS_OF_A_MOMENT.saturating_add(things.saturating_mul(EVENTS_OF_A_MOMENT_EACH));
    events.min(EVENTS_OF_A_MOMENT_MAX)
}

/// A moment of the plan.
fn at(span: Span) -> Time {
    START + span.duration()
}

fn validate(plan: &Plan) -> Result<(), PlanError> {
    if plan.nodes.is_empty() {
        return Err(PlanError::NoNodes);
    }
    let settings = &plan.settings;
    if settings.api_servers == 0 || settings.schedulers == 0 || settings.controller_managers == 0 {
        return Err(PlanError::Range(
            "there must be at least one API server, one scheduler and one controller manager"
                .to_owned(),
        ));
    }
    let shapes = plan.shapes.len();
    for node in &plan.nodes {
        if node.shape as usize >= shapes {
            let name = node.shape.to_string();
            return Err(PlanError::Unknown { what: "the node shape with index", name });
        }
    }
    scheduler_desk(&settings.scheduler)?;
    operations::validate(plan)?;
    faults::validate(plan)
}
