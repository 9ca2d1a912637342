use super::*;
use serde_json::json;

/// 2023-11-14T22:13:20Z.
const NOW: Time = Time::from_secs(1_700_000_000);

/// Prints a row as kubectl does, columns of `-o wide` after a bar.
fn printed(object: &Value) -> String {
    let object = api::codec::decode_any(object.to_string().as_bytes()).unwrap();
    let columns = columns(object.kind());
    let cells = row(&object, NOW);
    assert_eq!(columns.len(), cells.len(), "{}", object.kind());
    let text = |wide: u8| {
        let cells = cells.iter().zip(columns).filter(|(_, c)| c.priority == wide);
        let cells = cells.map(|(v, _)| v.as_str().map_or_else(|| v.to_string(), str::to_owned));
        cells.collect::<Vec<_>>().join("  ")
    };
    match text(1).as_str() {
        "" => text(0),
        wide => format!("{} | {wide}", text(0)),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "tables read better without references")]
fn check(object: Value, expected: &str) {
    assert_eq!(printed(&object), expected, "{object:#}");
}

/// A pod of two containers, made five minutes ago.
#[expect(clippy::needless_pass_by_value, reason = "tables read better without references")]
fn pod(status: Value, expected: &str) {
    let object = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "creationTimestamp": "2023-11-14T22:08:20Z"},
        "spec": {"containers": [{"name": "a"}, {"name": "b"}]}, "status": status});
    check(object, &format!("p  {expected}  5m | <none>  <none>  <none>  <none>"));
}

fn running(name: &str, ready: bool) -> Value {
    json!({"name": name, "ready": ready, "restartCount": 0, "image": "", "imageID": "",
        "state": {"running": {}}})
}

#[expect(clippy::needless_pass_by_value, reason = "tables read better without references")]
fn in_state(name: &str, restarts: i32, state: Value) -> Value {
    json!({"name": name, "ready": false, "restartCount": restarts, "image": "", "imageID": "",
        "state": state})
}

#[test]
fn status_of_running_pods() {
    pod(json!({"phase": "Pending"}), "0/2  Pending  0");
    pod(
        json!({"phase": "Running", "containerStatuses": [running("a", true), running("b", true)]}),
        "2/2  Running  0",
    );
    pod(
        json!({"phase": "Running", "containerStatuses": [running("a", true), running("b", false)]}),
        "1/2  Running  0",
    );
    let creating = json!({"waiting": {"reason": "ContainerCreating"}});
    pod(
        json!({"phase": "Pending", "containerStatuses":
            [in_state("a", 0, creating.clone()), in_state("b", 0, creating)]}),
        "0/2  ContainerCreating  0",
    );
    let crashed = json!({"waiting": {"reason": "CrashLoopBackOff"}});
    let mut status = in_state("a", 3, crashed);
    status["lastState"] =
        json!({"terminated": {"exitCode": 1, "finishedAt": "2023-11-14T22:12:20Z"}});
    pod(
        json!({"phase": "Running", "containerStatuses": [status, running("b", true)]}),
        "1/2  CrashLoopBackOff  3 (60s ago)",
    );
    let gated = json!([{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]);
    pod(json!({"phase": "Pending", "conditions": gated}), "0/2  SchedulingGated  0");
    pod(json!({"phase": "Failed", "reason": "Evicted"}), "0/2  Evicted  0");
}

#[test]
fn status_of_ended_pods() {
    let ended =
        |code: i32, reason: &str| json!({"terminated": {"exitCode": code, "reason": reason}});
    let both = |phase: &str, state: Value| {
        json!({"phase": phase, "containerStatuses":
            [in_state("a", 0, state.clone()), in_state("b", 0, state)]})
    };
    pod(both("Succeeded", ended(0, "Completed")), "0/2  Completed  0");
    pod(both("Failed", ended(1, "Error")), "0/2  Error  0");
    pod(both("Failed", ended(3, "")), "0/2  ExitCode:3  0");
    pod(both("Failed", json!({"terminated": {"exitCode": 0, "signal": 9}})), "0/2  Signal:9  0");
    // One container has ended well, the other still runs.
    let mixed = json!([in_state("a", 0, ended(0, "Completed")), running("b", true)]);
    let ready = json!([{"type": "Ready", "status": "True"}]);
    pod(json!({"phase": "Running", "containerStatuses": mixed}), "1/2  NotReady  0");
    pod(
        json!({"phase": "Running", "containerStatuses": mixed, "conditions": ready}),
        "1/2  Running  0",
    );
}

#[test]
fn status_of_deleted_pods() {
    let deleted = |phase: &str, reason: &str, expected: &str| {
        let object = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "creationTimestamp": "2023-11-14T22:08:20Z",
                "deletionTimestamp": "2023-11-14T22:13:00Z"},
            "spec": {"containers": [{"name": "a"}], "nodeName": "n1"},
            "status": {"phase": phase, "reason": reason, "podIPs": [{"ip": "10.0.0.1"}],
                "containerStatuses": [running("a", true)]}});
        check(object, &format!("p  1/1  {expected}  0  5m | 10.0.0.1  n1  <none>  <none>"));
    };
    deleted("Running", "", "Terminating");
    deleted("Running", "NodeLost", "Unknown");
    deleted("Failed", "Evicted", "Evicted");
}

