//! How many nodes may be given up at a time: a fault that takes many nodes is more likely one of
//! the network than of the nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use api::{Key, Kind, Object, Time, meta};
use k8s_openapi::api::core::v1::Node;
use machine::{Cache, Delta, Index};

use super::{condition, eviction_taint};

const REGION: &str = "topology.kubernetes.io/region";
const ZONE: &str = "topology.kubernetes.io/zone";
const EXCLUDED: &str = "node.kubernetes.io/exclude-disruption";

/// One node in ten seconds.
const SPACING: Duration = Duration::from_secs(10);

/// One node in a hundred seconds, when most of a large zone is silent.
const SPACING_DISRUPTED: Duration = Duration::from_secs(100);

/// So long after a node is lost everybody has heard of it; stamps have whole seconds.
const KNOWN_AFTER: Duration = Duration::from_secs(2);

/// Up to this size, a disrupted zone evicts nothing.
const LARGE_ZONE: usize = 50;

/// Whose turn it is in a zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// The pods of this node may be driven away now.
    Of(Arc<Key>),
    /// Nobody's yet; ask again after that time.
    Later(Duration),
    /// Nobody's, as long as so many nodes are silent or none waits: the zone is looked at again
    /// when that changes.
    Nobody,
}

/// The key that all nodes of a zone share: the next one is chosen knowing what became of the one
/// before. Keys of nodes have no namespace, so it is none of theirs.
pub(super) fn turn_key(region: &str, zone: &str) -> Key {
    Key::new(Kind::Node, &format!("{region}/"), zone)
}

/// The region and zone of such a key.
fn zone_of_turn(key: &Key) -> Option<(String, String)> {
    let region = key.namespace.strip_suffix('/')?;
    Some((region.to_owned(), key.name.to_string()))
}

/// Whether a key is one of a zone, and not of a node.
pub(super) fn is_turn(key: &Key) -> bool {
    !key.namespace.is_empty()
}

/// What a node has to do with the permissions of others.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Standing {
    /// Region and zone.
    zone: (String, String),
    /// Whether it counts for how disrupted its zone is.
    counted: bool,
    ready: bool,
    /// Whether it says that it is not ready, or that is said of it.
    unready: bool,
    /// Since when it waits to be given up.
    waiting: Option<Time>,
    /// When it was given up.
    given_up: Option<Time>,
}

impl Standing {
    fn of(node: &Node) -> Self {
        let label = |key| meta::label(&node.metadata, key).unwrap_or_default().to_owned();
        let condition = condition(node, "Ready");
        let ready = condition.is_some_and(|c| c.status == "True");
        let unready = condition.filter(|c| c.status != "True");
        let taint = eviction_taint(node);
        let waits = taint.is_none() && !meta::is_terminating(&node.metadata);
        let lost = unready.filter(|_| waits).map(|c| c.last_transition_time.as_ref());
        Self {
            zone: (label(REGION), label(ZONE)),
            counted: meta::label(&node.metadata, EXCLUDED).is_none(),
            ready,
            unready: unready.is_some(),
            waiting: lost.map(|lost| lost.map(Time::from_meta).unwrap_or_default()),
            given_up: taint.and_then(|t| t.time_added.as_ref()).map(Time::from_meta),
        }
    }

    fn of_object(object: Option<&Object>) -> Option<Self> {
        object.and_then(Object::get).map(Self::of)
    }
}

/// How many nodes are ready, and how many are not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    ready: usize,
    silent: usize,
}

impl Counts {
    fn count(&mut self, standing: &Standing) {
        if standing.counted {
            *if standing.ready { &mut self.ready } else { &mut self.silent } += 1;
        }
    }

    fn discount(&mut self, standing: &Standing) {
        if standing.counted {
            *if standing.ready { &mut self.ready } else { &mut self.silent } -= 1;
        }
    }

    /// Whether there are nodes and not a single one is ready.
    const fn nobody_reports(self) -> bool {
        self.ready == 0 && self.silent > 0
    }
}

