//! [`Fast`] against the reference, on random clusters.

mod profiles;

use std::sync::Arc;

use api::{Key, Pod};
use k8s_openapi::api::core::v1::Node;
use machine::RngTree;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use serde_json::{Value, json};

use super::*;
use crate::plugin_args::{LEAST_ALLOCATED, MOST_ALLOCATED, PluginArgs, ScoringStrategy};
use crate::pod_info::{Classes, Standing};
use crate::profile::ProfileConfig;

mod preemption;

/// One thing that happens to a cluster. Shapes are few, so that what is kept of them is used
/// again; they are taken modulo how many there are.
#[derive(Clone, Debug)]
enum Event {
    /// So many nodes of one shape join, or change into it, from a number on.
    Nodes { first: u8, count: u8, shape: usize },
    /// Nodes leave.
    NodesGone { first: u8, count: u8 },
    /// So many pods of one controller ask for a node, one after the other, and get it.
    Pods { count: u8, shape: usize, owner: u8 },
    /// Every so many-th pod ends.
    PodsGone { every: u8 },
    /// A pod is put on a node by somebody else; the node need not exist.
    Put { node: u8, shape: usize, owner: u8 },
}

/// What a cluster is made of.
#[derive(Clone, Debug)]
struct Shapes {
    nodes: Vec<NodeShape>,
    pods: Vec<PodShape>,
}

fn shapes() -> impl Strategy<Value = Shapes> {
    use proptest::collection::vec;
    (vec(node_shape(), 1..6), vec(pod_shape(), 1..4))
        .prop_map(|(nodes, pods)| Shapes { nodes, pods })
}

#[derive(Clone, Debug)]
struct NodeShape {
    zone: u8,
    cpu: u8,
    memory: u8,
    pods: u8,
    taint: u8,
    cordoned: bool,
    disk: u8,
    images: u8,
    /// Gives each of the nodes an image of another size.
    sizes_differ: bool,
}

#[derive(Clone, Debug)]
struct PodShape {
    cpu: u8,
    memory: u8,
    tolerates: u8,
    selects: u8,
    prefers: u8,
    image: u8,
    port: u8,
    pinned: u8,
}

fn node_shape() -> impl Strategy<Value = NodeShape> {
    let numbers = (0..4_u8, 0..4_u8, 0..4_u8, 0..4_u8, 0..6_u8, 0..3_u8, 0..4_u8);
    (numbers, proptest::bool::weighted(0.1), proptest::bool::weighted(0.1)).prop_map(
        |((zone, cpu, memory, pods, taint, disk, images), cordoned, sizes_differ)| NodeShape {
            zone,
            cpu,
            memory,
            pods,
            taint,
            cordoned,
            disk,
            images,
            sizes_differ,
        },
    )
}

fn pod_shape() -> impl Strategy<Value = PodShape> {
    let numbers = (0..4_u8, 0..4_u8, 0..4_u8, 0..6_u8, 0..4_u8, 0..4_u8, 0..12_u8, 0..12_u8);
    numbers.prop_map(|(cpu, memory, tolerates, selects, prefers, image, port, pinned)| PodShape {
        cpu,
        memory,
        tolerates,
        selects,
        prefers,
        image,
        port,
        pinned,
    })
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
    ]
}

