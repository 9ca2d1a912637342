//! The serving certificate, exchangeable while connections are served.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Why a certificate cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// There is no certificate, no key, or they are malformed.
    #[error("no usable certificate: {0}")]
    Malformed(String),
    /// The key is not the certificate's.
    #[error("certificate and key do not belong together")]
    Mismatch(#[source] rustls::Error),
    /// No self-signed certificate could be made.
    #[error("cannot make a self-signed certificate")]
    Generate(#[source] rcgen::Error),
}

/// The certificate that new connections are served with.
#[derive(Debug)]
pub struct ServingCertificate {
    current: RwLock<Arc<CertifiedKey>>,
}

impl ServingCertificate {
    /// Starts with a fresh self-signed certificate for the names and addresses given.
    ///
    /// # Errors
    /// When a name is no DNS name or no key can be made.
    pub fn self_signed(names: &[String]) -> Result<Self, CertificateError> {
        let made = rcgen::generate_simple_self_signed(names.to_vec())
            .map_err(CertificateError::Generate)?;
        Self::from_pem(made.cert.pem().as_bytes(), made.signing_key.serialize_pem().as_bytes())
    }

    /// Starts with a certificate chain and its key, both PEM.
    ///
    /// # Errors
    /// When they are malformed or do not belong together.
    pub fn from_pem(chain_pem: &[u8], key_pem: &[u8]) -> Result<Self, CertificateError> {
        Ok(Self { current: RwLock::new(Arc::new(certified(chain_pem, key_pem)?)) })
    }

    /// Starts with the chain and key of one PEM file.
    ///
    /// # Errors
    /// When it cannot be read or holds no usable pair.
    pub fn from_file(path: &Path) -> Result<Self, CertificateError> {
        let pem = std::fs::read(path).map_err(|source| CertificateError::Read {
            path: path.display().to_string(),
            source,
        })?;
        Self::from_pem(&pem, &pem)
    }

    /// Serves all new connections with another chain and key, both PEM.
    ///
    /// # Errors
    /// When they are malformed or do not belong together; the old ones stay.
    pub fn set(&self, chain_pem: &[u8], key_pem: &[u8]) -> Result<(), CertificateError> {
        let next = Arc::new(certified(chain_pem, key_pem)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }

    /// The leaf certificate served now, DER.
    pub fn leaf(&self) -> Option<CertificateDer<'static>> {
        self.read().cert.first().cloned()
    }

    fn read(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ResolvesServerCert for ServingCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.read())
    }
}

fn certified(chain_pem: &[u8], key_pem: &[u8]) -> Result<CertifiedKey, CertificateError> {
    let malformed = |error: rustls_pki_types::pem::Error| match error {
        rustls_pki_types::pem::Error::NoItemsFound => {
            CertificateError::Malformed("the PEM text lacks a certificate or a key".to_owned())
        }
        other => CertificateError::Malformed(other.to_string()),
    };
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(chain_pem).collect::<Result<_, _>>().map_err(malformed)?;
    if chain.is_empty() {
        return Err(malformed(rustls_pki_types::pem::Error::NoItemsFound));
    }
    let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(malformed)?;
    let key = any_supported_type(&key).map_err(|e| CertificateError::Malformed(e.to_string()))?;
    let pair = CertifiedKey::new(chain, key);
    pair.keys_match().map_err(CertificateError::Mismatch)?;
    Ok(pair)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(name: &str) -> (String, String) {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn certificates_are_exchanged_only_for_usable_ones() {
        let serving = ServingCertificate::self_signed(&["n1".into(), "10.0.0.1".into()]).unwrap();
        let first = serving.leaf().unwrap();
        let (chain, key) = pair("n1");
        serving.set(chain.as_bytes(), key.as_bytes()).unwrap();
        let second = serving.leaf().unwrap();
        assert_ne!(first, second);
        let (_, other_key) = pair("n1");
        let error = serving.set(chain.as_bytes(), other_key.as_bytes()).unwrap_err();
        assert!(matches!(error, CertificateError::Mismatch(_)), "{error}");
        assert!(serving.set(b"", key.as_bytes()).is_err());
        assert!(serving.set(chain.as_bytes(), b"nonsense").is_err());
        assert_eq!(serving.leaf().unwrap(), second);
    }

    #[test]
    fn one_file_holds_both() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kubelet-server-current.pem");
        assert!(matches!(ServingCertificate::from_file(&path), Err(CertificateError::Read { .. })));
        let (chain, key) = pair("n1");
        std::fs::write(&path, format!("{chain}{key}")).unwrap();
        assert!(ServingCertificate::from_file(&path).is_ok());
    }
}
