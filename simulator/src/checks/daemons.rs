//! Daemon sets: P37.

use std::collections::BTreeMap;
use std::time::Duration;

use api::{Key, Kind, Object, Pod, Request, Time};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Node;
use machine::WatchEvent;

use super::asked::{Disrupted, Overshoot, Overshot};
use super::brood::{Broods, Life, Lives, PATIENCE, known_owner};
use crate::check::{Check, Cluster, Occurrence, Role};
use crate::oracle::{self, sets};
use crate::world::ProcessId;

/// Whoever is without a pod for so long was so when a plan was made.
const PLAN_MAX: Duration = Duration::from_secs(60);

/// P37: a daemon set has one pod on each node that it is meant for, and none on others; while it is
/// rolled out, not more nodes than it allows are without one, or have two.
///
/// A node that was not meant when the controller was shown it gets none. How many nodes may be
/// without a pod is judged when a pod is given up that would do: those are counted that the same
/// process has given up and not seen replaced, and those that have been without one for a minute. A
/// plan is carried out in batches: what a process was shown lately of a node, or of whether a pod
/// is ready, it may not have known when it made the plan.
#[derive(Clone)]
pub(super) struct OneOnEachNode {
    overshoot: Overshoot,
    disrupted: Disrupted,
    lives: Lives,
    /// Pods that a life of a process has given up while they were ready, by the set and the node.
    given_up: BTreeMap<(Life, String), BTreeMap<String, (String, Time)>>,
    /// The ready pods, by set and node.
    ready: Broods,
    /// When a process was last shown that a node means something else to daemons than before, or
    /// that a pod has become ready or is so no more.
    shown: BTreeMap<(ProcessId, Key), Time>,
    /// Since when a node has had no ready pod of a set any more, as stored.
    without: BTreeMap<String, Time>,
}

impl Default for OneOnEachNode {
    fn default() -> Self {
        Self {
            overshoot: Overshoot::new(Broods::by(place), most_on_a_node),
            disrupted: Disrupted::default(),
            lives: Lives::default(),
            given_up: BTreeMap::new(),
            ready: Broods::by(|pod| place(pod).filter(|_| oracle::is_ready(pod))),
            shown: BTreeMap::new(),
            without: BTreeMap::new(),
        }
    }
}

/// The daemon set and node of a daemon.
fn place(pod: &Pod) -> Option<String> {
    let mut owners = pod.metadata.owner_references.iter().flatten();
    let owner = owners.find(|o| o.controller == Some(true) && o.kind == "DaemonSet")?;
    Some(format!("{}@{}", owner.uid, sets::place_of_daemon(pod)?))
}

/// One, and during a rollout with a surge two.
fn most_on_a_node(owner: &Object) -> Option<i64> {
    let (surge, _) = sets::daemon_bounds(owner.get::<DaemonSet>()?, 1);
    Some(1 + surge.clamp(0, 1))
}

/// The pods of a set as a process knows them.
fn known_pods<'a>(cluster: &'a dyn Cluster, by: ProcessId, uid: &str) -> Vec<&'a Pod> {
    let all = cluster.all_known(by, Kind::Pod).unwrap_or_default().into_iter();
    all.filter_map(Object::get::<Pod>)
        .filter(|pod| oracle::controller(&pod.metadata) == Some(uid))
        .collect()
}

impl OneOnEachNode {
    /// Judges for which node a pod is made.
    fn creates(&self, cluster: &dyn Cluster, by: ProcessId, pod: &Pod) -> Option<String> {
        let owner = known_owner(cluster, by, pod)?;
        let set = owner.get::<DaemonSet>()?;
        let name = sets::place_of_daemon(pod)?;
        let Some(node) = cluster.known(by, &Key::cluster(Kind::Node, name)) else {
            return Some(format!("{} gets a pod for {name}, which is not there", owner.key()));
        };
        let fits = node.get::<Node>().is_some_and(|node| sets::daemon_fits(set, node).0);
        // It may have been meant when the plan was made.
        (!fits && !self.is_news(cluster, by, &Key::cluster(Kind::Node, name)))
            .then(|| format!("{} gets a pod for {name}, which is not meant", owner.key()))
    }

