use api::Subresource;
use serde_json::{Value, json};

use super::*;
use crate::checks::made_up::{Case, deletion, merge, object, one_with, placed, plan, pod, pod_key};
use crate::plan::PlannedFault;
use crate::span::Span;
use crate::world::ProcessId;

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "w"}},
        "spec": {"containers": [{"name": "c", "image": image}]}})
}

/// The deployment `w` (UID `u-w`), at most one above and none below its replicas.
fn deployment(replicas: i64, image: &str, more: &Value) -> Value {
    let mut value = json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "w", "namespace": "d", "uid": "u-w", "generation": 1},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "w"}},
            "strategy": {"type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": template(image)},
        "status": {"observedGeneration": 1, "updatedReplicas": replicas}});
    merge(&mut value, more);
    value
}

fn set(name: &str, replicas: i64, image: &str) -> Value {
    let mut template = template(image);
    merge(&mut template, &json!({"metadata": {"labels": {"pod-template-hash": name}}}));
    json!({"apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {"name": name, "namespace": "d", "uid": format!("u-{name}"), "generation": 1,
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "w",
                "uid": "u-w", "controller": true}]},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "w"}},
            "template": template},
        "status": {"replicas": 0, "observedGeneration": 1}})
}

/// A ready pod of a replica set.
fn of(set: &str, name: &str) -> Value {
    let mut value = pod(
        name,
        &json!({"metadata": {"ownerReferences": [{
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": set, "uid": format!("u-{set}"),
        "controller": true}]}}),
    );
    merge(&mut value, &placed(name, "n1", "Running"));
    value
}

fn unready(set: &str, name: &str) -> Value {
    let mut value = of(set, name);
    value["status"] = json!({"phase": "Pending"});
    value
}

#[test]
fn bounds_are_rounded_as_documented() {
    let check = |replicas: i64, surge: Value, unavailable: Value, most: i64, least: i64| {
        let strategy = json!({"spec": {"strategy": {"rollingUpdate":
            {"maxSurge": surge, "maxUnavailable": unavailable}}}});
        let object = object(&deployment(replicas, "a", &strategy));
        let bounds = Bounds::of(object.get().unwrap()).unwrap();
        assert_eq!(bounds, Bounds { replicas, most, least });
    };
    check(10, json!("25%"), json!("25%"), 13, 8);
    check(3, json!("25%"), json!("25%"), 4, 3);
    check(4, json!("0%"), json!("10%"), 4, 3);
    check(4, json!(2), json!(9), 6, 0);
}

fn rolling(plan: &Plan) -> (Case<RolloutBounds>, ProcessId) {
    let mut case = Case::with_plan(RolloutBounds::new(plan), plan.clone());
    let manager = case.manager();
    case.put(None, &deployment(2, "a", &json!({})));
    case.put(Some(manager), &set("w-a", 2, "a"));
    for name in ["a1", "a2"] {
        case.put(Some(manager), &unready("w-a", name));
        case.put(None, &of("w-a", name));
    }
    case.put(Some(manager), &set("w-b", 1, "b"));
    (case, manager)
}

#[test]
fn p32_not_too_many() {
    let (mut case, manager) = rolling(&plan());
    case.put(Some(manager), &unready("w-b", "b1"));
    case.is_right();
    case.put(Some(manager), &unready("w-b", "b2"));
    case.is_wrong(&["pods/d/b2 is pod number 4 of deployments/d/w, which may have 3"]);
    // A deployment that shrinks need not have shrunk at once.
    let (mut case, manager) = rolling(&plan());
    case.put(None, &deployment(1, "b", &json!({"metadata": {"generation": 2}})));
    case.put(Some(manager), &unready("w-b", "b1"));
    case.is_right();
    // Two who act within two minutes do not know of each other.
    let (mut case, manager) = rolling(&plan());
    for by in [manager, case.other_manager()] {
        case.call(by, &deletion(&pod_key("x")));
    }
    case.put(Some(manager), &unready("w-b", "b1"));
    case.put(Some(manager), &unready("w-b", "b2"));
    case.is_right();
}

