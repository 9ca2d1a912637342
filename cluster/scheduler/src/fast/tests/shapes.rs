//! What random clusters are made of. Shapes are few, so that what is kept of them is used again.

use std::collections::BTreeMap;

use api::{Key, Kind, Pod};
use k8s_openapi::api::core::v1::Node;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::attachments::{Attachment, Attachments, Volume};

/// Namespaces of pods.
pub(super) const NAMESPACES: [&str; 3] = ["d", "e", "f"];
/// Topology keys; not all nodes have them all.
pub(super) const KEYS: [&str; 4] =
    ["topology.kubernetes.io/zone", "kubernetes.io/hostname", "rack", "disk"];

/// So many claims there are in each namespace.
const CLAIMS: usize = 12;

/// What a cluster is made of.
#[derive(Clone, Debug)]
pub(super) struct Shapes {
    pub(super) nodes: Vec<NodeShape>,
    pub(super) pods: Vec<PodShape>,
}

/// Shapes of pods that have no terms and constraints.
pub(super) fn shapes() -> impl Strategy<Value = Shapes> {
    (vec(node_shape(), 1..6), vec(pod_shape(), 1..4))
        .prop_map(|(nodes, pods)| Shapes { nodes, pods })
}

/// Shapes of pods that have them, and of nodes that mostly have room for more than a few.
pub(super) fn shapes_with_relations() -> impl Strategy<Value = Shapes> {
    let pod = (pod_shape(), relations()).prop_map(|(mut pod, relations)| {
        (pod.cpu, pod.memory) = (pod.cpu / 3, pod.memory / 3);
        // Ports and names keep pods away from nodes whatever others do.
        (pod.port, pod.pinned) = (pod.port + 1, pod.pinned + u8::from(pod.namespace > 0) * 2);
        PodShape { relations, ..pod }
    });
    let node = (node_shape(), 0..4_u8).prop_map(|(mut node, scarce)| {
        if scarce > 0 {
            (node.cpu, node.memory, node.pods) = (3, 3, 3);
            node.cordoned = false;
        }
        node
    });
    (vec(node, 2..6), vec(pod, 2..6)).prop_map(|(nodes, pods)| Shapes { nodes, pods })
}

#[derive(Clone, Debug)]
pub(super) struct NodeShape {
    pub(super) zone: u8,
    pub(super) cpu: u8,
    pub(super) memory: u8,
    pub(super) pods: u8,
    pub(super) taint: u8,
    pub(super) cordoned: bool,
    pub(super) disk: u8,
    pub(super) images: u8,
    /// Gives each of the nodes an image of another size.
    pub(super) sizes_differ: bool,
    /// Three nodes of one rack in a row; none of some shapes.
    pub(super) rack: u8,
    /// What the host name is: that of the node, the same for some nodes, or none.
    pub(super) hostname: u8,
}

#[derive(Clone, Debug)]
pub(super) struct PodShape {
    pub(super) cpu: u8,
    pub(super) memory: u8,
    pub(super) tolerates: u8,
    pub(super) selects: u8,
    pub(super) prefers: u8,
    pub(super) image: u8,
    pub(super) port: u8,
    pub(super) pinned: u8,
    pub(super) app: u8,
    pub(super) namespace: u8,
    pub(super) relations: Relations,
}

/// Terms and constraints.
#[derive(Clone, Debug, Default)]
pub(super) struct Relations {
    affinity: Vec<TermShape>,
    anti_affinity: Vec<TermShape>,
    preferred: Vec<(i32, TermShape)>,
    unpreferred: Vec<(i32, TermShape)>,
    constraints: Vec<ConstraintShape>,
}

#[derive(Clone, Debug)]
struct TermShape {
    selector: u8,
    key: u8,
    namespaces: u8,
}

#[derive(Clone, Debug)]
struct ConstraintShape {
    selector: u8,
    key: u8,
    hard: bool,
    max_skew: u8,
    min_domains: u8,
    honors: (u8, u8),
    by_version: bool,
}

impl Relations {
    /// Those of pods that stay away from others of an app, node by node.
    pub(super) fn away_from(app: u8) -> Self {
        let term = TermShape { selector: app, key: 1, namespaces: 8 };
        Self { anti_affinity: vec![term], ..Self::default() }
    }

    /// Those of pods that must spread over the zones whose taints they tolerate.
    pub(super) fn spread_over_tolerated_zones() -> Self {
        let constraint = ConstraintShape {
            selector: 0,
            key: 0,
            hard: true,
            max_skew: 1,
            min_domains: 0,
            honors: (0, 1),
            by_version: false,
        };
        Self { constraints: vec![constraint], ..Self::default() }
    }
}

