//! Where the API is and who asks.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// PEM data, in memory or in a file that is read at every connection (so that renewed
/// certificates are used).
#[derive(Clone)]
pub enum Pem {
    /// The text itself.
    Inline(String),
    /// The path of the file that holds it.
    File(PathBuf),
}

impl Pem {
    fn read(&self) -> Result<Vec<u8>, ConfigError> {
        match self {
            Self::Inline(text) => Ok(text.clone().into_bytes()),
            Self::File(path) => std::fs::read(path)
                .map_err(|source| ConfigError::Read { path: path.clone(), source }),
        }
    }
}

impl fmt::Debug for Pem {
    /// Keys are never printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inline(_) => f.write_str("inline"),
            Self::File(path) => path.fmt(f),
        }
    }
}

/// How a client proves who it is.
#[derive(Clone)]
pub enum Credentials {
    /// It does not: only what needs no identity works.
    None,
    /// A client certificate and its key.
    Certificate {
        /// The certificate, leaf first.
        cert: Pem,
        /// The private key.
        key: Pem,
    },
    /// A bearer token.
    Token(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Certificate { .. } => "certificate",
            Self::Token(_) => "token",
        })
    }
}

/// Where the API is and who asks.
#[derive(Clone, Debug)]
pub struct Config {
    /// `https://HOST:PORT` of every API server; the first that answers is used.
    pub servers: Vec<String>,
    /// The authorities that may sign the servers' certificates.
    pub ca: Pem,
    /// Who asks.
    pub credentials: Credentials,
    /// The client's name in the servers' logs.
    pub user_agent: String,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The data is no PEM of the expected kind.
    #[error("{what} is no valid PEM")]
    Pem {
        /// Which of the settings.
        what: &'static str,
        /// Why.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// Certificate and key do not fit, or the CA is unusable.
    #[error("the TLS settings are unusable")]
    Tls(#[from] rustls::Error),
    /// A server is no `https://HOST:PORT`.
    #[error("{0:?} is no https://HOST:PORT")]
    Server(String),
    /// No server is given.
    #[error("no API server is given")]
    NoServer,
}

impl Config {
    /// Builds the TLS settings of a new connection.
    pub(crate) fn tls(&self) -> Result<Arc<rustls::ClientConfig>, ConfigError> {
        let mut roots = RootCertStore::empty();
        for cert in certificates(&self.ca, "the certificate authority")? {
            roots.add(cert)?;
        }
        let builder = rustls::ClientConfig::builder().with_root_certificates(roots);
        let mut config = match &self.credentials {
            Credentials::Certificate { cert, key } => {
                let chain = certificates(cert, "the client certificate")?;
                let key = PrivateKeyDer::from_pem_slice(&key.read()?)
                    .map_err(|source| ConfigError::Pem { what: "the client key", source })?;
                builder.with_client_auth_cert(chain, key)?
            }
            Credentials::None | Credentials::Token(_) => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }
}

fn certificates(
    pem: &Pem,
    what: &'static str,
) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    CertificateDer::pem_slice_iter(&pem.read()?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| ConfigError::Pem { what, source })
}
