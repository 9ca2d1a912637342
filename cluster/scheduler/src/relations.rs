//! What pods want of each other: affinity and anti-affinity to pods, and spreading, parsed once
//! and held once for all pods that have it in common.
//!
//! Decisions never compare labels pod by pod: pods of one namespace with the same labels are one
//! [`Identity`], and a selector is tried on each identity once.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::sync::Arc;

use api::hash::fnv64;
use api::selector::Selector;
use api::{Kind, Pod, meta};
use k8s_openapi::api::core::v1::{PodAffinityTerm, PodSpec, TopologySpreadConstraint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::group::Group;

/// The topology key of domains that are nodes.
pub const HOSTNAME: &str = "kubernetes.io/hostname";
/// The topology key of zones.
pub const ZONE: &str = "topology.kubernetes.io/zone";

/// A value that is held once, with a number that is never given twice.
#[derive(Clone, Debug, PartialEq)]
pub struct Numbered<T> {
    /// The number.
    pub id: u64,
    value: T,
}

impl<T> Deref for Numbered<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// What selectors see of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The pod's namespace.
    pub namespace: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The group that they name.
    pub group: Option<Group>,
}

/// Labels of the namespaces that there are.
#[derive(Clone, Debug, Default)]
pub struct Namespaces {
    labels: BTreeMap<String, BTreeMap<String, String>>,
    epoch: u64,
}

impl Namespaces {
    /// Takes a namespace's labels, or that it is gone; `false` if nothing changed. One that is
    /// not known has no labels.
    pub fn set(&mut self, name: &str, labels: Option<&BTreeMap<String, String>>) -> bool {
        let before = self.labels.get(name);
        let same = before.map_or_else(BTreeMap::new, Clone::clone)
            == labels.map_or_else(BTreeMap::new, Clone::clone);
        match labels {
            Some(labels) => self.labels.insert(name.to_owned(), labels.clone()),
            None => self.labels.remove(name),
        };
        self.epoch += u64::from(!same);
        !same
    }

    /// How often labels have changed.
    pub(crate) const fn epoch(&self) -> u64 {
        self.epoch
    }
}

/// One term of affinity or anti-affinity: pods that match, and the domains that count as one
/// place.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    namespaces: BTreeSet<String>,
    /// Namespaces by their labels, besides those named.
    namespace_selector: Option<Selector>,
    selector: Selector,
    /// The label of nodes that tells their domain.
    pub key: String,
}

impl Term {
    fn parse(term: &PodAffinityTerm, own: &str) -> Self {
        let mut namespaces: BTreeSet<String> = term.namespaces.iter().flatten().cloned().collect();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.insert(own.to_owned());
        }
        Self {
            namespaces,
            namespace_selector: term.namespace_selector.as_ref().map(|s| selector(Some(s))),
            selector: selector(term.label_selector.as_ref()),
            key: term.topology_key.clone(),
        }
    }

    /// Whether the term means such a pod.
    pub fn matches(&self, pod: &Identity, namespaces: &Namespaces) -> bool {
        let by_labels = || {
            let labels = namespaces.labels.get(&pod.namespace);
            self.namespace_selector.as_ref().is_some_and(|s| s.matches(labels))
        };
        (self.namespaces.contains(&pod.namespace) || by_labels())
            && self.selector.matches(Some(&pod.labels))
    }

    /// Whether it depends on the labels of namespaces.
    pub fn by_namespace_labels(&self) -> bool {
        self.namespace_selector.as_ref().is_some_and(|s| !s.is_everything())
    }

    /// Under which tags ([`Identity::tags`]) pods that match are found; `None` if they may be
    /// found under any.
    pub(crate) fn handles(&self) -> Option<Vec<u64>> {
        if self.namespace_selector.is_some() {
            return None;
        }
        Some(self.namespaces.iter().map(|ns| handle(ns, &self.selector)).collect())
    }

    fn hash(&self, bytes: &mut Vec<u8>) {
        for text in self.namespaces.iter().chain([&self.key, &self.selector.to_text()]) {
            bytes.extend(text.as_bytes());
            bytes.push(0);
        }
    }
}

/// The tag under which all pods of the namespace that match are found.
pub(crate) fn handle(namespace: &str, selector: &Selector) -> u64 {
    let pair = selector.needed_pair();
    pair.map_or_else(|| namespace_tag(namespace), |(key, value)| tag(namespace, key, value))
}

