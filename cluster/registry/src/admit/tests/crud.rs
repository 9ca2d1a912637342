use std::sync::Arc;

use api::Revision;

use super::*;

/// A minimal manifest of each stored kind.
pub(super) fn minimal(kind: Kind) -> Value {
    let mut value = json!({"kind": kind.name(), "apiVersion": kind.api_version(),
        "metadata": {"name": "x"}});
    if kind.namespaced() {
        value["metadata"]["namespace"] = json!("default");
    }
    let role = json!({"apiGroup": "", "kind": "ClusterRole", "name": "view"});
    match kind {
        Kind::Pod => pod("x"),
        Kind::Service => service("x"),
        Kind::Deployment => deployment("x"),
        Kind::ReplicaSet => {
            let mut value = deployment("x");
            value["kind"] = json!("ReplicaSet");
            value
        }
        Kind::DaemonSet => daemon_set("x"),
        Kind::StatefulSet => stateful_set("x"),
        Kind::ControllerRevision => {
            value["revision"] = json!(1);
            with(value, "/data", json!({"spec": {"replicas": null}}))
        }
        Kind::ReplicationController => with(
            value,
            "/spec/template",
            json!({"metadata": {"labels": {"app": "x"}},
                "spec": {"containers": [{"name": "a", "image": "nginx"}]}}),
        ),
        Kind::Job => with(
            value,
            "/spec/template",
            json!({"spec": {"restartPolicy": "Never",
                "containers": [{"name": "a", "image": "nginx"}]}}),
        ),
        Kind::CronJob => {
            let job = json!({"spec": {"template": {"spec": {"restartPolicy": "Never",
                "containers": [{"name": "a", "image": "nginx"}]}}}});
            with(value, "/spec", json!({"schedule": "*/5 * * * *", "jobTemplate": job}))
        }
        Kind::HorizontalPodAutoscaler => {
            let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
            with(value, "/spec", json!({"maxReplicas": 5, "scaleTargetRef": target}))
        }
        Kind::EndpointSlice => {
            value["addressType"] = json!("IPv4");
            with(value, "/endpoints", json!([]))
        }
        Kind::Event => {
            with(value, "/involvedObject", json!({"kind": "Pod", "namespace": "default"}))
        }
        Kind::CertificateSigningRequest => with(
            value,
            "/spec",
            json!({"signerName": "kubernetes.io/kube-apiserver-client-kubelet",
                "usages": ["client auth"], "request": csr()}),
        ),
        Kind::RoleBinding | Kind::ClusterRoleBinding => with(value, "/roleRef", role),
        Kind::PersistentVolume => volume("x"),
        Kind::PersistentVolumeClaim => claim("x"),
        Kind::StorageClass => with(value, "/provisioner", json!("kprov.io/local")),
        _ => value,
    }
}

/// Base64 of a PEM block that is a certificate request by its label.
fn csr() -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD
        .encode("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n")
}

#[test]
fn every_kind_can_be_written() {
    let mut world = World::new();
    for kind in Kind::stored() {
        let made = world.create(minimal(kind)).unwrap_or_else(|e| panic!("{kind}: {e}"));
        assert_eq!(made["metadata"]["creationTimestamp"], "2023-11-14T22:13:20Z", "{kind}");
        assert_eq!(made["metadata"]["uid"].as_str().unwrap().len(), 36, "{kind}");
        // A second create is refused by name.
        let key = key(kind, "x");
        let error = world.create(minimal(kind)).unwrap_err();
        assert_eq!(error.code, 409, "{kind}: {error}");
        let plural = kind.group_resource();
        assert_eq!(error.message, format!("{plural} \"x\" already exists"));
        // Writing back what was read changes nothing.
        let same = world.decide(&Operation::Update {
            key: key.clone(),
            object: object(&made),
            subresource: None,
        });
        assert!(matches!(same, Ok(Mutation::Unchanged(_))), "{kind}: {same:?}");
        // A label does.
        let body = json!({"metadata": {"labels": {"a": "b"}}});
        let patched = world.patch(&key, body).unwrap_or_else(|e| panic!("{kind}: {e}"));
        assert_eq!(patched["metadata"]["labels"]["a"], "b", "{kind}");
        // What was read first is old now.
        let error = world.update(&with(made.clone(), "/metadata/labels", json!({"c": "d"})), None);
        assert_eq!(
            error.unwrap_err().message,
            format!(
                "Operation cannot be fulfilled on {plural} \"x\": the object has been modified; \
                 please apply your changes to the latest version and try again"
            )
        );
        world.delete(&key, DeleteOptions::default()).unwrap();
        if kind == Kind::Namespace {
            let body = json!({"kind": "Namespace", "apiVersion": "v1",
                "metadata": {"name": "x"}, "spec": {"finalizers": []}});
            world.update(&body, Some(Subresource::Finalize)).unwrap();
        }
        let orphans = matches!(kind, Kind::ReplicationController | Kind::Job);
        if orphans || matches!(kind, Kind::PersistentVolume | Kind::PersistentVolumeClaim) {
            // Pods are orphaned by default and storage is protected, which finalizers see to.
            world.patch(&key, json!({"metadata": {"finalizers": null}})).unwrap();
        }
        assert!(world.get(&key).is_none(), "{kind}");
        let error = world.delete(&key, DeleteOptions::default()).unwrap_err();
        assert_eq!(error.message, format!("{plural} \"x\" not found"));
    }
}

