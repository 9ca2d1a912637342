//! Pods from their first to their last step.

use serde_json::json;

use super::World;
use super::world::{Exit, is_sandbox};

fn plain() -> serde_json::Value {
    json!({"containers": [{"name": "app", "image": "web:1"}]})
}

#[test]
fn a_pod_starts_and_the_api_knows() {
    let mut w = World::new();
    w.pod("web", plain());
    assert_eq!(w.line("web"), "Running ready=True app=running");
    let status = w.status("web");
    assert_eq!(status.pod_ip.as_deref(), Some("10.244.1.5"));
    assert_eq!(status.host_ip.as_deref(), Some("10.0.0.1"));
    assert_eq!(status.qos_class.as_deref(), Some("BestEffort"));
    assert!(status.start_time.is_some());
    let conditions: Vec<String> = status
        .conditions
        .unwrap()
        .into_iter()
        .map(|c| format!("{}={}", c.type_, c.status))
        .collect();
    assert_eq!(
        conditions,
        [
            "PodReadyToStartContainers=True",
            "Initialized=True",
            "Ready=True",
            "ContainersReady=True",
            "PodScheduled=True"
        ]
    );
    let app = &status.container_statuses.unwrap()[0];
    assert!(app.container_id.as_ref().unwrap().starts_with("docker://c"));
    assert_eq!(app.started, Some(true));
    insta::assert_snapshot!(w.events[1..].join("\n"), @r#"
    Pulled: Container image "web:1" already present on machine
    Created: Created container: app
    Started: Started container app
    "#);
    assert!(w.requests.contains(&"start k8s_app_web_default_uid-web_0".to_owned()));
    // Nothing more is written while nothing happens.
    let before = w.log.len();
    w.run_for(8);
    let quiet: Vec<&String> =
        w.log[before..].iter().filter(|l| l.contains("Kind::Pod") || l.contains("Pod,")).collect();
    assert!(quiet.is_empty(), "{quiet:?}");
}

#[test]
fn a_crashing_container_backs_off_and_recovers() {
    let mut w = World::new();
    w.exits.insert("app".into(), Exit { after_secs: 1, code: 1 });
    w.pod("web", plain());
    w.run_for(1);
    // The first restart comes at once, the second after 10 s.
    assert_eq!(w.line("web"), "Running ready=True app=running*1");
    w.run_for(2);
    assert_eq!(w.line("web"), "Running ready=False app=CrashLoopBackOff*1");
    let status = w.status("web").container_statuses.unwrap()[0].clone();
    let waiting = status.state.unwrap().waiting.unwrap();
    assert_eq!(
        waiting.message.as_deref(),
        Some("back-off 10s restarting failed container=app pod=web_default(uid-web)")
    );
    assert_eq!(status.last_state.unwrap().terminated.unwrap().exit_code, 1);
    assert!(w.saw("BackOff: Back-off restarting failed container app in pod web_default(uid-web)"));
    w.run_for(9);
    assert_eq!(w.running("app").unwrap().attempt(), 2);
    w.run_for(400);
    let starts = w.requests.iter().filter(|r| r.starts_with("start ")).count();
    // 0, 1, 12, 33, 74, 155, 316 s.
    assert_eq!(starts, 7);
    // Two instances are kept: the present one and the one before.
    let kept = w.containers.values().filter(|r| !is_sandbox(r)).count();
    assert_eq!(kept, 2);
    w.exits.clear();
    w.run_for(320);
    assert_eq!(w.line("web"), "Running ready=True app=running*7");
}

#[test]
fn jobs_end() {
    let check = |policy: &str, code: i32, expected: &str| {
        let mut w = World::new();
        w.exits.insert("app".into(), Exit { after_secs: 3, code });
        let mut spec = plain();
        spec["restartPolicy"] = json!(policy);
        w.pod("job", spec);
        w.run_for(4);
        assert_eq!(w.line("job"), expected, "{policy} {code}");
        if !expected.starts_with("Running") {
            assert_eq!(w.running_names(), Vec::<String>::new());
            w.restart_kubelet();
            assert_eq!(w.line("job"), expected);
            assert!(!w.requests.iter().any(|r| r.starts_with("start")));
        }
    };
    check("Never", 0, "Succeeded ready=False app=Completed(0)");
    check("Never", 3, "Failed ready=False app=Error(3)");
    check("OnFailure", 0, "Succeeded ready=False app=Completed(0)");
    check("OnFailure", 3, "Running ready=True app=running*1");
    check("Always", 0, "Running ready=True app=running*1");
}

#[test]
fn init_containers_run_one_after_another() {
    let mut w = World::new();
    w.exits.insert("one".into(), Exit { after_secs: 5, code: 0 });
    w.exits.insert("two".into(), Exit { after_secs: 5, code: 0 });
    let image = "web:1";
    w.pod(
        "web",
        json!({"initContainers": [{"name": "one", "image": image}, {"name": "two", "image": image}],
            "containers": [{"name": "app", "image": image}]}),
    );
    assert_eq!(
        w.line("web"),
        "Pending ready=False one=running two=PodInitializing app=PodInitializing"
    );
    w.run_for(6);
    assert_eq!(
        w.line("web"),
        "Pending ready=False one=Completed(0) two=running app=PodInitializing"
    );
    let conditions = w.status("web").conditions.unwrap();
    let initialized = conditions.iter().find(|c| c.type_ == "Initialized").unwrap();
    assert_eq!(initialized.reason.as_deref(), Some("ContainersNotInitialized"));
    assert_eq!(initialized.message.as_deref(), Some("containers with incomplete status: [two]"));
    w.run_for(5);
    assert_eq!(w.line("web"), "Running ready=True one=Completed(0) two=Completed(0) app=running");
    w.restart_kubelet();
    assert_eq!(w.line("web"), "Running ready=True one=Completed(0) two=Completed(0) app=running");
    assert!(!w.requests.iter().any(|r| r.starts_with("start")), "{:?}", w.requests);
}

#[test]
fn a_failing_init_container_fails_a_pod_that_never_restarts() {
    let mut w = World::new();
    w.exits.insert("one".into(), Exit { after_secs: 1, code: 2 });
    w.pod(
        "web",
        json!({"restartPolicy": "Never", "initContainers": [{"name": "one", "image": "web:1"}],
            "containers": [{"name": "app", "image": "web:1"}]}),
    );
    w.run_for(3);
    assert_eq!(w.line("web"), "Failed ready=False one=Error(2) app=PodInitializing");
    assert!(w.running_names().is_empty());
}

#[test]
fn sidecars_start_first_and_end_last() {
    let mut w = World::new();
    w.exits.insert("app".into(), Exit { after_secs: 5, code: 0 });
    w.pod(
        "job",
        json!({"restartPolicy": "Never",
            "initContainers": [{"name": "mesh", "image": "web:1", "restartPolicy": "Always"}],
            "containers": [{"name": "app", "image": "web:1"}]}),
    );
    assert_eq!(w.line("job"), "Running ready=True mesh=running app=running");
    w.run_for(6);
    assert_eq!(w.line("job"), "Succeeded ready=False mesh=Completed(0) app=Completed(0)");
}

#[test]
fn deletion_is_graceful_and_final() {
    let mut w = World::new();
    w.stubborn.insert("app".into());
    let mut spec = plain();
    spec["terminationGracePeriodSeconds"] = json!(20);
    spec["containers"][0]["lifecycle"] = json!({"preStop": {"exec": {"command": ["bye"]}}});
    w.pod("web", spec);
    w.delete("web");
    assert!(w.requests.contains(&"stop app 20".to_owned()), "{:?}", w.requests);
    assert!(w.saw("Killing: Stopping container app"));
    assert!(w.exists("web"));
    w.run_for(19);
    assert!(w.exists("web"));
    w.run_for(2);
    assert!(!w.exists("web"));
    assert!(w.containers.is_empty() && w.folders.is_empty(), "{:?}", w.containers);
    // The last status came before the end.
    let last = w.log.iter().rev().find(|l| l.contains("Patch") && l.contains("Status")).unwrap();
    assert!(last.contains("Failed") || last.contains("terminated"), "{last}");
    assert!(w.kubelet.pods().is_empty());
}

#[test]
fn an_image_that_is_being_fetched_does_not_hold_up_the_end() {
    let mut w = World::new();
    w.pod("web", json!({"containers": [{"name": "app", "image": "slow:1"}]}));
    w.run_for(1);
    assert_eq!(w.line("web"), "Pending ready=False app=ContainerCreating");
    w.delete("web");
    w.run_for(1);
    assert!(!w.exists("web"));
    assert!(w.containers.is_empty() && w.folders.is_empty(), "{:?}", w.containers);
    // The answer comes to nobody.
    w.run_for(700);
    assert!(!w.requests.iter().any(|r| r.starts_with("start")), "{:?}", w.requests);
    assert!(w.kubelet.pods().is_empty());
}

#[test]
fn a_pod_that_vanishes_is_ended() {
    let mut w = World::new();
    w.pod("web", plain());
    w.vanish("web");
    w.run_for(1);
    assert!(w.containers.is_empty(), "{:?}", w.containers);
    assert!(w.requests.contains(&"stop app 30".to_owned()));
    // One of the same name is another pod.
    w.create(&json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web", "uid": "other"},
        "spec": {"nodeName": "n1", "containers": [{"name": "app", "image": "web:1"}]}}));
    assert_eq!(w.line("web"), "Running ready=True app=running");
}

