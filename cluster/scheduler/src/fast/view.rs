//! [`View`]: how the pods that are there bear on pods of one kin, kept from decision to decision.

use std::collections::BTreeMap;

use super::lens::{Column, Lens, LensOfHard, LensOfSoft};
use crate::census::{Census, Domains, GONE, Heads, KeyId, LACKING, Move, Sources};
use crate::framework::Relating;
use crate::pod_info::PodClass;
use crate::relations::{Constraint, HOSTNAME, Identity, Kin, Term, Terms};
use crate::snapshot::Snapshot;
use crate::survey::is_eligible;

/// Numbers of pods, or sums of their weights, by domain.
#[derive(Clone, Debug)]
enum Counts {
    /// By domain, as long as few have any: without those that have none.
    Few(BTreeMap<u32, i64>),
    /// By domain.
    Many {
        by_domain: Vec<i64>,
        /// How many domains have any.
        present: usize,
    },
}

/// How many domains may have any before all are held: so many, and one in so many.
const FEW: usize = 32;
const FEW_IN: usize = 16;

impl Counts {
    fn add(&mut self, domain: u32, by: i64, domains: usize) {
        match self {
            Self::Few(few) => {
                let sum = few.entry(domain).or_default();
                *sum += by;
                if *sum == 0 {
                    few.remove(&domain);
                } else if few.len() > FEW + domains / FEW_IN {
                    let most = few.last_key_value().map_or(0, |(most, _)| *most as usize + 1);
                    let mut by_domain = vec![0; domains.max(most)];
                    for (domain, sum) in &*few {
                        by_domain[*domain as usize] = *sum;
                    }
                    *self = Self::Many { by_domain, present: few.len() };
                }
            }
            Self::Many { by_domain, present } => {
                let at = domain as usize;
                if by_domain.len() <= at {
                    by_domain.resize(at + 1, 0);
                }
                let before = by_domain[at];
                by_domain[at] += by;
                *present += usize::from(before == 0);
                *present -= usize::from(by_domain[at] == 0);
            }
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Few(few) => few.is_empty(),
            Self::Many { present, .. } => *present == 0,
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Few(few) => few.len(),
            Self::Many { by_domain, .. } => by_domain.len(),
        }
    }
}

/// What is one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The nodes of one domain.
    Domain(KeyId),
    /// As before, and the nodes that lack the key are those of the empty value.
    DomainOrNone(KeyId),
    /// Each node.
    Node,
}

/// One of the countings of a view.
#[derive(Clone, Debug)]
struct Tally {
    place: Place,
    /// Pods that are being deleted do not count.
    staying: bool,
    /// By node, whether pods there count; all do, if there is none.
    eligible: Option<Box<[bool]>>,
    counts: Counts,
    /// The slot of its counts while a decision is taken, if they are few.
    loaded: Option<usize>,
}

impl Tally {
    const fn new(place: Place, staying: bool, eligible: Option<Box<[bool]>>) -> Self {
        Self { place, staying, eligible, counts: Counts::Few(BTreeMap::new()), loaded: None }
    }

    fn add(&mut self, domains: &Domains, node: u32, all: i64, staying: i64) {
        let by = if self.staying { staying } else { all };
        let counts = |eligible: &[bool]| eligible.get(node as usize).copied().unwrap_or(false);
        if by == 0 || !self.eligible.as_deref().is_none_or(counts) {
            return;
        }
        let of = |key| domains.of_nodes(key).get(node as usize).copied().unwrap_or(GONE);
        let (domain, most) = match self.place {
            Place::Node => (node, node as usize + 1),
            Place::Domain(key) => match of(key) {
                GONE | LACKING => return,
                domain => (domain, domains.sizes(key).len()),
            },
            Place::DomainOrNone(key) => match of(key) {
                GONE => return,
                LACKING => (0, domains.sizes(key).len()),
                domain => (domain, domains.sizes(key).len()),
            },
        };
        self.counts.add(domain, by, most);
    }
}

