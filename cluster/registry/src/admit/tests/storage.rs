//! Persistent volumes, claims and storage classes.

use api::volume::{CLAIM_FINALIZER, DEFAULT_CLASS, VOLUME_FINALIZER};

use super::*;

fn class(name: &str, default: bool) -> Value {
    json!({"kind": "StorageClass", "apiVersion": "storage.k8s.io/v1", "metadata":
        {"name": name, "annotations": {DEFAULT_CLASS: default.to_string()}},
        "provisioner": "kprov.io/local"})
}

/// Creates the object with one change and compares what the server says of it.
fn refused(value: Value, pointer: &str, new: Value, expected: &str) {
    let value = with(value, pointer, new);
    let kind = value["kind"].as_str().unwrap().to_owned();
    let grouped = matches!(kind.as_str(), "StorageClass" | "CSINode");
    let kind = if grouped { format!("{kind}.storage.k8s.io") } else { kind };
    let error = World::new().create(value).unwrap_err();
    assert_eq!(error.message, format!("{kind} \"x\" is invalid: {expected}"));
}

#[test]
fn defaults() {
    let mut world = World::new();
    let made = world.create(volume("x")).unwrap();
    assert_eq!(
        made["spec"],
        json!({"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
            "hostPath": {"path": "/srv/x", "type": ""}, "volumeMode": "Filesystem",
            "persistentVolumeReclaimPolicy": "Retain"})
    );
    assert_eq!(
        made["status"],
        json!({"phase": "Pending", "lastPhaseTransitionTime": "2023-11-14T22:13:20Z"})
    );
    assert_eq!(made["metadata"]["finalizers"], json!([VOLUME_FINALIZER]));
    let made = world.create(claim("x")).unwrap();
    assert_eq!(
        made["spec"],
        json!({"accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem",
            "resources": {"requests": {"storage": "1Gi"}}})
    );
    assert_eq!(made["status"], json!({"phase": "Pending"}));
    assert_eq!(made["metadata"]["finalizers"], json!([CLAIM_FINALIZER]));
    let made = world.create(class("x", false)).unwrap();
    assert_eq!(made["reclaimPolicy"], "Delete");
    assert_eq!(made["volumeBindingMode"], "Immediate");
}

#[test]
fn claims_without_a_class_get_the_default_one() {
    let mut world = World::new();
    world.create(class("plain", false)).unwrap();
    let made = |world: &mut World, name: &str, class: Value| {
        let claim = with(claim(name), "/spec/storageClassName", class);
        world.create(claim).unwrap()["spec"]["storageClassName"].clone()
    };
    assert_eq!(made(&mut world, "a", Value::Null), Value::Null);
    world.create(class("local", true)).unwrap();
    assert_eq!(made(&mut world, "b", Value::Null), "local");
    assert_eq!(made(&mut world, "c", json!("")), "");
    assert_eq!(made(&mut world, "d", json!("plain")), "plain");
    world.now = world.now + std::time::Duration::from_secs(1);
    world.create(class("newer", true)).unwrap();
    assert_eq!(made(&mut world, "e", Value::Null), "newer");
}

