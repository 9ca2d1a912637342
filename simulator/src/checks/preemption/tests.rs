use api::{Patch, PatchKind, Subresource};
use serde_json::{Value, json};

use super::*;
use crate::checks::made_up::{
    Case, deletion, merge, node as made_node, one_with, placed, pod, pod_key,
};

/// A pod of four of the node's four CPUs, or of as many as said.
fn important(name: &str, priority: i64, cpu: &str) -> Value {
    let mut value = pod(name, &json!({"spec": {"priority": priority}}));
    value["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!(cpu);
    value
}

fn running(name: &str, priority: i64, cpu: &str) -> Value {
    let mut value = important(name, priority, cpu);
    merge(&mut value, &placed(name, "n1", "Running"));
    value["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!(cpu);
    value
}

fn told(mut pod: Value) -> Value {
    pod["status"]["conditions"] = json!([{"type": DISRUPTION, "status": "True", "reason": REASON}]);
    pod
}

fn promise(name: &str, node: &str) -> Request {
    let body = json!({"status": {"nominatedNodeName": node}});
    Request::Patch {
        key: pod_key(name),
        subresource: Some(Subresource::Status),
        patch: Patch { kind: PatchKind::Strategic, body: body.into() },
    }
}

fn case<C: Check>(check: C, pods: &[Value]) -> (Case<C>, ProcessId) {
    let mut case = Case::new(check);
    let scheduler = case.scheduler();
    case.put(None, &made_node("n1", &json!({})));
    for pod in pods {
        let object = case.put(None, pod);
        if oracle::pod(Some(&object)).and_then(oracle::node_of).is_some() {
            case.show(scheduler, &object.key());
        }
    }
    (case, scheduler)
}

#[test]
fn p17_the_less_important_give_way() {
    let pods = [important("big", 10, "4"), running("a", 0, "2"), running("b", 20, "2")];
    let (mut case, scheduler) = case(GivesWay::default(), &pods);
    case.call(scheduler, &deletion(&pod_key("a")));
    case.is_right();
    case.call(scheduler, &deletion(&pod_key("b")));
    case.is_wrong(&["pods/d/b is displaced, and no pod waits that is more important"]);
    // Nor does one that may displace nobody count.
    let mut meek = important("big", 10, "4");
    meek["spec"]["preemptionPolicy"] = json!("Never");
    case.put(None, &meek);
    case.call(scheduler, &deletion(&pod_key("a")));
    case.is_wrong(&["pods/d/a is displaced"]);
}

#[test]
fn p17_who_waited_a_moment_ago_is_believed_to_wait() {
    let pods = [important("big", 10, "4"), running("a", 0, "2")];
    let (mut case, scheduler) = case(GivesWay::default(), &pods);
    case.show(scheduler, &pod_key("big"));
    case.delete(None, &pod_key("big"));
    // The scheduler has not heard of it for long.
    case.advance(60);
    case.call(scheduler, &deletion(&pod_key("a")));
    case.is_right();
    let (key, revision) = (pod_key("big"), case.revision());
    case.deliver(scheduler, &WatchEvent::Deleted { key, revision });
    case.advance(9);
    case.call(scheduler, &deletion(&pod_key("a")));
    case.is_right();
    case.advance(1);
    case.call(scheduler, &deletion(&pod_key("a")));
    case.is_wrong(&["pods/d/a is displaced, and no pod waits"]);
}

#[test]
fn p17_what_others_bound_unseen_is_no_reason() {
    let pods = [important("big", 10, "2"), running("a", 20, "2")];
    let (mut case, scheduler) = case(GivesWay::default(), &pods);
    case.put(None, &running("b", 20, "2"));
    case.call(scheduler, &promise("big", "n1"));
    case.is_right();
    case.show(scheduler, &pod_key("b"));
    case.call(scheduler, &promise("big", "n1"));
    case.is_wrong(&["pods/d/big is promised n1, where it fits beside no more important"]);
}

#[test]
fn p17_no_more_than_must() {
    let pods = [important("big", 10, "2"), running("a", 0, "2"), running("b", 1, "2")];
    let (mut case, scheduler) = case(GivesWay::default(), &pods);
    case.call(scheduler, &deletion(&pod_key("a")));
    case.call(scheduler, &promise("big", "n1"));
    case.is_right();
    case.advance(1);
    for name in ["a", "b"] {
        case.call(scheduler, &deletion(&pod_key(name)));
    }
    case.call(scheduler, &promise("big", "n1"));
    case.is_wrong(&["is displaced from n1 for pods/d/big, which fits beside it"]);
    // A node that can never be enough is promised to nobody.
    case.put(None, &important("big", 10, "5"));
    case.call(scheduler, &promise("big", "n1"));
    case.is_wrong(&["pods/d/big is promised n1, where it fits beside no more important"]);
}

#[test]
fn p17_who_gives_way_is_told() {
    let (mut case, scheduler) = case(GivesWay::default(), &[running("a", 0, "2")]);
    case.put(None, &told(running("a", 0, "2")));
    case.delete(Some(scheduler), &pod_key("a"));
    case.is_right();
    case.put(None, &running("b", 0, "2"));
    case.delete(Some(scheduler), &pod_key("b"));
    case.is_wrong(&["pods/d/b gives way and is not told why"]);
}

#[test]
fn p18_room_is_kept() {
    let mut promised = important("big", 10, "4");
    promised["status"] = json!({"nominatedNodeName": "n1"});
    let pods = [promised, important("small", 0, "1"), important("same", 10, "1")];
    let (mut case, scheduler) = case(RoomIsKept::default(), &pods);
    case.cluster.placements.insert("n1".to_owned(), BTreeSet::new());
    let bind = |name: &str| Request::Bind {
        pod: pod_key(name),
        uid: format!("u-{name}"),
        node: "n1".to_owned(),
    };
    case.call(scheduler, &bind("same"));
    case.is_right();
    case.call(scheduler, &bind("small"));
    case.is_wrong(&["pods/d/small is bound to n1, whose cpu was promised to big"]);
    // It is promised another node: that is only not carried out yet.
    let body = json!({"status": {"nominatedNodeName": "n2"}}).into();
    let patch = Patch { kind: PatchKind::Strategic, body };
    let subresource = Some(Subresource::Status);
    case.call(scheduler, &Request::Patch { key: pod_key("big"), subresource, patch });
    case.call(scheduler, &bind("small"));
    case.is_right();
}

#[test]
fn p18_who_had_its_place_before_the_promise_keeps_it() {
    let mut promised = important("big", 10, "4");
    promised["status"] = json!({"nominatedNodeName": "n1"});
    let mut small = important("small", 0, "1");
    small["spec"]["volumes"] =
        json!([{"name": "v", "persistentVolumeClaim": {"claimName": "files"}}]);
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "files", "namespace": "d", "uid": "u-files"}});
    let claim = api::codec::decode_any(claim.to_string().as_bytes()).unwrap();
    let begins = Request::Update { object: claim, subresource: None };
    let bind =
        Request::Bind { pod: pod_key("small"), uid: "u-small".to_owned(), node: "n1".to_owned() };
    // Whether its claim was asked for before the node was promised to the other, whether it was
    // counted there then, and whether it may be bound.
    for (asked, counted, right) in
        [(true, true, true), (false, true, false), (true, false, false), (false, false, false)]
    {
        let pods = [promised.clone(), small.clone()];
        let (mut case, scheduler) = case(RoomIsKept::default(), &pods);
        let there = if counted { BTreeSet::from([pod_key("small")]) } else { BTreeSet::new() };
        case.cluster.placements.insert("n1".to_owned(), there);
        if asked {
            case.call(scheduler, &begins);
        }
        case.call(scheduler, &promise("big", "n1"));
        case.put(Some(scheduler), &promised);
        if !asked {
            case.call(scheduler, &begins);
        }
        case.call(scheduler, &bind);
        if right {
            case.is_right();
        } else {
            case.is_wrong(&["pods/d/small is bound to n1, whose cpu was promised to big"]);
        }
    }
}

