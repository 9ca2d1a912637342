//! What controller managers have said to do to pods, and what they knew then: calls are carried out
//! later, in batches, late or never.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use api::{Key, Kind, Object, Pod, Request, Revision, Subresource, Time};

use super::brood::{Broods, Change, Life, Lives, PATIENCE, known_owner};
use crate::check::{Cluster, Occurrence, Role};
use crate::oracle;
use crate::world::ProcessId;

/// A creation or deletion of a pod that a controller manager has asked for.
#[derive(Clone)]
pub(super) struct Asked {
    pub(super) by: Life,
    pub(super) at: Time,
    /// How many pods the owner was to have, as far as the asking process knew.
    pub(super) limit: i64,
    /// How far the asking process had seen pods.
    pub(super) seen: Revision,
}

impl Asked {
    /// Whether it is carried out now when the asking process takes it for lost, or may.
    pub(super) fn is_late(&self, now: Time, last_asked: Option<&Time>) -> bool {
        now.since(self.at) > PATIENCE || last_asked.is_some_and(|last| *last > self.at)
    }
}

/// How many pods an owner has lately been known to want, and how far pods were seen then. A plan
/// is carried out in batches, each after the answers to the last: while that goes on, what counts
/// is what was known when the plan was made.
#[derive(Clone, Default)]
pub(super) struct Lately(BTreeMap<(ProcessId, String), Vec<Known>>);

/// What a process knew when it made a call.
#[derive(Clone, Copy)]
pub(super) struct Known {
    pub(super) at: Time,
    pub(super) limit: i64,
    pub(super) seen: Revision,
}

/// Batches of one plan follow each other in less time than this.
const PLAN_MAX: Duration = Duration::from_secs(60);

impl Lately {
    /// Takes in what the process knows when it makes a call; returns what was known when the
    /// plans were made that the call may belong to.
    pub(super) fn known(&mut self, by: ProcessId, uid: &str, now: Known) -> &[Known] {
        let known = self.0.entry((by, uid.to_owned())).or_default();
        known.retain(|k| now.at.since(k.at) < PLAN_MAX);
        if known.last().is_none_or(|last| last.limit != now.limit) {
            known.push(now);
        }
        known
    }
}

/// A pod that was made although there were enough.
pub(super) struct Overshot<'a> {
    pub(super) key: &'a Key,
    /// How many there are now.
    pub(super) has: i64,
    /// How many were asked for.
    pub(super) limit: i64,
    /// How many of them were made late, or by others and not seen by who made this one.
    excused: i64,
    /// Whether the group has lost pods.
    bereft: bool,
    /// Whether one life of one process has made all of them.
    pub(super) one_life: bool,
}

impl Overshot<'_> {
    /// Whether it was too much by what its creator had seen, or by what it must have met: all name
    /// pods by what they know alone, so that who asks for a pod which another has made is told that
    /// it is there. What was lost moves the names on, and of that a process which has started since
    /// knows nothing.
    pub(super) const fn is_doubled(&self) -> bool {
        self.has > self.limit + self.excused || !self.bereft
    }
}

/// A creation of a pod that was asked for.
#[derive(Clone)]
struct Creation {
    asked: Asked,
    /// How many active pods of the group the asking process had not seen yet, of those that it has
    /// not made itself in this life.
    unseen: i64,
    /// How many pods had been made by then.
    made: u64,
}

/// Finds pods that are made although there are enough. A creation that is carried out after a later
/// one was asked for, or after nobody waits for its answer any more, is excused: its outcome was
/// unknown.
#[derive(Clone)]
pub(super) struct Overshoot {
    broods: Broods,
    /// How many pods an owner asks for of each group.
    limit: fn(&Object) -> Option<i64>,
    lives: Lives,
    asked: BTreeMap<Key, Creation>,
    last_asked: BTreeMap<String, Time>,
    late: BTreeMap<String, i64>,
    /// Who has asked for the pods that are there, and how many were made before each.
    makers: BTreeMap<Key, (Life, u64)>,
    /// How many pods were ever made.
    made: u64,
    /// Who has ever asked for pods of a group.
    creators: BTreeMap<String, BTreeSet<Life>>,
    /// The groups that have lost a pod.
    bereft: BTreeSet<String>,
    lately: Lately,
}

impl Overshoot {
    pub(super) fn new(broods: Broods, limit: fn(&Object) -> Option<i64>) -> Self {
        Self {
            broods,
            limit,
            lives: Lives::default(),
            asked: BTreeMap::new(),
            last_asked: BTreeMap::new(),
            late: BTreeMap::new(),
            makers: BTreeMap::new(),
            made: 0,
            creators: BTreeMap::new(),
            bereft: BTreeSet::new(),
            lately: Lately::default(),
        }
    }

    /// How many creations of a group were carried out late.
    pub(super) fn late(&self, group: &str) -> i64 {
        self.late.get(group).copied().unwrap_or(0)
    }

