use std::collections::BTreeSet;

use super::*;

/// A pod of the daemon set on a node, of today's template, as `name node phase`.
fn pod(fixture: &Fixture<DaemonSets>, text: &str) -> Value {
    let words: Vec<&str> = text.split(' ').collect();
    let [name, node, phase] = words[..] else { panic!("{text}") };
    let revision = fixture.store.kind(Kind::ControllerRevision).next().unwrap();
    let hash = meta::label(revision.meta(), HASH).unwrap();
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "n", "creationTimestamp": START.to_meta(),
            "labels": {"app": "agent", HASH: hash},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "agent",
                "uid": "ds", "controller": true, "blockOwnerDeletion": true}]},
        "spec": {"containers": [], "nodeName": node}, "status": {"phase": phase}});
    if phase == "Going" {
        pod["metadata"]["deletionTimestamp"] = json!(START.to_meta());
        pod["status"]["phase"] = "Running".into();
    }
    pod
}

/// A daemon set of which only the revision exists.
fn started(set: Value, nodes: &[&str]) -> Fixture<DaemonSets> {
    let mut fixture = fixture(set, nodes);
    let plan = fixture.reconcile(&key());
    assert_eq!(plan.requests.len(), 1);
    fixture.request(plan.requests[0].clone());
    fixture
}

#[test]
fn one_pod_on_each_node() {
    let mut fixture = fixture(daemon("v1", one_by_one()), &["a", "b"]);
    roll_out(&mut fixture);
    assert_eq!(show(&fixture), ["a v1", "b v1"]);
    let pod = codec::to_value(fixture.store.kind(Kind::Pod).next().unwrap());
    let hash = pod["metadata"]["labels"][HASH].as_str().unwrap().to_owned();
    assert_eq!(
        pod["metadata"]["labels"],
        json!({"app": "agent", HASH: hash, "pod-template-generation": "1"})
    );
    assert_eq!(pod["metadata"]["generateName"], "agent-");
    assert_eq!(pod["metadata"]["ownerReferences"][0]["uid"], "ds");
    assert_eq!(pod["metadata"]["annotations"], Value::Null);
    let bound = pod["spec"]["nodeName"].clone();
    assert_eq!(
        pod["spec"]["affinity"],
        json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": [{"matchFields": [
                {"key": "metadata.name", "operator": "In", "values": [bound]}]}]}}})
    );
    let tolerations: Vec<String> = pod["spec"]["tolerations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| format!("{} {} {}", t["key"], t["operator"], t["effect"]).replace('"', ""))
        .collect();
    assert_eq!(
        tolerations,
        [
            "node.kubernetes.io/not-ready Exists NoExecute",
            "node.kubernetes.io/unreachable Exists NoExecute",
            "node.kubernetes.io/disk-pressure Exists NoSchedule",
            "node.kubernetes.io/memory-pressure Exists NoSchedule",
            "node.kubernetes.io/pid-pressure Exists NoSchedule",
            "node.kubernetes.io/unschedulable Exists NoSchedule",
        ]
    );
    // Nodes come and go.
    fixture.put(node("c"));
    roll_out(&mut fixture);
    assert_eq!(show(&fixture), ["a v1", "b v1", "c v1"]);
}