#[test]
fn volumes_that_are_refused() {
    let check = |pointer: &str, new: Value, expected: &str| {
        refused(volume("x"), pointer, new, expected);
    };
    check("/spec/accessModes", json!([]), "spec.accessModes: Required value");
    check(
        "/spec/accessModes",
        json!(["Any"]),
        "spec.accessModes: Unsupported value: \"Any\": supported values: \"ReadOnlyMany\", \
         \"ReadWriteMany\", \"ReadWriteOnce\", \"ReadWriteOncePod\"",
    );
    check(
        "/spec/accessModes",
        json!(["ReadWriteOnce", "ReadWriteOncePod"]),
        "spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes",
    );
    check(
        "/spec/capacity",
        Value::Null,
        "[spec.capacity: Required value, spec.capacity: Unsupported value: \
         core.ResourceList(nil): supported values: \"storage\"]",
    );
    check(
        "/spec/capacity/storage",
        json!("0"),
        "spec.capacity[storage]: Invalid value: \"0\": must be greater than zero",
    );
    check(
        "/spec/persistentVolumeReclaimPolicy",
        json!("Keep"),
        "spec.persistentVolumeReclaimPolicy: Unsupported value: \"Keep\": supported values: \
         \"Delete\", \"Recycle\", \"Retain\"",
    );
    check("/spec/hostPath", Value::Null, "spec: Required value: must specify a volume type");
    check(
        "/spec/nfs",
        json!({"server": "a", "path": "/b"}),
        "spec.nfs: Forbidden: may not specify more than 1 volume type",
    );
    check(
        "/spec/hostPath/path",
        json!("/srv/../etc"),
        "spec.hostPath.path: Invalid value: \"/srv/../etc\": must not contain '..'",
    );
    check(
        "/spec/storageClassName",
        json!("No"),
        "spec.storageClassName: Invalid value: \"No\": a lowercase RFC 1123 subdomain must \
         consist of lower case alphanumeric characters, '-' or '.', and must start and end with \
         an alphanumeric character (e.g. 'example.com', regex used for validation is \
         '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
    );
    check(
        "/spec/nodeAffinity",
        json!({"required": {"nodeSelectorTerms": []}}),
        "spec.nodeAffinity.required.nodeSelectorTerms: Required value: must have at least one \
         node selector term",
    );
    let mut local = volume("x");
    local["spec"].as_object_mut().unwrap().remove("hostPath");
    refused(
        local,
        "/spec/local",
        json!({"path": "/srv"}),
        "spec.nodeAffinity: Required value: Local volume requires node affinity",
    );
    let mut driven = volume("x");
    driven["spec"].as_object_mut().unwrap().remove("hostPath");
    refused(
        driven.clone(),
        "/spec/csi",
        json!({"driver": "csi.example.com", "volumeHandle": ""}),
        "spec.csi.volumeHandle: Required value",
    );
    refused(
        driven,
        "/spec/csi",
        json!({"driver": "a".repeat(64), "volumeHandle": "v"}),
        "spec.csi.driver: Too long: may not be more than 63 bytes",
    );
    let root = with(volume("x"), "/spec/persistentVolumeReclaimPolicy", json!("Recycle"));
    refused(
        root,
        "/spec/hostPath/path",
        json!("/"),
        "spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath mount \
         of '/'",
    );
}

#[test]
fn claims_and_classes_that_are_refused() {
    let check = |pointer: &str, new: Value, expected: &str| {
        refused(claim("x"), pointer, new, expected);
    };
    check(
        "/spec/accessModes",
        Value::Null,
        "spec.accessModes: Required value: at least 1 access mode is required",
    );
    check("/spec/resources", Value::Null, "spec.resources[storage]: Required value");
    check(
        "/spec/resources/requests/storage",
        json!("0"),
        "spec.resources[storage]: Invalid value: \"0\": must be greater than zero",
    );
    check(
        "/spec/volumeMode",
        json!("Tape"),
        "spec.volumeMode: Unsupported value: \"Tape\": supported values: \"Block\", \
         \"Filesystem\"",
    );
    // Both fields that say from what a volume is filled are written, and each is looked at.
    check(
        "/spec/dataSource",
        json!({"kind": "Pod", "name": "p"}),
        "[spec.dataSource: Invalid value: \"Pod\", spec.dataSourceRef: Invalid value: \"Pod\"]",
    );
    check(
        "/spec/dataSourceRef",
        json!({"apiGroup": "-", "kind": "X", "name": ""}),
        "[spec.dataSource.name: Required value, spec.dataSource.apiGroup: Invalid value: \"-\": a \
         lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or \
         '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex \
         used for validation is \
         '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*'), \
         spec.dataSourceRef.name: Required value, spec.dataSourceRef.apiGroup: Invalid value: \
         \"-\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, \
         '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', \
         regex used for validation is \
         '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')]",
    );
    let two =
        with(claim("x"), "/spec/dataSource", json!({"kind": "PersistentVolumeClaim", "name": "a"}));
    refused(
        two,
        "/spec/dataSourceRef",
        json!({"kind": "PersistentVolumeClaim", "name": "b"}),
        "spec: Invalid value: must match dataSourceRef",
    );
    let check = |pointer: &str, new: Value, expected: &str| {
        refused(class("x", false), pointer, new, expected);
    };
    check("/provisioner", json!(""), "provisioner: Required value");
    check(
        "/reclaimPolicy",
        json!("Recycle"),
        "reclaimPolicy: Unsupported value: \"Recycle\": supported values: \"Delete\", \"Retain\"",
    );
    check(
        "/volumeBindingMode",
        json!("Later"),
        "volumeBindingMode: Unsupported value: \"Later\": supported values: \"Immediate\", \
         \"WaitForFirstConsumer\"",
    );
    let terms = |terms: &[Value]| {
        let of = |term: &Value| json!({"matchLabelExpressions": term});
        terms.iter().map(of).collect::<Vec<_>>().into()
    };
    let zone = |values: Value| json!({"key": "zone", "values": values});
    check(
        "/allowedTopologies",
        terms(&[json!([zone(json!([])), zone(json!(["a", "a"]))])]),
        "[allowedTopologies[0].matchLabelExpressions[0].values: Required value, \
         allowedTopologies[0].matchLabelExpressions[1].values[1]: Duplicate value: \"a\", \
         allowedTopologies[0].matchLabelExpressions[1].key: Duplicate value: \"zone\"]",
    );
    check(
        "/allowedTopologies",
        terms(&[json!([zone(json!(["a", "b"]))]), json!([zone(json!(["b", "a"]))])]),
        "allowedTopologies[1].matchLabelExpressions: Duplicate value: \"\"",
    );
}

