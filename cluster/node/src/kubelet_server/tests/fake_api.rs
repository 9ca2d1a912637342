//! An API server that only reviews.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use client::{Client, Config, Credentials, Pem};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::Pki;

/// Knows the token `good`, lets everybody but `nobody`.
pub(super) struct FakeApi {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Value>>>,
}

impl FakeApi {
    pub(super) async fn start(pki: &Pki) -> Self {
        // The client takes the process' provider.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let pair = pki.pair("kube-apiserver", "kubernetes", true);
        let cert = CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
        let mut tls = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![cert], key)
            .unwrap();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let tls = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, log) = (tls.clone(), Arc::clone(&log));
                tokio::spawn(async move {
                    let stream = tls.accept(stream).await.unwrap();
                    let service = service_fn(move |request| review(Arc::clone(&log), request));
                    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { address, asked }
    }

    pub(super) fn client(&self, pki: &Pki) -> Client {
        Client::new(Config {
            servers: vec![format!("https://{}", self.address)],
            ca: Pem::Inline(pki.ca()),
            credentials: Credentials::None,
            user_agent: "kubelet".to_owned(),
        })
        .unwrap()
    }

    pub(super) fn asked(&self) -> Vec<Value> {
        self.asked.lock().unwrap().clone()
    }
}

async fn review(
    log: Arc<Mutex<Vec<Value>>>,
    request: Request<Incoming>,
) -> Result<Response<Full<bytes::Bytes>>, Infallible> {
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let mut review: Value = serde_json::from_slice(&body).unwrap();
    log.lock().unwrap().push(review.clone());
    review["status"] = if review["kind"] == "TokenReview" {
        match review["spec"]["token"].as_str() {
            Some("good") => json!({"authenticated": true, "user": {"username": "robot"}}),
            _ => json!({"authenticated": false}),
        }
    } else {
        json!({"allowed": review["spec"]["user"] != "nobody"})
    };
    let mut response = Response::new(Full::from(review.to_string()));
    *response.status_mut() = http::StatusCode::CREATED;
    Ok(response)
}
