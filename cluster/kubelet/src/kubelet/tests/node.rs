//! The node itself, what it accepts, and static pods.

use api::{Key, Kind, codec};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use serde_json::json;

use super::World;
use crate::runtime::{NodeInput, RuntimeEvent, RuntimeInput};

fn node(w: &World) -> Node {
    w.objects[&Key::cluster(Kind::Node, "n1")].get::<Node>().unwrap().clone()
}

fn ready(w: &World) -> String {
    let conditions = node(w).status.unwrap().conditions.unwrap();
    let ready = conditions.into_iter().find(|c| c.type_ == "Ready").unwrap();
    format!("{} {}: {}", ready.status, ready.reason.unwrap(), ready.message.unwrap())
}

#[test]
fn the_node_registers_and_turns_ready() {
    let mut w = World::cold();
    w.feed(NodeInput::Runtime(RuntimeInput::Event(RuntimeEvent::Connected)));
    w.feed(NodeInput::Api(machine::ApiInput::Watch(machine::WatchEvent::Replaced {
        kind: Kind::Node,
        objects: Vec::new(),
        revision: api::Revision(1),
    })));
    w.run_for(1);
    assert!(
        ready(&w).starts_with("False KubeletNotReady: container runtime network not ready: "),
        "{}",
        ready(&w)
    );
    w.patch(&Key::cluster(Kind::Node, "n1"), &json!({"spec": {"podCIDR": "10.244.1.0/24"}}));
    w.run_for(1);
    assert_eq!(ready(&w), "True KubeletReady: kubelet is posting ready status");
    let node = node(&w);
    let labels = node.metadata.labels.unwrap();
    assert_eq!(labels["kubernetes.io/hostname"], "n1");
    assert_eq!(labels["zone"], "a");
    let status = node.status.unwrap();
    assert_eq!(status.capacity.as_ref().unwrap()["memory"].0, "4Gi");
    assert_eq!(status.capacity.unwrap()["cpu"].0, "2");
    assert_eq!(status.allocatable.unwrap()["pods"].0, "110");
    assert_eq!(status.node_info.unwrap().container_runtime_version, "docker://24.0.5");
}

#[test]
fn the_lease_is_renewed_and_the_status_rests() {
    let mut w = World::new();
    w.run_for(20);
    let count = |w: &World, what: &str| w.log.iter().filter(|l| l.contains(what)).count();
    let (patches, leases) = (count(&w, "kind: Node"), count(&w, "Lease("));
    w.run_for(100);
    assert_eq!(count(&w, "kind: Node"), patches);
    assert!((9..=11).contains(&(count(&w, "Lease(") - leases)));
    w.run_for(300);
    assert!(count(&w, "kind: Node") > patches);
    let key = Key::new(Kind::Lease, "kube-node-lease", "n1");
    let lease = w.objects[&key].get::<Lease>().unwrap().clone();
    assert_eq!(lease.spec.unwrap().holder_identity.as_deref(), Some("n1"));
    assert_eq!(lease.metadata.owner_references.unwrap()[0].kind, "Node");
}

#[test]
fn a_runtime_that_goes_away_is_reported_and_met_again() {
    let mut w = World::new();
    w.pod("web", json!({"containers": [{"name": "app", "image": "web:1"}]}));
    let event = |e| NodeInput::Runtime(RuntimeInput::Event(e));
    w.feed(event(RuntimeEvent::Disconnected { reason: "gone".into() }));
    w.run_for(1);
    assert_eq!(ready(&w), "False KubeletNotReady: container runtime is down: gone");
    // It died with all its containers, and nobody told of it.
    let now = w.now;
    for record in w.containers.values_mut() {
        record.state = crate::runtime::ContainerState::Exited;
        record.exit_code = 137;
        record.finished_at = now;
    }
    w.feed(event(RuntimeEvent::Connected));
    w.run_for(1);
    assert_eq!(ready(&w), "True KubeletReady: kubelet is posting ready status");
    assert_eq!(w.line("web"), "Running ready=True app=running*1");
}

#[test]
fn pods_that_do_not_fit_are_refused() {
    let mut w = World::new();
    let pod = |cpu: &str, port: i32| {
        json!({"containers": [{"name": "app", "image": "web:1",
            "ports": [{"containerPort": 80, "hostPort": port}],
            "resources": {"requests": {"cpu": cpu}}}]})
    };
    w.pod("a", pod("1500m", 8080));
    w.pod("b", pod("600m", 8081));
    let status = w.status("b");
    assert_eq!(status.phase.as_deref(), Some("Failed"));
    assert_eq!(status.reason.as_deref(), Some("OutOfcpu"));
    assert_eq!(
        status.message.as_deref(),
        Some(
            "Pod was rejected: Node didn't have enough resource: cpu, requested: 600, used: 1500, \
             capacity: 2000"
        )
    );
    w.pod("c", pod("1m", 8080));
    assert_eq!(w.status("c").reason.as_deref(), Some("NodePorts"));
    let mut spec = pod("1m", 8082);
    spec["nodeSelector"] = json!({"zone": "b"});
    w.pod("d", spec);
    assert_eq!(w.status("d").reason.as_deref(), Some("NodeAffinity"));
    assert_eq!(w.line("a"), "Running ready=True app=running");
    // Restarting the kubelet refuses nothing that runs.
    w.restart_kubelet();
    assert_eq!(w.line("a"), "Running ready=True app=running");
    for name in ["b", "c", "d"] {
        w.delete(name);
        w.run_for(1);
        assert!(!w.exists(name), "{name}");
    }
}