fn profile() -> impl Strategy<Value = ProfileConfig> {
    const NAMES: [&str; 4] =
        ["NodeResourcesFit", "PodTopologySpread", "TaintToleration", "ImageLocality"];
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

fn node(number: usize, shape: &NodeShape) -> Node {
    let taint = match shape.taint {
        0 => json!([{"key": "team", "value": "a", "effect": "NoSchedule"}]),
        1 => json!([{"key": "soft", "effect": "PreferNoSchedule"}]),
        2 => json!([{"key": "soft", "effect": "PreferNoSchedule"},
            {"key": "team", "effect": "PreferNoSchedule"}]),
        _ => json!([]),
    };
    let size =
        i64::from(shape.images) * 300 + if shape.sizes_differ { 7 * number as i64 } else { 0 };
    let images: Vec<Value> = (0..shape.images)
        .map(|i| json!({"names": [format!("i{i}")], "sizeBytes": size << 20}))
        .collect();
    let zones = ["", "a", "b", "c"];
    serde_json::from_value(json!({
        "metadata": {"name": format!("n{number:03}"), "labels": {
            "topology.kubernetes.io/zone": zones[usize::from(shape.zone)],
            "kubernetes.io/hostname": format!("n{number:03}"),
            "disk": format!("d{}", shape.disk)}},
        "spec": {"taints": taint, "unschedulable": shape.cordoned},
        "status": {"images": images, "allocatable": {
            "cpu": (shape.cpu * 2).to_string(),
            "memory": format!("{}Gi", 1 + shape.memory * 3),
            "pods": (2 + shape.pods * 4).to_string()}}}))
    .unwrap()
}

fn pod(shape: &PodShape, owner: u8, number: usize) -> Pod {
    let mut spec = json!({"containers": [{"name": "c", "image": format!("i{}", shape.image),
        "resources": {"requests": {}}}]});
    let requests = &mut spec["containers"][0]["resources"]["requests"];
    if shape.cpu > 0 {
        requests["cpu"] = json!(format!("{}m", 130 * u32::from(shape.cpu)));
    }
    if shape.memory > 0 {
        requests["memory"] = json!(format!("{}Mi", 300 * u32::from(shape.memory)));
    }
    if shape.port == 0 {
        spec["containers"][0]["ports"] = json!([{"containerPort": 80, "hostPort": 80}]);
    }
    spec["tolerations"] = match shape.tolerates {
        0 => json!([{"key": "team", "operator": "Exists"}]),
        1 => json!([{"operator": "Exists"}]),
        _ => json!([]),
    };
    if shape.selects == 0 {
        spec["nodeSelector"] = json!({"disk": "d1"});
    }
    let term = |disk: u8| json!({"matchExpressions": [{"key": "disk", "operator": "In", "values": [format!("d{disk}")]}]});
    if shape.prefers > 1 {
        spec["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"] = json!([
            {"weight": 5, "preference": term(shape.prefers - 2)},
            {"weight": 9, "preference": term(shape.prefers - 1)}]);
    }
    let pins = |names: &[usize]| {
        let names: Vec<String> = names.iter().map(|n| format!("n{n:03}")).collect();
        json!({"nodeSelectorTerms": [{"matchFields": [
            {"key": "metadata.name", "operator": "In", "values": names}]}]})
    };
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    match shape.pinned {
        0 => spec["affinity"]["nodeAffinity"][required] = pins(&[number % 150]),
        1 => spec["affinity"]["nodeAffinity"][required] = pins(&[number % 90, 3, 170]),
        _ => {}
    }
    let mut metadata = json!({"namespace": "d", "name": format!("p{number}"),
        "uid": format!("u{number}")});
    if owner > 1 {
        metadata["ownerReferences"] = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet",
            "name": "rs", "uid": format!("o{owner}"), "controller": true}]);
    }
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
}

/// A cluster in which every decision is taken twice.
struct Both {
    shapes: Shapes,
    profile: Profile,
    snapshot: Snapshot,
    classes: Classes,
    fast: Fast,
    start: usize,
    rng: ChaCha8Rng,
    pods: Vec<Key>,
    made: usize,
    failed: usize,
}

impl Both {
    fn new(shapes: Shapes, config: &ProfileConfig, limits: Limits) -> Self {
        Self {
            shapes,
            profile: Profile::new(config).unwrap(),
            snapshot: Snapshot::default(),
            classes: Classes::default(),
            fast: Fast { limits, ..Fast::default() },
            start: 0,
            rng: RngTree::new(1).rng("ties"),
            pods: Vec::new(),
            made: 0,
            failed: 0,
        }
    }

