//! [`Meter`]: measures a run while it goes on and comes to an [`Outcome`].
//!
//! Everything is a running total that a write moves by the difference between the object's old
//! and new state, so nothing is kept of pods but when those were created that have not started.

mod heat;
mod histogram;
mod nodes;
mod pod;
mod rollouts;
mod shapes;
mod table;

use std::collections::BTreeMap;

use api::{ApiObject, Key, Kind, Memo, Object, Pod, Time};
use k8s_openapi::api::core::v1::PodSpec;

use self::heat::Heat;
pub use self::histogram::Histogram;
use self::nodes::Nodes;
use self::pod::Place;
use self::rollouts::Rollouts;
use self::shapes::{Shape, Shapes};
use self::table::{Fingerprint, Table};
use crate::check::{Occurrence, Violation};
use crate::outcome::{Outcome, Sample};
use crate::plan::Plan;
use crate::span::Span;
use crate::world::World;

/// What is measured of a run.
#[derive(Clone, Debug)]
pub struct Meter {
    pods: Pods,
    nodes: Nodes,
    rollouts: Rollouts,
    heat: Heat,
    samples: Vec<Sample>,
    writes: u64,
    records: u64,
}

/// What is counted of pods.
#[derive(Clone, Debug, Default)]
struct Pods {
    /// When pods were created that have not started, by their UID.
    created_at: Table,
    /// Pods in each place, by [`Place`].
    places: [u64; Place::ALL.len()],
    shapes: Shapes,
    /// What the pods of a spec ask for, if there are several.
    asked: Memo<PodSpec, Shape>,
    created: u64,
    bound: u64,
    started: u64,
    succeeded: u64,
    failed: u64,
    deleted: u64,
    evicted: u64,
    scheduling: Histogram,
    /// As `scheduling`, since the last sample.
    scheduling_lately: Histogram,
    start: Histogram,
}

impl Meter {
    /// A meter for one run of the plan, from its start.
    pub fn new(plan: &Plan) -> Self {
        Self {
            pods: Pods::default(),
            nodes: Nodes::default(),
            rollouts: Rollouts::default(),
            heat: Heat::new(plan.nodes.iter().map(|node| node.name.as_str())),
            samples: Vec::new(),
            writes: 0,
            records: 0,
        }
    }

    /// Takes in what has just happened. Every write must be told, from the first.
    pub fn observe(&mut self, world: &World, occurrence: &Occurrence<'_>) {
        match occurrence {
            Occurrence::Committed { key, old, new, .. } => {
                self.written(world.elapsed(), key, *old, *new);
            }
            Occurrence::Recorded { .. } => self.records += 1,
            _ => {}
        }
    }

    /// Takes a sample. To be called at equal distances of virtual time; looks at every node.
    pub fn sample(&mut self, world: &World) {
        self.sample_at(world.elapsed());
    }

    /// Pods that were bound to a node so far.
    pub const fn pods_bound(&self) -> u64 {
        self.pods.bound
    }

    /// What was measured: everything of the outcome that can be seen from the cluster's writes.
    /// Name and seed, events of the engine, times, memory and the hash are the caller's to fill
    /// in. There is a violation (of P54) when the pods in the store are not those that were
    /// counted.
    pub fn finish(&mut self, world: &World) -> Outcome {
        let mut stored = [0; Place::ALL.len()];
        for pod in world.objects(Kind::Pod).filter_map(Object::get::<Pod>) {
            stored[Place::of(pod) as usize] += 1;
        }
        let violations = self.pods.unaccounted(stored, world.now()).into_iter().collect();
        Outcome { violations, ..self.measured() }
    }

    fn measured(&mut self) -> Outcome {
        let pods = &self.pods;
        Outcome {
            nodes: self.nodes.ever(),
            pods_created: pods.created,
            pods_bound: pods.bound,
            pods_started: pods.started,
            pods_succeeded: pods.succeeded,
            pods_failed: pods.failed,
            pods_deleted: pods.deleted,
            pods_evicted: pods.evicted,
            pods_at_end: pods.at_end(),
            writes: self.writes,
            records: self.records,
            scheduling: pods.scheduling.percentiles(),
            start: pods.start.percentiles(),
            scheduling_curve: pods.scheduling.curve(),
            start_curve: pods.start.curve(),
            samples: std::mem::take(&mut self.samples),
            heat: self.heat.take(),
            rollouts: self.rollouts.take(),
            ..Outcome::default()
        }
    }

    fn written(&mut self, at: Span, key: &Key, old: Option<&Object>, new: Option<&Object>) {
        self.writes += 1;
        match key.kind {
            Kind::Pod => self.pods.write(at, of(old), of(new), &mut self.nodes),
            Kind::Node => self.nodes.write(&key.name, of(old), of(new)),
            Kind::Deployment => self.rollouts.write(at, key, of(old), of(new)),
            _ => {}
        }
    }

    fn sample_at(&mut self, at: Span) {
        let pods = &mut self.pods;
        let mut sample = Sample {
            at,
            pending: pods.places[Place::Pending as usize],
            running: pods.places[Place::Running as usize],
            evicted: pods.evicted,
            writes: self.writes,
            scheduling_p50_ns: pods.scheduling_lately.quantile(500),
            scheduling_p99_ns: pods.scheduling_lately.quantile(990),
            ..Sample::default()
        };
        pods.scheduling_lately.clear();
        self.nodes.sample(pods.shapes.most_frequent(), &mut sample);
        self.samples.push(sample);
        self.heat.sample(at, &self.nodes);
    }
}

