use serde_json::{Value, json};

use super::*;
use crate::checks::made_up::{Case, node, placed, plan, pod, pod_key};
use crate::plan::PlannedFault;
use crate::span::Span;

fn bind(pod: &str) -> Request {
    Request::Bind { pod: pod_key(pod), uid: format!("u-{pod}"), node: "n1".to_owned() }
}

fn large(name: &str, cpu: &str) -> Value {
    pod(
        name,
        &json!({"spec": {"containers": [{"name": "c", "image": "app:1",
        "resources": {"requests": {"cpu": cpu}}}]}}),
    )
}

fn case(plan: &Plan) -> Case<NoOvercommit> {
    let mut case = Case::with_plan(NoOvercommit::new(plan), plan.clone());
    case.put(None, &node("n1", &json!({})));
    let scheduler = case.scheduler();
    case.show(scheduler, &Key::cluster(Kind::Node, "n1"));
    case
}

/// Two schedulers that both act.
fn two() -> Plan {
    let mut two = plan();
    two.settings.leader_election = false;
    two
}

/// Carries a binding out, in the store alone.
fn carry_out<C: Check>(case: &mut Case<C>, name: &str, phase: &str) {
    let mut value = serde_json::to_value(case.cluster.object(&pod_key(name)).unwrap()).unwrap();
    value["spec"]["nodeName"] = json!("n1");
    value["status"] = json!({"phase": phase});
    let object = crate::checks::made_up::object(&value);
    let scheduler = case.scheduler();
    case.commit(Some(scheduler), &bind(name), &pod_key(name), Some(object));
}

#[test]
fn p8_a_scheduler_knows_what_it_has_given_away() {
    let mut case = case(&plan());
    let scheduler = case.scheduler();
    for (name, cpu) in [("a", "3"), ("b", "1"), ("c", "500m")] {
        case.put(None, &large(name, cpu));
        case.show(scheduler, &pod_key(name));
    }
    case.call(scheduler, &bind("a"));
    carry_out(&mut case, "a", "Pending");
    case.call(scheduler, &bind("b"));
    carry_out(&mut case, "b", "Pending");
    case.is_right();
    // Both are bound by itself: it need not be shown them.
    case.call(scheduler, &bind("c"));
    case.is_wrong(&["scheduler-0 binds pods/d/c to n1", "4500 of cpu", "has 4000"]);
    // Nor does another life of it know.
    case.tell(&Occurrence::Started(scheduler));
    case.show(scheduler, &Key::cluster(Kind::Node, "n1"));
    case.call(scheduler, &bind("c"));
    case.is_right();
    case.show(scheduler, &pod_key("a"));
    case.show(scheduler, &pod_key("b"));
    case.call(scheduler, &bind("c"));
    case.is_wrong(&["4500 of cpu"]);
    let gone = WatchEvent::Deleted { key: pod_key("b"), revision: case.revision() };
    case.deliver(scheduler, &gone);
    case.call(scheduler, &bind("c"));
    case.is_right();
}

#[test]
fn p8_holds_for_every_resource() {
    let mut case = case(&plan());
    let scheduler = case.scheduler();
    let offered = json!({"status": {"allocatable": {"cpu": "4", "pods": "10", "x.y/gpu": "2"}}});
    case.put(None, &node("n1", &offered));
    case.show(scheduler, &Key::cluster(Kind::Node, "n1"));
    for name in ["a", "b"] {
        let wanted = json!({"spec": {"containers": [{"name": "c", "image": "app:1",
            "resources": {"requests": {"x.y/gpu": "2"}}}]}});
        case.put(None, &pod(name, &wanted));
        case.show(scheduler, &pod_key(name));
    }
    case.call(scheduler, &bind("a"));
    carry_out(&mut case, "a", "Pending");
    case.is_right();
    case.call(scheduler, &bind("b"));
    case.is_wrong(&["scheduler-0 binds pods/d/b to n1", "4 of x.y/gpu", "has 2"]);
}