/// A hard spread constraint.
#[derive(Clone, Debug)]
struct Hard {
    key: KeyId,
    tally: usize,
    own: i64,
    constraint: Constraint,
    /// How many nodes of each domain it looks at; all of the domain, if there is none.
    sizes: Option<Box<[u32]>>,
}

/// A soft spread constraint.
#[derive(Clone, Debug)]
struct Soft {
    key: KeyId,
    tally: usize,
    each_node: bool,
    max_skew: i64,
    constraint: Constraint,
}

/// What a view depends on besides pods.
#[derive(Clone, Debug, PartialEq)]
struct Stamps {
    nodes: u64,
    taints: u64,
    namespaces: u64,
    sources: Option<Sources>,
}

/// How the pods that are there bear on pods of one kin and class.
#[derive(Clone, Debug)]
pub(super) struct View {
    stamps: Stamps,
    /// The moves that this has caught up with.
    seen: u64,
    tallies: Vec<Tally>,
    /// To which tallies pods of a crowd count, and how much each.
    by_crowd: BTreeMap<u32, Vec<(usize, i64)>>,
    by_holder: BTreeMap<u32, Vec<(usize, i64)>>,
    constraints: Vec<Constraint>,
    hard: Vec<Hard>,
    soft: Vec<Soft>,
    /// Whether nodes that lack the key of a soft constraint are ignored.
    all_keys: bool,
    /// Key and tally of each required term of affinity.
    affinity: Vec<(KeyId, usize)>,
    likes_itself: bool,
    disliked: BTreeMap<KeyId, usize>,
    disliking: BTreeMap<KeyId, usize>,
    preferred: BTreeMap<KeyId, usize>,
    /// Whether the labels of namespaces matter, and taints.
    by_namespace_labels: bool,
    by_taints: bool,
    /// Whether there are more topology keys than are numbered: it is of no use then.
    pub(super) overflown: bool,
}

/// What a view is of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject<'a> {
    pub(super) relating: &'a Relating,
    pub(super) kin: &'a Kin,
    /// `None` if only refusals are asked for, of a pod without hard constraints.
    pub(super) class: Option<&'a PodClass>,
}

impl View {
    pub(super) fn new(subject: Subject, snapshot: &Snapshot) -> Self {
        let census = snapshot.census();
        let mut constraints = census.constraints(subject.kin, subject.relating.defaults());
        constraints.retain(|constraint| subject.relating.honors(constraint));
        let spread = subject.relating.spread.as_ref();
        let mut view = Self {
            stamps: stamps(subject, snapshot),
            seen: census.moves().count(),
            tallies: Vec::new(),
            by_crowd: BTreeMap::new(),
            by_holder: BTreeMap::new(),
            hard: Vec::new(),
            soft: Vec::new(),
            all_keys: !subject.kin.constraints.is_empty()
                || spread.is_none_or(|spread| !spread.lacking_allowed),
            affinity: Vec::new(),
            likes_itself: subject.kin.likes_itself(&census.namespaces),
            disliked: BTreeMap::new(),
            disliking: BTreeMap::new(),
            preferred: BTreeMap::new(),
            by_namespace_labels: false,
            by_taints: constraints.iter().any(|constraint| constraint.honors_taints),
            constraints,
            overflown: false,
        };
        view.spread(subject, snapshot);
        if subject.relating.affinity.is_some() {
            let required = subject.kin.terms.iter().flat_map(|terms| &terms.affinity);
            for term in required.filter(|_| subject.relating.requires()) {
                let Some(key) = view.key(&census.domains, &term.key) else { break };
                let tally = view.tally(Tally::new(Place::Domain(key), false, None));
                view.affinity.push((key, tally));
            }
            let terms = subject.kin.terms.iter().flat_map(|terms| terms.all());
            view.by_namespace_labels = terms.into_iter().any(|term| term.by_namespace_labels());
        }
        view.find(subject, census);
        view
    }

