#![expect(clippy::needless_pass_by_value, reason = "rows of tables read better without borrows")]

use super::fields::check;
use super::*;

fn range(limits: Value) -> Value {
    json!({"kind": "LimitRange", "apiVersion": "v1",
        "metadata": {"name": "l", "namespace": "default"}, "spec": {"limits": limits}})
}

fn limited(limits: Value) -> World {
    let mut world = World::new();
    world.create(range(limits)).unwrap();
    world
}

fn with_resources(resources: Value) -> Value {
    with(pod("p"), "/spec/containers/0/resources", resources)
}

fn refused(limits: Value, pod: Value, expected: &str) {
    let error = limited(limits).create(pod).unwrap_err();
    let expected = format!("pods \"p\" is forbidden: {expected}");
    assert_eq!((error.code, error.message), (403, expected));
}

#[test]
fn containers_get_what_they_do_not_say() {
    let limits = json!([{"type": "Container", "max": {"cpu": "2"},
        "min": {"memory": "10Mi"}, "default": {"memory": "1Gi"}, "defaultRequest": {"cpu": "100m"}}]);
    let mut world = limited(limits);
    let item = codec::to_value(&world.objects[&key(Kind::LimitRange, "l")]);
    assert_eq!(
        item["spec"]["limits"][0],
        json!({"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "10Mi"},
            "default": {"cpu": "2", "memory": "1Gi"},
            "defaultRequest": {"cpu": "100m", "memory": "1Gi"}})
    );
    let made = world
        .create(with(
            pod("p"),
            "/spec/initContainers",
            json!([{"name": "i", "image": "x",
            "resources": {"limits": {"cpu": "1"}}}]),
        ))
        .unwrap();
    assert_eq!(
        made["spec"]["containers"][0]["resources"],
        json!({"requests": {"cpu": "100m", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "1Gi"}})
    );
    // Defaults of the API come first: what is limited is requested.
    assert_eq!(
        made["spec"]["initContainers"][0]["resources"],
        json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}})
    );
    assert_eq!(
        made["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        "LimitRanger plugin set: cpu, memory request for container a; cpu, memory limit for \
         container a; memory request for init container i; memory limit for init container i"
    );
    assert_eq!(made["status"]["qosClass"], "Burstable");
    let said = json!({"requests": {"cpu": "1", "memory": "10Mi"},
        "limits": {"cpu": "1", "memory": "10Mi"}});
    let made =
        world.create(with(with_resources(said.clone()), "/metadata/name", json!("q"))).unwrap();
    assert_eq!(made["spec"]["containers"][0]["resources"], said);
    assert_eq!(made["metadata"]["annotations"], Value::Null);
}

#[test]
fn pods_and_containers_keep_within_limits() {
    let container = |field: &str, cpu: &str| {
        let mut item = json!({"type": "Container", "default": {"cpu": "1"}});
        item[field] = json!({"cpu": cpu});
        json!([item])
    };
    let asks = |request: &str, limit: &str| {
        with_resources(json!({"requests": {"cpu": request}, "limits": {"cpu": limit}}))
    };
    refused(
        container("min", "200m"),
        asks("100m", "1"),
        "minimum cpu usage per Container is 200m, but request is 100m",
    );
    refused(
        container("max", "1"),
        asks("100m", "2"),
        "maximum cpu usage per Container is 1, but limit is 2",
    );
    refused(
        container("maxLimitRequestRatio", "2"),
        asks("100m", "1"),
        "cpu max limit to request ratio per Container is 2, but provided ratio is 10.000000",
    );
    let whole = |item: Value| json!([with(item, "/type", json!("Pod"))]);
    refused(
        whole(json!({"max": {"cpu": "1"}, "min": {"memory": "1Gi"}})),
        pod("p"),
        "[minimum memory usage per Pod is 1Gi.  No request is specified, maximum cpu usage per \
         Pod is 1.  No limit is specified]",
    );
    refused(
        whole(json!({"maxLimitRequestRatio": {"cpu": "2"}})),
        pod("p"),
        "cpu max limit to request ratio per Pod is 2, but no request is specified or request is 0",
    );
    let two = with(
        asks("600m", "600m"),
        "/spec/initContainers",
        json!([{"name": "i", "image": "x",
        "restartPolicy": "Always",
        "resources": {"requests": {"cpu": "500m"}, "limits": {"cpu": "500m"}}}]),
    );
    refused(
        whole(json!({"max": {"cpu": "1"}})),
        two.clone(),
        "maximum cpu usage per Pod is 1, but limit is 1100m",
    );
    limited(whole(json!({"max": {"cpu": "1100m"}}))).create(two).unwrap();
    // What is there already is not looked at again.
    let mut world = World::new();
    world.create(pod("p")).unwrap();
    world.create(range(whole(json!({"max": {"cpu": "1"}})))).unwrap();
    let body = json!({"metadata": {"labels": {"a": "b"}}});
    world.patch(&key(Kind::Pod, "p"), body).unwrap();
}

