//! [`Fast`] against the reference, on random clusters.

mod preemption;
mod profiles;
mod shapes;

use std::collections::BTreeMap;
use std::sync::Arc;

use api::{Key, Kind, Pod, codec};
use machine::RngTree;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use serde_json::{Value, json};

use super::*;
use crate::attachments::Attachments;
use crate::census::Heads;
use crate::plugin_args::{LEAST_ALLOCATED, MOST_ALLOCATED, PluginArgs, ScoringStrategy};
use crate::pod_info::{Classes, Standing};
use crate::profile::ProfileConfig;
use crate::volumes::Volumes;
use shapes::{
    NAMESPACES, NodeShape, PodShape, Relations, Shapes, attachments, limits_of, node, pod,
    selector, shapes, shapes_with_relations,
};

/// One thing that happens to a cluster. Shapes are taken modulo how many there are.
#[derive(Clone, Debug)]
enum Event {
    /// So many nodes of one shape join, or change into it, from a number on.
    Nodes { first: u8, count: u8, shape: usize },
    /// So many nodes get other taints, and nothing else.
    Tainted { first: u8, count: u8, taint: u8 },
    /// Nodes leave.
    NodesGone { first: u8, count: u8 },
    /// So many pods of one controller ask for a node, one after the other, and get it.
    Pods { count: u8, shape: usize, owner: u8 },
    /// Every so many-th pod ends.
    PodsGone { every: u8 },
    /// A pod is put on a node by somebody else; the node need not exist.
    Put { node: u8, shape: usize, owner: u8 },
    /// Every so many-th pod gets another label.
    Relabelled { every: u8, app: u8 },
    /// Every so many-th pod begins to be deleted.
    Terminating { every: u8 },
    /// A namespace gets other labels, none, or is gone.
    Namespace { namespace: u8, team: u8 },
    /// A service selects other pods, or is gone.
    Service { namespace: u8, name: u8, app: u8 },
    /// A controller selects other pods, or is gone.
    Controller { namespace: u8, owner: u8, selector: u8 },
}

fn event() -> impl Strategy<Value = Event> {
    let any_shape = || any::<u8>().prop_map(usize::from);
    prop_oneof![
        3 => (any::<u8>(), 1..120_u8, any_shape())
            .prop_map(|(first, count, shape)| Event::Nodes { first, count, shape }),
        4 => (any::<u8>(), 1..4_u8, any_shape())
            .prop_map(|(first, count, shape)| Event::Nodes { first, count, shape }),
        2 => (any::<u8>(), 1..9_u8).prop_map(|(first, count)| Event::NodesGone { first, count }),
        12 => (1..40_u8, any_shape(), 0..5_u8)
            .prop_map(|(count, shape, owner)| Event::Pods { count, shape, owner }),
        2 => (1..8_u8).prop_map(|every| Event::PodsGone { every }),
        2 => (any::<u8>(), any_shape(), 0..5_u8)
            .prop_map(|(node, shape, owner)| Event::Put { node, shape, owner }),
        1 => change_of_relations(),
    ]
}

/// Fewer changes of nodes, which have all else looked at anew, and all that changes how pods get on
/// with each other.
fn event_with_relations() -> impl Strategy<Value = Event> {
    let any_shape = || any::<u8>().prop_map(usize::from);
    prop_oneof![
        2 => (0..110_u8, 1..8_u8, any_shape())
            .prop_map(|(first, count, shape)| Event::Nodes { first, count, shape }),
        1 => (0..110_u8, 1..9_u8).prop_map(|(first, count)| Event::NodesGone { first, count }),
        3 => (0..110_u8, 1..60_u8, 0..6_u8)
            .prop_map(|(first, count, taint)| Event::Tainted { first, count, taint }),
        30 => (1..6_u8, any_shape(), 0..5_u8)
            .prop_map(|(count, shape, owner)| Event::Pods { count, shape, owner }),
        3 => (1..8_u8).prop_map(|every| Event::PodsGone { every }),
        3 => (0..110_u8, any_shape(), 0..5_u8)
            .prop_map(|(node, shape, owner)| Event::Put { node, shape, owner }),
        8 => change_of_relations(),
    ]
}

