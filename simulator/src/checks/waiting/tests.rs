use serde_json::json;

use super::*;
use crate::checks::made_up::{Case, node, one_with, placed, pod, pod_key};
use crate::plan::Fault;

/// Lets time pass, with something that happens now and then.
fn wait(case: &mut Case<Waiting>, secs: u64) {
    for _ in 0..secs / 10 {
        case.advance(10);
        case.put(None, &node("far", &json!({"status": {"allocatable": {"cpu": "0"}}})));
    }
}

fn waiting(check: Waiting) -> Case<Waiting> {
    let mut case = Case::new(check);
    case.put(None, &node("n1", &json!({})));
    case.put(None, &pod("a", &json!({})));
    case
}

fn complaint() -> Request {
    let patch = api::Patch { kind: api::PatchKind::Strategic, body: json!({}).into() };
    Request::Patch { key: pod_key("a"), subresource: None, patch }
}

#[test]
fn p22_a_pod_beside_room_is_tried() {
    let mut case = waiting(Waiting::for_attempt());
    wait(&mut case, 350);
    case.is_right();
    wait(&mut case, 100);
    case.is_wrong(&["pods/d/a waits, n1 has had room for it for 3", "no scheduler has tried it"]);

    // One that is tried now and then has its turn.
    let mut case = waiting(Waiting::for_attempt());
    let scheduler = case.scheduler();
    for _ in 0..10 {
        wait(&mut case, 100);
        case.call(scheduler, &complaint());
    }
    case.is_right();
}

#[test]
fn p22_counts_only_room_that_stays() {
    // Others take it.
    let mut case = waiting(Waiting::for_attempt());
    for name in ["b", "c", "d"] {
        wait(&mut case, 200);
        case.put(None, &placed(name, "n1", "Pending"));
    }
    case.is_right();
    // The node changes.
    let mut case = waiting(Waiting::for_attempt());
    for i in 0..4 {
        wait(&mut case, 200);
        case.put(None, &node("n1", &json!({"metadata": {"labels": {"i": i.to_string()}}})));
    }
    case.is_right();
    // Something is wrong.
    let mut case = waiting(Waiting::for_attempt());
    case.fault(&Fault::StoreDown, true);
    wait(&mut case, 1000);
    case.fault(&Fault::StoreDown, false);
    wait(&mut case, 300);
    case.is_right();
    wait(&mut case, 200);
    case.is_wrong(&["pods/d/a"]);
    // It was deleted, or is held back.
    let mut case = waiting(Waiting::for_attempt());
    case.put(None, &pod("g", &json!({"spec": {"schedulingGates": [{"name": "x"}]}})));
    wait(&mut case, 100);
    case.delete(None, &pod_key("a"));
    wait(&mut case, 1000);
    case.is_right();
}

#[test]
fn p23_a_pod_beside_room_is_bound() {
    let mut case = waiting(Waiting::for_node());
    let scheduler = case.scheduler();
    for _ in 0..6 {
        wait(&mut case, 100);
        case.call(scheduler, &complaint());
    }
    case.is_right();
    wait(&mut case, 200);
    case.is_wrong(&["pods/d/a waits", "n1 has had room", "it was not bound"]);

    let mut case = waiting(Waiting::for_node());
    wait(&mut case, 500);
    case.put(None, &placed("a", "n1", "Pending"));
    wait(&mut case, 1000);
    case.is_right();
}

#[test]
fn p25_at_rest_nothing_fits() {
    let find = |pods: &[serde_json::Value], more: serde_json::Value| {
        let mut case = Case::new(WorkConserving);
        case.put(None, &node("n1", &more));
        for pod in pods {
            case.put(None, pod);
        }
        case.at_rest()
    };
    let waits = pod("a", &json!({}));
    one_with(
        &find(std::slice::from_ref(&waits), json!({})),
        &["pods/d/a waits", "n1 could take it"],
    );
    let full: Vec<_> = (0..4).map(|i| placed(&format!("f{i}"), "n1", "Running")).collect();
    let with = |first: &[serde_json::Value]| [first, std::slice::from_ref(&waits)].concat();
    assert_eq!(find(&with(&full), json!({})), Vec::<String>::new());
    assert_eq!(find(&with(&full[..3]), json!({})).len(), 1);
    let tainted = json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}});
    assert_eq!(find(std::slice::from_ref(&waits), tainted), Vec::<String>::new());
    let gated = pod("a", &json!({"spec": {"schedulingGates": [{"name": "x"}]}}));
    let others = pod("a", &json!({"spec": {"schedulerName": "other"}}));
    assert_eq!(find(&[gated, others], json!({})), Vec::<String>::new());
    let port = json!([{"name": "c", "ports": [{"containerPort": 1, "hostPort": 80}]}]);
    let mut taken = placed("t", "n1", "Running");
    taken["spec"]["containers"] = port.clone();
    let wants = pod("a", &json!({"spec": {"containers": port}}));
    assert_eq!(find(&[taken, wants.clone()], json!({})), Vec::<String>::new());
    assert_eq!(find(&[wants], json!({})).len(), 1);
}
