//! Certificates that the authorities sign: checked against what is wanted, made anew where they
//! differ.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use jiff::Timestamp;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, PublicKeyData, SanType,
};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{Credential, PkiError, Reason, authority::Authority, roster::LeafSpec, store::Store};
use crate::{
    inventory::{KeyAlgorithm, PkiSettings},
    secret::Secret,
};

/// A certificate is valid this long before it was made: clocks of hosts differ.
const BACKDATED: Duration = Duration::from_secs(3_600);
/// A certificate is made anew when less than this is left of it…
const RENEW_LEFT_MAX: Duration = Duration::from_secs(30 * 86_400);
/// …or less than this part of its life, for those made to live shortly.
const RENEW_PART: u64 = 3;

/// Reads the certificate of `spec`, or makes it when it is missing or no longer right. Says why
/// it was made.
pub(super) fn ensure(
    store: &Store,
    spec: &LeafSpec,
    authority: &Authority,
    settings: &PkiSettings,
    now: Timestamp,
    asked: bool,
) -> Result<(Credential, Option<Reason>), PkiError> {
    let cert = store.read(&format!("{}.crt", spec.id))?;
    let key = store.read(&format!("{}.key", spec.id))?;
    let reason = match (cert, key) {
        (Some(cert), Some(key)) => {
            match check(&cert, &key, spec, authority, settings.algorithm, now) {
                Ok(_) if asked => Reason::Asked,
                Ok(not_after) => {
                    let credential = Credential { cert, key: Secret::new(key), not_after };
                    return Ok((credential, None));
                }
                Err(reason) => reason,
            }
        }
        (None, None) => Reason::New,
        // The crash came between the two files.
        _ => Reason::Damaged,
    };
    let Some(issuer) = &authority.issuer else {
        let authority = if spec.kind.is_etcd() { "etcd" } else { "cluster" };
        return Err(PkiError::Keyless { authority, id: spec.id.clone() });
    };
    let ends = authority.credential.not_after;
    let (credential, key) = make(spec, issuer, ends, settings, now)
        .map_err(|source| PkiError::Issue { id: spec.id.clone(), source })?;
    store.write_renewable(&format!("{}.key", spec.id), &key)?;
    store.write_renewable(&format!("{}.crt", spec.id), &credential.cert)?;
    Ok((credential, Some(reason)))
}

fn check(
    cert: &str,
    key: &str,
    spec: &LeafSpec,
    authority: &Authority,
    algorithm: KeyAlgorithm,
    now: Timestamp,
) -> Result<Timestamp, Reason> {
    let pair = KeyPair::from_pem(key).map_err(|_| Reason::Damaged)?;
    let (der, not_after) = parse_pair(cert, &pair).ok_or(Reason::Damaged)?;
    let (_, parsed) = X509Certificate::from_der(&der).map_err(|_| Reason::Damaged)?;
    if !authority.signed(&parsed) {
        return Err(Reason::Issuer);
    }
    if !pair.is_compatible(signature(algorithm)) {
        return Err(Reason::Algorithm);
    }
    if subject(&parsed) != (spec.common_name.as_str(), spec.organization.into_iter().collect())
        || usages(&parsed) != (spec.server, spec.client)
    {
        return Err(Reason::Subject);
    }
    if names(&parsed) != spec.names.iter().cloned().collect() {
        return Err(Reason::Names);
    }
    let not_before = timestamp(parsed.validity().not_before.timestamp());
    let life = seconds_between(not_before, not_after);
    let left = seconds_between(now, not_after);
    if left == 0 {
        return Err(Reason::Expired);
    }
    if not_before > now || left < RENEW_LEFT_MAX.as_secs().min(life / RENEW_PART) {
        return Err(Reason::Validity);
    }
    Ok(not_after)
}