#[test]
fn devices_are_given_out_until_there_are_none() {
    let mut w = World::new();
    let status = node(&w).status.unwrap();
    for amounts in [&status.capacity, &status.allocatable] {
        assert_eq!(amounts.as_ref().unwrap()["example.org/gpu"].0, "3");
    }
    let pod = |resource: &str, amount: &str| {
        json!({"containers": [{"name": "app", "image": "web:1",
            "resources": {"limits": {resource: amount}}}]})
    };
    w.pod("a", pod("example.org/gpu", "2"));
    w.pod("b", pod("example.org/gpu", "2"));
    w.pod("c", pod("example.org/gpu", "1"));
    // It must be somebody else who can give these out.
    w.pod("d", pod("example.org/other", "7"));
    for name in ["a", "c", "d"] {
        assert_eq!(w.line(name), "Running ready=True app=running");
    }
    assert_eq!(w.status("b").reason.as_deref(), Some("OutOfexample.org/gpu"));
    assert_eq!(
        w.status("b").message.as_deref(),
        Some(
            "Pod was rejected: Node didn't have enough resource: example.org/gpu, requested: 2, \
             used: 2, capacity: 3"
        )
    );
}

#[test]
fn static_pods_run_and_have_mirrors() {
    let mut w = World::new();
    let manifest = |image: &str| {
        let text = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "master"},
            "spec": {"hostNetwork": true, "containers": [{"name": "api", "image": image}]}});
        codec::decode_any(text.to_string().as_bytes()).unwrap()
    };
    w.feed(NodeInput::StaticPods(vec![manifest("web:1")]));
    w.run_for(2);
    assert_eq!(w.line("master-n1"), "Running ready=True api=running");
    let mirror = w.object("master-n1").clone();
    let annotations = mirror.metadata.annotations.unwrap();
    assert_eq!(annotations["kubernetes.io/config.source"], "file");
    assert_eq!(
        annotations["kubernetes.io/config.mirror"],
        annotations["kubernetes.io/config.hash"]
    );
    assert_eq!(mirror.metadata.owner_references.unwrap()[0].kind, "Node");
    assert_eq!(w.status("master-n1").pod_ip.as_deref(), Some("10.0.0.1"));
    // Deleting the mirror changes nothing but the mirror.
    let id = w.running("api").unwrap().id.clone();
    w.vanish("master-n1");
    w.run_for(3);
    assert!(w.exists("master-n1"));
    assert_eq!(w.running("api").unwrap().id, id);
    w.restart_kubelet();
    w.feed(NodeInput::StaticPods(vec![manifest("web:1")]));
    // Another manifest is another pod.
    w.images.insert("web:2".into());
    w.feed(NodeInput::StaticPods(vec![manifest("web:2")]));
    w.run_for(5);
    assert_eq!(w.specs["api"].image, "web:2");
    assert_eq!(w.line("master-n1"), "Running ready=True api=running");
    w.feed(NodeInput::StaticPods(Vec::new()));
    w.run_for(5);
    assert!(!w.exists("master-n1") && w.containers.is_empty(), "{:?}", w.containers);
}

#[test]
fn a_static_pod_waits_for_the_one_before_though_another_kubelet_started_it() {
    let mut w = World::new();
    let manifest = |image: &str| {
        let text = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "master"},
            "spec": {"hostNetwork": true, "terminationGracePeriodSeconds": 20,
                "containers": [{"name": "api", "image": image}]}});
        codec::decode_any(text.to_string().as_bytes()).unwrap()
    };
    w.feed(NodeInput::StaticPods(vec![manifest("web:1")]));
    w.run_for(2);
    let before = w.running("api").unwrap().id.clone();
    w.images.insert("web:2".into());
    w.stubborn.insert("api".into());
    // The manifest is changed while no kubelet runs, as a restart with new settings does it. The API
    // is not known, and would not be if it was this pod's to serve.
    w.replace_kubelet();
    w.feed(NodeInput::StaticPods(vec![manifest("web:2")]));
    w.feed(NodeInput::Runtime(RuntimeInput::Event(RuntimeEvent::Connected)));
    let begun = |w: &World| w.requests.iter().any(|line| line.starts_with("sandbox "));
    w.run_for(15);
    assert!(w.requests.contains(&"stop api 20".to_owned()) && !begun(&w), "{:?}", w.requests);
    w.run_for(10);
    assert!(begun(&w), "{:?}", w.requests);
    assert_eq!(w.specs["api"].image, "web:2");
    assert!(w.running("api").unwrap().id != before);
}

#[test]
fn names_are_resolved_as_the_cluster_does() {
    let mut w = World::new();
    w.pod(
        "web",
        json!({"containers": [{"name": "app", "image": "web:1"}],
            "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}],
            "dnsConfig": {"options": [{"name": "ndots", "value": "2"}]}}),
    );
    let text = |name: &str| {
        let files = &w.specs["app"].files;
        files.iter().find(|f| f.name == name).unwrap().content.clone()
    };
    insta::assert_snapshot!(text("resolv.conf"), @"
    nameserver 10.96.0.10
    search default.svc.cluster.local svc.cluster.local cluster.local example.org
    options ndots:2
    ");
    assert!(text("etc-hosts").contains("10.244.1.5\tweb\n"));
    assert!(text("etc-hosts").contains("1.2.3.4\ta\tb\n"));
}