fn change_of_relations() -> impl Strategy<Value = Event> {
    prop_oneof![
        (1..8_u8, 0..3_u8).prop_map(|(every, app)| Event::Relabelled { every, app }),
        (1..8_u8).prop_map(|every| Event::Terminating { every }),
        (0..3_u8, 0..4_u8).prop_map(|(namespace, team)| Event::Namespace { namespace, team }),
        (0..3_u8, 0..2_u8, 0..5_u8).prop_map(|(namespace, name, app)| Event::Service {
            namespace,
            name,
            app
        }),
        (0..3_u8, 2..5_u8, 0..7_u8).prop_map(|(namespace, owner, selector)| {
            Event::Controller { namespace, owner, selector }
        }),
    ]
}

fn profile() -> impl Strategy<Value = ProfileConfig> {
    const NAMES: [&str; 5] = [
        "NodeResourcesFit",
        "PodTopologySpread",
        "InterPodAffinity",
        "TaintToleration",
        "ImageLocality",
    ];
    (
        prop_oneof![3 => Just(None), 2 => (1..=100_usize).prop_map(Some)],
        any::<bool>(),
        proptest::collection::btree_map(prop::sample::select(&NAMES[..]), 0..8_i64, 0..3),
        proptest::collection::vec(prop::sample::select(&NAMES[..]), 0..2),
    )
        .prop_map(|(percentage, most, weights, disabled)| ProfileConfig {
            percentage_of_nodes_to_score: percentage,
            args: fit(if most { MOST_ALLOCATED } else { LEAST_ALLOCATED }),
            weights: weights.into_iter().map(|(name, w)| (name.to_owned(), w)).collect(),
            disabled: disabled.into_iter().map(str::to_owned).collect(),
            ..ProfileConfig::default()
        })
}

fn fit(strategy: &str) -> PluginArgs {
    let mut args = PluginArgs::default();
    args.fit.scoring_strategy = ScoringStrategy::named(strategy);
    args
}

/// A cluster in which every decision is taken twice.
struct Both {
    shapes: Shapes,
    profile: Profile,
    nodes: BTreeMap<usize, NodeShape>,
    snapshot: Snapshot,
    classes: Classes,
    attachments: Arc<Attachments>,
    fast: Fast,
    start: usize,
    rng: ChaCha8Rng,
    pods: Vec<(Key, Pod, String)>,
    made: usize,
    failed: usize,
}

impl Both {
    fn new(shapes: Shapes, config: &ProfileConfig, limits: Limits) -> Self {
        let mut both = Self {
            shapes,
            profile: Profile::new(config).unwrap(),
            nodes: BTreeMap::new(),
            snapshot: Snapshot::default(),
            classes: Classes::default(),
            attachments: Arc::new(attachments()),
            fast: Fast { limits, ..Fast::default() },
            start: 0,
            rng: RngTree::new(1).rng("ties"),
            pods: Vec::new(),
            made: 0,
            failed: 0,
        };
        for namespace in 0..3 {
            for owner in 2..5 {
                both.select(namespace, owner, owner - 2);
            }
        }
        both
    }

    fn pod(&mut self, shape: usize, owner: u8) -> (Pod, PodInfo) {
        self.made += 1;
        let shape = &self.shapes.pods[shape % self.shapes.pods.len()];
        let pod = pod(shape, owner, self.made);
        let info = self.info(&pod);
        (pod, info)
    }

    /// As the scheduler sees a pod when it decides.
    fn info(&mut self, pod: &Pod) -> PodInfo {
        let info = PodInfo::of(pod, &mut self.classes).unwrap();
        let claims = &info.class.load.claims;
        if claims.is_empty() {
            return info;
        }
        info.with_volumes(Volumes::default().limited(claims, Arc::clone(&self.attachments)))
    }

    fn put(&mut self, pod: Pod, node: &str) {
        let (metadata, spec) = (&pod.metadata, pod.spec.as_ref().unwrap());
        let namespace = metadata.namespace.as_deref().unwrap();
        let key = Key::new(Kind::Pod, namespace, metadata.name.as_deref().unwrap());
        let presence = self.classes.presence(&pod, spec);
        let load = self.classes.load(&pod, spec);
        let uid = metadata.uid.as_deref().unwrap();
        self.snapshot.add_pod(&key, uid, &presence, &load, node);
        self.snapshot.set_standing(&key, Standing::of(&pod));
        self.pods.push((key, pod, node.to_owned()));
    }

    fn decide(&mut self, pod: Pod, info: &PodInfo) -> Result<(), TestCaseError> {
        match self.choose(info)? {
            Ok(choice) => self.put(pod, &choice.node),
            Err(_) => self.failed += 1,
        }
        Ok(())
    }