#[test]
fn status_of_initializing_pods() {
    let init = |statuses: Value, conditions: Value, expected: &str| {
        let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
            "spec": {"containers": [{"name": "a"}], "initContainers":
                [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}, {"name": "j"}],
                "readinessGates": [{"conditionType": "g"}, {"conditionType": "h"}]},
            "status": {"phase": "Pending", "initContainerStatuses": statuses,
                "conditions": conditions, "nominatedNodeName": "n2"}});
        check(object, &format!("p  {expected}  <unknown> | <none>  <none>  n2  1/2"));
    };
    let gate = json!([{"type": "g", "status": "True"}, {"type": "h", "status": "False"}]);
    let done = in_state("i", 0, json!({"terminated": {"exitCode": 0, "reason": "Completed"}}));
    let mut sidecar = running("s", true);
    sidecar["started"] = json!(true);
    let waiting = |reason: &str| in_state("i", 1, json!({"waiting": {"reason": reason}}));
    init(json!([waiting("PodInitializing")]), gate.clone(), "0/2  Init:0/3  1");
    init(json!([waiting("ImagePullBackOff")]), gate.clone(), "0/2  Init:ImagePullBackOff  1");
    init(json!([running("i", false)]), gate.clone(), "0/2  Init:0/3  0");
    let failed = |end: Value| json!([in_state("i", 0, json!({"terminated": end}))]);
    init(failed(json!({"exitCode": 2, "reason": "Error"})), gate.clone(), "0/2  Init:Error  0");
    init(failed(json!({"exitCode": 2})), gate.clone(), "0/2  Init:ExitCode:2  0");
    init(failed(json!({"exitCode": 2, "signal": 9})), gate.clone(), "0/2  Init:Signal:9  0");
    init(json!([done, sidecar]), gate.clone(), "1/2  Pending  0");
    init(json!([done, sidecar, running("j", false)]), gate, "1/2  Init:2/3  0");
}

