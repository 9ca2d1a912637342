//! Daemon sets and the revisions of their templates.

use super::*;

/// Creates the daemon set with changes and compares what the server says of it.
fn check(changes: &[(&str, Value)], expected: &str) {
    let mut set = daemon_set("x");
    for (pointer, value) in changes {
        set = with(set, pointer, value.clone());
    }
    let error = World::new().create(set).unwrap_err();
    assert_eq!(error.message, format!("DaemonSet.apps \"x\" is invalid: {expected}"));
}

#[test]
fn defaults() {
    let made = World::new().create(daemon_set("x")).unwrap();
    assert_eq!(made["spec"]["revisionHistoryLimit"], 10);
    assert_eq!(
        made["spec"]["updateStrategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}})
    );
    assert_eq!(made["spec"]["template"]["spec"]["restartPolicy"], "Always");
    assert_eq!(
        made["status"],
        json!({"currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0,
            "numberReady": 0})
    );
    let strategy = json!({"type": "OnDelete"});
    let made = World::new().create(with(daemon_set("x"), "/spec/updateStrategy", strategy.clone()));
    assert_eq!(made.unwrap()["spec"]["updateStrategy"], strategy);
}

#[test]
fn generations() {
    let mut world = World::new();
    let annotation = "deprecated.daemonset.template.generation";
    let counts = |set: &Value| {
        let template = set["metadata"]["annotations"][annotation].as_str().unwrap().to_owned();
        format!("{} {template}", set["metadata"]["generation"])
    };
    let set = with(daemon_set("x"), "/status", json!({"desiredNumberScheduled": 9}));
    let made = world.create(set).unwrap();
    assert_eq!((counts(&made).as_str(), &made["status"]["numberReady"]), ("1 1", &json!(0)));
    let key = key(Kind::DaemonSet, "x");
    let mut patch = |body: Value| counts(&world.patch(&key, body).unwrap());
    assert_eq!(patch(json!({"spec": {"minReadySeconds": 5}})), "2 1");
    let image = json!([{"name": "a", "image": "nginx:2"}]);
    assert_eq!(patch(json!({"spec": {"template": {"spec": {"containers": image}}}})), "3 2");
    // Nobody else counts.
    assert_eq!(patch(json!({"metadata": {"annotations": {annotation: "7", "a": "b"}}})), "3 2");
    assert_eq!(patch(json!({"metadata": {"annotations": null}})), "3 2");
    let body = json!({"spec": {"minReadySeconds": 9}, "status": {"numberReady": 3}});
    let reported = world.patch_at(&key, Some(Subresource::Status), body).unwrap();
    assert_eq!(counts(&reported), "3 2");
    assert_eq!(reported["spec"]["minReadySeconds"], 5);
    assert_eq!(reported["status"]["numberReady"], 3);
}

#[test]
fn what_is_refused() {
    let labels = "/spec/template/metadata/labels";
    check(
        &[(labels, json!({"app": "y"}))],
        "spec.template.metadata.labels: Invalid value: map[string]string{\"app\":\"y\"}: \
         `selector` does not match template `labels`",
    );
    check(
        &[("/spec/selector", json!({}))],
        "spec.selector: Invalid value: v1.LabelSelector{MatchLabels:map[string]string(nil), \
         MatchExpressions:[]v1.LabelSelectorRequirement(nil)}: empty selector is invalid for \
         daemonset",
    );
    check(
        &[("/spec/template/spec/restartPolicy", json!("Never"))],
        "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \
         \"Always\"",
    );
    check(
        &[("/spec/template/spec/activeDeadlineSeconds", json!(5))],
        "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in DaemonSet \
         is not Supported",
    );
    check(
        &[("/spec/minReadySeconds", json!(-1))],
        "spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0",
    );
    check(
        &[("/spec/revisionHistoryLimit", json!(-1))],
        "spec.revisionHistoryLimit: Invalid value: -1: must be greater than or equal to 0",
    );
}

#[test]
fn rolling_updates_that_are_refused() {
    let bounds = |unavailable: Value, surge: Value, expected: &str| {
        let rolling = json!({"maxUnavailable": unavailable, "maxSurge": surge});
        let expected = format!("spec.updateStrategy.rollingUpdate.{expected}");
        check(&[("/spec/updateStrategy/rollingUpdate", rolling)], &expected);
    };
    bounds(
        json!(1),
        json!("10%"),
        "maxSurge: Invalid value: intstr.IntOrString{Type:1, IntVal:0, StrVal:\"10%\"}: may not \
         be set when maxUnavailable is non-zero",
    );
    // Without another value, one pod may be unavailable.
    bounds(
        Value::Null,
        json!(1),
        "maxSurge: Invalid value: intstr.IntOrString{Type:0, IntVal:1, StrVal:\"\"}: may not be \
         set when maxUnavailable is non-zero",
    );
    bounds(json!("0%"), json!(0), "maxUnavailable: Required value: cannot be 0 when maxSurge is 0");
    bounds(
        json!("101%"),
        json!(0),
        "maxUnavailable: Invalid value: intstr.IntOrString{Type:1, IntVal:0, StrVal:\"101%\"}: \
         must not be greater than 100%",
    );
    bounds(json!(0), json!(-1), "maxSurge: Invalid value: -1: must be greater than or equal to 0");
    check(
        &[("/spec/updateStrategy/type", json!("Never"))],
        "spec.updateStrategy: Unsupported value: \
         apps.DaemonSetUpdateStrategy{Type:\"Never\", \
         RollingUpdate:(*apps.RollingUpdateDaemonSet)(nil)}: supported values: \
         \"RollingUpdate\", \"OnDelete\"",
    );
}

#[test]
fn updates_that_are_refused() {
    let mut world = World::new();
    world.create(daemon_set("x")).unwrap();
    let set = key(Kind::DaemonSet, "x");
    let labels = json!({"app": "x", "tier": "y"});
    let body = json!({"spec": {"selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}}}});
    let error = world.patch(&set, body).unwrap_err();
    assert!(error.message.ends_with(": field is immutable"), "{error}");
    let mut status = |body: Value| {
        let body = json!({"status": body});
        world.patch_at(&set, Some(Subresource::Status), body).map_err(|e| e.message)
    };
    assert_eq!(
        status(json!({"numberMisscheduled": -1})).unwrap_err(),
        "DaemonSet.apps \"x\" is invalid: status.numberMisscheduled: Invalid value: -1: must be \
         greater than or equal to 0"
    );
    status(json!({"collisionCount": 2})).unwrap();
    assert_eq!(
        status(json!({"collisionCount": 1})).unwrap_err(),
        "DaemonSet.apps \"x\" is invalid: status.collisionCount: Invalid value: 1: cannot be \
         decremented"
    );
}

#[test]
fn revisions() {
    let mut world = World::new();
    let revision = super::crud::minimal(Kind::ControllerRevision);
    let mut refused = |value: Value| world.create(value).unwrap_err().message;
    let mut without = revision.clone();
    without.as_object_mut().unwrap().remove("data");
    let head = "ControllerRevision.apps \"x\" is invalid: ";
    assert_eq!(refused(without), format!("{head}data: Required value: data is mandatory"));
    assert_eq!(
        refused(with(revision.clone(), "/revision", json!(-1))),
        format!("{head}revision: Invalid value: -1: must be greater than or equal to 0")
    );
    let made = world.create(revision).unwrap();
    // What stands for nothing is kept: it is compared byte by byte.
    assert_eq!(made["data"].to_string(), r#"{"spec":{"replicas":null}}"#);
    let key = key(Kind::ControllerRevision, "x");
    assert_eq!(world.patch(&key, json!({"revision": 2})).unwrap()["revision"], 2);
    let error = world.patch(&key, json!({"data": {"spec": {"replicas": 1}}})).unwrap_err();
    assert!(error.message.starts_with(&format!("{head}data: Invalid value: ")), "{error}");
    assert!(error.message.ends_with(": field is immutable"), "{error}");
}

#[test]
fn a_revision_brings_its_template_back() {
    let mut world = World::new();
    let before = world.create(daemon_set("x")).unwrap();
    let key = key(Kind::DaemonSet, "x");
    let mut template = before["spec"]["template"].clone();
    template["$patch"] = json!("replace");
    template["metadata"]["creationTimestamp"] = Value::Null;
    let body = json!({"spec": {"template": {"metadata": {"annotations": {"a": "b"}},
        "spec": {"nodeSelector": {"disk": "ssd"}, "containers": [{"name": "b", "image": "c"}]}}}});
    let changed = world.patch(&key, body).unwrap();
    assert_ne!(changed["spec"], before["spec"]);
    let body = json!({"spec": {"template": template}});
    let patch = Patch { kind: PatchKind::Strategic, body: body.into() };
    let operation = Operation::Patch { key, subresource: None, patch, strict: true };
    assert_eq!(world.run(&operation).unwrap()["spec"], before["spec"]);
}
