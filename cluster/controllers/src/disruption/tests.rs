#![expect(clippy::needless_pass_by_value, reason = "rows of tables read better without borrows")]

use api::codec;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::fixture::{Fixture, START, summary};

fn key() -> Key {
    Key::new(Kind::PodDisruptionBudget, "n", "web")
}

fn budget(spec: Value) -> Value {
    let mut value = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"name": "web", "namespace": "n", "uid": "budget", "generation": 1},
        "spec": {"selector": {"matchLabels": {"app": "web"}}},
        "status": {"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0,
            "expectedPods": 0}});
    for (field, new) in spec.as_object().unwrap() {
        value["spec"][field] = new.clone();
    }
    value
}

fn workload(kind: &str, name: &str, replicas: i32, owner: Option<Value>) -> Value {
    let version = if kind == "ReplicationController" { "v1" } else { "apps/v1" };
    let selector = if kind == "ReplicationController" {
        json!({"app": "web"})
    } else {
        json!({"matchLabels": {"app": "web"}})
    };
    let mut value = json!({"apiVersion": version, "kind": kind,
        "metadata": {"name": name, "namespace": "n", "uid": name},
        "spec": {"replicas": replicas, "selector": selector,
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": []}}}});
    if let Some(owner) = owner {
        value["metadata"]["ownerReferences"] = json!([owner]);
    }
    value
}

fn owner(version: &str, kind: &str, name: &str) -> Value {
    json!({"apiVersion": version, "kind": kind, "name": name, "uid": name, "controller": true})
}

fn of_set() -> Option<Value> {
    Some(owner("apps/v1", "ReplicaSet", "set"))
}

fn pod(name: &str, ready: bool, owner: Option<Value>) -> Value {
    let ready = if ready { "True" } else { "False" };
    let mut value = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "n", "labels": {"app": "web"}},
        "spec": {"containers": [], "nodeName": "node"},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}});
    if let Some(owner) = owner {
        value["metadata"]["ownerReferences"] = json!([owner]);
    }
    value
}

/// A fixture of a budget and a replica set of four, of whose pods so many are ready.
fn fixture(spec: Value, ready: usize) -> Fixture<Disruptions> {
    let mut fixture = Fixture::new(Disruptions);
    fixture.put(budget(spec));
    fixture.put(workload("ReplicaSet", "set", 4, None));
    for i in 0..4 {
        fixture.put(pod(&format!("p{i}"), i < ready, of_set()));
    }
    fixture
}

fn stored(fixture: &Fixture<Disruptions>) -> PodDisruptionBudgetStatus {
    let object = fixture.store.get(&key()).unwrap();
    object.get::<PodDisruptionBudget>().unwrap().status.clone().unwrap()
}

/// The status as `healthy of desired of expected, allowed, reason`.
fn status(fixture: &mut Fixture<Disruptions>) -> String {
    fixture.settle(&key());
    let status = stored(fixture);
    let reason = status.conditions.iter().flatten().map(|c| c.reason.as_str()).collect::<String>();
    format!(
        "{}/{}/{} {} {reason}",
        status.current_healthy,
        status.desired_healthy,
        status.expected_pods,
        status.disruptions_allowed
    )
}

fn events(plan: &Plan) -> Vec<String> {
    plan.events.iter().map(|e| format!("{}: {}", e.reason, e.message)).collect()
}

