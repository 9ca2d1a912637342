//! Processes: a production machine each, with the life that an operating system gives it.

use std::collections::VecDeque;
use std::sync::Arc;

use api::{Kind, Request, Time};
use kubelet::{Kubelet, NodeEffect, NodeInput, RuntimeInput, RuntimeRequest};
use machine::{ApiEffect, ApiInput, CallId, ControllerManager, LeaderElector, Machine, Recorder};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use registry::Caller;
use scheduler::{Desk, Scheduler};

use super::alarm::Alarms;
use super::bugs::{self, Blunder};
use super::watching::Scope;
use super::{Event, ProcessId, World, objects, priority};
use crate::bug::Bug;
use crate::check::Occurrence;
use crate::distribution::Distribution;
use crate::plan::{Direction, Outcome};
use crate::span::Span;

/// What a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Program {
    /// The scheduler of that number.
    Scheduler(u16),
    /// The controller manager of that number.
    ControllerManager(u16),
    /// The kubelet of that host.
    Kubelet(u32),
}

/// The machine of a process that runs.
#[derive(Clone)]
pub(super) enum Running {
    /// It does not.
    Nothing,
    Scheduler(Box<Scheduler>),
    ControllerManager(Box<ControllerManager>),
    Kubelet(Box<Kubelet>),
}

/// What a process is told.
#[derive(Clone, Debug)]
pub(super) enum Input {
    Api(ApiInput),
    Runtime(RuntimeInput),
    Wake,
}

/// What is wrong between a process and the API servers: with which server (all if none), and what.
#[derive(Clone, Debug)]
pub(super) struct Trouble {
    /// Which messages, since when.
    pub(super) partitions: Vec<(Option<u16>, Direction, Time)>,
    pub(super) delays: Vec<(Option<u16>, Distribution)>,
    pub(super) timeouts: Vec<(u8, Outcome)>,
    /// How many of a hundred deliveries come twice.
    pub(super) duplicates: Vec<(Option<u16>, u8)>,
    /// Which messages, and how many of a hundred.
    pub(super) losses: Vec<(Option<u16>, Direction, u8)>,
    /// How many of a hundred messages, and for how long at most.
    pub(super) held_back: Vec<(Option<u16>, u8, Span)>,
    /// Which messages these are.
    pub(super) rng: ChaCha8Rng,
}

impl Trouble {
    pub(super) const fn new(rng: ChaCha8Rng) -> Self {
        Self {
            partitions: Vec::new(),
            delays: Vec::new(),
            timeouts: Vec::new(),
            duplicates: Vec::new(),
            losses: Vec::new(),
            held_back: Vec::new(),
            rng,
        }
    }

    /// For how long the next message to or from a server is held back.
    pub(super) fn holds_back(&mut self, server: u16) -> Span {
        let mut span = Span::ZERO;
        for (_, percent, by) in self.held_back.iter().filter(|(link, ..)| concerns(*link, server)) {
            if self.rng.random_range(0..100) < *percent {
                span.0 += self.rng.random_range(0..=by.0);
            }
        }
        span
    }

    /// Whether the next message of that direction to or from a server is lost.
    pub(super) fn loses(&mut self, server: u16, wanted: Direction) -> bool {
        let of = |(link, direction, _): &&(Option<u16>, Direction, u8)| {
            concerns(*link, server) && (*direction == Direction::Both || *direction == wanted)
        };
        let mut lost = false;
        for (_, _, percent) in self.losses.iter().filter(of) {
            lost |= self.rng.random_range(0..100) < *percent;
        }
        lost
    }

    /// How many of a hundred deliveries of a server come twice.
    pub(super) fn duplicates(&self, server: u16) -> u8 {
        let of = self.duplicates.iter().filter(|(link, _)| concerns(*link, server));
        of.map(|(_, percent)| *percent).max().unwrap_or(0)
    }
}

