mod fake_api;
mod fake_docker;

use std::net::SocketAddr;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{Request, Response, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, KeyPair};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::*;
use fake_api::FakeApi;
use fake_docker::FakeDocker;
use spdy::tests::{Received, TestClient};
use websocket::ByteStream;

/// An authority and whom it vouches for.
pub(crate) struct Pki {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, both PEM.
pub(crate) struct Pair {
    pub(crate) cert: String,
    pub(crate) key: String,
}

impl Pki {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "kubernetes");
        let key = KeyPair::generate().unwrap();
        Self { issuer: CertifiedIssuer::self_signed(params, key).unwrap() }
    }

    pub(crate) fn ca(&self) -> String {
        self.issuer.pem()
    }

    pub(crate) fn pair(&self, name: &str, organization: &str, server: bool) -> Pair {
        let names = if server { vec!["127.0.0.1".to_owned()] } else { Vec::new() };
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, organization);
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![if server {
            ExtendedKeyUsagePurpose::ServerAuth
        } else {
            ExtendedKeyUsagePurpose::ClientAuth
        }];
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        Pair { cert: cert.pem(), key: key.serialize_pem() }
    }
}

/// The server with all that it talks to.
struct World {
    pki: Pki,
    api: FakeApi,
    docker: FakeDocker,
    address: SocketAddr,
    _stop: oneshot::Sender<()>,
}

struct OnePod(Object);

impl PodSource for OnePod {
    fn pods(&self) -> Vec<Object> {
        vec![self.0.clone()]
    }

    fn container_id(&self, _: &str, _: &str, _: Option<&str>, _: &str, _: bool) -> Option<String> {
        None
    }
}