#[test]
fn missing_configuration_is_waited_for() {
    let mut w = World::new();
    let mut spec = plain();
    spec["containers"][0]["env"] = json!([
        {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "a"}}},
        {"name": "B", "value": "$(A)-$(C)-$(POD)"},
        {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
    ]);
    w.pod("web", spec);
    w.run_for(1);
    assert_eq!(w.line("web"), "Pending ready=False app=CreateContainerConfigError");
    let app = w.status("web").container_statuses.unwrap()[0].clone();
    assert_eq!(
        app.state.unwrap().waiting.unwrap().message.as_deref(),
        Some("configmap \"settings\" not found")
    );
    assert!(w.saw("Failed: Error: configmap \"settings\" not found"));
    w.create(&json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"},
        "data": {"a": "1"}}));
    w.run_for(5);
    assert_eq!(w.line("web"), "Running ready=True app=running");
    let env = &w.specs["app"].env;
    for expected in ["A=1", "B=1-$(C)-$(POD)", "POD=10.244.1.5"] {
        assert!(env.contains(&expected.to_owned()), "{expected} in {env:?}");
    }
}

#[test]
fn volumes_hold_what_the_api_has() {
    let mut w = World::new();
    let mut spec = plain();
    spec["serviceAccountName"] = json!("robot");
    spec["volumes"] = json!([
        {"name": "conf",
            "configMap": {"name": "settings", "items": [{"key": "a", "path": "x/y"}]}},
        {"name": "all", "projected": {"sources": [
            {"serviceAccountToken": {"path": "token"}},
            {"downwardAPI": {"items": [{"path": "ns", "fieldRef": {"fieldPath": "metadata.namespace"}},
                {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]}},
        {"name": "tmp", "emptyDir": {}},
    ]);
    spec["containers"][0]["volumeMounts"] =
        json!([{"name": "conf", "mountPath": "/etc/conf", "subPath": "x"}]);
    w.pod("web", spec);
    w.run_for(1);
    assert_eq!(w.line("web"), "Pending ready=False app=ContainerCreating");
    assert!(w.saw(
        "FailedMount: MountVolume.SetUp failed for volume \"conf\" : configmap \"settings\" not found"
    ));
    let settings = |a: &str| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"},
        "data": {"a": a}})
    };
    w.create(&settings("1"));
    w.run_for(8);
    assert_eq!(w.line("web"), "Running ready=True app=running");
    let text = format!("{:?}", w.volumes);
    assert!(text.contains("/var/lib/kubelet/pods/uid-web/volumes/kubernetes.io~configmap/conf"));
    let files = |w: &World, volume: &str| -> Vec<String> {
        let spec = w.volumes.iter().find(|v| v.name == volume).unwrap();
        let crate::volume::VolumeContent::Files(files) = &spec.content else { panic!() };
        files
            .iter()
            .map(|f| format!("{}={}", f.path, String::from_utf8_lossy(&f.content)))
            .collect()
    };
    assert_eq!(files(&w, "conf"), ["x/y=1"]);
    assert_eq!(files(&w, "all"), ["labels=app=\"web\"", "ns=default", "token=t"]);
    assert_eq!(w.specs["app"].mounts[0].sub_path.as_deref(), Some("x"));
    // A change arrives within two minutes, tokens are renewed.
    w.create(&settings("2"));
    let tokens = |w: &World| w.log.iter().filter(|l| l.contains("TokenRequest(")).count();
    let before = tokens(&w);
    w.run_for(125);
    assert_eq!(files(&w, "conf"), ["x/y=2"]);
    w.run_for(3000);
    assert!(tokens(&w) > before);
    assert_eq!(w.running("app").unwrap().attempt(), 0);
}

#[test]
fn probes_decide_over_traffic_and_life() {
    let mut w = World::new();
    let probe = json!({"httpGet": {"port": 80}, "periodSeconds": 5, "failureThreshold": 2});
    w.sick.insert("app".into());
    w.pod(
        "web",
        json!({"containers": [{"name": "app", "image": "web:1", "readinessProbe": probe}]}),
    );
    w.run_for(6);
    assert_eq!(w.line("web"), "Running ready=False app=running");
    assert!(w.saw("Unhealthy: Readiness probe failed: sick"));
    w.sick.clear();
    w.run_for(5);
    assert_eq!(w.line("web"), "Running ready=True app=running");
    // A kubelet that comes back does not make the pod unready.
    w.restart_kubelet();
    assert_eq!(w.line("web"), "Running ready=True app=running");
    let probe = json!({"tcpSocket": {"port": 80}, "periodSeconds": 5, "failureThreshold": 2,
        "initialDelaySeconds": 10});
    w.pod(
        "live",
        json!({"containers": [{"name": "life", "image": "web:1", "livenessProbe": probe}]}),
    );
    w.run_for(30);
    assert_eq!(w.line("live"), "Running ready=True life=running");
    w.sick.insert("life".into());
    w.run_for(11);
    assert!(w.saw("Killing: Container life failed liveness probe, will be restarted"));
    assert_eq!(w.line("live"), "Running ready=True life=running*1");
}

#[test]
fn startup_probes_hold_the_others_back() {
    let mut w = World::new();
    w.sick.insert("app".into());
    let fast =
        |n: u32| json!({"exec": {"command": ["x"]}, "periodSeconds": 1, "failureThreshold": n});
    w.pod(
        "web",
        json!({"containers": [{"name": "app", "image": "web:1", "startupProbe": fast(10),
            "livenessProbe": fast(1)}]}),
    );
    w.run_for(5);
    assert_eq!(w.line("web"), "Running ready=False app=running");
    w.sick.clear();
    w.run_for(2);
    assert_eq!(w.line("web"), "Running ready=True app=running");
    assert!(!w.saw("Unhealthy: Liveness"));
}

#[test]
fn images_must_be_there() {
    let mut w = World::new();
    w.pod(
        "a",
        json!({"containers": [{"name": "a", "image": "gone:1", "imagePullPolicy": "Never"}]}),
    );
    w.pod("b", json!({"containers": [{"name": "b", "image": "gone:1"}]}));
    assert_eq!(w.line("a"), "Pending ready=False a=ErrImageNeverPull");
    assert_eq!(w.line("b"), "Pending ready=False b=ErrImagePull");
    w.run_for(12);
    assert_eq!(w.line("b"), "Pending ready=False b=ImagePullBackOff");
    assert!(w.saw("Failed: Failed to pull image \"gone:1\": no such host"));
    w.images.insert("gone:1".into());
    w.run_for(30);
    assert_eq!(w.line("a"), "Running ready=True a=running");
    assert_eq!(w.line("b"), "Running ready=True b=running");
}

#[test]
fn a_kubelet_that_comes_back_adopts_and_sweeps() {
    let mut w = World::new();
    w.pod("web", plain());
    w.pod("gone", json!({"containers": [{"name": "old", "image": "web:1"}]}));
    let id = w.running("app").unwrap().id.clone();
    // While the kubelet is away, one pod is deleted by force.
    w.objects.retain(|k, _| k.name != "gone");
    w.folders.insert("leftover".into());
    w.restart_kubelet();
    w.run_for(5);
    assert_eq!(w.running("app").unwrap().id, id);
    assert_eq!(w.line("web"), "Running ready=True app=running");
    assert_eq!(w.running_names(), ["POD", "app"]);
    assert!(!w.folders.contains("leftover"));
    assert!(!w.requests.iter().any(|r| r.starts_with("start") || r.contains("app")));
}

#[test]
fn a_dead_sandbox_is_replaced() {
    let mut w = World::new();
    w.pod("web", plain());
    let sandbox = w.running("POD").unwrap().id.clone();
    w.end(&sandbox, 137);
    w.run_for(1);
    assert!(w.saw("SandboxChanged: Pod sandbox changed, it will be killed and re-created."));
    assert_eq!(w.line("web"), "Running ready=True app=running*1");
    assert_ne!(w.running("POD").unwrap().id, sandbox);
}

#[test]
fn deadlines_fail_pods() {
    let mut w = World::new();
    let mut spec = plain();
    spec["activeDeadlineSeconds"] = json!(30);
    w.pod("web", spec);
    w.run_for(29);
    assert_eq!(w.line("web"), "Running ready=True app=running");
    w.run_for(3);
    let status = w.status("web");
    assert_eq!(status.reason.as_deref(), Some("DeadlineExceeded"));
    assert!(w.line("web").starts_with("Failed ready=False"), "{}", w.line("web"));
    assert!(w.running_names().is_empty() && w.exists("web"));
    w.delete("web");
    w.run_for(1);
    assert!(!w.exists("web") && w.containers.is_empty());
}

#[test]
fn a_program_that_is_not_there_is_a_start_error() {
    let mut w = World::new();
    w.broken.insert("app".into());
    w.pod("web", plain());
    w.run_for(12);
    assert_eq!(w.line("web"), "Running ready=False app=CrashLoopBackOff*2");
    let app = w.status("web").container_statuses.unwrap()[0].clone();
    let last = app.last_state.unwrap().terminated.unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (128, Some("StartError")));
    assert!(w.saw("Failed: Error: failed to start container \"app\": no program"));
    // Nothing of it is left in the runtime, yet the count goes on.
    w.restart_kubelet();
    assert_eq!(w.line("web"), "Running ready=False app=CrashLoopBackOff*4");
    w.broken.clear();
    w.run_for(60);
    assert_eq!(w.line("web"), "Running ready=True app=running*5");
}

