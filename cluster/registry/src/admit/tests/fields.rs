use super::*;

/// Creates the manifest with one change and compares what the server says of it.
pub(super) fn check(base: Value, pointer: &str, new: Value, expected: &str) {
    let kind = base["kind"].as_str().unwrap().to_owned();
    let version = base["apiVersion"].as_str().unwrap().to_owned();
    let group = version.split_once('/').map(|(group, _)| format!(".{group}")).unwrap_or_default();
    let name = base["metadata"]["name"].as_str().unwrap().to_owned();
    let error = World::new().create(with(base, pointer, new)).unwrap_err();
    assert_eq!(error.message, format!("{kind}{group} {name:?} is invalid: {expected}"));
    assert_eq!(error.code, 422);
}

#[test]
fn containers() {
    let c = "/spec/containers/0";
    let at = |field: &str| format!("{c}/{field}");
    check(pod("p"), "/spec/containers", json!([]), "spec.containers: Required value");
    check(pod("p"), &at("name"), json!(""), "spec.containers[0].name: Required value");
    check(pod("p"), &at("image"), json!(""), "spec.containers[0].image: Required value");
    check(
        pod("p"),
        &at("image"),
        json!(" nginx"),
        "spec.containers[0].image: Invalid value: \" nginx\": must not have leading or trailing \
         whitespace",
    );
    check(
        pod("p"),
        "/spec/containers",
        json!([{"name": "a", "image": "a"}, {"name": "a", "image": "b"}]),
        "spec.containers[1].name: Duplicate value: \"a\"",
    );
    check(
        pod("p"),
        &at("imagePullPolicy"),
        json!("Sometimes"),
        "spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \
         \"Always\", \"IfNotPresent\", \"Never\"",
    );
    check(
        pod("p"),
        &at("ports"),
        json!([{"containerPort": 70000}]),
        "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and \
         65535, inclusive",
    );
    check(
        pod("p"),
        &at("ports"),
        json!([{"containerPort": 1, "name": "x"}, {"containerPort": 2, "name": "x"}]),
        "spec.containers[0].ports[1].name: Duplicate value: \"x\"",
    );
    check(
        pod("p"),
        &at("ports"),
        json!([{"containerPort": 1, "hostPort": 5}, {"containerPort": 2, "hostPort": 5}]),
        "spec.containers[0].ports[1].hostPort: Duplicate value: \"TCP//5\"",
    );
    check(
        pod("p"),
        &at("env"),
        json!([{"name": "A", "value": "b", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]),
        "spec.containers[0].env[0].valueFrom: Invalid value: \"\": may not be specified when \
         `value` is not empty",
    );
    check(
        pod("p"),
        &at("env"),
        json!([{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.color"}}}]),
        "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.color\": \
         error converting fieldPath: field label not supported: spec.color",
    );
    check(
        pod("p"),
        &at("volumeMounts"),
        json!([{"name": "v", "mountPath": "/v"}]),
        "spec.containers[0].volumeMounts[0].name: Not found: \"v\"",
    );
    check(
        pod("p"),
        &at("securityContext"),
        json!({"privileged": true}),
        "spec.containers[0].securityContext.privileged: Forbidden: disallowed by cluster policy",
    );
}

#[test]
fn resources() {
    let at = "/spec/containers/0/resources";
    check(
        pod("p"),
        at,
        json!({"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}),
        "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal \
         to cpu limit of 1",
    );
    check(
        pod("p"),
        at,
        json!({"requests": {"memory": "-1Gi"}}),
        "spec.containers[0].resources.requests[memory]: Invalid value: \"-1Gi\": must be greater \
         than or equal to 0",
    );
    check(
        pod("p"),
        at,
        json!({"requests": {"gpu": "1"}}),
        "spec.containers[0].resources.requests[gpu]: Invalid value: \"gpu\": must be a standard \
         resource for containers",
    );
    check(
        pod("p"),
        at,
        json!({"requests": {"example.com/gpu": "1"}}),
        "spec.containers[0].resources.limits: Required value: Limit must be set for non \
         overcommitable resources",
    );
    let error =
        World::new().create(with(pod("p"), at, json!({"limits": {"cpu": "many"}}))).unwrap_err();
    assert_eq!(
        error.message,
        "Pod in version \"v1\" cannot be handled as a Pod: quantities must match the regular \
         expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    );
}

#[test]
fn probes_and_policies() {
    let probe = "/spec/containers/0/livenessProbe";
    check(
        pod("p"),
        probe,
        json!({"periodSeconds": 1}),
        "spec.containers[0].livenessProbe: Required value: must specify a handler type",
    );
    check(
        pod("p"),
        probe,
        json!({"exec": {"command": ["a"]}, "tcpSocket": {"port": 1}}),
        "spec.containers[0].livenessProbe.tcpSocket: Forbidden: may not specify more than 1 \
         handler type",
    );
    check(
        pod("p"),
        probe,
        json!({"exec": {"command": ["a"]}, "successThreshold": 2}),
        "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
    );
    check(
        pod("p"),
        "/spec/restartPolicy",
        json!("Maybe"),
        "spec.restartPolicy: Unsupported value: \"Maybe\": supported values: \"Always\", \
         \"OnFailure\", \"Never\"",
    );
    check(
        pod("p"),
        "/spec/tolerations",
        json!([{"key": "a", "operator": "Equals"}]),
        "spec.tolerations[0].operator: Unsupported value: \"Equals\": supported values: \
         \"Equal\", \"Exists\"",
    );
    check(
        pod("p"),
        "/spec/volumes",
        json!([{"name": "v", "emptyDir": {}, "hostPath": {"path": "/a"}}]),
        "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type",
    );
    check(
        pod("p"),
        "/spec/volumes",
        json!([{"name": "v"}, {"name": "v"}]),
        "spec.volumes[1].name: Duplicate value: \"v\"",
    );
    check(
        pod("p"),
        "/spec/affinity",
        json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": []}}}),
        "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution\
         .nodeSelectorTerms: Required value: must have at least one node selector term",
    );
}

#[test]
fn workloads() {
    check(
        deployment("d"),
        "/spec/replicas",
        json!(-1),
        "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
    );
    check(
        deployment("d"),
        "/spec/template/metadata/labels",
        json!({"app": "y"}),
        "spec.template.metadata.labels: Invalid value: map[string]string{\"app\":\"y\"}: `selector` does not match \
         template `labels`",
    );
    check(
        deployment("d"),
        "/spec/selector",
        Value::Null,
        "[spec.selector: Required value, spec.template.metadata.labels: Invalid value: \
         map[string]string{\"app\":\"x\"}: `selector` does not match template `labels`]",
    );
    check(
        deployment("d"),
        "/spec/template/spec/restartPolicy",
        json!("Never"),
        "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \
         \"Always\"",
    );
    check(
        deployment("d"),
        "/spec/strategy",
        json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}),
        "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \
         intstr.IntOrString{Type:0, IntVal:0, StrVal:\"\"}: may not be 0 when `maxSurge` is 0",
    );
    check(
        deployment("d"),
        "/spec/strategy",
        json!({"type": "Recreate", "rollingUpdate": {}}),
        "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is \
         'Recreate'",
    );
    check(
        deployment("d"),
        "/spec/minReadySeconds",
        json!(600),
        "spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds",
    );
    let mut world = World::new();
    world.create(deployment("d")).unwrap();
    let body = json!({"spec": {"selector": {"matchLabels": {"app": "y"}},
        "template": {"metadata": {"labels": {"app": "y"}}}}});
    assert_eq!(
        world.patch(&key(Kind::Deployment, "d"), body).unwrap_err().message,
        "Deployment.apps \"d\" is invalid: spec.selector: Invalid value: \
         v1.LabelSelector{MatchLabels:map[string]string{\"app\":\"y\"}, \
         MatchExpressions:[]v1.LabelSelectorRequirement(nil)}: field is immutable"
    );
}

#[test]
fn config() {
    let map = super::crud::minimal(Kind::ConfigMap);
    check(
        map.clone(),
        "/data",
        json!({"a b": ""}),
        "data[a b]: Invalid value: \"a b\": a valid config key must consist of alphanumeric \
         characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex \
         used for validation is '[-._a-zA-Z0-9]+')",
    );
    check(
        map,
        "/data",
        json!({"a": "x".repeat((1 << 20) + 1)}),
        "[]: Too long: may not be more than 1048576 bytes",
    );
    let secret = super::crud::minimal(Kind::Secret);
    check(
        secret.clone(),
        "/type",
        json!("kubernetes.io/tls"),
        "[data[tls.crt]: Required value, data[tls.key]: Required value]",
    );
    let mut world = World::new();
    let made = world.create(with(secret, "/stringData", json!({"a": "b"}))).unwrap();
    assert_eq!(made["data"], json!({"a": "Yg=="}));
    assert_eq!((&made["type"], &made["stringData"]), (&json!("Opaque"), &Value::Null));
    let key = key(Kind::Secret, "x");
    world.patch(&key, json!({"immutable": true})).unwrap();
    assert_eq!(
        world.patch(&key, json!({"stringData": {"a": "c"}})).unwrap_err().message,
        "Secret \"x\" is invalid: data: Forbidden: field is immutable when `immutable` is set"
    );
    assert_eq!(
        world.patch(&key, json!({"type": "other"})).unwrap_err().message,
        "Secret \"x\" is invalid: type: Invalid value: \"other\": field is immutable"
    );
}

#[test]
fn small_kinds() {
    let role = super::crud::minimal(Kind::Role);
    check(
        role.clone(),
        "/rules",
        json!([{"verbs": [], "apiGroups": [""], "resources": ["pods"]}]),
        "rules[0].verbs: Required value: verbs must contain at least one value",
    );
    check(
        role,
        "/rules",
        json!([{"verbs": ["get"], "nonResourceURLs": ["/healthz"]}]),
        "rules[0].nonResourceURLs: Invalid value: []string{\"/healthz\"}: namespaced rules cannot apply \
         to non-resource URLs",
    );
    let binding = super::crud::minimal(Kind::ClusterRoleBinding);
    check(
        binding.clone(),
        "/subjects",
        json!([{"kind": "ServiceAccount", "name": "a"}]),
        "subjects[0].namespace: Required value",
    );
    check(
        binding.clone(),
        "/roleRef/kind",
        json!("Role"),
        "roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\"",
    );
    let mut world = World::new();
    let made = world.create(with(binding, "/subjects", json!([{"kind": "User", "name": "u"}])));
    assert_eq!(made.unwrap()["subjects"][0]["apiGroup"], "rbac.authorization.k8s.io");
    let body = json!({"roleRef": {"name": "edit"}});
    let error = world.patch(&key(Kind::ClusterRoleBinding, "x"), body).unwrap_err();
    assert!(error.message.ends_with(": cannot change roleRef"), "{error}");
    check(
        super::crud::minimal(Kind::Lease),
        "/spec/leaseDurationSeconds",
        json!(0),
        "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
    );
    check(
        super::crud::minimal(Kind::Event),
        "/involvedObject/namespace",
        json!("other"),
        "involvedObject.namespace: Invalid value: \"other\": does not match event.namespace",
    );
    check(
        super::crud::minimal(Kind::Node),
        "/spec/taints",
        json!([{"key": "a", "effect": "Never"}]),
        "spec.taints[0].effect: Unsupported value: \"Never\": supported values: \"NoSchedule\", \
         \"PreferNoSchedule\", \"NoExecute\"",
    );
    check(
        super::crud::minimal(Kind::CertificateSigningRequest),
        "/spec/usages",
        json!(["flying"]),
        "spec.usages[0]: Unsupported value: \"flying\": supported values: \"any\", \"cert sign\", \
         \"client auth\", \"code signing\", \"content commitment\", \"crl sign\", \"data \
         encipherment\", \"decipher only\", \"digital signature\", \"email protection\", \
         \"encipher only\", \"ipsec end system\", \"ipsec tunnel\", \"ipsec user\", \"key \
         agreement\", \"key encipherment\", \"microsoft sgc\", \"netscape sgc\", \"ocsp signing\", \
         \"s/mime\", \"server auth\", \"signing\", \"timestamping\"",
    );
}
