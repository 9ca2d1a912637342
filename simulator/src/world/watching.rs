//! Watches: who is told what, when.
//!
//! A watch is a list followed by a stream of events in order. What a watcher is told of a write is
//! decided when the write is committed; it is delivered when the API server has seen the write
//! and the message has come over.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};

use api::{Key, Kind, Object, Revision, Time};
use machine::{ApiInput, WatchEvent};
use rand::RngExt;

use super::process::{Input, Program};
use super::store::Write;
use super::{Event, ProcessId, World, bugs, priority};
use crate::bug::Bug;
use crate::plan::Direction;
use crate::span::Span;

/// How soon a watch that broke is started again.
const RECONNECT: Span = Span::millis(100);
/// How soon a list that was not answered is repeated.
const LIST_RETRY: Span = Span::secs(1);

/// How soon a connection sends again what was lost: Linux's shortest timeout, doubled each time.
const SENT_AGAIN: Span = Span::millis(200);
/// The longest of these waits; more losses in a row are not drawn.
const SENT_AGAIN_MAX: Span = Span::secs(13);

/// Which objects of a kind a watch selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// All.
    All,
    /// The pods of the node of a host.
    PodsOf(u32),
    /// The node of a host.
    NodeOf(u32),
}

impl Scope {
    /// What a kubelet watches of a kind.
    pub(super) const fn of_kubelet(kind: Kind, host: u32) -> Self {
        match kind {
            Kind::Pod => Self::PodsOf(host),
            Kind::Node => Self::NodeOf(host),
            _ => Self::All,
        }
    }
}

/// What becomes of a watch that breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interruption {
    /// It goes on from what it told last.
    GoesOn,
    /// Nobody knows any more what was written since: it begins with a list.
    Forgotten,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nobody listens.
    Broken,
    /// A list was asked for.
    Listing,
    /// Events are delivered.
    Live,
}

/// One watch of one process.
#[derive(Clone)]
pub(super) struct Watcher {
    process: ProcessId,
    kind: Kind,
    scope: Scope,
    state: State,
    /// Changes whenever the watch breaks: what was on its way is lost.
    epoch: u16,
    /// In order; each has an event in the queue, but for those that are owed.
    pending: VecDeque<WatchEvent>,
    last_due: Time,
    /// Somebody holds deliveries back.
    stalled: u32,
    /// Deliveries that came due while held back.
    owed: u32,
    /// Somebody holds the watch down.
    held_down: u32,
    /// How far the process was told of the kind in this life, as of when the watch broke.
    told: Revision,
    /// Whether a watch that broke goes on from there instead of with a list.
    goes_on: bool,
    /// Lists may be answered from an old state, once.
    stale: bool,
}

/// Who is interested in what.
#[derive(Clone)]
pub(super) struct Interest {
    /// Watchers of all objects of a kind, at the index of the kind.
    all: Vec<Vec<u32>>,
    /// The watcher of the pods of a host's node, at the index of the host.
    pods_of: Vec<u32>,
    /// The watcher of a host's node, at the index of the host.
    node_of: Vec<u32>,
}

impl Default for Interest {
    fn default() -> Self {
        let all = Kind::ALL.iter().map(|_| Vec::new()).collect();
        Self { all, pods_of: Vec::new(), node_of: Vec::new() }
    }
}

fn node_name(object: &Object) -> Option<&str> {
    match object {
        Object::Pod(pod) => pod.node_name.as_deref(),
        _ => None,
    }
}

impl World {
    pub(super) fn watchers_added(&self) -> u32 {
        u32::try_from(self.watchers.len()).expect("fewer watchers than numbers")
    }

    /// Whose watch it is.
    pub(super) fn watcher_of(&self, index: u32) -> ProcessId {
        self.watchers[index as usize].process
    }