#[test]
fn p8_in_the_store_as_long_as_one_binds() {
    let mut alone = plan();
    alone.settings.schedulers = 1;
    let bind_both = |plan: &Plan| {
        let mut case = case(plan);
        case.put(None, &large("a", "3"));
        case.put(None, &large("b", "2"));
        carry_out(&mut case, "a", "Pending");
        carry_out(&mut case, "b", "Pending");
        case
    };
    bind_both(&alone).is_wrong(&[
        "pods/d/b",
        "5000 of cpu, of which there are 4000",
        "bound to n1",
    ]);
    bind_both(&two()).is_right();
    // Of two that are elected one leads, as long as nothing goes wrong.
    assert_eq!(bind_both(&plan()).found().len(), 1);
    alone.faults.push(PlannedFault {
        at: Span::ZERO,
        lasts: None,
        fault: Fault::Crash { component: Component::Scheduler(0) },
    });
    bind_both(&alone).is_right();
}

#[test]
fn p8_the_kubelet_has_the_last_word() {
    let mut case = case(&two());
    case.put(None, &large("a", "3"));
    case.put(None, &large("b", "2"));
    carry_out(&mut case, "a", "Running");
    carry_out(&mut case, "b", "Failed");
    case.is_right();
    case.put(None, &large("c", "2"));
    carry_out(&mut case, "c", "Running");
    case.is_wrong(&["pods/d/c", "5000 of cpu", "run on n1"]);
    // A node that has shrunk was not overcommitted by anybody.
    case.put(None, &node("n1", &json!({"status": {"allocatable": {"cpu": "1"}}})));
    case.put(None, &large("d", "2"));
    carry_out(&mut case, "d", "Running");
    case.is_right();
}

#[test]
fn p8_what_has_done_its_work_takes_nothing() {
    // The policy, whether it is to go, whether a container runs, and whether it counts.
    for (policy, going, alive, counts) in [
        ("Never", false, false, false),
        ("Never", false, true, true),
        ("Always", false, false, true),
        ("Always", true, false, false),
        ("Always", true, true, true),
    ] {
        let mut case = case(&two());
        let mut done = large("a", "3");
        done["spec"]["restartPolicy"] = json!(policy);
        if going {
            done["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        case.put(None, &done);
        carry_out(&mut case, "a", "Running");
        if alive {
            case.cluster.running.entry("n1".to_owned()).or_default().insert("u-a".to_owned());
        }
        case.put(None, &large("b", "2"));
        carry_out(&mut case, "b", "Running");
        if !counts {
            case.is_right();
            // Others count as ever.
            case.put(None, &large("c", "3"));
            carry_out(&mut case, "c", "Running");
        }
        case.is_wrong(&["5000 of cpu", "run on n1"]);
    }
}

#[test]
fn p8_pods_are_counted_too() {
    let mut case = case(&two());
    let scheduler = case.scheduler();
    for i in 0..11 {
        let name = format!("p{i}");
        case.put(None, &large(&name, "1m"));
        case.show(scheduler, &pod_key(&name));
        case.call(scheduler, &bind(&name));
        if i < 10 {
            case.is_right();
        }
        carry_out(&mut case, &name, "Pending");
    }
    case.is_wrong(&["pods/d/p10", "11 of pods", "has 10"]);
}

#[test]
fn p14_ports_are_exclusive() {
    let with_port = |name: &str, port: i32, phase: &str| {
        let mut value = placed(name, "n1", phase);
        value["spec"]["containers"][0]["ports"] = json!([{"containerPort": 80, "hostPort": port}]);
        value
    };
    let mut case = Case::new(PortsExclusive::new(&plan()));
    let scheduler = case.scheduler();
    case.put(None, &with_port("a", 80, "Running"));
    case.put(None, &with_port("b", 81, "Running"));
    case.is_right();
    case.put(None, &with_port("c", 80, "Running"));
    case.is_wrong(&["pods/d/c and pods/d/a both run on n1 with its port 80"]);
    case.show(scheduler, &pod_key("a"));
    let mut waiting = with_port("d", 80, "Pending");
    waiting["spec"].as_object_mut().unwrap().remove("nodeName");
    case.put(None, &waiting);
    case.call(scheduler, &bind("d"));
    case.is_wrong(&["it knows that pods/d/a has port 80"]);
    // It may not have been shown c.
    let gone = WatchEvent::Deleted { key: pod_key("a"), revision: case.revision() };
    case.deliver(scheduler, &gone);
    case.call(scheduler, &bind("d"));
    case.is_right();
}
