//! Affinity and spreading as the documentation of Kubernetes explains them.

use std::collections::BTreeMap;

use api::{Key, Kind, Pod, codec};
use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

use super::*;
use crate::cycle::{reject, scores_of};
use crate::pod_info::{Classes, PodInfo};
use crate::profile::Profile;
use crate::relations::ZONE;

/// A cluster of nodes with labels and pods on them.
#[derive(Default)]
struct Cluster {
    snapshot: Snapshot,
    classes: Classes,
    pods: usize,
}

impl Cluster {
    /// Nodes with a host name and a zone each; none where it is empty.
    fn new(nodes: &[(&str, &str)]) -> Self {
        let mut cluster = Self::default();
        for (name, zone) in nodes {
            let zone = json!({"topology.kubernetes.io/zone": zone});
            cluster.node(
                name,
                if zone["topology.kubernetes.io/zone"] == "" { json!({}) } else { zone },
            );
        }
        cluster
    }

    fn node(&mut self, name: &str, mut labels: Value) {
        labels[HOSTNAME] = json!(name);
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": labels},
            "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "100"}}}))
        .unwrap();
        self.snapshot.set_node(&node);
    }

    fn info(&mut self, pod: &Value) -> (Pod, PodInfo) {
        self.pods += 1;
        let mut pod = pod.clone();
        pod["metadata"]["name"] = json!(format!("p{}", self.pods));
        if pod["metadata"]["namespace"].is_null() {
            pod["metadata"]["namespace"] = json!("d");
        }
        pod["spec"]["containers"] = json!([]);
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let info = PodInfo::of(&pod, &mut self.classes).unwrap();
        (pod, info)
    }

    fn put(&mut self, pod: &Value, node: &str) -> Key {
        let (pod, info) = self.info(pod);
        let presence = self.classes.presence(&pod, pod.spec.as_ref().unwrap());
        self.snapshot.add_pod(&info.key, "u", &presence, &info.class.load, node);
        info.key
    }

    /// The nodes that can take the pod, and why the others cannot, by the last words.
    fn verdicts(&mut self, pod: &Value) -> BTreeMap<String, String> {
        let (_, info) = self.info(pod);
        let profile = Profile::default();
        let question = info.question();
        let survey = Survey::of(&profile.relating, &self.snapshot, question);
        let verdict = |node: &NodeInfo| {
            reject(&profile, &info.class, &survey, node).map_or_else(
                || "fits".to_owned(),
                |rejection| {
                    let words = rejection.reasons.join("; ").replace("node(s) didn't ", "");
                    let hope = if rejection.resolvable { "" } else { " [final]" };
                    format!("{words}{hope}")
                },
            )
        };
        self.snapshot.nodes().map(|node| (node.name.clone(), verdict(node))).collect()
    }

    fn check(&mut self, pod: &Value, expected: &[(&str, &str)]) {
        let found = self.verdicts(pod);
        let found: Vec<_> = found.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(found, expected, "{pod}");
    }

    /// The scores of one plugin, by the names of nodes.
    fn scores(&mut self, plugin: &str, pod: &Value) -> Vec<Score> {
        let (_, info) = self.info(pod);
        let profile = Profile::default();
        let plugin = profile.plugins.iter().find(|p| p.plugin.name() == plugin).unwrap();
        let question = info.question();
        let survey = Survey::of(&profile.relating, &self.snapshot, question);
        let mut nodes = self.snapshot.order().nodes().to_vec();
        nodes.sort_by_key(|node| self.snapshot.row(*node).name.clone());
        scores_of(plugin, &self.snapshot, question, &survey, &nodes)
    }
}

const FITS: &str = "fits";
const SPREAD: &str = "match pod topology spread constraints";
const SPREAD_LABEL: &str = "match pod topology spread constraints (missing required label) [final]";
const AFFINITY: &str = "match pod affinity rules [final]";
const ANTI_AFFINITY: &str = "match pod anti-affinity rules";
const OF_OTHER: &str = "satisfy existing pods anti-affinity rules";

#[expect(clippy::needless_pass_by_value, reason = "callers write it in place")]
fn labelled(labels: Value, spec: Value) -> Value {
    json!({"metadata": {"labels": labels}, "spec": spec})
}

