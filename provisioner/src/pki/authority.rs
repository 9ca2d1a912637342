//! The two authorities.

use std::path::Path;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Credential, Issued, PkiError, Reason, leaf, pins, store::Store};
use crate::{
    inventory::{GivenAuthority, PkiSettings},
    secret::Secret,
};

/// What an authority is called.
#[derive(Debug, Clone, Copy)]
pub(super) struct Name {
    /// Name of its files and of its pin.
    pub(super) id: &'static str,
    /// How reports call it.
    pub(super) title: &'static str,
    common_name: &'static str,
    organization: Option<&'static str>,
    unit: Option<&'static str>,
}

/// The authority of everything but etcd.
pub(super) const CLUSTER: Name = Name {
    id: "ca",
    title: "cluster",
    common_name: "kubernetes",
    organization: Some("k8s"),
    unit: Some("System"),
};

/// The authority of etcd.
pub(super) const ETCD: Name =
    Name { id: "etcd-ca", title: "etcd", common_name: "etcd CA", organization: None, unit: None };

/// An authority that can sign.
pub(super) struct Authority {
    pub(super) credential: Credential,
    pub(super) der: Vec<u8>,
    /// `None` when its key is lost: what it has signed is good, but it signs nothing more.
    pub(super) issuer: Option<Issuer<'static, KeyPair>>,
}

impl Authority {
    /// Reads the authority called `name`, or makes it when there never was one.
    ///
    /// The pin is written last: an authority without a pin has signed nothing that any host has.
    pub(super) fn ensure(
        store: &Store,
        name: Name,
        settings: &PkiSettings,
        now: Timestamp,
        issued: &mut Vec<Issued>,
    ) -> Result<Self, PkiError> {
        let given = match given(settings, name) {
            Some(files) => Some(read_given(files, name, now)?),
            None => None,
        };
        let authority = match (Self::pinned(store, name)?, given) {
            (Some(authority), None) => authority,
            (Some(authority), Some(given)) if authority.der == given.der => authority,
            (Some(authority), Some(given)) => {
                return Err(PkiError::Other {
                    authority: name.title,
                    found: pins::fingerprint(&given.der),
                    pinned: pins::fingerprint(&authority.der),
                });
            }
            (None, given) => {
                let reason = if given.is_some() { Reason::Given } else { Reason::New };
                issued.push(Issued { id: name.id.to_owned(), reason });
                let authority = match given {
                    Some(given) => given.write(store, name.id)?,
                    None => Self::make(store, name.id, name, settings, now)?,
                };
                pins::write(store, name.title, &pins::fingerprint(&authority.der))?;
                authority
            }
        };
        let at = authority.credential.not_after;
        if at <= now {
            return Err(PkiError::Expired { authority: name.title, at });
        }
        Ok(authority)
    }

    /// Reads the authority called `name` and makes sure that it is the pinned one; one that no
    /// pin knows yet is pinned. `None` when there never was one.
    pub(super) fn pinned(store: &Store, name: Name) -> Result<Option<Self>, PkiError> {
        let path = store.path(&format!("{}.crt", name.id));
        let pinned = pins::read(store, name.title)?;
        let Some(authority) = Self::read(store, name.id)? else {
            return match pinned {
                Some(_) => Err(PkiError::Lost { authority: name.title, path }),
                None => Ok(None),
            };
        };
        let found = pins::fingerprint(&authority.der);
        match pinned {
            None => pins::write(store, name.title, &found)?,
            Some(pinned) if pinned == found => {}
            Some(pinned) => {
                return Err(PkiError::Foreign { authority: name.title, path, found, pinned });
            }
        }
        Ok(Some(authority))
    }

    fn read(store: &Store, stem: &str) -> Result<Option<Self>, PkiError> {
        let cert = store.read(&format!("{stem}.crt"))?;
        let key = store.read(&format!("{stem}.key"))?;
        match (cert, key) {
            (Some(cert), Some(key)) => Ok(Self::from_pem(cert, key)),
            (Some(cert), None) if pins::read(store, pins::KEYLESS)?.as_deref() == Some(stem) => {
                Ok(Self::keyless(cert))
            }
            _ => Ok(None),
        }
    }

