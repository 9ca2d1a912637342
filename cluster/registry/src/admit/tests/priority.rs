use super::*;

fn class(name: &str, value: i32) -> Value {
    json!({"kind": "PriorityClass", "apiVersion": "scheduling.k8s.io/v1",
        "metadata": {"name": name}, "value": value})
}

fn default_class(name: &str, value: i32) -> Value {
    with(class(name, value), "/globalDefault", json!(true))
}

fn in_class(pod_name: &str, class: &str) -> Value {
    with(pod(pod_name), "/spec/priorityClassName", json!(class))
}

/// A world as API servers make it.
fn world() -> World {
    let mut world = World::new();
    for object in crate::priority_class::system_classes() {
        world.run(&Operation::Create { object }).unwrap();
    }
    world
}

/// What a pod has of its class.
fn priority_of(pod: &Value) -> (Option<&str>, i64, Option<&str>) {
    let spec = &pod["spec"];
    let class = spec["priorityClassName"].as_str();
    (class, spec["priority"].as_i64().unwrap(), spec["preemptionPolicy"].as_str())
}

fn refused(result: Result<Value, Status>, code: u16, expected: &str) {
    let error = result.unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (code, expected));
}

#[test]
fn classes_of_the_system_are_complete() {
    let world = world();
    let classes = ["system-node-critical", "system-cluster-critical"];
    let stored = classes.map(|name| {
        let mut value = codec::to_value(&world.objects[&key(Kind::PriorityClass, name)]);
        value.as_object_mut().unwrap().remove("metadata");
        value
    });
    let common = json!({"kind": "PriorityClass", "apiVersion": "scheduling.k8s.io/v1",
        "preemptionPolicy": "PreemptLowerPriority"});
    let expected = [
        (
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current \
          node.",
        ),
        (
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be \
          moved to another node if necessary.",
        ),
    ];
    let expected = expected.map(|(value, description)| {
        let common = with(common.clone(), "/value", json!(value));
        with(common, "/description", json!(description))
    });
    assert_eq!(stored, expected);
}

#[test]
fn classes_of_the_system_stay() {
    let mut world = world();
    for name in ["system-node-critical", "system-cluster-critical"] {
        refused(
            world.delete(&key(Kind::PriorityClass, name), DeleteOptions::default()),
            403,
            &format!(
                "priorityclasses.scheduling.k8s.io \"{name}\" is forbidden: this is a system \
                 priority class and cannot be deleted"
            ),
        );
    }
    world.create(class("gold", 7)).unwrap();
    world.delete(&key(Kind::PriorityClass, "gold"), DeleteOptions::default()).unwrap();
}

#[test]
fn what_a_class_may_be() {
    let mut world = World::new();
    let mut check = |value: Value, expected: &str| {
        let name = value["metadata"]["name"].as_str().unwrap().to_owned();
        let expected = format!("PriorityClass.scheduling.k8s.io \"{name}\" is invalid: {expected}");
        refused(world.create(value), 422, &expected);
    };
    check(
        class("system-gold", 7),
        "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for \
         system use only. error: system-gold is not a known system priority class",
    );
    check(
        class("system-node-critical", 7),
        "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for \
         system use only. error: value of system-node-critical PriorityClass must be 2000001000",
    );
    check(
        default_class("system-cluster-critical", 2_000_000_000),
        "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for \
         system use only. error: globalDefault of system-cluster-critical PriorityClass must be \
         false",
    );
    check(
        class("gold", 1_000_000_001),
        "value: Forbidden: maximum allowed value of a user defined priority is 1000000000",
    );
    let policy = |policy: &str| with(class("gold", 7), "/preemptionPolicy", json!(policy));
    check(policy(""), "preemptionPolicy: Required value");
    check(
        policy("Always"),
        "preemptionPolicy: Unsupported value: \"Always\": supported values: \
         \"PreemptLowerPriority\", \"Never\"",
    );
    for (name, value) in [("gold", 1_000_000_000), ("lead", i32::MIN), ("systematic", 0)] {
        let made = world.create(class(name, value)).unwrap();
        assert_eq!(made["preemptionPolicy"], "PreemptLowerPriority");
        assert_eq!(made["metadata"]["generation"], 1);
    }
    // What Kubernetes does not write is not kept.
    let plain = with(class("tin", 1), "/globalDefault", json!(false));
    let made = world.create(with(plain, "/description", json!(""))).unwrap();
    assert_eq!((&made["globalDefault"], &made["description"]), (&Value::Null, &Value::Null));
}

#[test]
fn value_and_policy_of_a_class_do_not_change() {
    let mut world = world();
    world.create(class("gold", 7)).unwrap();
    let gold = key(Kind::PriorityClass, "gold");
    let body = json!({"value": 8, "preemptionPolicy": "Never"});
    refused(
        world.patch(&gold, body),
        422,
        "PriorityClass.scheduling.k8s.io \"gold\" is invalid: [value: Forbidden: may not be \
         changed in an update., preemptionPolicy: Invalid value: \"Never\": field is immutable]",
    );
    let body = json!({"description": "better", "globalDefault": true});
    let made = world.patch(&gold, body).unwrap();
    assert_eq!((&made["description"], &made["globalDefault"]), (&json!("better"), &json!(true)));
    assert_eq!(made["metadata"]["generation"], 1);
}