#[test]
fn nodes_that_are_meant() {
    let check = |change: Value, node: Value, run: bool, stay: bool| {
        let mut set = daemon("v1", one_by_one());
        for (field, value) in change.as_object().unwrap() {
            set["spec"]["template"]["spec"][field] = value.clone();
        }
        let mut fixture = Fixture::new(DaemonSets);
        fixture.put(node.clone());
        fixture.put(set);
        let demand = Demand::of(fixture.cache.get("n", "agent").unwrap());
        let fit = demand.fit(fixture.cache.list::<Node>().next().unwrap());
        assert_eq!(fit, Fit { run, stay }, "{change} {node}");
    };
    let none = json!({});
    check(none.clone(), node("a"), true, true);
    check(json!({"nodeName": "a"}), node("a"), true, true);
    check(json!({"nodeName": "b"}), node("a"), false, false);
    check(json!({"nodeSelector": {"disk": "ssd"}}), node("a"), true, true);
    check(json!({"nodeSelector": {"disk": "hdd"}}), node("a"), false, false);
    check(none.clone(), tainted("a", "x", "NoSchedule"), false, true);
    check(none.clone(), tainted("a", "x", "PreferNoSchedule"), true, true);
    check(none.clone(), tainted("a", "x", "NoExecute"), false, false);
    check(none.clone(), tainted("a", "node.kubernetes.io/not-ready", "NoExecute"), true, true);
    check(none.clone(), tainted("a", "node.kubernetes.io/not-ready", "NoSchedule"), false, true);
    check(none.clone(), tainted("a", "node.kubernetes.io/unschedulable", "NoSchedule"), true, true);
    let network = tainted("a", "node.kubernetes.io/network-unavailable", "NoSchedule");
    check(none, network.clone(), false, true);
    check(json!({"hostNetwork": true}), network, true, true);
    let tolerant = json!({"tolerations": [{"operator": "Exists"}]});
    check(tolerant, tainted("a", "x", "NoExecute"), true, true);
    let affinity = |terms: Value| {
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": terms}}}})
    };
    let labels = |operator: &str, value: &str| json!({"matchExpressions": [{"key": "disk", "operator": operator, "values": [value]}]});
    let name = |value: &str| json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": [value]}]});
    check(affinity(json!([labels("In", "ssd")])), node("a"), true, true);
    check(affinity(json!([labels("NotIn", "ssd")])), node("a"), false, false);
    check(affinity(json!([labels("In", "hdd"), name("a")])), node("a"), true, true);
    check(affinity(json!([name("b")])), node("a"), false, false);
    check(affinity(json!([{}])), node("a"), false, false);
    check(affinity(json!([])), node("a"), false, false);
    check(affinity(json!([labels("Roughly", "ssd"), name("a")])), node("a"), true, true);
}

#[test]
fn tolerations_for_a_while_are_made_to_last() {
    let mut spec = serde_json::from_value(json!({"containers": [], "hostNetwork": true,
        "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists",
            "effect": "NoExecute", "tolerationSeconds": 300}]}))
    .unwrap();
    nodes::tolerate(&mut spec);
    let tolerations = spec.tolerations.unwrap();
    assert_eq!(tolerations.len(), 7);
    assert_eq!(tolerations[0].toleration_seconds, None);
    assert_eq!(tolerations[6].key.as_deref(), Some("node.kubernetes.io/network-unavailable"));
}

#[test]
fn too_many_and_misplaced_pods_go() {
    let check = |pods: &[&str], expected: &[&str]| {
        let mut fixture = started(daemon("v1", one_by_one()), &["a"]);
        fixture.put(tainted("tainted", "x", "NoSchedule"));
        fixture.put(tainted("hostile", "x", "NoExecute"));
        for text in pods {
            let mut value = pod(&fixture, text);
            if text.starts_with("old") {
                value["metadata"]["creationTimestamp"] = json!(Time::from_secs(5).to_meta());
            }
            if text.contains(" gone ") {
                nodes_tie(&mut value);
            }
            fixture.put(value);
        }
        assert_eq!(done_to_pods(&fixture.reconcile(&key())), expected, "{pods:?}");
    };
    check(&[], &["create a"]);
    check(&["x a Running"], &[]);
    check(&["x a Going"], &[]);
    // The oldest stays; among equals the first by name.
    check(&["x a Running", "y a Running", "z a Running"], &["delete y", "delete z"]);
    check(&["x a Running", "old a Running"], &["delete x"]);
    check(&["x a Running", "y tainted Running"], &[]);
    check(&["x a Running", "y hostile Running"], &["delete y"]);
    check(&["x a Running", "y hostile Going"], &[]);
    // What is tied to a node that is gone would wait for ever.
    check(&["x a Running", "y gone Pending"], &["delete y"]);
    check(&["x a Running", "y lost Running"], &[]);
}

/// Ties a pod to its node instead of binding it.
fn nodes_tie(pod: &mut Value) {
    let node = pod["spec"]["nodeName"].take();
    pod["spec"].as_object_mut().unwrap().remove("nodeName");
    pod["spec"]["affinity"] = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": [{"matchFields": [
                {"key": "metadata.name", "operator": "In", "values": [node]}]}]}}});
}

#[test]
fn orphans_are_adopted_and_strangers_released_first() {
    let mut fixture = started(daemon("v1", one_by_one()), &["a"]);
    let mut orphan = pod(&fixture, "x a Running");
    orphan["metadata"].as_object_mut().unwrap().remove("ownerReferences");
    assert_eq!(fixture.put(orphan), [key()]);
    let done = fixture.settle(&key());
    assert_eq!(done, ["update pods/n/x", "update daemonsets/n/agent status"]);
    assert_eq!(pods_in(&fixture)[0].metadata.owner_references.as_ref().unwrap()[0].uid, "ds");
    change_pod(&mut fixture, &Key::new(Kind::Pod, "n", "x"), |value| {
        value["metadata"]["labels"] = json!({"app": "other"});
    });
    let done = fixture.settle(&key());
    assert_eq!(done[0], "update pods/n/x");
    assert!(done[1].starts_with("create pods/n/agent-"), "{done:?}");
}