    pub(super) fn add_watcher(&mut self, process: ProcessId, kind: Kind, scope: Scope) {
        let index = self.watchers_added();
        let interest = &mut self.interest;
        match scope {
            Scope::All => interest.all[kind as usize].push(index),
            // Hosts come in the order of their indexes.
            Scope::PodsOf(_) => interest.pods_of.push(index),
            Scope::NodeOf(_) => interest.node_of.push(index),
        }
        self.watchers.push(Watcher {
            process,
            kind,
            scope,
            state: State::Broken,
            epoch: 0,
            pending: VecDeque::new(),
            last_due: Time::ZERO,
            stalled: 0,
            owed: 0,
            held_down: 0,
            told: Revision(0),
            goes_on: false,
            stale: false,
        });
    }

    /// Asks for the list that a watch starts with, or to go on with it.
    pub(super) fn begin_watch(&mut self, index: u32, delay: Span) {
        let watcher = &mut self.watchers[index as usize];
        if watcher.state != State::Broken || watcher.held_down > 0 {
            return;
        }
        watcher.state = State::Listing;
        let (epoch, process) = (watcher.epoch, watcher.process);
        let due = self.now + delay.duration() + self.one_way(process).duration();
        self.queue.push(due, priority::MESSAGE, Event::List { watcher: index, epoch });
    }

    /// How far a process was told of the kind in its life.
    fn told(&self, index: u32) -> Revision {
        let watcher = &self.watchers[index as usize];
        if watcher.state != State::Live {
            return watcher.told;
        }
        for event in &watcher.pending {
            match event {
                // What it was told before the watch broke the last time.
                WatchEvent::Replaced { .. } => return watcher.told,
                WatchEvent::Changed(object) => return Revision(object.revision().0 - 1),
                WatchEvent::Deleted { revision, .. } => return Revision(revision.0 - 1),
                WatchEvent::Renewing { .. } | WatchEvent::Progress { .. } => {}
            }
        }
        self.store.revision()
    }

    /// Whether the first list of this life has come.
    fn has_listed(&self, index: u32) -> bool {
        let watcher = &self.watchers[index as usize];
        match watcher.state {
            State::Live => !matches!(watcher.pending.front(), Some(WatchEvent::Replaced { .. })),
            State::Broken | State::Listing => watcher.goes_on,
        }
    }

    /// Ends a watch whose client goes on from what it was told last, as production's does.
    fn interrupt_watch(&mut self, index: u32) {
        let goes_on = self.has_listed(index);
        self.break_watch(index);
        self.watchers[index as usize].goes_on = goes_on;
    }

    /// Ends the watch of a process that ends.
    pub(super) fn forget_watch(&mut self, index: u32) {
        self.break_watch(index);
        self.watchers[index as usize].told = Revision(0);
    }

    /// Ends a watch; what was on its way is lost, and its client lists anew.
    fn break_watch(&mut self, index: u32) {
        let told = self.told(index);
        let watcher = &mut self.watchers[index as usize];
        watcher.told = told;
        watcher.goes_on = false;
        watcher.state = State::Broken;
        watcher.epoch = watcher.epoch.wrapping_add(1);
        watcher.pending.clear();
        watcher.owed = 0;
    }

    /// A watch ends with `410 Gone`: its client lists anew.
    fn expire_watch(&mut self, index: u32) {
        self.break_watch(index);
        self.begin_watch(index, RECONNECT);
    }