/// Whether what is wrong with one link, or with all, is wrong with that of a server.
pub(super) fn concerns(link: Option<u16>, server: u16) -> bool {
    link.is_none_or(|one| one == server)
}

/// One process.
#[derive(Clone)]
pub(super) struct Process {
    pub(super) program: Program,
    pub(super) running: Running,
    /// The known bug that this life has.
    blunder: Option<Box<dyn Blunder>>,
    /// What a scheduler has worked out, if a known bug has it outlive the process.
    outlives: Option<Desk>,
    /// Counts starts: answers to an earlier life are not for this one.
    pub(super) life: u32,
    /// Somebody holds it down; a start waits until nobody does.
    pub(super) held_down: u32,
    pub(super) paused: u32,
    inbox: VecDeque<Input>,
    /// When it is woken.
    alarms: Alarms,
    /// The API server it talks to.
    pub(super) server: u16,
    pub(super) in_flight: u16,
    pub(super) outbox: VecDeque<(CallId, Request)>,
    pub(super) first_watcher: u32,
    pub(super) watchers: u32,
    /// How far its clock is ahead.
    pub(super) ahead: Span,
    /// How far its clock was set back.
    pub(super) behind: Span,
    last_clock: Time,
    pub(super) crash_at_call: Option<u32>,
    pub(super) trouble: Option<Box<Trouble>>,
    pub(super) rng: ChaCha8Rng,
    pub(super) caller: Arc<Caller>,
    /// Counts what people are told, if events are stored.
    recorder: Recorder,
}

impl Process {
    pub(super) const fn is_up(&self) -> bool {
        !matches!(self.running, Running::Nothing)
    }

    pub(super) fn scheduler(&self) -> Option<&Scheduler> {
        match &self.running {
            Running::Scheduler(scheduler) => Some(scheduler),
            _ => None,
        }
    }

    pub(super) fn controller_manager(&self) -> Option<&ControllerManager> {
        match &self.running {
            Running::ControllerManager(manager) => Some(manager),
            _ => None,
        }
    }

    pub(super) fn kubelet(&self) -> Option<&Kubelet> {
        match &self.running {
            Running::Kubelet(kubelet) => Some(kubelet),
            _ => None,
        }
    }

    /// What its clock shows. A clock that is set back stands still until it is right, as
    /// production's monotonic one does.
    pub(super) fn clock(&self, now: Time) -> Time {
        let shown = now + self.ahead.duration();
        Time(shown.0.saturating_sub(self.behind.0)).max(self.last_clock)
    }

    fn wake_at(&self) -> Option<Time> {
        match &self.running {
            Running::Nothing => None,
            Running::Scheduler(scheduler) => scheduler.wake_at(),
            Running::ControllerManager(manager) => manager.wake_at(),
            Running::Kubelet(kubelet) => kubelet.wake_at(),
        }
    }

    pub(super) fn watcher_ids(&self) -> std::ops::Range<u32> {
        self.first_watcher..self.first_watcher + self.watchers
    }
}

/// How production names the callers.
fn caller(program: Program, node: &str) -> Caller {
    let (name, groups): (String, &[&str]) = match program {
        Program::Scheduler(_) => ("system:kube-scheduler".to_owned(), &[]),
        Program::ControllerManager(_) => ("system:kube-controller-manager".to_owned(), &[]),
        Program::Kubelet(_) => (format!("system:node:{node}"), &["system:nodes"]),
    };
    let groups = groups.iter().chain(&["system:authenticated"]).map(|g| (*g).to_owned()).collect();
    Caller { name, groups, ..Caller::default() }
}