#[test]
fn one_class_is_the_default() {
    let mut world = world();
    world.create(default_class("gold", 7)).unwrap();
    let second = "is forbidden: PriorityClass gold is already marked as default. Only one default \
                  can exist";
    let refusal = |name: &str| format!("priorityclasses.scheduling.k8s.io \"{name}\" {second}");
    refused(world.create(default_class("tin", 1)), 403, &refusal("tin"));
    // What is not valid is not looked at any further.
    refused(
        world.create(default_class("system-tin", 1)),
        422,
        "PriorityClass.scheduling.k8s.io \"system-tin\" is invalid: metadata.name: Forbidden: \
         priority class names with 'system-' prefix are reserved for system use only. error: \
         system-tin is not a known system priority class",
    );
    world.create(class("tin", 1)).unwrap();
    let default = json!({"globalDefault": true});
    let tin = key(Kind::PriorityClass, "tin");
    refused(world.patch(&tin, default.clone()), 403, &refusal("tin"));
    let node = "system-node-critical";
    let critical = key(Kind::PriorityClass, node);
    refused(world.patch(&critical, default.clone()), 403, &refusal(node));
    // The default may be written, and hand over.
    let gold = key(Kind::PriorityClass, "gold");
    world.patch(&gold, json!({"description": "best"})).unwrap();
    world.patch(&gold, json!({"globalDefault": false})).unwrap();
    world.patch(&tin, default).unwrap();
}

#[test]
fn pods_have_the_priority_of_their_class() {
    let mut world = world();
    let made = world.create(in_class("a", "system-node-critical")).unwrap();
    let preempt = Some("PreemptLowerPriority");
    assert_eq!(priority_of(&made), (Some("system-node-critical"), 2_000_001_000, preempt));
    let patient = with(class("patient", -5), "/preemptionPolicy", json!("Never"));
    world.create(patient).unwrap();
    let made = world.create(in_class("b", "patient")).unwrap();
    assert_eq!(priority_of(&made), (Some("patient"), -5, Some("Never")));
    // What was computed may be said again, as clients do that copy a pod.
    let again = with(in_class("c", "patient"), "/spec/priority", json!(-5));
    world.create(with(again, "/spec/preemptionPolicy", json!("Never"))).unwrap();
    refused(
        world.create(in_class("d", "gold")),
        403,
        "pods \"d\" is forbidden: no PriorityClass with name gold was found",
    );
    refused(
        world.create(with(in_class("d", "patient"), "/spec/priority", json!(7))),
        403,
        "pods \"d\" is forbidden: the integer value of priority (7) must not be provided in pod \
         spec; priority admission controller computed -5 from the given PriorityClass name",
    );
    let policy = with(in_class("d", "patient"), "/spec/preemptionPolicy", json!(preempt));
    refused(
        world.create(policy),
        403,
        "pods \"d\" is forbidden: the string value of PreemptionPolicy (PreemptLowerPriority) \
         must not be provided in pod spec; priority admission controller computed Never from the \
         given PriorityClass name",
    );
    // The class of a pod that is there may go.
    world.delete(&key(Kind::PriorityClass, "patient"), DeleteOptions::default()).unwrap();
    let body = json!({"metadata": {"labels": {"a": "b"}}});
    let made = world.patch(&key(Kind::Pod, "b"), body).unwrap();
    assert_eq!(priority_of(&made), (Some("patient"), -5, Some("Never")));
}

#[test]
fn pods_without_a_class_have_the_default() {
    let mut world = world();
    let preempt = Some("PreemptLowerPriority");
    let made = world.create(pod("a")).unwrap();
    assert_eq!(priority_of(&made), (None, 0, preempt));
    refused(
        world.create(with(pod("b"), "/spec/priority", json!(7))),
        403,
        "pods \"b\" is forbidden: the integer value of priority (7) must not be provided in pod \
         spec; priority admission controller computed 0 from the given PriorityClass name",
    );
    let gold = with(default_class("gold", 7), "/preemptionPolicy", json!("Never"));
    world.create(gold.clone()).unwrap();
    let made = world.create(pod("b")).unwrap();
    assert_eq!(priority_of(&made), (Some("gold"), 7, Some("Never")));
    let made = world.create(in_class("c", "")).unwrap();
    assert_eq!(priority_of(&made), (Some("gold"), 7, Some("Never")));
    // Two servers that create a default at one moment may both succeed.
    let raced = Operation::Create { object: object(&default_class("tin", 1)) };
    let without = World { objects: BTreeMap::new(), ..World::new() };
    let Ok(Mutation::Put { object, .. }) = without.decide(&raced) else { panic!("it is allowed") };
    world.objects.insert(object.key(), object);
    let made = world.create(pod("d")).unwrap();
    assert_eq!(priority_of(&made), (Some("tin"), 1, preempt));
}