#[test]
fn a_job_that_ended_while_the_kubelet_was_away_is_put_to_rest() {
    let mut w = World::new();
    let mut spec = plain();
    spec["restartPolicy"] = json!("Never");
    w.pod("job", spec);
    let id = w.running("app").unwrap().id.clone();
    let record = w.containers.get_mut(&id).unwrap();
    record.state = crate::runtime::ContainerState::Exited;
    record.finished_at = w.now;
    w.restart_kubelet();
    assert_eq!(w.line("job"), "Succeeded ready=False app=Completed(0)");
    assert!(w.running_names().is_empty());
    // The log stays until the pod is deleted.
    assert!(w.containers.contains_key(&id));
    w.delete("job");
    w.run_for(1);
    assert!(w.containers.is_empty() && !w.exists("job"));
}

#[test]
fn news_that_say_how_a_container_is_need_no_question() {
    for describing in [false, true] {
        let mut w = World::new();
        let mut spec = plain();
        spec["restartPolicy"] = json!("Never");
        w.pod("job", spec);
        let (app, sandbox) =
            (w.running("app").unwrap().id.clone(), w.running("POD").unwrap().id.clone());
        let asked = w.inspections;
        w.end_and_tell(&app, 3, describing);
        w.run_for(1);
        assert_eq!(w.line("job"), "Failed ready=False app=Error(3)");
        assert_eq!(w.inspections == asked, describing);
        assert_eq!(w.containers[&sandbox].state, crate::runtime::ContainerState::Exited);
    }
    let mut w = World::new();
    w.pod("web", plain());
    let sandbox = w.running("POD").unwrap().id.clone();
    w.end_and_tell(&sandbox, 137, true);
    w.run_for(1);
    assert_eq!(w.line("web"), "Running ready=True app=running*1");
    assert_eq!(w.inspections, 0);
}