#[test]
fn nodes() {
    check(
        json!({"apiVersion": "v1", "kind": "Node",
            "metadata": {"name": "n", "creationTimestamp": "2023-11-12T21:13:20Z",
                "labels": {"node-role.kubernetes.io/worker": "", "kubernetes.io/role": "db",
                    "node-role.kubernetes.io/": "x"}},
            "spec": {"unschedulable": true},
            "status": {"conditions": [{"type": "Ready", "status": "True"}],
                "addresses": [{"type": "Hostname", "address": "n"},
                    {"type": "InternalIP", "address": "10.0.0.1"}],
                "nodeInfo": {"kubeletVersion": "v1.33.0", "osImage": "Debian", "kernelVersion": "6",
                    "containerRuntimeVersion": "docker://28", "architecture": "", "bootID": "",
                    "kubeProxyVersion": "", "machineID": "", "operatingSystem": "",
                    "systemUUID": ""}}}),
        "n  Ready,SchedulingDisabled  db,worker  2d1h  v1.33.0 | 10.0.0.1  <none>  Debian  6  \
         docker://28",
    );
    check(
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"},
            "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}),
        "n  NotReady  <none>  <unknown>   | <none>  <none>  <unknown>  <unknown>  <unknown>",
    );
}

#[test]
fn services_and_endpoints() {
    let service = |spec: Value, status: Value, expected: &str| {
        check(
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": spec,
                "status": status}),
            expected,
        );
    };
    service(
        json!({"type": "NodePort", "clusterIP": "10.1.0.1", "clusterIPs": ["10.1.0.1"],
            "selector": {"a": "1", "a-b": "2"},
            "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"},
                {"port": 53, "protocol": "UDP"}]}),
        json!({}),
        "s  NodePort  10.1.0.1  <none>  80:30080/TCP,53/UDP  <unknown> | a-b=2,a=1",
    );
    service(
        json!({"type": "ClusterIP", "clusterIPs": ["None"], "externalIPs": ["1.2.3.4"]}),
        json!({}),
        "s  ClusterIP  None  1.2.3.4  <none>  <unknown> | <none>",
    );
    service(
        json!({"type": "LoadBalancer"}),
        json!({}),
        "s  LoadBalancer  <none>  <pending>  <none>  <unknown> | <none>",
    );
    service(
        json!({"type": "ExternalName", "externalName": "example.org"}),
        json!({}),
        "s  ExternalName  <none>  example.org  <none>  <unknown> | <none>",
    );
    let endpoints = |subsets: Value, expected: &str| {
        check(
            json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "e"},
                "subsets": subsets}),
            &format!("e  {expected}  <unknown>"),
        );
    };
    let four: Vec<Value> = (1..5).map(|i| json!({"ip": format!("10.0.0.{i}")})).collect();
    endpoints(json!([]), "<none>");
    endpoints(json!([{"addresses": four[..1], "ports": [{"port": 80}]}]), "10.0.0.1:80");
    endpoints(
        json!([{"addresses": four, "ports": [{"port": 80}]}]),
        "10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 1 more...",
    );
    endpoints(json!([{"addresses": four[..2]}]), "10.0.0.1,10.0.0.2");
    check(
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "e"}, "addressType": "IPv4", "ports": [{"port": 80}, {}],
            "endpoints": [{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2"]}]}),
        "e  IPv4  80,*  10.0.0.1,10.0.0.2  <unknown>",
    );
    check(
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "e"}, "addressType": "IPv4", "endpoints": []}),
        "e  IPv4  <unset>  <unset>  <unknown>",
    );
}

#[test]
fn workloads() {
    let template = json!({"spec": {"containers":
        [{"name": "a", "image": "x:1"}, {"name": "b", "image": "y"}]}});
    let selector = json!({"matchLabels": {"app": "web"},
        "matchExpressions": [{"key": "aa", "operator": "In", "values": ["z", "y"]},
            {"key": "no", "operator": "DoesNotExist"}]});
    check(
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
            "spec": {"replicas": 3, "template": template, "selector": selector},
            "status": {"readyReplicas": 1, "updatedReplicas": 2, "availableReplicas": 1}}),
        "d  1/3  2  1  <unknown> | a,b  x:1,y  aa in (y,z),app=web,!no",
    );
    check(
        json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "r"},
            "spec": {"replicas": 3, "template": template, "selector": {}},
            "status": {"replicas": 2, "readyReplicas": 1}}),
        "r  3  2  1  <unknown> | a,b  x:1,y  <none>",
    );
    check(
        json!({"apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": "r"},
            "spec": {"replicas": 0, "selector": {"a": "b"}}, "status": {"replicas": 2}}),
        "r  0  2  0  <unknown> |     a=b",
    );
}

