//! A scheduler and a real extender on this machine, over HTTP and TLS.

use std::convert::Infallible;
use std::path::Path;

use api::{Object, Revision, Time, codec};
use http::Response;
use hyper::service::service_fn;
use machine::{ApiEffect, ApiInput, CallId, Machine, RngTree, WatchEvent};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use scheduler::{Desk, Scheduler};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::scheduler_config_file::parse;

/// What an extender was asked: path and body.
type Asked = Arc<Mutex<Vec<(String, Value)>>>;

/// An extender that takes nodes whose names end in `1` or `2`, prefers the latter, and binds.
async fn extender(tls: Option<TlsAcceptor>) -> (u16, Asked, Arc<Mutex<usize>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Asked::default();
    let connections = Arc::new(Mutex::new(0));
    let (log, count) = (Arc::clone(&asked), Arc::clone(&connections));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            *count.lock().unwrap() += 1;
            let (log, tls) = (Arc::clone(&log), tls.clone());
            tokio::spawn(async move {
                let service = service_fn(move |request| answer(Arc::clone(&log), request));
                let server = hyper::server::conn::http1::Builder::new();
                match tls {
                    None => {
                        let _ = server.serve_connection(TokioIo::new(stream), service).await;
                    }
                    Some(tls) => {
                        let Ok(stream) = tls.accept(stream).await else { return };
                        let _ = server.serve_connection(TokioIo::new(stream), service).await;
                    }
                }
            });
        }
    });
    (port, asked, connections)
}

async fn answer(
    log: Asked,
    request: http::Request<hyper::body::Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    assert_eq!(request.method(), Method::POST);
    assert_eq!(request.headers()[header::CONTENT_TYPE], "application/json");
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let body: Value = serde_json::from_slice(&body).unwrap();
    log.lock().unwrap().push((path.clone(), body.clone()));
    let names: Vec<&str> =
        body["NodeNames"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let answer = match path.as_str() {
        "/v1/filter" => json!({
            "NodeNames": names.iter().filter(|n| n.ends_with(['1', '2'])).collect::<Vec<_>>(),
            "FailedNodes": {"n3": "no device"}, "Error": ""}),
        "/v1/prioritize" => json!([{"Host": "n2", "Score": 10}, {"Host": "n1", "Score": 0}]),
        "/v1/bind" => json!({"Error": ""}),
        "/v1/hang" => std::future::pending().await,
        _ => {
            let mut refused = Response::new(Full::from("no such thing"));
            *refused.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            return Ok(refused);
        }
    };
    Ok(Response::new(Full::from(answer.to_string())))
}

fn file(extenders: &Value) -> scheduler::Configuration {
    let file = json!({"apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration", "extenders": extenders});
    parse(&file.to_string()).unwrap()
}

fn load(configuration: &scheduler::Configuration) -> anyhow::Result<Extenders> {
    Extenders::load(&configuration.scheduler.extenders, &configuration.extenders)
}

/// A scheduler that hears of three nodes and a pod, with answers of extenders to its questions.
struct Run {
    scheduler: Scheduler,
    extenders: Extenders,
    out: Vec<ApiEffect>,
    revision: u64,
}

impl Run {
    fn new(configuration: &scheduler::Configuration) -> Self {
        let desk = Desk::new(&configuration.scheduler).unwrap();
        let scheduler = Scheduler::new(desk, None, &RngTree::new(1));
        let extenders = load(configuration).unwrap();
        let mut run = Self { scheduler, extenders, out: Vec::new(), revision: 1 };
        for kind in Scheduler::KINDS.iter().copied() {
            let objects = Vec::new();
            run.hear(WatchEvent::Replaced { kind, objects, revision: Revision(1) });
        }
        for name in ["n1", "n2", "n3"] {
            run.change(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
                "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "10"}}}));
        }
        run.change(json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "namespace": "d", "uid": "u"}, "spec": {"containers": []}}));
        run
    }

    fn hear(&mut self, event: WatchEvent) {
        self.scheduler.step(Time::from_secs(1), ApiInput::Watch(event), &mut self.out);
    }

    fn change(&mut self, mut value: Value) {
        self.revision += 1;
        value["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        let object: Object = codec::decode_any(value.to_string().as_bytes()).unwrap();
        self.hear(WatchEvent::Changed(object));
    }

    fn question(&mut self) -> Option<(CallId, u32, ExtenderVerb, String)> {
        let asks = |effect: &ApiEffect| {
            matches!(effect, ApiEffect::Call { request: Request::Extend { .. }, .. })
        };
        let at = self.out.iter().position(asks)?;
        match self.out.remove(at) {
            ApiEffect::Call { id, request: Request::Extend { extender, verb, body } } => {
                Some((id, extender, verb, body))
            }
            _ => None,
        }
    }

    /// Has all questions answered, and tells what else was done, in words.
    async fn settle(&mut self) -> Vec<String> {
        while let Some((id, extender, verb, body)) = self.question() {
            let result = self.extenders.ask(extender, verb, body).await;
            let input = ApiInput::Reply { id, result };
            self.scheduler.step(Time::from_secs(1), input, &mut self.out);
        }
        let words = |effect: ApiEffect| match effect {
            ApiEffect::Record(report) => {
                format!("{}: {}", report.record.reason, report.record.message)
            }
            ApiEffect::Call { request: Request::Bind { pod, node, .. }, .. } => {
                format!("bind {} {node}", pod.name)
            }
            ApiEffect::Call { request, .. } => format!("{request:?}"),
        };
        std::mem::take(&mut self.out).into_iter().map(words).collect()
    }
}