    /// The request for a list, or to go on, arrives at the server.
    pub(super) fn list(&mut self, index: u32, epoch: u16) {
        let watcher = &self.watchers[index as usize];
        if watcher.epoch != epoch || watcher.state != State::Listing {
            return;
        }
        let (process, kind, scope, stale) =
            (watcher.process, watcher.kind, watcher.scope, watcher.stale);
        let Some(server) = self.reachable_server(process, Direction::Both) else {
            let due = self.now + LIST_RETRY.duration();
            self.queue.push(due, priority::MESSAGE, Event::List { watcher: index, epoch });
            return;
        };
        // The list, or its answer, is lost: it is asked for again.
        if self.loses(process, server, Direction::ToServer)
            || self.loses(process, server, Direction::FromServer)
        {
            let due = self.now + LIST_RETRY.duration();
            self.queue.push(due, priority::MESSAGE, Event::List { watcher: index, epoch });
            return;
        }
        self.processes[process.index()].server = server;
        if self.watchers[index as usize].goes_on {
            self.go_on(index);
            return;
        }
        let current = self.store.revision();
        // Production asks for consistent lists.
        let (lag, floor) = match self.plan.settings.bug {
            Some(Bug::AnyListAccepted) if stale => (self.servers[server as usize].lag, Revision(0)),
            Some(Bug::StaleServerTrusted) => (self.servers[server as usize].lag, Revision(0)),
            _ => self.staleness(index, server),
        };
        let (objects, revision) = if lag > Span::ZERO {
            let (mut objects, revision) = self.old_state(kind, lag, floor);
            objects.retain(|object| self.selects(scope, object));
            (objects, revision)
        } else {
            (self.present(kind, scope), current)
        };
        // A consistent list waits until the server's watch cache has come so far.
        let from = if revision < current {
            self.now
        } else {
            self.servers[server as usize].caught_up_at(self.now)
        };
        let due = from + self.one_way(process).duration();
        let watcher = &mut self.watchers[index as usize];
        watcher.state = State::Live;
        watcher.stale = false;
        watcher.last_due = due;
        self.enqueue(index, due, WatchEvent::Replaced { kind, objects, revision });
        if kind == Kind::Lease {
            for event in self.steady_leases() {
                self.enqueue(index, due, event);
            }
        }
        if revision < current {
            self.catch_up(index, revision, self.now + lag.duration());
        }
    }

    /// How old a list through a server may be because of a fault, and the revision that it must
    /// not be older than. Kubelets ask for fresh ones: one that started by an old one would start
    /// pods that run elsewhere by now.
    fn staleness(&self, index: u32, server: u16) -> (Span, Revision) {
        let watcher = &self.watchers[index as usize];
        match self.processes[watcher.process.index()].program {
            Program::Kubelet(_) => (Span::ZERO, Revision(0)),
            Program::Scheduler(_) | Program::ControllerManager(_) => {
                (self.servers[server as usize].stale, watcher.told)
            }
        }
    }

    /// A watch goes on after what it told last, if the server still knows what was written since;
    /// else its client is told `410 Gone` and lists anew.
    fn go_on(&mut self, index: u32) {
        let watcher = &mut self.watchers[index as usize];
        watcher.goes_on = false;
        let (process, kind) = (watcher.process, watcher.kind);
        let after = bugs::goes_on_after(self.plan.settings.bug, watcher.told);
        let server = &self.servers[usize::from(self.processes[process.index()].server)];
        let knows = server.knows_since <= after;
        let caught_up_at = server.caught_up_at(self.now);
        let Some(events) = self.missed(index, after).filter(|_| knows) else {
            let delay = Span(RECONNECT.0 + self.one_way(process).0);
            self.watchers[index as usize].state = State::Broken;
            self.begin_watch(index, delay);
            return;
        };
        let due = caught_up_at + self.one_way(process).duration();
        let watcher = &mut self.watchers[index as usize];
        watcher.state = State::Live;
        watcher.stale = false;
        watcher.last_due = due;
        let bug = self.plan.settings.bug;
        for event in events.into_iter().filter(|event| bugs::is_told(bug, event)) {
            self.enqueue(index, due, event);
        }
        if kind == Kind::Lease {
            for event in self.steady_leases() {
                self.enqueue(index, due, event);
            }
        }
        // Our API server says when a watch has caught up.
        let revision = self.store.revision();
        self.enqueue(index, due, WatchEvent::Progress { kind, revision });
    }

    /// What a watch would have told since a revision; `None` when nobody knows any more.
    fn missed(&self, index: u32, after: Revision) -> Option<Vec<WatchEvent>> {
        let Watcher { kind, scope, .. } = self.watchers[index as usize];
        let changes = self.store.changes(after).ok()?;
        let event = |change: &Write, before: Option<&Object>| {
            let selects = |object: &&Object| self.selects(scope, object);
            match (change.value.as_ref().filter(selects), before.filter(selects)) {
                (Some(object), _) => Some(WatchEvent::Changed(object.clone())),
                (None, Some(_)) => {
                    let (key, revision) = (Key::clone(&change.key), change.revision);
                    Some(WatchEvent::Deleted { key, revision })
                }
                (None, None) => None,
            }
        };
        let of_kind = changes.filter(|(change, _)| change.key.kind == kind);
        Some(of_kind.filter_map(|(change, before)| event(change, before)).collect())
    }

