use super::*;

fn as_node(world: &mut World, name: &str) {
    world.caller.name = format!("system:node:{name}");
    world.caller.groups = vec!["system:nodes".to_owned()];
}

fn node(name: &str) -> Value {
    json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": name,
        "labels": {"kubernetes.io/hostname": name}}})
}

#[test]
fn service_accounts() {
    let mut world = World::new();
    let made = world.create(pod("a")).unwrap();
    assert_eq!(made["spec"]["serviceAccountName"], "default");
    assert_eq!(made["spec"]["serviceAccount"], "default");
    let volume = made["spec"]["volumes"][0]["name"].as_str().unwrap();
    assert!(volume.starts_with("kube-api-access-") && volume.len() == 21, "{volume}");
    assert_eq!(
        made["spec"]["containers"][0]["volumeMounts"],
        json!([{"mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "name": volume,
            "readOnly": true}])
    );
    let missing = with(pod("b"), "/spec/serviceAccountName", json!("robot"));
    assert_eq!(
        world.create(missing).unwrap_err().message,
        "pods \"b\" is forbidden: error looking up service account default/robot: \
         serviceaccount \"robot\" not found"
    );
    let without = with(pod("c"), "/spec/automountServiceAccountToken", json!(false));
    assert_eq!(world.create(without).unwrap()["spec"]["volumes"], Value::Null);
    let account = key(Kind::ServiceAccount, "default");
    world.patch(&account, json!({"automountServiceAccountToken": false})).unwrap();
    assert_eq!(world.create(pod("d")).unwrap()["spec"]["volumes"], Value::Null);
}

#[test]
fn nodes_tell_of_their_own_drivers() {
    let mut world = World::new();
    let of = |name: &str| {
        json!({"kind": "CSINode", "apiVersion": "storage.k8s.io/v1", "metadata": {"name": name},
            "spec": {"drivers": []}})
    };
    world.create(of("node-2")).unwrap();
    as_node(&mut world, "node-1");
    world.create(of("node-1")).unwrap();
    let why = "can only access CSINode with the same name as the requesting node";
    let refused = |result: Result<Value, Status>, name: &str| {
        let expected = format!("csinodes.storage.k8s.io \"{name}\" is forbidden: {why}");
        assert_eq!(result.unwrap_err().message, expected);
    };
    refused(world.create(of("node-3")), "node-3");
    let labels = json!({"metadata": {"labels": {"a": "b"}}});
    refused(world.patch(&key(Kind::CsiNode, "node-2"), labels.clone()), "node-2");
    world.patch(&key(Kind::CsiNode, "node-1"), labels).unwrap();
    let gone = world.delete(&key(Kind::CsiNode, "node-2"), DeleteOptions::default());
    assert!(gone.unwrap_err().message.ends_with(why));
    world.delete(&key(Kind::CsiNode, "node-1"), DeleteOptions::default()).unwrap();
}

#[test]
fn nodes_write_what_is_theirs() {
    let mut world = World::new();
    as_node(&mut world, "node-1");
    let made = world.create(node("node-1")).unwrap();
    assert_eq!(
        made["spec"]["taints"],
        json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}])
    );
    let check = |result: Result<Value, Status>, expected: &str| {
        assert_eq!(result.unwrap_err().message, expected);
    };
    check(
        world.create(node("node-2")),
        "nodes \"node-2\" is forbidden: node \"node-1\" is not allowed to modify node \"node-2\"",
    );
    let key_1 = key(Kind::Node, "node-1");
    check(
        world.patch(&key_1, json!({"spec": {"taints": null}})),
        "nodes \"node-1\" is forbidden: node \"node-1\" is not allowed to modify taints",
    );
    check(
        world.patch(
            &key_1,
            json!({"metadata": {"labels": {"node-restriction.kubernetes.io/a": "b"}}}),
        ),
        "nodes \"node-1\" is forbidden: is not allowed to modify labels: \
         node-restriction.kubernetes.io/a",
    );
    check(
        world
            .patch(&key_1, json!({"metadata": {"labels": {"node-role.kubernetes.io/master": ""}}})),
        "nodes \"node-1\" is forbidden: is not allowed to modify labels: \
         node-role.kubernetes.io/master",
    );
    world.patch(&key_1, json!({"metadata": {"labels": {"zone": "b"}}})).unwrap();
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    world.patch_at(&key_1, Some(Subresource::Status), ready).unwrap();
    check(
        world.create(pod("a")),
        "pods \"a\" is forbidden: pod does not have \"kubernetes.io/config.mirror\" annotation, \
         node \"node-1\" can only create mirror pods",
    );
    let lease = |namespace: &str, name: &str| {
        json!({"kind": "Lease", "apiVersion": "coordination.k8s.io/v1",
            "metadata": {"name": name, "namespace": namespace}})
    };
    check(
        world.create(lease("default", "node-1")),
        "leases.coordination.k8s.io \"node-1\" is forbidden: can only access leases in the \
         \"kube-node-lease\" system namespace",
    );
    let namespace = json!({"kind": "Namespace", "apiVersion": "v1",
        "metadata": {"name": "kube-node-lease"}});
    world.create(namespace).unwrap();
    check(
        world.create(lease("kube-node-lease", "node-2")),
        "leases.coordination.k8s.io \"node-2\" is forbidden: can only access node lease with the \
         same name as the requesting node",
    );
    world.create(lease("kube-node-lease", "node-1")).unwrap();
}

