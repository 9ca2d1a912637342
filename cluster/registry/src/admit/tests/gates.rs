//! Scheduling gates, from the creation of a pod to its binding.

use super::*;

#[expect(clippy::needless_pass_by_value, reason = "callers write it in place")]
fn gated(spec: Value) -> Value {
    let mut manifest = pod("a");
    manifest["spec"]["schedulingGates"] = json!([{"name": "example.com/x"}, {"name": "y"}]);
    for (field, value) in spec.as_object().unwrap() {
        manifest["spec"][field] = value.clone();
    }
    manifest
}

#[test]
fn a_gated_pod_says_so_until_it_is_bound() {
    let mut world = World::new();
    let a = key(Kind::Pod, "a");
    let made = world.create(gated(json!({}))).unwrap();
    let condition = json!({"type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
        "message": "Scheduling is blocked due to non-empty scheduling gates"});
    assert_eq!(made["status"]["conditions"], json!([condition]));
    let refused = world.bind("a", "node-1").unwrap_err().message;
    assert!(refused.ends_with("pod a has non-empty .spec.schedulingGates"), "{refused}");
    let left = world.patch(&a, json!({"spec": {"schedulingGates": [{"name": "y"}]}})).unwrap();
    assert_eq!(left["status"]["conditions"], json!([condition]));
    let free = world.patch(&a, json!({"spec": {"schedulingGates": []}})).unwrap();
    assert_eq!(free["spec"].get("schedulingGates"), None);
    world.bind("a", "node-1").unwrap();
    let bound = world.patch(&a, json!({})).unwrap();
    assert_eq!(bound["status"]["conditions"][0]["status"], "True");
    assert_eq!(bound["status"]["conditions"][0].get("reason"), None);
    let plain = world.create(pod("b")).unwrap();
    assert_eq!(plain["status"].get("conditions"), None);
}

#[test]
fn gates_that_cannot_be() {
    let mut world = World::new();
    let mut check = |spec: Value, expected: &str| {
        let error = world.create(gated(spec)).unwrap_err().message;
        assert_eq!(error, format!("Pod \"a\" is invalid: {expected}"));
    };
    check(
        json!({"nodeName": "node-1"}),
        "spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared",
    );
    check(
        json!({"schedulingGates": [{"name": "x"}, {"name": "x"}]}),
        "spec.schedulingGates[1]: Duplicate value: \"x\"",
    );
    check(
        json!({"schedulingGates": [{"name": "a/"}]}),
        "[spec.schedulingGates[0]: Invalid value: \"a/\": name part must be non-empty, \
         spec.schedulingGates[0]: Invalid value: \"a/\": name part must consist of alphanumeric \
         characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. \
         'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
         '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')]",
    );
    world.create(gated(json!({}))).unwrap();
    let a = key(Kind::Pod, "a");
    let gates = json!([{"name": "example.com/x"}, {"name": "z"}]);
    assert_eq!(
        world.patch(&a, json!({"spec": {"schedulingGates": gates}})).unwrap_err().message,
        "Pod \"a\" is invalid: spec.schedulingGates[1].name: Forbidden: only deletion is allowed, \
         but found new scheduling gate 'z'"
    );
}

#[test]
fn the_place_of_a_gated_pod_can_be_narrowed() {
    let term = |labels: &[&str]| {
        let expressions: Vec<Value> =
            labels.iter().map(|label| json!({"key": label, "operator": "Exists"})).collect();
        json!({"matchExpressions": expressions})
    };
    let required = |terms: &[Value]| {
        json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": terms}}})
    };
    let mut world = World::new();
    let a = key(Kind::Pod, "a");
    world.create(gated(json!({"nodeSelector": {"a": "b"}}))).unwrap();
    let mut change = |spec: Value| world.patch(&a, json!({"spec": spec})).map_err(|e| e.message);
    change(json!({"nodeSelector": {"c": "d"}})).unwrap();
    assert_eq!(
        change(json!({"nodeSelector": {"a": "z"}})).unwrap_err(),
        "Pod \"a\" is invalid: spec.nodeSelector: Invalid value: map[string]string{\"a\":\"z\", \
         \"c\":\"d\"}: only additions to spec.nodeSelector are allowed (no mutations or deletions)"
    );
    assert!(change(json!({"nodeSelector": null})).unwrap_err().contains("map[string]string(nil)"));
    // Where there was no affinity there can be any; a term can ask for more.
    change(json!({"affinity": required(&[term(&["a"])])})).unwrap();
    change(json!({"affinity": required(&[term(&["a", "b"])])})).unwrap();
    let terms = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.\
                 nodeSelectorTerms";
    assert_eq!(
        change(json!({"affinity": required(&[term(&["b"])])})).unwrap_err(),
        format!(
            "Pod \"a\" is invalid: {terms}[0]: Invalid value: \
             core.NodeSelectorTerm{{MatchExpressions:[]core.NodeSelectorRequirement{{\
             core.NodeSelectorRequirement{{Key:\"b\", Operator:\"Exists\", Values:[]string(nil)}}}}, \
             MatchFields:[]core.NodeSelectorRequirement(nil)}}: only additions are allowed (no \
             mutations or deletions)"
        )
    );
    let two = change(json!({"affinity": required(&[term(&["a", "b"]), term(&["c"])])}));
    let expected = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
    assert!(two.unwrap_err().ends_with(expected));
    assert!(change(json!({"affinity": null})).unwrap_err().ends_with(expected));
    let preferred = json!([{"weight": 1, "preference": term(&["x"])}]);
    change(json!({"affinity": {"nodeAffinity":
        {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}}))
    .unwrap();
    // Affinity to pods stays as it is, and so does everything once the gates are gone.
    let near = json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
        [{"labelSelector": {}, "topologyKey": "zone"}]}});
    assert!(change(json!({"affinity": near})).unwrap_err().contains("spec: Forbidden: "));
    change(json!({"schedulingGates": null})).unwrap();
    let late = change(json!({"nodeSelector": {"e": "f"}})).unwrap_err();
    assert!(late.contains("spec: Forbidden: pod updates may not change fields"), "{late}");
}
