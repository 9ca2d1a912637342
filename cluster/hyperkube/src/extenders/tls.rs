//! TLS towards extenders.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use client::Unchecked;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use scheduler::ExtenderTls;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// PEM data, in memory or in a file that is read for each connection, so that renewed ones count.
enum Pem {
    Inline(Vec<u8>),
    File(PathBuf),
}

impl Pem {
    /// What a file and data come to: the data comes first; `None` if there is neither.
    fn of(what: &str, file: &str, data: &str) -> anyhow::Result<Option<Self>> {
        if !data.is_empty() {
            let decoded = STANDARD.decode(data);
            let decoded = decoded.with_context(|| format!("tlsConfig.{what}Data is no base64"))?;
            return Ok(Some(Self::Inline(decoded)));
        }
        Ok((!file.is_empty()).then(|| Self::File(Path::new(file).to_owned())))
    }

    fn read(&self) -> anyhow::Result<Vec<u8>> {
        match self {
            Self::Inline(bytes) => Ok(bytes.clone()),
            Self::File(path) => {
                std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
            }
        }
    }

    fn certificates(&self, what: &str) -> anyhow::Result<Vec<CertificateDer<'static>>> {
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.read()?).collect();
        let found = found.with_context(|| format!("{what} is no PEM"))?;
        if found.is_empty() {
            bail!("{what} holds no certificate");
        }
        Ok(found)
    }
}

/// How one extender is reached over TLS.
pub(super) struct Tls {
    name: ServerName<'static>,
    insecure: bool,
    authorities: Option<Pem>,
    certificate: Option<Pem>,
    key: Option<Pem>,
}

impl Tls {
    /// Makes it of a configuration, and tries whether certificates can be read and understood.
    pub(super) fn new(config: &ExtenderTls, host: &str) -> anyhow::Result<Self> {
        let name = if config.server_name.is_empty() { host } else { &config.server_name };
        let tls = Self {
            name: ServerName::try_from(name.to_owned())
                .with_context(|| format!("{name:?} is no name of a server"))?,
            insecure: config.insecure,
            authorities: Pem::of("ca", &config.ca_file, &config.ca_data)?,
            certificate: Pem::of("cert", &config.cert_file, &config.cert_data)?,
            key: Pem::of("key", &config.key_file, &config.key_data)?,
        };
        tls.client().context("tlsConfig")?;
        Ok(tls)
    }

    pub(super) async fn connect(&self, stream: TcpStream) -> anyhow::Result<TlsStream<TcpStream>> {
        let connector = TlsConnector::from(Arc::new(self.client()?));
        Ok(connector.connect(self.name.clone(), stream).await?)
    }

    fn client(&self) -> anyhow::Result<ClientConfig> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        // What `insecure` asks for, and `enableHTTPS` without an authority.
        let builder = if self.insecure {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Unchecked::new(provider)))
        } else {
            let mut roots = RootCertStore::empty();
            let authorities = self.authorities.as_ref().context("no authority is named")?;
            for authority in authorities.certificates("the authority")? {
                roots.add(authority).context("the authority cannot be used")?;
            }
            builder.with_root_certificates(roots)
        };
        let mut client = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => {
                let key =
                    PrivateKeyDer::from_pem_slice(&key.read()?).context("the key is no PEM")?;
                builder.with_client_auth_cert(certificate.certificates("the certificate")?, key)?
            }
            _ => builder.with_no_client_auth(),
        };
        client.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(client)
    }
}