#[test]
fn what_is_spare_is_allowed() {
    let check = |spec: Value, ready: usize, expected: &str| {
        assert_eq!(status(&mut fixture(spec.clone(), ready)), expected, "{spec} of {ready}");
    };
    check(json!({"minAvailable": 3}), 4, "4/3/4 1 SufficientPods");
    check(json!({"minAvailable": 3}), 3, "3/3/4 0 InsufficientPods");
    check(json!({"minAvailable": 3}), 2, "2/3/4 0 InsufficientPods");
    check(json!({"minAvailable": 0}), 4, "4/0/4 4 SufficientPods");
    check(json!({"minAvailable": "50%"}), 4, "4/2/4 2 SufficientPods");
    check(json!({"minAvailable": "51%"}), 4, "4/3/4 1 SufficientPods");
    check(json!({"maxUnavailable": 1}), 4, "4/3/4 1 SufficientPods");
    check(json!({"maxUnavailable": 9}), 4, "4/0/4 4 SufficientPods");
    check(json!({"maxUnavailable": "26%"}), 4, "4/2/4 2 SufficientPods");
    check(json!({"maxUnavailable": 0}), 4, "4/4/4 0 InsufficientPods");
    check(json!({}), 4, "4/0/0 0 InsufficientPods");
    check(json!({"minAvailable": 0, "selector": {}}), 4, "4/0/4 4 SufficientPods");
    check(json!({"minAvailable": 0, "selector": null}), 4, "0/0/0 0 InsufficientPods");
    let others = json!({"minAvailable": 0, "selector":
        {"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "x", "operator": "Exists"}]}});
    check(others, 4, "0/0/0 0 InsufficientPods");
}

#[test]
fn the_scale_is_that_of_what_controls_the_pods() {
    let check = |workloads: &[Value], owners: &[Value], expected: &str| {
        let mut fixture = Fixture::new(Disruptions);
        for workload in workloads {
            fixture.put(workload.clone());
        }
        for (i, owner) in owners.iter().enumerate() {
            fixture.put(pod(&format!("p{i}"), true, Some(owner.clone())));
        }
        fixture.put(budget(json!({"maxUnavailable": 1})));
        assert_eq!(status(&mut fixture), expected);
        stored(&fixture).conditions.unwrap()[0].message.clone()
    };
    let controller = owner("v1", "ReplicationController", "rc");
    let set = |name: &str| owner("apps/v1", "ReplicaSet", name);
    let of_deployment = Some(owner("apps/v1", "Deployment", "web"));
    check(
        &[workload("ReplicationController", "rc", 3, None)],
        &[controller.clone(), controller],
        "2/2/3 0 InsufficientPods",
    );
    let stateful = owner("apps/v1", "StatefulSet", "db");
    check(
        &[workload("StatefulSet", "db", 3, None)],
        &[stateful.clone(), stateful.clone(), stateful],
        "3/2/3 1 SufficientPods",
    );
    // Two replica sets of one deployment, and one of its own.
    check(
        &[
            workload("Deployment", "web", 2, None),
            workload("ReplicaSet", "a", 2, of_deployment.clone()),
            workload("ReplicaSet", "b", 1, of_deployment.clone()),
            workload("ReplicaSet", "c", 1, None),
        ],
        &[set("a"), set("b"), set("c")],
        "3/2/3 1 SufficientPods",
    );
    // The deployment is gone, but not its replica set.
    let orphaned = [workload("ReplicaSet", "a", 2, of_deployment)];
    check(&orphaned, &[set("a"), set("a")], "2/1/2 1 SufficientPods");
    let failed = |owner: Value, why: &str| {
        assert_eq!(check(&[], &[owner], "0/0/0 0 SyncFailed"), why);
    };
    failed(set("gone"), "found no controllers for pod \"p0\"");
    failed(owner("v1", "Node", "n"), "nodes does not implement the scale subresource");
    failed(owner("x/v1", "Y", "y"), "no matches for kind \"Y\" in version \"x/v1\"");
    let mut other = set("a");
    other["uid"] = "another".into();
    let namesake = [workload("ReplicaSet", "a", 2, None)];
    check(&namesake, &[other], "0/0/0 0 SyncFailed");
}

#[test]
fn a_failure_forbids_disruptions_and_keeps_the_rest() {
    let mut fixture = fixture(json!({"maxUnavailable": 1}), 4);
    assert_eq!(status(&mut fixture), "4/3/4 1 SufficientPods");
    let keys = fixture.remove(&Key::new(Kind::ReplicaSet, "n", "set"));
    assert_eq!(keys, [key()]);
    let plan = fixture.reconcile(&key());
    assert_eq!(
        events(&plan),
        [
            "CalculateExpectedPodCountFailed: Failed to calculate the number of expected pods: found \
          no controllers for pod \"p0\""
        ]
    );
    assert_eq!(status(&mut fixture), "4/3/4 0 SyncFailed");
    fixture.put(workload("ReplicaSet", "set", 4, None));
    assert_eq!(status(&mut fixture), "4/3/4 1 SufficientPods");
}

#[test]
fn pods_without_a_controller_are_told_of() {
    let check = |spec: Value, expected: &str, events_expected: &[&str]| {
        let mut fixture = Fixture::new(Disruptions);
        fixture.put(budget(spec));
        fixture.put(pod("a", true, None));
        assert_eq!(events(&fixture.reconcile(&key())), events_expected);
        assert_eq!(status(&mut fixture), expected);
    };
    check(json!({"minAvailable": 0}), "1/0/1 1 SufficientPods", &[]);
    let event = "UnmanagedPods: Pods selected by this PodDisruptionBudget (selector: \
        &LabelSelector{MatchLabels:map[string]string{app: web,},\
        MatchExpressions:[]LabelSelectorRequirement{},}) were found to be unmanaged. As a result, \
        the status of the PDB cannot be calculated correctly, which may result in undefined \
        behavior. To account for these pods please set \".spec.minAvailable\" field of the PDB to \
        an integer value.";
    check(json!({"maxUnavailable": 1}), "1/0/0 0 InsufficientPods", &[event]);
}

#[test]
fn selectors_are_shown_as_kubernetes_shows_them() {
    let selector: LabelSelector =
        serde_json::from_value(json!({"matchLabels": {"b": "c", "a": ""},
        "matchExpressions": [{"key": "k", "operator": "In", "values": ["x", "y"]},
            {"key": "l", "operator": "Exists"}]}))
        .unwrap();
    assert_eq!(
        shown(&selector),
        "&LabelSelector{MatchLabels:map[string]string{a: ,b: c,},\
         MatchExpressions:[]LabelSelectorRequirement{\
         LabelSelectorRequirement{Key:k,Operator:In,Values:[x y],},\
         LabelSelectorRequirement{Key:l,Operator:Exists,Values:[],},},}"
    );
}

#[test]
fn a_budget_without_pods_allows_nothing() {
    let mut fixture = Fixture::new(Disruptions);
    assert_eq!(fixture.put(budget(json!({"minAvailable": 0}))), [key()]);
    assert_eq!(events(&fixture.reconcile(&key())), ["NoPods: No matching pods found"]);
    assert_eq!(status(&mut fixture), "0/0/0 0 InsufficientPods");
    fixture.remove(&key());
    assert_eq!(fixture.reconcile(&key()), Plan::nothing());
}

#[test]
fn a_status_that_is_right_is_not_written() {
    let mut fixture = fixture(json!({"minAvailable": 3}), 4);
    assert_eq!(fixture.settle(&key()), ["update poddisruptionbudgets/n/web status"]);
    fixture.advance(Duration::from_secs(999));
    assert_eq!(summary(&fixture.reconcile(&key())), Vec::<String>::new());
    let mut changed = codec::to_value(fixture.store.get(&key()).unwrap());
    changed["metadata"]["generation"] = 2.into();
    fixture.put(changed);
    assert_eq!(fixture.settle(&key()).len(), 1);
    assert_eq!(stored(&fixture).observed_generation, Some(2));
}

/// Grants an eviction as the API server does.
fn grant(fixture: &mut Fixture<Disruptions>, pod: &str) -> bool {
    let allowed = stored(fixture).disruptions_allowed;
    if allowed == 0 {
        return false;
    }
    let mut value = codec::to_value(fixture.store.get(&key()).unwrap());
    value["status"]["disruptionsAllowed"] = (allowed - 1).into();
    value["status"]["disruptedPods"][pod] = json!(fixture.now().to_meta());
    fixture.put(value);
    true
}

#[test]
fn a_granted_eviction_is_believed_for_two_minutes() {
    let mut fixture = fixture(json!({"minAvailable": 2}), 4);
    assert_eq!(status(&mut fixture), "4/2/4 2 SufficientPods");
    assert!(grant(&mut fixture, "p0"));
    assert_eq!(status(&mut fixture), "3/2/4 1 SufficientPods");
    assert_eq!(fixture.reconcile(&key()).revisit, Some(DELETION_TIMEOUT));
    fixture.advance(Duration::from_secs(119));
    assert_eq!(fixture.reconcile(&key()).revisit, Some(Duration::from_secs(1)));
    fixture.advance(Duration::from_secs(1));
    let plan = fixture.reconcile(&key());
    assert_eq!(plan.revisit, None);
    assert_eq!(
        events(&plan),
        ["NotDeleted: Pod was expected by PDB n/web to be deleted but it wasn't"]
    );
    assert_eq!(status(&mut fixture), "4/2/4 2 SufficientPods");
    assert_eq!(stored(&fixture).disrupted_pods, None);
}

#[test]
fn a_pod_that_goes_is_forgotten() {
    let mut fixture = fixture(json!({"minAvailable": 2}), 4);
    status(&mut fixture);
    grant(&mut fixture, "p0");
    let mut going = pod("p0", true, of_set());
    going["metadata"]["deletionTimestamp"] = json!(START.to_meta());
    assert_eq!(fixture.put(going), [key()]);
    assert_eq!(status(&mut fixture), "3/2/4 1 SufficientPods");
    assert_eq!(stored(&fixture).disrupted_pods, None);
    assert_eq!(fixture.remove(&Key::new(Kind::Pod, "n", "p0")), [key()]);
    assert_eq!(status(&mut fixture), "3/2/3 1 SufficientPods");
}

#[test]
fn changes_that_matter() {
    let mut fixture = fixture(json!({"minAvailable": 2}), 4);
    let none = Vec::<Key>::new();
    // The phase alone is nothing to a budget.
    let mut changed = pod("p0", true, of_set());
    changed["status"]["phase"] = "Unknown".into();
    assert_eq!(fixture.put(changed), none);
    assert_eq!(fixture.put(pod("p0", false, of_set())), [key()]);
    let mut relabelled = pod("p0", false, of_set());
    relabelled["metadata"]["labels"] = json!({"app": "db"});
    assert_eq!(fixture.put(relabelled.clone()), [key()]);
    relabelled["metadata"]["labels"] = json!({"app": "other"});
    assert_eq!(fixture.put(relabelled), none);
    assert_eq!(fixture.put(workload("ReplicaSet", "set", 4, None)), none);
    assert_eq!(fixture.put(workload("ReplicaSet", "set", 5, None)), [key()]);
    assert_eq!(fixture.put(workload("Deployment", "d", 5, None)), [key()]);
}

#[test]
fn marks_of_disruptions_that_do_not_come_are_taken_back() {
    let pod_key = Key::new(Kind::Pod, "n", "p");
    let marked = |reason: &str| {
        let mut marked = pod("p", true, None);
        marked["status"]["conditions"].as_array_mut().unwrap().push(json!({
            "type": "DisruptionTarget", "status": "True", "reason": reason, "message": "m",
            "lastTransitionTime": START.to_meta()}));
        marked
    };
    let mut fixture = Fixture::new(Disruptions);
    assert_eq!(fixture.put(marked("EvictionByEvictionAPI")), std::slice::from_ref(&pod_key));
    assert_eq!(fixture.reconcile(&pod_key).revisit, Some(Duration::from_secs(120)));
    fixture.advance(Duration::from_secs(120));
    assert_eq!(fixture.settle(&pod_key), ["update pods/n/p status"]);
    let pod = codec::to_value(fixture.store.get(&pod_key).unwrap());
    assert_eq!(
        pod["status"]["conditions"][1],
        json!({"type": "DisruptionTarget", "status": "False",
            "lastTransitionTime": fixture.now().to_meta()})
    );
    assert_eq!(fixture.put(marked("TerminationByKubelet")), Vec::<Key>::new());
    let mut ended = marked("EvictionByEvictionAPI");
    ended["status"]["phase"] = "Failed".into();
    assert_eq!(fixture.put(ended), Vec::<Key>::new());
    let mut going = marked("EvictionByEvictionAPI");
    going["metadata"]["deletionTimestamp"] = json!(START.to_meta());
    assert_eq!(fixture.put(going), Vec::<Key>::new());
}

/// What can happen to a budget's pods in the test below.
#[derive(Clone, Debug)]
enum Step {
    /// Somebody asks to evict the pod.
    Evict(usize),
    /// The pod that is to go goes, and another one takes its place later.
    Vanish(usize),
    /// A pod that went is back, ready.
    Return(usize),
    /// The controller looks.
    Reconcile,
    /// Time passes, but no grant gets old.
    Wait,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..6_usize).prop_map(Step::Evict),
        2 => (0..6_usize).prop_map(Step::Vanish),
        2 => (0..6_usize).prop_map(Step::Return),
        3 => Just(Step::Reconcile),
        1 => Just(Step::Wait),
    ]
}

fn spec() -> impl Strategy<Value = Value> {
    prop_oneof![
        (0..7_i32).prop_map(|n| json!({"minAvailable": n})),
        (0..101_i32).prop_map(|n| json!({"minAvailable": format!("{n}%")})),
        (0..7_i32).prop_map(|n| json!({"maxUnavailable": n})),
        (0..101_i32).prop_map(|n| json!({"maxUnavailable": format!("{n}%")})),
    ]
}

/// How many of six pods must stay.
fn least(spec: &Value) -> usize {
    let share = |v: &Value| -> Option<usize> {
        let percent: usize = v.as_str()?.strip_suffix('%')?.parse().ok()?;
        Some((percent * 6).div_ceil(100))
    };
    let amount = |v: &Value| share(v).or_else(|| v.as_u64().and_then(|n| usize::try_from(n).ok()));
    amount(&spec["minAvailable"])
        .or_else(|| amount(&spec["maxUnavailable"]).map(|n| 6_usize.saturating_sub(n)))
        .unwrap()
}

proptest! {
    /// However late the controller looks, and whatever it sees then, evictions never leave fewer
    /// healthy pods than the budget asks for.
    #[test]
    fn evictions_keep_to_the_budget(
        spec in spec(),
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut fixture = Fixture::new(Disruptions);
        fixture.put(budget(spec.clone()));
        fixture.put(workload("ReplicaSet", "set", 6, None));
        for i in 0..6 {
            fixture.put(pod(&format!("p{i}-0"), true, of_set()));
        }
        // Of each pod: how often it was replaced, whether its eviction was granted, and whether
        // it is gone.
        let mut pods = [(0_u32, false, false); 6];
        for step in steps {
            match step {
                Step::Evict(i) => {
                    let (life, granted, gone) = pods[i];
                    if !granted && !gone && grant(&mut fixture, &format!("p{i}-{life}")) {
                        pods[i].1 = true;
                        let stay = pods.iter().filter(|p| !p.1 && !p.2).count();
                        prop_assert!(stay >= least(&spec), "{stay} stay of {spec}");
                    }
                }
                Step::Vanish(i) if pods[i].1 && !pods[i].2 => {
                    pods[i].2 = true;
                    let (life, ..) = pods[i];
                    fixture.remove(&Key::new(Kind::Pod, "n", &format!("p{i}-{life}")));
                }
                Step::Return(i) if pods[i].2 => {
                    pods[i] = (pods[i].0 + 1, false, false);
                    let life = pods[i].0;
                    fixture.put(pod(&format!("p{i}-{life}"), true, of_set()));
                }
                Step::Vanish(_) | Step::Return(_) => {}
                Step::Reconcile => drop(fixture.settle(&key())),
                Step::Wait => fixture.advance(Duration::from_secs(1)),
            }
        }
    }
}
