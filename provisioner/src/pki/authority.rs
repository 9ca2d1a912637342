//! The two authorities.

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Credential, Issued, PkiError, Reason, leaf, pins, store::Store};
use crate::{inventory::PkiSettings, secret::Secret};

/// What an authority is called.
#[derive(Debug, Clone, Copy)]
pub(super) struct Name {
    /// Name of its files and of its pin.
    id: &'static str,
    /// How reports call it.
    title: &'static str,
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
    pub(super) issuer: Issuer<'static, KeyPair>,
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
        let path = store.path(&format!("{}.crt", name.id));
        let pinned = pins::read(store, name.title)?;
        let authority = match (Self::read(store, name)?, &pinned) {
            (Some(authority), _) => authority,
            (None, Some(_)) => return Err(PkiError::Lost { authority: name.title, path }),
            (None, None) => {
                issued.push(Issued { id: name.id.to_owned(), reason: Reason::New });
                Self::make(store, name, settings, now)?
            }
        };
        let found = pins::fingerprint(&authority.der);
        match pinned {
            None => pins::write(store, name.title, &found)?,
            Some(pinned) if pinned == found => {}
            Some(pinned) => {
                return Err(PkiError::Foreign { authority: name.title, path, found, pinned });
            }
        }
        let at = authority.credential.not_after;
        if at <= now {
            return Err(PkiError::Expired { authority: name.title, at });
        }
        Ok(authority)
    }

    fn read(store: &Store, name: Name) -> Result<Option<Self>, PkiError> {
        let cert = store.read(&format!("{}.crt", name.id))?;
        let key = store.read(&format!("{}.key", name.id))?;
        let (Some(cert), Some(key)) = (cert, key) else { return Ok(None) };
        let Ok(pair) = KeyPair::from_pem(&key) else { return Ok(None) };
        let Some((der, not_after)) = leaf::parse_pair(&cert, &pair) else { return Ok(None) };
        let Ok(issuer) = Issuer::from_ca_cert_der(&der.as_slice().into(), pair) else {
            return Ok(None);
        };
        let credential = Credential { cert, key: Secret::new(key), not_after };
        Ok(Some(Self { credential, der, issuer }))
    }

    fn make(
        store: &Store,
        name: Name,
        settings: &PkiSettings,
        now: Timestamp,
    ) -> Result<Self, PkiError> {
        let failed = |source| PkiError::Issue { id: name.id.to_owned(), source };
        let pair = leaf::generate_key(settings.algorithm).map_err(failed)?;
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
        let not_after = leaf::set_validity(&mut params, now, settings.ca_days);
        let certificate = params.self_signed(&pair).map_err(failed)?;
        let key = pair.serialize_pem();
        let cert = certificate.pem();
        store.write(&format!("{}.key", name.id), &key)?;
        store.write(&format!("{}.crt", name.id), &cert)?;
        let der = certificate.der().to_vec();
        // Made from the certificate, as every later run does it.
        let issuer = Issuer::from_ca_cert_der(certificate.der(), pair).map_err(failed)?;
        let credential = Credential { cert, key: Secret::new(key), not_after };
        Ok(Self { credential, der, issuer })
    }

    /// Tells whether this authority signed `certificate`.
    pub(super) fn signed(&self, certificate: &X509Certificate<'_>) -> bool {
        let Ok((_, own)) = X509Certificate::from_der(&self.der) else { return false };
        certificate.issuer() == own.subject()
            && certificate.verify_signature(Some(own.public_key())).is_ok()
    }
}
