//! Budgets for the disruption of pods.

use super::fields::check;
use super::*;

fn budget() -> Value {
    json!({"kind": "PodDisruptionBudget", "apiVersion": "policy/v1",
        "metadata": {"name": "b", "namespace": "default"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}}})
}

#[test]
fn what_is_refused() {
    check(
        budget(),
        "/spec/maxUnavailable",
        json!("50%"),
        "spec: Invalid value: {\"maxUnavailable\":\"50%\",\"minAvailable\":1,\"selector\":\
         {\"matchLabels\":{\"app\":\"x\"}}}: minAvailable and maxUnavailable cannot be both set",
    );
    let least = |value: Value, expected: &str| {
        check(budget(), "/spec/minAvailable", value, &format!("spec.minAvailable: {expected}"));
    };
    least(json!(-1), "Invalid value: -1: must be greater than or equal to 0");
    least(
        json!("110%"),
        "Invalid value: intstr.IntOrString{Type:1, IntVal:0, StrVal:\"110%\"}: must not be \
         greater than 100%",
    );
    least(
        json!("half"),
        "Invalid value: intstr.IntOrString{Type:1, IntVal:0, StrVal:\"half\"}: a valid percent \
         string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex \
         used for validation is '[0-9]+%')",
    );
    let mut most = budget();
    most["spec"] = json!({"selector": {}});
    check(
        most,
        "/spec/maxUnavailable",
        json!(-5),
        "spec.maxUnavailable: Invalid value: -5: must be greater than or equal to 0",
    );
    check(
        budget(),
        "/spec/unhealthyPodEvictionPolicy",
        json!("Never"),
        "spec.unhealthyPodEvictionPolicy: Unsupported value: \"Never\": supported values: \
         \"AlwaysAllow\", \"IfHealthyBudget\"",
    );
    check(
        budget(),
        "/spec/selector",
        json!({"matchExpressions": [{"key": "a", "operator": "Like"}]}),
        "spec.selector.matchExpressions[0].operator: Invalid value: \"Like\": not a valid \
         selector operator",
    );
}

#[test]
fn what_is_accepted() {
    let mut world = World::new();
    for (i, spec) in [
        json!({}),
        json!({"selector": {}}),
        json!({"minAvailable": "100%"}),
        json!({"minAvailable": "0%"}),
        json!({"maxUnavailable": 0, "unhealthyPodEvictionPolicy": "AlwaysAllow"}),
    ]
    .into_iter()
    .enumerate()
    {
        let mut manifest = with(budget(), "/spec", spec.clone());
        manifest["metadata"]["name"] = format!("b{i}").into();
        // Nothing is filled in.
        assert_eq!(world.create(manifest).unwrap()["spec"], spec);
    }
}

#[test]
fn spec_and_status_are_written_apart() {
    let mut world = World::new();
    let zero = json!({"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0,
        "expectedPods": 0});
    let known = with(
        budget(),
        "/status",
        json!({"currentHealthy": 1, "desiredHealthy": 1,
        "disruptionsAllowed": 9, "expectedPods": 1}),
    );
    let made = world.create(known).unwrap();
    assert_eq!(made["status"], zero);
    assert_eq!(made["metadata"]["generation"], 1);
    let b = key(Kind::PodDisruptionBudget, "b");
    let both = json!({"spec": {"minAvailable": 2}, "status": {"disruptionsAllowed": 3}});
    let spec = world.patch(&b, both).unwrap();
    assert_eq!((&spec["metadata"]["generation"], &spec["status"]), (&json!(2), &zero));
    let status = world
        .patch_at(
            &b,
            Some(Subresource::Status),
            json!({
        "spec": {"minAvailable": 3}, "status": {"disruptionsAllowed": 3}}),
        )
        .unwrap();
    assert_eq!(status["status"]["disruptionsAllowed"], 3);
    assert_eq!(status["spec"]["minAvailable"], 2);
    assert_eq!(status["metadata"]["generation"], 2);
    // Whoever writes it must have read it.
    let error = world.update(&budget(), None).unwrap_err();
    assert_eq!(
        error.message,
        "poddisruptionbudgets.policy \"b\" is invalid: metadata.resourceVersion: Invalid value: \
         0x0: must be specified for an update"
    );
}

#[test]
fn the_status_is_checked() {
    let mut world = World::new();
    world.create(budget()).unwrap();
    let mut check = |status: Value, expected: &str| {
        let b = key(Kind::PodDisruptionBudget, "b");
        let status = json!({"status": status});
        let error = world.patch_at(&b, Some(Subresource::Status), status).unwrap_err();
        assert_eq!(
            error.message,
            format!("PodDisruptionBudget.policy \"b\" is invalid: status.{expected}")
        );
    };
    check(
        json!({"disruptionsAllowed": -1}),
        "disruptionsAllowed: Invalid value: -1: must be greater than or equal to 0",
    );
    let condition = |pointer: &str, value: Value| {
        let good = json!({"type": "DisruptionAllowed", "status": "True", "reason": "Fine",
            "message": "", "lastTransitionTime": "2023-11-14T22:13:20Z"});
        json!({"conditions": [with(good, pointer, value)]})
    };
    check(
        condition("/status", json!("Maybe")),
        "conditions[0].status: Unsupported value: \"Maybe\": supported values: \"False\", \
         \"True\", \"Unknown\"",
    );
    check(condition("/reason", json!("")), "conditions[0].reason: Required value: must be set");
    check(
        condition("/reason", json!("not so")),
        "conditions[0].reason: Invalid value: \"not so\": a condition reason must start with \
         alphabetic character, optionally followed by a string of alphanumeric characters or \
         '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  \
         or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is \
         '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')",
    );
    check(
        condition("/observedGeneration", json!(-1)),
        "conditions[0].observedGeneration: Invalid value: -1: must be greater than or equal to \
         zero",
    );
    let mut twice = condition("/reason", json!("Fine"));
    let first = twice["conditions"][0].clone();
    twice["conditions"].as_array_mut().unwrap().push(first);
    check(twice, "conditions[1].type: Duplicate value: \"DisruptionAllowed\"");
}

#[test]
fn a_strategic_patch_replaces_the_selector() {
    let mut world = World::new();
    world.create(budget()).unwrap();
    let patch = Patch {
        kind: PatchKind::Strategic,
        body: json!({"spec": {"selector": {"matchLabels": {"app": "y"}}}}).into(),
    };
    let b = key(Kind::PodDisruptionBudget, "b");
    world.patch(&b, json!({"spec": {"selector": {"matchLabels": {"more": "z"}}}})).unwrap();
    let operation = Operation::Patch { key: b, subresource: None, patch, strict: true };
    let patched = world.run(&operation).unwrap();
    assert_eq!(patched["spec"]["selector"], json!({"matchLabels": {"app": "y"}}));
}

#[test]
fn a_disrupted_pod_is_marked() {
    let mut world = World::new();
    world.create(pod("p")).unwrap();
    let disrupt =
        Operation::Disrupt { pod: key(Kind::Pod, "p"), options: DeleteOptions::default() };
    let marked = world.run(&disrupt).unwrap();
    let condition = marked["status"]["conditions"].as_array().unwrap().last().unwrap();
    assert_eq!(condition["reason"], "EvictionByEvictionAPI");
    assert!(matches!(world.decide(&disrupt), Ok(Mutation::Unchanged(_))));
    let gone = Operation::Disrupt { pod: key(Kind::Pod, "q"), options: DeleteOptions::default() };
    assert_eq!(world.decide(&gone).unwrap_err().message, "pods \"q\" not found");
}