#[test]
fn claims_keep_within_limits() {
    let claim = |storage: &str| {
        json!({"kind": "PersistentVolumeClaim", "apiVersion": "v1",
            "metadata": {"name": "c", "namespace": "default"},
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "",
                "resources": {"requests": {"storage": storage}}}})
    };
    let limits = json!([{"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"},
        "max": {"storage": "5Gi"}}]);
    let mut world = limited(limits);
    let refusals = [
        ("500Mi", "minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 500Mi"),
        ("6Gi", "maximum storage usage per PersistentVolumeClaim is 5Gi, but request is 6Gi"),
    ];
    for (storage, why) in refusals {
        let error = world.create(claim(storage)).unwrap_err();
        let expected = format!("persistentvolumeclaims \"c\" is forbidden: {why}");
        assert_eq!((error.code, error.message), (403, expected));
    }
    world.create(claim("5Gi")).unwrap();
    // Later limits hold for each update.
    let low = json!([{"type": "PersistentVolumeClaim", "max": {"storage": "2Gi"}}]);
    world.create(with(range(low), "/metadata/name", json!("m"))).unwrap();
    let body = json!({"metadata": {"labels": {"a": "b"}}});
    let error = world.patch(&key(Kind::PersistentVolumeClaim, "c"), body).unwrap_err();
    assert_eq!(
        error.message,
        "persistentvolumeclaims \"c\" is forbidden: maximum storage usage per \
         PersistentVolumeClaim is 2Gi, but request is 5Gi"
    );
}

#[test]
fn what_a_range_may_be() {
    let one = || range(json!([{"type": "Container", "max": {"cpu": "1"}}]));
    let at = "/spec/limits";
    check(
        one(),
        at,
        json!([{"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"}}]),
        "[spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1, \
         spec.limits[0].defaultRequest[cpu]: Invalid value: \"1\": min value 2 is greater than \
         default request value 1, spec.limits[0].default[cpu]: Invalid value: \"2\": min value 2 \
         is greater than default value 1]",
    );
    check(
        one(),
        at,
        json!([{"type": "Pod", "default": {"cpu": "2"}, "max": {"gpu": "1"}}]),
        "[spec.limits[0].max[gpu]: Invalid value: \"gpu\": must be a standard resource type or \
         fully qualified, spec.limits[0].max[gpu]: Invalid value: \"gpu\": must be a standard \
         resource for containers, spec.limits[0].default: Forbidden: may not be specified when \
         `type` is 'Pod']",
    );
    check(
        one(),
        at,
        json!([{"type": "Box"}, {"type": "Pod"}, {"type": "Pod"}]),
        "[spec.limits[0].type: Invalid value: \"Box\": must be a standard limit type or fully \
         qualified, spec.limits[2].type: Duplicate value: \"Pod\"]",
    );
    check(
        one(),
        at,
        json!([{"type": "PersistentVolumeClaim", "max": {"cpu": "1"}}]),
        "spec.limits[0].limits: Required value: either minimum or maximum storage value is \
         required, but neither was provided",
    );
    check(
        one(),
        at,
        json!([{"type": "Pod", "min": {"cpu": "1"}, "max": {"cpu": "3"},
            "maxLimitRequestRatio": {"cpu": "4"}}]),
        "spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"4\": ratio 4 is greater than \
         max/min = 3.000000",
    );
    check(
        one(),
        at,
        json!([{"type": "Pod", "maxLimitRequestRatio": {"cpu": "500m"}}]),
        "spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"500m\": ratio 500m is less \
         than 1",
    );
    check(
        one(),
        at,
        json!([{"type": "Container", "default": {"example.com/gpu": "2"},
            "defaultRequest": {"example.com/gpu": "1"}}]),
        "spec.limits[0].defaultRequest[example.com/gpu]: Invalid value: \"1\": default value 2 \
         must equal to defaultRequest value 1 in example.com/gpu",
    );
}
