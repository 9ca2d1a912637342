//! What kubelets answer: logs and streams.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::cluster::Cluster;

/// A kubelet that tells the path it was asked for and, after an upgrade, echoes in capitals.
async fn kubelet(cluster: &Cluster) -> u16 {
    let chain = CertificateDer::from_pem_file(cluster.file("server.crt")).unwrap();
    let key = PrivateKeyDer::from_pem_file(cluster.file("server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![chain], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let stream = acceptor.accept(stream).await.unwrap();
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service_fn(answer))
                .with_upgrades();
            tokio::spawn(connection);
        }
    });
    port
}

async fn answer(
    mut request: Request<Incoming>,
) -> Result<Response<Full<bytes::Bytes>>, std::convert::Infallible> {
    assert!(!request.headers().contains_key("authorization"));
    let path = request.uri().to_string();
    if path == "/stats/summary" {
        return Ok(Response::new(Full::from(summary())));
    }
    if path.contains("tailLines=400") {
        let mut refused = Response::new(Full::from("container \"c\" is waiting to start"));
        *refused.status_mut() = StatusCode::BAD_REQUEST;
        return Ok(refused);
    }
    if !request.headers().contains_key("upgrade") {
        return Ok(Response::new(Full::from(path)));
    }
    tokio::spawn(async move {
        let mut stream = TokioIo::new(hyper::upgrade::on(&mut request).await.unwrap());
        let mut bytes = [0; 5];
        stream.read_exact(&mut bytes).await.unwrap();
        bytes.make_ascii_uppercase();
        stream.write_all(&bytes).await.unwrap();
        stream.write_all(path.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
    });
    let mut switching = Response::new(Full::default());
    *switching.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    switching.headers_mut().insert("upgrade", "test".parse().unwrap());
    switching.headers_mut().insert("connection", "Upgrade".parse().unwrap());
    Ok(switching)
}

/// The more often it is asked, the more was used.
fn summary() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let cpu = COUNT.fetch_add(1, Ordering::Relaxed) * 1_000_000_000;
    let used = json!({"name": "c", "cpu": {"usageCoreNanoSeconds": cpu},
        "memory": {"workingSetBytes": 4 << 20}});
    let pod = json!({"podRef": {"name": "p", "namespace": "default", "uid": "UID"},
        "containers": [used]});
    let uid = UID.lock().unwrap().clone();
    json!({"node": used, "pods": [pod]}).to_string().replace("UID", &uid)
}

/// That of the pod, which its kubelet knows.
static UID: std::sync::Mutex<String> = std::sync::Mutex::new(String::new());

#[tokio::test]
async fn use_is_measured_when_somebody_asks() {
    let cluster = cluster_with_pod().await;
    let admin = cluster.admin();
    let running = json!({"metadata": {"labels": {"a": "b"}}, "status": {"phase": "Running"}});
    let kind = "application/merge-patch+json";
    let path = "/api/v1/namespaces/default/pods/p";
    let (_, pod) = admin.call("PATCH", path, kind, &running).await;
    pod["metadata"]["uid"].as_str().unwrap().clone_into(&mut UID.lock().unwrap());
    admin.call("PATCH", &format!("{path}/status"), kind, &running).await;
    let metrics = "/apis/metrics.k8s.io/v1beta1";
    let (code, node) = admin.get(&format!("{metrics}/nodes/n")).await;
    assert_eq!((code, &node["kind"]), (200, &json!("NodeMetrics")), "{node}");
    assert_eq!(node["usage"]["memory"], "4Mi");
    let cpu = node["usage"]["cpu"].as_str().unwrap();
    let nano: u64 = cpu.trim_end_matches(['n', 'u', 'm']).parse().unwrap();
    assert!(nano > 0, "{cpu}");
    // What was just measured is told again, to whoever asks for pods, too.
    let (code, pods) = admin.get(&format!("{metrics}/namespaces/default/pods")).await;
    assert_eq!((code, &pods["kind"]), (200, &json!("PodMetricsList")), "{pods}");
    let pod = &pods["items"][0];
    assert_eq!((&pod["metadata"]["name"], &pod["window"]), (&json!("p"), &node["window"]));
    assert_eq!(pod["metadata"]["labels"], json!({"a": "b"}));
    assert_eq!(pod["containers"][0]["usage"], node["usage"]);
    for (selector, count) in [("a%3Db", 1), ("a%3Dc", 0)] {
        let (_, pods) = admin.get(&format!("{metrics}/pods?labelSelector={selector}")).await;
        assert_eq!(pods["items"].as_array().unwrap().len(), count, "{selector}");
    }
    for path in ["nodes/x", "namespaces/default/pods/x"] {
        assert_eq!(admin.get(&format!("{metrics}/{path}")).await.0, 404, "{path}");
    }
    assert_eq!(admin.call("DELETE", &format!("{metrics}/nodes/n"), "", "").await.0, 405);
}

async fn cluster_with_pod() -> Cluster {
    let cluster = Cluster::start().await;
    let port = kubelet(&cluster).await;
    let admin = cluster.admin();
    let node = json!({"metadata": {"name": "n"}, "status": {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}});
    assert_eq!(admin.post("/api/v1/nodes", &node).await.0, 201);
    let kind = "application/merge-patch+json";
    assert_eq!(admin.call("PATCH", "/api/v1/nodes/n/status", kind, &node).await.0, 200);
    let account = json!({"metadata": {"name": "default"}});
    admin.post("/api/v1/namespaces/default/serviceaccounts", &account).await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n",
        "containers": [{"name": "c", "image": "i"}]}});
    let (code, made) = admin.post("/api/v1/namespaces/default/pods", &pod).await;
    assert_eq!(code, 201, "{made}");
    cluster
}

#[tokio::test]
async fn logs_are_passed_on() {
    let cluster = cluster_with_pod().await;
    let admin = cluster.admin();
    let path = "/api/v1/namespaces/default/pods/p/log";
    let (code, log) = admin.get(&format!("{path}?tailLines=3&follow=true")).await;
    assert_eq!((code, log), (200, json!("/containerLogs/default/p/c?tailLines=3&follow=true")));
    let (code, refused) = admin.get(&format!("{path}?tailLines=400")).await;
    assert_eq!((code, &refused["reason"]), (400, &json!("BadRequest")));
    assert_eq!(refused["message"], "container \"c\" is waiting to start");
    assert_eq!(admin.get(&format!("{path}?container=x")).await.0, 400);
    assert_eq!(admin.get("/api/v1/namespaces/default/pods/q/log").await.0, 404);
}

#[tokio::test]
async fn streams_are_tunnelled() {
    let cluster = cluster_with_pod().await;
    let path = "/api/v1/namespaces/default/pods/p/exec?command=ls&stdin=true";
    let request = Request::post(path)
        .header("connection", "Upgrade")
        .header("upgrade", "test")
        .body(Full::default())
        .unwrap();
    let mut response = cluster.admin().send(request).await;
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let mut stream = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
    stream.write_all(b"hello").await.unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).await.unwrap();
    assert_eq!(all, "HELLO/exec/default/p/c?command=ls&input=1");
    let request = Request::post(path).body(Full::default()).unwrap();
    let refused = cluster.admin().send(request).await;
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    let body = refused.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&body).contains("Upgrade request required"));
}
