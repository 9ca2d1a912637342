//! Stateful sets.

use super::*;

/// Creates the stateful set with changes and compares what the server says of it.
fn check(changes: &[(&str, Value)], expected: &str) {
    let mut set = stateful_set("x");
    for (pointer, value) in changes {
        set = with(set, pointer, value.clone());
    }
    let error = World::new().create(set).unwrap_err();
    assert_eq!(error.message, format!("StatefulSet.apps \"x\" is invalid: {expected}"));
}

#[test]
fn defaults() {
    let mut world = World::new();
    let mut made = world.create(stateful_set("x")).unwrap();
    made["spec"].as_object_mut().unwrap().remove("template");
    assert_eq!(
        made["spec"],
        json!({"replicas": made["spec"]["replicas"], "selector": {"matchLabels": {"app": "x"}},
            "podManagementPolicy": "OrderedReady", "revisionHistoryLimit": 10,
            "persistentVolumeClaimRetentionPolicy":
                {"whenDeleted": "Retain", "whenScaled": "Retain"},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}})
    );
    assert_eq!(made["metadata"]["generation"], 1);
    assert_eq!(made["status"], json!({"replicas": 0, "availableReplicas": 0}));
    let mut spare = stateful_set("y");
    spare["spec"].as_object_mut().unwrap().remove("replicas");
    assert_eq!(world.create(spare).unwrap()["spec"]["replicas"], 1);
}

#[test]
fn only_who_names_no_strategy_gets_a_partition() {
    let made = |strategy: Value| {
        let set = with(stateful_set("x"), "/spec/updateStrategy", strategy);
        World::new().create(set).unwrap()["spec"]["updateStrategy"].clone()
    };
    for kept in [
        json!({"type": "RollingUpdate"}),
        json!({"type": "OnDelete"}),
        json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 3}}),
    ] {
        assert_eq!(made(kept.clone()), kept);
    }
    // The feature behind this field is alpha.
    assert_eq!(
        made(json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 2}})),
        json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}})
    );
}

#[test]
fn generations_scale_and_status() {
    let mut world = World::new();
    let set = with(stateful_set("x"), "/status", json!({"replicas": 9}));
    assert_eq!(world.create(set).unwrap()["status"]["replicas"], 0);
    let key = key(Kind::StatefulSet, "x");
    let patched = world.patch(&key, json!({"spec": {"minReadySeconds": 5}})).unwrap();
    assert_eq!(patched["metadata"]["generation"], 2);
    let labelled = world.patch(&key, json!({"metadata": {"annotations": {"a": "b"}}})).unwrap();
    assert_eq!(labelled["metadata"]["generation"], 2);
    let body = json!({"spec": {"minReadySeconds": 9},
        "status": {"replicas": 3, "readyReplicas": 2, "availableReplicas": 1}});
    let reported = world.patch_at(&key, Some(Subresource::Status), body).unwrap();
    assert_eq!(reported["spec"]["minReadySeconds"], 5);
    assert_eq!(reported["status"]["readyReplicas"], 2);
    let scale = world.patch_at(&key, Some(Subresource::Scale), json!({"spec": {"replicas": 7}}));
    scale.unwrap();
    let object = world.get(&key).unwrap();
    let scale = crate::scale::of(&object).unwrap();
    assert_eq!(scale.spec.unwrap().replicas, Some(7));
    let status = scale.status.unwrap();
    assert_eq!((status.replicas, status.selector.as_deref()), (3, Some("app=x")));
}

#[test]
fn what_is_refused() {
    check(
        &[("/spec/podManagementPolicy", json!("Any"))],
        "spec.podManagementPolicy: Invalid value: \"Any\": must be 'OrderedReady' or 'Parallel'",
    );
    check(
        &[("/spec/updateStrategy", json!({"type": "Recreate"}))],
        "spec.updateStrategy: Invalid value: apps.StatefulSetUpdateStrategy{Type:\"Recreate\", \
         RollingUpdate:(*apps.RollingUpdateStatefulSetStrategy)(nil)}: must be 'RollingUpdate' or \
         'OnDelete'",
    );
    check(
        &[("/spec/updateStrategy", json!({"type": "OnDelete", "rollingUpdate": {"partition": 1}}))],
        "spec.updateStrategy.rollingUpdate: Invalid value: \
         apps.RollingUpdateStatefulSetStrategy{Partition:1, \
         MaxUnavailable:(*intstr.IntOrString)(nil)}: only allowed for updateStrategy \
         'RollingUpdate'",
    );
    check(
        &[("/spec/updateStrategy/rollingUpdate/partition", json!(-1))],
        "spec.updateStrategy.rollingUpdate.partition: Invalid value: -1: must be greater than or \
         equal to 0",
    );
    check(
        &[("/spec/ordinals/start", json!(-1))],
        "spec.ordinals.start: Invalid value: -1: must be greater than or equal to 0",
    );
    for field in ["replicas", "minReadySeconds"] {
        check(
            &[(&format!("/spec/{field}"), json!(-1))],
            &format!("spec.{field}: Invalid value: -1: must be greater than or equal to 0"),
        );
    }
    check(
        &[("/spec/persistentVolumeClaimRetentionPolicy/whenScaled", json!("Keep"))],
        "spec.persistentVolumeClaimRetentionPolicy.whenScaled: Unsupported value: \"Keep\": \
         supported values: \"Retain\", \"Delete\"",
    );
}

