use serde_json::json;

use super::*;
use crate::check::{Check, Occurrence};
use crate::checks::made_up::{
    Case, merge, node, placed, pod, pod_key, replica, replica_set, replica_set_key,
};

/// Judges nothing: only the cluster is wanted.
#[derive(Clone)]
struct Nothing;

impl Check for Nothing {
    fn property(&self) -> &'static str {
        "P0"
    }

    fn statement(&self) -> &'static str {
        "nothing"
    }

    fn observe(&mut self, _: &dyn Cluster, _: &Occurrence<'_>, _: &mut Vec<String>) {}
}

fn cluster(replica_name: &str, node_name: &str) -> Case<Nothing> {
    let mut case = Case::new(Nothing);
    case.put(None, &node("n1", &json!({})));
    case.put(None, &replica_set(1, 1));
    let mut owned = replica(replica_name, &json!({}));
    merge(&mut owned, &placed(replica_name, node_name, "Running"));
    merge(&mut owned, &json!({"status": {"podIP": "10.0.0.1"}}));
    case.put(None, &owned);
    case.put(None, &pod("bare", &json!({})));
    case.put(
        None,
        &json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "s", "namespace": "d", "uid": "u-s"}, "spec": {}}),
    );
    case.put(
        None,
        &json!({"apiVersion": "v1", "kind": "Endpoints",
            "metadata": {"name": "s", "namespace": "d", "uid": "u-e"},
            "subsets": [{"addresses": [{"ip": "10.0.0.1"}]}]}),
    );
    case
}

#[test]
fn names_and_nodes_do_not_matter() {
    let one = of(&cluster("a", "n1").cluster);
    assert_eq!(one, of(&cluster("b", "n2").cluster));
    assert_eq!(one["replicaSets"]["d/r"]["pods"], json!({"app:1": {"all": 1, "ready": 1}}));
    assert_eq!(one["endpoints"]["d/s"], json!({"replicasets/d/r": 1}));
    assert_eq!(one["pods"]["d/bare"]["bound"], json!(false));
    assert_eq!(one["nodes"]["n1"]["ready"], json!("True"));
}

#[test]
fn what_matters_is_seen() {
    let before = of(&cluster("a", "n1").cluster);
    let differs = |change: &dyn Fn(&mut Case<Nothing>)| {
        let mut case = cluster("a", "n1");
        change(&mut case);
        assert_ne!(before, of(&case.cluster));
    };
    differs(&|case| case.delete(None, &pod_key("a")));
    differs(&|case| case.delete(None, &replica_set_key()));
    differs(&|case| {
        case.put(None, &placed("bare", "n1", "Running"));
    });
    differs(&|case| {
        case.put(None, &node("n1", &json!({"spec": {"unschedulable": true}})));
    });
    differs(&|case| case.delete(None, &Key::new(Kind::Endpoints, "d", "s")));
    differs(&|case| {
        case.put(None, &replica_set(2, 1));
    });
}