#[test]
fn events() {
    let event = |fields: Value, expected: &str| {
        let mut object = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"},
            "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec.containers{a}"},
            "type": "Normal", "reason": "Pulled", "message": " done\n"});
        object.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        check(object, expected);
    };
    event(
        json!({"count": 4, "firstTimestamp": "2023-11-14T22:03:20Z",
            "lastTimestamp": "2023-11-14T22:13:15Z",
            "source": {"component": "kubelet", "host": "n1"}}),
        "5s  Normal  Pulled  pod/p  done | spec.containers{a}  kubelet, n1  10m  4  e",
    );
    event(
        json!({"eventTime": "2023-11-14T22:13:10.000000Z", "reportingComponent": "scheduler"}),
        "10s  Normal  Pulled  pod/p  done | spec.containers{a}  scheduler  10s  1  e",
    );
}

#[test]
fn other_kinds() {
    let v1 = |kind: &str, rest: Value, expected: &str| {
        let mut object = json!({"apiVersion": "v1", "kind": kind, "metadata":
            {"name": "x", "creationTimestamp": "2023-11-14T22:13:19Z"}});
        object.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        check(object, expected);
    };
    v1("Namespace", json!({"status": {"phase": "Active"}}), "x  Active  1s");
    v1("ConfigMap", json!({"data": {"a": ""}, "binaryData": {"b": ""}}), "x  2  1s");
    v1("Secret", json!({"type": "Opaque", "data": {"a": ""}}), "x  Opaque  1  1s");
    v1("ServiceAccount", json!({}), "x  0  1s");
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "spec": {"holderIdentity": "me"}});
    v1("Lease", lease, "x  me  1s");
    let class = json!({"apiVersion": "scheduling.k8s.io/v1", "value": 7, "globalDefault": true,
        "preemptionPolicy": "Never"});
    v1("PriorityClass", class, "x  7  true  1s  Never");
    let class = json!({"apiVersion": "scheduling.k8s.io/v1", "value": -1});
    v1("PriorityClass", class, "x  -1  false  1s  ");
    let quota = json!({"hard": {"pods": "5", "limits.cpu": "2", "requests.cpu": "1"},
        "used": {"pods": "2", "limits.cpu": "500m"}});
    v1(
        "ResourceQuota",
        json!({"status": quota}),
        "x  pods: 2/5, requests.cpu: 0/1  limits.cpu: 500m/2  1s",
    );
    let volume = json!({"spec": {"capacity": {"storage": "5Gi"},
        "accessModes": ["ReadWriteMany", "ReadWriteOnce"],
        "persistentVolumeReclaimPolicy": "Retain", "storageClassName": "slow",
        "claimRef": {"namespace": "n", "name": "c"}, "volumeMode": "Filesystem"},
        "status": {"phase": "Bound"}});
    let row = "x  5Gi  RWO,RWX  Retain  Bound  n/c  slow  <unset>    1s | Filesystem";
    v1("PersistentVolume", volume, row);
    let claim = json!({"spec": {"resources": {"requests": {"storage": "5Gi"}}},
        "status": {"phase": "Pending"}});
    v1("PersistentVolumeClaim", claim, "x  Pending          <unset>  1s | <unset>");
    let claim = json!({"spec": {"volumeName": "v", "storageClassName": "s"},
        "status": {"phase": "Bound", "capacity": {"storage": "9Gi"},
            "accessModes": ["ReadWriteOncePod"]}});
    v1("PersistentVolumeClaim", claim, "x  Bound  v  9Gi  RWOP  s  <unset>  1s | <unset>");
    let class = json!({"apiVersion": "storage.k8s.io/v1", "provisioner": "kprov.io/local",
        "volumeBindingMode": "WaitForFirstConsumer"});
    v1("StorageClass", class, "x  kprov.io/local  Delete  WaitForFirstConsumer  false  1s");
    let driver = json!({"name": "disk.example.com", "nodeID": "x", "allocatable": {"count": 8}});
    let node = json!({"apiVersion": "storage.k8s.io/v1", "spec": {"drivers": [driver]}});
    v1("CSINode", node, "x  1  1s");
    let budget = |spec: Value| {
        let status = json!({"currentHealthy": 3, "desiredHealthy": 1, "expectedPods": 3,
            "disruptionsAllowed": 2});
        json!({"apiVersion": "policy/v1", "spec": spec, "status": status})
    };
    v1("PodDisruptionBudget", budget(json!({"minAvailable": 1})), "x  1  N/A  2  1s");
    v1("PodDisruptionBudget", budget(json!({"maxUnavailable": "50%"})), "x  N/A  50%  2  1s");
    let rbac = "rbac.authorization.k8s.io/v1";
    v1("ClusterRole", json!({"apiVersion": rbac}), "x  2023-11-14T22:13:19Z");
    let role = json!({"apiGroup": "", "kind": "ClusterRole", "name": "view"});
    let subjects = json!([{"kind": "User", "name": "jane"}, {"kind": "User", "name": "joe"},
        {"kind": "ServiceAccount", "name": "s", "namespace": "n"}]);
    v1(
        "RoleBinding",
        json!({"apiVersion": rbac, "roleRef": role, "subjects": subjects}),
        "x  ClusterRole/view  1s | jane, joe    n/s",
    );
    let spec = json!({"request": "", "signerName": "s/x", "username": "u",
        "expirationSeconds": 3600});
    let status = json!({"certificate": "eA==", "conditions": [{"type": "Approved", "status": ""}]});
    v1(
        "CertificateSigningRequest",
        json!({"apiVersion": "certificates.k8s.io/v1", "spec": spec, "status": status}),
        "x  1s  s/x  u  60m  Approved,Issued",
    );
}

