//! CertificateSubjectRestriction, CertificateApproval and CertificateSigning: nobody asks the
//! client signer for a cluster administrator, and only who may act for a signer approves or
//! signs its requests.
//!
//! Source: kubernetes 1.33, `plugin/pkg/admission/certificates`.

use api::{Object, Status, Subresource};
use base64::Engine as _;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;

use super::escalation::authorizer;
use super::forbidden;
use crate::admit::Context;
use crate::authorize::Attributes;

const SIGNER: &str = "kubernetes.io/kube-apiserver-client";
const MASTERS: &[u8] = b"system:masters";
/// DER of the object identifier 2.5.4.10 (organization), tag and length included.
const ORGANIZATION: [u8; 5] = [0x06, 0x03, 0x55, 0x04, 0x0a];

pub(super) fn create(object: &Object) -> Result<(), Status> {
    let Object::CertificateSigningRequest(request) = object else { return Ok(()) };
    if request.spec.signer_name == SIGNER && asks_for_masters(&request.spec.request.0) {
        let why = format!("use of {SIGNER} signer with system:masters group is not allowed");
        return Err(forbidden(object, &why));
    }
    Ok(())
}

pub(super) fn update(
    context: Context<'_>,
    new: &Object,
    old: &Object,
    subresource: Option<Subresource>,
) -> Result<(), Status> {
    let (
        Object::CertificateSigningRequest(new_request),
        Object::CertificateSigningRequest(old_request),
    ) = (new, old)
    else {
        return Ok(());
    };
    let certificate =
        |r: &CertificateSigningRequest| r.status.as_ref().and_then(|s| s.certificate.clone());
    let failed = |r: &CertificateSigningRequest| {
        let conditions = r.status.as_ref().and_then(|s| s.conditions.as_ref());
        conditions.into_iter().flatten().any(|c| c.type_ == "Failed")
    };
    let verb = match subresource {
        Some(Subresource::Approval) => "approve",
        Some(Subresource::Status)
            if certificate(new_request) != certificate(old_request)
                || failed(new_request) != failed(old_request) =>
        {
            "sign"
        }
        _ => return Ok(()),
    };
    let signer = old_request.spec.signer_name.as_str();
    if acts_for(context, verb, signer) {
        return Ok(());
    }
    let why = format!("user not permitted to {verb} requests with signerName {signer:?}");
    Err(forbidden(new, &why))
}

/// Whether the caller may act for the signer, or for all signers of its domain.
fn acts_for(context: Context<'_>, verb: &str, signer: &str) -> bool {
    let authorizer = authorizer(context.view);
    let domain = signer.split_once('/').map_or(signer, |(domain, _)| domain);
    [signer.to_owned(), format!("{domain}/*")].into_iter().any(|name| {
        let asked = Attributes {
            verb: verb.to_owned(),
            group: "certificates.k8s.io".to_owned(),
            version: "v1".to_owned(),
            resource: "signers".to_owned(),
            name,
            ..Attributes::default()
        };
        authorizer.authorize(context.caller, &asked).allowed
    })
}

/// Whether an organization in the request is `system:masters`. A request that is no PEM is
/// refused by validation.
fn asks_for_masters(pem: &[u8]) -> bool {
    let Some(der) = decode_pem(pem) else { return false };
    der.windows(ORGANIZATION.len()).enumerate().any(|(at, window)| {
        // The value follows the identifier: one byte of type, one of length, the text.
        window == ORGANIZATION
            && der.get(at + ORGANIZATION.len() + 2..).is_some_and(|v| v.starts_with(MASTERS))
            && der.get(at + ORGANIZATION.len() + 1).copied() == u8::try_from(MASTERS.len()).ok()
    })
}

/// The bytes of the first `CERTIFICATE REQUEST` block.
pub(crate) fn decode_pem(pem: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(pem).ok()?;
    let begin = "-----BEGIN CERTIFICATE REQUEST-----";
    let body = &text[text.find(begin)? + begin.len()..];
    let body = &body[..body.find("-----END CERTIFICATE REQUEST-----")?];
    let packed: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    base64::engine::general_purpose::STANDARD.decode(packed).ok()
}
