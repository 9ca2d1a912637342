//! What random clusters are made of. Shapes are few, so that what is kept of them is used again.

use api::Key;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use scheduler::ProfileConfig;
use scheduler::group::{GROUP, MIN_AVAILABLE};
use scheduler::plugin_args::{LEAST_ALLOCATED, MOST_ALLOCATED, PluginArgs, ScoringStrategy};
use serde_json::{Value, json};

/// So many profiles a scheduler has.
pub(crate) const PROFILES: usize = 3;
const NAMESPACES: [&str; 3] = ["d", "e", "f"];
const ZONE: &str = "topology.kubernetes.io/zone";
const HOST: &str = "kubernetes.io/hostname";
const GPU: &str = "example.com/gpu";
const KEYS: [&str; 4] = [ZONE, HOST, "rack", "disk"];
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
/// Groups get another name after so many pods, so that most are whole at some time.
const GROUP_PODS: usize = 6;

type Rng = ChaCha8Rng;

fn one_of<'a, T>(rng: &mut Rng, list: &'a [T]) -> &'a T {
    &list[rng.random_range(0..list.len())]
}

fn chance(rng: &mut Rng, percent: u32) -> bool {
    rng.random_range(0..100) < percent
}

pub(crate) fn scheduler_name(number: usize) -> String {
    if number == 0 { "default-scheduler".to_owned() } else { format!("scheduler-{number}") }
}

pub(crate) fn node_name(number: usize) -> String {
    format!("n{number:03}")
}

/// Plugins and weights of a profile.
pub(crate) fn profile(rng: &mut Rng) -> ProfileConfig {
    const NAMES: [&str; 6] = [
        "NodeResourcesFit",
        "PodTopologySpread",
        "InterPodAffinity",
        "TaintToleration",
        "ImageLocality",
        "NodeVolumeLimits",
    ];
    let mut profile = ProfileConfig::default();
    if chance(rng, 40) {
        profile.percentage_of_nodes_to_score = Some(rng.random_range(1..=100));
    }
    let strategy = if chance(rng, 50) { LEAST_ALLOCATED } else { MOST_ALLOCATED };
    profile.args.fit.scoring_strategy = ScoringStrategy::named(strategy);
    if chance(rng, 50) {
        profile.args = args(rng);
    }
    if chance(rng, 15) {
        profile.unfiltered.push((*one_of(rng, &NAMES[..4])).to_owned());
    }
    for _ in 0..rng.random_range(0..3) {
        let name = (*one_of(rng, &NAMES[..5])).to_owned();
        profile.weights.insert(name, rng.random_range(0..8));
    }
    if chance(rng, 30) {
        profile.disabled.push((*one_of(rng, &NAMES)).to_owned());
    }
    if chance(rng, 60) {
        profile.enabled.push("Coscheduling".to_owned());
    }
    profile
}