#[test]
fn metadata_that_is_refused() {
    let mut world = World::new();
    let mut check = |value: Value, expected: &str| {
        let error = world.create(value).unwrap_err();
        assert_eq!(error.message, expected);
    };
    check(
        pod("My_Pod"),
        "Pod \"My_Pod\" is invalid: metadata.name: Invalid value: \"My_Pod\": a lowercase RFC \
         1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
         start and end with an alphanumeric character (e.g. 'example.com', regex used for \
         validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
    );
    check(
        service("1a"),
        "Service \"1a\" is invalid: metadata.name: Invalid value: \"1a\": a DNS-1035 label must \
         consist of lower case alphanumeric characters or '-', start with an alphabetic \
         character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex \
         used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
    );
    check(
        with(pod("a"), "/metadata/name", Value::Null),
        "Pod \"\" is invalid: metadata.name: Required value: name or generateName is required",
    );
    check(
        with(pod("a"), "/metadata/labels", json!({"a b": "c"})),
        "Pod \"a\" is invalid: metadata.labels: Invalid value: \"a b\": name part must consist \
         of alphanumeric characters, '-', '_' or '.', and must start and end with an \
         alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for \
         validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
    );
    check(
        with(pod("a"), "/metadata/finalizers", json!(["nope"])),
        "Pod \"a\" is invalid: metadata.finalizers[0]: Invalid value: \"nope\": name is neither a \
         standard finalizer name nor is it fully qualified",
    );
    check(
        with(pod("a"), "/metadata/resourceVersion", json!("5")),
        "resourceVersion should not be set on objects to be created",
    );
    check(with(pod("a"), "/metadata/namespace", json!("gone")), "namespaces \"gone\" not found");
    let owner = |controller: bool, name: &str| {
        json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": "u",
            "controller": controller})
    };
    let mut two = World::new();
    let owners = json!([owner(true, "a"), owner(true, "b")]);
    let error = two.create(with(pod("a"), "/metadata/ownerReferences", owners)).unwrap_err();
    assert!(
        error.message.ends_with(
            "Only one reference can have Controller set to true. Found \"true\" in references \
             for Pod/a and Pod/b"
        ),
        "{error}"
    );
}

#[test]
fn ten_thousand_owners_are_refused_in_few_words() {
    let owner = |index: usize| {
        json!({"apiVersion": "v1", "kind": "Pod", "name": format!("p{index}"), "uid": "u",
            "controller": true})
    };
    let owners: Vec<Value> = (0..10_000).map(owner).collect();
    let manifest = with(pod("a"), "/metadata/ownerReferences", owners.into());
    let size = manifest.to_string().len();
    let error = World::new().create(manifest).unwrap_err();
    assert!(error.message.contains("references for Pod/p0 and Pod/p1"), "{:.200}", error.message);
    assert!(
        error.message.len() < 20 * size,
        "{} bytes of an object of {size}",
        error.message.len()
    );
}

#[test]
fn generated_names() {
    let mut world = World::new();
    let mut manifest = pod("a");
    manifest["metadata"] = json!({"generateName": "web-", "namespace": "default"});
    let a = world.create(manifest.clone()).unwrap();
    let b = world.create(manifest).unwrap();
    let name = |v: &Value| v["metadata"]["name"].as_str().unwrap().to_owned();
    assert!(name(&a).starts_with("web-") && name(&a).len() == 9, "{}", name(&a));
    assert_ne!(name(&a), name(&b));
    assert_ne!(a["metadata"]["uid"], b["metadata"]["uid"]);
}

