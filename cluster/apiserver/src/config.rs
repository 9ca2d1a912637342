//! What an operator configures of an API server.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use registry::Options;
use registry::window::Limits;

/// Everything an API server is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen.
    pub bind: SocketAddr,
    /// The address at which the other members of the cluster reach this server.
    pub advertise_address: IpAddr,
    /// The port of the `kubernetes` service's endpoints; the port of `bind` when zero.
    pub advertise_port: u16,
    /// The serving certificate, and who may connect with which client certificates.
    pub tls: Tls,
    /// Static bearer tokens, a file of lines `token,user,uid,"group1,group2"`.
    pub token_file: Option<PathBuf>,
    /// Whether secrets of type `bootstrap.kubernetes.io/token` authenticate.
    pub bootstrap_tokens: bool,
    /// How tokens of service accounts are made and checked.
    pub service_accounts: ServiceAccounts,
    /// How kubelets are reached for logs, exec, attach and port-forward.
    pub kubelets: Kubelets,
    /// Cluster addresses, node ports and admission.
    pub admission: Options,
    /// Where objects live.
    pub store: StoreConfig,
    /// Requests carried out at a time, watches not counted.
    pub requests_max: usize,
    /// How much history the watch cache keeps.
    pub history: Limits,
    /// How often this server tells the others that it is alive; one that missed three turns is
    /// taken out of the endpoints of the `kubernetes` service.
    pub masters_renewal: Duration,
    /// How long requests are still taken after the server was told to stop and calls itself not
    /// ready: whoever balances over several servers has time to notice.
    pub shutdown_delay: Duration,
}

/// Certificate files, PEM.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The serving certificate chain.
    pub certificate: PathBuf,
    /// The serving private key.
    pub key: PathBuf,
    /// The authorities whose client certificates authenticate; none do when absent.
    pub client_ca: Option<PathBuf>,
}

/// How tokens of service accounts are made and checked.
#[derive(Clone, Debug)]
pub struct ServiceAccounts {
    /// The `iss` claim.
    pub issuer: String,
    /// The P-256 private key that signs, PEM; no tokens are made when absent.
    pub signing_key: Option<PathBuf>,
    /// P-256 public or private keys whose signatures are accepted, PEM, besides the signing
    /// key's.
    pub keys: Vec<PathBuf>,
    /// The audiences of this server; the issuer when empty.
    pub audiences: Vec<String>,
    /// No token lives longer.
    pub lifetime_max: Duration,
}

/// How kubelets are reached.
#[derive(Clone, Debug, Default)]
pub struct Kubelets {
    /// Our client certificate chain and private key, PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The authorities that sign serving certificates of kubelets, PEM. When absent they are
    /// not checked, as in Kubernetes.
    pub ca: Option<PathBuf>,
}

/// Where objects live.
#[derive(Clone, Debug)]
pub enum StoreConfig {
    /// In this process only.
    Memory,
    /// In etcd.
    Etcd {
        /// Addresses of members, `https://10.0.0.1:2379`.
        endpoints: Vec<String>,
        /// The authority, our certificate and our private key, PEM.
        tls: Option<[PathBuf; 3]>,
    },
}

impl Default for ServiceAccounts {
    fn default() -> Self {
        Self {
            issuer: "https://kubernetes.default.svc".to_owned(),
            signing_key: None,
            keys: Vec::new(),
            audiences: Vec::new(),
            lifetime_max: Duration::from_secs(365 * 24 * 3600),
        }
    }
}

impl Config {
    /// The defaults of kube-apiserver, with a store in memory.
    pub fn new(bind: SocketAddr, tls: Tls) -> Self {
        Self {
            bind,
            advertise_address: bind.ip(),
            advertise_port: 0,
            tls,
            token_file: None,
            bootstrap_tokens: true,
            service_accounts: ServiceAccounts::default(),
            kubelets: Kubelets::default(),
            admission: Options::default(),
            store: StoreConfig::Memory,
            requests_max: 600,
            history: Limits::default(),
            masters_renewal: Duration::from_secs(10),
            shutdown_delay: Duration::ZERO,
        }
    }

    /// The audiences a token must name one of.
    pub(crate) fn audiences(&self) -> Vec<String> {
        if self.service_accounts.audiences.is_empty() {
            vec![self.service_accounts.issuer.clone()]
        } else {
            self.service_accounts.audiences.clone()
        }
    }
}