    /// The objects of a kind that a watch selects.
    fn present(&self, kind: Kind, scope: Scope) -> Vec<Object> {
        match scope {
            Scope::All => self.store.objects(kind).cloned().collect(),
            Scope::NodeOf(host) => {
                let key = Key::cluster(Kind::Node, &self.hosts[host as usize].name);
                self.store.get(&key).cloned().into_iter().collect()
            }
            Scope::PodsOf(host) => {
                let keys = self.hosts[host as usize].bound.sorted().into_iter();
                keys.filter_map(|key| self.store.get(key)).cloned().collect()
            }
        }
    }

    /// All objects of a kind as a watch cache that lags has them: from before what was written
    /// within the lag, but not older than a revision.
    fn old_state(&self, kind: Kind, lag: Span, floor: Revision) -> (Vec<Object>, Revision) {
        let revision = self.revision_before(Time(self.now.0.saturating_sub(lag.0))).max(floor);
        match self.store.objects_at(kind, revision) {
            Ok(objects) => (objects, revision),
            Err(_) => (self.store.objects(kind).cloned().collect(), self.store.revision()),
        }
    }

    /// Delivers late what a stale list did not hold.
    fn catch_up(&mut self, index: u32, after: Revision, due: Time) {
        for event in self.missed(index, after).unwrap_or_default() {
            self.enqueue(index, due, event);
        }
    }

    fn selects(&self, scope: Scope, object: &Object) -> bool {
        match scope {
            Scope::All => true,
            Scope::PodsOf(host) => node_name(object) == Some(&self.hosts[host as usize].name),
            Scope::NodeOf(host) => {
                object.meta().name.as_deref() == Some(&self.hosts[host as usize].name)
            }
        }
    }

    /// Tells all who are interested of a write.
    pub(super) fn publish(
        &mut self,
        key: &Key,
        old: Option<&Object>,
        new: Option<&Object>,
        revision: Revision,
    ) {
        let store = &self.plan.settings.network.store;
        let now = self.now;
        let seen_at: Vec<Time> = self.servers.iter_mut().map(|s| s.commit(now, store)).collect();
        let event = || match new {
            Some(object) => WatchEvent::Changed(object.clone()),
            None => WatchEvent::Deleted { key: key.clone(), revision },
        };
        for i in 0..self.interest.all[key.kind as usize].len() {
            let watcher = self.interest.all[key.kind as usize][i];
            self.tell_watcher(watcher, &seen_at, event());
        }
        match key.kind {
            Kind::Pod => {
                let host = |object: Option<&Object>| {
                    object.and_then(node_name).and_then(|node| self.host_of.get(node)).copied()
                };
                let after = host(new);
                let stays = old.and_then(node_name) == new.and_then(node_name);
                let before = if stays { after } else { host(old) };
                if before != after {
                    before.into_iter().for_each(|host| self.hosts[host as usize].bound.remove(key));
                    after.into_iter().for_each(|host| self.hosts[host as usize].bound.insert(key));
                }
                if let Some(host) = after {
                    self.tell_watcher(self.interest.pods_of[host as usize], &seen_at, event());
                }
                if let Some(host) = before.filter(|h| after != Some(*h)) {
                    let gone = WatchEvent::Deleted { key: key.clone(), revision };
                    self.tell_watcher(self.interest.pods_of[host as usize], &seen_at, gone);
                }
            }
            Kind::Node => {
                if let Some(host) = self.host_of.get(&key.name).copied() {
                    self.tell_watcher(self.interest.node_of[host as usize], &seen_at, event());
                }
            }
            _ => {}
        }
    }

