//! Several profiles with random plugins, weights and arguments, deciding in turns on one cluster.

use k8s_openapi::api::core::v1::TopologySpreadConstraint;
use proptest::collection::vec;

use super::*;
use crate::desk::{Desk, SchedulerConfig};
use crate::plugin_args::{
    InterPodAffinityArgs, LIST_DEFAULTING, PodTopologySpreadArgs, REQUESTED_TO_CAPACITY_RATIO,
    RequestedToCapacityRatio, ResourceSpec, ShapePoint,
};

const SCORING: [&str; 7] = [
    "TaintToleration",
    "NodeAffinity",
    "NodeResourcesFit",
    "PodTopologySpread",
    "InterPodAffinity",
    "NodeResourcesBalancedAllocation",
    "ImageLocality",
];
const FILTERING: [&str; 8] = [
    "NodeUnschedulable",
    "NodeName",
    "TaintToleration",
    "NodeAffinity",
    "NodePorts",
    "NodeResourcesFit",
    "PodTopologySpread",
    "InterPodAffinity",
];
const RESOURCES: [&str; 4] = ["cpu", "memory", "ephemeral-storage", "x.y/gpu"];

/// Different names, so that each is there once.
fn resources(weight_max: i64) -> impl Strategy<Value = Vec<ResourceSpec>> {
    let weights = vec(0..=weight_max, RESOURCES.len());
    (prop::sample::subsequence(&RESOURCES[..], 0..=RESOURCES.len()), weights).prop_map(
        |(names, weights)| {
            let named = names.into_iter().zip(weights);
            named.map(|(name, weight)| ResourceSpec { name: name.to_owned(), weight }).collect()
        },
    )
}

fn strategy() -> impl Strategy<Value = ScoringStrategy> {
    let shape = (prop::sample::subsequence((0..=100).collect::<Vec<i32>>(), 1..6), vec(0..=10, 6));
    (0..3_usize, resources(100), shape).prop_map(|(kind, resources, (points, scores))| {
        let kinds = [LEAST_ALLOCATED, MOST_ALLOCATED, REQUESTED_TO_CAPACITY_RATIO];
        let shape = points
            .into_iter()
            .zip(scores)
            .map(|(utilization, score)| ShapePoint { utilization, score })
            .collect();
        ScoringStrategy {
            kind: kinds[kind].to_owned(),
            resources,
            requested_to_capacity_ratio: (kind == 2).then_some(RequestedToCapacityRatio { shape }),
        }
    })
}

/// Affinity of all pods of a profile to some disks.
fn added() -> impl Strategy<Value = Value> {
    let term = |disk: u8| json!({"matchExpressions": [{"key": "disk", "operator": "In", "values": [format!("d{disk}")]}]});
    (vec(0..3_u8, 0..3), vec((0..3_u8, 1..100), 0..3)).prop_map(move |(required, preferred)| {
        let mut affinity = json!({});
        if !required.is_empty() {
            let terms: Vec<Value> = required.into_iter().map(term).collect();
            affinity["requiredDuringSchedulingIgnoredDuringExecution"] =
                json!({"nodeSelectorTerms": terms});
        }
        let preferred: Vec<Value> = preferred
            .into_iter()
            .map(|(disk, weight)| json!({"weight": weight, "preference": term(disk)}))
            .collect();
        affinity["preferredDuringSchedulingIgnoredDuringExecution"] = json!(preferred);
        affinity
    })
}

/// Constraints of pods that have none; none for those of the system.
fn defaults() -> impl Strategy<Value = Option<PodTopologySpreadArgs>> {
    let keys = ["kubernetes.io/hostname", "topology.kubernetes.io/zone", "disk"];
    let constraint = (prop::sample::select(keys.to_vec()), 1..4_i32, any::<bool>()).prop_map(
        |(key, max_skew, hard)| TopologySpreadConstraint {
            max_skew,
            topology_key: key.to_owned(),
            when_unsatisfiable: if hard { "DoNotSchedule" } else { "ScheduleAnyway" }.to_owned(),
            ..TopologySpreadConstraint::default()
        },
    );
    // Each pair of key and kind may be there once.
    let list = vec(constraint, 0..4).prop_map(|mut all| {
        all.sort_by(|a, b| {
            (&a.topology_key, &a.when_unsatisfiable).cmp(&(&b.topology_key, &b.when_unsatisfiable))
        });
        all.dedup_by(|a, b| {
            a.topology_key == b.topology_key && a.when_unsatisfiable == b.when_unsatisfiable
        });
        PodTopologySpreadArgs {
            default_constraints: all,
            defaulting_type: LIST_DEFAULTING.to_owned(),
        }
    });
    prop::option::of(list)
}

/// How affinity between pods counts.
fn between() -> impl Strategy<Value = InterPodAffinityArgs> {
    (0..=100_i32, any::<bool>()).prop_map(|(weight, ignores)| InterPodAffinityArgs {
        hard_pod_affinity_weight: weight,
        ignore_preferred_terms_of_existing_pods: ignores,
    })
}

fn args() -> impl Strategy<Value = PluginArgs> {
    let ignored = prop::sample::subsequence(vec!["x.y/gpu", "x.y/other"], 0..=2);
    let groups = prop::sample::subsequence(vec!["x.y", "y.z"], 0..=1);
    let pods = (defaults(), between());
    (strategy(), ignored, groups, resources(1), prop::option::of(added()), pods).prop_map(
        |(strategy, ignored, groups, balanced, added, (defaults, between))| {
            let mut args = PluginArgs { inter_pod_affinity: between, ..PluginArgs::default() };
            args.topology_spread = defaults.unwrap_or_default();
            args.fit.scoring_strategy = strategy;
            args.fit.ignored_resources = ignored.into_iter().map(str::to_owned).collect();
            args.fit.ignored_resource_groups = groups.into_iter().map(str::to_owned).collect();
            args.balanced_allocation.resources = balanced;
            args.node_affinity.added_affinity = added.map(|a| serde_json::from_value(a).unwrap());
            args
        },
    )
}

