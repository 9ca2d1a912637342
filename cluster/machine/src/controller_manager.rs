//! [`ControllerManager`]: one process of controllers over one cache.

use std::collections::{BTreeMap, BTreeSet};

use api::{Kind, Time};

use crate::contract::Calls;
use crate::{
    ApiEffect, ApiInput, Aspects, Cache, CallId, Controller, LeaderElector, Machine, Reconciler,
    WatchEvent,
};

/// A single [`Cache`] that all reconcilers read, and a [`Controller`] for each of them. They act
/// only while this process leads.
///
/// A step touches only the controllers that watch the kind, wait for the answer, have a key that
/// is due, or have something left to do.
#[derive(Clone)]
pub struct ControllerManager {
    cache: Cache,
    controllers: Vec<Managed>,
    watchers: BTreeMap<Kind, Vec<Watcher>>,
    /// Those for which a run may find something to do.
    busy: BTreeSet<usize>,
    /// When each is due that waits for a time.
    wakes: BTreeSet<(Time, usize)>,
    elector: Option<LeaderElector>,
    calls: Calls,
    owners: BTreeMap<CallId, usize>,
}

#[derive(Clone)]
struct Managed {
    controller: Controller,
    /// Whether all the kinds it reads were listed.
    synced: bool,
    /// Its entry in `wakes`.
    wake: Option<Time>,
}

/// A controller that is told of changes of a kind.
#[derive(Clone, Copy)]
struct Watcher {
    /// Its position in `controllers`.
    at: usize,
    /// Whether it reads the kind, or just hears of it.
    reads: bool,
    /// It is told of changes that are about one of these.
    heeds: Aspects,
}

impl ControllerManager {
    /// Makes a manager of the reconcilers; without an elector it always leads.
    pub fn new(reconcilers: Vec<Box<dyn Reconciler>>, elector: Option<LeaderElector>) -> Self {
        let cache = Cache::with_indexes(reconcilers.iter().flat_map(|r| r.indexes()));
        let mut watchers: BTreeMap<Kind, Vec<Watcher>> = BTreeMap::new();
        for (at, reconciler) in reconcilers.iter().enumerate() {
            let read = reconciler.kinds().iter().map(|kind| (*kind, true));
            let heard = reconciler.hears_of().iter().map(|kind| (*kind, false));
            for (kind, reads) in read.chain(heard) {
                let heeds = reconciler.heeds(kind);
                watchers.entry(kind).or_default().push(Watcher { at, reads, heeds });
            }
        }
        let managed = |reconciler| {
            let controller = Controller::new(reconciler);
            Managed { synced: controller.kinds().is_empty(), controller, wake: None }
        };
        Self {
            cache,
            controllers: reconcilers.into_iter().map(managed).collect(),
            watchers,
            busy: BTreeSet::new(),
            wakes: BTreeSet::new(),
            elector,
            calls: Calls::default(),
            owners: BTreeMap::new(),
        }
    }

    /// Lets no controller wait until the cache shows its writes; see
    /// [`Controller::read_your_writes`].
    #[must_use]
    pub fn without_read_your_writes(mut self) -> Self {
        for managed in &mut self.controllers {
            managed.controller.read_your_writes = false;
        }
        self
    }

    /// The kinds that must be watched.
    pub fn kinds(&self) -> BTreeSet<Kind> {
        self.watchers.keys().copied().collect()
    }

    /// What this process knows of the API.
    pub const fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Whether this process leads at `now`.
    pub fn is_leader(&self, now: Time) -> bool {
        self.elector.as_ref().is_none_or(|e| e.is_leader(now))
    }

    /// Name and queue depth of each controller, for metrics.
    pub fn depths(&self) -> impl Iterator<Item = (&'static str, usize)> {
        self.controllers.iter().map(|m| (m.controller.name(), m.controller.depth()))
    }

    /// Gives leadership up, so that another process need not wait for the lease to run out.
    pub fn release(&mut self, now: Time, out: &mut Vec<ApiEffect>) {
        if let Some(elector) = &mut self.elector {
            elector.release(now, &mut self.calls, out);
        }
    }