#[test]
fn p32_who_is_ready_for_a_moment_is_not_available() {
    let history = |secs: u64| {
        let mut case = Case::with_plan(RolloutBounds::new(&plan()), plan());
        let manager = case.manager();
        case.put(None, &deployment(2, "a", &json!({"spec": {"minReadySeconds": 30}})));
        case.put(Some(manager), &set("w-a", 2, "a"));
        for name in ["a1", "a2"] {
            case.put(Some(manager), &unready("w-a", name));
            case.put(None, &of("w-a", name));
        }
        case.advance(60);
        case.put(Some(manager), &set("w-b", 1, "b"));
        case.put(Some(manager), &unready("w-b", "b1"));
        case.put(None, &of("w-b", "b1"));
        case.advance(secs);
        (case, manager)
    };
    let (mut case, manager) = history(29);
    case.delete(Some(manager), &pod_key("a1"));
    case.is_wrong(&["pods/d/a1", "leaves 1 available pods of deployments/d/w", "must have 2"]);
    let (mut case, manager) = history(30);
    case.delete(Some(manager), &pod_key("a1"));
    case.is_right();
    // It was not available itself.
    let (mut case, manager) = history(29);
    case.delete(Some(manager), &pod_key("b1"));
    case.is_right();
}

#[test]
fn p32_enough_stay_available() {
    let (mut case, manager) = rolling(&plan());
    case.put(Some(manager), &unready("w-b", "b1"));
    // The new one is not ready yet.
    case.delete(Some(manager), &pod_key("a1"));
    case.is_wrong(&["pods/d/a1", "leaves 1 available pods of deployments/d/w", "must have 2"]);
    let (mut case, manager) = rolling(&plan());
    case.put(Some(manager), &unready("w-b", "b1"));
    case.put(None, &of("w-b", "b1"));
    case.delete(Some(manager), &pod_key("a1"));
    case.is_right();
    // A pod that is lost otherwise excuses what follows, until enough are there again.
    let (mut case, manager) = rolling(&plan());
    case.put(None, &unready("w-a", "a1"));
    case.delete(Some(manager), &pod_key("a2"));
    case.is_right();
    case.put(None, &of("w-a", "a1"));
    case.put(None, &of("w-a", "a3"));
    case.delete(Some(manager), &pod_key("a3"));
    case.is_wrong(&["leaves 1 available"]);
    // Calls that are carried out late excuse everything.
    let mut late = plan();
    late.faults.push(PlannedFault {
        at: Span::ZERO,
        lasts: None,
        fault: Fault::CallTimeout {
            component: Component::ControllerManager(0),
            percent: 5,
            outcome: Outcome::CarriedOutLate,
        },
    });
    let (mut case, manager) = rolling(&late);
    case.delete(Some(manager), &pod_key("a1"));
    case.is_right();
}

#[test]
fn p32_who_shrinks_gives_up_a_share_of_each() {
    // From two to one while one of three is not ready: one of three is given up.
    let (mut case, manager) = rolling(&plan());
    case.put(Some(manager), &unready("w-b", "b1"));
    case.put(None, &deployment(1, "b", &json!({"metadata": {"generation": 2}})));
    // It is seen before the replica sets have shrunk.
    let seen = json!({"metadata": {"generation": 2}, "status": {"observedGeneration": 2}});
    case.put(Some(manager), &deployment(1, "b", &seen));
    case.put(Some(manager), &set("w-a", 1, "a"));
    case.delete(Some(manager), &pod_key("a1"));
    case.is_right();
    // What remains is kept.
    case.delete(Some(manager), &pod_key("a2"));
    case.is_wrong(&["leaves 0 available pods", "must have 1"]);
}

#[test]
fn p32_what_was_to_go_does_not_make_up_for_a_loss() {
    let (mut case, manager) = rolling(&plan());
    case.put(Some(manager), &unready("w-b", "b1"));
    case.put(None, &of("w-b", "b1"));
    // One is to go, and before it goes another one is lost.
    case.put(Some(manager), &set("w-a", 1, "a"));
    case.put(None, &unready("w-a", "a1"));
    case.delete(Some(manager), &pod_key("a2"));
    case.is_right();
    // A replica set that does not know yet what was lost.
    let (mut case, manager) = rolling(&plan());
    case.put(Some(manager), &unready("w-b", "b1"));
    case.put(None, &of("w-b", "b1"));
    let mut boasts = set("w-a", 2, "a");
    boasts["status"]["availableReplicas"] = json!(2);
    case.put(Some(manager), &boasts);
    case.put(None, &unready("w-a", "a1"));
    case.delete(Some(manager), &pod_key("a2"));
    case.is_right();
}

/// A manager asks for the deletion of a pod, and it is carried out.
fn take_down(case: &mut Case<RolloutBounds>, manager: ProcessId, name: &str) {
    case.call(manager, &deletion(&pod_key(name)));
    case.delete(Some(manager), &pod_key(name));
}

