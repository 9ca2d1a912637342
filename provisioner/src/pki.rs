//! Certificates and keys of a cluster.
//!
//! [`ensure`] keeps them in a directory of the operator's machine: what is there and still right is
//! used again, what is missing or no longer right is made. Two authorities sign: one for etcd, one
//! for everything else. The authorities are pinned by fingerprint when they are first made, and
//! are replaced by a [`Rotation`] only: a directory with another authority is refused. They may
//! also come from outside: named by the inventory, or signed by somebody else on request.
//!
//! Where a passphrase is given, all secrets of the directory are sealed with it ([`vault`]).
//!
//! The kubelets' own certificates are not here: they ask the cluster for them with the bootstrap
//! token.

mod authority;
mod inspect;
mod leaf;
mod pins;
mod roster;
mod rotation;
mod store;
mod token;
pub mod vault;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::Serialize;
use thiserror::Error;

pub use inspect::{Description, Surveyed, exists, survey};
pub use roster::LeafKind;
pub(crate) use roster::NODE_PREFIX;
pub use rotation::{Rotation, RotationStage, Which, advance, begin, rotation};

use crate::{inventory::Inventory, secret::Secret};
use rotation::Signing;
use store::Store;
use vault::VaultError;

/// A state directory and what opens its secrets.
#[derive(Debug, Clone, Copy)]
pub struct Access<'a> {
    /// The cluster's state directory; the certificates are in its folder `pki`.
    pub dir: &'a Path,
    /// The passphrase of its secrets; one that is given where nothing is sealed yet seals them.
    pub passphrase: Option<&'a Secret>,
}

/// The certificates and keys of one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pki {
    /// The authority that signs everything but etcd's, with its key.
    pub cluster_ca: Credential,
    /// The authority that signs etcd's, with its key.
    pub etcd_ca: Credential,
    /// Certificates of all authorities that everything but etcd trusts (PEM), the one that signs
    /// first: one, or two while a rotation lasts.
    pub cluster_trust: String,
    /// The same for etcd and its clients.
    pub etcd_trust: String,
    /// Digest of the other certificate of the cluster's authority while a rotation lasts: hosts
    /// that know the cluster by it are the cluster's, too.
    pub former_authority: Option<String>,
    /// The rotation under way.
    pub rotation: Option<Rotation>,
    /// Whether the authority of the cluster ever was replaced or is being replaced: kubelets must
    /// look whether their certificates are of the present one.
    pub rotated: bool,
    /// Key that signs service-account tokens (PKCS#8 PEM).
    pub service_account_key: Secret,
    /// Its public half (PEM).
    pub service_account_public: String,
    /// The public half of another key whose tokens are good while a rotation lasts (PEM).
    pub service_account_other: Option<String>,
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Issued {
    /// Name of its file, without extension.
    pub id: String,
    /// Why it was made.
    pub reason: Reason,
}

/// Why a certificate was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
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
    /// The one there has run out.
    Expired,
    /// The operator asked for it.
    Asked,
    /// It came from outside.
    Given,
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
            Self::Expired => "run out",
            Self::Asked => "asked for",
            Self::Given => "given from outside",
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
    #[error(
        "the {authority} authority of this cluster ran out at {at}; `kprov certs rotate-ca` \
         replaces it"
    )]
    Expired {
        /// Which authority.
        authority: &'static str,
        /// When it did.
        at: Timestamp,
    },
    /// A certificate is due, and the key that would sign it is lost.
    #[error(
        "{id} must be made anew, and the key of the {authority} authority is lost; \
         `kprov certs rotate-ca` replaces that authority"
    )]
    Keyless {
        /// Which authority.
        authority: &'static str,
        /// Name of the certificate's file, without extension.
        id: String,
    },
    /// An authority from outside cannot do the work.
    #[error("{} cannot be the {authority} authority of this cluster: {reason}", path.display())]
    Unusable {
        /// Which authority.
        authority: &'static str,
        /// Its certificate.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The inventory names another authority than the cluster has.
    #[error(
        "the inventory names another {authority} authority than this cluster has: its fingerprint \
         is {found}, the present one's {pinned}; `kprov certs rotate-ca` replaces it"
    )]
    Other {
        /// Which authority.
        authority: &'static str,
        /// SHA-256 of the certificate that the inventory names.
        found: String,
        /// SHA-256 of the certificate that was pinned.
        pinned: String,
    },
    /// The secrets cannot be opened.
    #[error(transparent)]
    Sealed(#[from] VaultError),
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
    ensure_in(inventory, &Access { dir, passphrase: None }, now)
}

