//! Who calls: by a client certificate of the cluster's authority, or by a bearer token that the
//! API server knows.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use client::Client;
use http::{HeaderMap, Method, StatusCode, header};
use rustls_pki_types::CertificateDer;
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::answer::Refusal;
use super::expiring::Expiring;

/// How long a token is believed to be somebody's.
const KNOWN_FOR: Duration = Duration::from_secs(60);
/// How long a token is believed to be nobody's.
const UNKNOWN_FOR: Duration = Duration::from_secs(10);
const TOKENS_MAX: usize = 1_024;
/// No token of a cluster is longer.
const TOKEN_BYTES_MAX: usize = 16 << 10;

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, serde::Serialize)]
pub(crate) struct Identity {
    /// The user's name.
    #[serde(rename(deserialize = "username", serialize = "user"))]
    pub(crate) name: String,
    /// The user's UID.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) uid: String,
    /// The user's groups.
    #[serde(default)]
    pub(crate) groups: Vec<String>,
    /// What else the authority says of the user.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) extra: BTreeMap<String, Vec<String>>,
}

/// Reads a verified client certificate; `None` when it names nobody.
pub(crate) fn of_certificate(certificate: &CertificateDer<'_>) -> Option<Identity> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    if name.is_empty() {
        return None;
    }
    let mut groups: Vec<String> =
        subject.iter_organization().filter_map(|o| Some(o.as_str().ok()?.to_owned())).collect();
    groups.push("system:authenticated".to_owned());
    Some(Identity { name, uid: String::new(), groups, extra: BTreeMap::new() })
}

/// Asks the API server about tokens, and remembers what it said.
pub(crate) struct Tokens {
    api: Client,
    known: Expiring<Option<Identity>>,
}

impl Tokens {
    /// Starts with nothing known.
    pub(crate) const fn new(api: Client) -> Self {
        Self { api, known: Expiring::new(TOKENS_MAX) }
    }

    /// Finds who sent the headers; `None` when they carry no token or nobody's.
    pub(crate) async fn of_headers(
        &self,
        headers: &HeaderMap,
    ) -> Result<Option<Identity>, Refusal> {
        let Some(token) = bearer(headers) else { return Ok(None) };
        if token.len() > TOKEN_BYTES_MAX {
            return Ok(None);
        }
        // Memory must not hold what would let a reader of it in.
        let key = Sha256::digest(token).iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        if let Some(known) = self.known.get(&key) {
            return Ok(known);
        }
        let identity = self.review(token).await?;
        let time = if identity.is_some() { KNOWN_FOR } else { UNKNOWN_FOR };
        self.known.put(key, identity.clone(), time);
        Ok(identity)
    }

    async fn review(&self, token: &str) -> Result<Option<Identity>, Refusal> {
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "spec": {"token": token}});
        let path = "/apis/authentication.k8s.io/v1/tokenreviews";
        let body = review.to_string().into();
        match self.api.call(Method::POST, path, "application/json", body).await {
            Ok((200..300, answer)) => reviewed(&answer).ok_or_else(unauthorized),
            Ok((code, _)) => {
                tracing::warn!(code, "the API server refused to review a token");
                Err(unauthorized())
            }
            Err(error) => {
                tracing::warn!(%error, "a token cannot be reviewed");
                Err(unauthorized())
            }
        }
    }
}

/// The refusal of callers that nobody knows.
pub(crate) fn unauthorized() -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, "Unauthorized")
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Reads a token review; the inner `None` means that it is nobody's.
fn reviewed(answer: &[u8]) -> Option<Option<Identity>> {
    #[derive(Deserialize)]
    struct Review {
        #[serde(default)]
        status: Status,
    }
    #[derive(Default, Deserialize)]
    struct Status {
        #[serde(default)]
        authenticated: bool,
        user: Option<Identity>,
    }
    let review: Review = serde_json::from_slice(answer).ok()?;
    Some(review.status.user.filter(|_| review.status.authenticated))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_name_a_user_and_groups() {
        let check = |cn: Option<&str>, organizations: &[&str]| {
            let mut name = rcgen::DistinguishedName::new();
            for organization in organizations {
                name.push(rcgen::DnType::OrganizationName, *organization);
            }
            if let Some(cn) = cn {
                name.push(rcgen::DnType::CommonName, cn);
            }
            let mut params = rcgen::CertificateParams::default();
            params.distinguished_name = name;
            let key = rcgen::KeyPair::generate().unwrap();
            of_certificate(params.self_signed(&key).unwrap().der())
        };
        let admin = check(Some("admin"), &["system:masters"]).unwrap();
        assert_eq!(admin.name, "admin");
        assert_eq!(admin.groups, ["system:masters", "system:authenticated"]);
        assert_eq!(check(None, &["x"]), None);
        assert_eq!(of_certificate(&CertificateDer::from(b"nonsense".to_vec())), None);
    }

    #[test]
    fn reviews() {
        let answer = br#"{"status":{"authenticated":true,"user":{"username":"u","uid":"7",
            "groups":["g"],"extra":{"k":["v"]}}}}"#;
        let user = reviewed(answer).unwrap().unwrap();
        assert_eq!((user.name.as_str(), user.uid.as_str()), ("u", "7"));
        assert_eq!(
            serde_json::to_string(&user).unwrap(),
            r#"{"user":"u","uid":"7","groups":["g"],"extra":{"k":["v"]}}"#
        );
        assert_eq!(reviewed(br#"{"status":{"user":{"username":"u"}}}"#), Some(None));
        assert_eq!(reviewed(b"{}"), Some(None));
        assert_eq!(reviewed(b"["), None);
    }

    #[test]
    fn bearer_tokens() {
        let check = |value: &str, expected: Option<&str>| {
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())]);
            assert_eq!(bearer(&headers), expected, "{value}");
        };
        check("Bearer abc", Some("abc"));
        check("bearer  abc ", Some("abc"));
        check("Basic abc", None);
        check("Bearer ", None);
        check("Bearer", None);
    }
}
