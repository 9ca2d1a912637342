#![expect(clippy::needless_pass_by_value, reason = "rows of tables read better without borrows")]

use serde_json::{Value, json};

use super::*;

const NOW: Time = Time::from_secs(1_000_000_000);

fn object(value: &Value) -> Object {
    crate::codec::decode_any(value.to_string().as_bytes()).unwrap()
}

fn pod(spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n"},
        "spec": spec})
}

fn check(value: &Value, expected: &str) {
    assert_eq!(used_by(&object(value), NOW).to_string(), expected, "{value:#}");
}

#[test]
fn pods_use_what_their_containers_ask_for() {
    let container = |requests: Value, limits: Value| json!({"name": "c", "resources": {"requests": requests, "limits": limits}});
    let spec = json!({
        "containers": [
            container(json!({"cpu": "100m", "memory": "1Gi", "example.com/gpu": "1"}),
                json!({"cpu": "1", "example.com/gpu": "1"})),
            container(json!({"cpu": "200m", "hugepages-2Mi": "4Mi"}), json!({"memory": "1Gi"})),
        ],
        "initContainers": [
            {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "50m"}}},
            {"name": "i", "resources": {"requests": {"cpu": "400m", "ephemeral-storage": "1G"}}},
        ],
        "overhead": {"cpu": "10m", "memory": "1Mi"},
    });
    // The step of the initialisation with its sidecar takes more than the containers do.
    check(
        &pod(spec),
        "count/pods=1,cpu=460m,ephemeral-storage=1G,hugepages-2Mi=4Mi,limits.cpu=1010m,\
         limits.memory=1025Mi,memory=1025Mi,pods=1,requests.cpu=460m,\
         requests.ephemeral-storage=1G,requests.example.com/gpu=1,requests.hugepages-2Mi=4Mi,\
         requests.memory=1025Mi",
    );
}

#[test]
fn pods_that_have_ended_or_should_have_take_their_place_only() {
    let plain = pod(json!({"containers": [{"name": "c"}]}));
    check(&plain, "count/pods=1,pods=1");
    for phase in ["Failed", "Succeeded"] {
        let mut ended = plain.clone();
        ended["status"]["phase"] = phase.into();
        check(&ended, "count/pods=1");
    }
    let going = |ago: u64| {
        let mut going = plain.clone();
        let at = Time::from_secs(1_000_000_000 - ago).to_meta();
        going["metadata"]["deletionTimestamp"] = json!(at);
        going["metadata"]["deletionGracePeriodSeconds"] = json!(30);
        going
    };
    check(&going(30), "count/pods=1,pods=1");
    check(&going(31), "count/pods=1");
}

#[test]
fn services_use_ports_of_nodes() {
    let service = |spec: Value| {
        json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "s", "namespace": "n"}, "spec": spec})
    };
    let used = |balancers: u8, ports: u8| {
        format!(
            "count/services=1,services=1,services.loadbalancers={balancers},\
             services.nodeports={ports}"
        )
    };
    let ports = json!([{"port": 1}, {"port": 2, "nodePort": 30001}]);
    check(&service(json!({"ports": ports})), &used(0, 0));
    check(&service(json!({"type": "NodePort", "ports": ports})), &used(0, 2));
    check(&service(json!({"type": "LoadBalancer", "ports": ports})), &used(1, 2));
    let spare =
        json!({"type": "LoadBalancer", "ports": ports, "allocateLoadBalancerNodePorts": false});
    check(&service(spare), &used(1, 1));
}

#[test]
fn other_objects_are_counted() {
    let named = |version: &str, kind: &str| {
        json!({"apiVersion": version, "kind": kind, "metadata": {"name": "x", "namespace": "n"},
            "spec": {}})
    };
    check(&named("v1", "Secret"), "count/secrets=1,secrets=1");
    check(&named("v1", "ConfigMap"), "configmaps=1,count/configmaps=1");
    check(&named("v1", "ResourceQuota"), "count/resourcequotas=1,resourcequotas=1");
    check(&named("policy/v1", "PodDisruptionBudget"), "count/poddisruptionbudgets.policy=1");
    check(&named("v1", "Namespace"), "");
    let event = json!({"apiVersion": "v1", "kind": "Event", "involvedObject": {},
        "metadata": {"name": "x", "namespace": "n"}});
    check(&event, "");
}