impl World {
    /// Adds a process that starts at `start`.
    pub(super) fn add_process(&mut self, program: Program, start: Time) -> ProcessId {
        let index = u32::try_from(self.processes.len()).expect("fewer processes than numbers");
        let (kinds, node) = match program {
            Program::Scheduler(_) => (Scheduler::KINDS.to_vec(), ""),
            Program::ControllerManager(_) => {
                (self.controller_manager_machine(0).kinds().into_iter().collect(), "")
            }
            Program::Kubelet(host) => (Kubelet::KINDS.to_vec(), &*self.hosts[host as usize].name),
        };
        let rng = self.rng.child("process").rng(&index.to_string());
        let caller = Arc::new(caller(program, node));
        let servers = u32::from(self.plan.settings.api_servers);
        let first_watcher = self.watchers_added();
        let scope = |kind: Kind| match program {
            Program::Kubelet(host) => Scope::of_kubelet(kind, host),
            Program::Scheduler(_) | Program::ControllerManager(_) => Scope::All,
        };
        let watchers = u32::try_from(kinds.len()).expect("few kinds");
        for kind in kinds {
            self.add_watcher(ProcessId(index), kind, scope(kind));
        }
        self.processes.push(Process {
            program,
            running: Running::Nothing,
            blunder: None,
            outlives: None,
            life: 0,
            held_down: 0,
            paused: 0,
            inbox: VecDeque::new(),
            alarms: Alarms::default(),
            server: u16::try_from(index % servers).expect("a remainder of a u16"),
            in_flight: 0,
            outbox: VecDeque::new(),
            first_watcher,
            watchers,
            ahead: Span::ZERO,
            behind: Span::ZERO,
            last_clock: Time::ZERO,
            crash_at_call: None,
            trouble: None,
            rng,
            caller,
            recorder: Recorder::default(),
        });
        self.queue.push(start, priority::WAKE, Event::Start { process: index });
        ProcessId(index)
    }

    fn controller_manager_machine(&self, index: u16) -> ControllerManager {
        let settings = &self.plan.settings;
        let config = controllers::Config {
            cluster_cidr: Some("10.0.0.0/8".parse().expect("a constant range")),
            node_cidr_mask_size: 26,
            root_ca_pem: Some("-----BEGIN CERTIFICATE-----".to_owned()),
            nodes_approved_by_hand: false,
            cluster_dns: None,
        };
        let elector = settings.leader_election.then(|| {
            let identity = format!("controller-manager-{index}_{}", self.life_token());
            LeaderElector::new("kube-controller-manager", &identity)
        });
        let mut reconcilers = controllers::all(config);
        if settings.bug == Some(Bug::NoZoneThreshold) {
            bugs::ignore_zone_threshold(&mut reconcilers);
        }
        let manager = ControllerManager::new(reconcilers, elector);
        match settings.bug {
            Some(Bug::NoReadYourWrites | Bug::JobPodsDoubled) => manager.without_read_your_writes(),
            _ => manager,
        }
    }

    fn scheduler_machine(&self, index: u16) -> Scheduler {
        let settings = &self.plan.settings;
        let all_act = matches!(
            settings.bug,
            Some(Bug::SeveralActiveSchedulers | Bug::PromisesOfOthersUnknown)
        );
        let elected = settings.leader_election && !all_act;
        let elector = elected.then(|| {
            let identity = format!("scheduler-{index}_{}", self.life_token());
            LeaderElector::new("kube-scheduler", &identity)
        });
        let rng = self.rng.child("scheduler").child(&index.to_string());
        // Schedulers are the first processes.
        let outlived = self.processes[usize::from(index)].outlives.clone();
        let desk = outlived.unwrap_or_else(|| {
            super::scheduler_desk(&settings.scheduler).expect("the plan was validated")
        });
        let mut scheduler = Scheduler::new(desk, elector, &rng);
        scheduler.compare_decisions(self.one_compared_in);
        scheduler
    }

    /// Makes each life of a candidate another one: what a production process draws at its start.
    fn life_token(&self) -> u64 {
        self.events
    }