    /// What both ways decide.
    fn choose(&mut self, info: &PodInfo) -> Result<Result<Choice, Diagnosis>, TestCaseError> {
        let (mut start, mut rng) = (self.start, self.rng.clone());
        let question = info.question();
        let expected = cycle::choose(&self.profile, &self.snapshot, question, &mut start, &mut rng);
        let choice = self.fast.choose(
            &self.profile,
            &mut self.snapshot,
            info,
            &mut self.start,
            &mut self.rng,
        );
        prop_assert_eq!(&choice, &expected);
        prop_assert_eq!(self.start, start);
        prop_assert_eq!(&self.rng, &rng);
        prop_assert!(self.fast.slots.iter().flatten().all(|count| *count == 0));
        Ok(choice)
    }

    /// Changes every so many-th pod, where it is.
    fn change(&mut self, every: u8, change: impl Fn(&mut Pod)) {
        let (mut some, others): (Vec<_>, Vec<_>) = std::mem::take(&mut self.pods)
            .into_iter()
            .enumerate()
            .partition(|(i, _)| (i + 1).is_multiple_of(usize::from(every)));
        self.pods = others.into_iter().map(|(_, pod)| pod).collect();
        for (_, (_, pod, node)) in &mut some {
            change(pod);
            self.put(pod.clone(), node);
        }
    }

    fn select(&mut self, namespace: u8, owner: u8, shape: u8) {
        let kind = match owner {
            3 => Kind::StatefulSet,
            4 => Kind::ReplicationController,
            _ => Kind::ReplicaSet,
        };
        let namespace = NAMESPACES[usize::from(namespace)];
        let key = Key::new(kind, namespace, &format!("o{owner}"));
        let mut object = json!({"apiVersion": "apps/v1", "kind": kind.name(),
            "metadata": {"namespace": namespace, "name": format!("o{owner}")},
            "spec": {"serviceName": "s", "selector": selector(shape),
                "template": {"spec": {"containers": []}}}});
        if kind == Kind::ReplicationController {
            object["apiVersion"] = json!("v1");
            object["spec"]["selector"] = json!({"app": format!("a{shape}")});
        }
        let object = (selector(shape) != Value::Null)
            .then(|| codec::decode_any(object.to_string().as_bytes()).unwrap());
        self.snapshot.census_mut().selectors.set(&key, object.as_ref());
    }

    fn happen(&mut self, event: &Event) -> Result<(), TestCaseError> {
        match event {
            Event::Nodes { first, count, shape } => {
                for i in 0..*count {
                    let number = (usize::from(*first) + usize::from(i)) % 260;
                    let shape = &self.shapes.nodes[shape % self.shapes.nodes.len()];
                    self.snapshot.set_node(&node(number, shape));
                    self.snapshot.set_volume_limits(&format!("n{number:03}"), limits_of(shape));
                    self.nodes.insert(number, shape.clone());
                }
            }
            Event::Tainted { first, count, taint } => {
                let first = usize::from(*first);
                for (number, shape) in self.nodes.range_mut(first..first + usize::from(*count)) {
                    shape.taint = *taint;
                    self.snapshot.set_node(&node(*number, shape));
                }
            }
            Event::NodesGone { first, count } => {
                for i in 0..*count {
                    let number = (usize::from(*first) + usize::from(i)) % 260;
                    self.nodes.remove(&number);
                    self.snapshot.remove_node(&format!("n{number:03}"));
                }
            }
            Event::Pods { count, shape, owner } => {
                for _ in 0..*count {
                    let (pod, info) = self.pod(*shape, *owner);
                    self.decide(pod, &info)?;
                }
            }
            Event::PodsGone { every } => {
                let every = usize::from(*every);
                let mut i = 0;
                let snapshot = &mut self.snapshot;
                self.pods.retain(|(key, ..)| {
                    i += 1;
                    i % every != 0 || !snapshot.remove_pod(key)
                });
            }
            Event::Put { node, shape, owner } => {
                let (pod, _) = self.pod(*shape, *owner);
                self.put(pod, &format!("n{:03}", usize::from(*node)));
            }
            Event::Relabelled { every, app } => self.change(*every, |pod| {
                let labels = pod.metadata.labels.as_mut().unwrap();
                labels.insert("app".to_owned(), format!("a{app}"));
            }),
            Event::Terminating { every } => self.change(*every, |pod| {
                pod.metadata.deletion_timestamp =
                    serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
            }),
            Event::Namespace { namespace, team } => {
                let labels = match team {
                    0 | 1 => BTreeMap::from([("team".to_owned(), format!("t{team}"))]),
                    _ => BTreeMap::new(),
                };
                let name = NAMESPACES[usize::from(*namespace)];
                let labels = (*team != 3).then_some(&labels);
                self.snapshot.census_mut().namespaces.set(name, labels);
            }
            Event::Service { namespace, name, app } => {
                let namespace = NAMESPACES[usize::from(*namespace)];
                let key = Key::new(Kind::Service, namespace, &format!("s{name}"));
                let selector = match app {
                    0..=2 => json!({"app": format!("a{app}")}),
                    _ => json!({}),
                };
                let object = json!({"apiVersion": "v1", "kind": "Service",
                    "metadata": {"namespace": namespace, "name": format!("s{name}")},
                    "spec": {"selector": selector}});
                let object = codec::decode_any(object.to_string().as_bytes()).unwrap();
                let object = Some(&object).filter(|_| *app != 4);
                self.snapshot.census_mut().selectors.set(&key, object);
            }
            Event::Controller { namespace, owner, selector } => {
                self.select(*namespace, *owner, *selector);
            }
        }
        Ok(())
    }