#[derive(Clone, Debug, Default)]
struct Zone {
    nodes: usize,
    counts: Counts,
    /// By when they were lost: the first is the next to be given up.
    waiting: BTreeSet<(Time, Arc<Key>)>,
    /// By when they were given up.
    given_up: BTreeSet<(Time, Arc<Key>)>,
}

/// The nodes by zone and readiness.
#[derive(Clone, Debug, Default)]
pub(super) struct Zones {
    zones: BTreeMap<(String, String), Zone>,
    unready: BTreeSet<Arc<Key>>,
    counts: Counts,
}

impl Index for Zones {
    fn kinds(&self) -> &'static [Kind] {
        &[Kind::Node]
    }

    fn update(&mut self, key: &Arc<Key>, old: Option<&Object>, new: Option<&Object>) {
        let (old, new) = (Standing::of_object(old), Standing::of_object(new));
        if old == new {
            return;
        }
        if let Some(old) = old {
            self.remove(key, &old);
        }
        if let Some(new) = new {
            self.insert(key, &new);
        }
    }
}

impl Zones {
    fn insert(&mut self, key: &Arc<Key>, standing: &Standing) {
        self.counts.count(standing);
        if standing.unready {
            self.unready.insert(key.clone());
        }
        let (waiting, given_up) = (standing.waiting, standing.given_up);
        let zone = self.zones.entry(standing.zone.clone()).or_default();
        zone.nodes += 1;
        zone.counts.count(standing);
        zone.waiting.extend(waiting.map(|at| (at, key.clone())));
        zone.given_up.extend(given_up.map(|at| (at, key.clone())));
    }

    fn remove(&mut self, key: &Arc<Key>, standing: &Standing) {
        self.counts.discount(standing);
        self.unready.remove(key);
        let Some(zone) = self.zones.get_mut(&standing.zone) else { return };
        zone.nodes -= 1;
        zone.counts.discount(standing);
        if let Some(at) = standing.waiting {
            zone.waiting.remove(&(at, key.clone()));
        }
        if let Some(at) = standing.given_up {
            zone.given_up.remove(&(at, key.clone()));
        }
        if zone.nodes == 0 {
            self.zones.remove(&standing.zone);
        }
    }
}

/// Whether not a single node of the cluster is ready.
pub(super) fn nobody_reports(cache: &Cache) -> bool {
    cache.index::<Zones>().counts.nobody_reports()
}

/// The nodes and zones for which a change of a node may change what is allowed.
pub(super) fn affected(cache: &Cache, delta: &Delta) -> BTreeSet<Key> {
    let mut keys = BTreeSet::from([delta.key.clone()]);
    let old = Standing::of_object(delta.old.as_ref());
    let new = Standing::of_object(delta.new.as_ref());
    if old == new {
        return keys;
    }
    let index = cache.index::<Zones>();
    let waits = |zone: &&(String, String)| {
        index.zones.get(*zone).is_some_and(|zone| !zone.waiting.is_empty())
    };
    let turn = |(region, zone): &(String, String)| turn_key(region, zone);
    let zones = [&old, &new].into_iter().flatten().map(|s| &s.zone);
    keys.extend(zones.filter(waits).map(turn));
    let mut before = index.counts;
    new.iter().for_each(|s| before.discount(s));
    old.iter().for_each(|s| before.count(s));
    if before.nobody_reports() != index.counts.nobody_reports() {
        keys.extend(index.unready.iter().map(|key| Key::clone(key)));
        keys.extend(index.zones.keys().filter(waits).map(turn));
    }
    keys
}

