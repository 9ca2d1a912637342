use super::*;

fn orphan(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "n", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "v0"}]}, "status": {"phase": "Pending"}})
}

#[test]
fn a_pod_tells_who_it_is() {
    let mut fixture = fixture(ordered(1));
    fixture.settle(&key());
    let pod = codec::to_value(fixture.store.kind(Kind::Pod).next().unwrap());
    let revision = status(&fixture)["updateRevision"].clone();
    assert_eq!(
        pod["metadata"]["labels"],
        json!({"app": "web", "controller-revision-hash": revision,
            "statefulset.kubernetes.io/pod-name": "web-0", "apps.kubernetes.io/pod-index": "0"})
    );
    assert_eq!(pod["metadata"]["generateName"], "web-");
    assert_eq!(pod["metadata"]["ownerReferences"][0]["uid"], "sts");
    assert_eq!(pod["spec"]["hostname"], "web-0");
    assert_eq!(pod["spec"]["subdomain"], "hosts");
}

#[test]
fn labels_that_are_lost_are_given_back() {
    let mut fixture = fixture(ordered(1));
    roll_out(&mut fixture);
    change(&mut fixture, &pod_key(0), |v| {
        let labels = v["metadata"]["labels"].as_object_mut().unwrap();
        labels.remove(identity::POD_NAME);
        labels.remove(identity::POD_INDEX);
    });
    assert_eq!(step(&mut fixture), ["update web-0"]);
    let meta = &pods_in(&fixture)[0].metadata;
    assert_eq!(meta::label(meta, identity::POD_NAME), Some("web-0"));
    assert_eq!(meta::label(meta, identity::POD_INDEX), Some("0"));
    assert_eq!(fixture.settle(&key()), Vec::<String>::new());
}

#[test]
fn orphans_of_its_names_are_adopted_and_others_are_not() {
    let mut fixture = fixture(ordered(1));
    for name in ["web-0", "web-00", "web-x", "web-", "web--1", "web", "other-0"] {
        assert_eq!(fixture.put(orphan(name)), [key()]);
    }
    let plan = fixture.reconcile(&key());
    assert_eq!(done_to_pods(&plan), ["update web-0"]);
    // One that has no revision gives way to one that has.
    roll_out_of(&mut fixture);
    let pods = pods_in(&fixture);
    let owned = |pod: &&Pod| meta::controller_of(&pod.metadata).is_some();
    let owned: Vec<String> = pods.iter().filter(owned).map(image).collect();
    assert_eq!(owned, ["v1"]);
    assert_eq!(pods.len(), 7);
}

fn roll_out_of(fixture: &mut Fixture<StatefulSets>) {
    obey(fixture);
    roll_out(fixture);
}

#[test]
fn what_matches_no_more_is_released_and_waited_for() {
    let mut fixture = fixture(ordered(1));
    roll_out(&mut fixture);
    change(&mut fixture, &pod_key(0), |v| v["metadata"]["labels"]["app"] = "stray".into());
    assert_eq!(step(&mut fixture), ["update web-0"]);
    assert_eq!(meta::controller_of(&pods_in(&fixture)[0].metadata), None);
    // The name is taken, and the API refuses a second pod of it as long as that is so.
    assert_eq!(done_to_pods(&fixture.reconcile(&key())), ["create web-0"]);
    fixture.remove(&pod_key(0));
    roll_out(&mut fixture);
    assert_eq!(show(&fixture), ["web-0 v1"]);
}

#[test]
fn a_pod_of_somebody_else_is_left_alone() {
    let mut fixture = fixture(ordered(1));
    let mut taken = orphan("web-0");
    taken["metadata"]["ownerReferences"] = json!([{"apiVersion": "apps/v1",
        "kind": "StatefulSet", "name": "web", "uid": "older", "controller": true}]);
    assert_eq!(fixture.put(taken), [key()]);
    step(&mut fixture);
    assert_eq!(done_to_pods(&fixture.reconcile(&key())), ["create web-0"]);
}