    fn tell_watcher(&mut self, index: u32, seen_at: &[Time], event: WatchEvent) {
        let watcher = &self.watchers[index as usize];
        if watcher.state != State::Live {
            return;
        }
        let process = watcher.process;
        let server = self.processes[process.index()].server;
        let twice = self.comes_twice(process, server);
        let delay = self.one_way(process).0 + self.sent_again_for(process, server).0;
        let due = seen_at[server as usize] + Span(delay).duration();
        if twice {
            self.enqueue(index, due, event.clone());
        }
        self.enqueue(index, due, event);
    }

    fn comes_twice(&mut self, process: ProcessId, server: u16) -> bool {
        let process = &mut self.processes[process.index()];
        let percent = process.trouble.as_ref().map_or(0, |t| t.duplicates(server));
        percent > 0 && process.rng.random_range(0..100) < percent
    }

    /// How much later an event of a watch comes because it was lost, and sent again by the
    /// connection: what comes after it waits.
    fn sent_again_for(&mut self, process: ProcessId, server: u16) -> Span {
        let mut wait = SENT_AGAIN;
        let mut later = Span::ZERO;
        while wait <= SENT_AGAIN_MAX && self.loses(process, server, Direction::FromServer) {
            later.0 += wait.0;
            wait.0 *= 2;
        }
        later
    }

    /// Events of one watch arrive in order.
    fn enqueue(&mut self, index: u32, due: Time, event: WatchEvent) {
        let watcher = &mut self.watchers[index as usize];
        watcher.last_due = watcher.last_due.max(due);
        watcher.pending.push_back(event);
        let (due, epoch) = (watcher.last_due, watcher.epoch);
        self.queue.push(due, priority::MESSAGE, Event::Deliver { watcher: index, epoch });
    }

    /// A message of a watch arrives.
    pub(super) fn deliver(&mut self, index: u32, epoch: u16) {
        let watcher = &mut self.watchers[index as usize];
        if watcher.epoch != epoch {
            return;
        }
        let process = watcher.process;
        if watcher.stalled > 0 || self.is_cut_off(process, Direction::FromServer) {
            // What cannot come through now comes when it can.
            self.watchers[index as usize].owed += 1;
            return;
        }
        let idles = matches!(self.processes[process.index()].program, Program::Kubelet(_));
        let pending = &mut self.watchers[index as usize].pending;
        let Some(event) = pending.pop_front() else { return };
        if pending.is_empty() && idles {
            // There may be hundreds of thousands of watchers, nearly all kubelets that are idle.
            *pending = VecDeque::new();
        }
        self.feed(process, Input::Api(ApiInput::Watch(event)));
    }

    /// Lets deliveries that were held back come at once.
    pub(super) fn deliver_owed(&mut self, process: ProcessId) {
        for index in self.processes[process.index()].watcher_ids() {
            let watcher = &mut self.watchers[index as usize];
            if watcher.stalled > 0 {
                continue;
            }
            let (owed, epoch) = (std::mem::take(&mut watcher.owed), watcher.epoch);
            for _ in 0..owed {
                let event = Event::Deliver { watcher: index, epoch };
                self.queue.push(self.now, priority::MESSAGE, event);
            }
        }
    }

    /// Tells a process how far its watch of a kind has come: it has asked for the revision.
    pub(super) fn announce(&mut self, process: ProcessId, kind: Kind, revision: Revision) {
        let caught_up = |world: &Self| {
            let server = world.processes[process.index()].server;
            world.servers[server as usize].caught_up_at(world.now)
        };
        for index in self.processes[process.index()].watcher_ids() {
            let watcher = &self.watchers[index as usize];
            if watcher.kind == kind && watcher.state == State::Live {
                let due = caught_up(self) + self.one_way(process).duration();
                self.enqueue(index, due, WatchEvent::Progress { kind, revision });
            }
        }
    }

    /// Tells a process something of its watch of a kind that no write tells.
    pub(super) fn tell_directly(&mut self, process: ProcessId, kind: Kind, event: &WatchEvent) {
        for index in self.processes[process.index()].watcher_ids() {
            let watcher = &self.watchers[index as usize];
            if watcher.kind == kind && watcher.state == State::Live {
                let due = self.now + self.one_way(process).duration();
                self.enqueue(index, due, event.clone());
            }
        }
    }

