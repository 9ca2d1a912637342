//! What nodes can hold: P8 (resources) and P14 (ports of the host).

use std::collections::{BTreeMap, BTreeSet};

use api::{Key, Kind, Name, Object, Pod, Request, Table};
use k8s_openapi::api::core::v1::{Node, PodSpec};
use machine::WatchEvent;

use super::placement::{NodesShown, asked_binding};
use crate::check::{Check, Cluster, Occurrence, Role};
use crate::oracle::{self, Amounts, HostPort};
use crate::plan::{Component, Fault, Outcome, Plan};
use crate::world::ProcessId;

/// What a pod takes of its node.
trait Taken: Clone {
    fn of(spec: &PodSpec) -> Self;

    /// As amounts that add up, if they do.
    fn amounts(&self) -> Option<&Amounts> {
        None
    }
}

impl Taken for Amounts {
    fn of(spec: &PodSpec) -> Self {
        oracle::requests(spec)
    }

    fn amounts(&self) -> Option<&Amounts> {
        Some(self)
    }
}

impl Taken for Vec<HostPort> {
    fn of(spec: &PodSpec) -> Self {
        oracle::host_ports(spec)
    }
}

/// Pods with their nodes and what they take of them.
#[derive(Clone)]
struct Ledger<T> {
    pods: Table<Key, Entry<T>>,
    nodes: BTreeMap<Name, Residents>,
}

#[derive(Clone)]
struct Entry<T> {
    uid: String,
    node: Name,
    taken: T,
}

#[derive(Clone, Default)]
struct Residents {
    keys: BTreeSet<Key>,
    sum: Amounts,
}

impl<T> Default for Ledger<T> {
    fn default() -> Self {
        Self { pods: Table::new(), nodes: BTreeMap::new() }
    }
}

impl<T: Taken> Ledger<T> {
    /// Takes in the present state of a pod, as far as it counts.
    fn set(&mut self, key: &Key, pod: Option<&Pod>, counts: impl Fn(&Pod) -> bool) {
        let pod = pod.filter(|p| counts(p));
        let place = pod.and_then(|p| Some((p.spec.as_ref()?, oracle::node_of(p)?)));
        let Some((spec, node)) = place else {
            self.remove(key);
            return;
        };
        let uid = pod.and_then(|p| p.metadata.uid.clone()).unwrap_or_default();
        // What a pod asks for does not change; where it is bound does not, either.
        if self.pods.get(key).is_some_and(|e| *e.node == *node && e.uid == uid) {
            return;
        }
        self.remove(key);
        let taken = T::of(spec);
        let node: Name = node.into();
        let residents = self.nodes.entry(node.clone()).or_default();
        residents.keys.insert(key.clone());
        if let Some(amounts) = taken.amounts() {
            residents.sum.add(amounts, 1);
        }
        self.pods.insert(key.clone(), Entry { uid, node, taken });
    }

    fn remove(&mut self, key: &Key) {
        let Some(entry) = self.pods.remove(key) else { return };
        let Some(residents) = self.nodes.get_mut(&entry.node) else { return };
        residents.keys.remove(key);
        if let Some(amounts) = entry.taken.amounts() {
            residents.sum.add(amounts, -1);
        }
        if residents.keys.is_empty() {
            self.nodes.remove(&entry.node);
        }
    }

    /// What the pods of a node take, but for one.
    fn others<'a>(&'a self, node: &str, but: &'a Key) -> impl Iterator<Item = (&'a Key, &'a T)> {
        let keys = self.nodes.get(node).into_iter().flat_map(|residents| &residents.keys);
        let keys = keys.filter(move |key| *key != but);
        keys.filter_map(|key| self.pods.get(key).map(|entry| (key, &entry.taken)))
    }

    /// The amounts that the pods of a node take together, but for one.
    fn sum_but(&self, node: &str, but: &Key) -> Amounts {
        let mut sum = self.nodes.get(node).map(|r| r.sum.clone()).unwrap_or_default();
        if let Some(entry) = self.pods.get(but).filter(|e| *e.node == *node)
            && let Some(amounts) = entry.taken.amounts()
        {
            sum.add(amounts, -1);
        }
        sum
    }
}

/// What one scheduler was shown of bound pods, and what it bound itself.
#[derive(Clone)]
struct Shown<T> {
    ledger: Ledger<T>,
    /// All pods that it was shown.
    keys: BTreeSet<Key>,
    /// Pods that it has asked to bind, in this life.
    asked: BTreeSet<Key>,
}

impl<T> Default for Shown<T> {
    fn default() -> Self {
        Self { ledger: Ledger::default(), keys: BTreeSet::new(), asked: BTreeSet::new() }
    }
}