    /// Starts a process that is down.
    pub(super) fn start(&mut self, id: ProcessId) {
        let process = &self.processes[id.index()];
        if process.is_up() || process.held_down > 0 {
            return;
        }
        let running = match process.program {
            Program::Scheduler(index) => {
                Running::Scheduler(Box::new(self.scheduler_machine(index)))
            }
            Program::ControllerManager(index) => {
                Running::ControllerManager(Box::new(self.controller_manager_machine(index)))
            }
            Program::Kubelet(host) => {
                if !self.hosts[host as usize].up {
                    return;
                }
                let node = &self.plan.nodes[host as usize];
                let shape = &self.plan.shapes[node.shape as usize];
                let config = objects::kubelet_config(&node.name, host, shape);
                Running::Kubelet(Box::new(Kubelet::new(config)))
            }
        };
        let bug = self.plan.settings.bug;
        let process = &mut self.processes[id.index()];
        process.running = running;
        process.blunder = bug.and_then(|bug| bugs::blunder(bug, process.program));
        process.life += 1;
        process.in_flight = 0;
        process.alarms.forget();
        process.last_clock = Time::ZERO;
        self.tell(&Occurrence::Started(id));
        if let Program::Kubelet(host) = self.processes[id.index()].program {
            self.connect_runtime(host);
            self.step_kubelet(id, NodeInput::StaticPods(Vec::new()));
        }
        self.feed(id, Input::Wake);
        self.allow_stale_lists(id);
        for watcher in self.processes[id.index()].watcher_ids() {
            self.begin_watch(watcher, Span::ZERO);
        }
    }

    /// Ends a process at once.
    pub(super) fn crash(&mut self, id: ProcessId) {
        let process = &mut self.processes[id.index()];
        if !process.is_up() {
            return;
        }
        if self.plan.settings.bug == Some(Bug::RankingsOutlive) {
            process.outlives = process.scheduler().map(|scheduler| scheduler.desk().clone());
        }
        process.running = Running::Nothing;
        process.recorder = Recorder::default();
        process.inbox.clear();
        process.outbox.clear();
        process.alarms.forget();
        process.crash_at_call = None;
        for watcher in self.processes[id.index()].watcher_ids() {
            self.forget_watch(watcher);
        }
        if let Program::Kubelet(host) = self.processes[id.index()].program {
            self.end_steadiness(host);
        }
        self.tell(&Occurrence::Crashed(id));
    }

    /// Lets a paused process go on.
    pub(super) fn resume(&mut self, id: ProcessId) {
        let inputs = std::mem::take(&mut self.processes[id.index()].inbox);
        for input in inputs {
            self.feed(id, input);
        }
        self.feed(id, Input::Wake);
    }

    pub(super) fn wake(&mut self, id: ProcessId) {
        let process = &mut self.processes[id.index()];
        if !process.alarms.ring(self.now) {
            return;
        }
        let clock = process.clock(self.now);
        if self.wanted_wake(id).is_some_and(|at| at <= clock) {
            self.feed(id, Input::Wake);
        } else {
            self.schedule_wake(id);
        }
    }

    /// Gives a process something to act on.
    pub(super) fn feed(&mut self, id: ProcessId, input: Input) {
        let process = &mut self.processes[id.index()];
        if process.paused > 0 {
            if process.is_up() {
                process.inbox.push_back(input);
            }
            return;
        }
        if self.is_watched()
            && let Input::Api(ApiInput::Watch(event)) = &input
        {
            let event = event.clone();
            self.tell(&Occurrence::Delivered { to: id, event: &event });
        }
        let process = &mut self.processes[id.index()];
        let Some(blunder) = &mut process.blunder else {
            self.act(id, input);
            return;
        };
        let mut told = Vec::new();
        blunder.hears(&process.running, input, &mut told);
        for input in told {
            self.act(id, input);
        }
    }