#[test]
fn what_has_ended_is_replaced_ever_more_slowly() {
    let mut fixture = fixture(daemon("v1", one_by_one()), &["a"]);
    roll_out(&mut fixture);
    let mut waited = Vec::new();
    for _ in 0..14 {
        let name = pods_in(&fixture)[0].metadata.name.clone().unwrap();
        let pod = Key::new(Kind::Pod, "n", &name);
        change_pod(&mut fixture, &pod, |value| value["status"] = json!({"phase": "Failed"}));
        let failed_at = fixture.now();
        let mut plan = fixture.reconcile(&key());
        if let Some(delay) = plan.revisit {
            assert_eq!(done_to_pods(&plan), Vec::<String>::new());
            fixture.advance(delay);
            plan = fixture.reconcile(&key());
        }
        waited.push(fixture.now().since(failed_at));
        assert_eq!(done_to_pods(&plan), [format!("delete {name}"), "create a".to_owned()]);
        let told = format!("Found failed daemon pod n/{name} on node a, will try to kill it");
        assert_eq!(
            (plan.events[0].reason.as_str(), &plan.events[0].message),
            ("FailedDaemonPod", &told)
        );
        for request in plan.requests {
            fixture.request(request);
        }
        // Pods that have ended go at once.
        fixture.remove(&pod);
        obey(&mut fixture);
    }
    let seconds: Vec<u64> = waited.iter().map(Duration::as_secs).collect();
    assert_eq!(seconds, [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900]);
    // One that has run for long starts anew.
    fixture.advance(Duration::from_secs(3600));
    let name = pods_in(&fixture)[0].metadata.name.clone().unwrap();
    change_pod(&mut fixture, &Key::new(Kind::Pod, "n", &name), |value| {
        value["status"] = json!({"phase": "Succeeded"});
    });
    let plan = fixture.reconcile(&key());
    assert_eq!(done_to_pods(&plan), [format!("delete {name}"), "create a".to_owned()]);
    assert_eq!(plan.events[0].reason, "SucceededDaemonPod");
}

#[test]
fn pods_of_a_new_template_do_not_wait_for_what_failed_before() {
    let mut fixture = fixture(daemon("v1", one_by_one()), &["a"]);
    roll_out(&mut fixture);
    let name = pods_in(&fixture)[0].metadata.name.clone().unwrap();
    change_pod(&mut fixture, &Key::new(Kind::Pod, "n", &name), |value| {
        value["metadata"]["annotations"] = json!({"kprov.io/ended-before": "9"});
        value["status"] = json!({"phase": "Failed"});
    });
    assert!(fixture.reconcile(&key()).revisit.is_some());
    set_image(&mut fixture, "v2");
    let done = fixture.settle(&key());
    assert!(done.contains(&format!("delete pods/n/{name}")), "{done:?}");
}

#[test]
fn no_more_than_a_burst_at_a_time() {
    let mut fixture = started(daemon("v1", one_by_one()), &[]);
    for i in 0..300 {
        fixture.put(node(&format!("node-{i:03}")));
    }
    let plan = fixture.reconcile(&key());
    let created: BTreeSet<String> = creates(&plan).into_iter().collect();
    assert_eq!(created.len(), BURST_MAX);
    let first = plan.announcements[&0].clone();
    assert!(first.done.unwrap().message.starts_with("Created pod: agent-"));
    assert_eq!(first.refused.unwrap().message, "Error creating: ");
    // The same plan has the same names.
    let again: BTreeSet<String> = creates(&fixture.reconcile(&key())).into_iter().collect();
    assert_eq!(created, again);
    roll_out(&mut fixture);
    assert_eq!(show(&fixture).len(), 300);
}

