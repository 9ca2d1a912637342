//! What a certificate says, for lists and warnings; nothing is made or changed here.

use std::collections::BTreeSet;
use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Access, PkiError, authority, leaf, pins, roster, store::Store};
use crate::inventory::Inventory;

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Description {
    /// Whose it is, such as `O=system:masters, CN=kubernetes-admin`.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// DNS names and addresses it is good for.
    pub names: BTreeSet<String>,
    /// From when on it is valid.
    pub not_before: Timestamp,
    /// Until when it is valid.
    pub not_after: Timestamp,
    /// SHA-256 of its bytes, in lower-case hexadecimal digits.
    pub fingerprint: String,
}

impl Description {
    /// Describes the first certificate of a PEM text; `None` when there is none.
    #[must_use]
    pub fn of_pem(text: &str) -> Option<Self> {
        Self::of_der(pem::parse(text).ok()?.contents())
    }

    /// Describes a certificate in DER.
    #[must_use]
    pub fn of_der(der: &[u8]) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(der).ok()?;
        Some(Self {
            subject: parsed.subject().to_string(),
            issuer: parsed.issuer().to_string(),
            names: leaf::names(&parsed),
            not_before: leaf::timestamp(parsed.validity().not_before.timestamp()),
            not_after: leaf::timestamp(parsed.validity().not_after.timestamp()),
            fingerprint: pins::fingerprint(der),
        })
    }

    /// Whole days until the end at `now`; negative when it is over.
    #[must_use]
    pub fn days_left(&self, now: Timestamp) -> i64 {
        (self.not_after.as_second() - now.as_second()).div_euclid(86_400)
    }
}

/// A certificate of the state directory, as it is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Surveyed {
    /// Name of its file, without extension.
    pub id: String,
    /// Its kind, such as `apiserver`; `ca` and `etcd-ca` for authorities.
    pub kind: String,
    /// The host that has it; empty for authorities and the operator's own.
    pub host: String,
    /// Which authority signed it: `cluster`, `etcd`, `next cluster`, `next etcd`, `itself`, or
    /// `unknown`.
    pub authority: String,
    /// Where the host keeps it; `None` for those that are on no host.
    pub path: Option<String>,
    /// What it says; `None` when the file is missing or damaged.
    pub description: Option<Description>,
}

/// Lists all certificates that the inventory asks for, as the state directory has them: authorities
/// first, then by name. Makes and renews nothing.
///
/// # Errors
/// When files cannot be read.
pub fn survey(inventory: &Inventory, access: &Access<'_>) -> Result<Vec<Surveyed>, PkiError> {
    let store = Store::open(access.dir, access.passphrase)?;
    let mut authorities = Vec::new();
    let mut list = Vec::new();
    for (stem, title) in [
        (authority::CLUSTER.id.to_owned(), "cluster".to_owned()),
        (authority::ETCD.id.to_owned(), "etcd".to_owned()),
        (format!("next-{}", authority::CLUSTER.id), "next cluster".to_owned()),
        (format!("next-{}", authority::ETCD.id), "next etcd".to_owned()),
    ] {
        let text = store.read(&format!("{stem}.crt"))?;
        if text.is_none() && stem.starts_with("next-") {
            continue;
        }
        let description = text.as_deref().and_then(Description::of_pem);
        let itself = description.as_ref().is_some_and(|d| d.subject == d.issuer);
        let signer = if itself { "itself" } else { "outside" };
        authorities.extend(text.map(|text| (title, text)));
        list.push(Surveyed {
            id: stem.clone(),
            kind: stem,
            host: String::new(),
            authority: signer.to_owned(),
            path: None,
            description,
        });
    }
    for spec in roster::roster(inventory) {
        let text = store.read(&format!("{}.crt", spec.id))?;
        let (kind, host) = spec.id.split_once('.').unwrap_or((&spec.id, ""));
        let signed = text.as_deref().and_then(|text| signer(text, &authorities));
        list.push(Surveyed {
            kind: kind.to_owned(),
            host: host.to_owned(),
            authority: signed.unwrap_or("unknown").to_owned(),
            path: spec.kind.paths(inventory.cluster.layout).map(|[cert, _]| cert),
            description: text.as_deref().and_then(Description::of_pem),
            id: spec.id,
        });
    }
    Ok(list)
}

fn signer<'a>(leaf: &str, authorities: &'a [(String, String)]) -> Option<&'a str> {
    let leaf = pem::parse(leaf).ok()?.into_contents();
    let (_, leaf) = X509Certificate::from_der(&leaf).ok()?;
    authorities.iter().find_map(|(title, text)| {
        let der = pem::parse(text).ok()?.into_contents();
        let (_, ca) = X509Certificate::from_der(&der).ok()?;
        let signed = leaf.verify_signature(Some(ca.public_key())).is_ok();
        signed.then_some(title.as_str())
    })
}

/// Whether a state directory has certificates at all.
#[must_use]
pub fn exists(dir: &Path) -> bool {
    dir.join("pki").join(format!("{}.crt", authority::CLUSTER.id)).exists()
}