/// [`ensure`] for a directory whose secrets may be sealed.
///
/// # Errors
/// As [`ensure`], and when the secrets cannot be opened.
pub fn ensure_in(
    inventory: &Inventory,
    access: &Access<'_>,
    now: Timestamp,
) -> Result<Pki, PkiError> {
    make_right(inventory, access, now, &|_, _| false)
}

/// [`ensure_in`], and makes those certificates anew for whose kind and host `chosen` says so, though
/// they are still right.
///
/// # Errors
/// As [`ensure_in`].
pub fn renew(
    inventory: &Inventory,
    access: &Access<'_>,
    now: Timestamp,
    chosen: &dyn Fn(LeafKind, &str) -> bool,
) -> Result<Pki, PkiError> {
    make_right(inventory, access, now, chosen)
}

fn make_right(
    inventory: &Inventory,
    access: &Access<'_>,
    now: Timestamp,
    chosen: &dyn Fn(LeafKind, &str) -> bool,
) -> Result<Pki, PkiError> {
    let store = Store::open(access.dir, access.passphrase)?;
    let mut issued = Vec::new();
    let mut rotation = rotation::read(&store)?;
    if let Some(last) = rotation.take_if(|rotation| rotation.stage == RotationStage::Settle) {
        rotation::settle(&store, &last)?;
    }
    let settings = &inventory.pki;
    let mut signing =
        |name| Signing::ensure(&store, name, rotation.as_ref(), inventory, now, &mut issued);
    let (cluster, etcd) = (signing(authority::CLUSTER)?, signing(authority::ETCD)?);
    let service_account = token::signing_keys(&store, rotation.as_ref())?;
    let bootstrap_token = token::bootstrap_token(&store)?;
    let mut leaves = BTreeMap::new();
    for spec in roster::roster(inventory) {
        let signing = if spec.kind.is_etcd() { &etcd } else { &cluster };
        let host = spec.id.split_once('.').map_or("", |(_, host)| host);
        let asked = chosen(spec.kind, host);
        let (credential, reason) =
            leaf::ensure(&store, &spec, &signing.authority, settings, now, asked)?;
        if let Some(reason) = reason {
            issued.push(Issued { id: spec.id.clone(), reason });
        }
        leaves.insert(spec.id, credential);
    }
    let replaced = rotation.as_ref().is_some_and(|r| r.concerns(authority::CLUSTER.title));
    Ok(Pki {
        cluster_ca: cluster.authority.credential,
        etcd_ca: etcd.authority.credential,
        cluster_trust: cluster.trust,
        etcd_trust: etcd.trust,
        former_authority: cluster.former,
        rotated: replaced || pins::read(&store, pins::ROTATED)?.is_some(),
        rotation,
        service_account_key: service_account.private,
        service_account_public: service_account.public,
        service_account_other: service_account.other,
        bootstrap_token,
        issued,
        leaves,
    })
}

/// The request for a certificate of an own authority (PKCS#10, PEM), to be signed by somebody else.
/// Its key is made once and never leaves the state directory.
///
/// # Errors
/// When files cannot be read or written.
pub fn request(
    inventory: &Inventory,
    access: &Access<'_>,
    which: Which,
) -> Result<String, PkiError> {
    let store = Store::open(access.dir, access.passphrase)?;
    let name = which.names().remove(0);
    authority::request(&store, name, &inventory.pki)
}

