//! An API server in this process, with certificates made for it, and a client.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use apiserver::{Config, StoreConfig, Tls};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio::sync::oneshot;

pub(crate) struct Cluster {
    pub(crate) address: SocketAddr,
    pub(crate) directory: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
    stop: Option<oneshot::Sender<()>>,
    server: tokio::task::JoinHandle<()>,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        Self::start_on(StoreConfig::Memory).await
    }

    pub(crate) async fn start_on(store: StoreConfig) -> Self {
        Self::start_with(|config| config.store = store).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let issuer = authority(directory.path());
        issue(directory.path(), &issuer, "server", "apiserver", None);
        issue(directory.path(), &issuer, "admin", "kubernetes-admin", Some("system:masters"));
        std::fs::write(
            directory.path().join("sa.key"),
            KeyPair::generate().unwrap().serialize_pem(),
        )
        .unwrap();
        std::fs::write(
            directory.path().join("tokens.csv"),
            "admintoken,boss,1,\"system:masters\"\nnobodytoken,nobody,2\n",
        )
        .unwrap();
        let file = |name: &str| directory.path().join(name);
        let tls = Tls {
            certificate: file("server.crt"),
            key: file("server.key"),
            client_ca: Some(file("ca.crt")),
        };
        let mut config = Config::new("127.0.0.1:0".parse().unwrap(), tls);
        // Endpoints may not be loopback addresses.
        config.advertise_address = "192.0.2.7".parse().unwrap();
        config.token_file = Some(file("tokens.csv"));
        config.service_accounts.signing_key = Some(file("sa.key"));
        change(&mut config);
        let (ready, is_ready) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(async move {
            let ready = |address| {
                let _ = ready.send(address);
            };
            let stopped = async {
                let _ = stopped.await;
            };
            apiserver::run(config, ready, stopped).await.unwrap();
        });
        let address = is_ready.await.expect("the server starts");
        Self { address, directory, issuer, stop: Some(stop), server }
    }

    pub(crate) async fn stop(mut self) {
        let _ = self.stop.take().unwrap().send(());
        self.server.await.unwrap();
    }

    /// Ends the server in the middle of whatever it does.
    pub(crate) fn kill(self) {
        self.server.abort();
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A client with the certificate of the administrator.
    pub(crate) fn admin(&self) -> Client {
        self.client(Some("admin"), None)
    }

    /// A client with a certificate of its own.
    pub(crate) fn user(&self, name: &str, group: Option<&str>) -> Client {
        let file = name.replace(':', "-");
        issue(self.directory.path(), &self.issuer, &file, name, group);
        self.client(Some(&file), None)
    }

    /// A client with a bearer token, or nothing at all.
    pub(crate) fn bearer(&self, token: Option<&str>) -> Client {
        self.client(None, token)
    }

    fn client(&self, certificate: Option<&str>, token: Option<&str>) -> Client {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.file("ca.crt")).unwrap()).unwrap();
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let tls = match certificate {
            Some(name) => {
                let chain =
                    CertificateDer::from_pem_file(self.file(&format!("{name}.crt"))).unwrap();
                let key = PrivateKeyDer::from_pem_file(self.file(&format!("{name}.key"))).unwrap();
                builder.with_client_auth_cert(vec![chain], key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        Client { address: self.address, tls: Arc::new(tls), token: token.map(str::to_owned) }
    }

    /// Writes a kubeconfig of the administrator.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        let path = self.file("kubeconfig");
        let file = |name: &str| self.file(name).display().to_string();
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
             clusters: [{{name: c, cluster: {{server: 'https://{}', \
             certificate-authority: {}}}}}]\n\
             users: [{{name: u, user: {{client-certificate: {}, client-key: {}}}}}]\n",
            self.address,
            file("ca.crt"),
            file("admin.crt"),
            file("admin.key"),
        );
        std::fs::write(&path, text).unwrap();
        path
    }
}

/// A client that opens a connection for each request.
#[derive(Clone)]
pub(crate) struct Client {
    address: SocketAddr,
    tls: Arc<rustls::ClientConfig>,
    token: Option<String>,
}

impl Client {
    pub(crate) async fn send(&self, mut request: Request<Full<Bytes>>) -> Response<Incoming> {
        let stream = tokio::net::TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::from(self.address.ip());
        let connector = tokio_rustls::TlsConnector::from(self.tls.clone());
        let stream = connector.connect(name, stream).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        let headers = request.headers_mut();
        headers.insert("host", self.address.to_string().parse().unwrap());
        if let Some(token) = &self.token {
            headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        sender.send_request(request).await.unwrap()
    }

    /// The code and the body of an answer.
    pub(crate) async fn call(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        body: impl ToString,
    ) -> (u16, Value) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", content_type)
            .body(Full::from(body.to_string()))
            .unwrap();
        let response = self.send(request).await;
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&bytes);
        (code, serde_json::from_slice(&bytes).unwrap_or_else(|_| Value::from(text)))
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        self.call("GET", path, "", "").await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.call("POST", path, "application/json", body).await
    }

    /// A watch, line by line.
    pub(crate) async fn watch(&self, path: &str) -> Events {
        let request = Request::builder().uri(path).body(Full::default()).unwrap();
        let response = self.send(request).await;
        assert_eq!(response.status(), 200);
        Events { body: response.into_body(), read: Vec::new() }
    }
}

/// The events of a watch.
pub(crate) struct Events {
    body: Incoming,
    read: Vec<u8>,
}

impl Events {
    /// The next event; `None` when the watch has ended.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.read.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = self.body.frame().await?.unwrap();
            self.read.extend_from_slice(&frame.into_data().unwrap());
        }
    }

    /// `TYPE name` of the next event.
    pub(crate) async fn short(&mut self) -> String {
        let event = self.next().await.expect("the watch goes on");
        let name = event["object"]["metadata"]["name"].as_str().unwrap_or("-");
        format!("{} {name}", event["type"].as_str().unwrap())
    }
}

fn authority(directory: &Path) -> Issuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "ca");
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    std::fs::write(directory.join("ca.crt"), certificate.pem()).unwrap();
    Issuer::new(params, key)
}

fn issue(
    directory: &Path,
    issuer: &Issuer<'static, KeyPair>,
    file: &str,
    name: &str,
    group: Option<&str>,
) {
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    if let Some(group) = group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, issuer).unwrap();
    std::fs::write(directory.join(format!("{file}.crt")), certificate.pem()).unwrap();
    std::fs::write(directory.join(format!("{file}.key")), key.serialize_pem()).unwrap();
}