#[test]
fn nodes_report_their_pods() {
    let mut world = World::new();
    world.create(pod("a")).unwrap();
    world.bind("a", "node-1").unwrap();
    let running = json!({"status": {"phase": "Running", "podIP": "10.1.0.5"}});
    let a = key(Kind::Pod, "a");
    as_node(&mut world, "node-2");
    let error = world.patch_at(&a, Some(Subresource::Status), running.clone()).unwrap_err();
    assert_eq!(
        error.message,
        "pods \"a\" is forbidden: node \"node-2\" can only update pod status for pods with \
         spec.nodeName set to itself"
    );
    let error = world.delete(&a, DeleteOptions::default()).unwrap_err();
    assert_eq!(
        error.message,
        "pods \"a\" is forbidden: node \"node-2\" can only delete pods with spec.nodeName set to \
         itself"
    );
    as_node(&mut world, "node-1");
    let after = world.patch_at(&a, Some(Subresource::Status), running).unwrap();
    assert_eq!(after["status"]["podIPs"], json!([{"ip": "10.1.0.5"}]));
    assert_eq!(after["status"]["qosClass"], "BestEffort");
    assert_eq!(after["status"]["conditions"][0]["type"], "PodScheduled");
    let error = world.patch(&a, json!({"metadata": {"labels": {"a": "b"}}})).unwrap_err();
    assert_eq!(error.code, 403);
}

#[test]
fn mirror_pods() {
    let mut world = World::new();
    as_node(&mut world, "node-1");
    let uid = world.create(node("node-1")).unwrap()["metadata"]["uid"].clone();
    let mut mirror = pod("static-node-1");
    mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "hash"});
    mirror["spec"]["nodeName"] = json!("node-1");
    let error = world.create(mirror.clone()).unwrap_err();
    assert_eq!(
        error.message,
        "pods \"static-node-1\" is forbidden: node \"node-1\" can only create pods with an owner \
         reference set to itself"
    );
    mirror["metadata"]["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "Node",
        "name": "node-1", "uid": uid, "controller": true}]);
    let secret = with(
        mirror.clone(),
        "/spec/volumes",
        json!([{"name": "s", "secret":
        {"secretName": "s"}}]),
    );
    assert_eq!(
        world.create(secret).unwrap_err().message,
        "pods \"static-node-1\" is forbidden: a mirror pod may not reference secrets"
    );
    let made = world.create(mirror).unwrap();
    assert_eq!(made["spec"]["volumes"], Value::Null);
    assert_eq!(made["spec"]["serviceAccountName"], Value::Null);
}

#[test]
fn no_administrators_by_request() {
    use base64::Engine as _;
    let mut world = World::new();
    let base64 = base64::engine::general_purpose::STANDARD;
    let manifest = |organization: &[u8]| {
        let mut der = vec![0x30, 0x17, 0x06, 0x03, 0x55, 0x04, 0x0a, 0x0c];
        der.push(u8::try_from(organization.len()).unwrap());
        der.extend_from_slice(organization);
        let pem = format!(
            "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
            base64.encode(der)
        );
        let mut value = super::crud::minimal(Kind::CertificateSigningRequest);
        value["spec"]["signerName"] = json!("kubernetes.io/kube-apiserver-client");
        value["spec"]["request"] = json!(base64.encode(pem));
        value
    };
    let error = world.create(manifest(b"system:masters")).unwrap_err();
    assert_eq!(
        error.message,
        "certificatesigningrequests.certificates.k8s.io \"x\" is forbidden: use of \
         kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"
    );
    world.create(manifest(b"developers")).unwrap();
}

