//! Certificates and keys of a cluster.
//!
//! [`ensure`] keeps them in a directory of the operator's machine: what is there and still right is
//! used again, what is missing or no longer right is made. Two authorities sign: one for etcd, one
//! for everything else. The authorities are pinned by fingerprint when they are first made, and
//! are never replaced: a directory with another authority is refused.
//!
//! The kubelets' own certificates are not here: they ask the cluster for them with the bootstrap
//! token.

mod authority;
mod leaf;
mod pins;
mod roster;
mod store;
mod token;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use thiserror::Error;

pub use roster::LeafKind;

use crate::{inventory::Inventory, secret::Secret};
use authority::Authority;
use store::Store;

/// The certificates and keys of one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pki {
    /// The authority of everything but etcd, with its key.
    pub cluster_ca: Credential,
    /// The authority of etcd, with its key.
    pub etcd_ca: Credential,
    /// Key that signs service-account tokens (PKCS#8 PEM).
    pub service_account_key: Secret,
    /// Its public half (PEM).
    pub service_account_public: String,
    /// The token with which kubelets ask for their first certificate.
    pub bootstrap_token: Secret,
    /// What was made or made anew by this call, for the report.
    pub issued: Vec<Issued>,
    leaves: BTreeMap<String, Credential>,
}

impl Pki {
    /// The certificate of `kind` for `host`; certificates of no host take the empty text.
    #[must_use]
    pub fn leaf(&self, kind: LeafKind, host: &str) -> Option<&Credential> {
        self.leaves.get(&kind.id(host))
    }

    /// All certificates with the name of their file, sorted.
    pub fn leaves(&self) -> impl Iterator<Item = (&str, &Credential)> {
        self.leaves.iter().map(|(id, credential)| (id.as_str(), credential))
    }

    /// When the first certificate runs out.
    #[must_use]
    pub fn first_expiry(&self) -> Option<(&str, Timestamp)> {
        self.leaves().map(|(id, c)| (id, c.not_after)).min_by_key(|(_, at)| *at)
    }
}

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// The certificate (PEM).
    pub cert: String,
    /// Its key (PKCS#8 PEM).
    pub key: Secret,
    /// When it runs out.
    pub not_after: Timestamp,
}

/// A certificate that was made, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// Name of its file, without extension.
    pub id: String,
    /// Why it was made.
    pub reason: Reason,
}

/// Why a certificate was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// There was none.
    New,
    /// The one there could not be read, or its key is not its own.
    Damaged,
    /// Another authority had signed the one there.
    Issuer,
    /// The inventory asks for another kind of key.
    Algorithm,
    /// The name, the groups or the usages differ.
    Subject,
    /// The names and addresses differ.
    Names,
    /// The one there runs out soon, or is not valid yet.
    Validity,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::New => "new",
            Self::Damaged => "damaged",
            Self::Issuer => "signed by another authority",
            Self::Algorithm => "another kind of key is wanted",
            Self::Subject => "the subject changed",
            Self::Names => "names or addresses changed",
            Self::Validity => "about to run out",
        })
    }
}

/// Why the certificates cannot be had.
#[derive(Debug, Error)]
pub enum PkiError {
    /// A file of the state directory cannot be read or written.
    #[error("cannot {act} {}", path.display())]
    File {
        /// What was tried.
        act: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The authority in the directory is not the one that was pinned.
    #[error(
        "{} is not the {authority} authority of this cluster: its fingerprint is {found}, pinned \
         is {pinned}; put the right one back, or use another --state-dir for another cluster",
        path.display()
    )]
    Foreign {
        /// Which authority.
        authority: &'static str,
        /// Its file.
        path: PathBuf,
        /// SHA-256 of the certificate there.
        found: String,
        /// SHA-256 of the certificate that was pinned.
        pinned: String,
    },
    /// The authority was pinned, but its certificate or key is gone or cannot be read.
    #[error(
        "the {authority} authority of this cluster is lost: {} and its key must be put back from \
         a copy (hosts keep the certificate, masters also the cluster's key)",
        path.display()
    )]
    Lost {
        /// Which authority.
        authority: &'static str,
        /// Where it should be.
        path: PathBuf,
    },
    /// The authority itself has run out.
    #[error("the {authority} authority of this cluster ran out at {at}")]
    Expired {
        /// Which authority.
        authority: &'static str,
        /// When it did.
        at: Timestamp,
    },
    /// The pins cannot be understood.
    #[error("{} is damaged", path.display())]
    Pins {
        /// Their file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A certificate cannot be made.
    #[error("cannot make the certificate {id}")]
    Issue {
        /// Name of its file, without extension.
        id: String,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
    /// The system gives no random bytes.
    #[error("no random bytes from the system")]
    Random,
}

/// Makes sure that all certificates and keys of `inventory` are in `dir` and are right at `now`.
///
/// `dir` is the cluster's state directory; the certificates are in its folder `pki`. A crash at
/// any point leaves what a later call completes.
///
/// # Errors
/// When files cannot be read or written, or an authority is foreign, lost or out of date.
pub fn ensure(inventory: &Inventory, dir: &Path, now: Timestamp) -> Result<Pki, PkiError> {
    let store = Store::open(dir)?;
    let mut issued = Vec::new();
    let settings = &inventory.pki;
    let cluster = Authority::ensure(&store, authority::CLUSTER, settings, now, &mut issued)?;
    let etcd = Authority::ensure(&store, authority::ETCD, settings, now, &mut issued)?;
    let (service_account_key, service_account_public) = token::signing_key(&store)?;
    let bootstrap_token = token::bootstrap_token(&store)?;
    let mut leaves = BTreeMap::new();
    for spec in roster::roster(inventory) {
        let authority = if spec.kind.is_etcd() { &etcd } else { &cluster };
        let (credential, reason) = leaf::ensure(&store, &spec, authority, settings, now)?;
        if let Some(reason) = reason {
            issued.push(Issued { id: spec.id.clone(), reason });
        }
        leaves.insert(spec.id, credential);
    }
    Ok(Pki {
        cluster_ca: cluster.credential,
        etcd_ca: etcd.credential,
        service_account_key,
        service_account_public,
        bootstrap_token,
        issued,
        leaves,
    })
}
