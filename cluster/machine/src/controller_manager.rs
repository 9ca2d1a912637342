//! [`ControllerManager`]: one process of controllers over one cache.

use std::collections::{BTreeMap, BTreeSet};

use api::{Kind, Time};

use crate::contract::Calls;
use crate::{
    ApiEffect, ApiInput, Cache, CallId, Controller, LeaderElector, Machine, Reconciler, WatchEvent,
};

/// A single [`Cache`] that all reconcilers read, and a [`Controller`] for each of them. They act
/// only while this process leads.
pub struct ControllerManager {
    cache: Cache,
    controllers: Vec<Controller>,
    elector: Option<LeaderElector>,
    calls: Calls,
    owners: BTreeMap<CallId, usize>,
}

impl ControllerManager {
    /// Makes a manager of the reconcilers; without an elector it always leads.
    pub fn new(
        reconcilers: Vec<Box<dyn Reconciler + Send>>,
        elector: Option<LeaderElector>,
    ) -> Self {
        Self {
            cache: Cache::default(),
            controllers: reconcilers.into_iter().map(Controller::new).collect(),
            elector,
            calls: Calls::default(),
            owners: BTreeMap::new(),
        }
    }

    /// The kinds that must be watched.
    pub fn kinds(&self) -> BTreeSet<Kind> {
        self.controllers.iter().flat_map(|c| c.kinds().iter().copied()).collect()
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
        self.controllers.iter().map(|c| (c.name(), c.depth()))
    }

    /// Gives leadership up, so that another process need not wait for the lease to run out.
    pub fn release(&mut self, now: Time, out: &mut Vec<ApiEffect>) {
        if let Some(elector) = &mut self.elector {
            elector.release(now, &mut self.calls, out);
        }
    }

    fn watch(&mut self, now: Time, event: WatchEvent) {
        let kind = match &event {
            WatchEvent::Changed(object) => object.kind(),
            WatchEvent::Deleted { key, .. } => key.kind,
            WatchEvent::Replaced { kind, .. } | WatchEvent::Progress { kind, .. } => *kind,
        };
        let deltas = self.cache.apply(now, event);
        let revision = self.cache.revision(kind);
        for controller in &mut self.controllers {
            if !controller.kinds().contains(&kind) {
                continue;
            }
            for delta in &deltas {
                controller.observe(&self.cache, delta);
            }
            controller.advance(kind, revision);
        }
    }
}

impl Machine for ControllerManager {
    type Input = ApiInput;
    type Effect = ApiEffect;

    fn step(&mut self, now: Time, input: ApiInput, out: &mut Vec<ApiEffect>) {
        match input {
            ApiInput::Watch(event) => self.watch(now, event),
            ApiInput::Reply { id, result } => match self.owners.remove(&id) {
                Some(i) => {
                    let from = out.len();
                    self.controllers[i].reply(&self.cache, now, id, result, &mut self.calls, out);
                    self.own(i, &out[from..]);
                }
                None => {
                    if let Some(elector) = &mut self.elector {
                        elector.reply(now, id, result, &mut self.calls, out);
                    }
                }
            },
            ApiInput::Wake => {}
        }
        if let Some(elector) = &mut self.elector {
            elector.wake(now, &mut self.calls, out);
        }
        let leads = self.is_leader(now);
        for i in 0..self.controllers.len() {
            let controller = &mut self.controllers[i];
            controller.wake(now);
            if !leads || !self.cache.synced(controller.kinds().iter().copied()) {
                continue;
            }
            let from = out.len();
            controller.run(&self.cache, now, &mut self.calls, out);
            self.own(i, &out[from..]);
        }
    }

    fn wake_at(&self) -> Option<Time> {
        let timers = self.controllers.iter().filter_map(Controller::wake_at);
        timers.chain(self.elector.as_ref().and_then(LeaderElector::wake_at)).min()
    }
}

impl ControllerManager {
    fn own(&mut self, controller: usize, effects: &[ApiEffect]) {
        for effect in effects {
            if let ApiEffect::Call { id, .. } = effect {
                self.owners.insert(*id, controller);
            }
        }
    }
}

#[cfg(test)]
mod tests;