#[test]
fn the_status_counts() {
    let mut set = daemon("v1", one_by_one());
    set["spec"]["minReadySeconds"] = 10.into();
    let mut fixture = fixture(set, &["a", "b", "c"]);
    fixture.put(tainted("tainted", "x", "NoSchedule"));
    fixture.settle(&key());
    let misplaced = pod(&fixture, "misplaced tainted Running");
    fixture.put(misplaced);
    for pod in &pods_in(&fixture)[..2] {
        obey_one(&mut fixture, pod);
    }
    fixture.settle(&key());
    let text = |f: &Fixture<DaemonSets>| serde_json::to_string(&status(f)).unwrap();
    insta::assert_snapshot!(
        text(&fixture),
        @r#"{"currentNumberScheduled":3,"desiredNumberScheduled":3,"numberMisscheduled":1,"numberReady":2,"numberUnavailable":3,"observedGeneration":1,"updatedNumberScheduled":3}"#
    );
    fixture.advance(Duration::from_secs(4));
    assert_eq!(fixture.reconcile(&key()).revisit, Some(Duration::from_secs(6)));
    fixture.advance(Duration::from_secs(6));
    fixture.settle(&key());
    insta::assert_snapshot!(
        text(&fixture),
        @r#"{"currentNumberScheduled":3,"desiredNumberScheduled":3,"numberAvailable":2,"numberMisscheduled":1,"numberReady":2,"numberUnavailable":1,"observedGeneration":1,"updatedNumberScheduled":3}"#
    );
}

#[test]
fn a_refusal_does_not_keep_the_status_from_being_told() {
    let fixture = started(daemon("v1", one_by_one()), &["a"]);
    let plan = fixture.reconcile(&key());
    let error = ApiError::from(api::Status::forbidden(Kind::Pod, "agent-x", "exceeded quota"));
    let note = |request: &Request| {
        DaemonSets.note_refusal(&fixture.cache, &key(), request, &error, fixture.now())
    };
    let noted = note(&plan.requests[0]).unwrap();
    let Request::Update { object, .. } = &noted else { panic!("an update") };
    assert_eq!(codec::to_value(object)["status"]["desiredNumberScheduled"], 1);
    assert_eq!(codec::to_value(object)["status"]["observedGeneration"], 1);
    assert_eq!(note(plan.requests.last().unwrap()), None);
}

#[test]
fn odd_sets_make_nothing() {
    let check = |set: Value| {
        let fixture = fixture(set, &["a"]);
        assert_eq!(summary(&fixture.reconcile(&key())), Vec::<String>::new());
    };
    let mut everything = daemon("v1", one_by_one());
    everything["spec"]["selector"] = json!({});
    check(everything.clone());
    let told = fixture(everything, &["a"]).reconcile(&key()).events;
    assert_eq!(told[0].reason, "SelectingAll");
    let mut dying = daemon("v1", one_by_one());
    dying["metadata"]["deletionTimestamp"] = json!(START.to_meta());
    check(dying);
    let mut bare = daemon("v1", one_by_one());
    bare.as_object_mut().unwrap().remove("spec");
    check(bare);
}

#[test]
fn only_what_concerns_a_daemon_set_wakes_it() {
    let mut set = daemon("v1", one_by_one());
    set["spec"]["template"]["spec"]["nodeSelector"] = json!({"disk": "ssd"});
    let mut fixture = fixture(set, &[]);
    assert_eq!(fixture.put(node("a")), [key()]);
    // A node that reports.
    let mut reported = node("a");
    reported["status"] = json!({"conditions": [{"type": "Ready", "status": "True"}]});
    assert_eq!(fixture.put(reported), []);
    let mut labelled = node("a");
    labelled["metadata"]["labels"]["other"] = "x".into();
    assert_eq!(fixture.put(labelled), []);
    assert_eq!(fixture.put(tainted("a", "x", "NoSchedule")), [key()]);
    assert_eq!(fixture.put(tainted("a", "y", "NoSchedule")), []);
    assert_eq!(fixture.remove(&Key::cluster(Kind::Node, "a")), [key()]);
    let mut other = node("b");
    other["metadata"]["labels"] = json!({});
    assert_eq!(fixture.put(other), []);
    assert_eq!(fixture.remove(&Key::cluster(Kind::Node, "b")), []);
    fixture.settle(&key());
    let pod = pod(&fixture, "x a Running");
    assert_eq!(fixture.put(pod.clone()), [key()]);
    let mut reported = pod.clone();
    reported["status"]["podIP"] = "10.0.0.1".into();
    assert_eq!(fixture.put(reported), []);
    let mut ended = pod;
    ended["status"]["phase"] = "Failed".into();
    assert_eq!(fixture.put(ended), [key()]);
    assert_eq!(fixture.remove(&Key::new(Kind::Pod, "n", "x")), [key()]);
}