fn paths(asked: &Asked) -> Vec<String> {
    asked.lock().unwrap().iter().map(|(path, _)| path.clone()).collect()
}

#[tokio::test]
async fn a_real_extender_has_its_say() {
    let (port, asked, connections) = extender(None).await;
    let all = json!([{"urlPrefix": format!("http://127.0.0.1:{port}/v1/"), "filterVerb": "filter",
        "prioritizeVerb": "prioritize", "weight": 1, "bindVerb": "bind",
        "nodeCacheCapable": true}]);
    let mut run = Run::new(&file(&all));
    assert_eq!(run.settle().await, ["Scheduled: Successfully assigned d/p to n2"]);
    assert_eq!(paths(&asked), ["/v1/filter", "/v1/prioritize", "/v1/bind"]);
    {
        let asked = asked.lock().unwrap();
        assert_eq!(asked[0].1["NodeNames"], json!(["n1", "n2", "n3"]));
        assert_eq!(asked[1].1["NodeNames"], json!(["n1", "n2"]));
        let (body, node) = (&asked[2].1, "n2");
        let expected = json!({"PodName": "p", "PodNamespace": "d", "PodUID": "u", "Node": node});
        assert_eq!(*body, expected);
    }
    // All went over one connection.
    assert_eq!(*connections.lock().unwrap(), 1);
    // One that sends nodes whole and does not know them is not helped by names.
    let whole = json!([{"urlPrefix": format!("http://127.0.0.1:{port}/v1"),
        "filterVerb": "filter"}]);
    let mut run = Run::new(&file(&whole));
    let told = run.settle().await;
    assert!(
        told[0].starts_with("FailedScheduling: 0/3 nodes are available: 1 no device."),
        "{told:?}"
    );
    let body = asked.lock().unwrap().last().unwrap().1.clone();
    let nodes = body["Nodes"]["items"].as_array().unwrap();
    assert_eq!((nodes.len(), &nodes[0]["kind"]), (3, &json!("Node")));
}

#[tokio::test]
async fn trouble_is_told_as_it_is() {
    let (port, ..) = extender(None).await;
    let url = format!("http://127.0.0.1:{port}/v1");
    let one = |filter: &str, ignorable: bool| {
        json!([{"urlPrefix": url, "filterVerb": filter, "httpTimeout": "40ms",
            "nodeCacheCapable": true, "ignorable": ignorable}])
    };
    let first = |mut told: Vec<String>| told.remove(0);
    let mut run = Run::new(&file(&one("nonsense", false)));
    assert_eq!(
        first(run.settle().await),
        format!("FailedScheduling: failed nonsense with extender at URL {url}/nonsense, code 500")
    );
    let mut run = Run::new(&file(&one("hang", false)));
    assert_eq!(
        first(run.settle().await),
        format!(
            "FailedScheduling: Post \"{url}/hang\": context deadline exceeded: no answer within 40ms"
        )
    );
    let mut run = Run::new(&file(&one("hang", true)));
    assert!(first(run.settle().await).starts_with("bind p "));
    // Nobody listens there.
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let gone = json!([{"urlPrefix": format!("http://127.0.0.1:{free}"), "filterVerb": "filter"}]);
    let told = first(Run::new(&file(&gone)).settle().await);
    assert!(
        told.starts_with(&format!("FailedScheduling: Post \"http://127.0.0.1:{free}/filter\": ")),
        "{told}"
    );
    assert!(told.contains("refused"), "{told}");
}