fn as_user(world: &mut World, name: &str) {
    world.caller =
        Caller { name: name.to_owned(), groups: vec!["devs".to_owned()], ..Caller::default() };
}

/// Cluster-wide rules for the user `dev`.
fn grant(world: &mut World, rules: Value) {
    world.caller.groups = vec!["system:masters".to_owned()];
    let kind = |kind: &str| {
        json!({"kind": kind, "apiVersion": "rbac.authorization.k8s.io/v1",
        "metadata": {"name": "dev"}})
    };
    world.create(with(kind("ClusterRole"), "/rules", rules)).unwrap();
    let mut binding = kind("ClusterRoleBinding");
    binding["roleRef"] = json!({"kind": "ClusterRole", "name": "dev"});
    binding["subjects"] = json!([{"kind": "User", "name": "dev"}]);
    world.create(binding).unwrap();
    as_user(world, "dev");
}

#[test]
fn nobody_grants_what_they_do_not_hold() {
    let mut world = World::new();
    grant(&mut world, json!([{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["*"]}]));
    let role = |verbs: Value| {
        let role = super::crud::minimal(Kind::Role);
        let rule = json!({"verbs": verbs, "apiGroups": [""], "resources": ["pods"]});
        with(role, "/rules", json!([rule]))
    };
    let error = world.create(role(json!(["get", "delete", "create"]))).unwrap_err();
    assert_eq!(
        error.message,
        "roles.rbac.authorization.k8s.io \"x\" is forbidden: user \"dev\" (groups=[\"devs\"]) is \
         attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], \
         Resources:[\"pods\"], Verbs:[\"delete\" \"create\"]}"
    );
    world.create(role(json!(["get"]))).unwrap();
    let x = key(Kind::Role, "x");
    world.patch(&x, json!({"metadata": {"labels": {"a": "b"}}})).unwrap();
    let all = json!({"rules": [{"verbs": ["*"], "apiGroups": [""], "resources": ["pods"]}]});
    assert_eq!(world.patch(&x, all).unwrap_err().code, 403);
    let mut binding = super::crud::minimal(Kind::RoleBinding);
    binding["roleRef"] = json!({"kind": "Role", "name": "x"});
    world.create(binding.clone()).unwrap();
    binding["metadata"]["name"] = json!("y");
    binding["roleRef"] = json!({"kind": "ClusterRole", "name": "gone"});
    assert_eq!(
        world.create(binding.clone()).unwrap_err().message,
        "clusterroles.rbac.authorization.k8s.io \"gone\" not found"
    );
    as_user(&mut world, "stranger");
    binding["roleRef"] = json!({"kind": "Role", "name": "x"});
    let error = world.create(binding).unwrap_err();
    assert!(error.message.contains("Verbs:[\"get\"]"), "{error}");
}

#[test]
fn signers_are_guarded() {
    let mut world = World::new();
    as_user(&mut world, "dev");
    world.create(super::crud::minimal(Kind::CertificateSigningRequest)).unwrap();
    let x = key(Kind::CertificateSigningRequest, "x");
    let approve = json!({"status": {"conditions": [
        {"type": "Approved", "status": "True", "reason": "Test"}]}});
    let sign = json!({"status": {"certificate": "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t"}});
    assert_eq!(
        world.patch_at(&x, Some(Subresource::Approval), approve.clone()).unwrap_err().message,
        "certificatesigningrequests.certificates.k8s.io \"x\" is forbidden: user not permitted \
         to approve requests with signerName \"kubernetes.io/kube-apiserver-client-kubelet\""
    );
    assert_eq!(
        world.patch_at(&x, Some(Subresource::Status), sign.clone()).unwrap_err().message,
        "certificatesigningrequests.certificates.k8s.io \"x\" is forbidden: user not permitted \
         to sign requests with signerName \"kubernetes.io/kube-apiserver-client-kubelet\""
    );
    grant(
        &mut world,
        json!([{"verbs": ["approve", "sign"], "apiGroups": ["certificates.k8s.io"],
            "resources": ["signers"], "resourceNames": ["kubernetes.io/*"]}]),
    );
    world.patch_at(&x, Some(Subresource::Approval), approve).unwrap();
    world.patch_at(&x, Some(Subresource::Status), sign).unwrap();
}