#[test]
fn p24_preemption_ends() {
    let (mut case, scheduler) = case(PreemptionEnds::default(), &[important("big", 10, "4")]);
    for _ in 0..PREEMPTIONS_MAX {
        case.call(scheduler, &promise("big", "n1"));
    }
    case.is_right();
    case.call(scheduler, &promise("big", "n1"));
    case.is_wrong(&["pods/d/big is promised a node again and again, n1 at last"]);
    let mut promised = important("big", 10, "4");
    promised["status"] = json!({"nominatedNodeName": "n1"});
    case.put(None, &promised);
    one_with(&case.at_rest(), &["pods/d/big still waits at rest for n1"]);
}

#[test]
fn p24_room_is_not_given_away_again_and_again() {
    let mut promised = important("big", 10, "4");
    promised["status"] = json!({"nominatedNodeName": "n1"});
    let (mut case, scheduler) = case(PreemptionEnds::default(), &[promised]);
    let displaced = |case: &mut Case<PreemptionEnds>, name: &str, came: api::Time| {
        let mut pod = running(name, 0, "4");
        pod["metadata"]["creationTimestamp"] = json!(came.to_meta());
        case.put(None, &pod);
        case.call(scheduler, &deletion(&pod_key(name)));
    };
    // Those who were there before give way, however many they are.
    let began = case.cluster.now();
    for i in 0..=PREEMPTIONS_MAX {
        displaced(&mut case, &format!("before-{i}"), began);
    }
    case.is_right();
    case.advance(2);
    let later = case.cluster.now();
    for i in 0..PREEMPTIONS_MAX {
        displaced(&mut case, &format!("after-{i}"), later);
    }
    case.is_right();
    displaced(&mut case, "last", later);
    case.is_wrong(&["the room on n1 that pods/d/big was promised is given away again and again"]);
    // Another pod of that name begins anew.
    case.delete(None, &pod_key("big"));
    displaced(&mut case, "nobody-waits", later);
    case.is_right();
}