#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_is_opened_anew() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // Each connection answers once, and says nothing of its end.
            let service = service_fn(|_| async {
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(r#"{"NodeNames": []}"#)))
            });
            let mut server = hyper::server::conn::http1::Builder::new();
            server.keep_alive(false);
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        }
    });
    let config = json!([{"urlPrefix": format!("http://127.0.0.1:{port}"), "filterVerb": "f"}]);
    let extenders = load(&file(&config)).unwrap();
    for _ in 0..3 {
        let answer = extenders.ask(0, ExtenderVerb::Filter, "{}".to_owned()).await;
        assert_eq!(answer, Ok(Reply::Text(r#"{"NodeNames": []}"#.to_owned())));
    }
}

/// Writes an authority, and what it has issued for a server on this machine and for a client.
fn certificates(folder: &Path) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "extenders");
    std::fs::write(folder.join("ca.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(params, key);
    for name in ["extender.test", "client"] {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let cert = params.signed_by(&key, &issuer).unwrap();
        std::fs::write(folder.join(format!("{name}.crt")), cert.pem()).unwrap();
        std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

fn acceptor(folder: &Path) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("ca.crt")).unwrap()).unwrap();
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let chain = CertificateDer::from_pem_file(folder.join("extender.test.crt")).unwrap();
    let key = PrivateKeyDer::from_pem_file(folder.join("extender.test.key")).unwrap();
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(vec![chain], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(tls))
}

#[tokio::test]
async fn over_tls_both_know_each_other() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let (port, ..) = extender(Some(acceptor(folder.path()))).await;
    let path = |name: &str| folder.path().join(name).display().to_string();
    let asked = |tls: Value| {
        let config = json!([{"urlPrefix": format!("https://127.0.0.1:{port}/v1"),
            "filterVerb": "filter", "enableHTTPS": true, "nodeCacheCapable": true,
            "tlsConfig": tls}]);
        let extenders = load(&file(&config)).unwrap();
        async move { extenders.ask(0, ExtenderVerb::Filter, r#"{"NodeNames": []}"#.to_owned()).await }
    };
    let key = base64_of(&path("client.key"));
    let good = json!({"caFile": path("ca.crt"), "serverName": "extender.test",
        "certFile": path("client.crt"), "keyData": key});
    assert!(matches!(asked(good.clone()).await, Ok(Reply::Text(_))));
    // Without an authority nobody looks at its certificate.
    let mut blind = good.clone();
    blind.as_object_mut().unwrap().remove("caFile");
    assert!(matches!(asked(blind).await, Ok(Reply::Text(_))));
    // The certificate is not for the address.
    let mut other = good.clone();
    other.as_object_mut().unwrap().remove("serverName");
    let error = asked(other).await.unwrap_err().to_string();
    assert!(error.contains("certificate"), "{error}");
    // The extender does not know whoever asks.
    let unknown = json!({"caFile": path("ca.crt"), "serverName": "extender.test"});
    assert!(asked(unknown).await.is_err());
}

fn base64_of(path: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(std::fs::read(path).unwrap())
}

#[test]
fn what_cannot_be_reached_is_told_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken.crt");
    std::fs::write(&broken, "no certificate").unwrap();
    let check = |fields: Value, expected: &str| {
        let error = format!("{:#}", load(&file(&json!([fields]))).err().unwrap());
        assert!(error.starts_with("extenders[0]: ") && error.contains(expected), "{error}");
    };
    check(json!({"urlPrefix": "http://a b"}), "urlPrefix \"http://a b\"");
    check(json!({"urlPrefix": "http://u:p@x"}), "must not hold a user");
    let tls = |tls: Value| json!({"urlPrefix": "https://x", "tlsConfig": tls});
    check(tls(json!({"caFile": "/nowhere/ca.crt"})), "cannot read /nowhere/ca.crt");
    check(tls(json!({"caFile": broken})), "the authority holds no certificate");
    check(tls(json!({"caData": "?"})), "tlsConfig.caData is no base64");
    check(tls(json!({"insecure": true, "serverName": "a b"})), "\"a b\" is no name of a server");
}
