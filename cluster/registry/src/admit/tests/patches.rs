//! Patches that are applied to a part of an object, against patches of the whole.

use proptest::prelude::*;

use super::properties::{odd_value, pointers};
use super::*;
use crate::admit::patched::patched;

/// Objects with a bit of everything that patches may name.
fn stored() -> Vec<Object> {
    let condition = json!([{"type": "Ready", "status": "True", "reason": "a",
        "lastTransitionTime": "2023-11-14T22:13:20Z"}]);
    let metadata = json!({"name": "x", "uid": "u", "resourceVersion": "7",
        "labels": {"a": "b"}, "annotations": {"a": "b"}, "finalizers": ["a/b"],
        "creationTimestamp": "2023-11-14T22:13:20Z",
        "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "o"}]});
    let pods = json!({"labels": {"app": "x"}});
    let container = json!({"name": "a", "image": "nginx", "env": [{"name": "A", "value": "b"}],
        "ports": [{"containerPort": 80, "protocol": "TCP"}],
        "resources": {"requests": {"cpu": "1"}}});
    let template = json!({"metadata": pods, "spec": {"containers": [container]}});
    let ended = json!({"terminated": {"exitCode": 1, "startedAt": "2023-11-14T22:13:20Z"}});
    [
        json!({"kind": "Pod", "apiVersion": "v1",
            "spec": {"containers": [container], "nodeName": "n",
                "tolerations": [{"key": "a", "operator": "Exists"}]},
            "status": {"phase": "Running", "qosClass": "Burstable", "message": "m",
                "hostIP": "10.0.0.1", "podIP": "10.0.0.2", "podIPs": [{"ip": "10.0.0.2"}],
                "startTime": "2023-11-14T22:13:20Z", "conditions": condition,
                "containerStatuses": [{"name": "a", "image": "nginx", "imageID": "i",
                    "ready": true, "restartCount": 1, "lastState": ended,
                    "state": {"running": {}}}]}}),
        json!({"kind": "Node", "apiVersion": "v1",
            "spec": {"podCIDR": "10.1.0.0/24", "taints": [{"key": "k", "effect": "NoExecute"}]},
            "status": {"addresses": [{"type": "Hostname", "address": "x"}],
                "capacity": {"cpu": "4", "memory": "1Gi"}, "allocatable": {"cpu": "4"},
                "conditions": condition, "images": [{"names": ["a"], "sizeBytes": 5}],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
                "volumesInUse": ["v"], "nodeInfo": {"architecture": "amd64", "bootID": "b",
                    "containerRuntimeVersion": "c", "kernelVersion": "k", "kubeProxyVersion": "",
                    "kubeletVersion": "v", "machineID": "m", "operatingSystem": "linux",
                    "osImage": "o", "systemUUID": "s"}}}),
        json!({"kind": "Deployment", "apiVersion": "apps/v1",
            "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "x"}},
                "strategy": {"type": "Recreate"}, "template": template},
            "status": {"replicas": 1, "conditions": condition}}),
        json!({"kind": "Service", "apiVersion": "v1",
            "spec": {"clusterIP": "10.0.0.9", "ports": [{"port": 80, "targetPort": "web"}]},
            "status": {"loadBalancer": {}}}),
        json!({"kind": "Namespace", "apiVersion": "v1",
            "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}),
        json!({"kind": "ConfigMap", "apiVersion": "v1", "data": {"a": "b"}}),
    ]
    .into_iter()
    .map(|manifest| object(&with(manifest, "/metadata", metadata.clone())))
    .collect()
}

/// The patch by its definition: on the JSON of all of the object.
fn by_definition(current: &Object, patch: &Patch, strict: bool) -> Option<Object> {
    let kind = current.kind();
    let mut after = crate::patch::apply(kind, codec::to_value(current), patch).ok()?;
    after["apiVersion"] = kind.api_version().into();
    after["kind"] = kind.name().into();
    let (object, unknown) = codec::decode(kind, after.to_string().as_bytes()).ok()?;
    (!strict || unknown.is_empty()).then_some(object)
}

fn check(current: &Object, patch: &Patch) {
    for strict in [false, true] {
        let found = patched(current, None, patch, strict).ok();
        assert_eq!(found, by_definition(current, patch, strict), "{patch:?} strict: {strict}");
    }
}

/// Leaves out fields of the object and of the objects in it.
fn thin(value: &mut Value, kept: &mut impl Iterator<Item = bool>, depth: u32) {
    let Value::Object(map) = value else { return };
    map.retain(|_, _| kept.next().unwrap_or(true));
    if depth > 0 {
        map.values_mut().for_each(|inner| thin(inner, kept, depth - 1));
    }
}

/// Gives values others of the same type, or none.
fn change(value: &mut Value, changes: &mut impl Iterator<Item = u8>) {
    match value {
        Value::Object(map) => map.values_mut().for_each(|inner| change(inner, changes)),
        Value::Array(list) => list.iter_mut().for_each(|inner| change(inner, changes)),
        _ => {}
    }
    match (changes.next().unwrap_or_default(), &mut *value) {
        (1, any) => *any = Value::Null,
        (2..=5, Value::Number(n)) => *value = (n.as_i64().unwrap_or(0) + 1).into(),
        (2..=5, Value::Bool(b)) => *b = !*b,
        (2..=5, Value::String(text)) if text.ends_with('Z') => {
            *value = "2023-11-15T00:00:00Z".into();
        }
        (2..=5, Value::String(text)) => text.push('9'),
        (2, Value::Array(list)) => drop(list.pop()),
        _ => {}
    }
}

#[test]
fn patches_as_kubelets_send_them() {
    let objects = stored();
    for body in [
        json!({"status": {"phase": "Failed", "message": null}}),
        json!({"metadata": {"uid": "other"}, "status": {"phase": "Failed"}}),
        json!({"metadata": {"uid": 5}, "status": {"phase": "Failed"}}),
        json!({"metadata": {"uid": null}, "status": {}}),
        json!({"status": {"conditions": [{"type": "Ready", "status": "False"}], "bogus": 1}}),
        json!({"status": {"conditions": [{"type": "Ready", "status": 1}]}}),
        json!({"status": {"capacity": {"cpu": null, "pods": "1"}, "allocatable": {"cpu": "5"}}}),
        json!({"status": {"nodeInfo": {"kubeletVersion": "w"}, "images": null}}),
        json!({"status": null}),
        json!({"metadata": {"labels": {"a": null, "c": "d"}}}),
        json!({"spec": {"$retainKeys": ["nodeName"], "nodeName": "m"}}),
        json!({"$patch": "delete"}),
        json!({"kind": "Node", "status": {"phase": "x"}}),
        json!([]),
    ] {
        for object in &objects {
            for kind in [PatchKind::Merge, PatchKind::Strategic, PatchKind::Json] {
                check(object, &Patch { kind, body: body.clone().into() });
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn a_patch_of_parts_is_the_patch_of_the_whole(
        current in prop::sample::select(stored()),
        (top, fields) in (prop::collection::vec(prop::bool::weighted(0.4), 2..6),
            prop::collection::vec(prop::bool::weighted(0.6), 20)),
        other in prop::collection::vec(0_u8..24, 60),
        changes in prop::collection::vec((any::<prop::sample::Index>(), odd_value()), 0..3),
        (strategic, only_status) in (any::<bool>(), prop::bool::weighted(0.7)),
    ) {
        let mut body = codec::to_value(&current);
        if only_status {
            body = json!({"status": body["status"].take(), "metadata": {"uid": "u"}});
        }
        let top = top.into_iter().map(|kept| kept || only_status);
        thin(&mut body, &mut top.chain(fields), 1);
        change(&mut body, &mut other.into_iter());
        for (index, new) in changes {
            let mut all = Vec::new();
            pointers(&body, "", &mut all);
            let pointer = &all[index.index(all.len())];
            if let Some(value) = body.pointer_mut(pointer) {
                *value = new;
            }
        }
        let kind = if strategic { PatchKind::Strategic } else { PatchKind::Merge };
        check(&current, &Patch { kind, body: body.into() });
    }
}