fn any_profile() -> impl Strategy<Value = ProfileConfig> {
    let some = |names: &'static [&'static str], most: usize| {
        prop::sample::subsequence(names, 0..=most)
            .prop_map(|names| names.into_iter().map(str::to_owned).collect::<Vec<_>>())
    };
    let weights =
        proptest::collection::btree_map(prop::sample::select(&SCORING[..]), 0..200_i64, 0..6);
    (
        prop_oneof![3 => Just(None), 2 => (1..=100_usize).prop_map(Some)],
        weights,
        some(&FILTERING, 3),
        some(&SCORING, 2),
        args(),
    )
        .prop_map(|(percentage, weights, unfiltered, disabled, args)| ProfileConfig {
            enabled: Vec::new(),
            name: String::new(),
            percentage_of_nodes_to_score: percentage,
            weights: weights.into_iter().map(|(name, w)| (name.to_owned(), w)).collect(),
            disabled,
            unfiltered,
            args,
        })
}

/// Pods that ask for what the other shapes do not: disk and GPUs.
#[derive(Clone, Copy, Debug)]
struct Extra {
    disk: u8,
    gpus: u8,
}

/// A cluster in which pods choose among profiles; all decisions are taken twice.
struct Profiles {
    both: Both,
    desk: Desk,
    extras: Vec<Extra>,
}

impl Profiles {
    fn new(shapes: Shapes, configs: Vec<ProfileConfig>, extras: Vec<Extra>) -> Self {
        let named = configs.into_iter().enumerate();
        let profiles = named
            .map(|(i, config)| ProfileConfig { name: format!("profile-{i}"), ..config })
            .collect();
        let config = SchedulerConfig { profiles, ..SchedulerConfig::default() };
        Self {
            both: Both::new(shapes, &ProfileConfig::default(), LIMITS),
            desk: Desk::new(&config).unwrap(),
            extras,
        }
    }

    fn pod(&mut self, shape: usize, owner: u8) -> (Pod, PodInfo) {
        let both = &mut self.both;
        both.made += 1;
        let mut made = pod(&both.shapes.pods[shape % both.shapes.pods.len()], owner, both.made);
        let extra = self.extras[shape % self.extras.len()];
        let spec = made.spec.as_mut().unwrap();
        let resources = spec.containers[0].resources.get_or_insert_default();
        let requests = resources.requests.get_or_insert_default();
        let quantity = k8s_openapi::apimachinery::pkg::api::resource::Quantity;
        if extra.disk > 0 {
            requests.insert("ephemeral-storage".into(), quantity(format!("{}Gi", extra.disk)));
        }
        if extra.gpus > 0 {
            requests.insert("x.y/gpu".into(), quantity(extra.gpus.to_string()));
        }
        let info = PodInfo::of(&made, &mut both.classes).unwrap();
        (made, info)
    }

    fn happen(&mut self, event: &Event, turn: usize) -> Result<(), TestCaseError> {
        match event {
            Event::Nodes { first, count, shape } => {
                for i in 0..usize::from(*count) {
                    let number = (usize::from(*first) + i) % 260;
                    let shape = &self.both.shapes.nodes[shape % self.both.shapes.nodes.len()];
                    let mut node = node(number, shape);
                    let quantity = k8s_openapi::apimachinery::pkg::api::resource::Quantity;
                    let status = node.status.get_or_insert_default();
                    let allocatable = status.allocatable.get_or_insert_default();
                    allocatable.insert("ephemeral-storage".into(), quantity("20Gi".into()));
                    if shape.disk > 0 {
                        allocatable
                            .insert("x.y/gpu".into(), quantity((2 * shape.disk).to_string()));
                    }
                    self.both.snapshot.set_node(&node);
                }
            }
            Event::Pods { count, shape, owner } => {
                for i in 0..usize::from(*count) {
                    let (pod, info) = self.pod(*shape, *owner);
                    self.decide((turn + i) % self.desk.names().count(), pod, &info)?;
                }
            }
            other => self.both.happen(other)?,
        }
        Ok(())
    }

    fn decide(&mut self, profile: usize, pod: Pod, info: &PodInfo) -> Result<(), TestCaseError> {
        let Both { snapshot, start, rng, .. } = &mut self.both;
        let (mut expected_start, mut expected_rng) = (*start, rng.clone());
        let question = info.question();
        let expected = cycle::choose(
            self.desk.profile(profile),
            snapshot,
            question,
            &mut expected_start,
            &mut expected_rng,
        );
        let choice = self.desk.choose(profile, snapshot, info, start, rng);
        prop_assert_eq!(&choice, &expected);
        prop_assert_eq!((*start, &*rng), (expected_start, &expected_rng));
        if let Ok(choice) = choice {
            self.both.put(pod, &choice.node);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: Some(Box::new(FileFailurePersistence::SourceParallel(
            "proptest-regressions",
        ))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_profile_decides_as_the_reference_does(
        shapes in shapes_with_relations(),
        configs in vec(any_profile(), 1..4),
        extras in vec((0..4_u8, 0..3_u8).prop_map(|(disk, gpus)| Extra { disk, gpus }), 1..4),
        events in vec(event(), 1..50),
    ) {
        let mut profiles = Profiles::new(shapes, configs, extras);
        for (turn, event) in events.iter().enumerate() {
            profiles.happen(event, turn)?;
        }
    }
}