    /// Notes what a process is about to be shown.
    fn delivered(&mut self, cluster: &dyn Cluster, to: ProcessId, object: &Object) {
        if !matches!(object.kind(), Kind::Node | Kind::Pod) {
            return;
        }
        let key = object.key();
        let known = cluster.known(to, &key);
        // What was not there before was in no plan.
        if known.is_some() && judged(known) != judged(Some(object)) {
            self.shown.insert((to, key), cluster.now());
        }
    }

    /// Whether a process was shown the object after it may have made its plan.
    fn is_news(&self, cluster: &dyn Cluster, by: ProcessId, key: &Key) -> bool {
        let shown = self.shown.get(&(by, key.clone()));
        shown.is_some_and(|at| cluster.now().since(*at) < PLAN_MAX)
    }

    /// Judges that a pod is given up that would do.
    fn gives_up(&mut self, cluster: &dyn Cluster, by: ProcessId, key: &Key) -> Option<String> {
        let pod = oracle::pod(cluster.known(by, key)).filter(|p| oracle::is_active(p))?;
        let owner = known_owner(cluster, by, pod).filter(|o| !oracle::is_going(o.meta()))?;
        let set = owner.get::<DaemonSet>()?;
        let uid = owner.uid();
        let node_name = sets::place_of_daemon(pod)?.to_owned();
        let node = cluster.known(by, &Key::cluster(Kind::Node, &node_name))?.get::<Node>()?;
        let namespace = cluster.known(by, &Key::cluster(Kind::Namespace, &key.namespace));
        let dying = namespace.is_some_and(|n| oracle::is_going(n.meta()));
        let evicted = self.disrupted.contains(key, oracle::pod(cluster.object(key))?);
        if dying || evicted || !sets::daemon_fits(set, node).0 || !oracle::is_ready(pod) {
            return None;
        }
        let news = [Key::cluster(Kind::Node, &node_name), key.clone()];
        if news.iter().any(|key| self.is_news(cluster, by, key)) {
            return None;
        }
        let known = known_pods(cluster, by, uid);
        let served = |node: &str, but: Option<&str>| {
            known.iter().any(|pod| {
                sets::place_of_daemon(pod) == Some(node)
                    && oracle::is_active(pod)
                    && oracle::is_ready(pod)
                    && pod.metadata.uid.as_deref() != but
            })
        };
        // Another pod of the node may do as well.
        let own = pod.metadata.uid.as_deref();
        if served(&node_name, own) {
            return None;
        }
        let given_up = self.given_up.entry((self.lives.of(by), uid.to_owned())).or_default();
        let now = cluster.now();
        let stays = |uid: &str| {
            let mut known = known.iter().filter(|p| p.metadata.uid.as_deref() == Some(uid));
            known.any(|p| oracle::is_active(p) && oracle::is_ready(p))
        };
        // What is still there when nobody waits for the answer any more may not have been deleted.
        given_up.retain(|node, (gone, at)| {
            let may_be_lost = now.since(*at) > PATIENCE && stays(gone);
            !may_be_lost && !served(node, Some(gone))
        });
        given_up.insert(node_name, (own.unwrap_or_default().to_owned(), now));
        let fits = |name: &str| {
            let node = cluster.known(by, &Key::cluster(Kind::Node, name));
            node.and_then(Object::get::<Node>).is_some_and(|n| sets::daemon_fits(set, n).0)
        };
        let long = self.without.iter().filter(|(place, since)| {
            let Some((set, node)) = place.split_once('@') else { return false };
            let mine = set == uid && !given_up.contains_key(node);
            mine && now.since(**since) > PLAN_MAX && fits(node)
        });
        let missing = given_up.keys().filter(|node| fits(node)).count() + long.count();
        let nodes = cluster.all_known(by, Kind::Node).map_or(0, |nodes| nodes.len());
        let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let (surge, most) = sets::daemon_bounds(set, number(nodes));
        // Without a surge one node may always be without.
        let most = if surge > 0 { most } else { most.max(1) };
        (number(missing) > most).then(|| {
            format!("{key} is given up: {missing} nodes are then without one, and {most} may be")
        })
    }
}

