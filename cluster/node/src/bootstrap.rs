//! Certificates of the node: the first one by a bootstrap token, later ones by the one before.
//!
//! Source: kubernetes 1.33, `pkg/kubelet/certificate`, `client-go/util/certificate`.

mod request;
mod store;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::ApiError;
use client::{Client, Config, ConfigError, Credentials, Kubeconfig, KubeconfigError, Pem};
use tokio::sync::watch;

use crate::kubelet_server::{CertificateError, ServingCertificate};

pub use request::CertificateKind;
use request::sign;
use store::CertificateStore;

/// Between attempts to get a certificate: 1 s doubling to this. A cluster that is being set up
/// refuses for some seconds only.
const RETRY_MAX: Duration = Duration::from_secs(4);
/// How often the time left is looked at; clocks may be set.
const CHECK: Duration = Duration::from_secs(60);

/// Where the node's certificates are and how to get the first.
#[derive(Clone, Debug)]
pub struct BootstrapConfig {
    /// The node's name.
    pub node_name: String,
    /// The node's address, for the serving certificate.
    pub node_ip: String,
    /// The kubeconfig that is used, and written when the first certificate is issued.
    pub kubeconfig: PathBuf,
    /// The kubeconfig with the bootstrap token.
    pub bootstrap_kubeconfig: Option<PathBuf>,
    /// Every API server; empty to use the one of the kubeconfig.
    pub servers: Vec<String>,
    /// Where certificates and keys are kept.
    pub cert_dir: PathBuf,
}

