//! Where pods go that mind where others are: P12, P13 and P15.
//!
//! Judged, like other decisions of schedulers, by what the scheduler was shown when it asks for the
//! binding, and by what it has bound itself.

use std::collections::BTreeMap;
use std::time::Duration;

use api::{Key, Kind, Object, Pod, Request, Time};
use k8s_openapi::api::core::v1::Node;
use machine::WatchEvent;

use super::placement::{NodesShown, asked_binding};
use crate::check::{Check, Cluster, Occurrence, Role};
use crate::oracle::{self, company, company::Placed};
use crate::world::ProcessId;

/// The pods and nodes as they were shown to each scheduler, and the bindings that it asked for.
#[derive(Clone)]
struct Shown {
    nodes: NodesShown,
    pods: BTreeMap<ProcessId, BTreeMap<Key, Object>>,
    /// Where pods are to go.
    asked: BTreeMap<ProcessId, BTreeMap<Key, Asked>>,
}

/// A binding that was asked for.
#[derive(Clone)]
struct Asked {
    uid: String,
    node: String,
    /// When it was refused, of which the scheduler hears later.
    refused: Option<Time>,
}

/// The scheduler has heard of a refusal by then.
const HEARD: Duration = Duration::from_secs(30);

impl Shown {
    const fn new() -> Self {
        Self {
            nodes: NodesShown::new(Role::Scheduler),
            pods: BTreeMap::new(),
            asked: BTreeMap::new(),
        }
    }

    fn observe(&mut self, cluster: &dyn Cluster, occurrence: &Occurrence<'_>) {
        self.nodes.observe(cluster, occurrence);
        match occurrence {
            Occurrence::Delivered { to, event } if cluster.role(*to) == Role::Scheduler => {
                self.delivered(*to, event);
            }
            Occurrence::Called { by, request: Request::Bind { pod, uid, node } } => {
                let asked = self.asked.entry(*by).or_default();
                let (uid, node) = (uid.clone(), node.clone());
                asked.insert(pod.clone(), Asked { uid, node, refused: None });
            }
            Occurrence::Answered { by: Some(by), request: Request::Bind { pod, .. }, .. } => {
                let asked = self.asked.entry(*by).or_default();
                asked.retain(|_, a| a.refused.is_none_or(|at| cluster.now().since(at) < HEARD));
                if let Some(asked) = asked.get_mut(pod) {
                    asked.refused = Some(cluster.now());
                }
            }
            Occurrence::Started(process) | Occurrence::Crashed(process) => {
                self.pods.remove(process);
                self.asked.remove(process);
            }
            _ => {}
        }
    }

    fn delivered(&mut self, to: ProcessId, event: &WatchEvent) {
        if event.kind() != Kind::Pod {
            return;
        }
        let pods = self.pods.entry(to).or_default();
        let asked = self.asked.entry(to).or_default();
        match event {
            WatchEvent::Changed(object) => {
                let key = object.key();
                if oracle::pod(Some(object)).is_some_and(|p| oracle::node_of(p).is_some()) {
                    asked.remove(&key);
                }
                pods.insert(key, object.clone());
            }
            WatchEvent::Deleted { key, .. } => {
                asked.remove(key);
                pods.remove(key);
            }
            WatchEvent::Replaced { objects, .. } => {
                *pods = objects.iter().map(|o| (o.key(), o.clone())).collect();
                asked.retain(|key, _| {
                    let pod = oracle::pod(pods.get(key));
                    pod.is_some_and(|p| oracle::node_of(p).is_none())
                });
            }
            WatchEvent::Progress { .. } | WatchEvent::Renewing { .. } => {}
        }
    }