impl Pods {
    /// A pod was written; `None` when it was or is not there.
    fn write(&mut self, at: Span, old: Option<&Pod>, new: Option<&Pod>, nodes: &mut Nodes) {
        let before = old.map(Place::of);
        let after = new.map(Place::of);
        if old.is_none() && new.is_some() {
            self.created += 1;
        }
        self.evicted += u64::from(was_evicted(old, new));
        if before == after && old.map(Pod::node) == new.map(Pod::node) {
            return;
        }
        for (place, sign) in [(before, -1), (after, 1)] {
            if let Some(place) = place {
                let count = &mut self.places[place as usize];
                *count = count.checked_add_signed(sign).expect("what leaves a place was there");
            }
        }
        let (claimed, claims) = (old.and_then(claim), new.and_then(claim));
        if claimed != claims {
            // Amounts are parsed only when a pod comes, is bound and ends; they never change.
            let shape = new.or(old).map(|pod| self.shape(pod)).unwrap_or_default();
            if let Some(node) = claimed {
                self.shapes.remove(shape, node.is_empty());
                if !node.is_empty() {
                    nodes.remove(node, shape);
                }
            }
            if let Some(node) = claims {
                self.shapes.add(shape, node.is_empty());
                if !node.is_empty() {
                    nodes.add(node, shape);
                }
            }
        }
        self.deleted += u64::from(new.is_none());
        // A pod that is stopped ends in a phase too, but not by itself.
        let by_itself = new.is_some_and(|pod| pod.metadata.deletion_timestamp.is_none());
        self.succeeded += u64::from(by_itself && after == Some(Place::Succeeded));
        self.failed += u64::from(by_itself && after == Some(Place::Failed));
        self.time(at, old.zip(before), new.zip(after));
    }

    /// Measures how long the pod took to get to where it now is.
    fn time(&mut self, at: Span, old: Option<(&Pod, Place)>, new: Option<(&Pod, Place)>) {
        let Some((pod, before)) = old else {
            if let Some((pod, place)) = new.filter(|(_, place)| place.is_live()) {
                self.created_at.insert(fingerprint(pod), at.0);
                self.started += u64::from(place == Place::Running);
            }
            return;
        };
        let after = new.map(|(_, place)| place);
        // A pod that is soon done may never be seen running.
        let started = matches!(after, Some(Place::Running | Place::Succeeded));
        let created = if started || !after.is_some_and(Place::is_live) {
            self.created_at.remove(fingerprint(pod))
        } else {
            self.created_at.get(fingerprint(pod))
        };
        let Some(created) = created else { return };
        let took = at.0.saturating_sub(created);
        if pod.node().is_empty() && new.is_some_and(|(pod, _)| !pod.node().is_empty()) {
            self.bound += 1;
            self.scheduling.record(took);
            self.scheduling_lately.record(took);
        }
        if started && before != Place::Running {
            self.started += 1;
            self.start.record(took);
        }
    }

    fn shape(&mut self, pod: &Pod) -> Shape {
        let Some(spec) = &pod.spec else { return Shape::default() };
        if let Some(shape) = self.asked.get(spec) {
            return *shape;
        }
        let shape = Shape::of(&scheduler::resources::requests(spec));
        if spec.is_shared() {
            self.asked.insert(spec, shape);
        }
        shape
    }

    fn at_end(&self) -> BTreeMap<String, u64> {
        let mut ends: BTreeMap<String, u64> =
            Place::ALL.iter().map(|p| (p.name().to_owned(), self.places[*p as usize])).collect();
        ends.insert("deleted".to_owned(), self.deleted);
        ends
    }

    /// The violation of P54, if the pods in the store are not those that were counted or some
    /// are lost.
    fn unaccounted(&self, stored: [u64; Place::ALL.len()], at: Time) -> Option<Violation> {
        let there: u64 = self.places.iter().sum();
        if stored == self.places && self.created == there + self.deleted {
            return None;
        }
        let message = format!(
            "{} pods were created and {} deleted; counted {:?} {:?}, stored {stored:?}",
            self.created,
            self.deleted,
            Place::ALL.map(Place::name),
            self.places,
        );
        Some(Violation { property: "P54".to_owned(), at, event: 0, message })
    }
}

/// Whether this write is the one by which the pod was evicted.
fn was_evicted(old: Option<&Pod>, new: Option<&Pod>) -> bool {
    let Some(old) = old else { return false };
    let going = new.is_none_or(|new| {
        new.metadata.deletion_timestamp.is_some() || Place::of(new) == Place::Failed
    });
    going
        && new.map_or_else(|| pod::is_disruption_target(old), pod::is_evicted)
        && !pod::is_evicted(old)
}

/// The node of which the pod takes resources, empty while it waits for one; `None` when it has
/// ended.
fn claim(pod: &Pod) -> Option<&str> {
    Place::of(pod).is_live().then(|| pod.node())
}

fn of<T: ApiObject>(object: Option<&Object>) -> Option<&T> {
    object.and_then(Object::get)
}

fn fingerprint(pod: &Pod) -> Fingerprint {
    Fingerprint::of(pod.metadata.uid.as_deref().unwrap_or_default())
}

#[cfg(test)]
mod tests;