    /// Lets a process act on what it is told.
    fn act(&mut self, id: ProcessId, input: Input) {
        let process = &mut self.processes[id.index()];
        let clock = process.clock(self.now);
        process.last_clock = clock;
        if matches!(process.running, Running::Kubelet(_)) {
            let input = match input {
                Input::Api(input) => NodeInput::Api(input),
                Input::Runtime(input) => NodeInput::Runtime(input),
                Input::Wake => NodeInput::Wake,
            };
            self.step_kubelet(id, input);
            return;
        }
        let input = match input {
            Input::Api(input) => input,
            Input::Wake => ApiInput::Wake,
            Input::Runtime(_) => return,
        };
        let mut effects = std::mem::take(&mut self.effects);
        match &mut process.running {
            Running::Scheduler(scheduler) => scheduler.step(clock, input, &mut effects),
            Running::ControllerManager(manager) => manager.step(clock, input, &mut effects),
            Running::Kubelet(_) | Running::Nothing => {}
        }
        let life = self.processes[id.index()].life;
        for effect in effects.drain(..) {
            if !self.lives(id, life) {
                return;
            }
            self.api_effect(id, effect);
        }
        self.effects = effects;
        self.schedule_wake(id);
    }

    /// Whether the process has not died since: it may die at any of its calls.
    fn lives(&self, id: ProcessId, life: u32) -> bool {
        let process = &self.processes[id.index()];
        process.is_up() && process.life == life
    }

    fn step_kubelet(&mut self, id: ProcessId, input: NodeInput) {
        self.catch_up_duties(id);
        let process = &mut self.processes[id.index()];
        let clock = process.clock(self.now);
        let Running::Kubelet(kubelet) = &mut process.running else { return };
        let mut effects = std::mem::take(&mut self.node_effects);
        kubelet.step(clock, input, &mut effects);
        let life = self.processes[id.index()].life;
        for effect in effects.drain(..) {
            if !self.lives(id, life) {
                return;
            }
            match effect {
                NodeEffect::Api(effect) => self.api_effect(id, effect),
                NodeEffect::Runtime { id: call, request } => self.ask_runtime(id, call, request),
            }
        }
        self.node_effects = effects;
        self.judge_heartbeats(id);
        self.schedule_wake(id);
    }

    fn ask_runtime(&mut self, id: ProcessId, call: CallId, request: RuntimeRequest) {
        let Program::Kubelet(host) = self.processes[id.index()].program else { return };
        self.log.number(self.now.0);
        self.log.number(u64::from(id.0));
        self.log.contents(&request);
        self.runtime_request(host, call, request);
    }

    fn api_effect(&mut self, id: ProcessId, mut effect: ApiEffect) {
        if let Some(blunder) = &mut self.processes[id.index()].blunder {
            blunder.says(&mut effect);
        }
        self.log.effect(self.now.0, id.0, &effect);
        match effect {
            ApiEffect::Call { id: call, request } => self.call(id, call, request),
            ApiEffect::Record(report) => {
                self.records += 1;
                self.tell(&Occurrence::Recorded { by: id, report: &report });
                if self.plan.settings.store_events {
                    let request = self.processes[id.index()].recorder.write(&report);
                    self.send_record(id, request);
                }
            }
        }
    }

    /// Makes sure that a process is woken when it wants to be.
    pub(super) fn schedule_wake(&mut self, id: ProcessId) {
        let at = self.wanted_wake(id);
        let process = &mut self.processes[id.index()];
        let Some(at) = at else { return };
        let due = if process.behind > Span::ZERO && at <= process.clock(self.now) {
            self.now
        } else {
            let shown = at + process.behind.duration();
            Time(shown.0.saturating_sub(process.ahead.0)).max(self.now)
        };
        if process.alarms.set(due) {
            self.queue.push(due, priority::WAKE, Event::Wake { process: id.0 });
        }
    }

    /// When the machine itself wants to be woken, by its own clock.
    pub(super) fn machine_wake_at(&self, id: ProcessId) -> Option<Time> {
        self.processes[id.index()].wake_at()
    }
}