    /// How much it holds.
    pub(super) fn len(&self) -> usize {
        self.tallies.iter().map(|tally| tally.counts.len()).sum::<usize>() + 16
    }

    /// Whether no other pod makes a difference.
    pub(super) const fn is_empty(&self) -> bool {
        self.tallies.is_empty() && self.hard.is_empty() && self.soft.is_empty()
    }

    /// Whether other pods may keep the pod from a node.
    pub(super) fn refuses(&self) -> bool {
        !self.hard.is_empty()
            || !self.affinity.is_empty()
            || !self.disliked.is_empty()
            || !self.disliking.is_empty()
    }

    /// Catches up with the snapshot, which must be settled.
    pub(super) fn follow(&mut self, subject: Subject, snapshot: &Snapshot) {
        let census = snapshot.census();
        let stamps = stamps(subject, snapshot);
        let moves = census.moves().since(self.seen);
        let Some(moves) = moves.filter(|_| self.holds(&stamps)) else {
            *self = Self::new(subject, snapshot);
            return;
        };
        self.stamps = stamps;
        self.seen = census.moves().count();
        for moved in moves {
            if moved.new_crowd {
                self.by_crowd.remove(&moved.crowd);
                if let Some(crowd) = census.crowds().get(moved.crowd) {
                    self.meet_crowd(subject, census, moved.crowd, &crowd.of);
                }
            }
            if moved.new_holder {
                self.by_holder.remove(&moved.holder);
                if let Some(holder) = census.holders().get(moved.holder) {
                    self.meet_holder(subject, census, moved.holder, &holder.of);
                }
            }
            self.apply(&census.domains, *moved);
        }
    }

    /// Puts the counts that are few where a decision finds them fast.
    pub(super) fn load(&mut self, slots: &mut Vec<Vec<i64>>) {
        let mut used = 0;
        for tally in &mut self.tallies {
            let Counts::Few(few) = &tally.counts else {
                tally.loaded = None;
                continue;
            };
            if slots.len() == used {
                slots.push(Vec::new());
            }
            let slot = &mut slots[used];
            if let Some((most, _)) = few.last_key_value()
                && slot.len() <= *most as usize
            {
                slot.resize(*most as usize + 1, 0);
            }
            for (domain, sum) in few {
                slot[*domain as usize] = *sum;
            }
            tally.loaded = Some(used);
            used += 1;
        }
    }

    /// Undoes [`Self::load`].
    pub(super) fn unload(&self, slots: &mut [Vec<i64>]) {
        for tally in &self.tallies {
            if let (Counts::Few(few), Some(slot)) = (&tally.counts, tally.loaded) {
                for domain in few.keys() {
                    slots[slot][*domain as usize] = 0;
                }
            }
        }
    }