fn constraint(key: &str, action: &str, max_skew: i32) -> Value {
    json!({"maxSkew": max_skew, "topologyKey": key, "whenUnsatisfiable": action,
        "labelSelector": {"matchLabels": {"foo": "bar"}}})
}

#[expect(clippy::needless_pass_by_value, reason = "callers write it in place")]
fn spread(constraints: Value) -> Value {
    labelled(json!({"foo": "bar"}), json!({"topologySpreadConstraints": constraints}))
}

const HARD: &str = "DoNotSchedule";
const SOFT: &str = "ScheduleAnyway";

/// Two zones of two nodes; three pods, two of them in the first zone.
fn of_the_documentation() -> Cluster {
    let zones = [("node1", "A"), ("node2", "A"), ("node3", "B"), ("node4", "B")];
    let mut cluster = Cluster::new(&zones);
    for node in ["node1", "node2", "node3"] {
        cluster.put(&labelled(json!({"foo": "bar"}), json!({})), node);
    }
    // Neither a pod of another namespace counts, nor one that is going.
    let other = json!({"metadata": {"namespace": "e", "labels": {"foo": "bar"}}, "spec": {}});
    let going = json!({"metadata": {"labels": {"foo": "bar"},
        "deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {}});
    for _ in 0..3 {
        cluster.put(&other, "node3");
        cluster.put(&going, "node4");
    }
    cluster
}

#[test]
fn spreads_by_one_constraint_and_by_two() {
    let mut cluster = of_the_documentation();
    let zone = || constraint(ZONE, HARD, 1);
    let expected = [("node1", SPREAD), ("node2", SPREAD), ("node3", FITS), ("node4", FITS)];
    cluster.check(&spread(json!([zone()])), &expected);
    let host = || constraint(HOSTNAME, HARD, 1);
    let expected = [("node1", SPREAD), ("node2", SPREAD), ("node3", SPREAD), ("node4", FITS)];
    cluster.check(&spread(json!([zone(), host()])), &expected);
    let expected = ["node1", "node2", "node3", "node4"].map(|node| (node, FITS));
    cluster.check(&spread(json!([constraint(ZONE, HARD, 2)])), &expected);

    // Two constraints that cannot both be met.
    let mut cluster = Cluster::new(&[("node1", "A"), ("node2", "A"), ("node3", "B")]);
    for node in ["node1", "node1", "node2", "node3", "node3"] {
        cluster.put(&labelled(json!({"foo": "bar"}), json!({})), node);
    }
    let expected = [("node1", SPREAD), ("node2", SPREAD), ("node3", SPREAD)];
    cluster.check(&spread(json!([zone(), host()])), &expected);
    let soft = constraint(HOSTNAME, SOFT, 1);
    let expected = [("node1", SPREAD), ("node2", SPREAD), ("node3", FITS)];
    cluster.check(&spread(json!([zone(), soft])), &expected);
}

#[test]
fn spreads_over_the_nodes_that_count() {
    let mut cluster = of_the_documentation();
    cluster.node("node5", json!({ZONE: "C"}));
    cluster.node("node6", json!({}));
    let mut pod = spread(json!([constraint(ZONE, HARD, 1)]));
    let mut expected = vec![
        ("node1", SPREAD),
        ("node2", SPREAD),
        ("node3", SPREAD),
        ("node4", SPREAD),
        ("node5", FITS),
        ("node6", SPREAD_LABEL),
    ];
    cluster.check(&pod, &expected);
    // A zone where the pod cannot go does not count, unless the constraint says so.
    let excluded = "match Pod's node affinity/selector [final]";
    pod["spec"]["affinity"] = json!({"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": ZONE, "operator": "NotIn", "values": ["C"]}]}]}}});
    (expected[2].1, expected[3].1, expected[4].1) = (FITS, FITS, excluded);
    cluster.check(&pod, &expected);
    pod["spec"]["topologySpreadConstraints"][0]["nodeAffinityPolicy"] = json!("Ignore");
    (expected[2].1, expected[3].1) = (SPREAD, SPREAD);
    cluster.check(&pod, &expected);

    // With fewer domains than wanted the emptiest one counts as empty.
    let mut cluster = of_the_documentation();
    cluster.put(&labelled(json!({"foo": "bar"}), json!({})), "node4");
    let mut pod = spread(json!([constraint(ZONE, HARD, 1)]));
    cluster.check(&pod, &["node1", "node2", "node3", "node4"].map(|node| (node, FITS)));
    pod["spec"]["topologySpreadConstraints"][0]["minDomains"] = json!(3);
    cluster.check(&pod, &["node1", "node2", "node3", "node4"].map(|node| (node, SPREAD)));
}