fn namespace_tag(namespace: &str) -> u64 {
    fnv64(namespace.as_bytes())
}

fn tag(namespace: &str, key: &str, value: &str) -> u64 {
    fnv64(format!("{namespace}/{key}={value}").as_bytes())
}

impl Identity {
    /// Where it is found by what selectors may ask for; others may have the same tags.
    pub(crate) fn tags(&self) -> impl Iterator<Item = u64> {
        let pairs = self.labels.iter().map(|(key, value)| tag(&self.namespace, key, value));
        pairs.chain([namespace_tag(&self.namespace)])
    }
}

/// Equal identities have equal hashes.
fn hash_of(namespace: &str, labels: &BTreeMap<String, String>) -> u64 {
    let mut bytes = Vec::with_capacity(128);
    bytes.extend(namespace.as_bytes());
    for (key, value) in labels {
        for text in [key, value] {
            bytes.push(0);
            bytes.extend(text.as_bytes());
        }
    }
    fnv64(&bytes)
}

/// The terms of a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Terms {
    /// All must be met.
    pub affinity: Vec<Term>,
    /// None may be met, by whichever of both pods came first.
    pub anti_affinity: Vec<Term>,
    /// Preferred terms with their weights; negative ones are of anti-affinity.
    pub preferred: Vec<(i64, Term)>,
}

impl Terms {
    fn of(spec: &PodSpec, own: &str) -> Option<Self> {
        let affinity = spec.affinity.as_ref()?;
        let parse = |term: &PodAffinityTerm| Term::parse(term, own);
        let mut terms = Self::default();
        if let Some(wanted) = &affinity.pod_affinity {
            let required = wanted.required_during_scheduling_ignored_during_execution.iter();
            terms.affinity.extend(required.flatten().map(parse));
            let preferred = wanted.preferred_during_scheduling_ignored_during_execution.iter();
            terms.preferred.extend(
                preferred.flatten().map(|t| (i64::from(t.weight), parse(&t.pod_affinity_term))),
            );
        }
        if let Some(unwanted) = &affinity.pod_anti_affinity {
            let required = unwanted.required_during_scheduling_ignored_during_execution.iter();
            terms.anti_affinity.extend(required.flatten().map(parse));
            let preferred = unwanted.preferred_during_scheduling_ignored_during_execution.iter();
            terms.preferred.extend(
                preferred.flatten().map(|t| (-i64::from(t.weight), parse(&t.pod_affinity_term))),
            );
        }
        let any = terms.all().next().is_some();
        any.then_some(terms)
    }

    /// All terms.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Term> {
        let preferred = self.preferred.iter().map(|(_, term)| term);
        self.affinity.iter().chain(&self.anti_affinity).chain(preferred)
    }

    fn hash(&self) -> u64 {
        let mut bytes = Vec::with_capacity(256);
        for term in self.all() {
            term.hash(&mut bytes);
        }
        fnv64(&bytes)
    }
}

/// One spread constraint.
#[derive(Clone, Debug, PartialEq)]
pub struct Constraint {
    /// By how much domains may differ.
    pub max_skew: i64,
    /// The label of nodes that tells their domain.
    pub key: String,
    /// Whether nodes that break it are rejected (`DoNotSchedule`), not just less liked.
    pub hard: bool,
    /// With fewer domains the emptiest one counts as empty.
    pub min_domains: i64,
    /// Whether only nodes count that the pod's node affinity and selector allow.
    pub honors_affinity: bool,
    /// Whether only nodes count whose taints the pod tolerates.
    pub honors_taints: bool,
    /// Which pods of the pod's namespace count; for a default constraint it is not known yet.
    pub selector: Selector,
}

impl Constraint {
    /// A constraint with the defaults of what is seldom given.
    pub fn new(key: &str, max_skew: i64, hard: bool) -> Self {
        Self {
            max_skew,
            key: key.to_owned(),
            hard,
            min_domains: 1,
            honors_affinity: true,
            honors_taints: false,
            selector: Selector::nothing(),
        }
    }

    /// The constraints that pods without any have where the configuration names no others.
    ///
    /// Source: kubernetes 1.33, `podtopologyspread/plugin.go`.
    pub fn of_system() -> Vec<Self> {
        vec![Self::new(HOSTNAME, 3, false), Self::new(ZONE, 5, false)]
    }

