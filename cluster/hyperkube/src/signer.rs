//! Signs approved certificate signing requests with the cluster's authority, and has the API server
//! sign tokens of service accounts.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail, ensure};
use api::{ApiError, ApiObject, Key, Kind, Reply, Request, Status, Subresource, meta};
use client::{Caller, Client};
use http::Method;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestSpec,
};
use k8s_openapi::api::core::v1::Secret;
use rcgen::{
    CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use serde_json::json;
use x509_parser::prelude::FromDer;

/// Clocks of nodes may lag: a certificate counts from a little earlier.
const BACKDATE_SECONDS: i64 = 300;

const JSON: &str = "application/json";
/// The annotations that tie a token secret to its account.
const ACCOUNT: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";

/// The cluster's certificate authority.
pub(crate) struct Signer {
    issuer: Issuer<'static, KeyPair>,
    /// Certificates live this long unless the request asks for less.
    seconds_max: i64,
    /// No leaf outlives its authority.
    authority_ends: i64,
}

impl Signer {
    /// Reads the authority's certificate and key; what is signed lives for `longest` at most.
    pub(crate) fn load(cert: &Path, key: &Path, longest: Duration) -> anyhow::Result<Self> {
        ensure!(!longest.is_zero(), "certificates must live for some time");
        let read = |path: &Path| {
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
        };
        let (cert, key) = (read(cert)?, read(key)?);
        let der = pem::parse(&cert).context("the signing certificate is no PEM")?;
        let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(der.contents())?;
        Ok(Self {
            seconds_max: i64::try_from(longest.as_secs()).unwrap_or(i64::MAX),
            authority_ends: parsed.validity().not_after.timestamp(),
            issuer: Issuer::from_ca_cert_pem(&cert, KeyPair::from_pem(&key)?)?,
        })
    }

    /// Signs a request; `now` is in seconds since the Unix epoch.
    fn sign(&self, spec: &CertificateSigningRequestSpec, now: i64) -> anyhow::Result<String> {
        let text = std::str::from_utf8(&spec.request.0).context("the request is no PEM")?;
        one_organization(text)?;
        let mut request = CertificateSigningRequestParams::from_pem(text)?;
        let wanted = spec.expiration_seconds.map_or(self.seconds_max, i64::from);
        let ends = now.saturating_add(wanted.min(self.seconds_max)).min(self.authority_ends);
        let time = |seconds: i64| {
            let since = u64::try_from(seconds).unwrap_or(0);
            (SystemTime::UNIX_EPOCH + Duration::from_secs(since)).into()
        };
        let params = &mut request.params;
        params.not_before = time(now - BACKDATE_SECONDS);
        params.not_after = time(ends);
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages.clear();
        params.extended_key_usages.clear();
        for usage in spec.usages.iter().flatten() {
            match usage.as_str() {
                "digital signature" => params.key_usages.push(KeyUsagePurpose::DigitalSignature),
                "key encipherment" => params.key_usages.push(KeyUsagePurpose::KeyEncipherment),
                "client auth" => {
                    params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
                }
                "server auth" => {
                    params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
                }
                other => bail!("the usage {other:?} is not signed"),
            }
        }
        Ok(request.signed_by(&self.issuer)?.pem())
    }
}

/// The library that signs keeps only one organization of a subject; to sign such a request
/// would silently change who the holder is.
fn one_organization(request: &str) -> anyhow::Result<()> {
    let der = pem::parse(request).context("the request is no PEM")?;
    let (_, parsed) =
        x509_parser::certification_request::X509CertificationRequest::from_der(der.contents())?;
    let organizations = parsed.certification_request_info.subject.iter_organization().count();
    ensure!(organizations <= 1, "requests with several organizations are not signed");
    Ok(())
}

/// The REST client, with signing done here.
#[derive(Clone)]
pub(crate) struct SigningClient {
    client: Client,
    signer: Arc<Signer>,
    /// The authority of the API server as PEM: tokens come with it.
    root_ca: Arc<str>,
    clock: client::Clock,
}

impl SigningClient {
    pub(crate) fn new(client: Client, signer: Signer, root_ca: &str) -> Self {
        let (signer, root_ca) = (Arc::new(signer), root_ca.into());
        Self { client, signer, root_ca, clock: client::Clock::new() }
    }

    /// Puts a token of the account that a secret names into it.
    async fn issue(&self, key: Key) -> Result<Reply, ApiError> {
        let Reply::Object(object) = self.client.request(Request::Get(key.clone())).await? else {
            return Err(Status::internal("a read without an object").into());
        };
        let Some(mut secret) = object.get::<Secret>().cloned() else {
            return Err(Status::not_found(key.kind, &key.name).into());
        };
        let name = meta::annotation(&secret.metadata, ACCOUNT).unwrap_or_default();
        let account = Key::new(Kind::ServiceAccount, &key.namespace, name);
        let Reply::Object(account) = self.client.request(Request::Get(account)).await? else {
            return Err(Status::internal("a read without an object").into());
        };
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"audiences": [], "boundObjectRef": {"apiVersion": "v1", "kind": "Secret",
                "name": secret.metadata.name, "uid": secret.metadata.uid}},
        });
        let path = format!("/api/v1/namespaces/{}/serviceaccounts/{name}/token", key.namespace);
        let answer = self.client.json(Method::POST, &path, JSON, body.to_string()).await?;
        let token = answer["status"]["token"].as_str().unwrap_or_default();
        if token.is_empty() {
            return Err(ApiError::Unknown("an answer without a token".to_owned()));
        }
        let annotations = secret.metadata.annotations.get_or_insert_default();
        annotations.insert(ACCOUNT_UID.to_owned(), account.uid().to_owned());
        let data = secret.data.get_or_insert_default();
        for (field, value) in
            [("token", token), ("ca.crt", &*self.root_ca), ("namespace", &*key.namespace)]
        {
            data.insert(field.to_owned(), ByteString(value.as_bytes().to_vec()));
        }
        let update = Request::Update { object: secret.into_object(), subresource: None };
        self.client.request(update).await
    }

    async fn sign(&self, key: Key) -> Result<Reply, ApiError> {
        let Reply::Object(object) = self.client.request(Request::Get(key.clone())).await? else {
            return Err(Status::internal("a read without an object").into());
        };
        let Some(mut csr) = object.get::<CertificateSigningRequest>().cloned() else {
            return Err(Status::not_found(key.kind, &key.name).into());
        };
        let now = self.clock.now();
        let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let status = csr.status.get_or_insert_default();
        match self.signer.sign(&csr.spec, seconds) {
            Ok(pem) => {
                tracing::info!(request = %key.name, user = csr.spec.username, "signed");
                status.certificate = Some(ByteString(pem.into_bytes()));
            }
            Err(error) => {
                tracing::warn!(request = %key.name, error = format!("{error:#}"), "not signed");
                status.conditions.get_or_insert_default().push(
                    k8s_openapi::api::certificates::v1::CertificateSigningRequestCondition {
                        type_: "Failed".to_owned(),
                        status: "True".to_owned(),
                        reason: Some("SignerValidationFailure".to_owned()),
                        message: Some(format!("{error:#}")),
                        last_update_time: Some(now.to_meta()),
                        last_transition_time: Some(now.to_meta()),
                    },
                );
            }
        }
        let update =
            Request::Update { object: csr.into_object(), subresource: Some(Subresource::Status) };
        self.client.request(update).await
    }
}

