//! TLS: the serving side, and the client side towards kubelets.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::TlsAcceptor;

use crate::config::{Kubelets, Tls};
use crate::start::{StartError, read};

/// How often certificate files are looked at.
const RELOAD_PERIOD: Duration = Duration::from_secs(30);

/// The serving side, which follows its certificate files: certificates are renewed without a
/// restart. Connections that exist keep what they began with.
pub(crate) struct Acceptor {
    config: Tls,
    current: RwLock<TlsAcceptor>,
}

impl Acceptor {
    pub(crate) fn new(config: &Tls) -> Result<Self, StartError> {
        let current = RwLock::new(TlsAcceptor::from(Arc::new(server(config)?)));
        Ok(Self { config: config.clone(), current })
    }

    /// What the next connection is accepted with.
    pub(crate) fn current(&self) -> TlsAcceptor {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes up new certificates whenever the files have changed to something usable.
    pub(crate) async fn follow_files(&self) {
        let mut known = self.contents();
        loop {
            tokio::time::sleep(RELOAD_PERIOD).await;
            self.reload(&mut known);
        }
    }

    fn reload(&self, known: &mut Vec<Option<Vec<u8>>>) {
        let found = self.contents();
        if found == *known {
            return;
        }
        match server(&self.config) {
            Ok(server) => {
                let acceptor = TlsAcceptor::from(Arc::new(server));
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = acceptor;
                *known = found;
                tracing::info!("serving with renewed certificates");
            }
            // They may be half written: the old ones serve on.
            Err(error) => tracing::warn!(%error, "the new certificates cannot be used"),
        }
    }

    fn contents(&self) -> Vec<Option<Vec<u8>>> {
        let Tls { certificate, key, client_ca } = &self.config;
        [Some(certificate), Some(key), client_ca.as_ref()]
            .into_iter()
            .map(|path| path.and_then(|p| std::fs::read(p).ok()))
            .collect()
    }
}

/// Client certificates are optional, but must be good.
fn server(config: &Tls) -> Result<ServerConfig, StartError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| StartError::Tls(e.to_string()))?;
    let builder = match &config.client_ca {
        Some(path) => {
            let roots = Arc::new(roots(path)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider)
                .allow_unauthenticated()
                .build()
                .map_err(|e| StartError::Tls(e.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    };
    let mut server = builder
        .with_single_cert(certificates(&config.certificate)?, key(&config.key)?)
        .map_err(|e| StartError::Tls(e.to_string()))?;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(server)
}

/// The client side towards kubelets.
pub(crate) fn kubelet_client(config: &Kubelets) -> Result<ClientConfig, StartError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| StartError::Tls(e.to_string()))?;
    let builder = match &config.ca {
        Some(path) => builder.with_root_certificates(roots(path)?),
        None => builder.dangerous().with_custom_certificate_verifier(Arc::new(Unchecked(provider))),
    };
    let mut client = match &config.identity {
        Some((certificate, private)) => builder
            .with_client_auth_cert(certificates(certificate)?, key(private)?)
            .map_err(|e| StartError::Tls(e.to_string()))?,
        None => builder.with_no_client_auth(),
    };
    // Upgrades to streams need HTTP/1.1.
    client.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(client)
}

fn roots(path: &Path) -> Result<RootCertStore, StartError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .map_err(|e| StartError::Malformed { path: path.to_owned(), why: e.to_string() })?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, StartError> {
    let malformed = |why: String| StartError::Malformed { path: path.to_owned(), why };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    match found {
        Ok(found) if found.is_empty() => Err(malformed("it holds no certificate".to_owned())),
        Ok(found) => Ok(found),
        Err(error) => Err(malformed(error.to_string())),
    }
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, StartError> {
    PrivateKeyDer::from_pem_slice(&read(path)?)
        .map_err(|e| StartError::Malformed { path: path.to_owned(), why: e.to_string() })
}

/// Takes any serving certificate: what Kubernetes does when no authority for kubelets is named.
/// The kubelet still knows us by our client certificate.
#[derive(Debug)]
struct Unchecked(Arc<CryptoProvider>);

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewed_certificates_are_taken_up_and_broken_ones_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str| directory.path().join(name);
        let issue = || {
            let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
            std::fs::write(file("crt"), made.cert.pem()).unwrap();
            std::fs::write(file("key"), made.signing_key.serialize_pem()).unwrap();
        };
        issue();
        let config = Tls { certificate: file("crt"), key: file("key"), client_ca: None };
        let acceptor = Acceptor::new(&config).unwrap();
        let mut known = acceptor.contents();
        let first = acceptor.current().config().clone();
        acceptor.reload(&mut known);
        assert!(Arc::ptr_eq(&first, acceptor.current().config()), "nothing has changed");
        std::fs::write(file("crt"), "half").unwrap();
        acceptor.reload(&mut known);
        assert!(Arc::ptr_eq(&first, acceptor.current().config()), "half a file is no certificate");
        issue();
        acceptor.reload(&mut known);
        assert!(!Arc::ptr_eq(&first, acceptor.current().config()));
    }
}
