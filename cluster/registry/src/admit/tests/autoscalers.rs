//! Horizontal pod autoscalers, in both versions.

use super::crud::minimal;
use super::*;

/// Creates the autoscaler with one change and compares what the server says of it.
#[expect(clippy::needless_pass_by_value, reason = "rows of tables read better without borrows")]
fn check(pointer: &str, value: Value, expected: &str) {
    let autoscaler = with(minimal(Kind::HorizontalPodAutoscaler), pointer, value.clone());
    let error = World::new().create(autoscaler).unwrap_err();
    let expected = format!("HorizontalPodAutoscaler.autoscaling \"x\" is invalid: {expected}");
    assert_eq!(error.message, expected, "{pointer} {value}");
}

fn old(fields: &Value) -> Value {
    let mut value = json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "x", "namespace": "default"},
        "spec": {"maxReplicas": 5,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}});
    for (name, field) in fields.as_object().unwrap() {
        value["spec"][name] = field.clone();
    }
    value
}

fn cpu(percent: i32) -> Value {
    json!({"type": "Resource", "resource": {"name": "cpu",
        "target": {"type": "Utilization", "averageUtilization": percent}}})
}

#[test]
fn defaults() {
    let mut world = World::new();
    let made = world.create(minimal(Kind::HorizontalPodAutoscaler)).unwrap();
    assert_eq!(
        (&made["spec"]["minReplicas"], &made["spec"]["metrics"]),
        (&json!(1), &json!([cpu(80)]))
    );
    assert_eq!(
        (&made["spec"]["behavior"], &made["metadata"]["generation"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(made["status"], json!({"desiredReplicas": 0}));
    let behavior = json!({"scaleDown": {"stabilizationWindowSeconds": 60}});
    let key = key(Kind::HorizontalPodAutoscaler, "x");
    let patched = world.patch(&key, json!({"spec": {"behavior": behavior}})).unwrap();
    let policy =
        |kind: &str, value: i32| json!({"type": kind, "value": value, "periodSeconds": 15});
    assert_eq!(
        patched["spec"]["behavior"],
        json!({
            "scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max",
                "policies": [policy("Pods", 4), policy("Percent", 100)]},
            "scaleDown": {"stabilizationWindowSeconds": 60, "selectPolicy": "Max",
                "policies": [policy("Percent", 100)]}})
    );
    let body = json!({"status": {"desiredReplicas": 3}, "spec": {"maxReplicas": 9}});
    let reported = world.patch_at(&key, Some(Subresource::Status), body).unwrap();
    assert_eq!(
        (&reported["status"]["desiredReplicas"], &reported["spec"]["maxReplicas"]),
        (&json!(3), &json!(5))
    );
}

#[test]
fn numbers_and_references_that_are_refused() {
    check(
        "/spec/minReplicas",
        json!(0),
        "spec.minReplicas: Invalid value: 0: must be greater than or equal to 1",
    );
    check(
        "/spec/minReplicas",
        json!(6),
        "spec.maxReplicas: Invalid value: 5: must be greater than or equal to `minReplicas`",
    );
    check(
        "/spec/maxReplicas",
        json!(0),
        "[spec.maxReplicas: Invalid value: 0: must be greater than 0, spec.maxReplicas: Invalid \
         value: 0: must be greater than or equal to `minReplicas`]",
    );
    check("/spec/scaleTargetRef/kind", json!(""), "spec.scaleTargetRef.kind: Required value");
    check(
        "/spec/scaleTargetRef/name",
        json!("a/b"),
        "spec.scaleTargetRef.name: Invalid value: \"a/b\": may not contain '/'",
    );
}

#[test]
fn metrics_that_are_refused() {
    let check = |metric: Value, expected: &str| {
        check("/spec/metrics", json!([metric]), &format!("spec.metrics[0].{expected}"));
    };
    check(
        json!({"type": "Resource"}),
        "resource: Required value: must populate information for the given metric source",
    );
    check(
        json!({"type": "Magic", "resource": {"name": "cpu",
            "target": {"type": "Utilization", "averageUtilization": 1}}}),
        "type: Unsupported value: \"Magic\": supported values: \"ContainerResource\", \
         \"External\", \"Object\", \"Pods\", \"Resource\"",
    );
    let resource =
        |target: Value| json!({"type": "Resource", "resource": {"name": "cpu", "target": target}});
    check(
        resource(json!({"type": "Utilization"})),
        "resource.target.averageUtilization: Required value: must set either a target raw value \
         or a target utilization",
    );
    check(
        resource(json!({"type": "Utilization", "averageUtilization": 0})),
        "resource.target.averageUtilization: Invalid value: 0: must be greater than 0",
    );
    check(
        resource(json!({"type": "AverageValue", "averageValue": "-1"})),
        "resource.target.averageValue: Invalid value: \"-1\": must be positive",
    );
    check(
        resource(json!({"type": "Share", "averageUtilization": 1})),
        "resource.target.type: Invalid value: \"Share\": must be either Utilization, Value, or \
         AverageValue",
    );
    check(
        json!({"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "",
            "target": {"type": "Utilization", "averageUtilization": 1}}}),
        "containerResource.container: Required value: must specify a container name",
    );
    check(
        json!({"type": "Pods", "pods": {"metric": {"name": ""},
            "target": {"type": "AverageValue", "averageValue": "1"}}}),
        "pods.metric.name: Required value: must specify a metric name",
    );
}

#[test]
fn behaviors_that_are_refused() {
    let check = |rules: Value, expected: &str| {
        let expected = format!("spec.behavior.scaleDown.{expected}");
        check("/spec/behavior/scaleDown", rules, &expected);
    };
    check(
        json!({"stabilizationWindowSeconds": -1}),
        "stabilizationWindowSeconds: Invalid value: -1: must be greater than or equal to zero",
    );
    check(
        json!({"stabilizationWindowSeconds": 3601}),
        "stabilizationWindowSeconds: Invalid value: 3601: must be less than or equal to 3600",
    );
    check(
        json!({"selectPolicy": "Some"}),
        "selectPolicy: Unsupported value: \"Some\": supported values: \"Disabled\", \"Max\", \
         \"Min\"",
    );
    check(json!({"policies": []}), "policies: Required value: must specify at least one Policy");
    let policy = |kind: &str, value: i32, period: i32| json!({"policies": [{"type": kind, "value": value, "periodSeconds": period}]});
    check(
        policy("Nodes", 1, 1),
        "policies[0].type: Unsupported value: \"Nodes\": supported values: \"Percent\", \"Pods\"",
    );
    check(policy("Pods", 0, 1), "policies[0].value: Invalid value: 0: must be greater than zero");
    check(
        policy("Pods", 1, 1801),
        "policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800",
    );
}

#[test]
fn the_older_version_says_the_same() {
    let mut world = World::new();
    let made = world.create(old(&json!({"targetCPUUtilizationPercentage": 50}))).unwrap();
    assert_eq!(made["apiVersion"], "autoscaling/v2");
    assert_eq!(made["spec"]["metrics"], json!([cpu(50)]));
    let new_key = key(Kind::HorizontalPodAutoscaler, "x");
    let old_key = key(Kind::HorizontalPodAutoscalerV1, "x");
    // A patch of the older version is one of its fields.
    let body = json!({"spec": {"targetCPUUtilizationPercentage": 60, "minReplicas": 2}});
    let patched = world.patch(&old_key, body).unwrap();
    assert_eq!(patched["spec"]["metrics"], json!([cpu(60)]));
    assert_eq!(patched["spec"]["minReplicas"], 2);
    // What it has no fields for is kept.
    let memory = json!({"type": "Resource", "resource": {"name": "memory",
        "target": {"type": "AverageValue", "averageValue": "1Gi"}}});
    let container = json!({"type": "ContainerResource", "containerResource": {"name": "cpu",
        "container": "c", "target": {"type": "Utilization", "averageUtilization": 7}}});
    let pods = json!({"type": "Pods", "pods": {"metric": {"name": "m",
        "selector": {"matchLabels": {"a": "b"}}},
        "target": {"type": "AverageValue", "averageValue": "3"}}});
    let object = json!({"type": "Object", "object": {"metric": {"name": "m"},
        "describedObject": {"apiVersion": "v1", "kind": "Service", "name": "s"},
        "target": {"type": "Value", "value": "3"}}});
    let external = json!({"type": "External", "external": {"metric": {"name": "m"},
        "target": {"type": "AverageValue", "averageValue": "3"}}});
    let body = json!({"spec": {"metrics": [memory, container, pods, object, external, cpu(60)],
        "behavior": {"scaleUp": {"selectPolicy": "Disabled"}}}});
    let full = world.patch(&new_key, body).unwrap();
    let status = json!({"desiredReplicas": 3, "currentReplicas": 2,
        "conditions": [{"type": "AbleToScale", "status": "True", "reason": "R",
            "lastTransitionTime": "2023-11-14T22:10:00Z"}],
        "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu",
            "current": {"averageUtilization": 40, "averageValue": "4m"}}}]});
    let full = world.update(&with(full, "/status", status), Some(Subresource::Status)).unwrap();
    let object = world.get(&new_key).unwrap();
    let shown = crate::versions::of_stored(Kind::HorizontalPodAutoscalerV1, &object);
    let value = codec::to_value(&shown);
    assert_eq!(value["apiVersion"], "autoscaling/v1");
    assert_eq!(value["spec"]["targetCPUUtilizationPercentage"], 60);
    assert_eq!(value["status"]["currentCPUUtilizationPercentage"], 40);
    let again = codec::to_value(&crate::versions::to_stored(shown).unwrap());
    assert_eq!((&again["spec"], &again["metadata"]), (&full["spec"], &full["metadata"]));
    assert_eq!(again["status"], full["status"]);
    // An update of what was read changes nothing.
    let updated = world.update(&value, None).unwrap();
    assert_eq!(updated["spec"], full["spec"]);
    let mut broken = value;
    broken["metadata"]["annotations"]["autoscaling.alpha.kubernetes.io/metrics"] = json!("[");
    assert_eq!(world.update(&broken, None).unwrap_err().code, 400);
}