#[test]
fn an_image_is_looked_for_once_and_again_when_it_is_gone() {
    let mut w = World::new();
    let spec = |policy: &str, security: serde_json::Value| {
        json!({"containers": [{"name": "app", "image": "web:1", "imagePullPolicy": policy,
            "securityContext": security}]})
    };
    w.pod("a", spec("IfNotPresent", json!({})));
    assert_eq!(w.images_sought, 1);
    w.pod("b", spec("IfNotPresent", json!({})));
    assert_eq!((w.line("b").as_str(), w.images_sought), ("Running ready=True app=running", 1));
    assert!(w.saw("Pulled: Container image \"web:1\" already present on machine"));
    // As whom the image runs must be known, and whether a newer one is to be had.
    w.pod("c", spec("IfNotPresent", json!({"runAsNonRoot": true})));
    assert_eq!(w.images_sought, 2);
    w.pod("d", spec("Always", json!({})));
    assert_eq!(w.images_sought, 3);
    // Somebody removes it.
    w.images.clear();
    w.pod("e", spec("IfNotPresent", json!({})));
    assert_eq!(
        (w.line("e").as_str(), w.images_sought),
        ("Pending ready=False app=ErrImagePull", 4)
    );
    w.pod("f", spec("Never", json!({})));
    assert_eq!(w.line("f"), "Pending ready=False app=ErrImageNeverPull");
}