/// The bound pods as each scheduler knows them: shown to it, or bound by itself.
#[derive(Clone)]
struct KnownToSchedulers<T> {
    shown: BTreeMap<ProcessId, Shown<T>>,
    /// Whether a binding is carried out at once or never, so that a scheduler always knows those
    /// of its own.
    own_are_known: bool,
}

impl<T: Taken> KnownToSchedulers<T> {
    fn new(plan: &Plan) -> Self {
        let late = |fault: &Fault| match fault {
            Fault::CallTimeout { component, outcome, .. } => {
                is_scheduler(component) && *outcome == Outcome::CarriedOutLate
            }
            _ => false,
        };
        let own_are_known = !plan.faults.iter().any(|f| late(&f.fault));
        Self { shown: BTreeMap::new(), own_are_known }
    }

    fn observe(&mut self, cluster: &dyn Cluster, occurrence: &Occurrence<'_>) {
        match occurrence {
            Occurrence::Delivered { to, event } => self.delivered(cluster, *to, event),
            Occurrence::Called { by, request: Request::Bind { pod, .. } } => {
                self.shown.entry(*by).or_default().asked.insert(pod.clone());
            }
            Occurrence::Committed { by: Some(by), request, key, new, .. }
                if matches!(request, Request::Bind { .. }) && self.own_are_known =>
            {
                let Some(shown) = self.shown.get_mut(by) else { return };
                if shown.asked.remove(*key) {
                    shown.ledger.set(key, oracle::pod(*new), |_| true);
                }
            }
            Occurrence::Started(process) | Occurrence::Crashed(process) => {
                self.shown.remove(process);
            }
            _ => {}
        }
    }

    fn delivered(&mut self, cluster: &dyn Cluster, to: ProcessId, event: &WatchEvent) {
        if event.kind() != Kind::Pod || cluster.role(to) != Role::Scheduler {
            return;
        }
        let shown = self.shown.entry(to).or_default();
        match event {
            WatchEvent::Changed(object) => show(shown, object),
            WatchEvent::Deleted { key, .. } => {
                shown.ledger.remove(key);
                shown.keys.remove(key);
                shown.asked.remove(key);
            }
            WatchEvent::Replaced { objects, .. } => {
                let listed: BTreeSet<Key> = objects.iter().map(Object::key).collect();
                for key in shown.keys.difference(&listed) {
                    shown.ledger.remove(key);
                }
                shown.keys = listed;
                objects.iter().for_each(|object| show(shown, object));
            }
            WatchEvent::Progress { .. } | WatchEvent::Renewing { .. } => {}
        }
    }
}

fn show<T: Taken>(shown: &mut Shown<T>, object: &Object) {
    let key = object.key();
    let pod = object.get::<Pod>();
    let unbound = pod.is_some_and(|p| oracle::node_of(p).is_none() && !oracle::has_ended(p));
    // What it bound itself, it knows before it is shown it.
    let own = shown.ledger.pods.get(&key).is_some_and(|entry| entry.uid == object.uid());
    if !(unbound && own) {
        shown.ledger.set(&key, pod, |p| !oracle::has_ended(p));
    }
    shown.keys.insert(key);
}

const fn is_scheduler(component: &Component) -> bool {
    matches!(component, Component::Scheduler(_))
}

/// Whether one life of one scheduler makes all bindings, and each of them is carried out at once
/// or never: only then do its own sums hold in the store as well. Of several that are elected the
/// first one stays the leader as long as nothing goes wrong.
fn one_scheduler_knows_all(plan: &Plan) -> bool {
    let upsets = |fault: &Fault| match fault {
        Fault::Crash { component } | Fault::CrashAtCall { component, .. } => {
            is_scheduler(component)
        }
        Fault::CallTimeout { component, outcome, .. } => {
            is_scheduler(component) && *outcome == Outcome::CarriedOutLate
        }
        _ => false,
    };
    match plan.settings.schedulers {
        1 => !plan.faults.iter().any(|f| upsets(&f.fault)),
        _ => plan.settings.leader_election && plan.faults.is_empty(),
    }
}

/// Nodes whose kubelet started more than once, and so may have admitted pods in another order.
#[derive(Clone, Default)]
struct KubeletStarts {
    lives: BTreeMap<ProcessId, u32>,
    again: BTreeSet<String>,
}

impl KubeletStarts {
    fn observe(&mut self, cluster: &dyn Cluster, occurrence: &Occurrence<'_>) {
        let Occurrence::Started(process) = occurrence else { return };
        let lives = self.lives.entry(*process).or_default();
        *lives += 1;
        if *lives > 1
            && let Component::Kubelet(node) = cluster.component(*process)
        {
            self.again.insert(node);
        }
    }
}