    /// Parses a constraint of a pod that has these labels.
    pub fn parse(constraint: &TopologySpreadConstraint, labels: &BTreeMap<String, String>) -> Self {
        let mut wanted = selector(constraint.label_selector.as_ref());
        // A selector that matches nothing does not come to match something by its keys.
        if constraint.label_selector.is_some() {
            for key in constraint.match_label_keys.iter().flatten() {
                if let Some(value) = labels.get(key) {
                    wanted.require(key, "In", std::slice::from_ref(value)).expect("it is known");
                }
            }
        }
        let honors = |policy: Option<&String>, default: &str| {
            policy.map_or(default, String::as_str) == "Honor"
        };
        Self {
            max_skew: i64::from(constraint.max_skew),
            key: constraint.topology_key.clone(),
            hard: constraint.when_unsatisfiable == "DoNotSchedule",
            min_domains: i64::from(constraint.min_domains.unwrap_or(1)),
            honors_affinity: honors(constraint.node_affinity_policy.as_ref(), "Honor"),
            honors_taints: honors(constraint.node_taints_policy.as_ref(), "Ignore"),
            selector: wanted,
        }
    }

    /// Whether such a pod counts, for a pod of `namespace`: by the constraint of an empty selector
    /// none does.
    pub fn counts(&self, pod: &Identity, namespace: &str) -> bool {
        pod.namespace == namespace
            && !self.selector.is_everything()
            && self.selector.matches(Some(&pod.labels))
    }

    fn hash(&self, bytes: &mut Vec<u8>) {
        for text in [&self.key, &self.selector.to_text()] {
            bytes.extend(text.as_bytes());
            bytes.push(0);
        }
        bytes.extend(self.max_skew.to_le_bytes());
        bytes.push(u8::from(self.hard));
    }
}

fn selector(selector: Option<&LabelSelector>) -> Selector {
    // What cannot be parsed matches nothing; validation refuses it.
    selector
        .and_then(|selector| Selector::of_label_selector(selector).ok())
        .unwrap_or_else(Selector::nothing)
}

/// The controller of a pod, if it is one by whose selector pods without constraints spread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
}

impl Owner {
    fn of(pod: &Pod) -> Option<Self> {
        let owner = meta::controller_of(&pod.metadata)?;
        let kind = match (owner.api_version.as_str(), owner.kind.as_str()) {
            ("v1", "ReplicationController") => Kind::ReplicationController,
            ("apps/v1", "ReplicaSet") => Kind::ReplicaSet,
            ("apps/v1", "StatefulSet") => Kind::StatefulSet,
            _ => return None,
        };
        Some(Self { kind, name: owner.name.clone() })
    }
}

/// All that decides how a pod gets on with others.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kin {
    /// What others' selectors see.
    pub identity: Arc<Numbered<Identity>>,
    /// Its terms, if it has any.
    pub terms: Option<Arc<Numbered<Terms>>>,
    /// Its spread constraints.
    pub constraints: Vec<Constraint>,
    /// By whose selector it spreads, if it has no constraints.
    pub owner: Option<Owner>,
}

impl Kin {
    /// Whether it matches all of its own required terms of affinity.
    pub fn likes_itself(&self, namespaces: &Namespaces) -> bool {
        let terms = self.terms.iter().flat_map(|terms| &terms.affinity);
        terms.into_iter().all(|term| term.matches(&self.identity, namespaces))
    }

    fn hash(&self) -> u64 {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend(self.identity.id.to_le_bytes());
        bytes.extend(self.terms.as_ref().map_or(u64::MAX, |terms| terms.id).to_le_bytes());
        for constraint in &self.constraints {
            constraint.hash(&mut bytes);
        }
        if let Some(owner) = &self.owner {
            bytes.extend(owner.name.as_bytes());
        }
        fnv64(&bytes)
    }
}

impl<T: Default> Default for Numbered<T> {
    fn default() -> Self {
        Self { id: u64::MAX, value: T::default() }
    }
}

/// What others see of a pod that has a node, and what it wants of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Presence {
    /// What others' selectors see.
    pub identity: Arc<Numbered<Identity>>,
    /// Its terms, if it has any.
    pub terms: Option<Arc<Numbered<Terms>>>,
    /// Whether it is being deleted: it no longer counts where pods are spread.
    pub leaving: bool,
}