#[test]
fn claims_use_storage_of_their_class() {
    let claim = |mut value: Value| {
        value["apiVersion"] = "v1".into();
        value["kind"] = "PersistentVolumeClaim".into();
        used_by(&object(&value), NOW).to_string()
    };
    let spec = json!({"storageClassName": "fast", "resources": {"requests": {"storage": "3Gi"}}});
    assert_eq!(
        claim(json!({"metadata": {}, "spec": spec})),
        "count/persistentvolumeclaims=1,\
         fast.storageclass.storage.k8s.io/persistentvolumeclaims=1,\
         fast.storageclass.storage.k8s.io/requests.storage=3Gi,persistentvolumeclaims=1,\
         requests.storage=3Gi"
    );
    let grown = json!({"metadata": {}, "spec": {"resources": {"requests": {"storage": "1Gi"}}},
        "status": {"allocatedResources": {"storage": "2Gi"}}});
    assert_eq!(
        claim(grown),
        "count/persistentvolumeclaims=1,persistentvolumeclaims=1,requests.storage=2Gi"
    );
    for (resource, used) in [
        ("requests.storage", true),
        ("a.storageclass.storage.k8s.io/requests.storage", true),
        ("a.storageclass.storage.k8s.io/pods", false),
        ("count/persistentvolumeclaims", true),
        ("pods", false),
    ] {
        assert_eq!(is_used_by(Kind::PersistentVolumeClaim, resource), used, "{resource}");
    }
}

#[test]
fn resources_are_used_by_kinds() {
    let check = |kind: Kind, resource: &str, expected: bool| {
        assert_eq!(is_used_by(kind, resource), expected, "{kind} {resource}");
    };
    check(Kind::Pod, "cpu", true);
    check(Kind::Pod, "requests.nvidia.com/gpu", true);
    check(Kind::Pod, "nvidia.com/gpu", false);
    check(Kind::Pod, "requests.hugepages-2Mi", true);
    check(Kind::Pod, "hugepages-2Mi", true);
    check(Kind::Pod, "requests.storage", false);
    check(Kind::Pod, "count/pods", true);
    check(Kind::Pod, "count/secrets", false);
    check(Kind::Deployment, "count/deployments.apps", true);
    check(Kind::Deployment, "count/deployments", false);
    check(Kind::Deployment, "deployments", false);
    check(Kind::Service, "services.nodeports", true);
    check(Kind::Event, "count/events", false);
    check(Kind::Node, "count/nodes", false);
}

#[test]
fn scopes_are_about_pods() {
    let covers = |scope: Value, object: &Value| {
        let quota = json!({"metadata": {"name": "q"}, "spec": scope});
        covers(&serde_json::from_value(quota).unwrap(), &self::object(object))
    };
    let with = |field: &str, value: Value| {
        let mut spec = json!({"containers": [{"name": "c"}]});
        spec[field] = value;
        pod(spec)
    };
    let check = |scope: &str, object: &Value, expected: bool| {
        assert_eq!(covers(json!({"scopes": [scope]}), object), expected, "{scope} {object}");
        let selector = json!({"scopeSelector": {"matchExpressions":
            [{"scopeName": scope, "operator": "Exists"}]}});
        assert_eq!(covers(selector, object), expected, "{scope} {object}");
    };
    let plain = with("priority", json!(0));
    let short = with("activeDeadlineSeconds", json!(5));
    check("Terminating", &short, true);
    check("Terminating", &plain, false);
    check("NotTerminating", &short, false);
    check("NotTerminating", &plain, true);
    let asks = with("containers", json!([{"name": "c", "resources": {"requests": {"cpu": "1"}}}]));
    check("BestEffort", &plain, true);
    check("BestEffort", &asks, false);
    check("NotBestEffort", &asks, true);
    let gold = with("priorityClassName", json!("gold"));
    check("PriorityClass", &gold, true);
    check("PriorityClass", &plain, false);
    let across = with(
        "affinity",
        json!({"podAntiAffinity":
        {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm":
            {"topologyKey": "k", "namespaceSelector": {}}}]}}),
    );
    check("CrossNamespacePodAffinity", &across, true);
    check("CrossNamespacePodAffinity", &plain, false);
    check("Nowhere", &plain, false);
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}});
    check("NotBestEffort", &secret, false);
    assert!(covers(json!({}), &secret));
    let selects = |operator: &str, values: Value, object: &Value| {
        covers(
            json!({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass",
            "operator": operator, "values": values}]}}),
            object,
        )
    };
    assert!(selects("In", json!(["gold", "tin"]), &gold));
    assert!(!selects("In", json!(["tin"]), &gold));
    assert!(!selects("In", json!(["tin"]), &plain));
    assert!(selects("NotIn", json!(["tin"]), &gold));
    assert!(selects("DoesNotExist", json!([]), &plain));
    assert!(!selects("DoesNotExist", json!([]), &gold));
}

#[test]
fn amounts() {
    let of = |value: Value| Amounts::of_list(Some(&serde_json::from_value(value).unwrap()));
    let mut sum = of(json!({"a": "0", "b": "500m"}));
    sum.add(&of(json!({"a": "1Gi", "b": "500m", "c": "2"})));
    assert_eq!(sum.to_string(), "a=1Gi,b=1,c=2");
    sum.take(&of(json!({"b": "3", "c": "1"})));
    assert_eq!(sum.to_string(), "a=1Gi,b=0,c=1");
    let most = of(json!({"a": "1023Mi", "c": "1"}));
    assert_eq!(sum.beyond(&most).collect::<Vec<_>>(), ["a"]);
    assert_eq!(of(json!({"a": "1000m"})), of(json!({"a": "1"})));
    assert_ne!(of(json!({"a": "1"})), of(json!({"b": "1"})));
}