fn make(
    spec: &LeafSpec,
    issuer: &Issuer<'static, KeyPair>,
    issuer_ends: Timestamp,
    settings: &PkiSettings,
    now: Timestamp,
) -> Result<(Credential, String), rcgen::Error> {
    let pair = generate_key(settings.algorithm)?;
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    // One organization at most: the subject type of rcgen keeps only the last of several.
    if let Some(organization) = spec.organization {
        subject.push(DnType::OrganizationName, organization);
    }
    subject.push(DnType::CommonName, spec.common_name.as_str());
    params.distinguished_name = subject;
    for name in &spec.names {
        params.subject_alt_names.push(match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.as_str().try_into()?),
        });
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    if settings.algorithm == KeyAlgorithm::Rsa2048 {
        params.key_usages.push(KeyUsagePurpose::KeyEncipherment);
    }
    if spec.server {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    if spec.client {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
    }
    params.use_authority_key_identifier_extension = true;
    let left = seconds_between(now, issuer_ends) / 86_400;
    let days = settings.leaf_days.min(u32::try_from(left).unwrap_or(u32::MAX));
    let not_after = set_validity(&mut params, now, days);
    let certificate = params.signed_by(&pair, issuer)?;
    let key = pair.serialize_pem();
    let cert = certificate.pem();
    Ok((Credential { cert, key: Secret::new(key.clone()), not_after }, key))
}

/// Makes a key of the wanted kind.
pub(super) fn generate_key(algorithm: KeyAlgorithm) -> Result<KeyPair, rcgen::Error> {
    KeyPair::generate_for(signature(algorithm))
}

fn signature(algorithm: KeyAlgorithm) -> &'static rcgen::SignatureAlgorithm {
    match algorithm {
        KeyAlgorithm::EcdsaP256 => &PKCS_ECDSA_P256_SHA256,
        KeyAlgorithm::Rsa2048 => &PKCS_RSA_SHA256,
    }
}

/// Lets a certificate live from a little before `now` until `days` after it; returns the end.
pub(super) fn set_validity(params: &mut CertificateParams, now: Timestamp, days: u32) -> Timestamp {
    let now = now.as_second();
    let end = now + i64::from(days) * 86_400;
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let after_epoch = |seconds: i64| Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    params.not_before = epoch + after_epoch(now) - BACKDATED;
    params.not_after = epoch + after_epoch(end);
    timestamp(end)
}

/// Parses a certificate and makes sure that `pair` is its key; returns its bytes and its end.
pub(super) fn parse_pair(cert: &str, pair: &KeyPair) -> Option<(Vec<u8>, Timestamp)> {
    let der = pem::parse(cert).ok()?.into_contents();
    let (_, parsed) = X509Certificate::from_der(&der).ok()?;
    if parsed.public_key().raw != pair.subject_public_key_info() {
        return None;
    }
    let not_after = timestamp(parsed.validity().not_after.timestamp());
    Some((der, not_after))
}

pub(super) fn subject<'a>(certificate: &'a X509Certificate<'_>) -> (&'a str, Vec<&'a str>) {
    let subject = certificate.subject();
    let name = subject.iter_common_name().next().and_then(|n| n.as_str().ok());
    let groups = subject.iter_organization().filter_map(|o| o.as_str().ok());
    (name.unwrap_or_default(), groups.collect())
}

fn usages(certificate: &X509Certificate<'_>) -> (bool, bool) {
    match certificate.extended_key_usage() {
        Ok(Some(usage)) => (usage.value.server_auth, usage.value.client_auth),
        _ => (false, false),
    }
}

/// The subject alternative names, addresses written as text.
pub(super) fn names(certificate: &X509Certificate<'_>) -> BTreeSet<String> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return BTreeSet::new() };
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let octets: [u8; 4] = (*bytes).try_into().ok()?;
            Some(Ipv4Addr::from(octets).to_string())
        }
        _ => None,
    };
    names.value.general_names.iter().filter_map(text).collect()
}

pub(super) fn timestamp(seconds: i64) -> Timestamp {
    // Years beyond 9999 cannot be told; they are as good as for ever.
    Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX)
}

fn seconds_between(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.as_second() - from.as_second()).unwrap_or(0)
}
