//! What watches deliver and what becomes of it in caches: P2, P4, P5.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use api::{Key, Kind, Object, Revision, Time, hash};
use machine::WatchEvent;

use super::of_process::OfProcess;
use super::store::coordinates;
use crate::check::{Check, Cluster, Occurrence, Role};
use crate::oracle;
use crate::plan::{Component, Fault, Plan};
use crate::world::ProcessId;

/// What was written so recently need not have arrived everywhere: leases are renewed even in a
/// cluster at rest.
const ON_THE_WAY: Duration = Duration::from_secs(5);

/// The keys that were written in the last moments.
#[derive(Clone, Default)]
struct Recent(VecDeque<(Time, Key)>);

impl Recent {
    fn committed(&mut self, now: Time, key: &Key) {
        while self.0.front().is_some_and(|(at, _)| now.since(*at) > ON_THE_WAY) {
            self.0.pop_front();
        }
        self.0.push_back((now, key.clone()));
    }

    fn keys(&self, now: Time) -> BTreeSet<&Key> {
        let fresh = self.0.iter().filter(|(at, _)| now.since(*at) <= ON_THE_WAY);
        fresh.map(|(_, key)| key).collect()
    }
}

/// Kinds that nobody waits for: they are written by the clock, or for people.
const fn is_compared(kind: Kind) -> bool {
    !matches!(kind, Kind::Lease | Kind::Event)
}

/// The present objects of a kind with their revisions, and of pods and nodes those that concern
/// one node.
#[derive(Clone, Default)]
struct Present {
    all: BTreeMap<Kind, BTreeMap<Key, Revision>>,
    of_node: BTreeMap<(Kind, String), BTreeMap<Key, Revision>>,
    nothing: BTreeMap<Key, Revision>,
}

impl Present {
    fn read(cluster: &dyn Cluster) -> Self {
        let mut present = Self::default();
        for kind in Kind::stored().filter(|k| is_compared(*k)) {
            let objects = present.all.entry(kind).or_default();
            for object in cluster.objects(kind) {
                let (key, revision) = (object.key(), object.revision());
                let node = match object {
                    Object::Pod(pod) => oracle::node_of(pod).map(str::to_owned),
                    Object::Node(node) => node.metadata.name.clone(),
                    _ => None,
                };
                if let Some(node) = node {
                    let of_node = present.of_node.entry((kind, node)).or_default();
                    of_node.insert(key.clone(), revision);
                }
                objects.insert(key, revision);
            }
        }
        present
    }

    /// What a process should know of a kind.
    fn of(&self, component: &Component, kind: Kind) -> &BTreeMap<Key, Revision> {
        match component {
            Component::Kubelet(node) if matches!(kind, Kind::Pod | Kind::Node) => {
                self.of_node.get(&(kind, node.clone())).unwrap_or(&self.nothing)
            }
            _ => self.all.get(&kind).unwrap_or(&self.nothing),
        }
    }
}

/// What is wrong with `known`, if anything.
fn difference(
    known: &BTreeMap<Key, Revision>,
    present: &BTreeMap<Key, Revision>,
    excused: &BTreeSet<&Key>,
) -> Option<String> {
    let of = |map: &BTreeMap<Key, Revision>, wrong: &dyn Fn(&Key, Revision) -> bool| {
        let keys = map.iter().filter(|(key, revision)| wrong(key, **revision));
        keys.map(|(key, _)| key.clone()).filter(|k| !excused.contains(k)).collect::<Vec<Key>>()
    };
    let missing = of(present, &|key, _| !known.contains_key(key));
    let surplus = of(known, &|key, _| !present.contains_key(key));
    let stale = of(known, &|key, at| present.get(key).is_some_and(|is| *is != at));
    if missing.is_empty() && surplus.is_empty() && stale.is_empty() {
        return None;
    }
    Some(format!(
        "missing: {}; long gone: {}; at another revision: {}",
        oracle::some_of(missing),
        oracle::some_of(surplus),
        oracle::some_of(stale)
    ))
}