    /// Whether the sums that are kept are those of the pods and nodes there are.
    fn check(&self) -> Result<(), TestCaseError> {
        let (rankings, _) = self.fast.rankings.amount();
        let (views, _) = self.fast.views.amount();
        prop_assert!(rankings <= self.fast.limits.rankings && views <= self.fast.limits.views);
        let pods: i64 = (0..self.snapshot.rows())
            .map(|id| self.snapshot.row(u32::try_from(id).unwrap()).pods)
            .sum();
        prop_assert_eq!(pods, self.pods.len() as i64);
        // Pods by namespace, labels and node: those there are, and those of the census.
        let mut expected: BTreeMap<(String, String, String), Heads> = BTreeMap::new();
        for (key, pod, node) in &self.pods {
            let labels = serde_json::to_string(&pod.metadata.labels).unwrap();
            let heads = expected.entry((key.namespace.to_string(), labels, node.clone()));
            let heads = heads.or_default();
            if pod.metadata.deletion_timestamp.is_some() {
                heads.leaving += 1;
            } else {
                heads.staying += 1;
            }
        }
        let mut found = BTreeMap::new();
        for (_, crowd) in self.snapshot.census().crowds().iter() {
            let labels = serde_json::to_string(&crowd.of.labels).unwrap();
            for (node, heads) in &crowd.on {
                let node = self.snapshot.row(*node).name.clone();
                found.insert((crowd.of.namespace.clone(), labels.clone(), node), *heads);
            }
        }
        prop_assert_eq!(found, expected);
        Ok(())
    }
}

fn limits() -> impl Strategy<Value = Limits> {
    (1..6_usize, 300..2000_usize, 1..6_usize, 20..2000_usize).prop_map(
        |(rankings, nodes, views, counts)| Limits {
            rankings,
            nodes,
            views,
            counts,
            prices: views,
            priced: nodes,
        },
    )
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: Some(Box::new(FileFailurePersistence::SourceParallel(
            "proptest-regressions",
        ))),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(64))]

    #[test]
    fn decides_as_the_reference_does(
        shapes in shapes(),
        config in profile(),
        limits in limits(),
        events in proptest::collection::vec(event(), 1..60),
    ) {
        let mut both = Both::new(shapes, &config, limits);
        for event in &events {
            both.happen(event)?;
        }
        both.check()?;
    }
}

proptest! {
    #![proptest_config(config(192))]

    #[test]
    fn decides_as_the_reference_does_where_pods_have_relations(
        shapes in shapes_with_relations(),
        config in profile(),
        limits in limits(),
        events in proptest::collection::vec(event_with_relations(), 20..80),
        nodes in 3..90_u8,
    ) {
        let mut both = Both::new(shapes, &config, limits);
        both.happen(&Event::Nodes { first: 0, count: nodes, shape: 0 })?;
        both.happen(&Event::Nodes { first: nodes, count: nodes / 2, shape: 1 })?;
        for event in &events {
            both.happen(event)?;
        }
        both.check()?;
    }
}