#[test]
fn daemon_sets_and_their_revisions() {
    let template = json!({"spec": {"nodeSelector": {"disk": "ssd"},
        "containers": [{"name": "a", "image": "b:1"}]}});
    let set = json!({"apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": "agent", "creationTimestamp": "2023-11-14T22:08:20Z"},
        "spec": {"selector": {"matchLabels": {"app": "x"}}, "template": template},
        "status": {"desiredNumberScheduled": 5, "currentNumberScheduled": 4, "numberReady": 3,
            "updatedNumberScheduled": 2, "numberAvailable": 1, "numberMisscheduled": 0}});
    check(set, "agent  5  4  3  2  1  disk=ssd  5m | a  b:1  app=x");
    let mut revision = json!({"apiVersion": "apps/v1", "kind": "ControllerRevision",
        "metadata": {"name": "agent-1", "creationTimestamp": "2023-11-14T22:08:20Z"},
        "revision": 7});
    check(revision.clone(), "agent-1  <none>  7  5m");
    revision["metadata"]["ownerReferences"] = json!([{"apiVersion": "apps/v1",
        "kind": "DaemonSet", "name": "agent", "uid": "u", "controller": true}]);
    check(revision, "agent-1  daemonset.apps/agent  7  5m");
    let names = |kind: Kind| columns(kind).iter().map(|c| c.name).collect::<Vec<_>>().join(" ");
    assert_eq!(
        names(Kind::DaemonSet),
        "Name Desired Current Ready Up-to-date Available Node Selector Age Containers Images \
         Selector"
    );
    assert_eq!(names(Kind::ControllerRevision), "Name Controller Revision Age");
}