#[test]
fn spreads_each_revision_for_itself() {
    let mut cluster = Cluster::new(&[("node1", "A"), ("node2", "B")]);
    for _ in 0..3 {
        cluster
            .put(&labelled(json!({"foo": "bar", "pod-template-hash": "old"}), json!({})), "node1");
    }
    let mut pod = spread(json!([constraint(ZONE, HARD, 1)]));
    pod["metadata"]["labels"]["pod-template-hash"] = json!("new");
    cluster.check(&pod, &[("node1", SPREAD), ("node2", FITS)]);
    pod["spec"]["topologySpreadConstraints"][0]["matchLabelKeys"] = json!(["pod-template-hash"]);
    cluster.check(&pod, &[("node1", FITS), ("node2", FITS)]);
}

#[test]
fn a_pod_counts_as_if_it_came_or_left() {
    let mut cluster = of_the_documentation();
    let (_, info) = cluster.info(&spread(json!([constraint(ZONE, HARD, 1)])));
    let profile = Profile::default();
    let question = info.question();
    let snapshot = &cluster.snapshot;
    let mut survey = Survey::of(&profile.relating, snapshot, question);
    let node = |name: &str| snapshot.get(name).unwrap();
    let fits = |survey: &Survey| survey.spread(node("node1")).is_none();
    let other = snapshot.pod(&Key::new(Kind::Pod, "d", "p1")).unwrap().presence;
    assert!(!fits(&survey));
    survey.count(&other, node("node1"), -1);
    assert!(fits(&survey));
    survey.count(&other, node("node2"), 1);
    assert!(!fits(&survey));
    survey.count(&other, node("node3"), 1);
    assert!(fits(&survey));
}

/// By hand: a pod weighs the logarithm of two more than there are domains.
#[test]
fn scores_by_the_pods_around() {
    let plugin = "PodTopologySpread";
    let mut cluster = of_the_documentation();
    // Zones have 2 and 1, each weighs ln 4: 2.77 and 1.39, rounded 3 and 1.
    let pod = spread(json!([constraint(ZONE, SOFT, 1)]));
    assert_eq!(cluster.scores(plugin, &pod), [33, 33, 100, 100]);
    // Nodes have 1, 1, 1 and 0, each weighs ln 6: 1.79, rounded 2, and 0.
    let pod = spread(json!([constraint(HOSTNAME, SOFT, 1)]));
    assert_eq!(cluster.scores(plugin, &pod), [0, 0, 0, 100]);
    // Both, and two and one more for the skew that is allowed: 8 - 0.44, 8 - 0.44, 6.18, 4.39.
    let both = [constraint(ZONE, SOFT, 3), constraint(HOSTNAME, SOFT, 2)];
    assert_eq!(cluster.scores(plugin, &spread(json!(both))), [50, 50, 75, 100]);
    // A node without the key is worth nothing to a pod with a constraint of its own.
    cluster.node("node5", json!({}));
    let pod = spread(json!([constraint(ZONE, SOFT, 1)]));
    assert_eq!(cluster.scores(plugin, &pod), [33, 33, 100, 100, 0]);
    let empty = Cluster::new(&[("node1", "A"), ("node2", "")]).scores(plugin, &pod);
    assert_eq!(empty, [100, 0]);
}

