use super::*;

/// What a rollout to `v2` does first on nodes that all have a pod.
fn first_step(strategy: Value, nodes: &[&str]) -> (Fixture<DaemonSets>, Vec<String>) {
    let mut fixture = fixture(daemon("v1", strategy), nodes);
    roll_out(&mut fixture);
    set_image(&mut fixture, "v2");
    // The revision comes first.
    let plan = fixture.reconcile(&key());
    assert_eq!(plan.requests.len(), 1);
    fixture.request(plan.requests[0].clone());
    let plan = fixture.reconcile(&key());
    let verbs = |step: String| step.split(' ').next().unwrap_or_default().to_owned();
    let done = done_to_pods(&plan).into_iter().map(verbs).collect();
    (fixture, done)
}

#[test]
fn as_many_at_a_time_as_may_be_unavailable() {
    let nodes = ["a", "b", "c", "d", "e"];
    let check = |strategy: Value, expected: usize| {
        let (mut fixture, done) = first_step(strategy.clone(), &nodes);
        assert_eq!(done, vec!["delete"; expected], "{strategy}");
        roll_out(&mut fixture);
        assert_eq!(show(&fixture), ["a v2", "b v2", "c v2", "d v2", "e v2"]);
        assert_eq!(status(&fixture)["updatedNumberScheduled"], 5);
    };
    check(one_by_one(), 1);
    check(rolling(json!(2), json!(0)), 2);
    check(rolling(json!("50%"), json!(0)), 3);
    check(rolling(json!("1%"), json!(0)), 1);
    check(rolling(json!(9), json!(0)), 5);
    // Nothing would ever move.
    check(rolling(json!(0), json!(0)), 1);
    check(json!({"type": "RollingUpdate"}), 1);
}

#[test]
fn with_a_surge_the_new_pod_comes_first() {
    let nodes = ["a", "b", "c"];
    let (mut fixture, done) = first_step(rolling(json!(0), json!(2)), &nodes);
    assert_eq!(done, ["create", "create"]);
    fixture.settle(&key());
    assert_eq!(show(&fixture), ["a v1", "a v2", "b v1", "b v2", "c v1"]);
    obey(&mut fixture);
    fixture.settle(&key());
    assert_eq!(show(&fixture), ["a v1 going", "a v2", "b v1 going", "b v2", "c v1", "c v2"]);
    roll_out(&mut fixture);
    assert_eq!(show(&fixture), ["a v2", "b v2", "c v2"]);
}

#[test]
fn a_surge_takes_the_place_of_what_is_not_available() {
    let mut fixture = fixture(daemon("v1", rolling(json!(0), json!(1))), &["a", "b"]);
    fixture.settle(&key());
    set_image(&mut fixture, "v2");
    // Neither is ready: each gets a new one at once, which the next pass keeps alone.
    fixture.settle(&key());
    assert_eq!(show(&fixture), ["a v2", "b v2"]);
}

#[test]
fn with_a_surge_misplaced_pods_wait_for_others() {
    let mut set = daemon("v1", rolling(json!(0), json!(1)));
    set["spec"]["template"]["spec"]["nodeSelector"] = json!({"disk": "ssd"});
    let mut fixture = fixture(set, &["a"]);
    roll_out(&mut fixture);
    fixture.put(node("b"));
    fixture.put(tainted("a", "x", "NoSchedule"));
    set_image(&mut fixture, "v2");
    fixture.settle(&key());
    assert_eq!(show(&fixture), ["a v1", "b v2"]);
    obey(&mut fixture);
    fixture.settle(&key());
    assert_eq!(show(&fixture), ["a v1 going", "b v2"]);
    roll_out(&mut fixture);
    assert_eq!(show(&fixture), ["b v2"]);
}

#[test]
fn on_delete_waits_for_somebody_to_delete() {
    let mut fixture = fixture(daemon("v1", json!({"type": "OnDelete"})), &["a", "b"]);
    roll_out(&mut fixture);
    set_image(&mut fixture, "v2");
    roll_out(&mut fixture);
    assert_eq!(show(&fixture), ["a v1", "b v1"]);
    assert_eq!(status(&fixture)["updatedNumberScheduled"], Value::Null);
    let first = pods_in(&fixture)
        .into_iter()
        .find(|pod| pod.node() == "a")
        .and_then(|pod| pod.metadata.name)
        .unwrap();
    fixture.remove(&Key::new(Kind::Pod, "n", &first));
    roll_out(&mut fixture);
    assert_eq!(show(&fixture), ["a v2", "b v1"]);
}

#[test]
fn a_rollout_waits_until_pods_are_available_for_long_enough() {
    let mut set = daemon("v1", one_by_one());
    set["spec"]["minReadySeconds"] = 30.into();
    let mut fixture = fixture(set, &["a", "b"]);
    roll_out(&mut fixture);
    fixture.advance(Duration::from_secs(30));
    roll_out(&mut fixture);
    set_image(&mut fixture, "v2");
    roll_out(&mut fixture);
    assert_eq!(show(&fixture), ["a v2", "b v1"]);
    assert_eq!(fixture.reconcile(&key()).revisit, Some(Duration::from_secs(30)));
    fixture.advance(Duration::from_secs(30));
    roll_out(&mut fixture);
    assert_eq!(show(&fixture), ["a v2", "b v2"]);
}

#[test]
fn pods_of_the_same_generation_count_as_updated() {
    let mut fixture = fixture(daemon("v1", one_by_one()), &["a"]);
    roll_out(&mut fixture);
    let name = pods_in(&fixture)[0].metadata.name.clone().unwrap();
    change_pod(&mut fixture, &Key::new(Kind::Pod, "n", &name), |value| {
        value["metadata"]["labels"][HASH] = "strange".into();
    });
    roll_out(&mut fixture);
    assert_eq!(pods_in(&fixture)[0].metadata.name, Some(name));
    assert_eq!(status(&fixture)["updatedNumberScheduled"], 1);
}