#[test]
fn stateful_sets() {
    let set = json!({"apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {"name": "web", "creationTimestamp": "2023-11-14T22:08:20Z"},
        "spec": {"replicas": 3, "selector": {}, "template": {"spec": {
            "containers": [{"name": "a", "image": "b:1"}]}}},
        "status": {"replicas": 3, "readyReplicas": 2}});
    check(set, "web  2/3  5m | a  b:1");
    let names: Vec<&str> = columns(Kind::StatefulSet).iter().map(|c| c.name).collect();
    assert_eq!(names, ["Name", "Ready", "Age", "Containers", "Images"]);
}

#[test]
fn every_kind_has_as_many_cells_as_columns() {
    for kind in Kind::ALL {
        let json = json!({"apiVersion": kind.api_version(), "kind": kind.name()});
        let object = api::codec::decode_any(json.to_string().as_bytes()).unwrap();
        assert_eq!(row(&object, NOW).len(), columns(*kind).len(), "{kind}");
    }
}

#[test]
fn the_whole_document() {
    let json = json!({"apiVersion": "v1", "kind": "Pod", "status": {"phase": "Succeeded"},
        "metadata": {"name": "p", "resourceVersion": "7"}});
    let object = api::codec::decode_any(json.to_string().as_bytes()).unwrap();
    let meta = ListMeta {
        resource_version: "9".into(),
        continue_token: "c".into(),
        remaining_item_count: Some(3),
    };
    let parse = |bytes: Vec<u8>| serde_json::from_slice::<Value>(&bytes).unwrap();
    let objects = [object.clone(), object.clone()];
    let document = parse(table(Kind::Pod, &objects, NOW, IncludeObject::Metadata, &meta));
    assert_eq!(document["kind"], "Table");
    assert_eq!(document["apiVersion"], "meta.k8s.io/v1");
    assert_eq!(
        document["metadata"],
        json!({"resourceVersion": "9", "continue": "c", "remainingItemCount": 3})
    );
    let expected = json!({"name": "Name", "type": "string", "format": "name", "priority": 0,
        "description": "The name, unique within the namespace."});
    assert_eq!(document["columnDefinitions"][0], expected);
    assert_eq!(document["rows"].as_array().unwrap().len(), 2);
    assert_eq!(document["rows"][0]["conditions"][0]["reason"], "Succeeded");
    let object_of_row = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
        "metadata": {"name": "p", "resourceVersion": "7"}});
    assert_eq!(document["rows"][1]["object"], object_of_row);

    let empty: [Object; 0] = [];
    let document = parse(table(Kind::Pod, &empty, NOW, IncludeObject::None, &meta));
    assert_eq!(document["rows"], json!([]));

    let document = parse(watch_table(&object, NOW, IncludeObject::Object, false));
    assert_eq!(document["columnDefinitions"], Value::Null);
    assert_eq!(document["metadata"], json!({"resourceVersion": "7"}));
    assert_eq!(document["rows"][0]["object"]["status"], json!({"phase": "Succeeded"}));
}

#[test]
fn autoscalers() {
    let autoscaler = |metrics: Value, status: Value, expected: &str| {
        let object = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "h", "creationTimestamp": "2023-11-14T22:08:20Z"},
            "spec": {"maxReplicas": 9, "minReplicas": 2, "metrics": metrics,
                "scaleTargetRef": {"kind": "Deployment", "name": "web"}},
            "status": status});
        check(object, &format!("h  Deployment/web  {expected}  5m"));
    };
    let share = |name: &str| {
        json!({"type": "Resource", "resource": {"name": name,
        "target": {"type": "Utilization", "averageUtilization": 80}}})
    };
    let value = json!({"type": "Resource", "resource": {"name": "memory",
        "target": {"type": "AverageValue", "averageValue": "1Gi"}}});
    let none = json!({"desiredReplicas": 0});
    autoscaler(json!([share("cpu")]), none.clone(), "cpu: <unknown>/80%  2  9  0");
    autoscaler(
        json!([share("cpu"), value]),
        json!({"desiredReplicas": 3, "currentReplicas": 3, "currentMetrics": [
            {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 7}}},
            {"type": "Resource", "resource": {"name": "memory", "current": {"averageValue": "5Mi"}}}]}),
        "cpu: 7%/80%, memory: 5Mi/1Gi  2  9  3",
    );
    autoscaler(
        json!([share("a"), share("b"), share("c")]),
        none,
        "a: <unknown>/80%, b: <unknown>/80% + 1 more...  2  9  0",
    );
}