#[test]
fn pods_without_constraints_spread_by_service_and_controller() {
    let plugin = "PodTopologySpread";
    let mut cluster =
        Cluster::new(&[("node1", "A"), ("node2", "A"), ("node3", "B"), ("node4", "")]);
    let labels = json!({"app": "web", "hash": "1"});
    let mut pod = labelled(labels.clone(), json!({}));
    for node in ["node1", "node1", "node3"] {
        cluster.put(&pod, node);
    }
    cluster.put(&labelled(json!({"app": "web", "hash": "2"}), json!({})), "node4");
    assert!(cluster.scores(plugin, &pod).is_empty());
    let set = |cluster: &mut Cluster, object: Value| {
        let object = codec::decode_any(object.to_string().as_bytes()).unwrap();
        assert!(cluster.snapshot.census_mut().selectors.set(&object.key(), Some(&object)));
    };
    set(
        &mut cluster,
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "d", "name": "s"},
            "spec": {"selector": {"app": "web"}}}),
    );
    // Zones A, B and none: 2, 1, 1 pods of weight ln 5; nodes 2, 0, 1, 1 of weight ln 6; the
    // skews of the system's defaults add 4 and 2, and a node without a zone has no part of it.
    // 12.80, 9.22, 9.40 and 3.79, rounded 13, 9, 9 and 4.
    assert_eq!(cluster.scores(plugin, &pod), [30, 61, 61, 100]);
    set(
        &mut cluster,
        json!({"apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {"namespace": "d", "name": "rs"},
            "spec": {"selector": {"matchLabels": {"hash": "1"}}, "template": {}}}),
    );
    assert_eq!(cluster.scores(plugin, &pod), [30, 61, 61, 100]);
    pod["metadata"]["ownerReferences"] = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet",
        "name": "rs", "uid": "u", "controller": true}]);
    // The pod of the other revision counts no longer: the last is 2.
    assert_eq!(cluster.scores(plugin, &pod), [15, 46, 46, 100]);
}

fn term(app: &str, key: &str) -> Value {
    json!({"topologyKey": key, "labelSelector": {"matchExpressions": [
        {"key": "app", "operator": "In", "values": [app]}]}})
}

#[expect(clippy::needless_pass_by_value, reason = "callers write it in place")]
fn required(app: &str, affinity: Value, anti_affinity: Value) -> Value {
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    labelled(
        json!({"app": app}),
        json!({"affinity": {"podAffinity": {required: affinity},
            "podAntiAffinity": {required: anti_affinity}}}),
    )
}

/// Caches on different nodes, and each web server beside a cache, on different nodes.
#[test]
fn web_servers_go_where_caches_are() {
    let mut cluster = Cluster::new(&[("node1", "A"), ("node2", "A"), ("node3", "B")]);
    let cache = required("store", json!([]), json!([term("store", HOSTNAME)]));
    let web = required("web", json!([term("store", HOSTNAME)]), json!([term("web", HOSTNAME)]));
    cluster.check(&web, &["node1", "node2", "node3"].map(|node| (node, AFFINITY)));
    cluster.put(&cache, "node1");
    cluster.check(&cache, &[("node1", ANTI_AFFINITY), ("node2", FITS), ("node3", FITS)]);
    // One that does not mind others is kept away by those that mind it.
    let careless = labelled(json!({"app": "store"}), json!({}));
    cluster.check(&careless, &[("node1", OF_OTHER), ("node2", FITS), ("node3", FITS)]);
    cluster.put(&cache, "node2");
    cluster.put(&web, "node1");
    cluster.check(&web, &[("node1", ANTI_AFFINITY), ("node2", FITS), ("node3", AFFINITY)]);
    // By zone one node with a cache is enough; nodes without a zone are no place.
    cluster.node("node4", json!({}));
    let by_zone = required("web", json!([term("store", ZONE)]), json!([]));
    let expected = [("node1", OF_OTHER), ("node2", FITS), ("node3", AFFINITY), ("node4", AFFINITY)];
    cluster.check(&by_zone, &expected);
    // Where there is no zone, there is nobody of the zone.
    let away = required("x", json!([]), json!([term("store", ZONE)]));
    let expected =
        [("node1", ANTI_AFFINITY), ("node2", ANTI_AFFINITY), ("node3", FITS), ("node4", FITS)];
    cluster.check(&away, &expected);
}

