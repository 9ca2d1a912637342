//! On a real etcd, which dies and comes back.

use std::time::Duration;

use serde_json::json;

use crate::cluster::Cluster;
use crate::etcd_process::EtcdProcess;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn two_servers(etcd: &EtcdProcess) -> (Cluster, Cluster) {
    let store = || apiserver::StoreConfig::Etcd { endpoints: vec![etcd.endpoint()], tls: None };
    let first = Cluster::start_on(store()).await;
    let second = Cluster::start_with(|config| {
        config.store = store();
        config.advertise_address = "192.0.2.8".parse().unwrap();
    })
    .await;
    (first, second)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_see_each_others_writes_at_once() {
    let etcd = EtcdProcess::start().await;
    let (first, second) = two_servers(&etcd).await;
    let (one, two) = (first.admin(), second.admin());
    for i in 0..20 {
        let map = json!({"metadata": {"name": format!("m{i}")}});
        assert_eq!(one.post(MAPS, &map).await.0, 201);
        assert_eq!(two.get(&format!("{MAPS}/m{i}")).await.0, 200, "reads are consistent");
    }
    let watch =
        "/api/v1/namespaces/default/endpoints?watch=1&fieldSelector=metadata.name%3Dkubernetes";
    let mut events = one.watch(watch).await;
    let mut wait_for = async |expected: &[&str]| loop {
        let event = events.next().await.unwrap();
        let addresses = event["object"]["subsets"][0]["addresses"].as_array().unwrap();
        let found: Vec<_> = addresses.iter().map(|a| a["ip"].as_str().unwrap()).collect();
        if found == expected {
            break;
        }
    };
    wait_for(&["192.0.2.7", "192.0.2.8"]).await;
    second.stop().await;
    wait_for(&["192.0.2.7"]).await;
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_falls_silent_is_taken_out_and_no_other() {
    let etcd = EtcdProcess::start().await;
    let start = async |address: &str| {
        Cluster::start_with(|config| {
            config.store =
                apiserver::StoreConfig::Etcd { endpoints: vec![etcd.endpoint()], tls: None };
            config.advertise_address = address.parse().unwrap();
            config.masters_renewal = Duration::from_millis(200);
        })
        .await
    };
    let (first, second) = (start("192.0.2.7").await, start("192.0.2.8").await);
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases?watch=1";
    let mut events = first.admin().watch(leases).await;
    let mut renewals = std::collections::BTreeMap::<String, u32>::new();
    // Ten renewals of each: more than a server may miss.
    while renewals.len() < 2 || renewals.values().any(|n| *n < 10) {
        let event = events.next().await.unwrap();
        let name = event["object"]["metadata"]["name"].as_str().unwrap().to_owned();
        *renewals.entry(name).or_default() += 1;
    }
    let endpoints = "/api/v1/namespaces/default/endpoints/kubernetes";
    let addresses = async || {
        let (_, found) = first.admin().get(endpoints).await;
        let addresses = found["subsets"][0]["addresses"].as_array().unwrap().clone();
        addresses.iter().map(|a| a["ip"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(addresses().await, ["192.0.2.7", "192.0.2.8"]);
    second.kill();
    let mut events = first.admin().watch(leases).await;
    while addresses().await != ["192.0.2.7"] {
        events.next().await.expect("the first server renews");
    }
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_outlives_the_death_of_etcd() {
    let mut etcd = EtcdProcess::start().await;
    let cluster = Cluster::start_on(apiserver::StoreConfig::Etcd {
        endpoints: vec![etcd.endpoint()],
        tls: None,
    })
    .await;
    let admin = cluster.admin();
    let mut events = admin.watch(&format!("{MAPS}?watch=1")).await;
    assert_eq!(admin.post(MAPS, &json!({"metadata": {"name": "a"}})).await.0, 201);
    assert_eq!(events.short().await, "ADDED a");
    etcd.kill();
    let (code, _) = admin.post(MAPS, &json!({"metadata": {"name": "b"}})).await;
    assert!(code == 503 || code == 504, "{code}");
    assert_eq!(admin.get("/readyz").await.0, 500);
    assert_eq!(admin.get("/livez").await.0, 200, "a restart would not help");
    assert_eq!(admin.get(&format!("{MAPS}?resourceVersion=0")).await.0, 200);
    etcd.restart().await;
    let mut tries = 0;
    while admin.post(MAPS, &json!({"metadata": {"name": "c"}})).await.0 != 201 {
        tries += 1;
        assert!(tries < 100, "the server does not recover");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut event = events.short().await;
    if event == "ADDED b" {
        // Its answer was lost, it was not.
        event = events.short().await;
    }
    assert_eq!(event, "ADDED c");
    cluster.stop().await;
}