/// What plugins are told that are told anything.
fn args(rng: &mut Rng) -> PluginArgs {
    let mut args = json!({"interPodAffinity": {"hardPodAffinityWeight": rng.random_range(0..=100),
        "ignorePreferredTermsOfExistingPods": chance(rng, 30)}});
    let resources = json!([{"name": "cpu", "weight": rng.random_range(1..4)},
        {"name": "memory", "weight": 1}, {"name": GPU, "weight": 5},
        {"name": "ephemeral-storage", "weight": 1}]);
    let resources = &resources.as_array().expect("four")[..rng.random_range(1..=4)];
    args["fit"]["scoringStrategy"] = match rng.random_range(0..3) {
        0 => json!({"type": "RequestedToCapacityRatio", "resources": resources,
            "requestedToCapacityRatio": {"shape": [{"utilization": 0, "score": 0},
                {"utilization": 40, "score": 10}, {"utilization": 100, "score": 3}]}}),
        kind => json!({"type": if kind == 1 { LEAST_ALLOCATED } else { MOST_ALLOCATED },
            "resources": resources}),
    };
    if chance(rng, 50) {
        let names: Vec<Value> = resources.iter().map(|r| json!({"name": r["name"]})).collect();
        args["balancedAllocation"]["resources"] = json!(names);
    }
    if chance(rng, 30) {
        args["fit"]["ignoredResources"] = json!([GPU]);
    }
    if chance(rng, 30) {
        args["topologySpread"] = json!({"defaultingType": "List", "defaultConstraints": [
            {"maxSkew": 2, "topologyKey": one_of(rng, &KEYS),
                "whenUnsatisfiable": one_of(rng, &["DoNotSchedule", "ScheduleAnyway"])}]});
    }
    if chance(rng, 20) {
        args["nodeAffinity"]["addedAffinity"] = json!({
            REQUIRED: {"nodeSelectorTerms": [labelled(rng), labelled(rng)]},
            PREFERRED: [{"weight": 3, "preference": labelled(rng)}]});
    }
    if chance(rng, 30) {
        args["defaultPreemption"] = json!({"minCandidateNodesPercentage": rng.random_range(0..20),
            "minCandidateNodesAbsolute": rng.random_range(1..5)});
    }
    serde_json::from_value(args).expect("arguments of plugins")
}

/// A term that looks at labels of nodes.
fn labelled(rng: &mut Rng) -> Value {
    let value = || json!(["d1"]);
    let wanted = match rng.random_range(0..6) {
        0 => json!({"key": "disk", "operator": "NotIn", "values": value()}),
        1 => json!({"key": ZONE, "operator": "Exists"}),
        2 => json!({"key": ZONE, "operator": "DoesNotExist"}),
        3 => json!({"key": "cores", "operator": "Gt", "values": ["3"]}),
        4 => json!({"key": "cores", "operator": "Lt", "values": ["6"]}),
        _ => json!({"key": "disk", "operator": "In", "values": ["d0", "d2"]}),
    };
    json!({"matchExpressions": [wanted]})
}

pub(crate) fn namespace(rng: &mut Rng) -> Value {
    let labels = match rng.random_range(0..3) {
        0 => json!({}),
        team => json!({"team": format!("t{team}")}),
    };
    json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": one_of(rng, &NAMESPACES), "labels": labels}})
}

pub(crate) fn service(rng: &mut Rng) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {
            "name": format!("s{}", rng.random_range(0..2)), "namespace": one_of(rng, &NAMESPACES)},
        "spec": {"selector": {"app": format!("a{}", rng.random_range(0..3))}}})
}

pub(crate) fn budget(rng: &mut Rng) -> Value {
    let app = rng.random_range(0..3);
    json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"name": format!("b{app}"), "namespace": one_of(rng, &NAMESPACES)},
        "spec": {"selector": {"matchLabels": {"app": format!("a{app}")}}},
        "status": {"disruptionsAllowed": rng.random_range(0..3), "currentHealthy": 1,
            "desiredHealthy": 1, "expectedPods": 1}})
}

/// A volume of a driver on a node, for a claim.
pub(crate) fn volume(name: &str, claim: &Key, node: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
            "storageClassName": "s", "csi": {"driver": "disk.x", "volumeHandle": name},
            "claimRef": {"namespace": &*claim.namespace, "name": &*claim.name,
                "uid": format!("u-{}-{}", claim.namespace, claim.name)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchFields": [
                {"key": "metadata.name", "operator": "In", "values": [node]}]}]}}},
        "status": {"phase": "Bound"}})
}

/// Templates of pods and nodes.
pub(crate) struct Shapes {
    pods: Vec<Value>,
    nodes: Vec<Value>,
}