impl Caller for SigningClient {
    async fn call(&self, request: Request) -> Result<Reply, ApiError> {
        match request {
            Request::Sign(key) if key.kind == Kind::Secret => self.issue(key).await,
            Request::Sign(key) => self.sign(key).await,
            other => self.client.request(other).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType};

    use super::*;

    fn authority(folder: &Path, longest_seconds: u64) -> Signer {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "kubernetes");
        let cert = params.self_signed(&key).unwrap();
        std::fs::write(folder.join("ca.crt"), cert.pem()).unwrap();
        std::fs::write(folder.join("ca.key"), key.serialize_pem()).unwrap();
        let longest = Duration::from_secs(longest_seconds);
        Signer::load(&folder.join("ca.crt"), &folder.join("ca.key"), longest).unwrap()
    }

    fn request() -> CertificateSigningRequestSpec {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["node-1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "system:node:node-1");
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        CertificateSigningRequestSpec {
            request: ByteString(
                params.serialize_request(&key).unwrap().pem().unwrap().into_bytes(),
            ),
            usages: Some(vec!["digital signature".into(), "client auth".into()]),
            expiration_seconds: Some(3600),
            ..CertificateSigningRequestSpec::default()
        }
    }

    #[test]
    fn signs_for_the_time_and_the_usages_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let signer = authority(folder.path(), 7200);
        let now = 1_800_000_000;
        let pem = signer.sign(&request(), now).unwrap();
        let der = pem::parse(pem).unwrap();
        let (_, cert) =
            x509_parser::certificate::X509Certificate::from_der(der.contents()).unwrap();
        assert_eq!(cert.validity().not_after.timestamp(), now + 3600);
        assert_eq!(cert.validity().not_before.timestamp(), now - BACKDATE_SECONDS);
        assert_eq!(cert.subject().to_string(), "CN=system:node:node-1, O=system:nodes");
        let usage = cert.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth);
        assert!(!cert.is_ca());
    }

    #[test]
    fn signs_for_no_longer_than_is_allowed() {
        let folder = tempfile::tempdir().unwrap();
        let now = 1_800_000_000;
        let check = |longest: u64, wanted: Option<i32>, lives: i64| {
            let spec = CertificateSigningRequestSpec { expiration_seconds: wanted, ..request() };
            let pem = authority(folder.path(), longest).sign(&spec, now).unwrap();
            let der = pem::parse(pem).unwrap();
            let (_, cert) =
                x509_parser::certificate::X509Certificate::from_der(der.contents()).unwrap();
            assert_eq!(cert.validity().not_after.timestamp() - now, lives);
        };
        check(7200, None, 7200);
        check(7200, Some(600), 600);
        check(150, Some(600), 150);
    }

    #[test]
    fn refuses_what_it_does_not_understand() {
        let folder = tempfile::tempdir().unwrap();
        let signer = authority(folder.path(), 7200);
        let mut spec = request();
        spec.usages = Some(vec!["cert sign".into()]);
        assert!(signer.sign(&spec, 1_800_000_000).is_err());
        spec.request = ByteString(b"nonsense".to_vec());
        assert!(signer.sign(&spec, 1_800_000_000).is_err());
    }
}