#[test]
fn p32_who_deletes_knows_what_it_was_shown() {
    // The manager has not heard that `a0` and `a1` are ready.
    let history = || {
        let (mut case, manager) = rolling(&plan());
        case.put(Some(manager), &unready("w-a", "a0"));
        for pod in [unready("w-a", "a0"), unready("w-a", "a1"), of("w-a", "a2")] {
            let pod = object(&pod);
            case.cluster.known.insert((manager, pod.key()), pod);
        }
        (case, manager)
    };
    let (mut case, manager) = history();
    take_down(&mut case, manager, "a1");
    case.is_right();
    // What it knows to be ready it has to keep all the same.
    take_down(&mut case, manager, "a2");
    case.is_wrong(&["pods/d/a2", "leaves 0 available pods", "must have 2"]);
    // It hears that before it plans.
    let (mut case, manager) = history();
    case.show(manager, &pod_key("a1"));
    take_down(&mut case, manager, "a1");
    case.is_wrong(&["pods/d/a1", "leaves 1 available pods", "must have 2"]);
    // It hears that in the middle of its plan.
    let (mut case, manager) = history();
    take_down(&mut case, manager, "a0");
    case.show(manager, &pod_key("a1"));
    take_down(&mut case, manager, "a1");
    case.is_right();
    // It hears that and makes a new plan: the last one was carried out, refused or given up.
    let status = || {
        let object = object(&set("w-a", 2, "a"));
        Request::Update { object, subresource: Some(Subresource::Status) }
    };
    for end in ["status", "refusal", "silence"] {
        let (mut case, manager) = history();
        case.call(manager, &deletion(&pod_key("a0")));
        match end {
            "status" => case.call(manager, &status()),
            "refusal" => case.tell(&Occurrence::Answered {
                by: Some(manager),
                request: &deletion(&pod_key("a0")),
                refusal: Some(&api::Status::not_found(Kind::Pod, "a0")),
            }),
            _ => case.advance(6),
        }
        case.show(manager, &pod_key("a1"));
        take_down(&mut case, manager, "a1");
        case.is_wrong(&["pods/d/a1", "leaves 1 available pods", "must have 2"]);
    }
}

/// A manager writes a replica set or its status, and sees it.
fn update(
    case: &mut Case<RolloutBounds>,
    manager: ProcessId,
    set: &Value,
    subresource: Option<Subresource>,
) {
    let mut object = object(set);
    let key = object.key();
    object.meta_mut().resource_version =
        case.cluster.object(&key).map(|stored| stored.revision().to_string());
    let request = Request::Update { object: object.clone(), subresource };
    case.call(manager, &request);
    case.commit(Some(manager), &request, &key, Some(object));
    case.show(manager, &key);
}

/// A manager reports what it has seen of the pods of a replica set.
fn report(
    case: &mut Case<RolloutBounds>,
    manager: ProcessId,
    name: &str,
    replicas: i64,
    available: i64,
) {
    let mut set = set(name, replicas, &name[2..]);
    set["status"]["availableReplicas"] = json!(available);
    update(case, manager, &set, Some(Subresource::Status));
}

#[test]
fn p32_a_pod_that_came_back_without_a_report_is_excused() {
    for told in [false, true] {
        let (mut case, manager) = rolling(&plan());
        case.put(None, &unready("w-a", "a1"));
        case.show(manager, &pod_key("a1"));
        report(&mut case, manager, "w-a", 2, 1);
        case.put(None, &of("w-a", "a1"));
        if told {
            case.show(manager, &pod_key("a1"));
            report(&mut case, manager, "w-a", 2, 2);
        }
        update(&mut case, manager, &set("w-a", 1, "a"), None);
        // It was to be the one that is not available, and there is none any more.
        case.show(manager, &pod_key("a1"));
        case.show(manager, &pod_key("a2"));
        take_down(&mut case, manager, "a2");
        if told {
            case.is_wrong(&["pods/d/a2", "leaves 1 available pods", "must have 2"]);
        } else {
            case.is_right();
        }
    }
}