    /// What a decision looks through; [`Self::load`] must have gone before.
    pub(super) fn lens<'a>(&'a self, snapshot: &'a Snapshot, slots: &'a [Vec<i64>]) -> Lens<'a> {
        let domains = &snapshot.census().domains;
        let column = |key: KeyId, tally: usize| Column {
            domains: domains.of_nodes(key),
            counts: self.tallies[tally].column(slots),
        };
        let columns = |of: &BTreeMap<KeyId, usize>| {
            let some = of.iter().filter(|(_, tally)| !self.tallies[**tally].counts.is_empty());
            some.map(|(key, tally)| column(*key, *tally)).collect()
        };
        let hard = |hard: &Hard| {
            let column = column(hard.key, hard.tally);
            let sizes = hard.sizes.as_deref().unwrap_or_else(|| domains.sizes(hard.key));
            let most = hard.constraint.max_skew + hard.least(sizes, column.counts) - hard.own;
            LensOfHard { column, most }
        };
        let soft = |soft: &Soft| LensOfSoft {
            column: column(soft.key, soft.tally),
            each_node: soft.each_node,
            max_skew: soft.max_skew,
            domains: domains.sizes(soft.key).len(),
        };
        let nobody = self.affinity.iter().all(|(_, tally)| self.tallies[*tally].counts.is_empty());
        Lens {
            hard: self.hard.iter().map(hard).collect(),
            affinity: self.affinity.iter().map(|(key, tally)| column(*key, *tally)).collect(),
            first_of_series: nobody && self.likes_itself,
            disliked: columns(&self.disliked),
            disliking: columns(&self.disliking),
            soft: self.soft.iter().map(soft).collect(),
            all_keys: self.all_keys,
            preferred: columns(&self.preferred),
        }
    }

    /// Whether what it depends on besides pods is as it was.
    fn holds(&self, now: &Stamps) -> bool {
        let then = &self.stamps;
        (self.is_empty() || then.nodes == now.nodes)
            && (!self.by_taints || then.taints == now.taints)
            && (!self.by_namespace_labels || then.namespaces == now.namespaces)
            && then.sources == now.sources
    }

    fn key(&mut self, domains: &Domains, key: &str) -> Option<KeyId> {
        let id = domains.id(key);
        self.overflown |= id.is_none();
        id
    }

    fn tally(&mut self, tally: Tally) -> usize {
        self.tallies.push(tally);
        self.tallies.len() - 1
    }

    /// Takes the spread constraints.
    fn spread(&mut self, subject: Subject, snapshot: &Snapshot) {
        let domains = &snapshot.census().domains;
        let scored = subject.class.is_some()
            && subject.relating.spread.as_ref().is_some_and(|spread| spread.weight > 0);
        for hard in [true, false] {
            let some = self.constraints.iter().filter(|c| c.hard == hard).cloned();
            let some: Vec<Constraint> = some.filter(|_| hard || scored).collect();
            let keys: Option<Vec<KeyId>> = some.iter().map(|c| self.key(domains, &c.key)).collect();
            let Some(keys) = keys else { return };
            for (constraint, key) in some.iter().zip(&keys) {
                let Some(class) = subject.class else {
                    self.overflown = true;
                    return;
                };
                let needed = if hard || self.all_keys { keys.as_slice() } else { &[] };
                let eligible = eligible(constraint, class, snapshot, needed);
                if hard {
                    self.take_hard(subject, domains, constraint, *key, eligible);
                } else {
                    self.take_soft(constraint, *key, eligible);
                }
            }
        }
    }

    fn take_hard(
        &mut self,
        subject: Subject,
        domains: &Domains,
        constraint: &Constraint,
        key: KeyId,
        eligible: Option<Box<[bool]>>,
    ) {
        let sizes = eligible.as_ref().map(|eligible| {
            let mut sizes = vec![0; domains.sizes(key).len()];
            for (domain, looked_at) in domains.of_nodes(key).iter().zip(eligible) {
                if *looked_at && *domain < LACKING {
                    sizes[*domain as usize] += 1;
                }
            }
            sizes.into()
        });
        let own = constraint.selector.matches(Some(&subject.kin.identity.labels));
        let tally = self.tally(Tally::new(Place::Domain(key), true, eligible));
        let constraint = constraint.clone();
        self.hard.push(Hard { key, tally, own: own.into(), constraint, sizes });
    }

    fn take_soft(&mut self, constraint: &Constraint, key: KeyId, eligible: Option<Box<[bool]>>) {
        let each_node = constraint.key == HOSTNAME;
        let (place, eligible) = if each_node {
            (Place::Node, None)
        } else if self.all_keys {
            (Place::Domain(key), eligible)
        } else {
            (Place::DomainOrNone(key), eligible)
        };
        let tally = self.tally(Tally::new(place, true, eligible));
        let (constraint, max_skew) = (constraint.clone(), constraint.max_skew);
        self.soft.push(Soft { key, tally, each_node, max_skew, constraint });
    }

    /// Looks for all that there is.
    fn find(&mut self, subject: Subject, census: &Census) {
        let terms = subject.kin.terms.iter().flat_map(|terms| terms.all());
        let terms = terms.into_iter().filter(|_| subject.relating.affinity.is_some());
        if let Some(mut crowds) = census.crowds_of_terms(terms) {
            let namespace = &subject.kin.identity.namespace;
            crowds.extend(census.crowds_of_constraints(self.constraints.iter(), namespace));
            for number in crowds {
                let crowd = census.crowds().get(number).expect("it was just found");
                self.meet_crowd(subject, census, number, &crowd.of);
                self.fill(census, self.by_crowd.get(&number).cloned(), &crowd.on);
            }
        } else {
            for (number, crowd) in census.crowds().iter() {
                self.meet_crowd(subject, census, number, &crowd.of);
                self.fill(census, self.by_crowd.get(&number).cloned(), &crowd.on);
            }
        }
        for number in census.holders_for(&subject.kin.identity) {
            let holder = census.holders().get(number).expect("it was just found");
            self.meet_holder(subject, census, number, &holder.of);
            self.fill(census, self.by_holder.get(&number).cloned(), &holder.on);
        }
    }

    fn fill(
        &mut self,
        census: &Census,
        targets: Option<Vec<(usize, i64)>>,
        on: &BTreeMap<u32, Heads>,
    ) {
        for (tally, weight) in targets.into_iter().flatten() {
            for (node, heads) in on {
                let (all, staying) = (weight * heads.all(), weight * i64::from(heads.staying));
                self.tallies[tally].add(&census.domains, *node, all, staying);
            }
        }
    }

    fn apply(&mut self, domains: &Domains, moved: Move) {
        let of_crowd = self.by_crowd.get(&moved.crowd).into_iter().flatten();
        let of_holder = self.by_holder.get(&moved.holder).into_iter().flatten();
        for (tally, weight) in of_crowd.chain(of_holder) {
            let all = weight * i64::from(moved.by);
            let staying = if moved.leaving { 0 } else { all };
            self.tallies[*tally].add(domains, moved.node, all, staying);
        }
    }

    /// Finds out to which tallies pods of a crowd count.
    fn meet_crowd(&mut self, subject: Subject, census: &Census, number: u32, pod: &Identity) {
        let mut targets = Vec::new();
        let namespace = &subject.kin.identity.namespace;
        let hard = self.hard.iter().map(|hard| (&hard.constraint, hard.tally));
        let soft = self.soft.iter().map(|soft| (&soft.constraint, soft.tally));
        let counting = hard.chain(soft).filter(|(c, _)| c.counts(pod, namespace));
        targets.extend(counting.map(|(_, tally)| (tally, 1)));
        if let (Some(terms), Some(attraction)) = (&subject.kin.terms, &subject.relating.affinity) {
            let matches = |term: &Term| term.matches(pod, &census.namespaces);
            if attraction.filters && terms.affinity.iter().all(matches) {
                targets.extend(self.affinity.iter().map(|(_, tally)| (*tally, 1)));
            }
            let unwanted = terms.anti_affinity.iter().filter(|_| attraction.filters);
            for term in unwanted.filter(|term| matches(term)) {
                targets.extend(self.tally_of(census, &term.key, Role::Disliked).map(|t| (t, 1)));
            }
            if attraction.weight > 0 && subject.class.is_some() {
                for (weight, term) in terms.preferred.iter().filter(|(_, term)| matches(term)) {
                    let tally = self.tally_of(census, &term.key, Role::Preferred);
                    targets.extend(tally.map(|tally| (tally, *weight)));
                }
            }
        }
        if !targets.is_empty() {
            self.by_crowd.insert(number, targets);
        }
    }

    /// Finds out to which tallies pods with such terms count.
    fn meet_holder(&mut self, subject: Subject, census: &Census, number: u32, terms: &Terms) {
        let Some(attraction) = &subject.relating.affinity else { return };
        let (kin, namespaces) = (subject.kin, &census.namespaces);
        let matches = |term: &Term| term.matches(&kin.identity, namespaces);
        self.by_namespace_labels |= terms.all().any(Term::by_namespace_labels);
        let mut targets = Vec::new();
        let unwanted = terms.anti_affinity.iter().filter(|_| attraction.filters);
        for term in unwanted.filter(|term| matches(term)) {
            targets.extend(self.tally_of(census, &term.key, Role::Disliking).map(|t| (t, 1)));
        }
        let prefers = kin.terms.as_ref().is_some_and(|terms| !terms.preferred.is_empty());
        let counts = attraction.weight > 0 && (prefers || !attraction.ignores_existing);
        if counts && subject.class.is_some() {
            let hard = terms.affinity.iter().map(|term| (attraction.hard_weight, term));
            let soft = terms.preferred.iter().map(|(weight, term)| (*weight, term));
            for (weight, term) in hard.chain(soft).filter(|(w, term)| *w != 0 && matches(term)) {
                let tally = self.tally_of(census, &term.key, Role::Preferred);
                targets.extend(tally.map(|tally| (tally, weight)));
            }
        }
        if !targets.is_empty() {
            self.by_holder.insert(number, targets);
        }
    }

    fn tally_of(&mut self, census: &Census, key: &str, role: Role) -> Option<usize> {
        let key = self.key(&census.domains, key)?;
        let new = self.tallies.len();
        let of = match role {
            Role::Disliked => &mut self.disliked,
            Role::Disliking => &mut self.disliking,
            Role::Preferred => &mut self.preferred,
        };
        let tally = *of.entry(key).or_insert(new);
        if tally == new {
            self.tally(Tally::new(Place::Domain(key), false, None));
        }
        Some(tally)
    }
}

