//! Certificate signing requests.

use std::collections::BTreeSet;

use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition as Condition,
};

use crate::admission::certificates::decode_pem;
use crate::field::{Causes, Json, Path};
use crate::names;

/// Shortest life a certificate may be requested for: ten minutes.
const SECONDS_MIN: i32 = 600;
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

pub(super) fn create(request: &CertificateSigningRequest, causes: &mut Causes) {
    let path = Path::new("spec");
    let spec = &request.spec;
    if decode_pem(&spec.request.0).is_none() {
        let detail = "PEM block type must be CERTIFICATE REQUEST";
        causes.invalid(&path.child("request"), &spec.request, detail);
    }
    let usages = spec.usages.as_deref().unwrap_or_default();
    let at = path.child("usages");
    if usages.is_empty() {
        causes.required(&at, "");
    }
    let mut seen = BTreeSet::new();
    for (i, usage) in usages.iter().enumerate() {
        if !USAGES.contains(&usage.as_str()) {
            causes.not_supported(&at.index(i), usage, &USAGES);
        }
        if !seen.insert(usage) {
            causes.duplicate(&at.index(i), usage);
        }
    }
    signer(&spec.signer_name, &path.child("signerName"), causes);
    if let Some(seconds) = spec.expiration_seconds.filter(|s| *s < SECONDS_MIN) {
        let detail = "may not specify a duration less than 600 seconds (10 minutes)";
        causes.invalid(&path.child("expirationSeconds"), seconds, detail);
    }
}

fn signer(name: &str, path: &Path<'_>, causes: &mut Causes) {
    if name == "kubernetes.io/legacy-unknown" {
        let detail = "the legacy signerName is not allowed via this API version";
        return causes.invalid(path, name, detail);
    }
    if name.is_empty() {
        return causes.required(path, "");
    }
    let domain = name.split_once('/');
    let sound = domain.is_some_and(|(domain, rest)| {
        domain.contains('.')
            && names::subdomain(domain).is_empty()
            && !rest.contains('/')
            && names::subdomain(rest).is_empty()
    });
    if !sound {
        let detail =
            "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        causes.invalid(path, name, detail);
    }
}

fn conditions(request: &CertificateSigningRequest) -> &[Condition] {
    request.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default()
}

fn has(request: &CertificateSigningRequest, kind: &str) -> bool {
    conditions(request).iter().any(|c| c.type_ == kind)
}

fn check_conditions(
    new: &CertificateSigningRequest,
    old: &CertificateSigningRequest,
    causes: &mut Causes,
) {
    let path = Path::new("status");
    let path = path.child("conditions");
    let mut seen = BTreeSet::new();
    for (i, condition) in conditions(new).iter().enumerate() {
        let at = path.index(i);
        if condition.type_.is_empty() {
            causes.required(&at.child("type"), "");
        }
        let decides = matches!(condition.type_.as_str(), "Approved" | "Denied" | "Failed");
        let supported: &[&str] = if decides { &["True"] } else { &["False", "True", "Unknown"] };
        if !supported.contains(&condition.status.as_str()) {
            causes.not_supported(&at.child("status"), &condition.status, supported);
        }
        if !seen.insert(condition.type_.as_str()) {
            causes.duplicate(&at.child("type"), &condition.type_);
        }
    }
    if has(new, "Approved") && has(new, "Denied") {
        let detail = "Approved and Denied conditions are mutually exclusive";
        causes.invalid(&path, Json(conditions(new)), detail);
    }
    for kind in ["Approved", "Denied", "Failed"] {
        if has(old, kind) && !has(new, kind) {
            let detail = format!("updates may not remove a condition of type {kind:?}");
            causes.forbidden(&path, &detail);
        }
    }
}

/// Checks a decision.
pub(super) fn approval(
    new: &CertificateSigningRequest,
    old: &CertificateSigningRequest,
    causes: &mut Causes,
) {
    check_conditions(new, old, causes);
}

/// Checks what the signer reports.
pub(super) fn status(
    new: &CertificateSigningRequest,
    old: &CertificateSigningRequest,
    causes: &mut Causes,
) {
    check_conditions(new, old, causes);
    let certificate = |r: &CertificateSigningRequest| {
        r.status.as_ref().and_then(|s| s.certificate.clone()).filter(|c| !c.0.is_empty())
    };
    let at = Path::new("status");
    let at = at.child("certificate");
    let (now, before) = (certificate(new), certificate(old));
    if before.is_some() && now != before {
        causes.forbidden(&at, "updates may not modify existing certificate content");
    }
    if let Some(now) = now.filter(|now| Some(now) != before.as_ref()) {
        let text = String::from_utf8_lossy(&now.0).into_owned();
        if !text.contains("-----BEGIN CERTIFICATE-----") {
            let detail = "must contain one or more PEM blocks";
            causes.invalid(&at, "<certificate data>", detail);
        }
    }
}