/// P8: no node is given more than it has. In the view of the scheduler that binds, always; in the
/// store, while one scheduler binds alone; among the pods that run, always, for there the kubelet
/// is the last to judge. It does so by what it knows of its containers: a pod that has done its
/// work, or was stopped, takes nothing any more, though the API may hear of that late.
#[derive(Clone)]
pub(super) struct NoOvercommit {
    known: KnownToSchedulers<Amounts>,
    nodes: NodesShown,
    strict: bool,
    bound: BTreeMap<Name, Amounts>,
    running: BTreeMap<Name, Amounts>,
    shrunk: BTreeSet<Name>,
    starts: KubeletStarts,
}

impl NoOvercommit {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            known: KnownToSchedulers::new(plan),
            nodes: NodesShown::new(Role::Scheduler),
            strict: one_scheduler_knows_all(plan),
            bound: BTreeMap::new(),
            running: BTreeMap::new(),
            shrunk: BTreeSet::new(),
            starts: KubeletStarts::default(),
        }
    }

    fn pod_committed(
        &mut self,
        cluster: &dyn Cluster,
        key: &Key,
        old: Option<&Pod>,
        new: Option<&Pod>,
        found: &mut Vec<String>,
    ) {
        let is_bound = |pod: &Pod| !oracle::has_ended(pod);
        if let Some(node) = moved(&mut self.bound, old, new, is_bound)
            && self.strict
            && !self.shrunk.contains(&*node)
            && let Some(why) = self.excess(cluster, &self.bound, &node)
        {
            found.push(format!("with {key}, pods that ask for {why} are bound to {node}"));
        }
        let runs = |pod: &Pod| oracle::phase(pod) == "Running";
        if let Some(node) = moved(&mut self.running, old, new, runs)
            && !self.shrunk.contains(&*node)
            && !self.starts.again.contains(&*node)
            && self.excess(cluster, &self.running, &node).is_some()
        {
            // Few get here, so that it may take long to find out.
            let mut sums = BTreeMap::from([(node.clone(), self.running[&node].clone())]);
            for spec in done_on(cluster, &node) {
                sums.entry(node.clone()).or_default().add(&oracle::requests(spec), -1);
            }
            let Some(why) = self.excess(cluster, &sums, &node) else { return };
            found.push(format!("with {key}, pods that ask for {why} run on {node}"));
        }
    }

    fn excess(
        &self,
        cluster: &dyn Cluster,
        sums: &BTreeMap<Name, Amounts>,
        node: &Name,
    ) -> Option<String> {
        let object = cluster.object(&Key::cluster(Kind::Node, node))?;
        let limits = oracle::allocatable(object.get()?);
        let (resource, used, has) = sums.get(node)?.beyond(&limits)?;
        Some(format!("{used} of {resource}, of which there are {has},"))
    }

    fn node_committed(&mut self, key: &Key, old: Option<&Object>, new: Option<&Object>) {
        let amounts = |o: Option<&Object>| o.and_then(Object::get::<Node>).map(oracle::allocatable);
        if let (Some(before), Some(after)) = (amounts(old), amounts(new))
            && before != after
            && before.beyond(&after).is_some()
        {
            self.shrunk.insert(key.name.clone());
        }
    }

    fn asked(&self, by: ProcessId, key: &Key, pod: &Pod, node: &str) -> Option<String> {
        let limits = oracle::allocatable(self.nodes.get(by, node)?);
        let mut sum = self.known.shown.get(&by)?.ledger.sum_but(node, key);
        sum.add(&oracle::requests(pod.spec.as_ref()?), 1);
        let (resource, used, has) = sum.beyond(&limits)?;
        Some(format!(
            "although it knows of pods there that ask, with this one, for {used} of {resource}, \
             and the node has {has}"
        ))
    }
}

/// Pods of a node that run as far as the API knows, and have ended for good.
fn done_on<'a>(cluster: &'a dyn Cluster, node: &str) -> impl Iterator<Item = &'a PodSpec> {
    let alive = cluster.running_pods(node);
    let pods = cluster.objects(Kind::Pod).filter_map(Object::get::<Pod>);
    let runs = |pod: &&Pod| oracle::phase(pod) == "Running";
    let here = move |pod: &&Pod| oracle::node_of(pod) == Some(node);
    let done = move |pod: &&Pod| {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        // What is started again keeps its room meanwhile; of a pod that goes nothing is.
        let ends = pod.spec.as_ref().is_some_and(|s| s.restart_policy.as_deref() == Some("Never"))
            || oracle::is_going(&pod.metadata);
        ends && !alive.contains(uid)
    };
    pods.filter(runs).filter(here).filter(done).filter_map(|pod| pod.spec.as_deref())
}