impl Shapes {
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        // Half of the clusters have no terms: others are decided about in another way.
        let related = chance(rng, 50);
        let pods = (0..rng.random_range(2..7)).map(|_| pod(rng, related)).collect();
        let nodes = (0..rng.random_range(1..6)).map(|_| node(rng)).collect();
        Self { pods, nodes }
    }

    /// The number of a pod's template.
    pub(crate) fn pick(&self, rng: &mut Rng) -> usize {
        rng.random_range(0..self.pods.len())
    }

    /// A pod, after what it needs.
    pub(crate) fn pod(&self, shape: usize, number: usize) -> Vec<Value> {
        let mut pod = self.pods[shape].clone();
        let namespace = pod["metadata"]["namespace"].as_str().expect("it has one").to_owned();
        pod["metadata"]["name"] = json!(format!("p{number}"));
        pod["metadata"]["uid"] = json!(format!("u{number}"));
        if !pod["metadata"]["labels"][GROUP].is_null() {
            let group = format!("g{shape}-{}", number / GROUP_PODS);
            pod["metadata"]["labels"][GROUP] = json!(group);
        }
        let mut objects = Vec::new();
        if let Some(claim) = pod.pointer_mut("/spec/volumes/0/persistentVolumeClaim/claimName") {
            let shared = claim == SHARED;
            let name = if shared { format!("s{shape}") } else { format!("c{number}") };
            let modes = if shared { "ReadWriteOncePod" } else { "ReadWriteOnce" };
            *claim = json!(name);
            objects.push(json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
                "metadata": {"name": "s"}, "provisioner": "disk.x",
                "volumeBindingMode": "WaitForFirstConsumer"}));
            objects.push(json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "metadata": {"name": name, "namespace": namespace,
                    "uid": format!("u-{namespace}-{name}")},
                "spec": {"accessModes": [modes], "storageClassName": "s",
                    "resources": {"requests": {"storage": "1Gi"}}},
                "status": {"phase": "Pending"}}));
        }
        objects.push(pod);
        objects
    }

    /// A node, and how many volumes it takes.
    pub(crate) fn node(&self, number: usize, rng: &mut Rng) -> (Value, Value) {
        let name = node_name(number);
        let mut node = one_of(rng, &self.nodes).clone();
        node["metadata"]["name"] = json!(name);
        let labels = &mut node["metadata"]["labels"];
        if labels[HOST].is_null() {
            labels[HOST] = json!(name);
        }
        labels["rack"] = json!(format!("r{}", number / 3));
        let drivers = match number % 3 {
            0 => json!([]),
            count => json!([{"name": "disk.x", "nodeID": name, "allocatable": {"count": count}}]),
        };
        let limits = json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSINode",
            "metadata": {"name": name}, "spec": {"drivers": drivers}});
        (node, limits)
    }
}

fn node(rng: &mut Rng) -> Value {
    let mut labels = json!({"disk": format!("d{}", rng.random_range(0..3)),
        "cores": rng.random_range(1..9).to_string()});
    if chance(rng, 80) {
        labels[ZONE] = json!(one_of(rng, &["a", "b", "c"]));
    }
    if chance(rng, 10) {
        labels[HOST] = json!("shared");
    }
    let taints = match rng.random_range(0..10) {
        2 => json!([{"key": "team", "value": "b", "effect": "NoExecute"}]),
        3 => json!([{"key": "team", "value": "a", "effect": "PreferNoSchedule"},
            {"key": "soft", "effect": "PreferNoSchedule"}]),
        0 => json!([{"key": "team", "value": "a", "effect": "NoSchedule"}]),
        1 => json!([{"key": "soft", "effect": "PreferNoSchedule"}]),
        _ => json!([]),
    };
    let images: Vec<Value> = (0..rng.random_range(0..3))
        .map(|i| json!({"names": [format!("i{i}:latest")], "sizeBytes": 300 << 20}))
        .collect();
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"labels": labels},
        "spec": {"taints": taints, "unschedulable": chance(rng, 5)},
        "status": {"images": images, "allocatable": {
            "cpu": rng.random_range(1..9).to_string(),
            "memory": format!("{}Gi", rng.random_range(1..12)),
            "ephemeral-storage": format!("{}Gi", rng.random_range(2..9)),
            (GPU): rng.random_range(0..5).to_string(),
            "pods": rng.random_range(2..30).to_string()}}})
}