    fn pod(&mut self, shape: usize, owner: u8) -> PodInfo {
        self.made += 1;
        let shape = &self.shapes.pods[shape % self.shapes.pods.len()];
        PodInfo::of(&pod(shape, owner, self.made), &mut self.classes).unwrap()
    }

    fn put(&mut self, pod: &PodInfo, node: &str) {
        let taken = (&pod.class.load, Standing::new(pod.priority));
        self.snapshot.add_pod(&pod.key, &pod.uid, &pod.owner, taken, node);
        self.pods.push(pod.key.clone());
    }

    fn decide(&mut self, pod: &PodInfo) -> Result<(), TestCaseError> {
        match self.choose(pod)? {
            Ok(choice) => self.put(pod, &choice.node),
            Err(_) => self.failed += 1,
        }
        Ok(())
    }

    /// What both ways decide.
    fn choose(&mut self, pod: &PodInfo) -> Result<Result<Choice, Diagnosis>, TestCaseError> {
        let (mut start, mut rng) = (self.start, self.rng.clone());
        let question = pod.question();
        let expected = cycle::choose(&self.profile, &self.snapshot, question, &mut start, &mut rng);
        let choice = self.fast.choose(
            &self.profile,
            &mut self.snapshot,
            pod,
            &mut self.start,
            &mut self.rng,
        );
        prop_assert_eq!(&choice, &expected);
        prop_assert_eq!(self.start, start);
        prop_assert_eq!(&self.rng, &rng);
        Ok(choice)
    }

    fn happen(&mut self, event: &Event) -> Result<(), TestCaseError> {
        match event {
            Event::Nodes { first, count, shape } => {
                for i in 0..*count {
                    let number = usize::from(*first) + usize::from(i);
                    let shape = &self.shapes.nodes[shape % self.shapes.nodes.len()];
                    self.snapshot.set_node(&node(number % 260, shape));
                }
            }
            Event::NodesGone { first, count } => {
                for i in 0..*count {
                    let number = (usize::from(*first) + usize::from(i)) % 260;
                    self.snapshot.remove_node(&format!("n{number:03}"));
                }
            }
            Event::Pods { count, shape, owner } => {
                for _ in 0..*count {
                    let pod = self.pod(*shape, *owner);
                    self.decide(&pod)?;
                }
            }
            Event::PodsGone { every } => {
                let every = usize::from(*every);
                let mut i = 0;
                let snapshot = &mut self.snapshot;
                self.pods.retain(|key| {
                    i += 1;
                    i % every != 0 || !snapshot.remove_pod(key)
                });
            }
            Event::Put { node, shape, owner } => {
                let pod = self.pod(*shape, *owner);
                self.put(&pod, &format!("n{:03}", usize::from(*node)));
            }
        }
        Ok(())
    }

    /// Whether the sums that are kept are those of the pods and nodes there are.
    fn check(&self) -> Result<(), TestCaseError> {
        let kept: usize = self.fast.rankings.values().map(|kept| kept.ranking.len()).sum();
        prop_assert_eq!(kept, self.fast.nodes);
        prop_assert!(self.fast.rankings.len() <= self.fast.limits.rankings);
        let pods: i64 = (0..self.snapshot.rows())
            .map(|id| self.snapshot.row(u32::try_from(id).unwrap()).pods)
            .sum();
        prop_assert_eq!(pods, self.pods.len() as i64);
        Ok(())
    }
}

fn limits() -> impl Strategy<Value = Limits> {
    (1..6_usize, 300..2000_usize, 0..40_usize).prop_map(|(rankings, nodes, few)| Limits {
        rankings,
        nodes,
        few,
        priced: nodes,
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 96,
        failure_persistence: Some(Box::new(FileFailurePersistence::SourceParallel(
            "proptest-regressions",
        ))),
        ..ProptestConfig::default()
    })]

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
    let kept = both.fast.rankings.values().next().unwrap();
    assert!(kept.ranking.overflown && Arc::strong_count(&kept.ranking.class) > 1);
}
