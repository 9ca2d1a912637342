use serde_json::{Value, json};

use super::*;
use crate::checks::made_up::{
    Case, node, one_with, owned, placed, pod, pod_key, replica, replica_set,
};

fn ready(name: &str) -> Value {
    let mut value = replica(name, &json!({}));
    crate::checks::made_up::merge(&mut value, &placed(name, "n1", "Running"));
    value
}

#[test]
fn p27_it_comes_to_rest_with_right_reports() {
    let mut case = Case::new(ComesToRest);
    case.put(None, &replica_set(2, 2));
    case.put(None, &ready("a"));
    case.put(None, &ready("b"));
    assert_eq!(case.at_rest(), Vec::<String>::new());
    case.put(None, &replica("b", &json!({})));
    one_with(&case.at_rest(), &["replicasets/d/r reports 2 ready replicas", "1 is right"]);
    case.delete(None, &pod_key("b"));
    assert_eq!(case.at_rest().len(), 2);
    let mut unseen = replica_set(2, 1);
    unseen["metadata"]["generation"] = json!(2);
    case.put(None, &unseen);
    one_with(&case.at_rest(), &["1 observed generation", "2 is right"]);
    case.cluster.at_rest = false;
    one_with(&case.at_rest(), &["still writes", "15m", "1m"]);
}

#[test]
fn p28_as_many_as_asked_for() {
    let mut case = Case::new(RightNumber);
    case.put(None, &replica_set(1, 1));
    case.put(None, &ready("a"));
    assert_eq!(case.at_rest(), Vec::<String>::new());
    case.put(None, &ready("b"));
    one_with(&case.at_rest(), &["replicasets/d/r has 2 pods at rest and asks for 1"]);
    // What has ended or is going does not count.
    let mut ended = ready("b");
    ended["status"]["phase"] = json!("Failed");
    case.put(None, &ended);
    assert_eq!(case.at_rest(), Vec::<String>::new());
}

fn of(name: &str, kind: &str, owner: &str) -> Value {
    owned(name, "n1", "Running", kind, owner)
}

fn stateful_set(replicas: i64, policy: &str, status: &Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {"name": "s", "namespace": "d", "uid": "u-s", "generation": 1},
        "spec": {"replicas": replicas, "podManagementPolicy": policy, "serviceName": "",
            "selector": {}, "template": {}},
        "status": status})
}

#[test]
fn p27_and_p28_of_stateful_sets() {
    fn pods<C: Check>(case: &mut Case<C>) {
        case.put(None, &of("s-0", "StatefulSet", "s"));
        case.put(None, &owned("s-1", "n1", "Pending", "StatefulSet", "s"));
    }
    let status = json!({"replicas": 2, "readyReplicas": 1, "observedGeneration": 1});
    let mut case = Case::new(ComesToRest);
    case.put(None, &stateful_set(2, "Parallel", &status));
    pods(&mut case);
    assert_eq!(case.at_rest(), Vec::<String>::new());
    let wrong = json!({"replicas": 2, "readyReplicas": 0, "observedGeneration": 1});
    case.put(None, &stateful_set(2, "Parallel", &wrong));
    one_with(&case.at_rest(), &["statefulsets/d/s reports 0 ready replicas", "1 is right"]);

    let mut case = Case::new(RightNumber);
    case.put(None, &stateful_set(3, "Parallel", &status));
    case.put(None, &of("s-0", "StatefulSet", "s"));
    case.put(None, &of("s-2", "StatefulSet", "s"));
    one_with(&case.at_rest(), &["statefulsets/d/s has no pod 1 at rest"]);
    case.put(None, &of("s-1", "StatefulSet", "s"));
    case.put(None, &of("s-3", "StatefulSet", "s"));
    one_with(&case.at_rest(), &["statefulsets/d/s has a pod 3 at rest"]);
    // In order nothing is done beyond a pod that is not ready.
    let mut case = Case::new(RightNumber);
    case.put(None, &stateful_set(3, "OrderedReady", &status));
    pods(&mut case);
    assert_eq!(case.at_rest(), Vec::<String>::new());
    case.put(None, &of("s-1", "StatefulSet", "s"));
    one_with(&case.at_rest(), &["statefulsets/d/s has no pod 2 at rest"]);
}

#[test]
fn p27_of_daemon_sets_and_jobs() {
    let daemons = |ready: i64| {
        json!({"apiVersion": "apps/v1", "kind": "DaemonSet",
            "metadata": {"name": "a", "namespace": "d", "uid": "u-a", "generation": 1},
            "spec": {"selector": {}, "template": {"spec": {"containers": []}}},
            "status": {"desiredNumberScheduled": 1, "currentNumberScheduled": 1,
                "numberMisscheduled": 0, "numberReady": ready, "observedGeneration": 1}})
    };
    let mut case = Case::new(ComesToRest);
    case.put(None, &node("n1", &json!({})));
    case.put(None, &daemons(1));
    case.put(None, &of("a-x", "DaemonSet", "a"));
    assert_eq!(case.at_rest(), Vec::<String>::new());
    case.put(None, &daemons(0));
    one_with(&case.at_rest(), &["daemonsets/d/a reports 0 ready pods", "1 is right"]);
    case.put(None, &daemons(1));

    let job = |active: i64| {
        json!({"apiVersion": "batch/v1", "kind": "Job",
            "metadata": {"name": "j", "namespace": "d", "uid": "u-j"},
            "spec": {"template": {"spec": {"containers": []}}}, "status": {"active": active}})
    };
    case.put(None, &job(1));
    case.put(None, &of("j-x", "Job", "j"));
    assert_eq!(case.at_rest(), Vec::<String>::new());
    case.put(None, &job(2));
    one_with(&case.at_rest(), &["jobs/d/j reports 2 active pods", "1 is right"]);
    // Who has no owner is nobody's pod.
    case.put(None, &job(1));
    case.put(None, &pod("other", &json!({})));
    assert_eq!(case.at_rest(), Vec::<String>::new());
}