#[test]
fn p32_a_loss_that_no_report_had_told_is_excused() {
    for seen in ["before", "in the middle", "never"] {
        let (mut case, manager) = rolling(&plan());
        case.put(None, &of("w-b", "b1"));
        case.show(manager, &pod_key("a1"));
        report(&mut case, manager, "w-a", 2, 1);
        // One that is known is lost while another one is there that is not known yet: enough are
        // available, and nobody reports more than there are.
        case.put(None, &unready("w-a", "a1"));
        case.show(manager, &pod_key("a2"));
        case.show(manager, &pod_key("b1"));
        if seen == "before" {
            case.show(manager, &pod_key("a1"));
        }
        // A plan that takes more than one step, of which the report is the last.
        case.call(manager, &Request::Create(object(&unready("w-a", "a3"))));
        if seen == "in the middle" {
            case.show(manager, &pod_key("a1"));
        }
        report(&mut case, manager, "w-a", 2, 2);
        report(&mut case, manager, "w-b", 1, 1);
        update(&mut case, manager, &set("w-a", 1, "a"), None);
        take_down(&mut case, manager, "a2");
        if seen == "before" {
            case.is_wrong(&["pods/d/a2", "leaves 1 available pods", "must have 2"]);
        } else {
            case.is_right();
        }
    }
}

#[test]
fn p33_one_set_for_each_template() {
    let mut case = Case::new(OneSetPerTemplate::default());
    case.put(None, &deployment(1, "a", &json!({})));
    one_with(&case.at_rest(), &["0 replica sets with its template"]);
    case.put(None, &set("w-a", 1, "a"));
    case.put(None, &set("w-b", 1, "b"));
    case.put(None, &set("w-a", 0, "a"));
    case.is_right();
    assert_eq!(case.at_rest(), Vec::<String>::new());
    case.put(None, &set("w-c", 1, "a"));
    case.is_wrong(&["replicasets/d/w-c was made for a template that replicasets/d/w-a has"]);
    one_with(&case.at_rest(), &["2 replica sets with its template"]);
    case.delete(None, &Key::new(Kind::ReplicaSet, "d", "w-c"));
    case.put(None, &deployment(1, "a", &json!({"status": {"collisionCount": 99}})));
    one_with(&case.at_rest(), &["99 collisions"]);
}

#[test]
fn p34_a_rollout_ends() {
    let mut case = Case::new(RolloutEnds);
    case.put(None, &deployment(1, "b", &json!({})));
    case.put(None, &set("w-a", 1, "a"));
    case.put(None, &set("w-b", 1, "b"));
    case.put(None, &of("w-b", "b1"));
    assert_eq!(case.at_rest(), Vec::<String>::new());
    case.put(None, &of("w-a", "a1"));
    one_with(&case.at_rest(), &["deployments/d/w has pods of an older template", "pods/d/a1"]);
    // Pods that do not get ready hold it up, and a pause does.
    case.put(None, &unready("w-b", "b1"));
    assert_eq!(case.at_rest(), Vec::<String>::new());
    case.put(None, &of("w-b", "b1"));
    case.put(None, &deployment(1, "b", &json!({"spec": {"paused": true}})));
    assert_eq!(case.at_rest(), Vec::<String>::new());
    case.delete(None, &pod_key("a1"));
    let status = json!({"status": {"updatedReplicas": 0}, "spec": {"paused": false}});
    case.put(None, &deployment(1, "b", &status));
    one_with(&case.at_rest(), &["reports 0 updated pods", "of 1"]);
}

/// A controller manager asks for a write of a replica set.
fn ask(case: &mut Case<SharesAddUp>, by: ProcessId, set: &Value) {
    let mut object = object(set);
    let stored = case.cluster.object(&object.key()).map(|o| o.revision().to_string());
    let request = match stored {
        None => Request::Create(object),
        Some(revision) => {
            object.meta_mut().resource_version = Some(revision);
            Request::Update { object, subresource: None }
        }
    };
    case.call(by, &request);
}

/// A controller manager writes a replica set, knowing all that there is.
fn write(case: &mut Case<SharesAddUp>, by: ProcessId, set: &Value) {
    for kind in [Kind::Deployment, Kind::ReplicaSet] {
        let keys: Vec<Key> = case.cluster.objects(kind).map(Object::key).collect();
        keys.iter().for_each(|key| case.show(by, key));
    }
    ask(case, by, set);
    case.put(Some(by), set);
}

