//! Hollow nodes against an API server on the store in memory.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[expect(dead_code, reason = "the tests of the API server use all of it")]
#[path = "../../apiserver/tests/api/cluster.rs"]
mod cluster;

use std::time::Duration;

use cluster::{Client, Cluster};
use kubelet::container_runtime::NodeShape;
use node::hollow::{self, Delays, HollowConfig, HollowError};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const PODS: &str = "/api/v1/namespaces/default/pods";

fn config() -> HollowConfig {
    HollowConfig {
        name_prefix: "hollow-".to_owned(),
        first: 0,
        count: 3,
        shape: NodeShape { cpus: 4, memory_bytes: 8 << 30, disk_bytes: 1 << 40 },
        max_pods: 110,
        labels: vec![("zone".to_owned(), "a".to_owned())],
        taints: Vec::new(),
        delays: Delays::default(),
        start_within: Duration::ZERO,
    }
}

struct Nodes {
    stop: watch::Sender<bool>,
    running: JoinHandle<Result<(), HollowError>>,
}

impl Nodes {
    fn start(cluster: &Cluster, config: HollowConfig) -> Self {
        // Another test of this process may have been faster.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let kubeconfig = cluster.kubeconfig();
        let client = || {
            let config = client::Kubeconfig::load(&kubeconfig, &[], "test").unwrap();
            client::Client::new(config).unwrap()
        };
        let (stop, stopped) = watch::channel(false);
        let running = tokio::spawn(hollow::run(config, client(), client(), stopped, || ()));
        Self { stop, running }
    }

    async fn stop(self) {
        self.stop.send_replace(true);
        self.running.await.unwrap().unwrap();
    }
}

/// Reads a watch until `wanted` finds what it looks for.
async fn until<T>(admin: &Client, path: &str, wanted: impl Fn(&str, &Value) -> Option<T>) -> T {
    let mut events = admin.watch(path).await;
    loop {
        let event = events.next().await.expect("the watch goes on");
        if let Some(found) = wanted(event["type"].as_str().unwrap(), &event["object"]) {
            return found;
        }
    }
}

fn condition(object: &Value, type_: &str) -> bool {
    let mut conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    conditions.any(|c| c["type"] == type_ && c["status"] == "True")
}

/// Does what the controllers and the scheduler do elsewhere: waits for the node and gives it its
/// pod range.
async fn ready(admin: &Client, name: &str, range: &str) -> Value {
    let path = format!("/api/v1/nodes?watch=1&fieldSelector=metadata.name%3D{name}");
    until(admin, &path, |_, _| Some(())).await;
    let patch = json!({"spec": {"podCIDR": range, "podCIDRs": [range]}});
    let node = format!("/api/v1/nodes/{name}");
    let merge = "application/merge-patch+json";
    assert_eq!(admin.call("PATCH", &node, merge, patch).await.0, 200);
    until(admin, &path, |_, node| condition(node, "Ready").then(|| node.clone())).await
}

fn pod(name: &str, node: &str, args: &[&str]) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {"nodeName": node, "restartPolicy": "Never",
            "automountServiceAccountToken": false,
            "tolerations": [{"operator": "Exists"}],
            "containers": [{"name": "main", "image": "web:1", "args": args}]},
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_run_until_they_are_deleted_or_end() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let account = json!({"metadata": {"name": "default"}});
    admin.post("/api/v1/namespaces/default/serviceaccounts", &account).await;
    let nodes = Nodes::start(&cluster, config());
    for (number, range) in [(0, "10.1.0.0/24"), (2, "10.1.2.0/24")] {
        let node = ready(&admin, &format!("hollow-{number}"), range).await;
        assert_eq!(node["metadata"]["labels"]["kprov.io/hollow"], "true");
        assert_eq!(node["metadata"]["labels"]["zone"], "a");
        assert_eq!(node["status"]["capacity"]["cpu"], "4");
        assert_eq!(node["status"]["capacity"]["memory"], "8Gi");
    }
    let lease = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases?watch=1";
    let holder = until(&admin, lease, |_, lease| {
        (lease["metadata"]["name"] == "hollow-2").then(|| lease["spec"]["holderIdentity"].clone())
    });
    assert_eq!(holder.await, "hollow-2");

    for new in [pod("server", "hollow-2", &[]), pod("job", "hollow-0", &["--run=1ms", "--exit=3"])]
    {
        let (code, answer) = admin.post(PODS, &new).await;
        assert_eq!(code, 201, "{answer}");
    }
    let of = |name: &str| format!("{PODS}?watch=1&fieldSelector=metadata.name%3D{name}");
    let (server_path, job_path) = (of("server"), of("job"));
    let server = until(&admin, &server_path, |_, pod| {
        condition(pod, "Ready").then(|| pod["status"].clone())
    });
    let server = server.await;
    assert_eq!((&server["phase"], &server["hostIP"]), (&json!("Running"), &json!("198.18.0.3")));
    assert!(server["podIP"].as_str().unwrap().starts_with("10.1.2."), "{server}");
    let job = until(&admin, &job_path, |_, pod| {
        (pod["status"]["phase"] == "Failed").then(|| pod["status"].clone())
    });
    assert_eq!(job.await["containerStatuses"][0]["state"]["terminated"]["exitCode"], 3);

    let mut events = admin.watch(&server_path).await;
    let (code, _) = admin.call("DELETE", &format!("{PODS}/server"), "", "").await;
    assert_eq!(code, 200);
    while events.next().await.unwrap()["type"] != "DELETED" {}
    nodes.stop().await;
    let (_, list) = admin.get("/api/v1/nodes").await;
    assert_eq!(list["items"].as_array().unwrap().len(), 3, "nodes stay registered");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_nodes_are_left_alone() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let real = json!({"metadata": {"name": "hollow-2"}});
    assert_eq!(admin.post("/api/v1/nodes", &real).await.0, 201);
    let nodes = Nodes::start(&cluster, config());
    let error = nodes.running.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("hollow-2"), "{error}");
    // Numbers beside it are free.
    let nodes = Nodes::start(&cluster, HollowConfig { count: 2, ..config() });
    until(&admin, "/api/v1/nodes?watch=1", |_, node| {
        (node["metadata"]["name"] == "hollow-1").then_some(())
    })
    .await;
    nodes.stop().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_that_cannot_be_reached_is_an_error() {
    let cluster = Cluster::start().await;
    let kubeconfig = cluster.kubeconfig();
    let text = std::fs::read_to_string(&kubeconfig).unwrap();
    let text = text.replace(&cluster.address.to_string(), "127.0.0.1:1");
    std::fs::write(&kubeconfig, text).unwrap();
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let config = client::Kubeconfig::load(&kubeconfig, &[], "test").unwrap();
    let clients = [config.clone(), config].map(|c| client::Client::new(c).unwrap());
    let [client, watches] = clients;
    let (_stop, stopped) = watch::channel(false);
    let ready = || panic!("nothing is ready");
    let error = hollow::run(self::config(), client, watches, stopped, ready).await.unwrap_err();
    assert!(matches!(error, HollowError::List(_)), "{error}");
    cluster.stop().await;
}
