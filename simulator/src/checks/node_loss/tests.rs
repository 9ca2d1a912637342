use api::Propagation;
use serde_json::{Value, json};

use super::*;
use crate::checks::made_up::{Case, deletion, merge, node, object, placed, plan, pod_key};
use crate::plan::PlannedFault;
use crate::span::Span;

const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

fn lost(name: &str, tainted: bool) -> Value {
    let mut value = node(
        name,
        &json!({"metadata": {"labels": {ZONE: "z"}},
        "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}),
    );
    if tainted {
        let taints = json!({"spec": {"taints": [{"key": UNREACHABLE, "effect": "NoExecute"}]}});
        merge(&mut value, &taints);
    }
    value
}

fn healthy(name: &str) -> Value {
    node(name, &json!({"metadata": {"labels": {ZONE: "z"}}}))
}

fn node_key(name: &str) -> Key {
    Key::cluster(Kind::Node, name)
}

/// A pod on n1 that tolerates its loss for that long, marked by the taint manager.
fn marked(seconds: Option<i64>) -> Value {
    let mut value = placed("a", "n1", "Running");
    let toleration =
        json!([{"key": UNREACHABLE, "operator": "Exists", "tolerationSeconds": seconds}]);
    merge(
        &mut value,
        &json!({"spec": {"tolerations": toleration}, "status": {"conditions": [
        {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"}]}}),
    );
    value
}

fn evicted(plan: &Plan, toleration: Option<i64>, after: u64) -> Vec<String> {
    let mut case = Case::with_plan(GivenUpSlowly::new(plan), plan.clone());
    let manager = case.manager();
    case.put(None, &healthy("n1"));
    case.put(None, &lost("n1", true));
    case.put(None, &marked(toleration));
    case.show(manager, &node_key("n1"));
    case.advance(after);
    // It has come back, which the manager has not seen.
    case.put(None, &healthy("n1"));
    case.call(manager, &deletion(&pod_key("a")));
    case.found()
}

#[test]
fn p43_pods_leave_when_their_toleration_is_over() {
    assert_eq!(evicted(&plan(), Some(300), 301), Vec::<String>::new());
    let early = evicted(&plan(), Some(300), 200);
    crate::checks::made_up::one_with(&early, &["pods/d/a", "n1", "70 s before"]);
    let never = evicted(&plan(), None, 999);
    crate::checks::made_up::one_with(&never, &["whose taints it tolerates"]);
    let mut skewed = plan();
    skewed.faults.push(PlannedFault {
        at: Span::ZERO,
        lasts: None,
        fault: Fault::ClockSkew {
            component: Component::ControllerManager(0),
            ahead: Span::secs(100),
        },
    });
    assert_eq!(evicted(&skewed, Some(300), 200), Vec::<String>::new());
}

#[test]
fn p43_an_eviction_is_one_before_the_store_has_its_mark() {
    let mut case = Case::new(GivenUpSlowly::new(&plan()));
    let manager = case.manager();
    case.put(None, &healthy("n1"));
    case.put(None, &lost("n1", true));
    let mut pod = marked(None);
    pod["status"]["conditions"] = json!([]);
    case.put(None, &pod);
    case.show(manager, &node_key("n1"));
    // Somebody deletes it for another reason.
    case.call(manager, &deletion(&pod_key("a")));
    case.is_right();
    let mark =
        Request::Update { object: object(&marked(None)), subresource: Some(Subresource::Status) };
    case.call(manager, &mark);
    case.call(manager, &deletion(&pod_key("a")));
    case.is_wrong(&["pods/d/a", "whose taints it tolerates"]);
}

/// The mark of an eviction that was not carried out stays.
#[test]
fn p43_a_marked_pod_may_go_with_its_owner() {
    let mut case = Case::new(GivenUpSlowly::new(&plan()));
    let manager = case.manager();
    case.put(None, &healthy("n1"));
    case.put(None, &marked(None));
    case.show(manager, &node_key("n1"));
    let Request::Delete { key, uid, revision, grace_seconds, .. } = deletion(&pod_key("a")) else {
        panic!("it is a deletion")
    };
    let propagation = Some(Propagation::Background);
    case.call(manager, &Request::Delete { key, uid, revision, grace_seconds, propagation });
    assert_eq!(case.found(), Vec::<String>::new());
}

#[test]
fn p43_who_had_to_leave_when_the_plan_was_made_may_be_evicted() {
    // The node comes back, and that is shown, before the plan is carried out.
    for end in ["", "refusal", "silence", "not yet due"] {
        let mut case = Case::new(GivenUpSlowly::new(&plan()));
        let manager = case.manager();
        case.put(None, &healthy("n1"));
        case.put(None, &lost("n1", true));
        for (name, seconds) in [("a", 300), ("b", if end == "not yet due" { 999 } else { 300 })] {
            let mut pod = marked(Some(seconds));
            pod["metadata"]["name"] = json!(name);
            case.put(None, &pod);
        }
        case.show(manager, &node_key("n1"));
        case.advance(301);
        case.call(manager, &deletion(&pod_key("a")));
        match end {
            "refusal" => case.tell(&Occurrence::Answered {
                by: Some(manager),
                request: &deletion(&pod_key("a")),
                refusal: Some(&api::Status::not_found(Kind::Pod, "a")),
            }),
            "silence" => case.advance(6),
            _ => {}
        }
        case.put(None, &healthy("n1"));
        case.show(manager, &node_key("n1"));
        case.is_right();
        case.call(manager, &deletion(&pod_key("b")));
        if end.is_empty() {
            case.is_right();
        } else {
            case.is_wrong(&["pods/d/b", "n1", "whose taints it tolerates"]);
        }
    }
}

#[test]
fn p43_another_mark_of_a_lost_node_is_no_new_beginning() {
    let mut case = Case::new(GivenUpSlowly::new(&plan()));
    let manager = case.manager();
    let mut not_ready = lost("n1", true);
    not_ready["spec"]["taints"][0]["key"] = json!("node.kubernetes.io/not-ready");
    case.put(None, &not_ready);
    case.advance(290);
    case.put(None, &lost("n1", true));
    case.put(None, &marked(Some(300)));
    case.show(manager, &node_key("n1"));
    case.advance(20);
    case.call(manager, &deletion(&pod_key("a")));
    case.is_right();
}

fn ask_to_give_up(case: &mut Case<GivenUpSlowly>, name: &str) {
    let manager = case.manager();
    let object = object(&lost(name, true));
    case.call(manager, &Request::Update { object, subresource: None });
}

fn give_up(case: &mut Case<GivenUpSlowly>, name: &str) {
    ask_to_give_up(case, name);
    case.put(Some(case.manager()), &lost(name, true));
}

/// A zone of so many nodes, some of them lost.
fn zone(nodes: usize, lost_nodes: usize) -> Case<GivenUpSlowly> {
    let mut case = Case::new(GivenUpSlowly::new(&plan()));
    let manager = case.manager();
    for i in 0..nodes {
        let name = format!("n{i}");
        case.put(None, &if i < lost_nodes { lost(&name, false) } else { healthy(&name) });
        case.show(manager, &node_key(&name));
    }
    case
}

#[test]
fn p43_nodes_are_given_up_one_by_one() {
    let mut case = zone(9, 3);
    give_up(&mut case, "n0");
    case.advance(3);
    // Tried again.
    give_up(&mut case, "n0");
    case.advance(7);
    give_up(&mut case, "n1");
    case.is_right();
    case.advance(5);
    give_up(&mut case, "n2");
    case.is_wrong(&["n2 is given up 5 s after n1, and 10 s is the least"]);
    // A node that has come back does not count.
    let mut case = zone(9, 3);
    let manager = case.manager();
    give_up(&mut case, "n0");
    case.put(None, &healthy("n0"));
    case.show(manager, &node_key("n0"));
    case.advance(1);
    give_up(&mut case, "n1");
    case.is_right();
    // Neither does a mark that is refused, or one that is carried out long after it was asked for.
    let mut case = zone(9, 3);
    ask_to_give_up(&mut case, "n0");
    case.advance(1);
    give_up(&mut case, "n1");
    case.advance(11);
    ask_to_give_up(&mut case, "n0");
    case.advance(6);
    give_up(&mut case, "n2");
    case.put(Some(manager), &lost("n0", true));
    case.is_right();
    // Most of a large zone.
    let mut case = zone(60, 40);
    give_up(&mut case, "n0");
    case.advance(100);
    give_up(&mut case, "n1");
    case.is_right();
    case.advance(50);
    give_up(&mut case, "n2");
    case.is_wrong(&["50 s after n1, and 100 s is the least"]);
}

#[test]
fn p43_a_disruption_of_a_whole_zone_gives_up_nothing() {
    let mut case = zone(5, 3);
    ask_to_give_up(&mut case, "n0");
    case.is_wrong(&["n0 is given up while 3 of the 5 nodes of its zone are lost"]);
    let mut case = zone(5, 5);
    give_up(&mut case, "n0");
    case.is_wrong(&["n0 is given up while no node at all is ready"]);
    // Two of three may have died.
    let mut case = zone(3, 2);
    give_up(&mut case, "n0");
    case.is_right();
    // What is given up already may be marked otherwise.
    let manager = case.manager();
    case.put(None, &lost("n0", true));
    case.show(manager, &node_key("n0"));
    give_up(&mut case, "n0");
    case.is_right();
}