/// Takes in an authority from outside: the answer to a [`request`], or certificate and key. Says
/// whether it waits for a rotation, because the cluster has another one.
///
/// # Errors
/// When it cannot do the work, or files cannot be read or written.
pub fn import(
    access: &Access<'_>,
    which: Which,
    cert: &Path,
    key: Option<&Path>,
    now: Timestamp,
) -> Result<bool, PkiError> {
    let read = |path: &Path| {
        let text = std::fs::read_to_string(path);
        text.map_err(|source| PkiError::File { act: "read", path: path.to_owned(), source })
    };
    let text = read(cert)?;
    let key = key.map(|key| read(key).map(Secret::new)).transpose()?;
    let store = Store::open(access.dir, access.passphrase)?;
    let name = which.names().remove(0);
    authority::import(&store, name, &text, key.as_ref(), cert, now)
}

/// Certificates and keys as hosts have them.
#[derive(Debug, Default)]
pub struct Adopted {
    /// The authority of the cluster, with its key (PEM).
    pub cluster_ca: (String, Secret),
    /// The certificate of etcd's authority (PEM); its key is on no host.
    pub etcd_ca: String,
    /// Signs service-account tokens (PEM).
    pub service_account_key: Secret,
    /// The token of new kubelets.
    pub bootstrap_token: Secret,
    /// Certificates and keys by the names of their files, without extension.
    pub leaves: BTreeMap<String, (String, Secret)>,
}

/// Fills an empty state directory with what hosts have.
///
/// # Errors
/// When there are certificates already, an authority is unusable, or files cannot be written.
pub fn adopt(access: &Access<'_>, adopted: &Adopted, now: Timestamp) -> Result<(), PkiError> {
    let store = Store::open(access.dir, access.passphrase)?;
    let path = store.path("ca.crt");
    if exists(access.dir) {
        let source = std::io::ErrorKind::AlreadyExists.into();
        return Err(PkiError::File { act: "write", path, source });
    }
    let (cert, key) = &adopted.cluster_ca;
    authority::usable(cert, key.expose(), authority::CLUSTER, &path, now)?;
    let etcd = pem::parse(&adopted.etcd_ca).map_err(|_| PkiError::Unusable {
        authority: authority::ETCD.title,
        path: store.path("etcd-ca.crt"),
        reason: "it is no certificate (PEM)".to_owned(),
    })?;
    for (id, (cert, key)) in &adopted.leaves {
        store.write(&format!("{id}.key"), key.expose())?;
        store.write(&format!("{id}.crt"), cert)?;
    }
    store.write("sa.key", adopted.service_account_key.expose())?;
    store.write(token::TOKEN_FILE, adopted.bootstrap_token.expose())?;
    store.write("etcd-ca.crt", &adopted.etcd_ca)?;
    pins::write(&store, pins::KEYLESS, authority::ETCD.id)?;
    pins::write(&store, authority::ETCD.title, &pins::fingerprint(etcd.contents()))?;
    // The authority of the cluster goes last: with it, the directory counts as filled.
    store.write("ca.key", key.expose())?;
    store.write("ca.crt", cert)
}

/// Whether the secrets of a state directory are sealed.
#[must_use]
pub fn is_sealed(dir: &Path) -> bool {
    dir.join("pki").join(store::SEAL).exists()
}

/// Seals all secrets of a state directory; says whether they were sealed before.
///
/// # Errors
/// When they cannot be read or written, or the passphrase is not theirs.
pub fn seal(access: &Access<'_>) -> Result<bool, PkiError> {
    let before = is_sealed(access.dir);
    let store = Store::open(access.dir, access.passphrase)?;
    Ok(before && store.is_sealed())
}

/// Writes all secrets of a state directory in clear; says how many there are.
///
/// # Errors
/// When they cannot be read or written, or the passphrase is not theirs.
pub fn unseal(access: &Access<'_>) -> Result<usize, PkiError> {
    Store::open(access.dir, access.passphrase)?.unseal_all()
}