impl World {
    async fn start(pods: Arc<dyn PodSource>) -> Self {
        let pki = Pki::new();
        let api = FakeApi::start(&pki).await;
        let docker = FakeDocker::start().await;
        let dir = tempfile::tempdir().unwrap();
        let client_ca = dir.path().join("ca.pem");
        std::fs::write(&client_ca, pki.ca()).unwrap();
        let pair = pki.pair("system:node:n1", "system:nodes", true);
        let serving = ServingCertificate::from_pem(pair.cert.as_bytes(), pair.key.as_bytes());
        let config = ServerConfig {
            address: "127.0.0.1:0".parse().unwrap(),
            client_ca,
            serving: Arc::new(serving.unwrap()),
            node_name: "n1".to_owned(),
        };
        let tls = listener::tls(&config).unwrap();
        let listener = TcpListener::bind(config.address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let (docker_client, api_client) = (docker.client(), api.client(&pki));
        tokio::spawn(async move {
            serve_on(listener, tls, config.node_name, docker_client, pods, api_client, async {
                let _ = stopped.await;
            })
            .await;
        });
        Self { pki, api, docker, address, _stop: stop }
    }

    /// Sends a request as a user with a certificate, or as nobody.
    async fn send(&self, user: Option<&str>, request: Request<Empty<Bytes>>) -> Response<Incoming> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pki.ca().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let tls = match user {
            Some(user) => {
                let pair = self.pki.pair(user, "system:masters", false);
                let cert = CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![cert], key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let stream = TlsConnector::from(Arc::new(tls)).connect(name, stream).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        sender.send_request(request).await.unwrap()
    }

    async fn get(&self, user: Option<&str>, path: &str) -> (u16, String) {
        let response = self.send(user, request(path)).await;
        let code = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (code, String::from_utf8(body.to_vec()).unwrap())
    }

    /// Changes to another protocol.
    async fn upgrade(
        &self,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> TokioIo<hyper::upgrade::Upgraded> {
        let mut request = request(path);
        request.headers_mut().insert(header::CONNECTION, "Upgrade".parse().unwrap());
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let response = self.send(Some("admin"), request).await;
        if response.status() != 101 {
            let body = response.into_body().collect().await.unwrap().to_bytes();
            panic!("{}", String::from_utf8_lossy(&body));
        }
        let (name, protocol) = headers.last().unwrap();
        assert_eq!(response.headers()[*name], *protocol);
        TokioIo::new(hyper::upgrade::on(response).await.unwrap())
    }

    async fn web_socket(
        &self,
        path: &str,
        protocol: &str,
    ) -> WebSocketStream<TokioIo<hyper::upgrade::Upgraded>> {
        let headers = [
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-protocol", protocol),
        ];
        let io = self.upgrade(path, &headers).await;
        WebSocketStream::from_raw_socket(io, Role::Client, None).await
    }

    async fn spdy(&self, path: &str, protocol: &str) -> TestClient {
        let headers = [("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", protocol)];
        carry(self.upgrade(path, &headers).await)
    }
}

/// Speaks SPDY over any connection.
fn carry<T>(mut io: T) -> TestClient
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (client, mut end) = TestClient::new();
    tokio::spawn(async move {
        let _ = tokio::io::copy_bidirectional(&mut end, &mut io).await;
    });
    client
}

fn request(path: &str) -> Request<Empty<Bytes>> {
    Request::builder().uri(path).header(header::HOST, "n1").body(Empty::new()).unwrap()
}

fn channel(number: u8, payload: &[u8]) -> Message {
    Message::Binary([&[number], payload].concat().into())
}

#[tokio::test]
async fn only_who_may_is_answered() {
    let world = World::start(Arc::new(ByLabels)).await;
    assert_eq!(world.get(None, "/healthz").await, (200, "ok".into()));
    assert_eq!(world.get(None, "/pods").await, (401, "Unauthorized".into()));
    assert_eq!(world.get(None, "/nonsense").await, (401, "Unauthorized".into()));
    let (code, body) = world.get(Some("admin"), "/pods").await;
    assert_eq!(
        (code, body.as_str()),
        (200, r#"{"kind":"PodList","apiVersion":"v1","metadata":{},"items":[]}"#)
    );
    assert_eq!(world.get(Some("admin"), "/nonsense").await.0, 404);
    let (code, body) = world.get(Some("nobody"), "/pods").await;
    assert_eq!(code, 403);
    assert_eq!(
        body,
        "Forbidden (user=nobody, verb=get, resource=nodes, subresource(s)=[pods proxy])\n"
    );

    let token = async |token: &str| {
        let mut request = request("/pods");
        let value = format!("Bearer {token}").parse().unwrap();
        request.headers_mut().insert(header::AUTHORIZATION, value);
        world.send(None, request).await.status().as_u16()
    };
    assert_eq!(token("good").await, 200);
    assert_eq!(token("bad").await, 401);
    assert_eq!((token("good").await, token("bad").await), (200, 401));
    let asked = world.api.asked();
    let reviews = |kind: &str| asked.iter().filter(|r| r["kind"] == kind).count();
    // Answers are remembered: two tokens; admin with two paths, nobody with two subresources, and
    // the token's user.
    assert_eq!((reviews("TokenReview"), reviews("SubjectAccessReview")), (2, 5), "{asked:?}");
    let first = asked.iter().find(|r| r["kind"] == "SubjectAccessReview").unwrap();
    assert_eq!(
        first["spec"],
        json!({"user": "admin", "groups": ["system:masters", "system:authenticated"],
            "resourceAttributes": {"group": "", "name": "n1", "resource": "nodes",
            "subresource": "pods", "verb": "get", "version": "v1"}})
    );
}

#[tokio::test]
async fn logs() {
    let world = World::start(Arc::new(ByLabels)).await;
    let get =
        async |path: &str| world.get(Some("admin"), &format!("/containerLogs/ns/p/{path}")).await;
    assert_eq!(
        get("c?timestamps=true&sinceSeconds=5").await,
        (200, "out 1\nerr 1\nout 2\n".into())
    );
    let asked = world.docker.asked();
    let query = asked.iter().find_map(|path| path.split_once("/containers/new/logs?")).unwrap().1;
    for part in ["stdout=true", "stderr=true", "timestamps=true", "follow=false", "tail=all"] {
        assert!(query.contains(part), "{query}");
    }
    assert_eq!(get("c?limitBytes=8").await, (200, "out 1\ner".into()));
    assert_eq!(get("c?previous=true").await, (200, "old\n".into()));
    assert_eq!(get("c?tailLines=0").await, (200, String::new()));
    assert_eq!(get("x").await, (404, "container \"x\" not found in pod \"p\"\n".into()));
    assert_eq!(
        get("POD?previous=true").await,
        (400, "previous terminated container \"POD\" in pod \"p\" not found".into())
    );
    assert_eq!(get("c?tailLines=x").await.0, 400);
    let missing = world.get(Some("admin"), "/containerLogs/ns/q/c").await;
    assert_eq!(missing, (404, "pod \"q\" does not exist\n".into()));
}

#[tokio::test]
async fn logs_of_pods_the_kubelet_knows() {
    let pod = json!({"metadata": {"name": "p", "namespace": "ns"},
        "spec": {"containers": [{"name": "c"}, {"name": "d"}]},
        "status": {"containerStatuses": [
            {"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 1,
             "containerID": "docker://new", "state": {"running": {}},
             "lastState": {"terminated": {"exitCode": 1, "containerID": "docker://old"}}},
            {"name": "d", "image": "", "imageID": "", "ready": false, "restartCount": 0,
             "state": {"waiting": {"reason": "ContainerCreating"}}}]}});
    let (pod, _) = api::codec::decode(api::Kind::Pod, pod.to_string().as_bytes()).unwrap();
    let world = World::start(Arc::new(OnePod(pod))).await;
    let get =
        async |path: &str| world.get(Some("admin"), &format!("/containerLogs/ns/p/{path}")).await;
    assert_eq!(get("c").await, (200, "out 1\nerr 1\nout 2\n".into()));
    assert_eq!(get("c?previous=true").await, (200, "old\n".into()));
    assert_eq!(
        get("d").await,
        (400, "container \"d\" in pod \"p\" is waiting to start: ContainerCreating".into())
    );
    assert_eq!(get("x").await.0, 404);
    let (code, pods) = world.get(Some("admin"), "/pods").await;
    let pods: Value = serde_json::from_str(&pods).unwrap();
    assert_eq!((code, &pods["items"][0]["metadata"]["name"]), (200, &json!("p")));
}

#[tokio::test]
async fn commands_over_web_sockets() {
    let world = World::start(Arc::new(ByLabels)).await;
    let path = "/exec/ns/p/c?command=cat&command=-&input=1&output=1&error=1";
    let mut socket = world.web_socket(path, "v5.channel.k8s.io").await;
    assert_eq!(socket.next().await.unwrap().unwrap(), channel(1, b""));
    socket.send(channel(0, b"hello")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), channel(1, b"hello"));
    socket.send(channel(255, &[0])).await.unwrap();
    // The fake command says goodbye on standard error when its input ends.
    assert_eq!(socket.next().await.unwrap().unwrap(), channel(2, b"bye"));
    let Message::Binary(status) = socket.next().await.unwrap().unwrap() else { panic!() };
    assert_eq!(status[0], 3);
    let status: Value = serde_json::from_slice(&status[1..]).unwrap();
    assert_eq!(status["reason"], "NonZeroExitCode");
    assert_eq!(status["details"]["causes"], json!([{"reason": "ExitCode", "message": "3"}]));
    assert!(matches!(socket.next().await, Some(Ok(Message::Close(_)))));
    let created = world.docker.created();
    assert_eq!(created[0]["Cmd"], json!(["cat", "-"]));
    assert_eq!(created[0]["AttachStdin"], json!(true));
    assert_eq!(created[0]["Tty"], json!(false));
}

#[tokio::test]
async fn commands_over_spdy() {
    let world = World::start(Arc::new(ByLabels)).await;
    let path = "/exec/ns/p/c?command=cat&stdin=true&stdout=true&stderr=true";
    let mut client = world.spdy(path, "v4.channel.k8s.io").await;
    let mut ids = Vec::new();
    for kind in ["error", "stdin", "stdout", "stderr"] {
        ids.push(client.open(&[("streamtype", kind)]).await);
    }
    client.data(ids[1], b"hello", true).await;
    let mut received = vec![String::new(); 4];
    loop {
        match client.receive().await {
            Received::Data(id, bytes, _) => {
                let place = ids.iter().position(|i| *i == id).unwrap();
                received[place].push_str(std::str::from_utf8(&bytes).unwrap());
            }
            Received::End => break,
            _ => {}
        }
    }
    assert_eq!(received[1..], ["", "hello", "bye"]);
    assert!(received[0].contains(r#""reason":"NonZeroExitCode""#), "{}", received[0]);
}

#[tokio::test]
async fn connections_into_a_pod() {
    let world = World::start(Arc::new(ByLabels)).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (mut from, mut to) = stream.split();
            let _ = tokio::io::copy(&mut from, &mut to).await;
        }
    });
    let spdy = world.spdy("/portForward/ns/p", port_forward::PROTOCOL).await;
    let socket = world.web_socket("/portForward/ns/p", port_forward::TUNNELED).await;
    for mut client in [spdy, carry(ByteStream::of(socket))] {
        let headers = |kind| [("streamtype", kind), ("port", port.as_str()), ("requestid", "0")];
        let error = client.open(&headers("error")).await;
        let data = client.open(&headers("data")).await;
        client.data(data, b"through", true).await;
        assert_eq!(client.rest_of(data).await, b"through");
        assert_eq!(client.rest_of(error).await, b"");
    }
}

#[tokio::test]
async fn commands_that_cannot_be() {
    let world = World::start(Arc::new(ByLabels)).await;
    let get = async |path: &str| world.get(Some("admin"), path).await;
    let at_least = "you must specify at least 1 of stdin, stdout, stderr";
    assert_eq!(get("/exec/ns/p/c?command=ls").await, (400, at_least.into()));
    assert_eq!(get("/exec/ns/p/c?output=1").await.0, 400);
    assert_eq!(get("/exec/ns/q/c?command=ls&output=1").await, (404, "pod does not exist".into()));
    let not_found = (500, "container not found (\"x\")".into());
    assert_eq!(get("/exec/ns/p/x?command=ls&output=1").await, not_found);
    let no_upgrade = "unable to upgrade: missing upgrade headers in request";
    assert_eq!(get("/exec/ns/p/c?command=ls&output=1").await, (400, no_upgrade.into()));
    assert_eq!(get("/portForward/ns/p").await, (400, no_upgrade.into()));
    assert_eq!(get("/portForward/ns/q").await, (404, "pod does not exist".into()));
}

#[tokio::test]
async fn usage() {
    let world = World::start(Arc::new(ByLabels)).await;
    let (code, summary) = world.get(Some("admin"), "/stats/summary").await;
    let summary: Value = serde_json::from_str(&summary).unwrap();
    assert_eq!((code, &summary["node"]["nodeName"]), (200, &json!("n1")));
    assert_eq!(summary["pods"][0]["podRef"]["name"], "p");
    assert_eq!(summary["pods"][0]["containers"][0]["memory"]["workingSetBytes"], 70);
    let (code, metrics) = world.get(Some("admin"), "/metrics").await;
    assert_eq!(code, 200);
    assert!(metrics.contains("kubelet_running_containers{container_state=\"running\"} 1\n"));
    assert!(metrics.contains("{code=\"200\",path=\"stats/summary\"} 1\n"), "{metrics}");
    let (code, metrics) = world.get(Some("admin"), "/metrics/resource").await;
    assert_eq!(code, 200);
    assert!(metrics.contains("resource_scrape_error 0\n"), "{metrics}");
}

#[tokio::test]
async fn an_authority_must_be_readable() {
    let config = ServerConfig {
        address: "127.0.0.1:0".parse().unwrap(),
        client_ca: "/nonexistent/ca.pem".into(),
        serving: Arc::new(ServingCertificate::self_signed(&["n1".into()]).unwrap()),
        node_name: "n1".into(),
    };
    assert!(matches!(listener::tls(&config), Err(ServeError::ClientCa { .. })));
}