#[test]
fn what_may_change_of_a_volume_and_a_class() {
    let mut world = World::new();
    world.create(volume("x")).unwrap();
    let at = key(Kind::PersistentVolume, "x");
    let body = json!({"spec": {"hostPath": {"path": "/srv/y"}}});
    assert_eq!(
        world.patch(&at, body).unwrap_err().message,
        "PersistentVolume \"x\" is invalid: spec.persistentvolumesource: Forbidden: \
         spec.persistentvolumesource is immutable after creation"
    );
    let body = json!({"spec": {"volumeMode": "Block"}});
    assert_eq!(
        world.patch(&at, body).unwrap_err().message,
        "PersistentVolume \"x\" is invalid: volumeMode: Invalid value: \"Block\": field is \
         immutable"
    );
    let body = json!({"spec": {"persistentVolumeReclaimPolicy": "Delete",
        "claimRef": {"namespace": "default", "name": "c"}}});
    world.patch(&at, body).unwrap();
    world.now = world.now + std::time::Duration::from_secs(1);
    let body = json!({"status": {"phase": "Available"}, "spec": {"claimRef": null}});
    let made = world.patch_at(&at, Some(Subresource::Status), body).unwrap();
    assert_eq!(made["spec"]["claimRef"]["name"], "c");
    assert_eq!(made["status"]["lastPhaseTransitionTime"], "2023-11-14T22:13:21Z");

    world.create(class("x", true)).unwrap();
    let at = key(Kind::StorageClass, "x");
    let error = world.patch(
        &at,
        json!({"provisioner": "a/b", "volumeBindingMode":
        "WaitForFirstConsumer"}),
    );
    assert_eq!(
        error.unwrap_err().message,
        "StorageClass.storage.k8s.io \"x\" is invalid: [provisioner: Forbidden: updates to \
         provisioner are forbidden., volumeBindingMode: Invalid value: \"WaitForFirstConsumer\": \
         field is immutable]"
    );
    world.patch(&at, json!({"allowVolumeExpansion": true})).unwrap();
}

#[test]
fn what_may_change_of_a_claim() {
    let mut world = World::new();
    world.create(class("fast", false)).unwrap();
    world.create(with(claim("x"), "/spec/storageClassName", json!("fast"))).unwrap();
    let at = key(Kind::PersistentVolumeClaim, "x");
    let spec = |world: &mut World, spec: Value| world.patch(&at, json!({"spec": spec}));
    let fixed = "PersistentVolumeClaim \"x\" is invalid: spec: Forbidden: spec is immutable after \
                 creation except resources.requests and volumeAttributesClassName for bound claims";
    let error = spec(&mut world, json!({"accessModes": ["ReadWriteMany"]})).unwrap_err();
    assert_eq!(error.message, fixed);
    let grown = json!({"resources": {"requests": {"storage": "2Gi"}}});
    assert_eq!(
        spec(&mut world, grown.clone()).unwrap_err().message,
        "persistentvolumeclaims \"x\" is forbidden: Only bound persistent volume claims can be \
         expanded"
    );
    spec(&mut world, json!({"volumeName": "v"})).unwrap();
    assert_eq!(spec(&mut world, json!({"volumeName": "w"})).unwrap_err().message, fixed);
    let status = json!({"status": {"phase": "Bound", "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"]}});
    world.patch_at(&at, Some(Subresource::Status), status).unwrap();
    assert_eq!(
        spec(&mut world, grown.clone()).unwrap_err().message,
        "persistentvolumeclaims \"x\" is forbidden: only dynamically provisioned pvc can be \
         resized and the storageclass that provisions the pvc must support resize"
    );
    world.patch(&key(Kind::StorageClass, "fast"), json!({"allowVolumeExpansion": true})).unwrap();
    spec(&mut world, grown).unwrap();
    let less = json!({"resources": {"requests": {"storage": "1Gi"}}});
    assert_eq!(
        spec(&mut world, less).unwrap_err().message,
        "PersistentVolumeClaim \"x\" is invalid: spec.resources.requests.storage: Forbidden: \
         field can not be less than status.capacity"
    );
}