fn plain_node() -> NodeShape {
    NodeShape {
        zone: 0,
        cpu: 3,
        memory: 3,
        pods: 1,
        taint: 5,
        cordoned: false,
        disk: 0,
        images: 0,
        sizes_differ: false,
        rack: 0,
        hostname: 2,
    }
}

fn plain_pod() -> PodShape {
    PodShape {
        cpu: 1,
        memory: 1,
        tolerates: 3,
        selects: 5,
        prefers: 0,
        image: 0,
        port: 5,
        pinned: 9,
        app: 0,
        namespace: 0,
        relations: Relations::default(),
    }
}

/// Fills a cluster to the last place and beyond, with the limits of production.
#[test]
fn fills_a_cluster_as_the_reference_does() {
    for (owner, port) in [(0, 5), (2, 5), (0, 0)] {
        let nodes = (0..3).map(|zone| NodeShape { zone, ..plain_node() }).collect();
        let shapes = Shapes { nodes, pods: vec![PodShape { port, ..plain_pod() }] };
        let mut both = Both::new(shapes, &ProfileConfig::default(), LIMITS);
        for shape in 0..3 {
            both.happen(&Event::Nodes {
                first: 80 * u8::try_from(shape).unwrap(),
                count: 80,
                shape,
            })
            .unwrap();
        }
        for _ in 0..16 {
            both.happen(&Event::Pods { count: 100, shape: 0, owner }).unwrap();
        }
        let places = if port == 0 { 240 } else { 240 * 6 };
        assert_eq!((both.pods.len(), both.failed), (places, 1600 - places));
        both.check().unwrap();
    }
}

/// Nodes of too many kinds for a ranking are the reference's.
#[test]
fn gives_up_on_too_many_kinds_of_nodes() {
    let shape = NodeShape { images: 1, sizes_differ: true, ..plain_node() };
    let shapes = Shapes { nodes: vec![shape.clone()], pods: vec![plain_pod()] };
    let mut both = Both::new(shapes, &ProfileConfig::default(), LIMITS);
    for number in 0..5000 {
        both.snapshot.set_node(&node(number, &shape));
    }
    both.profile.percentage_of_nodes_to_score = Some(100);
    for _ in 0..3 {
        both.happen(&Event::Pods { count: 1, shape: 0, owner: 0 }).unwrap();
    }
    let ranking = both.fast.rankings.values().next().unwrap();
    assert!(ranking.overflown && Arc::strong_count(&ranking.class) > 1);
}

/// Taints alone decide which zones count.
#[test]
fn sees_that_taints_change() {
    let nodes = [2, 3].map(|zone| NodeShape { zone, ..plain_node() }).into();
    let relations = Relations::spread_over_tolerated_zones();
    let shapes = Shapes { nodes, pods: vec![PodShape { relations, ..plain_pod() }] };
    let mut both = Both::new(shapes, &ProfileConfig::default(), LIMITS);
    for shape in 0..2 {
        both.happen(&Event::Nodes { first: 3 * shape, count: 3, shape: shape.into() }).unwrap();
    }
    both.happen(&Event::Pods { count: 4, shape: 0, owner: 0 }).unwrap();
    let tainted = |taint| Event::Tainted { first: 3, count: 3, taint };
    for taint in [0, 5, 0] {
        both.happen(&tainted(taint)).unwrap();
        both.happen(&Event::Pods { count: 3, shape: 0, owner: 0 }).unwrap();
    }
    // Nobody is kept away by a zone where nobody can go.
    assert_eq!((both.pods.len(), both.failed), (13, 0));
}

/// The number of terms that nobody has any more is given to other terms.
#[test]
fn does_not_take_terms_for_those_that_were() {
    let shape = |app, relations| PodShape { app, relations, ..plain_pod() };
    let pods = vec![
        shape(0, Relations::default()),
        shape(2, Relations::away_from(0)),
        shape(2, Relations::away_from(1)),
    ];
    let shapes = Shapes { nodes: vec![plain_node()], pods };
    let mut both = Both::new(shapes, &ProfileConfig::default(), LIMITS);
    both.happen(&Event::Nodes { first: 0, count: 3, shape: 0 }).unwrap();
    for shape in [1, 2, 1] {
        both.happen(&Event::Put { node: 0, shape, owner: 0 }).unwrap();
        both.happen(&Event::Pods { count: 2, shape: 0, owner: 0 }).unwrap();
        both.happen(&Event::PodsGone { every: 1 }).unwrap();
        assert!(both.snapshot.census().holders().iter().next().is_none());
    }
}