    fn keyless(cert: String) -> Option<Self> {
        let der = pem::parse(&cert).ok()?.into_contents();
        let (_, parsed) = X509Certificate::from_der(&der).ok()?;
        let not_after = leaf::timestamp(parsed.validity().not_after.timestamp());
        let credential = Credential { cert, key: Secret::new(""), not_after };
        Some(Self { credential, der, issuer: None })
    }

    /// `None` when certificate and key do not belong together or cannot be read.
    fn from_pem(cert: String, key: String) -> Option<Self> {
        let pair = KeyPair::from_pem(&key).ok()?;
        let (der, not_after) = leaf::parse_pair(&cert, &pair)?;
        let issuer = Issuer::from_ca_cert_der(&der.as_slice().into(), pair).ok()?;
        let credential = Credential { cert, key: Secret::new(key), not_after };
        Some(Self { credential, der, issuer: Some(issuer) })
    }

    /// Keeps the authority in `store`, the key first: one without its key would look lost.
    fn write(self, store: &Store, stem: &str) -> Result<Self, PkiError> {
        store.write(&format!("{stem}.key"), self.credential.key.expose())?;
        store.write(&format!("{stem}.crt"), &self.credential.cert)?;
        Ok(self)
    }

    fn make(
        store: &Store,
        stem: &str,
        name: Name,
        settings: &PkiSettings,
        now: Timestamp,
    ) -> Result<Self, PkiError> {
        let failed = |source| PkiError::Issue { id: name.id.to_owned(), source };
        let pair = leaf::generate_key(settings.algorithm).map_err(failed)?;
        let mut params = params(name);
        let not_after = leaf::set_validity(&mut params, now, settings.ca_days);
        let certificate = params.self_signed(&pair).map_err(failed)?;
        let key = pair.serialize_pem();
        let cert = certificate.pem();
        let der = certificate.der().to_vec();
        // Made from the certificate, as every later run does it.
        let issuer = Issuer::from_ca_cert_der(certificate.der(), pair).map_err(failed)?;
        let credential = Credential { cert, key: Secret::new(key), not_after };
        Self { credential, der, issuer: Some(issuer) }.write(store, stem)
    }

    /// Tells whether this authority signed `certificate`.
    pub(super) fn signed(&self, certificate: &X509Certificate<'_>) -> bool {
        let Ok((_, own)) = X509Certificate::from_der(&self.der) else { return false };
        certificate.issuer() == own.subject()
            && certificate.verify_signature(Some(own.public_key())).is_ok()
    }
}

fn params(name: Name) -> CertificateParams {
    let mut subject = DistinguishedName::new();
    if let Some(organization) = name.organization {
        subject.push(DnType::OrganizationName, organization);
    }
    if let Some(unit) = name.unit {
        subject.push(DnType::OrganizationalUnitName, unit);
    }
    subject.push(DnType::CommonName, name.common_name);
    let mut params = CertificateParams::default();
    params.distinguished_name = subject;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
    ];
    params
}

/// The authority that the inventory names, if it does.
fn given(settings: &PkiSettings, name: Name) -> Option<&GivenAuthority> {
    if name.id == ETCD.id { settings.etcd_ca.as_ref() } else { settings.ca.as_ref() }
}

fn read_given(files: &GivenAuthority, name: Name, now: Timestamp) -> Result<Authority, PkiError> {
    let read = |path: &Path| {
        std::fs::read_to_string(path).map_err(|source| PkiError::File {
            act: "read",
            path: path.to_owned(),
            source,
        })
    };
    let (cert, key) = (read(&files.cert)?, read(&files.key)?);
    usable(&cert, &key, name, &files.cert, now)
}

