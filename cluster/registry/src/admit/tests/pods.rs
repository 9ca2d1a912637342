use super::*;

#[test]
fn defaults_of_a_pod() {
    let mut world = World::new();
    let mut manifest = pod("a");
    manifest["spec"]["automountServiceAccountToken"] = json!(false);
    manifest["spec"]["containers"] = json!([{
        "name": "a", "image": "nginx",
        "ports": [{"containerPort": 80}],
        "resources": {"limits": {"cpu": "1000m", "memory": "1024Mi"}},
        "livenessProbe": {"httpGet": {"port": 80}},
        "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "volumeMounts": [{"name": "v", "mountPath": "/v"}],
    }]);
    manifest["spec"]["volumes"] = json!([{"name": "v"},
        {"name": "c", "configMap": {"name": "c"}}]);
    let mut made = world.create(manifest).unwrap();
    made["metadata"]["uid"] = json!("[uid]");
    insta::assert_json_snapshot!(made, @r#"
    {
      "apiVersion": "v1",
      "kind": "Pod",
      "metadata": {
        "creationTimestamp": "2023-11-14T22:13:20Z",
        "generation": 1,
        "name": "a",
        "namespace": "default",
        "resourceVersion": "103",
        "uid": "[uid]"
      },
      "spec": {
        "automountServiceAccountToken": false,
        "containers": [
          {
            "env": [
              {
                "name": "IP",
                "valueFrom": {
                  "fieldRef": {
                    "apiVersion": "v1",
                    "fieldPath": "status.podIP"
                  }
                }
              }
            ],
            "image": "nginx",
            "imagePullPolicy": "Always",
            "livenessProbe": {
              "failureThreshold": 3,
              "httpGet": {
                "path": "/",
                "port": 80,
                "scheme": "HTTP"
              },
              "periodSeconds": 10,
              "successThreshold": 1,
              "timeoutSeconds": 1
            },
            "name": "a",
            "ports": [
              {
                "containerPort": 80,
                "protocol": "TCP"
              }
            ],
            "resources": {
              "limits": {
                "cpu": "1",
                "memory": "1Gi"
              },
              "requests": {
                "cpu": "1",
                "memory": "1Gi"
              }
            },
            "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "File",
            "volumeMounts": [
              {
                "mountPath": "/v",
                "name": "v"
              }
            ]
          }
        ],
        "dnsPolicy": "ClusterFirst",
        "enableServiceLinks": true,
        "preemptionPolicy": "PreemptLowerPriority",
        "priority": 0,
        "restartPolicy": "Always",
        "schedulerName": "default-scheduler",
        "securityContext": {},
        "serviceAccount": "default",
        "serviceAccountName": "default",
        "terminationGracePeriodSeconds": 30,
        "tolerations": [
          {
            "effect": "NoExecute",
            "key": "node.kubernetes.io/not-ready",
            "operator": "Exists",
            "tolerationSeconds": 300
          },
          {
            "effect": "NoExecute",
            "key": "node.kubernetes.io/unreachable",
            "operator": "Exists",
            "tolerationSeconds": 300
          }
        ],
        "volumes": [
          {
            "emptyDir": {},
            "name": "v"
          },
          {
            "configMap": {
              "defaultMode": 420,
              "name": "c"
            },
            "name": "c"
          }
        ]
      },
      "status": {
        "phase": "Pending",
        "qosClass": "Guaranteed"
      }
    }
    "#);
}

#[test]
fn binding() {
    let mut world = World::new();
    world.create(pod("a")).unwrap();
    let bound = world.bind("a", "node-1").unwrap();
    assert_eq!(bound["spec"]["nodeName"], "node-1");
    assert_eq!(
        bound["status"]["conditions"],
        json!([{"type": "PodScheduled", "status": "True",
            "lastTransitionTime": "2023-11-14T22:13:20Z"}])
    );
    assert_eq!(
        world.bind("a", "node-2").unwrap_err().message,
        "Operation cannot be fulfilled on pods/binding \"a\": pod a is already assigned to node \
         \"node-1\""
    );
    assert_eq!(world.bind("b", "node-1").unwrap_err().message, "pods \"b\" not found");
    world.create(pod("c")).unwrap();
    let binding = PodBinding { uid: "u".to_owned(), node: "n".to_owned(), ..PodBinding::default() };
    let operation = Operation::Bind { pod: key(Kind::Pod, "c"), binding };
    assert_eq!(world.run(&operation).unwrap_err().code, 409);
    assert_eq!(
        world.bind("c", "").unwrap_err().message,
        "Binding \"c\" is invalid: target.name: Required value"
    );
}

#[test]
fn what_may_change() {
    let mut world = World::new();
    let timed = with(pod("a"), "/spec/activeDeadlineSeconds", json!(60));
    let tolerant = json!([{"key": "x", "operator": "Exists"}]);
    world.create(with(timed, "/spec/tolerations", tolerant)).unwrap();
    let a = key(Kind::Pod, "a");
    let image = json!({"spec": {"containers": [{"name": "a", "image": "nginx:2"}]}});
    let mut whole = codec::to_value(&world.get(&a).unwrap());
    whole["spec"]["containers"][0]["image"] = json!("nginx:2");
    let after = world.update(&whole, None).unwrap();
    assert_eq!(after["metadata"]["generation"], 2);
    // A merge patch replaces the whole list of containers: more than the image changes.
    let error = world.patch(&a, image).unwrap_err();
    assert!(
        error.message.starts_with(
            "Pod \"a\" is invalid: spec: Forbidden: pod updates may not change fields other than \
             `spec.containers[*].image`,`spec.initContainers[*].image`,\
             `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
             tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was \
             previously negative)\n"
        ),
        "{error}"
    );
    let mut check = |body: Value, expected: &str| {
        let error = world.patch(&a, json!({"spec": body})).unwrap_err();
        assert_eq!(error.message, format!("Pod \"a\" is invalid: {expected}"));
    };
    check(
        json!({"activeDeadlineSeconds": 61}),
        "spec.activeDeadlineSeconds: Invalid value: 61: must be less than or equal to previous \
         value",
    );
    check(
        json!({"activeDeadlineSeconds": null}),
        "spec.activeDeadlineSeconds: Invalid value: \"null\": must not update from a positive \
         integer to nil value",
    );
    check(
        json!({"initContainers": [{"name": "b", "image": "b"}]}),
        "spec.initContainers: Forbidden: pod updates may not add or remove containers",
    );
    check(
        json!({"tolerations": null}),
        "spec.tolerations: Forbidden: existing toleration can not be modified except its \
         tolerationSeconds",
    );
    check(
        json!({"nodeName": "node-1"}),
        "spec: Forbidden: pod updates may not change fields other than \
         `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
         `spec.tolerations` (only additions to existing tolerations),\
         `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously \
         negative)\n+ spec.nodeName: \"node-1\"",
    );
}

#[test]
fn finished_containers_stay_finished() {
    let mut world = World::new();
    world.create(with(pod("a"), "/spec/restartPolicy", json!("Never"))).unwrap();
    let a = key(Kind::Pod, "a");
    let state = |state: Value| {
        json!({"status": {"containerStatuses": [{"name": "a", "image": "", "imageID": "",
            "ready": false, "restartCount": 0, "state": state}]}})
    };
    let ended = state(json!({"terminated": {"exitCode": 0}}));
    world.patch_at(&a, Some(Subresource::Status), ended).unwrap();
    let running = state(json!({"running": {}, "terminated": null}));
    assert_eq!(
        world.patch_at(&a, Some(Subresource::Status), running).unwrap_err().message,
        "Pod \"a\" is invalid: status.containerStatuses[0].state: Forbidden: may not be \
         transitioned to non-terminated state"
    );
}