fn node_shape() -> impl Strategy<Value = NodeShape> {
    let numbers = (0..4_u8, 0..4_u8, 0..4_u8, 0..4_u8, 0..6_u8, 0..3_u8, 0..4_u8);
    let places = (0..4_u8, 0..8_u8);
    let rare = || proptest::bool::weighted(0.1);
    (numbers, rare(), rare(), places).prop_map(
        |((zone, cpu, memory, pods, taint, disk, images), cordoned, sizes_differ, places)| {
            let (rack, hostname) = places;
            NodeShape {
                zone,
                cpu,
                memory,
                pods,
                taint,
                cordoned,
                disk,
                images,
                sizes_differ,
                rack,
                hostname,
            }
        },
    )
}

fn pod_shape() -> impl Strategy<Value = PodShape> {
    let numbers = (0..4_u8, 0..4_u8, 0..4_u8, 0..6_u8, 0..4_u8, 0..4_u8, 0..12_u8, 0..12_u8);
    (numbers, 0..3_u8, 0..3_u8).prop_map(
        |((cpu, memory, tolerates, selects, prefers, image, port, pinned), app, namespace)| {
            PodShape {
                cpu,
                memory,
                tolerates,
                selects,
                prefers,
                image,
                port,
                pinned,
                app,
                namespace,
                relations: Relations::default(),
            }
        },
    )
}

fn relations() -> impl Strategy<Value = Relations> {
    let term = || {
        (0..7_u8, 0..5_u8, 0..9_u8).prop_map(|(selector, key, namespaces)| TermShape {
            selector,
            key,
            namespaces,
        })
    };
    let few = || prop_oneof![2 => Just(0..1_usize), 1 => Just(1..3)];
    let terms = move || few().prop_flat_map(move |count| vec(term(), count));
    let weighted = move || few().prop_flat_map(move |count| vec((1..=100, term()), count));
    let constraint = (0..7_u8, 0..4_u8, any::<bool>(), 1..4_u8, 0..6_u8, (0..3_u8, 0..3_u8))
        .prop_flat_map(|(selector, key, hard, max_skew, min_domains, honors)| {
            proptest::bool::weighted(0.3).prop_map(move |by_version| ConstraintShape {
                selector,
                key,
                hard,
                max_skew,
                min_domains,
                honors,
                by_version,
            })
        });
    let constraints = prop_oneof![3 => Just(0..1_usize), 2 => Just(1..2), 1 => Just(2..4)]
        .prop_flat_map(move |count| vec(constraint.clone(), count));
    (terms(), terms(), weighted(), weighted(), constraints).prop_map(
        |(affinity, anti_affinity, preferred, unpreferred, constraints)| Relations {
            affinity,
            anti_affinity,
            preferred,
            unpreferred,
            constraints,
        },
    )
}

pub(super) fn node(number: usize, shape: &NodeShape) -> Node {
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
        .map(|i| json!({"names": [format!("i{i}:latest")], "sizeBytes": size << 20}))
        .collect();
    let mut labels = json!({"disk": format!("d{}", shape.disk)});
    // No zone, the empty one, and two others.
    if shape.zone > 0 {
        labels[KEYS[0]] = json!(["", "", "a", "b"][usize::from(shape.zone)]);
    }
    match shape.hostname {
        0 => {}
        1 => labels[KEYS[1]] = json!("shared"),
        _ => labels[KEYS[1]] = json!(format!("n{number:03}")),
    }
    if shape.rack > 0 {
        labels[KEYS[2]] = json!(format!("r{}", number / 3));
    }
    serde_json::from_value(json!({
        "metadata": {"name": format!("n{number:03}"), "labels": labels},
        "spec": {"taints": taint, "unschedulable": shape.cordoned},
        "status": {"images": images, "allocatable": {
            "cpu": (shape.cpu * 2).to_string(),
            "memory": format!("{}Gi", 1 + shape.memory * 3),
            "pods": (2 + shape.pods * 4).to_string()}}}))
    .unwrap()
}

/// How many volumes a node takes of each driver.
pub(super) fn limits_of(shape: &NodeShape) -> BTreeMap<String, usize> {
    let limits: &[(&str, usize)] = match shape.disk {
        0 => &[],
        1 => &[("a.x", 2)],
        _ => &[("a.x", 1), ("b.x", 0)],
    };
    limits.iter().map(|(driver, count)| ((*driver).to_owned(), *count)).collect()
}

/// What the claims of pods stand for: two each for one volume, some for none of a driver.
pub(super) fn attachments() -> Attachments {
    let mut all = Attachments::default();
    for (namespace, number) in NAMESPACES.iter().flat_map(|n| (0..CLAIMS).map(move |i| (n, i))) {
        let driver = match number % 5 {
            0 => continue,
            1 => "b.x".to_owned(),
            _ => "a.x".to_owned(),
        };
        let key = Key::new(Kind::PersistentVolumeClaim, namespace, &format!("c{number}"));
        let volume = Volume::Handle(format!("{namespace}{}", number / 2));
        all.put(key, Attachment { driver, volume });
    }
    all
}