fn pod(rng: &mut Rng, related: bool) -> Value {
    let mut spec = json!({"priority": rng.random_range(-1..3),
        "schedulerName": scheduler_name(rng.random_range(0..PROFILES)),
        "containers": [{"name": "c", "image": format!("i{}", rng.random_range(0..3)),
            "resources": {"requests": {
                "cpu": format!("{}m", 100 * rng.random_range(0..12)),
                "memory": format!("{}Mi", 200 * rng.random_range(0..5))}}}]});
    if chance(rng, 10) {
        spec["preemptionPolicy"] = json!("Never");
    }
    if chance(rng, 10) {
        spec["containers"][0]["ports"] = json!([{"containerPort": 80, "hostPort": 80}]);
    }
    let requests = &mut spec["containers"][0]["resources"]["requests"];
    if chance(rng, 15) {
        requests[GPU] = json!(rng.random_range(1..3).to_string());
    }
    if chance(rng, 15) {
        requests["ephemeral-storage"] = json!(format!("{}Gi", rng.random_range(1..4)));
    }
    if chance(rng, 10) {
        spec["overhead"] = json!({"cpu": "150m", "memory": "100Mi"});
    }
    if chance(rng, 15) {
        let policy = if chance(rng, 50) { json!("Always") } else { Value::Null };
        spec["initContainers"] = json!([{"name": "i", "image": "i2", "restartPolicy": policy,
            "resources": {"requests": {"cpu": "700m"}}}]);
    }
    match rng.random_range(0..5) {
        0 | 1 => spec["tolerations"] = json!([{"key": "team", "operator": "Exists"}]),
        2 => {
            spec["tolerations"] = json!([{"key": "team", "value": "a", "effect": "NoSchedule"},
                {"key": "soft", "operator": "Exists", "effect": "PreferNoSchedule"}]);
        }
        _ => {}
    }
    if chance(rng, 15) {
        spec["nodeSelector"] = json!({"disk": "d1"});
    }
    if chance(rng, 15) {
        spec["affinity"]["nodeAffinity"][REQUIRED] =
            json!({"nodeSelectorTerms": [labelled(rng), labelled(rng)]});
    }
    let disk = |disk: u32| json!({"matchExpressions": [{"key": "disk", "operator": "In", "values": [format!("d{disk}")]}]});
    if chance(rng, 30) {
        spec["affinity"]["nodeAffinity"][PREFERRED] = json!([
            {"weight": 5, "preference": disk(rng.random_range(0..3))},
            {"weight": 9, "preference": disk(rng.random_range(0..3))}]);
    }
    if chance(rng, 12) {
        let terms: Vec<Value> = (0..rng.random_range(1..3)).map(|_| naming(rng)).collect();
        spec["affinity"]["nodeAffinity"][REQUIRED] = json!({"nodeSelectorTerms": terms});
    }
    match rng.random_range(0..100) {
        0..10 => spec["volumes"] = claim(OWN),
        10..18 => spec["volumes"] = claim(SHARED),
        18..30 => spec["volumes"] = json!([disk_of(rng)]),
        _ => {}
    }
    if related {
        relate(rng, &mut spec);
    }
    let mut labels = json!({"app": format!("a{}", rng.random_range(0..3))});
    if chance(rng, 20) {
        labels[GROUP] = json!("g");
        labels[MIN_AVAILABLE] = json!(rng.random_range(2..6).to_string());
    }
    json!({"apiVersion": "v1", "kind": "Pod", "spec": spec,
        "metadata": {"namespace": one_of(rng, &NAMESPACES), "labels": labels}})
}

/// Whether each pod of a shape has a claim, or all have one that one pod may use.
const OWN: &str = "own";
const SHARED: &str = "shared";

fn claim(kind: &str) -> Value {
    json!([{"name": "v", "persistentVolumeClaim": {"claimName": kind}}])
}