#[test]
fn preconditions_of_updates() {
    let mut world = World::new();
    let lease = world.create(minimal(Kind::Lease)).unwrap();
    let blind = with(lease, "/metadata/resourceVersion", Value::Null);
    assert_eq!(
        world.update(&blind, None).unwrap_err().message,
        "leases.coordination.k8s.io \"x\" is invalid: metadata.resourceVersion: Invalid value: \
         0x0: must be specified for an update"
    );
    let map = world.create(minimal(Kind::ConfigMap)).unwrap();
    let blind = with(map.clone(), "/metadata/resourceVersion", Value::Null);
    world.update(&with(blind.clone(), "/data", json!({"a": "b"})), None).unwrap();
    let other = with(blind, "/metadata/uid", json!("other"));
    let error = world.update(&other, None).unwrap_err();
    let uid = map["metadata"]["uid"].as_str().unwrap();
    assert_eq!(
        error.message,
        format!(
            "Operation cannot be fulfilled on configmaps \"x\": Precondition failed: UID in \
             precondition: other, UID in object meta: {uid}"
        )
    );
    let wrong = Operation::Update {
        key: key(Kind::ConfigMap, "y"),
        object: object(&map),
        subresource: None,
    };
    assert_eq!(
        world.decide(&wrong).unwrap_err().message,
        "the name of the object (x) does not match the name on the URL (y)"
    );
    let gone = with(minimal(Kind::ConfigMap), "/metadata/name", json!("gone"));
    assert_eq!(world.update(&gone, None).unwrap_err().message, "configmaps \"gone\" not found");
    // Some kinds are created by an update.
    let made = world.update(&with(minimal(Kind::Lease), "/metadata/name", json!("new")), None);
    assert_eq!(made.unwrap()["metadata"]["name"], "new");
}

#[test]
fn patches() {
    let mut world = World::new();
    world.create(deployment("web")).unwrap();
    let web = key(Kind::Deployment, "web");
    let scaled = world.patch(&web, json!({"spec": {"replicas": 3}})).unwrap();
    assert_eq!(scaled["spec"]["replicas"], 3);
    assert_eq!(scaled["metadata"]["generation"], 2);
    let unknown = Operation::Patch {
        key: web.clone(),
        subresource: None,
        patch: Patch {
            kind: PatchKind::Strategic,
            body: json!({"spec": {"replica": 3, "paused": null}}).into(),
        },
        strict: true,
    };
    assert_eq!(
        world.decide(&unknown).unwrap_err().message,
        " \"\" is invalid: patch: Invalid value: \"map[spec:map[paused:<nil> replica:3]]\": \
         strict decoding error: unknown field \"spec.replica\""
    );
    let error = world.patch(&web, json!({"spec": {"replica": 3}})).unwrap_err();
    assert!(error.message.starts_with(" \"\" is invalid: patch: Invalid value: \"{\\\"api"));
    assert!(error.message.ends_with("strict decoding error: unknown field \"spec.replica\""));
    let error = world.patch(&web, json!({"spec": {"replicas": "x"}})).unwrap_err();
    assert_eq!(error.code, 422, "{error}");
    let stale = json!({"metadata": {"resourceVersion": "1"}, "spec": {"replicas": 9}});
    assert_eq!(world.patch(&web, stale).unwrap_err().code, 409);
    let status = json!({"spec": {"replicas": 7}, "status": {"replicas": 2}});
    let after = world.patch_at(&web, Some(Subresource::Status), status).unwrap();
    assert_eq!((&after["spec"]["replicas"], &after["status"]["replicas"]), (&json!(3), &json!(2)));
    assert_eq!(after["metadata"]["generation"], 2);
    // The status cannot be written along with the rest.
    let after = world.patch(&web, json!({"status": {"replicas": 9}})).unwrap();
    assert_eq!(after["status"]["replicas"], 2);
}

#[test]
fn scale() {
    let mut world = World::new();
    world.create(deployment("web")).unwrap();
    let web = key(Kind::Deployment, "web");
    let body = json!({"spec": {"replicas": 5}});
    let after = world.patch_at(&web, Some(Subresource::Scale), body).unwrap();
    assert_eq!(after["spec"]["replicas"], 5);
    let scale = crate::scale::of(&world.get(&web).unwrap()).unwrap();
    assert_eq!(scale.status.as_ref().unwrap().selector.as_deref(), Some("app=x"));
    let mut stale = scale.clone();
    stale.metadata.resource_version = Some("1".to_owned());
    let error = world.run(&Operation::Update {
        key: web.clone(),
        object: api::ApiObject::into_object(stale),
        subresource: Some(Subresource::Scale),
    });
    assert_eq!(error.unwrap_err().code, 409);
    let body = json!({"spec": {"replicas": -1}});
    assert_eq!(
        world.patch_at(&web, Some(Subresource::Scale), body).unwrap_err().message,
        "Scale.autoscaling \"web\" is invalid: spec.replicas: Invalid value: -1: must be greater \
         than or equal to 0"
    );
    world.create(pod("a")).unwrap();
    let pod = key(Kind::Pod, "a");
    let body = json!({"spec": {"replicas": 1}});
    assert_eq!(world.patch_at(&pod, Some(Subresource::Scale), body).unwrap_err().code, 404);
}