pub(super) fn pod(shape: &PodShape, owner: u8, number: usize) -> Pod {
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
    // Ports that no pod has stand for claims.
    if shape.port == 1 {
        let claim = json!({"claimName": format!("c{}", number % CLAIMS)});
        spec["volumes"] = json!([{"name": "v", "persistentVolumeClaim": claim}]);
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
    match shape.pinned {
        0 => spec["affinity"]["nodeAffinity"][REQUIRED] = pins(&[number % 150]),
        1 => spec["affinity"]["nodeAffinity"][REQUIRED] = pins(&[number % 90, 3, 170]),
        _ => {}
    }
    relate(&mut spec, &shape.relations);
    let mut metadata = json!({"namespace": NAMESPACES[usize::from(shape.namespace)],
        "name": format!("p{number}"), "uid": format!("u{number}"),
        "labels": {"app": format!("a{}", shape.app), "version": format!("v{}", number / 16 % 2)}});
    if owner > 1 {
        let (group, kind) = match owner {
            3 => ("apps/v1", "StatefulSet"),
            4 => ("v1", "ReplicationController"),
            _ => ("apps/v1", "ReplicaSet"),
        };
        metadata["ownerReferences"] = json!([{"apiVersion": group, "kind": kind,
            "name": format!("o{owner}"), "uid": format!("o{owner}"), "controller": true}]);
    }
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
}

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";

fn relate(spec: &mut Value, relations: &Relations) {
    let terms = |shapes: &[TermShape]| shapes.iter().map(term).collect::<Vec<_>>();
    let weighted = |shapes: &[(i32, TermShape)]| {
        let one = |(weight, shape): &(i32, TermShape)| json!({"weight": weight, "podAffinityTerm": term(shape)});
        shapes.iter().map(one).collect::<Vec<_>>()
    };
    let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
    spec["affinity"]["podAffinity"][REQUIRED] = json!(terms(&relations.affinity));
    spec["affinity"]["podAffinity"][preferred] = json!(weighted(&relations.preferred));
    spec["affinity"]["podAntiAffinity"][REQUIRED] = json!(terms(&relations.anti_affinity));
    spec["affinity"]["podAntiAffinity"][preferred] = json!(weighted(&relations.unpreferred));
    let constraints = relations.constraints.iter().map(constraint);
    spec["topologySpreadConstraints"] = constraints.collect();
}

pub(super) fn selector(shape: u8) -> Value {
    let values = |op: &str, values: &[&str]| json!({"matchExpressions": [{"key": "app", "operator": op, "values": values}]});
    match shape {
        0 | 1 => json!({"matchLabels": {"app": format!("a{shape}")}}),
        2 => json!({"matchLabels": {"app": "a2", "version": "v0"}}),
        3 => values("In", &["a0", "a2"]),
        4 => values("NotIn", &["a1"]),
        5 => json!({}),
        _ => Value::Null,
    }
}

fn term(shape: &TermShape) -> Value {
    // Zones more often than others.
    let key = KEYS[usize::from(shape.key) % KEYS.len()];
    let mut term = json!({"topologyKey": key, "labelSelector": selector(shape.selector)});
    match shape.namespaces {
        0 => term["namespaces"] = json!(["e", "f"]),
        1 => term["namespaceSelector"] = json!({}),
        2 => term["namespaceSelector"] = json!({"matchLabels": {"team": "t0"}}),
        3 => {
            term["namespaces"] = json!(["f"]);
            term["namespaceSelector"] = json!({"matchLabels": {"team": "t1"}});
        }
        4 => {
            term["namespaceSelector"] =
                json!({"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]});
        }
        _ => {}
    }
    term
}

fn constraint(shape: &ConstraintShape) -> Value {
    let mut constraint = json!({"topologyKey": KEYS[usize::from(shape.key)],
        "labelSelector": selector(shape.selector), "maxSkew": shape.max_skew,
        "whenUnsatisfiable": if shape.hard { "DoNotSchedule" } else { "ScheduleAnyway" }});
    if shape.hard && shape.min_domains > 0 {
        constraint["minDomains"] = json!(shape.min_domains);
    }
    let policies = [None, Some("Honor"), Some("Ignore")];
    if let Some(policy) = policies[usize::from(shape.honors.0)] {
        constraint["nodeAffinityPolicy"] = json!(policy);
    }
    if let Some(policy) = policies[usize::from(shape.honors.1)] {
        constraint["nodeTaintsPolicy"] = json!(policy);
    }
    if shape.by_version {
        constraint["matchLabelKeys"] = json!(["version", "unknown"]);
    }
    constraint
}