#[test]
fn metrics() {
    let usage = json!({"cpu": "1500000n", "memory": "1024Ki"});
    check(
        json!({"apiVersion": "metrics.k8s.io/v1beta1", "kind": "NodeMetrics",
            "metadata": {"name": "n"}, "window": "15s", "usage": usage}),
        "n  1500u  1Mi  15s",
    );
    check(
        json!({"apiVersion": "metrics.k8s.io/v1beta1", "kind": "PodMetrics",
            "metadata": {"name": "p"}, "window": "15s",
            "containers": [{"name": "a", "usage": usage}, {"name": "b", "usage": usage}]}),
        "p  3m  2Mi  15s",
    );
}

#[test]
fn cron_jobs() {
    let cron_job = |spec: Value, status: Value, expected: &str| {
        let mut object = json!({"apiVersion": "batch/v1", "kind": "CronJob",
            "metadata": {"name": "c", "creationTimestamp": "2023-11-14T22:08:20Z"},
            "spec": spec, "status": status});
        object["spec"]["schedule"] = json!("@daily");
        object["spec"]["jobTemplate"] = json!({"spec": {"template": {"spec":
            {"containers": [{"name": "c", "image": "i"}]}}}});
        check(object, expected);
    };
    cron_job(json!({}), json!({}), "c  @daily  <none>  <unset>  0  <none>  5m | c  i  <none>");
    cron_job(
        json!({"timeZone": "Asia/Tokyo", "suspend": true}),
        json!({"active": [{"name": "j"}], "lastScheduleTime": "2023-11-14T22:12:20Z"}),
        "c  @daily  Asia/Tokyo  True  1  60s  5m | c  i  <none>",
    );
    cron_job(
        json!({"suspend": false}),
        json!({}),
        "c  @daily  <none>  False  0  <none>  5m | c  i  <none>",
    );
}

#[test]
fn jobs() {
    let job = |spec: Value, status: Value, expected: &str| {
        let mut object = json!({"apiVersion": "batch/v1", "kind": "Job",
            "metadata": {"name": "j", "creationTimestamp": "2023-11-14T22:08:20Z"},
            "spec": spec, "status": status});
        object["spec"]["selector"] = json!({"matchLabels": {"a": "b"}});
        object["spec"]["template"] = json!({"spec": {"containers": [{"name": "c", "image": "i"}]}});
        check(object, &format!("j  {expected}  5m | c  i  a=b"));
    };
    let condition = |kind: &str| json!([{"type": kind, "status": "True"}]);
    let start = "2023-11-14T22:12:20Z";
    job(
        json!({"completions": 3}),
        json!({"succeeded": 1, "startTime": start}),
        "Running  1/3  60s",
    );
    job(
        json!({"completions": 1}),
        json!({"succeeded": 1, "startTime": start, "completionTime": "2023-11-14T22:12:27Z",
            "conditions": condition("Complete")}),
        "Complete  1/1  7s",
    );
    job(
        json!({"parallelism": 3}),
        json!({"conditions": condition("Suspended")}),
        "Suspended  0/1 of 3  ",
    );
    job(json!({"parallelism": 1}), json!({"conditions": condition("Failed")}), "Failed  0/1  ");
}