    fn watch(&mut self, now: Time, event: WatchEvent) {
        let kind = event.kind();
        let listed = matches!(event, WatchEvent::Replaced { .. });
        let Some(watchers) = self.watchers.get(&kind) else {
            self.cache.apply_each(now, event, |_, _| {});
            return;
        };
        let controllers = &mut self.controllers;
        self.cache.apply_each(now, event, |cache, delta| {
            let differ = Aspects::between(delta.old.as_ref(), delta.new.as_ref());
            for watcher in watchers.iter().filter(|w| w.heeds.hear(differ)) {
                controllers[watcher.at].controller.observe(cache, &delta, watcher.reads);
            }
        });
        let revision = self.cache.revision(kind);
        for watcher in watchers {
            let Managed { controller, synced, .. } = &mut controllers[watcher.at];
            controller.advance(kind, revision);
            if controller.has_candidates() {
                self.busy.insert(watcher.at);
            }
            if listed && !*synced {
                *synced = self.cache.synced(controller.kinds().iter().copied());
            }
        }
    }

    /// Takes the answer to a call; those that no controller sent are the elector's.
    fn reply(
        &mut self,
        now: Time,
        id: CallId,
        result: Result<api::Reply, api::ApiError>,
        out: &mut Vec<ApiEffect>,
    ) {
        let Some(i) = self.owners.remove(&id) else {
            if let Some(elector) = &mut self.elector {
                elector.reply(now, id, result, &mut self.calls, out);
            }
            return;
        };
        let from = out.len();
        let acts = self.is_leader(now);
        let controller = &mut self.controllers[i].controller;
        controller.acts = acts;
        controller.reply(&self.cache, now, id, result, &mut self.calls, out);
        self.note(i, &out[from..]);
    }

    fn wake(&mut self, now: Time) {
        while let Some((_, i)) = self.wakes.first().copied().filter(|(at, _)| *at <= now) {
            self.controllers[i].controller.wake(now);
            self.note(i, &[]);
        }
    }

    /// Runs those controllers that may do something and have something to do.
    fn run(&mut self, now: Time, out: &mut Vec<ApiEffect>) {
        let mut next = 0;
        while let Some(i) = self.busy.range(next..).next().copied() {
            next = i + 1;
            if !self.controllers[i].synced {
                continue;
            }
            let from = out.len();
            self.controllers[i].controller.run(&self.cache, now, &mut self.calls, out);
            self.note(i, &out[from..]);
        }
    }

    /// Notes after an input to a controller what it sent, when it is due and whether it is busy.
    fn note(&mut self, i: usize, effects: &[ApiEffect]) {
        for effect in effects {
            if let ApiEffect::Call { id, .. } = effect {
                self.owners.insert(*id, i);
            }
        }
        let Managed { controller, wake, .. } = &mut self.controllers[i];
        let due = controller.wake_at();
        if due != *wake {
            wake.map(|at| self.wakes.remove(&(at, i)));
            due.map(|at| self.wakes.insert((at, i)));
            *wake = due;
        }
        if controller.has_candidates() {
            self.busy.insert(i);
        } else {
            self.busy.remove(&i);
        }
    }
}

impl Machine for ControllerManager {
    type Input = ApiInput;
    type Effect = ApiEffect;

    fn step(&mut self, now: Time, input: ApiInput, out: &mut Vec<ApiEffect>) {
        match input {
            ApiInput::Watch(event) => self.watch(now, event),
            ApiInput::Reply { id, result } => self.reply(now, id, result, out),
            ApiInput::Wake => {}
        }
        if let Some(elector) = &mut self.elector {
            elector.wake(now, &mut self.calls, out);
        }
        self.wake(now);
        if self.is_leader(now) {
            self.run(now, out);
        }
    }

    fn wake_at(&self) -> Option<Time> {
        let due = self.wakes.first().map(|(at, _)| *at);
        due.into_iter().chain(self.elector.as_ref().and_then(LeaderElector::wake_at)).min()
    }
}

#[cfg(test)]
mod tests;