    // --- faults of watches -----------------------------------------------------------------

    pub(super) fn stall_watches(&mut self, process: ProcessId, stall: bool) {
        for index in self.processes[process.index()].watcher_ids() {
            let stalled = &mut self.watchers[index as usize].stalled;
            *stalled = if stall { *stalled + 1 } else { stalled.saturating_sub(1) };
        }
        if !stall {
            self.deliver_owed(process);
        }
    }

    /// Tells a process all that was held back, of each object only the last, unless more hold it back
    /// than the `coalescings` that tell in batches.
    pub(super) fn deliver_batch(&mut self, process: ProcessId, coalescings: u32) {
        for index in self.processes[process.index()].watcher_ids() {
            let cut_off = self.is_cut_off(process, Direction::FromServer);
            let watcher = &mut self.watchers[index as usize];
            if watcher.stalled > coalescings || cut_off {
                continue;
            }
            let (owed, epoch) = (std::mem::take(&mut watcher.owed) as usize, watcher.epoch);
            let batch: Vec<WatchEvent> = watcher.pending.drain(..owed).collect();
            for event in coalesced(batch) {
                // It may die of what it is told.
                if self.watchers[index as usize].epoch == epoch {
                    self.feed(process, Input::Api(ApiInput::Watch(event)));
                }
            }
        }
    }

    pub(super) fn hold_watches_down(&mut self, process: ProcessId, how: Interruption) {
        for index in self.processes[process.index()].watcher_ids() {
            self.watchers[index as usize].held_down += 1;
            match how {
                Interruption::GoesOn => self.interrupt_watch(index),
                Interruption::Forgotten => self.break_watch(index),
            }
        }
    }

    pub(super) fn let_watches_go_on(&mut self, process: ProcessId) {
        for index in self.processes[process.index()].watcher_ids() {
            let held = &mut self.watchers[index as usize].held_down;
            *held = held.saturating_sub(1);
            if self.processes[process.index()].is_up() {
                self.begin_watch(index, RECONNECT);
            }
        }
    }

    pub(super) fn expire_watches(&mut self, process: ProcessId) {
        for index in self.processes[process.index()].watcher_ids() {
            if self.watchers[index as usize].state == State::Live {
                self.expire_watch(index);
            }
        }
    }

    /// The first lists of a process that starts may be stale.
    pub(super) fn allow_stale_lists(&mut self, process: ProcessId) {
        for index in self.processes[process.index()].watcher_ids() {
            self.watchers[index as usize].stale = true;
        }
    }

    /// All watches through a server end; their clients go on with another one.
    pub(super) fn lose_server(&mut self, server: u16) {
        for index in 0..self.watchers_added() {
            let process = self.watchers[index as usize].process;
            if self.processes[process.index()].server == server
                && self.watchers[index as usize].state != State::Broken
            {
                match self.plan.settings.bug {
                    // It goes to whatever is there and takes that for the present.
                    Some(Bug::StaleServerTrusted) => self.break_watch(index),
                    _ => self.interrupt_watch(index),
                }
                self.begin_watch(index, RECONNECT);
            }
        }
    }
}

/// Of each object the last event alone, in the order of these. That an object is gone is told before
/// another one of its name, as by every watch.
fn coalesced(events: Vec<WatchEvent>) -> Vec<WatchEvent> {
    // With whether it was told that one of the name is gone.
    let mut told: BTreeMap<Key, bool> = BTreeMap::new();
    let mut kept: Vec<WatchEvent> = Vec::with_capacity(events.len());
    for event in events.into_iter().rev() {
        let is_news = match &event {
            WatchEvent::Changed(object) => match told.entry(object.key()) {
                Entry::Vacant(entry) => {
                    entry.insert(false);
                    true
                }
                Entry::Occupied(_) => false,
            },
            WatchEvent::Deleted { key, .. } => told.insert(key.clone(), true) != Some(true),
            WatchEvent::Replaced { .. }
            | WatchEvent::Renewing { .. }
            | WatchEvent::Progress { .. } => true,
        };
        if is_news {
            kept.push(event);
        }
    }
    kept.reverse();
    kept
}