/// Why the node has no certificate.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// A kubeconfig is unusable.
    #[error("the kubeconfig is not usable")]
    Kubeconfig(#[from] KubeconfigError),
    /// Its settings are unusable.
    #[error("the API server cannot be addressed")]
    Config(#[from] ConfigError),
    /// A file cannot be read or written.
    #[error("cannot {what} {path}")]
    File {
        /// The operation.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No key or request could be made.
    #[error("no certificate request could be made")]
    Make(#[from] rcgen::Error),
    /// The API refused or could not be reached.
    #[error("the API server did not take the certificate request")]
    Api(#[from] ApiError),
    /// The request was denied or failed.
    #[error("the certificate request {name} was refused: {reason}")]
    Refused {
        /// The request.
        name: String,
        /// Why.
        reason: String,
    },
    /// Nobody approved the request in time.
    #[error("the certificate request {name} was not issued within {waited:?}")]
    Timeout {
        /// The request.
        name: String,
        /// How long was waited.
        waited: Duration,
    },
    /// What was issued is no certificate for the key.
    #[error("the certificate that was issued is not usable")]
    Issued(#[from] CertificateError),
    /// There is neither a kubeconfig nor a bootstrap kubeconfig.
    #[error("{0} does not exist and no bootstrap kubeconfig is given")]
    Nothing(PathBuf),
}

/// The API client of the node; gets the first certificate when there is none, however long that
/// takes. `None` when `shutdown` turned true before.
///
/// # Errors
/// Settings or files that waiting will not mend.
pub async fn node_client(
    config: &BootstrapConfig,
    mut shutdown: watch::Receiver<bool>,
) -> Result<Option<Client>, BootstrapError> {
    let store = CertificateStore::new(&config.cert_dir, "kubelet-client");
    let mut delay = Duration::from_secs(1);
    loop {
        let usable = !managed(config) || store.current().is_some_and(|c| c.days_left() > 0.0);
        if config.kubeconfig.exists() && usable {
            let settings = Kubeconfig::load(&config.kubeconfig, &config.servers, "kubelet")?;
            return Ok(Some(Client::new(settings)?));
        }
        let attempt = tokio::select! {
            attempt = first_certificate(config, &store) => attempt,
            _ = shutdown.wait_for(|stop| *stop) => return Ok(None),
        };
        match attempt {
            Ok(()) => continue,
            Err(error @ (BootstrapError::Nothing(_) | BootstrapError::Kubeconfig(_))) => {
                return Err(error);
            }
            Err(error) => {
                let error = crate::docker::chain(&error);
                tracing::warn!(%error, ?delay, "no certificate yet");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            _ = shutdown.wait_for(|stop| *stop) => return Ok(None),
        }
        delay = (delay * 2).min(RETRY_MAX);
    }
}

/// Whether the kubeconfig is one that was written here.
fn managed(config: &BootstrapConfig) -> bool {
    let text = std::fs::read_to_string(&config.kubeconfig).unwrap_or_default();
    config.bootstrap_kubeconfig.is_some() && text.contains("kubelet-client-current.pem")
}

async fn first_certificate(
    config: &BootstrapConfig,
    store: &CertificateStore,
) -> Result<(), BootstrapError> {
    let Some(bootstrap) = &config.bootstrap_kubeconfig else {
        return Err(BootstrapError::Nothing(config.kubeconfig.clone()));
    };
    let settings = Kubeconfig::load(bootstrap, &config.servers, "kubelet-bootstrap")?;
    if store.current().is_none_or(|c| c.days_left() <= 0.0) {
        tracing::info!("asking for the first client certificate");
        let client = Client::new(settings.clone())?;
        let kind = CertificateKind::Client;
        let pair = sign(&client, kind, &config.node_name, &[], store).await?;
        store.put(&pair.chain, &pair.key)?;
        tracing::info!("the client certificate is issued");
    }
    write_kubeconfig(config, &settings, store)
}

/// Writes the kubeconfig that names the certificate.
fn write_kubeconfig(
    config: &BootstrapConfig,
    bootstrap: &Config,
    store: &CertificateStore,
) -> Result<(), BootstrapError> {
    let server = bootstrap.servers.first().cloned().unwrap_or_default();
    let quoted = |path: &Path| serde_json::Value::from(path.display().to_string()).to_string();
    let ca = match &bootstrap.ca {
        Pem::Inline(text) => {
            use base64::Engine;
            let data = base64::engine::general_purpose::STANDARD.encode(text);
            format!("certificate-authority-data: {data}")
        }
        Pem::File(path) => format!("certificate-authority: {}", quoted(path)),
    };
    let current = quoted(&store.current_path());
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: default-context\nclusters:\n\
         - name: default-cluster\n  cluster:\n    {ca}\n    server: {server}\ncontexts:\n\
         - name: default-context\n  context:\n    cluster: default-cluster\n    \
         namespace: default\n    user: default-auth\nusers:\n- name: default-auth\n  user:\n    \
         client-certificate: {current}\n    client-key: {current}\n"
    );
    store::write_atomically(&config.kubeconfig, text.as_bytes())
}

/// Renews the client certificate before it ends, until `shutdown` turns true.
pub async fn rotate_client(
    config: BootstrapConfig,
    client: Client,
    mut shutdown: watch::Receiver<bool>,
) {
    if !managed(&config) && !uses_store(&client, &config) {
        return;
    }
    let store = CertificateStore::new(&config.cert_dir, "kubelet-client");
    let renew = async {
        loop {
            wait_until_due(&store).await;
            let kind = CertificateKind::Client;
            match sign(&client, kind, &config.node_name, &[], &store).await {
                Ok(pair) => match store.put(&pair.chain, &pair.key) {
                    Ok(()) => {
                        tracing::info!("the client certificate is renewed");
                        client.reconnect().await;
                    }
                    Err(error) => complain(&error).await,
                },
                Err(error) => complain(&error).await,
            }
        }
    };
    tokio::select! {
        () = renew => {}
        _ = shutdown.wait_for(|stop| *stop) => {}
    }
}

fn uses_store(client: &Client, config: &BootstrapConfig) -> bool {
    let current = CertificateStore::new(&config.cert_dir, "kubelet-client").current_path();
    matches!(
        &client.config().credentials,
        Credentials::Certificate { cert: Pem::File(path), .. } if *path == current
    )
}

async fn complain(error: &BootstrapError) {
    let error = crate::docker::chain(error);
    tracing::warn!(%error, "no certificate yet");
    tokio::time::sleep(4 * RETRY_MAX).await;
}

async fn wait_until_due(store: &CertificateStore) {
    while store.current().is_some_and(|c| !c.due()) {
        tokio::time::sleep(CHECK).await;
    }
}

/// The certificate to serve with: the one kept from before, or a self-signed one until
/// [`rotate_serving`] has got another.
///
/// # Errors
/// No certificate could be made.
pub fn serving_certificate(
    config: &BootstrapConfig,
) -> Result<Arc<ServingCertificate>, BootstrapError> {
    let store = CertificateStore::new(&config.cert_dir, "kubelet-server");
    let kept = store.current().filter(|c| c.days_left() > 0.0);
    if kept.is_some()
        && let Ok(certificate) = ServingCertificate::from_file(&store.current_path())
    {
        return Ok(Arc::new(certificate));
    }
    let names = [config.node_name.clone(), config.node_ip.clone()];
    Ok(Arc::new(ServingCertificate::self_signed(&names)?))
}

/// Gets the serving certificate and renews it before it ends, until `shutdown` turns true.
pub async fn rotate_serving(
    config: BootstrapConfig,
    client: Client,
    serving: Arc<ServingCertificate>,
    mut shutdown: watch::Receiver<bool>,
) {
    let store = CertificateStore::new(&config.cert_dir, "kubelet-server");
    let addresses: Vec<IpAddr> = config.node_ip.parse().into_iter().collect();
    let renew = async {
        loop {
            wait_until_due(&store).await;
            let kind = CertificateKind::Serving;
            let issued = sign(&client, kind, &config.node_name, &addresses, &store).await;
            let used = issued.and_then(|pair| {
                serving.set(pair.chain.as_bytes(), pair.key.as_bytes())?;
                store.put(&pair.chain, &pair.key)
            });
            match used {
                Ok(()) => tracing::info!("the serving certificate is issued"),
                Err(error) => complain(&error).await,
            }
        }
    };
    tokio::select! {
        () = renew => {}
        _ = shutdown.wait_for(|stop| *stop) => {}
    }
}