/// Follows a pod into and out of the sum of its node; returns the node when it has come in.
fn moved(
    sums: &mut BTreeMap<Name, Amounts>,
    old: Option<&Pod>,
    new: Option<&Pod>,
    counts: impl Fn(&Pod) -> bool,
) -> Option<Name> {
    fn place<'a>(pod: Option<&'a Pod>, counts: &impl Fn(&Pod) -> bool) -> Option<&'a str> {
        pod.filter(|p| counts(p)).and_then(oracle::node_of)
    }
    let (before, after) = (place(old, &counts), place(new, &counts));
    if before == after {
        return None;
    }
    let amounts = |pod: Option<&Pod>| {
        pod.and_then(|p| p.spec.as_ref()).map(|spec| oracle::requests(spec)).unwrap_or_default()
    };
    if let Some(node) = before
        && let Some(sum) = sums.get_mut(node)
    {
        sum.add(&amounts(old), -1);
    }
    let node: Name = after?.into();
    sums.entry(node.clone()).or_default().add(&amounts(new), 1);
    Some(node)
}

impl Check for NoOvercommit {
    fn property(&self) -> &'static str {
        "P8"
    }

    fn statement(&self) -> &'static str {
        "no node is given more pods or more of any resource than it has"
    }

    fn observe(
        &mut self,
        cluster: &dyn Cluster,
        occurrence: &Occurrence<'_>,
        found: &mut Vec<String>,
    ) {
        self.starts.observe(cluster, occurrence);
        self.nodes.observe(cluster, occurrence);
        if let Occurrence::Committed { key, old, new, .. } = occurrence {
            match key.kind {
                Kind::Pod => {
                    let (old, new) = (oracle::pod(*old), oracle::pod(*new));
                    self.pod_committed(cluster, key, old, new, found);
                }
                Kind::Node => self.node_committed(key, *old, *new),
                _ => {}
            }
        }
        self.known.observe(cluster, occurrence);
        if let Some((by, key, pod, node)) = asked_binding(cluster, occurrence)
            && let Some(why) = self.asked(by, key, pod, node)
        {
            found.push(format!("{} binds {key} to {node} {why}", cluster.component(by)));
        }
    }
}

/// P14: a port of a host belongs to one pod: in the view of the scheduler that binds, and among
/// the pods that run.
#[derive(Clone)]
pub(super) struct PortsExclusive {
    known: KnownToSchedulers<Vec<HostPort>>,
    running: Ledger<Vec<HostPort>>,
    starts: KubeletStarts,
}

impl PortsExclusive {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            known: KnownToSchedulers::new(plan),
            running: Ledger::default(),
            starts: KubeletStarts::default(),
        }
    }
}

/// A pod of the ledger that has a port which `pod` wants as well.
fn rival<'a>(
    ledger: &'a Ledger<Vec<HostPort>>,
    node: &str,
    key: &'a Key,
    pod: &Pod,
) -> Option<(&'a Key, i32)> {
    let wanted = oracle::host_ports(pod.spec.as_ref()?);
    let clash = |taken: &[HostPort]| {
        let mut pairs = taken.iter().flat_map(|a| wanted.iter().map(move |b| (a, b)));
        pairs.find(|(a, b)| oracle::ports_clash(a, b)).map(|(a, _)| a.0)
    };
    ledger.others(node, key).find_map(|(other, taken)| Some((other, clash(taken)?)))
}

impl Check for PortsExclusive {
    fn property(&self) -> &'static str {
        "P14"
    }

    fn statement(&self) -> &'static str {
        "a port of a host belongs to one pod"
    }

    fn observe(
        &mut self,
        cluster: &dyn Cluster,
        occurrence: &Occurrence<'_>,
        found: &mut Vec<String>,
    ) {
        self.starts.observe(cluster, occurrence);
        self.known.observe(cluster, occurrence);
        if let Occurrence::Committed { key, new, .. } = occurrence
            && key.kind == Kind::Pod
        {
            let pod = oracle::pod(*new);
            self.running.set(key, pod, |p| oracle::phase(p) == "Running");
            if let Some((pod, node)) = pod.and_then(|p| Some((p, oracle::node_of(p)?)))
                && oracle::phase(pod) == "Running"
                && !self.starts.again.contains(node)
                && let Some((other, port)) = rival(&self.running, node, key, pod)
            {
                found.push(format!("{key} and {other} both run on {node} with its port {port}"));
            }
        }
        if let Some((by, key, pod, node)) = asked_binding(cluster, occurrence)
            && let Some(shown) = self.known.shown.get(&by)
            && let Some((other, port)) = rival(&shown.ledger, node, key, pod)
        {
            found.push(format!(
                "{} binds {key} to {node} although it knows that {other} has port {port} there",
                cluster.component(by)
            ));
        }
    }
}

#[cfg(test)]
mod tests;