impl Presence {
    /// That of a pod that has just been given a node.
    pub fn of(kin: &Kin) -> Self {
        Self { identity: Arc::clone(&kin.identity), terms: kin.terms.clone(), leaving: false }
    }
}

/// Holds each value once, for as long as something uses it.
#[derive(Clone, Debug)]
struct Interner<T> {
    /// By hash.
    values: BTreeMap<u64, Vec<Arc<Numbered<T>>>>,
    count: usize,
    next: u64,
    /// So many values may there be before unused ones are looked for.
    sweep_at: usize,
}

/// Unused values are not looked for below this number.
const SWEEP_MIN: usize = 1024;

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self { values: BTreeMap::new(), count: 0, next: 0, sweep_at: SWEEP_MIN }
    }
}

impl<T> Interner<T> {
    /// The value that `is_same` recognizes among those of the hash.
    fn find(&self, hash: u64, is_same: impl Fn(&T) -> bool) -> Option<Arc<Numbered<T>>> {
        self.values.get(&hash)?.iter().find(|known| is_same(&known.value)).cloned()
    }

    /// Holds a value that is not there.
    fn insert(&mut self, hash: u64, value: T) -> Arc<Numbered<T>> {
        if self.count >= self.sweep_at {
            self.values.retain(|_, alike| {
                alike.retain(|value| Arc::strong_count(value) > 1);
                !alike.is_empty()
            });
            self.count = self.values.values().map(Vec::len).sum();
            self.sweep_at = SWEEP_MIN.max(2 * self.count);
        }
        let value = Arc::new(Numbered { id: self.next, value });
        self.next += 1;
        self.count += 1;
        self.values.entry(hash).or_default().push(Arc::clone(&value));
        value
    }
}

/// What others see of a pod, and its terms.
type Seen = (Arc<Numbered<Identity>>, Option<Arc<Numbered<Terms>>>);

/// Holds what pods have in common in how they get on with others.
#[derive(Clone, Debug, Default)]
pub struct Relations {
    identities: Interner<Identity>,
    terms: Interner<Terms>,
    kins: Interner<Kin>,
}

impl Relations {
    /// How a pod that needs a node gets on with others.
    pub fn kin(&mut self, pod: &Pod, spec: &PodSpec) -> Arc<Numbered<Kin>> {
        let (identity, terms) = self.seen(pod, spec);
        let constraints = spec.topology_spread_constraints.iter().flatten();
        let kin = Kin {
            constraints: constraints.map(|c| Constraint::parse(c, &identity.labels)).collect(),
            owner: Owner::of(pod),
            identity,
            terms,
        };
        let hash = kin.hash();
        // Both have been shared: what is equal is the same.
        let is_same = |known: &Kin| {
            let terms = |kin: &Kin| kin.terms.as_ref().map(|terms| terms.id);
            known.identity.id == kin.identity.id
                && terms(known) == terms(&kin)
                && known.constraints == kin.constraints
                && known.owner == kin.owner
        };
        if let Some(known) = self.kins.find(hash, is_same) {
            return known;
        }
        self.kins.insert(hash, kin)
    }

    /// What others see of a pod that has a node.
    pub fn presence(&mut self, pod: &Pod, spec: &PodSpec) -> Presence {
        let (identity, terms) = self.seen(pod, spec);
        Presence { identity, terms, leaving: meta::is_terminating(&pod.metadata) }
    }

    fn seen(&mut self, pod: &Pod, spec: &PodSpec) -> Seen {
        let none = BTreeMap::new();
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let labels = pod.metadata.labels.as_ref().unwrap_or(&none);
        let hash = hash_of(namespace, labels);
        let is_same = |known: &Identity| known.namespace == namespace && known.labels == *labels;
        let identity = self.identities.find(hash, is_same).unwrap_or_else(|| {
            let group = Group::of(namespace, labels);
            let (namespace, labels) = (namespace.to_owned(), labels.clone());
            let identity = Identity { namespace, labels, group };
            self.identities.insert(hash, identity)
        });
        let terms = Terms::of(spec, namespace).map(|terms| {
            let hash = terms.hash();
            let known = self.terms.find(hash, |known| *known == terms);
            known.unwrap_or_else(|| self.terms.insert(hash, terms))
        });
        (identity, terms)
    }
}
