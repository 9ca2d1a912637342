//! The DNS server against an API server on the store in memory.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[expect(dead_code, reason = "the tests of the API server use all of it")]
#[path = "../../apiserver/tests/api/cluster.rs"]
mod cluster;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use cluster::{Client, Cluster};
use network::dns::Zone;
use node::cluster_dns::{self, Settings, Vitals};
use serde_json::{Value, json};
use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, Question, TYPE};
use tokio::net::UdpSocket;
use tokio::sync::{oneshot, watch};

const SERVICES: &str = "/api/v1/namespaces/default/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";

async fn create(admin: &Client, path: &str, object: Value) {
    let (code, answer) = admin.post(path, &object).await;
    assert_eq!(code, 201, "{answer}");
}

/// The code of the answer and its addresses.
async fn ask(server: SocketAddr, name: &str) -> String {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut packet = Packet::new_query(1);
    let name = Name::new(name).unwrap();
    packet.questions.push(Question::new(name, TYPE::A.into(), CLASS::IN.into(), false));
    socket.send_to(&packet.build_bytes_vec().unwrap(), server).await.unwrap();
    let mut buffer = [0; 512];
    let length = socket.recv(&mut buffer).await.unwrap();
    let reply = Packet::parse(&buffer[..length]).unwrap();
    let mut text = format!("{:?}", reply.rcode());
    for record in &reply.answers {
        let RData::A(a) = &record.rdata else { panic!("{record:?}") };
        text.push_str(&format!(" {}", Ipv4Addr::from(a.address)));
    }
    text
}

/// Asks until the server has learned what makes the answer so.
async fn until(server: SocketAddr, name: &str, expected: &str) {
    while ask(server, name).await != expected {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_follow_services_and_endpoints() {
    // Another test of this process may have been faster.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let web = json!({"metadata": {"name": "web"},
        "spec": {"clusterIP": "None", "ports": [{"port": 80}]}});
    create(&admin, SERVICES, web).await;
    let config = client::Kubeconfig::load(&cluster.kubeconfig(), &[], "test").unwrap();
    let client = client::Client::new(config).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings {
        listen: "127.0.0.1:0".parse().unwrap(),
        zone: Zone { domain: "cluster.local".to_owned(), ranges: Vec::new() },
        clients: Vec::new(),
        own: Vec::new(),
        resolv_conf: folder.path().join("none"),
    };
    let (stop, stopped) = watch::channel(false);
    let (tell, told) = oneshot::channel();
    let vitals = Arc::new(Vitals::default());
    let on_synced = |address| tell.send(address).unwrap();
    let run = cluster_dns::run(client, settings, Arc::clone(&vitals), on_synced, stopped);
    assert!(vitals.check().is_err());
    let running = tokio::spawn(run);
    let server = told.await.unwrap();
    // What was there before is known from the first answer on.
    let web = "web.default.svc.cluster.local";
    assert_eq!(ask(server, web).await, "NoError");
    assert_eq!(ask(server, "nobody.default.svc.cluster.local").await, "NameError");
    let slice = json!({"metadata": {"name": "web-1",
            "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "endpoints": [{"addresses": ["10.244.0.9"]}], "ports": []});
    create(&admin, SLICES, slice).await;
    until(server, web, "NoError 10.244.0.9").await;
    let (code, answer) =
        admin.call("DELETE", &format!("{SERVICES}/web"), "application/json", Value::Null).await;
    assert_eq!(code, 200, "{answer}");
    until(server, web, "NameError").await;
    assert!(vitals.check().is_ok());
    stop.send_replace(true);
    running.await.unwrap().unwrap();
}
