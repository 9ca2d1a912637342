//! Replacing authorities while the cluster runs.
//!
//! Stage by stage, each one a state of all hosts that an apply brings about: [`RotationStage`].
//! The stage is written down before anything of it reaches a host, so a run that dies at any
//! point is taken up where it was, by the same command or by a plain apply.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    Access, Issued, PkiError,
    authority::{self, Authority, Name},
    pins,
    store::Store,
    token,
};
use crate::inventory::Inventory;

const FILE: &str = "rotation.json";

/// How far a rotation has come. Each stage is safe beside the one before and the one after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RotationStage {
    /// Everything trusts the old authority and the new one; the old one signs.
    Trust,
    /// The new authority signs and everything shows its certificates; both are trusted.
    Issue,
    /// The old authority is trusted no more.
    Drop,
    /// All hosts are done; the new authority takes the old one's place in the state directory.
    Settle,
}

impl RotationStage {
    /// The stage's word on the command line and in reports.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Trust => "trust",
            Self::Issue => "issue",
            Self::Drop => "drop",
            Self::Settle => "settle",
        }
    }

    /// The one after it; `None` after the last.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        match self {
            Self::Trust => Some(Self::Issue),
            Self::Issue => Some(Self::Drop),
            Self::Drop => Some(Self::Settle),
            Self::Settle => None,
        }
    }
}

/// A rotation that has begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// How far it has come.
    pub stage: RotationStage,
    /// When it began.
    pub began: Timestamp,
    /// Fingerprints of the old authorities, by `cluster` and `etcd`.
    pub from: BTreeMap<String, String>,
    /// Fingerprints of the new ones.
    pub to: BTreeMap<String, String>,
}

impl Rotation {
    /// Whether the authority called `title` is being replaced.
    #[must_use]
    pub fn concerns(&self, title: &str) -> bool {
        self.to.contains_key(title)
    }

    /// The note that every host keeps while the rotation lasts.
    #[must_use]
    pub fn to_json(&self) -> String {
        let text = serde_json::to_string_pretty(self).expect("a rotation has only string keys");
        format!("{text}\n")
    }
}

/// Which authorities to replace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// That of the cluster, with the key of service-account tokens.
    Cluster,
    /// That of etcd.
    Etcd,
    /// Both.
    All,
}

impl Which {
    pub(super) fn names(self) -> Vec<Name> {
        match self {
            Self::Cluster => vec![authority::CLUSTER],
            Self::Etcd => vec![authority::ETCD],
            Self::All => vec![authority::CLUSTER, authority::ETCD],
        }
    }
}

/// The rotation under way, if there is one.
///
/// # Errors
/// When it cannot be read.
pub fn rotation(access: &Access<'_>) -> Result<Option<Rotation>, PkiError> {
    read(&Store::open(access.dir, access.passphrase)?)
}

/// Begins a rotation, or gives the one that is under way.
///
/// The new authorities are those that were imported or that the inventory names, else new ones.
/// Where an old one has run out there is nothing to be trusted, and the first stage is left out.
///
/// # Errors
/// When files cannot be read or written, or a new authority is unusable.
pub fn begin(
    inventory: &Inventory,
    access: &Access<'_>,
    which: Which,
    now: Timestamp,
) -> Result<Rotation, PkiError> {
    let store = Store::open(access.dir, access.passphrase)?;
    if let Some(rotation) = read(&store)? {
        return Ok(rotation);
    }
    let (mut from, mut to) = (BTreeMap::new(), BTreeMap::new());
    let mut stage = RotationStage::Trust;
    for name in which.names() {
        let old = Authority::pinned(&store, name)?;
        let path = store.path(&format!("{}.crt", name.id));
        let old = old.ok_or(PkiError::Lost { authority: name.title, path })?;
        if old.credential.not_after <= now {
            stage = RotationStage::Issue;
        }
        let next = authority::next(&store, name, &inventory.pki, now)?;
        from.insert(name.title.to_owned(), pins::fingerprint(&old.der));
        to.insert(name.title.to_owned(), pins::fingerprint(&next.der));
        if name.id == authority::CLUSTER.id {
            token::next_signing_key(&store)?;
        }
    }
    let rotation = Rotation { stage, began: now, from, to };
    write(&store, &rotation)?;
    Ok(rotation)
}

/// Writes down that all hosts have reached the present stage, and begins the next one. After the
/// last stage the new authorities take the place of the old ones, which are kept as `former-*`.
///
/// # Errors
/// When files cannot be read or written.
pub fn advance(access: &Access<'_>) -> Result<Option<Rotation>, PkiError> {
    let store = Store::open(access.dir, access.passphrase)?;
    let Some(mut rotation) = read(&store)? else { return Ok(None) };
    if let Some(next) = rotation.stage.next() {
        rotation.stage = next;
        write(&store, &rotation)?;
    }
    if rotation.stage == RotationStage::Settle {
        settle(&store, &rotation)?;
        return Ok(None);
    }
    Ok(Some(rotation))
}