/// What one watch has told, each object as it was told last. What is told is written down, and
/// brought into order from time to time: nobody asks before the end.
#[derive(Clone, Default)]
struct Told {
    /// Hash and key of an object with its revision, or that it is gone.
    log: Vec<(u64, Key, Option<Revision>)>,
    /// How much of the log there was after it was last brought into order.
    settled: usize,
}

/// What may be written down beyond what was there.
const UNSETTLED_MIN: usize = 32;

impl Told {
    fn note(&mut self, key: Key, revision: Option<Revision>) {
        if self.log.len() >= 2 * self.settled + UNSETTLED_MIN {
            self.settle();
        }
        self.log.push((hash::fold(&key), key, revision));
    }

    /// Keeps the last word on each object that is there.
    fn settle(&mut self) {
        // What was told of one object stays in order.
        self.log.sort_by_key(|(hash, ..)| *hash);
        let mut settled: Vec<(u64, Key, Option<Revision>)> = Vec::new();
        for (hash, key, revision) in self.log.drain(..) {
            let alike = settled.iter_mut().rev().take_while(|(known, ..)| *known == hash);
            match alike.into_iter().find(|(_, known, _)| *known == key) {
                Some(before) => before.2 = revision,
                None => settled.push((hash, key, revision)),
            }
        }
        settled.retain(|(_, _, revision)| revision.is_some());
        self.log = settled;
        self.settled = self.log.len();
    }

    /// What is there.
    fn objects(&self) -> BTreeMap<Key, Revision> {
        let last: BTreeMap<&Key, Option<Revision>> =
            self.log.iter().map(|(_, key, revision)| (key, *revision)).collect();
        let there = last.into_iter().filter_map(|(key, at)| Some((key.clone(), at?)));
        there.collect()
    }
}

/// P2: all that a watch delivered adds up to what is stored.
#[derive(Clone, Default)]
pub(super) struct Replay {
    told: OfProcess<BTreeMap<Kind, Told>>,
    recent: Recent,
}

impl Replay {
    fn delivered(&mut self, to: ProcessId, event: &WatchEvent) {
        let (kind, revision) = coordinates(event);
        if !is_compared(kind) {
            return;
        }
        let kinds = self.told.of(to);
        // What comes before the first list is of no use to anybody.
        match (kinds.get_mut(&kind), event) {
            (_, WatchEvent::Replaced { objects, .. }) => {
                let mut listed = Told::default();
                for object in objects {
                    listed.note(object.key(), Some(object.revision()));
                }
                kinds.insert(kind, listed);
            }
            (Some(told), WatchEvent::Changed(object)) => told.note(object.key(), Some(revision)),
            (Some(told), WatchEvent::Deleted { key, .. }) => told.note(key.clone(), None),
            (None, _) | (_, WatchEvent::Progress { .. } | WatchEvent::Renewing { .. }) => {}
        }
    }
}

impl Check for Replay {
    fn property(&self) -> &'static str {
        "P2"
    }

    fn statement(&self) -> &'static str {
        "all that a watch delivered adds up to what is stored"
    }

    fn observe(&mut self, cluster: &dyn Cluster, occurrence: &Occurrence<'_>, _: &mut Vec<String>) {
        match occurrence {
            Occurrence::Committed { key, .. } => self.recent.committed(cluster.now(), key),
            Occurrence::Delivered { to, event } => self.delivered(*to, event),
            Occurrence::Started(process) | Occurrence::Crashed(process) => {
                self.told.forget(*process);
            }
            _ => {}
        }
    }

    fn at_rest(&mut self, cluster: &dyn Cluster, found: &mut Vec<String>) {
        if !cluster.is_at_rest() {
            return;
        }
        let present = Present::read(cluster);
        let excused = self.recent.keys(cluster.now());
        for (process, kinds) in self.told.iter() {
            for (kind, told) in kinds {
                let component = cluster.component(process);
                let wrong = difference(&told.objects(), present.of(&component, *kind), &excused);
                if let Some(wrong) = wrong {
                    let kind = kind.plural();
                    found.push(format!(
                        "what {component} was told of {kind} is not what is stored: {wrong}"
                    ));
                }
            }
        }
    }
}