#[test]
fn p35_shares_add_up() {
    let mut case = Case::new(SharesAddUp::default());
    let manager = case.manager();
    case.put(None, &deployment(2, "a", &json!({})));
    write(&mut case, manager, &set("w-a", 2, "a"));
    write(&mut case, manager, &set("w-b", 1, "b"));
    case.is_right();
    assert_eq!(case.at_rest(), Vec::<String>::new());
    // It is scaled; until its controller has seen that, the old bounds hold as well.
    case.put(None, &deployment(1, "b", &json!({"metadata": {"generation": 2}})));
    write(&mut case, manager, &set("w-a", 1, "a"));
    write(&mut case, manager, &set("w-b", 2, "b"));
    case.is_right();
    write(&mut case, manager, &set("w-b", 3, "b"));
    case.is_wrong(&["with replicasets/d/w-b", "ask for 4 pods, and it may have 3"]);
    one_with(&case.at_rest(), &["ask for 4 pods at rest; it asks for 1, and may have 1 to 2"]);
    // A user may do what he likes.
    case.put(None, &set("w-b", 9, "b"));
    case.is_right();
}

#[test]
fn p35_what_nobody_could_know_is_excused() {
    let history = || {
        let mut case = Case::new(SharesAddUp::default());
        let manager = case.manager();
        case.put(None, &deployment(2, "a", &json!({})));
        write(&mut case, manager, &set("w-a", 2, "a"));
        (case, manager)
    };
    // Another one has made a replica set that this one has not seen.
    let (mut case, manager) = history();
    let other = case.other_manager();
    write(&mut case, other, &set("w-b", 1, "b"));
    ask(&mut case, manager, &set("w-c", 1, "c"));
    case.put(Some(manager), &set("w-c", 1, "c"));
    case.is_right();
    // What it has made itself it knows, whatever its cache shows.
    let (mut case, manager) = history();
    write(&mut case, manager, &set("w-b", 1, "b"));
    ask(&mut case, manager, &set("w-c", 1, "c"));
    case.put(Some(manager), &set("w-c", 1, "c"));
    case.is_wrong(&["ask for 4 pods, and it may have 3"]);
    // Unless it was told that the outcome is unknown, or it was another life.
    for seconds in [6, 0] {
        let (mut case, manager) = history();
        ask(&mut case, manager, &set("w-b", 1, "b"));
        case.advance(seconds);
        case.put(Some(manager), &set("w-b", 1, "b"));
        if seconds == 0 {
            case.tell(&Occurrence::Started(manager));
        }
        ask(&mut case, manager, &set("w-c", 1, "c"));
        case.put(Some(manager), &set("w-c", 1, "c"));
        case.is_right();
    }
    // The deployment as it was when it was last seen.
    let (mut case, manager) = history();
    case.put(None, &deployment(0, "a", &json!({})));
    case.put(Some(manager), &set("w-a", 0, "a"));
    ask(&mut case, manager, &set("w-a", 3, "a"));
    case.put(Some(manager), &set("w-a", 3, "a"));
    case.is_right();
}

#[test]
fn p35_a_plan_is_judged_by_what_was_known_when_it_was_made() {
    // A deployment is scaled down while a manager that knows of it as it was carries out a plan.
    for end in ["", "status", "refusal", "silence", "again"] {
        let mut case = Case::new(SharesAddUp::default());
        let manager = case.manager();
        case.put(None, &deployment(3, "a", &json!({})));
        write(&mut case, manager, &set("w-a", 1, "a"));
        write(&mut case, manager, &set("w-b", 1, "b"));
        case.advance(60);
        case.put(None, &deployment(1, "b", &json!({})));
        ask(&mut case, manager, &set("w-a", 2, "a"));
        case.put(Some(manager), &set("w-a", 2, "a"));
        case.show(manager, &Key::new(Kind::Deployment, "d", "w"));
        match end {
            "status" => {
                let object = object(&deployment(1, "b", &json!({})));
                let subresource = Some(Subresource::Status);
                case.call(manager, &Request::Update { object, subresource });
            }
            "refusal" => case.tell(&Occurrence::Answered {
                by: Some(manager),
                request: &Request::Update {
                    object: object(&set("w-c", 1, "c")),
                    subresource: None,
                },
                refusal: Some(&api::Status::not_found(Kind::ReplicaSet, "w-c")),
            }),
            "silence" => case.advance(6),
            // In one plan a replica set is written once.
            "again" => ask(&mut case, manager, &set("w-a", 2, "a")),
            _ => {}
        }
        case.is_right();
        ask(&mut case, manager, &set("w-b", 2, "b"));
        case.put(Some(manager), &set("w-b", 2, "b"));
        if end.is_empty() {
            case.is_right();
        } else {
            case.is_wrong(&["with replicasets/d/w-b", "ask for 4 pods, and it may have 2"]);
        }
    }
}