/// Puts the new authorities in place of the old ones. Every step may be done again: what is new is
/// removed from its old name when all of it is in place, and the note of the rotation goes last.
pub(super) fn settle(store: &Store, rotation: &Rotation) -> Result<(), PkiError> {
    for name in Which::All.names().into_iter().filter(|name| rotation.concerns(name.title)) {
        let (new, old) = (format!("next-{}", name.id), format!("former-{}", name.id));
        if let Some(cert) = store.read(&format!("{new}.crt"))? {
            let current = store.read(&format!("{}.crt", name.id))?;
            if current.as_deref().is_some_and(|current| current != cert) {
                store.write(&format!("{old}.crt"), &current.unwrap_or_default())?;
            }
            if let Some(key) = store.read(&format!("{new}.key"))? {
                store.write(&format!("{}.key", name.id), &key)?;
            }
            store.write(&format!("{}.crt", name.id), &cert)?;
        }
        if let Some(to) = rotation.to.get(name.title) {
            pins::write(store, name.title, to)?;
        }
        pins::remove(store, pins::KEYLESS, name.id)?;
        if name.id == authority::CLUSTER.id {
            token::settle(store)?;
        }
    }
    // Raised once a rotation: the moment of its beginning tells rotations apart.
    pins::write(store, pins::ROTATED, &rotation.began.to_string())?;
    for name in Which::All.names() {
        store.remove(&format!("next-{}.crt", name.id))?;
        store.remove(&format!("next-{}.key", name.id))?;
    }
    store.remove(token::NEXT_KEY_FILE)?;
    store.remove(FILE)
}

pub(super) fn read(store: &Store) -> Result<Option<Rotation>, PkiError> {
    let Some(text) = store.read(FILE)? else { return Ok(None) };
    let path = store.path(FILE);
    serde_json::from_str(&text).map(Some).map_err(|source| PkiError::Pins { path, source })
}

fn write(store: &Store, rotation: &Rotation) -> Result<(), PkiError> {
    store.write(FILE, &rotation.to_json())
}

/// Who signs and who is trusted, in the present stage.
pub(super) struct Signing {
    pub(super) authority: Authority,
    /// Certificates of all that are trusted (PEM), the one that signs first.
    pub(super) trust: String,
    /// Digest of the certificate of the other one that is trusted, as hosts know it.
    pub(super) former: Option<String>,
}

impl Signing {
    /// The authority `name` as the present stage of `rotation` has it.
    pub(super) fn ensure(
        store: &Store,
        name: Name,
        rotation: Option<&Rotation>,
        inventory: &Inventory,
        now: Timestamp,
        issued: &mut Vec<Issued>,
    ) -> Result<Self, PkiError> {
        let settings = &inventory.pki;
        let Some(rotation) = rotation.filter(|rotation| rotation.concerns(name.title)) else {
            let authority = Authority::ensure(store, name, settings, now, issued)?;
            let trust = authority.credential.cert.clone();
            return Ok(Self { authority, trust, former: None });
        };
        let path = store.path(&format!("{}.crt", name.id));
        let old = Authority::pinned(store, name)?;
        let old = old.ok_or(PkiError::Lost { authority: name.title, path })?;
        let next = authority::next_written(store, name)?;
        let expected = rotation.to.get(name.title).cloned().unwrap_or_default();
        let found = pins::fingerprint(&next.der);
        if found != expected {
            let path = store.path(&format!("next-{}.crt", name.id));
            let pinned = expected;
            return Err(PkiError::Foreign { authority: name.title, path, found, pinned });
        }
        let (signing, other) = match rotation.stage {
            RotationStage::Trust => (old, next),
            RotationStage::Issue | RotationStage::Drop | RotationStage::Settle => (next, old),
        };
        let at = signing.credential.not_after;
        if at <= now {
            return Err(PkiError::Expired { authority: name.title, at });
        }
        let both = rotation.stage < RotationStage::Drop;
        let mut trust = terminated(&signing.credential.cert);
        if both {
            trust.push_str(&terminated(&other.credential.cert));
        }
        let former = crate::digest::Digest::of(other.credential.cert.as_bytes()).to_string();
        Ok(Self { authority: signing, trust, former: Some(former) })
    }
}

fn terminated(pem: &str) -> String {
    format!("{}\n", pem.trim_end())
}