/// P4: no cache loses an object, or keeps one that is gone, whatever happened to its watch.
#[derive(Clone, Default)]
pub(super) struct CachesAreRight {
    recent: Recent,
}

impl Check for CachesAreRight {
    fn property(&self) -> &'static str {
        "P4"
    }

    fn statement(&self) -> &'static str {
        "no cache loses an object, or keeps one that is gone, whatever happened to its watch"
    }

    fn observe(&mut self, cluster: &dyn Cluster, occurrence: &Occurrence<'_>, _: &mut Vec<String>) {
        if let Occurrence::Committed { key, .. } = occurrence {
            self.recent.committed(cluster.now(), key);
        }
    }

    fn at_rest(&mut self, cluster: &dyn Cluster, found: &mut Vec<String>) {
        if !cluster.is_at_rest() {
            return;
        }
        let present = Present::read(cluster);
        let excused = self.recent.keys(cluster.now());
        let managers =
            cluster.processes().into_iter().filter(|p| cluster.role(*p) == Role::ControllerManager);
        for manager in managers {
            let component = cluster.component(manager);
            for kind in Kind::stored().filter(|k| is_compared(*k)) {
                let Some(known) = cluster.all_known(manager, kind) else { continue };
                let known = known.into_iter().map(|o| (o.key(), o.revision())).collect();
                if let Some(wrong) = difference(&known, present.of(&component, kind), &excused) {
                    let kind = kind.plural();
                    found.push(format!("{component} is wrong about {kind}: {wrong}"));
                }
            }
        }
    }
}

/// P5: nobody is shown an older state of the cluster than before; a process that restarts only
/// when an API server may answer from an old state.
#[derive(Clone)]
pub(super) struct NeverBack {
    /// Whether a first list may be older than what the process saw in its last life.
    may_be_old: bool,
    /// How far each watch has come, in this life and in any.
    seen: OfProcess<BTreeMap<Kind, Seen>>,
}

#[derive(Clone, Copy, Default)]
struct Seen {
    revision: Revision,
    /// Whether that was in the process' present life.
    lives: bool,
}

impl NeverBack {
    pub(super) fn new(plan: &Plan) -> Self {
        let lags = plan
            .faults
            .iter()
            .any(|f| matches!(f.fault, Fault::LaggingServer { .. } | Fault::StaleReads { .. }));
        Self { may_be_old: lags || plan.settings.api_servers > 1, seen: OfProcess::default() }
    }
}

impl Check for NeverBack {
    fn property(&self) -> &'static str {
        "P5"
    }

    fn statement(&self) -> &'static str {
        "nobody is shown an older state of the cluster than before"
    }

    fn observe(
        &mut self,
        cluster: &dyn Cluster,
        occurrence: &Occurrence<'_>,
        found: &mut Vec<String>,
    ) {
        match occurrence {
            Occurrence::Delivered { to, event } => {
                let (kind, revision) = coordinates(event);
                let seen = self.seen.of(*to).entry(kind).or_default();
                let lists = matches!(event, WatchEvent::Replaced { .. });
                let excused = self.may_be_old && !seen.lives;
                if lists && revision < seen.revision && !excused {
                    found.push(format!(
                        "{} was given a list of {} of revision {revision} after it had seen {}",
                        cluster.component(*to),
                        kind.plural(),
                        seen.revision
                    ));
                }
                // What an excused list goes back to is where this life begins.
                let begins = lists && !seen.lives;
                let reached = if begins { revision } else { revision.max(seen.revision) };
                *seen = Seen { revision: reached, lives: true };
            }
            Occurrence::Started(process) => {
                for seen in self.seen.of(*process).values_mut() {
                    seen.lives = false;
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
