//! What nodes can hold: P8 (resources) and P14 (ports of the host).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use api::{Key, Kind, Name, Object, Pod, Request, Revision, Shared, Table};
use k8s_openapi::api::core::v1::{Node, PodSpec};
use machine::WatchEvent;

use super::placement::{NodesShown, asked_binding};
use crate::check::{Check, Cluster, Occurrence, Role};
use crate::oracle::{self, Amounts, HostPort};
use crate::plan::{Component, Fault, Outcome, Plan};
use crate::world::ProcessId;

/// What pods take of their nodes.
trait Taken: Clone {
    fn of(spec: &PodSpec) -> Self;

    /// As amounts that add up, if they do.
    fn amounts(&self) -> Option<&Amounts> {
        None
    }
}

impl Taken for Arc<Amounts> {
    fn of(spec: &PodSpec) -> Self {
        Self::new(oracle::requests(spec))
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

/// What specs take that were looked at of late: the versions of a pod have one spec in common, and
/// mostly all pods of a template.
#[derive(Clone)]
struct TakenBySpec<T>(VecDeque<(Shared<PodSpec>, T)>);

/// How many specs are remembered.
const SPECS_MAX: usize = 8;

impl<T> Default for TakenBySpec<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T: Taken> TakenBySpec<T> {
    fn of(&mut self, spec: &Shared<PodSpec>) -> T {
        if let Some((_, taken)) = self.0.iter().find(|(known, _)| known.is_same(spec)) {
            return taken.clone();
        }
        self.0.truncate(SPECS_MAX - 1);
        let taken = T::of(spec);
        self.0.push_front((spec.clone(), taken.clone()));
        taken
    }
}

/// Pods with their nodes and what they take of them.
#[derive(Clone)]
struct Ledger<T> {
    pods: Table<Key, Entry<T>>,
    nodes: Table<Name, Residents>,
    specs: TakenBySpec<T>,
}

#[derive(Clone)]
struct Entry<T> {
    uid: Box<str>,
    node: Name,
    taken: T,
}

#[derive(Clone, Default)]
struct Residents {
    keys: Vec<Key>,
    sum: Amounts,
}

impl<T> Default for Ledger<T> {
    fn default() -> Self {
        Self { pods: Table::new(), nodes: Table::new(), specs: TakenBySpec::default() }
    }
}

impl<T: Taken> Ledger<T> {
    /// Takes in the present state of a pod, as far as it counts.
    fn set(&mut self, key: &Key, pod: Option<&Pod>, counts: impl Fn(&Pod) -> bool) {
        let pod = pod.filter(|p| counts(p));
        let place = pod.and_then(|p| Some((p, p.spec.as_ref()?, p.node_name.as_ref()?)));
        let Some((pod, spec, node)) = place else {
            self.remove(key);
            return;
        };
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        // What a pod asks for does not change; where it is bound does not, either.
        if self.pods.get(key).is_some_and(|e| e.node == *node && *e.uid == *uid) {
            return;
        }
        self.remove(key);
        let taken = self.specs.of(spec);
        self.put(key.clone(), Entry { uid: uid.into(), node: node.clone(), taken });
    }

    /// Adds a pod that is not there.
    fn put(&mut self, key: Key, entry: Entry<T>) {
        if !self.nodes.contains_key(&entry.node) {
            self.nodes.insert(entry.node.clone(), Residents::default());
        }
        if let Some(residents) = self.nodes.get_mut(&entry.node) {
            residents.keys.push(key.clone());
            if let Some(amounts) = entry.taken.amounts() {
                residents.sum.add(amounts, 1);
            }
        }
        self.pods.insert(key, entry);
    }

    fn remove(&mut self, key: &Key) {
        let Some(entry) = self.pods.remove(key) else { return };
        let Some(residents) = self.nodes.get_mut(&entry.node) else { return };
        if let Some(at) = residents.keys.iter().position(|resident| resident == key) {
            residents.keys.swap_remove(at);
        }
        if let Some(amounts) = entry.taken.amounts() {
            residents.sum.add(amounts, -1);
        }
        if residents.keys.is_empty() {
            self.nodes.remove(&entry.node);
        }
    }

    /// What the pods of a node take, but for one, in the order of their keys.
    fn others<'a>(
        &'a self,
        node: &str,
        but: &'a Key,
    ) -> impl Iterator<Item = (&'a Key, &'a T)> + use<'a, T> {
        let keys = self.nodes.get(node).into_iter().flat_map(|residents| &residents.keys);
        let mut keys: Vec<&Key> = keys.filter(|key| *key != but).collect();
        keys.sort_unstable();
        keys.into_iter().filter_map(|key| self.pods.get(key).map(|entry| (key, &entry.taken)))
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
    /// Pods that it has asked to bind, in this life.
    asked: Table<Key, ()>,
}

impl<T> Default for Shown<T> {
    fn default() -> Self {
        Self { ledger: Ledger::default(), asked: Table::new() }
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
                self.shown.entry(*by).or_default().asked.insert(pod.clone(), ());
            }
            Occurrence::Committed { by: Some(by), request, key, new, .. }
                if matches!(request, Request::Bind { .. }) && self.own_are_known =>
            {
                let Some(shown) = self.shown.get_mut(by) else { return };
                if shown.asked.remove(*key).is_some() {
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
                shown.asked.remove(key);
            }
            WatchEvent::Replaced { objects, .. } => {
                // What is not listed is gone.
                let before = std::mem::take(&mut shown.ledger);
                for object in objects {
                    let key = object.key();
                    if let Some(entry) = before.pods.get(&key) {
                        shown.ledger.put(key, entry.clone());
                    }
                    show(shown, object);
                }
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
    let own = shown.ledger.pods.get(&key).is_some_and(|entry| *entry.uid == *object.uid());
    if !(unbound && own) {
        shown.ledger.set(&key, pod, |p| !oracle::has_ended(p));
    }
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
    known: KnownToSchedulers<Arc<Amounts>>,
    nodes: NodesShown,
    strict: bool,
    specs: TakenBySpec<Arc<Amounts>>,
    /// What nodes offer, as of a revision.
    offers: Table<Name, (Revision, Arc<Amounts>)>,
    bound: Table<Name, Amounts>,
    running: Table<Name, Amounts>,
    shrunk: BTreeSet<Name>,
    starts: KubeletStarts,
}

impl NoOvercommit {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            known: KnownToSchedulers::new(plan),
            nodes: NodesShown::new(Role::Scheduler),
            strict: one_scheduler_knows_all(plan),
            specs: TakenBySpec::default(),
            offers: Table::new(),
            bound: Table::new(),
            running: Table::new(),
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
        if let Some((node, sum)) = moved(&mut self.bound, &mut self.specs, old, new, is_bound)
            && self.strict
            && !self.shrunk.contains(node)
            && let Some(why) = excess(cluster, &mut self.offers, sum, node)
        {
            found.push(format!("with {key}, pods that ask for {why} are bound to {node}"));
        }
        let runs = |pod: &Pod| oracle::phase(pod) == "Running";
        if let Some((node, sum)) = moved(&mut self.running, &mut self.specs, old, new, runs)
            && !self.shrunk.contains(node)
            && !self.starts.again.contains(&**node)
            && excess(cluster, &mut self.offers, sum, node).is_some()
        {
            // Few get here, so that it may take long to find out.
            let mut sum = sum.clone();
            for spec in done_on(cluster, node) {
                sum.add(&oracle::requests(spec), -1);
            }
            let Some(why) = excess(cluster, &mut self.offers, &sum, node) else { return };
            found.push(format!("with {key}, pods that ask for {why} run on {node}"));
        }
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

    fn asked(&mut self, by: ProcessId, key: &Key, pod: &Pod, node: &str) -> Option<String> {
        let limits = offered(&mut self.offers, self.nodes.get(by, node)?, node);
        let mut sum = self.known.shown.get(&by)?.ledger.sum_but(node, key);
        sum.add(&self.specs.of(pod.spec.as_ref()?), 1);
        let (resource, used, has) = sum.beyond(&limits)?;
        Some(format!(
            "although it knows of pods there that ask, with this one, for {used} of {resource}, \
             and the node has {has}"
        ))
    }
}

/// What a node offers, reckoned anew only when it was written since.
fn offered(
    offers: &mut Table<Name, (Revision, Arc<Amounts>)>,
    node: &Node,
    name: &str,
) -> Arc<Amounts> {
    let version = node.metadata.resource_version.as_deref();
    let revision = version.and_then(Revision::parse).unwrap_or_default();
    if let Some((_, amounts)) = offers.get(name).filter(|(at, _)| *at == revision) {
        return amounts.clone();
    }
    let amounts = Arc::new(oracle::allocatable(node));
    offers.insert(name.into(), (revision, amounts.clone()));
    amounts
}

/// What there is more of on a node than it has.
fn excess(
    cluster: &dyn Cluster,
    offers: &mut Table<Name, (Revision, Arc<Amounts>)>,
    sum: &Amounts,
    node: &Name,
) -> Option<String> {
    let object = cluster.object(&Key::cluster(Kind::Node, node))?;
    let limits = offered(offers, object.get()?, node);
    let (resource, used, has) = sum.beyond(&limits)?;
    Some(format!("{used} of {resource}, of which there are {has},"))
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

/// Follows a pod into and out of the sum of its node; returns the node with its sum when it has
/// come in.
fn moved<'a>(
    sums: &'a mut Table<Name, Amounts>,
    specs: &mut TakenBySpec<Arc<Amounts>>,
    old: Option<&Pod>,
    new: Option<&'a Pod>,
    counts: impl Fn(&Pod) -> bool,
) -> Option<(&'a Name, &'a Amounts)> {
    let before = old.filter(|p| counts(p)).and_then(|p| Some((p.node_name.as_ref()?, p)));
    let after = new.filter(|p| counts(p)).and_then(|p| Some((p.node_name.as_ref()?, p)));
    if before.map(|(node, _)| node) == after.map(|(node, _)| node) {
        return None;
    }
    let mut amounts = |pod: &Pod| pod.spec.as_ref().map(|spec| specs.of(spec)).unwrap_or_default();
    if let Some((node, pod)) = before
        && let Some(sum) = sums.get_mut(node)
    {
        sum.add(&amounts(pod), -1);
    }
    let (node, pod) = after?;
    if !sums.contains_key(node) {
        sums.insert(node.clone(), Amounts::default());
    }
    let sum = sums.get_mut(node)?;
    sum.add(&amounts(pod), 1);
    Some((node, sum))
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