#[test]
fn the_first_of_a_series_has_nobody_to_be_with() {
    let mut cluster = Cluster::new(&[("node1", "A"), ("node2", "B"), ("node3", "")]);
    let together = required("s", json!([term("s", ZONE)]), json!([]));
    cluster.check(&together, &[("node1", FITS), ("node2", FITS), ("node3", AFFINITY)]);
    // Pods that are going are there until they are gone.
    let mut first = together.clone();
    first["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let key = cluster.put(&first, "node2");
    cluster.check(&together, &[("node1", AFFINITY), ("node2", FITS), ("node3", AFFINITY)]);
    cluster.snapshot.remove_pod(&key);
    // Others of which it wants all: one that matches both terms has to be there.
    let both = required("s", json!([term("s", ZONE), term("t", ZONE)]), json!([]));
    cluster.check(&both, &["node1", "node2", "node3"].map(|node| (node, AFFINITY)));
}

#[test]
fn terms_choose_namespaces_by_name_and_by_label() {
    let mut cluster = Cluster::new(&[("node1", "A"), ("node2", "B")]);
    let mut other = required("other", json!([]), json!([]));
    other["metadata"]["namespace"] = json!("e");
    cluster.put(&other, "node1");
    let with = |fields: Value| {
        let mut wanted = term("other", ZONE);
        for (key, value) in fields.as_object().unwrap() {
            wanted[key] = value.clone();
        }
        required("web", json!([wanted]), json!([]))
    };
    let (found, not) =
        ([("node1", FITS), ("node2", AFFINITY)], [("node1", AFFINITY), ("node2", AFFINITY)]);
    cluster.check(&with(json!({})), &not);
    cluster.check(&with(json!({"namespaces": ["e"]})), &found);
    cluster.check(&with(json!({"namespaceSelector": null})), &not);
    cluster.check(&with(json!({"namespaceSelector": {}})), &found);
    let team = json!({"namespaceSelector": {"matchLabels": {"team": "x"}}});
    cluster.check(&with(team.clone()), &not);
    let labels = BTreeMap::from([("team".to_owned(), "x".to_owned())]);
    assert!(cluster.snapshot.census_mut().namespaces.set("e", Some(&labels)));
    cluster.check(&with(team.clone()), &found);
    assert!(cluster.snapshot.census_mut().namespaces.set("e", None));
    cluster.check(&with(team), &not);
    // A term without a selector means nobody, one with an empty selector everybody.
    cluster.check(&with(json!({"namespaces": ["e"], "labelSelector": null})), &not);
    cluster.check(&with(json!({"namespaces": ["e"], "labelSelector": {}})), &found);
}

/// By hand: the sum of weights, from the least to the most.
#[test]
fn scores_by_preferences_of_both_sides() {
    let plugin = "InterPodAffinity";
    let zones = [("node1", "A"), ("node2", "A"), ("node3", "B"), ("node4", "C")];
    let mut cluster = Cluster::new(&zones);
    let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
    let weighted = |weight: i32, term: Value| json!([{"weight": weight, "podAffinityTerm": term}]);
    let liking = labelled(
        json!({"app": "web"}),
        json!({"affinity": {"podAffinity": {preferred: weighted(40, term("store", ZONE))},
            "podAntiAffinity": {preferred: weighted(10, term("web", HOSTNAME))}}}),
    );
    assert!(cluster.scores(plugin, &liking).is_empty());
    cluster.put(&labelled(json!({"app": "store"}), json!({})), "node1");
    cluster.put(&labelled(json!({"app": "web"}), json!({})), "node2");
    // 40, 30, 0 and 0.
    assert_eq!(cluster.scores(plugin, &liking), [100, 75, 0, 0]);
    // A pod that is there likes this one, too (10 less twice), and one has to be beside it (1).
    cluster.put(&liking, "node4");
    let bound = required("x", json!([term("web", HOSTNAME)]), json!([]));
    cluster.put(&bound, "node3");
    // 40, 30, 1 and -20: from -20 to 40.
    assert_eq!(cluster.scores(plugin, &liking), [100, 83, 35, 0]);
    // One that has no preferences is still the object of others'.
    let plain = labelled(json!({"app": "store"}), json!({}));
    assert_eq!(cluster.scores(plugin, &plain), [0, 0, 0, 100]);
    assert!(cluster.scores(plugin, &labelled(json!({}), json!({}))).is_empty());
}