/// What of an object decides whether a daemon may be given up.
fn judged(object: Option<&Object>) -> impl PartialEq + '_ {
    let object = object.filter(|o| matches!(o.kind(), Kind::Node | Kind::Pod));
    let node = object.and_then(Object::get::<Node>);
    let ready = object.and_then(Object::get::<Pod>).map(oracle::is_ready);
    (node.map(|n| (n.metadata.labels.as_ref(), n.spec.as_ref().map(|s| &s.taints))), ready)
}

impl Check for OneOnEachNode {
    fn property(&self) -> &'static str {
        "P37"
    }

    fn statement(&self) -> &'static str {
        "a daemon set has one pod on each node that it is meant for, and none on others"
    }

    fn observe(
        &mut self,
        cluster: &dyn Cluster,
        occurrence: &Occurrence<'_>,
        found: &mut Vec<String>,
    ) {
        self.lives.observe(occurrence);
        self.disrupted.observe(cluster, occurrence);
        let overshot = self.overshoot.observe(cluster, occurrence).filter(Overshot::is_doubled);
        if let Some(Overshot { key, has, limit, .. }) = overshot {
            found.push(format!("{key} is pod number {has} on its node, and {limit} may be"));
        }
        if let Some((by, key)) = occurrence.pod_given_up(cluster) {
            found.extend(self.gives_up(cluster, by, key));
        }
        match occurrence {
            Occurrence::Called { by, request: Request::Create(Object::Pod(pod)) }
                if cluster.role(*by) == Role::ControllerManager =>
            {
                found.extend(self.creates(cluster, *by, pod));
            }
            Occurrence::Committed { key, old, new, .. } => {
                let before = oracle::pod(*old).and_then(|pod| self.ready.group(pod));
                self.ready.committed(key, *old, *new);
                let after = oracle::pod(*new).and_then(|pod| self.ready.group(pod));
                for place in [before, after].into_iter().flatten() {
                    if self.ready.size(&place) > 0 {
                        self.without.remove(&place);
                    } else {
                        self.without.entry(place).or_insert(cluster.now());
                    }
                }
            }
            Occurrence::Delivered { to, event } if cluster.role(*to) == Role::ControllerManager => {
                let told = match event {
                    WatchEvent::Changed(object) => std::slice::from_ref(object),
                    WatchEvent::Replaced { objects, .. } => objects.as_slice(),
                    _ => &[],
                };
                for object in told {
                    self.delivered(cluster, *to, object);
                }
            }
            Occurrence::Started(process) => {
                self.shown.retain(|(to, _), _| to != process);
                self.given_up.retain(|((by, _), _), _| by != process);
            }
            _ => {}
        }
    }

    fn at_rest(&mut self, cluster: &dyn Cluster, found: &mut Vec<String>) {
        if !cluster.is_at_rest() {
            return;
        }
        let mut counts: BTreeMap<String, i64> = BTreeMap::new();
        for pod in cluster.objects(Kind::Pod).filter_map(Object::get::<Pod>) {
            if let Some(place) = place(pod).filter(|_| oracle::is_active(pod)) {
                *counts.entry(place).or_default() += 1;
            }
        }
        for object in cluster.objects(Kind::DaemonSet).filter(|o| !oracle::is_going(o.meta())) {
            let Some(set) = object.get::<DaemonSet>() else { continue };
            for node in cluster.objects(Kind::Node).filter_map(Object::get::<Node>) {
                let name = node.metadata.name.as_deref().unwrap_or_default();
                let has = counts.get(&format!("{}@{name}", object.uid())).copied().unwrap_or(0);
                let right = match sets::daemon_fits(set, node) {
                    (true, _) => has == 1,
                    (false, true) => has <= 1,
                    (false, false) => has == 0,
                };
                if !right {
                    found.push(format!("{} has {has} pods on {name} at rest", object.key()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