#[test]
fn protected_objects_wait_for_their_finalizers() {
    let mut world = World::new();
    world.create(claim("x")).unwrap();
    let at = key(Kind::PersistentVolumeClaim, "x");
    world.delete(&at, DeleteOptions::default()).unwrap();
    assert!(world.objects[&at].meta().deletion_timestamp.is_some());
    world.patch(&at, json!({"metadata": {"finalizers": null}})).unwrap();
    assert!(world.get(&at).is_none());
}

#[test]
fn pods_have_templates_of_claims() {
    let with_template = |template: Value| {
        with(pod("x"), "/spec/volumes", json!([{"name": "v", "ephemeral": template}]))
    };
    let mut template = json!({"volumeClaimTemplate": {"spec": claim("x")["spec"].clone()}});
    let made = World::new().create(with_template(template.clone())).unwrap();
    let made = &made["spec"]["volumes"][0]["ephemeral"]["volumeClaimTemplate"]["spec"];
    assert_eq!(made["volumeMode"], "Filesystem");
    template["volumeClaimTemplate"]["spec"]["accessModes"] = Value::Null;
    let path = "spec.volumes[0].ephemeral.volumeClaimTemplate";
    for (template, expected) in [
        (
            template,
            format!(
                "{path}.spec.accessModes: Required value: at least 1 access mode is \
                            required"
            ),
        ),
        (json!({}), format!("{path}: Required value")),
    ] {
        let error = World::new().create(with_template(template)).unwrap_err();
        assert_eq!(error.message, format!("Pod \"x\" is invalid: {expected}"));
    }
}

fn csi_node(name: &str, drivers: &Value) -> Value {
    json!({"kind": "CSINode", "apiVersion": "storage.k8s.io/v1", "metadata": {"name": name},
        "spec": {"drivers": drivers}})
}

#[test]
fn drivers_of_a_node() {
    let driver = json!({"name": "disk.example.com", "nodeID": "x", "topologyKeys": ["zone"],
        "allocatable": {"count": 5}});
    let check = |pointer: &str, new: Value, expected: &str| {
        let node = csi_node("x", &json!([driver, {"name": "b.example.com", "nodeID": "y"}]));
        refused(node, pointer, new, expected);
    };
    check(
        "/spec/drivers/0/name",
        json!("-"),
        "spec.drivers[0].name: Invalid value: \"-\": a lowercase RFC 1123 subdomain must consist of \
         lower case alphanumeric characters, '-' or '.', and must start and end with an \
         alphanumeric character (e.g. 'example.com', regex used for validation is \
         '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
    );
    check("/spec/drivers/0/nodeID", json!(""), "spec.drivers[0].nodeID: Required value");
    let long = "n".repeat(257);
    let expected =
        format!("spec.drivers[0].nodeID: Invalid value: {long:?}: must be 256 characters or less");
    check("/spec/drivers/0/nodeID", json!(long), &expected);
    check(
        "/spec/drivers/0/allocatable/count",
        json!(-1),
        "spec.drivers[0].allocatable.count: Invalid value: -1: must be greater than or equal to 0",
    );
    check(
        "/spec/drivers/1/name",
        json!("disk.example.com"),
        "spec.drivers[1].name: Duplicate value: \"disk.example.com\"",
    );
    check(
        "/spec/drivers/0/topologyKeys",
        json!(["zone", "zone"]),
        "spec.drivers[0]: Duplicate value: \"zone\"",
    );
}

#[test]
fn a_driver_of_a_node_does_not_change_while_it_is_there() {
    let mut world = World::new();
    let driver = json!({"name": "a", "nodeID": "x", "allocatable": {"count": 5}});
    world.create(csi_node("x", &json!([driver]))).unwrap();
    let at = key(Kind::CsiNode, "x");
    let changed = json!([{"name": "a", "nodeID": "x", "allocatable": {"count": 6}}]);
    let error = world.patch(&at, json!({"spec": {"drivers": changed}})).unwrap_err();
    assert_eq!(
        error.message,
        "CSINode.storage.k8s.io \"x\" is invalid: spec.drivers: Invalid value: \
         {\"allocatable\":{\"count\":6},\"name\":\"a\",\"nodeID\":\"x\"}: field is immutable"
    );
    world.patch(&at, json!({"spec": {"drivers": [{"name": "b", "nodeID": "x"}]}})).unwrap();
}
