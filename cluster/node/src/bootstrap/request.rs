//! One certificate signing request, from the key to the certificate.

use std::net::IpAddr;
use std::time::Duration;

use api::{ApiError, ApiObject, Key, Kind, Object, Reply, Request};
use client::{Client, WatchSpec};
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestSpec,
};
use machine::WatchEvent;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::BootstrapError;
use super::store::CertificateStore;

/// A request that nobody approves is given up after this time (and made again).
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateKind {
    /// To speak to the API server.
    Client,
    /// To serve the kubelet's API.
    Serving,
}

impl CertificateKind {
    const fn signer(self) -> &'static str {
        match self {
            Self::Client => "kubernetes.io/kube-apiserver-client-kubelet",
            Self::Serving => "kubernetes.io/kubelet-serving",
        }
    }

    const fn usage(self) -> &'static str {
        match self {
            Self::Client => "client auth",
            Self::Serving => "server auth",
        }
    }
}

/// A certificate chain and its key, PEM.
pub(super) struct Pair {
    pub(super) chain: String,
    pub(super) key: String,
}

/// Asks for a certificate and waits until it is issued.
pub(super) async fn sign(
    client: &Client,
    kind: CertificateKind,
    node_name: &str,
    addresses: &[IpAddr],
    store: &CertificateStore,
) -> Result<Pair, BootstrapError> {
    let key = store.next_key()?;
    let object = request(kind, node_name, addresses, &key)?;
    let name = object.key().name.to_string();
    match client.request(Request::Create(object)).await {
        Ok(_) => {}
        // The same key asked before: that request is gone on with.
        Err(error) if error.code() == Some(409) => {}
        Err(error) => return Err(error.into()),
    }
    let issued = match tokio::time::timeout(PATIENCE, wait(client, &name)).await {
        Ok(issued) => issued,
        Err(_) => Err(BootstrapError::Timeout { name: name.clone(), waited: PATIENCE }),
    };
    if issued.is_err() {
        // Another key makes another request.
        store.drop_key();
    }
    let chain = issued?;
    Ok(Pair { chain, key: key.serialize_pem() })
}

fn request(
    kind: CertificateKind,
    node_name: &str,
    addresses: &[IpAddr],
    key: &KeyPair,
) -> Result<Object, BootstrapError> {
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, "system:nodes");
    subject.push(DnType::CommonName, format!("system:node:{node_name}"));
    params.distinguished_name = subject;
    if kind == CertificateKind::Serving {
        params.subject_alt_names.push(SanType::DnsName(node_name.to_owned().try_into()?));
        let ips = addresses.iter().map(|ip| SanType::IpAddress(*ip));
        params.subject_alt_names.extend(ips);
    }
    let pem = params.serialize_request(key)?.pem()?;
    let mut csr = CertificateSigningRequest {
        spec: CertificateSigningRequestSpec {
            request: ByteString(pem.into_bytes()),
            signer_name: kind.signer().to_owned(),
            usages: Some(vec!["digital signature".to_owned(), kind.usage().to_owned()]),
            ..CertificateSigningRequestSpec::default()
        },
        ..CertificateSigningRequest::default()
    };
    // The name follows from the key: asking twice makes one request.
    let mut hash = Sha256::new();
    hash.update(key.public_key_raw());
    hash.update(kind.signer());
    hash.update(node_name);
    let digest: String = hash.finalize().iter().take(16).map(|b| format!("{b:02x}")).collect();
    let prefix = if kind == CertificateKind::Client { "node-csr" } else { "csr" };
    csr.metadata.name = Some(format!("{prefix}-{digest}"));
    Ok(csr.into_object())
}

/// Waits until the request is decided; returns the certificate.
async fn wait(client: &Client, name: &str) -> Result<String, BootstrapError> {
    // Who may create requests may not always list them: read it first, and if watching is
    // refused, go on reading.
    let (sink, mut events) = mpsc::channel::<WatchEvent>(16);
    let kind = Kind::CertificateSigningRequest;
    let spec = WatchSpec::fields(kind, &format!("metadata.name={name}"));
    let watching = tokio::spawn(client::watch(client.clone(), spec, sink));
    let outcome = loop {
        match client.request(Request::Get(Key::cluster(kind, name))).await {
            Ok(Reply::Object(object)) => {
                if let Some(outcome) = decided(name, &object) {
                    break outcome;
                }
            }
            Ok(Reply::Done(_) | Reply::Objects(_) | Reply::Text(_)) => {}
            Err(error) if error.code() == Some(404) => {
                break Err(refused(name, "it was removed".to_owned()));
            }
            Err(ApiError::Status(status)) if status.code == 403 => {
                break Err(ApiError::Status(status).into());
            }
            Err(_) => {}
        }
        tokio::select! {
            _ = events.recv() => {}
            () = tokio::time::sleep(Duration::from_secs(2)) => {}
        }
    };
    watching.abort();
    outcome
}

fn refused(name: &str, reason: String) -> BootstrapError {
    BootstrapError::Refused { name: name.to_owned(), reason }
}

fn decided(name: &str, object: &Object) -> Option<Result<String, BootstrapError>> {
    let csr = object.get::<CertificateSigningRequest>()?;
    let status = csr.status.as_ref()?;
    for condition in status.conditions.iter().flatten() {
        if matches!(condition.type_.as_str(), "Denied" | "Failed") {
            let message = condition.message.clone().unwrap_or_default();
            return Some(Err(refused(name, format!("{}: {message}", condition.type_))));
        }
    }
    let chain = status.certificate.as_ref()?;
    Some(String::from_utf8(chain.0.clone()).map_err(|e| refused(name, e.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_the_subject_that_nodes_must_have() {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let ip: IpAddr = "10.0.0.7".parse().unwrap();
        let object = request(CertificateKind::Serving, "n1", &[ip], &key).unwrap();
        let csr = object.get::<CertificateSigningRequest>().unwrap();
        assert_eq!(csr.spec.signer_name, "kubernetes.io/kubelet-serving");
        let (_, pem) = x509_parser::pem::parse_x509_pem(&csr.spec.request.0).unwrap();
        use x509_parser::prelude::FromDer;
        let (_, parsed) =
            x509_parser::certification_request::X509CertificationRequest::from_der(&pem.contents)
                .unwrap();
        assert_eq!(
            parsed.certification_request_info.subject.to_string(),
            "O=system:nodes, CN=system:node:n1"
        );
        let again = request(CertificateKind::Serving, "n1", &[ip], &key).unwrap();
        assert_eq!(again.key(), object.key());
    }
}