/// A disk that a node bears once, unless all read it.
fn disk_of(rng: &mut Rng) -> Value {
    let (number, reads) = (rng.random_range(0..2), chance(rng, 40));
    let name = format!("x{number}");
    match rng.random_range(0..4) {
        0 => json!({"name": "v", "gcePersistentDisk": {"pdName": name, "readOnly": reads}}),
        1 => json!({"name": "v", "awsElasticBlockStore": {"volumeID": name}}),
        2 => json!({"name": "v", "iscsi": {"targetPortal": "t", "iqn": name, "lun": 0,
            "readOnly": reads}}),
        _ => json!({"name": "v", "rbd": {"monitors": [name, "m"], "image": "i",
            "readOnly": reads}}),
    }
}

/// A term that names nodes, mostly: in one list or two, which may have none in common.
fn naming(rng: &mut Rng) -> Value {
    let lists: Vec<Value> = (0..rng.random_range(1..3))
        .map(|_| {
            let count = *one_of(rng, &[1, 1, 2, 40]);
            let names: Vec<_> = (0..count).map(|_| node_name(rng.random_range(0..90))).collect();
            json!({"key": "metadata.name", "operator": "In", "values": names})
        })
        .collect();
    let disk = json!([{"key": "disk", "operator": "In", "values": ["d1", "d2"]}]);
    match rng.random_range(0..8) {
        0 => json!({"matchExpressions": disk}),
        1 => json!({"matchExpressions": disk, "matchFields": lists}),
        _ => json!({"matchFields": lists}),
    }
}

fn relate(rng: &mut Rng, spec: &mut Value) {
    for (kind, percent) in [("podAffinity", 15), ("podAntiAffinity", 20)] {
        if chance(rng, percent) {
            spec["affinity"][kind][REQUIRED] = json!([term(rng)]);
        }
        if chance(rng, 25) {
            spec["affinity"][kind][PREFERRED] =
                json!([{"weight": rng.random_range(1..=100), "podAffinityTerm": term(rng)}]);
        }
    }
    let constraints: Vec<Value> = (0..rng.random_range(0..3)).map(|_| constraint(rng)).collect();
    spec["topologySpreadConstraints"] = json!(constraints);
}

fn selector(rng: &mut Rng) -> Value {
    match rng.random_range(0..5) {
        0 => json!({}),
        1 => json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["a1"]}]}),
        _ => json!({"matchLabels": {"app": format!("a{}", rng.random_range(0..3))}}),
    }
}

fn term(rng: &mut Rng) -> Value {
    let mut term = json!({"topologyKey": one_of(rng, &KEYS), "labelSelector": selector(rng)});
    match rng.random_range(0..6) {
        0 => term["namespaces"] = json!(["e", "f"]),
        1 => term["namespaceSelector"] = json!({}),
        2 => term["namespaceSelector"] = json!({"matchLabels": {"team": "t1"}}),
        3 => term["matchLabelKeys"] = json!(["app"]),
        4 => term["mismatchLabelKeys"] = json!(["app"]),
        _ => {}
    }
    term
}

fn constraint(rng: &mut Rng) -> Value {
    let hard = chance(rng, 50);
    let mut constraint = json!({"topologyKey": one_of(rng, &KEYS), "labelSelector": selector(rng),
        "maxSkew": rng.random_range(1..4),
        "whenUnsatisfiable": if hard { "DoNotSchedule" } else { "ScheduleAnyway" }});
    if hard && chance(rng, 40) {
        constraint["minDomains"] = json!(rng.random_range(1..5));
    }
    if chance(rng, 30) {
        constraint["nodeTaintsPolicy"] = json!("Honor");
    }
    if chance(rng, 30) {
        constraint["nodeAffinityPolicy"] = json!("Ignore");
    }
    if chance(rng, 20) {
        constraint["matchLabelKeys"] = json!(["app"]);
    }
    constraint
}