    /// The pods with their nodes as the scheduler knows them but for one; `sure` leaves out those
    /// of which it is not known yet that they got where they are to go.
    fn placed<'a>(
        &'a self,
        cluster: &'a dyn Cluster,
        by: ProcessId,
        but: &'a Key,
        sure: bool,
    ) -> Vec<Placed<'a>> {
        let asked = self.asked.get(&by);
        let pods = self.pods.get(&by).into_iter().flatten().filter(move |(key, _)| *key != but);
        let place = |(key, object): (&'a Key, &'a Object)| {
            let pod = object.get::<Pod>().filter(|p| !oracle::has_ended(p))?;
            let heard = |a: &Asked| a.refused.is_some_and(|at| cluster.now().since(at) >= HEARD);
            let own = asked.and_then(|asked| asked.get(key));
            let own = own.filter(|a| a.uid == object.uid() && !heard(a));
            let bound = || {
                cluster.object(key).is_some_and(|o| {
                    o.uid() == object.uid() && o.get().is_some_and(|p| oracle::node_of(p).is_some())
                })
            };
            let node = match (oracle::node_of(pod), own) {
                (Some(node), _) => node,
                (None, Some(own)) if !sure || bound() => own.node.as_str(),
                _ => return None,
            };
            Some(Placed { pod, node: self.nodes.get(by, node)? })
        };
        pods.filter_map(place).collect()
    }

    /// Whether all that the scheduler asked for has come to pass, as far as the pods matter.
    fn is_sure(&self, cluster: &dyn Cluster, by: ProcessId, but: &Key) -> bool {
        let count = |sure| self.placed(cluster, by, but, sure).len();
        count(true) == count(false)
    }
}

/// What is judged of a binding.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Demand {
    Apart,
    Near,
    Spread,
}

/// P12, P13, P15: pods that must be apart are, those that must be near are, and those that must be
/// spread are, at the moment of the decision.
///
/// A pod counts against anti-affinity when it is sure to be where it is, and for affinity when it
/// may be: a binding that was refused may be for as long as the scheduler has not heard of it. Where
/// the scheduler cannot know how its last bindings ended, spreading is not judged.
#[derive(Clone)]
pub(super) struct KeepsCompany {
    shown: Shown,
    demand: Demand,
}

impl KeepsCompany {
    pub(super) const fn apart() -> Self {
        Self { shown: Shown::new(), demand: Demand::Apart }
    }

    pub(super) const fn near() -> Self {
        Self { shown: Shown::new(), demand: Demand::Near }
    }

    pub(super) const fn spread() -> Self {
        Self { shown: Shown::new(), demand: Demand::Spread }
    }

    fn judge(
        &self,
        cluster: &dyn Cluster,
        by: ProcessId,
        key: &Key,
        pod: &Pod,
        node: &Node,
    ) -> Result<(), String> {
        match self.demand {
            Demand::Apart => {
                company::apart_allows(pod, node, &self.shown.placed(cluster, by, key, true))
            }
            Demand::Near => {
                company::near_allows(pod, node, &self.shown.placed(cluster, by, key, false))
            }
            Demand::Spread if self.shown.is_sure(cluster, by, key) => {
                let nodes: Vec<&Node> = self.shown.nodes.all(by).collect();
                let placed = self.shown.placed(cluster, by, key, true);
                company::spread_allows(pod, node, &nodes, &placed)
            }
            Demand::Spread => Ok(()),
        }
    }
}

impl Check for KeepsCompany {
    fn property(&self) -> &'static str {
        match self.demand {
            Demand::Apart => "P12",
            Demand::Near => "P13",
            Demand::Spread => "P15",
        }
    }

    fn statement(&self) -> &'static str {
        match self.demand {
            Demand::Apart => "pods that must be apart are not bound into one domain",
            Demand::Near => "pods that must be near others are bound into their domain",
            Demand::Spread => "pods that must be spread are bound so that they are",
        }
    }

    fn observe(
        &mut self,
        cluster: &dyn Cluster,
        occurrence: &Occurrence<'_>,
        found: &mut Vec<String>,
    ) {
        if let Some((by, key, pod, name)) = asked_binding(cluster, occurrence)
            && let Some(node) = self.shown.nodes.get(by, name)
            && let Err(why) = self.judge(cluster, by, key, pod, node)
        {
            let component = cluster.component(by);
            found.push(format!("{component} binds {key} to {name} although {why}"));
        }
        self.shown.observe(cluster, occurrence);
    }
}

#[cfg(test)]
mod tests;
