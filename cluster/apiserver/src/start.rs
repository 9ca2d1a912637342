//! Starting: reading what the configuration names.

use std::path::{Path, PathBuf};

use store::{Etcd, EtcdOptions, EtcdTls, Memory, Store, StoreError};

use crate::config::StoreConfig;

/// Why an API server did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path}: {why}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The certificates do not make a server.
    #[error("the certificates cannot be used to serve: {0}")]
    Tls(String),
    /// The store's configuration is unusable.
    #[error("the store cannot be used")]
    Store(#[from] StoreError),
}

/// Reads a file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, StartError> {
    std::fs::read(path).map_err(|source| StartError::Read { path: path.to_owned(), source })
}

/// Opens the store.
pub(crate) async fn open_store(
    config: &StoreConfig,
) -> Result<std::sync::Arc<dyn Store>, StartError> {
    Ok(match config {
        StoreConfig::Memory => std::sync::Arc::new(Memory::new()),
        StoreConfig::Etcd { endpoints, tls } => {
            let tls = match tls {
                Some([ca, certificate, key]) => Some(EtcdTls {
                    ca: read(ca)?,
                    certificate: read(certificate)?,
                    key: read(key)?,
                }),
                None => None,
            };
            let options = EtcdOptions { endpoints: endpoints.clone(), tls };
            std::sync::Arc::new(Etcd::connect(options).await?)
        }
    })
}