/// What pods in a domain mean.
#[derive(Clone, Copy)]
enum Role {
    Disliked,
    Disliking,
    Preferred,
}

impl Hard {
    /// How many pods the emptiest domain has; an empty one counts as long as there are too few.
    fn least(&self, sizes: &[u32], counts: &[i64]) -> i64 {
        let (mut used, mut least) = (0, i64::MAX);
        for (domain, size) in sizes.iter().enumerate() {
            if *size > 0 {
                used += 1;
                least = least.min(counts.get(domain).copied().unwrap_or(0));
            }
        }
        if used > 0 && used >= self.constraint.min_domains { least } else { 0 }
    }
}

impl Tally {
    fn column<'a>(&'a self, slots: &'a [Vec<i64>]) -> &'a [i64] {
        match (&self.counts, self.loaded) {
            (Counts::Many { by_domain, .. }, _) => by_domain,
            (Counts::Few(_), Some(slot)) => &slots[slot],
            (Counts::Few(_), None) => unreachable!("counts are loaded for a decision"),
        }
    }
}

fn stamps(subject: Subject, snapshot: &Snapshot) -> Stamps {
    let census = snapshot.census();
    let (nodes, taints) = census.domains.epochs();
    let by_default = subject.kin.constraints.is_empty() && !subject.relating.defaults().is_empty();
    Stamps {
        nodes,
        taints,
        namespaces: census.namespaces.epoch(),
        sources: by_default.then(|| census.selectors.sources(subject.kin)),
    }
}

/// Which nodes a constraint looks at that needs them to have these keys; `None` if it looks at
/// all that have its own.
fn eligible(
    constraint: &Constraint,
    class: &PodClass,
    snapshot: &Snapshot,
    needed: &[KeyId],
) -> Option<Box<[bool]>> {
    let everywhere = class.node_selector.is_everything() && class.node_required.is_none();
    if needed.len() < 2 && !constraint.honors_taints && (everywhere || !constraint.honors_affinity)
    {
        return None;
    }
    let domains = &snapshot.census().domains;
    let has = |node: usize, key: &KeyId| {
        domains.of_nodes(*key).get(node).is_some_and(|domain| *domain < LACKING)
    };
    let looks_at = |node: usize| {
        let row = snapshot.row(u32::try_from(node).expect("fewer than 2^31 nodes"));
        row.known && needed.iter().all(|key| has(node, key)) && is_eligible(constraint, class, row)
    };
    Some((0..snapshot.rows()).map(looks_at).collect())
}