/// Which of the nodes that wait in the zone of a [`turn_key`] is given up now. At
/// `disrupted_percent` of silent nodes and above a zone is disrupted.
pub(super) fn turn(cache: &Cache, key: &Key, disrupted_percent: u8, now: Time) -> Turn {
    let index = cache.index::<Zones>();
    if index.counts.nobody_reports() {
        return Turn::Nobody;
    }
    let Some(zone) = zone_of_turn(key).and_then(|zone| index.zones.get(&zone)) else {
        return Turn::Nobody;
    };
    // One node at a time, the one that was lost first.
    let Some((lost, first)) = zone.waiting.first() else { return Turn::Nobody };
    let Counts { ready, silent } = zone.counts;
    let total = ready + silent;
    let disrupted =
        ready > 0 && silent > 2 && silent * 100 >= total * usize::from(disrupted_percent);
    let spacing = match disrupted {
        false => SPACING,
        true if total > LARGE_ZONE => SPACING_DISRUPTED,
        true => return Turn::Nobody,
    };
    // Others that were lost in the same moment must be known before one of them is chosen; and
    // a node that has just joined is not lost.
    let known = ((*lost).min(now) + KNOWN_AFTER).since(now);
    let last = zone.given_up.last().map(|(at, _)| ((*at).min(now) + spacing).since(now));
    let wait = known.max(last.unwrap_or_default());
    if wait.is_zero() { Turn::Of(first.clone()) } else { Turn::Later(wait) }
}

#[cfg(test)]
mod tests {
    use api::{Revision, codec};
    use machine::WatchEvent;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// Zone, readiness, when that changed, taint, exclusion and deletion of a node.
    type State = (u8, Option<&'static str>, u64, Option<u64>, bool, bool);

    fn node(name: &str, revision: Revision, state: &State) -> Object {
        let (zone, ready, lost, given_up, excluded, terminating) = *state;
        let time = |secs| json!(Time::from_secs(secs).to_meta());
        let mut value = json!({"metadata": {"name": name, "labels": {ZONE: zone.to_string()},
            "resourceVersion": revision.to_string()}});
        if let Some(ready) = ready {
            value["status"]["conditions"] =
                json!([{"type": "Ready", "status": ready, "lastTransitionTime": time(lost)}]);
        }
        if let Some(secs) = given_up {
            value["spec"]["taints"] = json!([{"key": super::super::UNREACHABLE,
                "effect": "NoExecute", "timeAdded": time(secs)}]);
        }
        if excluded {
            value["metadata"]["labels"][EXCLUDED] = "".into();
        }
        if terminating {
            value["metadata"]["deletionTimestamp"] = time(0);
        }
        codec::decode_value(Kind::Node, &value).unwrap()
    }

    fn state() -> impl Strategy<Value = State> {
        let ready = proptest::sample::select(vec![None, Some("True"), Some("False")]);
        let given_up = proptest::option::of(0..3_u64);
        (0..2_u8, ready, 0..3_u64, given_up, any::<bool>(), any::<bool>())
    }

    proptest! {
        #[test]
        fn what_is_counted_is_what_a_count_gives(
            changes in proptest::collection::vec(
                (0..5_u8, proptest::option::of(state())), 1..40),
        ) {
            let index: Box<dyn Index> = Box::<Zones>::default();
            let mut cache = Cache::with_indexes([index]);
            for (i, (name, change)) in changes.iter().enumerate() {
                let name = format!("n{name}");
                let revision = Revision(u64::try_from(i).unwrap() + 1);
                let event = match change {
                    Some(state) => WatchEvent::Changed(node(&name, revision, state)),
                    None => {
                        WatchEvent::Deleted { key: Key::cluster(Kind::Node, &name), revision }
                    }
                };
                cache.apply(Time(0), event);
            }
            let mut fresh = Zones::default();
            for object in cache.objects(Kind::Node) {
                fresh.update(&Arc::new(object.key()), None, Some(object));
            }
            prop_assert_eq!(format!("{:?}", cache.index::<Zones>()), format!("{fresh:?}"));
            let counted = || {
                let excluded = |n: &&Node| meta::label(&n.metadata, EXCLUDED).is_some();
                cache.list::<Node>().filter(move |n| !excluded(n))
            };
            let is_ready = |n: &Node| condition(n, "Ready").is_some_and(|c| c.status == "True");
            let nobody = counted().next().is_some() && !counted().any(is_ready);
            prop_assert_eq!(nobody_reports(&cache), nobody);
        }
    }
}
