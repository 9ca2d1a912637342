//! What watches deliver and what becomes of it in caches: P2, P4, P5.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use api::{Key, Kind, Ledger, Object, Revision, Time};
use machine::WatchEvent;

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

/// P2: all that a watch delivered adds up to what is stored.
#[derive(Clone, Default)]
pub(super) struct Replay {
    shadows: BTreeMap<ProcessId, BTreeMap<Kind, Ledger<Key, Revision>>>,
    recent: Recent,
}

impl Replay {
    fn delivered(&mut self, to: ProcessId, event: &WatchEvent) {
        let (kind, revision) = coordinates(event);
        if !is_compared(kind) {
            return;
        }
        let kinds = self.shadows.entry(to).or_default();
        // What comes before the first list is of no use to anybody.
        match (kinds.get_mut(&kind), event) {
            (_, WatchEvent::Replaced { objects, .. }) => {
                let mut listed = Ledger::new();
                for object in objects {
                    listed.insert(object.key(), object.revision());
                }
                kinds.insert(kind, listed);
            }
            (Some(shadow), WatchEvent::Changed(object)) => {
                shadow.insert(object.key(), revision);
            }
            (Some(shadow), WatchEvent::Deleted { key, .. }) => {
                shadow.remove(key);
            }
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
                self.shadows.remove(process);
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
        for (process, kinds) in &self.shadows {
            let component = cluster.component(*process);
            for (kind, shadow) in kinds {
                let told = shadow.iter().map(|(key, at)| (key.clone(), *at)).collect();
                let wrong = difference(&told, present.of(&component, *kind), &excused);
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
    seen: BTreeMap<ProcessId, BTreeMap<Kind, Seen>>,
}

#[derive(Clone, Copy, Default)]
struct Seen {
    revision: Revision,
    /// Whether that was in the process' present life.
    lives: bool,
}

impl NeverBack {
    pub(super) fn new(plan: &Plan) -> Self {
        let lags = plan.faults.iter().any(|f| matches!(f.fault, Fault::LaggingServer { .. }));
        Self { may_be_old: lags || plan.settings.api_servers > 1, seen: BTreeMap::new() }
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
                let seen = self.seen.entry(*to).or_default().entry(kind).or_default();
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
                for seen in self.seen.entry(*process).or_default().values_mut() {
                    seen.lives = false;
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