    fn called(&mut self, cluster: &dyn Cluster, by: ProcessId, pod: &Pod) {
        let Some(group) = self.broods.group(pod) else { return };
        let Some(limit) = known_owner(cluster, by, pod).and_then(self.limit) else { return };
        let meta = &pod.metadata;
        let key = Key::new(
            Kind::Pod,
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default(),
        );
        let (at, seen) = (cluster.now(), Revision::default());
        let known = self.lately.known(by, &group, Known { at, limit, seen });
        let limit = known.iter().map(|k| k.limit).max().unwrap_or(limit);
        let life = self.lives.of(by);
        let is_unseen = |key: &&Key| {
            self.makers.get(*key).is_none_or(|(maker, _)| *maker != life)
                && cluster.known(by, key).is_none()
        };
        // Few groups are full when another is asked for.
        let full = self.broods.size(&group) >= limit;
        let unseen = if full { self.broods.of(&group).filter(is_unseen).count() } else { 0 };
        let unseen = i64::try_from(unseen).unwrap_or(i64::MAX);
        self.creators.entry(group.clone()).or_default().insert(life);
        self.last_asked.insert(group, at);
        let asked = Asked { by: life, at, limit, seen };
        let made = self.made;
        self.asked.insert(key, Creation { asked, unseen, made });
    }

    fn joined<'a>(&mut self, now: Time, key: &'a Key, group: &str) -> Option<Overshot<'a>> {
        let Creation { asked, unseen, made } = self.asked.remove(key)?;
        self.makers.insert(key.clone(), (asked.by, self.made));
        self.made += 1;
        if asked.is_late(now, self.last_asked.get(group)) {
            *self.late.entry(group.to_owned()).or_default() += 1;
            return None;
        }
        let (has, limit, late) = (self.broods.size(group), asked.limit, self.late(group));
        if has <= limit + late {
            return None;
        }
        // What others have made while this was under way nobody could see.
        let is_since = |key: &&Key| {
            self.makers.get(*key).is_some_and(|(maker, at)| *maker != asked.by && *at >= made)
        };
        let since = self.broods.of(group).filter(is_since).count();
        let unseen = unseen.saturating_add(i64::try_from(since).unwrap_or(i64::MAX));
        let (excused, bereft) = (late + unseen, self.bereft.contains(group));
        let creators = self.creators.get(group);
        let one_life = creators.is_some_and(|c| c.len() == 1 && c.contains(&asked.by));
        Some(Overshot { key, has, limit, excused, bereft, one_life })
    }

    /// Takes in what happened; says what was too much.
    pub(super) fn observe<'a>(
        &mut self,
        cluster: &dyn Cluster,
        occurrence: &Occurrence<'a>,
    ) -> Option<Overshot<'a>> {
        self.lives.observe(occurrence);
        match occurrence {
            Occurrence::Called { by, request: Request::Create(Object::Pod(pod)) } => {
                self.called(cluster, *by, pod);
            }
            Occurrence::Committed { key, old, new, request, .. } => {
                let change = self.broods.committed(key, *old, *new);
                match (change, request) {
                    (Some(Change::Left(group)), _) => {
                        self.makers.remove(*key);
                        self.bereft.insert(group);
                    }
                    (Some(Change::Joined(group)), Request::Create(_)) => {
                        return self.joined(cluster.now(), key, &group);
                    }
                    _ => {}
                }
            }
            Occurrence::Answered { request: Request::Create(object @ Object::Pod(_)), .. } => {
                self.asked.remove(&object.key());
            }
            _ => {}
        }
        None
    }
}

/// Pods that a controller manager has said to disrupt. The mark and the deletion go out together,
/// so the store need not have the mark yet when the deletion is asked for.
#[derive(Clone, Default)]
pub(super) struct Disrupted(BTreeSet<Key>);

impl Disrupted {
    /// Takes in what happened.
    pub(super) fn observe(&mut self, cluster: &dyn Cluster, occurrence: &Occurrence<'_>) {
        match occurrence {
            Occurrence::Called {
                by,
                request:
                    Request::Update {
                        object: object @ Object::Pod(pod),
                        subresource: Some(Subresource::Status),
                    },
            } if cluster.role(*by) == Role::ControllerManager
                && oracle::condition_is_true(pod, DISRUPTION) =>
            {
                self.0.insert(object.key());
            }
            Occurrence::Committed { key, new: None, .. } => {
                self.0.remove(*key);
            }
            _ => {}
        }
    }

    /// Whether the pod is to go for another reason than being surplus.
    pub(super) fn contains(&self, key: &Key, pod: &Pod) -> bool {
        self.0.contains(key) || oracle::condition_is_true(pod, DISRUPTION)
    }
}

/// The condition of pods that are taken from their nodes.
pub(super) const DISRUPTION: &str = "DisruptionTarget";