#[test]
fn templates_of_claims_get_defaults_and_can_be_mounted() {
    let mut set = stateful_set("x");
    set["spec"]["volumeClaimTemplates"] = json!([{"metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1024Mi"}}}}]);
    set["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] =
        json!([{"name": "data", "mountPath": "/data"}]);
    let mut world = World::new();
    let made = world.create(set.clone()).unwrap();
    assert_eq!(
        made["spec"]["volumeClaimTemplates"],
        json!([{"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"},
            "spec": {"accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem",
                "resources": {"requests": {"storage": "1Gi"}}},
            "status": {"phase": "Pending"}}])
    );
    assert_eq!(made["spec"]["template"]["spec"]["volumes"], Value::Null);
    let key = key(Kind::StatefulSet, "x");
    let error = world.patch(&key, json!({"spec": {"volumeClaimTemplates": null}})).unwrap_err();
    assert!(error.message.contains("updates to statefulset spec"), "{}", error.message);
    set["spec"]["volumeClaimTemplates"][0]["metadata"]["name"] = json!("other");
    let error = World::new().create(set).unwrap_err();
    assert!(error.message.contains("volumeMounts[0].name: Not found"), "{}", error.message);
}

#[test]
fn selectors_and_templates_that_are_refused() {
    check(
        &[("/spec/selector", json!({}))],
        "spec.selector: Invalid value: v1.LabelSelector{MatchLabels:map[string]string(nil), \
         MatchExpressions:[]v1.LabelSelectorRequirement(nil)}: empty selector is invalid for \
         statefulset",
    );
    check(
        &[("/spec/template/metadata/labels", json!({"app": "y"}))],
        "spec.template.metadata.labels: Invalid value: map[string]string{\"app\":\"y\"}: \
         `selector` does not match template `labels`",
    );
    check(
        &[("/spec/template/spec/restartPolicy", json!("OnFailure"))],
        "spec.template.spec.restartPolicy: Unsupported value: \"OnFailure\": supported values: \
         \"Always\"",
    );
    check(
        &[("/spec/template/spec/activeDeadlineSeconds", json!(5))],
        "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in \
         StatefulSet is not Supported",
    );
    let error = World::new().create(stateful_set("a.b")).unwrap_err();
    assert!(error.message.contains("metadata.name: Invalid value: \"a.b\""), "{}", error.message);
}

#[test]
fn what_may_change() {
    let mut world = World::new();
    world.create(stateful_set("x")).unwrap();
    let key = key(Kind::StatefulSet, "x");
    for changed in [
        json!({"serviceName": "other"}),
        json!({"podManagementPolicy": "Parallel"}),
        json!({"selector": {"matchLabels": {"more": "x"}},
            "template": {"metadata": {"labels": {"more": "x"}}}}),
    ] {
        let error = world.patch(&key, json!({"spec": changed})).unwrap_err();
        assert_eq!(
            error.message,
            "StatefulSet.apps \"x\" is invalid: spec: Forbidden: updates to statefulset spec for \
             fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', \
             'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' \
             are forbidden"
        );
    }
    let changed = json!({"replicas": 5, "ordinals": {"start": 2}, "revisionHistoryLimit": 1,
        "minReadySeconds": 1, "updateStrategy": {"rollingUpdate": {"partition": 4}},
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete"},
        "template": {"metadata": {"labels": {"more": "x"}}}});
    world.patch(&key, json!({"spec": changed})).unwrap();
}

#[test]
fn statuses_that_are_refused() {
    let mut world = World::new();
    world.create(stateful_set("x")).unwrap();
    let key = key(Kind::StatefulSet, "x");
    let mut refused = |status: Value, expected: &str| {
        let body = json!({"status": status});
        let error = world.patch_at(&key, Some(Subresource::Status), body).unwrap_err();
        let expected = format!("StatefulSet.apps \"x\" is invalid: status.{expected}");
        assert_eq!(error.message, expected);
    };
    refused(
        json!({"replicas": 1, "readyReplicas": 2}),
        "readyReplicas: Invalid value: 2: cannot be greater than status.replicas",
    );
    refused(
        json!({"replicas": 2, "readyReplicas": 1, "availableReplicas": 2}),
        "availableReplicas: Invalid value: 2: cannot be greater than status.readyReplicas",
    );
    refused(
        json!({"collisionCount": -1}),
        "collisionCount: Invalid value: -1: must be greater than or equal to 0",
    );
    let body = json!({"status": {"collisionCount": 2}});
    world.patch_at(&key, Some(Subresource::Status), body).unwrap();
    let body = json!({"status": {"collisionCount": 1}});
    let error = world.patch_at(&key, Some(Subresource::Status), body).unwrap_err();
    assert!(error.message.ends_with("Invalid value: 1: cannot be decremented"));
}