#[test]
fn requests_of_components() {
    use api::Request;
    let deletion = Request::Delete {
        key: key(Kind::Pod, "a"),
        uid: Some("u".to_owned()),
        revision: Some(Revision(3)),
        grace_seconds: Some(1),
        propagation: None,
    };
    let Some(Operation::Delete { options, .. }) = Operation::of_request(&deletion) else {
        panic!("a delete stays a delete");
    };
    assert_eq!((options.grace_seconds, options.revision), (Some(1), Some(Revision(3))));
    assert!(Operation::of_request(&Request::Get(key(Kind::Pod, "a"))).is_none());
}

#[test]
fn signing_requests() {
    let mut world = World::new();
    let manifest = with(minimal(Kind::CertificateSigningRequest), "/spec/username", json!("root"));
    let made = world.create(manifest).unwrap();
    assert_eq!(made["spec"]["username"], "admin");
    assert_eq!(made["spec"]["groups"], json!(["system:masters"]));
    let key = key(Kind::CertificateSigningRequest, "x");
    let approved = |kind: &str| json!({"type": kind, "status": "True", "reason": "Test"});
    let body = json!({"status": {"conditions": [approved("Approved")]}});
    // Neither a plain write nor one of the status approves.
    let after = world.patch(&key, body.clone()).unwrap();
    assert_eq!(after["status"]["conditions"], Value::Null);
    let after = world.patch_at(&key, Some(Subresource::Status), body.clone()).unwrap();
    assert_eq!(after["status"]["conditions"], Value::Null);
    let after = world.patch_at(&key, Some(Subresource::Approval), body).unwrap();
    assert_eq!(after["status"]["conditions"][0]["lastUpdateTime"], "2023-11-14T22:13:20Z");
    let both = json!({"status": {"conditions": [approved("Approved"), approved("Denied")]}});
    let error = world.patch_at(&key, Some(Subresource::Approval), both).unwrap_err();
    assert!(
        error.message.contains("Approved and Denied conditions are mutually exclusive"),
        "{error}"
    );
    let none = json!({"status": {"conditions": null}});
    let error = world.patch_at(&key, Some(Subresource::Approval), none).unwrap_err();
    assert_eq!(
        error.message,
        "CertificateSigningRequest.certificates.k8s.io \"x\" is invalid: status.conditions: \
         Forbidden: updates may not remove a condition of type \"Approved\""
    );
}

/// The store writes the revision into what it is told to put, which must not copy it.
#[test]
fn what_is_put_is_shared_with_nobody() {
    let mut world = World::new();
    let status = |kind, body: Value| Operation::Patch {
        key: key(Kind::Pod, "x"),
        subresource: Some(Subresource::Status),
        patch: Patch { kind, body: body.into() },
        strict: false,
    };
    let bind = PodBinding { node: "n".to_owned(), ..PodBinding::default() };
    let mut scaled = object(&deployment("x"));
    let created = Operation::Create { object: scaled.clone() };
    if let Object::Deployment(deployment) = &mut scaled {
        Arc::make_mut(deployment).spec.as_mut().unwrap().replicas = Some(3);
    }
    for operation in [
        Operation::Create { object: object(&pod("x")) },
        Operation::Bind { pod: key(Kind::Pod, "x"), binding: bind },
        status(PatchKind::Merge, json!({"status": {"phase": "Running"}})),
        status(PatchKind::Strategic, json!({"status": {"message": "m"}})),
        status(PatchKind::Merge, json!({"metadata": {"annotations": {"a": "b"}}})),
        status(PatchKind::Json, json!([{"op": "add", "path": "/status/reason", "value": "r"}])),
        Operation::Patch {
            key: key(Kind::Pod, "x"),
            subresource: None,
            patch: Patch {
                kind: PatchKind::Merge,
                body: json!({"metadata": {"labels": {"a": "b"}}}).into(),
            },
            strict: false,
        },
        Operation::Delete { key: key(Kind::Pod, "x"), options: DeleteOptions::default() },
        created,
        Operation::Update { key: key(Kind::Deployment, "x"), object: scaled, subresource: None },
    ] {
        let Ok(Mutation::Put { object, .. }) = world.decide(&operation) else {
            panic!("{operation:?} puts")
        };
        match &object {
            Object::Pod(pod) => assert_eq!(Arc::strong_count(pod), 1, "{operation:?}"),
            Object::Deployment(deployment) => {
                assert_eq!(Arc::strong_count(deployment), 1, "{operation:?}");
            }
            other => panic!("{other:?}"),
        }
        world.run(&operation).unwrap();
    }
}