/// Makes sure that an authority from outside can do the work of `name`.
pub(super) fn usable(
    cert: &str,
    key: &str,
    name: Name,
    path: &Path,
    now: Timestamp,
) -> Result<Authority, PkiError> {
    let refused = |reason: String| PkiError::Unusable {
        authority: name.title,
        path: path.to_owned(),
        reason,
    };
    // The first one of a chain is the one that signs; the others are none of the cluster's trust.
    let block = pem::parse(cert).map_err(|_| refused("it is no certificate (PEM)".to_owned()))?;
    let parsed = X509Certificate::from_der(block.contents());
    let (_, parsed) = parsed.map_err(|_| refused("it is no certificate (PEM)".to_owned()))?;
    if !parsed.is_ca() {
        let why = "it is no authority's certificate: its basic constraints do not say CA:TRUE";
        return Err(refused(why.to_owned()));
    }
    if let Ok(Some(usage)) = parsed.key_usage()
        && !usage.value.key_cert_sign()
    {
        return Err(refused("its key usage does not allow it to sign certificates".to_owned()));
    }
    let (begins, ends) = (&parsed.validity().not_before, &parsed.validity().not_after);
    let (begins, ends) = (leaf::timestamp(begins.timestamp()), leaf::timestamp(ends.timestamp()));
    if ends <= now {
        return Err(refused(format!("it ran out at {ends}")));
    }
    if begins > now {
        return Err(refused(format!("it is not valid before {begins}")));
    }
    KeyPair::from_pem(key).map_err(|_| {
        refused("its key cannot be read: an unencrypted PKCS#8 key (PEM) is needed".to_owned())
    })?;
    let cert =
        pem::encode_config(&block, pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF));
    Authority::from_pem(cert, key.to_owned())
        .ok_or_else(|| refused("the key is not the one that belongs to it".to_owned()))
}

/// The authority that will take the place of the present one: the one that the inventory names,
/// the one that was imported, one that an earlier attempt has made, or a new one.
pub(super) fn next(
    store: &Store,
    name: Name,
    settings: &PkiSettings,
    now: Timestamp,
) -> Result<Authority, PkiError> {
    let stem = format!("next-{}", name.id);
    let present = pins::read(store, name.title)?;
    let differs = |next: &Authority| present != Some(pins::fingerprint(&next.der));
    if let Some(files) = given(settings, name) {
        let given = read_given(files, name, now)?;
        if differs(&given) {
            return given.write(store, &stem);
        }
    }
    match Authority::read(store, &stem)? {
        Some(next) if differs(&next) && next.credential.not_after > now => Ok(next),
        _ => Authority::make(store, &stem, name, settings, now),
    }
}

/// The authority that [`next`] has chosen.
pub(super) fn next_written(store: &Store, name: Name) -> Result<Authority, PkiError> {
    let stem = format!("next-{}", name.id);
    let path = store.path(&format!("{stem}.crt"));
    Authority::read(store, &stem)?.ok_or(PkiError::Lost { authority: name.title, path })
}

/// The request for a certificate of an authority that somebody else signs. Its key is made once
/// and waits in the store.
pub(super) fn request(
    store: &Store,
    name: Name,
    settings: &PkiSettings,
) -> Result<String, PkiError> {
    let failed = |source| PkiError::Issue { id: name.id.to_owned(), source };
    let file = pending(name);
    let pair = match store.read(&file)?.map(|text| KeyPair::from_pem(&text)) {
        Some(Ok(pair)) => pair,
        _ => {
            let pair = leaf::generate_key(settings.algorithm).map_err(failed)?;
            store.write(&file, &pair.serialize_pem())?;
            pair
        }
    };
    params(name).serialize_request(&pair).and_then(|request| request.pem()).map_err(failed)
}

/// Takes in the answer to [`request`], or an authority with its `key`. Says whether it waits for a
/// rotation because the cluster has another one.
pub(super) fn import(
    store: &Store,
    name: Name,
    cert: &str,
    key: Option<&Secret>,
    path: &Path,
    now: Timestamp,
) -> Result<bool, PkiError> {
    let pending = match key {
        Some(_) => None,
        None => store.read(&pending(name))?,
    };
    let key = key.map(Secret::expose).or(pending.as_deref());
    let key = key.ok_or_else(|| PkiError::Unusable {
        authority: name.title,
        path: path.to_owned(),
        reason: "there is no key for it: no request was made here, and no key was given".to_owned(),
    })?;
    let authority = usable(cert, key, name, path, now)?;
    let present = pins::read(store, name.title)?;
    let waits = present.is_some_and(|pinned| pinned != pins::fingerprint(&authority.der));
    let stem = if waits { format!("next-{}", name.id) } else { name.id.to_owned() };
    let authority = authority.write(store, &stem)?;
    if !waits {
        pins::write(store, name.title, &pins::fingerprint(&authority.der))?;
    }
    store.remove(&self::pending(name))?;
    Ok(waits)
}

fn pending(name: Name) -> String {
    format!("pending-{}.key", name.id)
}
