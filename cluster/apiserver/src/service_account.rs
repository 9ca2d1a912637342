//! Tokens of service accounts: signed claims (JWT, ES256) bound to objects that must still
//! exist.
//!
//! Source: kubernetes 1.33, `pkg/serviceaccount`; RFC 7515 and 7519.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use api::legacy_token::{INVALID_SINCE, LAST_USED, date};
use api::{Key, Kind, Object, Time, meta};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
    UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use registry::Caller;
use registry::window::Window;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::config::ServiceAccounts;
use crate::start::{StartError, read};

/// How far clocks may differ.
const LEEWAY: Duration = Duration::from_secs(10);

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The issuer of tokens that live in secrets, and are good for as long as these are.
const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";

/// What whoever uses a token that came with its account is told.
const CAME_WITH_ACCOUNT: &str = "Use tokens from the TokenRequest API or manually created \
                                 secret-based tokens instead of auto-generated secret-based tokens.";

/// Makes and checks tokens of service accounts.
pub(crate) struct TokenAuthority {
    issuer: String,
    audiences: Vec<String>,
    signer: Option<(String, EcdsaKeyPair)>,
    /// Uncompressed points of accepted keys, by their identifier.
    keys: BTreeMap<String, Vec<u8>>,
    lifetime_max: Duration,
}

/// What a token says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Claims {
    pub(crate) aud: Vec<String>,
    pub(crate) exp: u64,
    pub(crate) iat: u64,
    pub(crate) iss: String,
    pub(crate) jti: String,
    #[serde(rename = "kubernetes.io")]
    pub(crate) bound: Bound,
    pub(crate) nbf: u64,
    pub(crate) sub: String,
}

/// What a token says that lives in a secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct LegacyClaims {
    iss: String,
    #[serde(rename = "kubernetes.io/serviceaccount/namespace")]
    pub(crate) namespace: String,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name")]
    pub(crate) secret: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name")]
    pub(crate) account: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid")]
    pub(crate) account_uid: String,
    sub: String,
}

impl LegacyClaims {
    /// What the token in a secret says that is bound so.
    pub(crate) fn of(bound: &Bound) -> Option<Self> {
        let Bound { namespace, serviceaccount: account, secret, .. } = bound;
        Some(Self {
            iss: LEGACY_ISSUER.to_owned(),
            namespace: namespace.clone(),
            secret: secret.as_ref()?.name.clone(),
            account: account.name.clone(),
            account_uid: account.uid.clone(),
            sub: format!("system:serviceaccount:{namespace}:{}", account.name),
        })
    }
}

/// The objects a token is bound to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Bound {
    pub(crate) namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) secret: Option<Reference>,
    pub(crate) serviceaccount: Reference,
}

/// An object by name and UID.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reference {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) uid: String,
}

/// What a token proves.
#[derive(Debug, Default)]
pub(crate) struct Proof {
    /// The account, and those of the audiences asked for that the token is good for; `None` when it
    /// is not accepted.
    pub(crate) accepted: Option<(Caller, Vec<String>)>,
    /// The secret that holds the token, when it does not say yet that it was used today.
    pub(crate) unnoted: Option<Key>,
    /// What whoever uses the token should know.
    pub(crate) warning: Option<&'static str>,
}

/// What a token is to be made for.
pub(crate) struct Grant {
    pub(crate) audiences: Vec<String>,
    pub(crate) lifetime: Duration,
    pub(crate) bound: Bound,
    pub(crate) id: String,
}

impl TokenAuthority {
    pub(crate) fn new(
        config: &ServiceAccounts,
        audiences: Vec<String>,
    ) -> Result<Self, StartError> {
        let mut keys = BTreeMap::new();
        let mut signer = None;
        if let Some(path) = &config.signing_key {
            let pair = private_key(path)?;
            let point = pair.public_key().as_ref().to_vec();
            let id = key_id(&point);
            keys.insert(id.clone(), point);
            signer = Some((id, pair));
        }
        for path in &config.keys {
            for point in public_keys(path)? {
                keys.insert(key_id(&point), point);
            }
        }
        Ok(Self {
            issuer: config.issuer.clone(),
            audiences,
            signer,
            keys,
            lifetime_max: config.lifetime_max,
        })
    }

    /// Whether tokens can be made.
    pub(crate) const fn can_sign(&self) -> bool {
        self.signer.is_some()
    }

    /// The audiences of this server.
    pub(crate) fn audiences(&self) -> &[String] {
        &self.audiences
    }

    /// Makes a token. Returns it with the time of its end.
    pub(crate) fn sign(&self, grant: Grant, now: Time) -> Option<(String, Time)> {
        let lifetime = grant.lifetime.min(self.lifetime_max);
        let expires = now + lifetime;
        let claims = Claims {
            aud: grant.audiences,
            exp: expires.as_secs(),
            iat: now.as_secs(),
            iss: self.issuer.clone(),
            jti: grant.id,
            sub: format!(
                "system:serviceaccount:{}:{}",
                grant.bound.namespace, grant.bound.serviceaccount.name
            ),
            bound: grant.bound,
            nbf: now.as_secs(),
        };
        Some((self.sign_claims(&claims)?, Time::from_secs(expires.as_secs())))
    }

    /// Makes a token that lives in a secret, for as long as that does.
    pub(crate) fn sign_legacy(&self, claims: &LegacyClaims) -> Option<String> {
        self.sign_claims(claims)
    }

    fn sign_claims(&self, claims: &impl Serialize) -> Option<String> {
        let (id, pair) = self.signer.as_ref()?;
        let header = json!({"alg": "ES256", "kid": id}).to_string();
        let claims = serde_json::to_vec(claims).ok()?;
        let signed =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = pair.sign(&SystemRandom::new(), signed.as_bytes()).ok()?;
        Some(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref())))
    }

    /// What a token proves to one of these audiences; ours when there are none.
    pub(crate) fn authenticate(
        &self,
        token: &str,
        audiences: &[String],
        window: &Window,
        now: Time,
    ) -> Proof {
        let Some(payload) = self.verify(token) else { return Proof::default() };
        let wanted = if audiences.is_empty() { &self.audiences } else { audiences };
        if let Ok(claims) = serde_json::from_slice::<LegacyClaims>(&payload) {
            let good: Vec<String> =
                wanted.iter().filter(|a| self.audiences.contains(a)).cloned().collect();
            return match secret_of(&claims, token, window).filter(|_| !good.is_empty()) {
                Some((secret, account)) => legacy_proof(&claims, &secret, &account, good, now),
                None => Proof::default(),
            };
        }
        Proof { accepted: self.bound(&payload, wanted, window, now), ..Proof::default() }
    }

    /// The account of a token that is bound to objects, and the audiences.
    fn bound(
        &self,
        payload: &[u8],
        wanted: &[String],
        window: &Window,
        now: Time,
    ) -> Option<(Caller, Vec<String>)> {
        let claims: Claims = serde_json::from_slice(payload).ok()?;
        let good: Vec<String> = wanted.iter().filter(|a| claims.aud.contains(a)).cloned().collect();
        let begun = Time::from_secs(claims.nbf) <= now + LEEWAY;
        let lasting =
            now.since(Time::from_secs(claims.exp)) < LEEWAY || now < Time::from_secs(claims.exp);
        if claims.iss != self.issuer || good.is_empty() || !begun || !lasting {
            return None;
        }
        still_there(&claims.bound, window).then(|| (caller(&claims), good))
    }

    /// What a token says that one of our keys signed.
    fn verify(&self, token: &str) -> Option<Vec<u8>> {
        #[derive(Deserialize)]
        struct Header {
            alg: String,
            #[serde(default)]
            kid: String,
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let header: Header = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
        if header.alg != "ES256" {
            return None;
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        let mut candidates =
            self.keys.iter().filter(|(id, _)| header.kid.is_empty() || **id == header.kid);
        candidates.find(|(_, point)| {
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
                .verify(signed.as_bytes(), &signature)
                .is_ok()
        })?;
        URL_SAFE_NO_PAD.decode(claims).ok()
    }

    /// The document by which others check our tokens.
    pub(crate) fn key_set(&self) -> Value {
        let keys: Vec<Value> = self
            .keys
            .iter()
            .filter(|(_, point)| point.len() == 65)
            .map(|(id, point)| {
                json!({
                    "use": "sig", "kty": "EC", "kid": id, "crv": "P-256", "alg": "ES256",
                    "x": URL_SAFE_NO_PAD.encode(&point[1..33]),
                    "y": URL_SAFE_NO_PAD.encode(&point[33..]),
                })
            })
            .collect();
        json!({ "keys": keys })
    }

    /// The document by which others find the key set.
    pub(crate) fn discovery(&self) -> Value {
        json!({
            "issuer": self.issuer,
            "jwks_uri": format!("{}/openid/v1/jwks", self.issuer),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        })
    }
}

/// Whether the account and what the token is bound to exist, with the same UIDs.
fn still_there(bound: &Bound, window: &Window) -> bool {
    let exists = |kind: Kind, reference: &Reference| {
        let namespace = if kind.namespaced() { bound.namespace.as_str() } else { "" };
        let entry = window.get(&Key::new(kind, namespace, &reference.name));
        entry.and_then(|e| e.object().ok()).is_some_and(|o| o.uid() == reference.uid)
    };
    // A token is bound to the node of its pod only in name: nodes are re-registered.
    exists(Kind::ServiceAccount, &bound.serviceaccount)
        && bound.pod.as_ref().is_none_or(|r| exists(Kind::Pod, r))
        && bound.secret.as_ref().is_none_or(|r| exists(Kind::Secret, r))
        && (bound.pod.is_some() || bound.node.as_ref().is_none_or(|r| exists(Kind::Node, r)))
}

/// The secret that still holds the very token, with its account, if that exists.
fn secret_of(claims: &LegacyClaims, token: &str, window: &Window) -> Option<(Object, Object)> {
    let find = |kind: Kind, name: &str| {
        let found = window.get(&Key::new(kind, &claims.namespace, name))?.object().ok()?;
        (!meta::is_terminating(found.meta())).then_some(found)
    };
    let account = find(Kind::ServiceAccount, &claims.account)?;
    let secret = find(Kind::Secret, &claims.secret)?;
    let held = secret.get::<Secret>()?.data.as_ref()?.get("token")?;
    let same = verify_slices_are_equal(&held.0, token.as_bytes()).is_ok();
    let valid = claims.iss == LEGACY_ISSUER && account.uid() == claims.account_uid && same;
    valid.then_some((secret, account))
}

/// What a token proves that is in this secret: nothing, if it was marked for not having been used.
fn legacy_proof(
    claims: &LegacyClaims,
    secret: &Object,
    account: &Object,
    audiences: Vec<String>,
    now: Time,
) -> Proof {
    let label = |name: &str| meta::label(secret.meta(), name).unwrap_or_default();
    // Another server's clock may be in another day already.
    let today = [date(now), date(now + DAY)];
    let noted = today.iter().any(|day| label(LAST_USED) == day);
    let marked = !label(INVALID_SINCE).is_empty();
    if marked {
        tracing::warn!(secret = %secret.key(), account = claims.sub,
            "a token was refused that was marked invalid since it had not been used");
    }
    // What an account lists came with it; other tokens somebody asked for.
    let listed = account.get::<ServiceAccount>().and_then(|a| a.secrets.as_deref());
    let own = listed.unwrap_or_default().iter().any(|r| r.name.as_ref() == Some(&claims.secret));
    Proof {
        accepted: (!marked).then(|| (legacy_caller(claims), audiences)),
        unnoted: (!noted).then(|| secret.key()),
        warning: own.then_some(CAME_WITH_ACCOUNT),
    }
}

fn legacy_caller(claims: &LegacyClaims) -> Caller {
    Caller {
        name: claims.sub.clone(),
        uid: claims.account_uid.clone(),
        groups: groups(&claims.namespace),
        ..Caller::default()
    }
}

fn groups(namespace: &str) -> Vec<String> {
    vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")]
}

fn caller(claims: &Claims) -> Caller {
    let namespace = &claims.bound.namespace;
    let mut extra = BTreeMap::new();
    let mut note = |name: &str, value: String| {
        extra.insert(format!("authentication.kubernetes.io/{name}"), vec![value]);
    };
    note("credential-id", format!("JTI={}", claims.jti));
    if let Some(pod) = &claims.bound.pod {
        note("pod-name", pod.name.clone());
        note("pod-uid", pod.uid.clone());
    }
    if let Some(node) = &claims.bound.node {
        note("node-name", node.name.clone());
        note("node-uid", node.uid.clone());
    }
    Caller {
        name: claims.sub.clone(),
        uid: claims.bound.serviceaccount.uid.clone(),
        groups: groups(namespace),
        extra,
    }
}

/// How a key is named in tokens: the hash of its DER.
fn key_id(point: &[u8]) -> String {
    /// The constant head of a P-256 `SubjectPublicKeyInfo`.
    const HEAD: [u8; 26] = [
        0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08,
        0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
    ];
    URL_SAFE_NO_PAD.encode(Sha256::new().chain_update(HEAD).chain_update(point).finalize())
}

fn private_key(path: &Path) -> Result<EcdsaKeyPair, StartError> {
    let malformed = |why: String| StartError::Malformed { path: path.to_owned(), why };
    let block = pem::parse(read(path)?).map_err(|e| malformed(e.to_string()))?;
    EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, block.contents())
        .map_err(|_| malformed("it is no P-256 private key".to_owned()))
}

/// The points of all keys in a file of public keys, private keys or certificates.
fn public_keys(path: &Path) -> Result<Vec<Vec<u8>>, StartError> {
    use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo, X509Certificate};
    let malformed =
        |why: &str| StartError::Malformed { path: path.to_owned(), why: why.to_owned() };
    let blocks = pem::parse_many(read(path)?).map_err(|e| malformed(&e.to_string()))?;
    let point = |block: &pem::Pem| {
        let der = block.contents();
        match block.tag() {
            "PUBLIC KEY" => {
                let (_, info) = SubjectPublicKeyInfo::from_der(der).ok()?;
                Some(info.subject_public_key.data.to_vec())
            }
            "CERTIFICATE" => {
                let (_, certificate) = X509Certificate::from_der(der).ok()?;
                Some(certificate.public_key().subject_public_key.data.to_vec())
            }
            _ => EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, der)
                .ok()
                .map(|pair| pair.public_key().as_ref().to_vec()),
        }
    };
    let points: Vec<_> =
        blocks.iter().filter_map(point).filter(|p| p.len() == 65 && p[0] == 4).collect();
    if points.is_empty() { Err(malformed("it holds no P-256 key")) } else { Ok(points) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::Revision;
    use registry::memory::Record;
    use registry::window::Limits;

    fn window(uid: &str) -> Window {
        let mut window = Window::new(Limits::default());
        let record = |key: &str, json: String| Record {
            key: key.to_owned(),
            value: json.into(),
            revision: Revision(2),
        };
        let account = format!(
            r#"{{"apiVersion":"v1","kind":"ServiceAccount","metadata":{{"name":"sa","namespace":"ns","uid":"{uid}"}}}}"#
        );
        window.replace([record("/registry/serviceaccounts/ns/sa", account)], Revision(3));
        window
    }

    fn authority(directory: &Path) -> TokenAuthority {
        let key = rcgen::KeyPair::generate().unwrap();
        let path = directory.join("sa.key");
        std::fs::write(&path, key.serialize_pem()).unwrap();
        let public = directory.join("sa.pub");
        std::fs::write(&public, key.public_key_pem()).unwrap();
        let config = ServiceAccounts {
            signing_key: Some(path),
            keys: vec![public],
            ..ServiceAccounts::default()
        };
        TokenAuthority::new(&config, vec!["api".to_owned()]).unwrap()
    }

    fn grant(seconds: u64) -> Grant {
        let serviceaccount = Reference { name: "sa".to_owned(), uid: "u1".to_owned() };
        Grant {
            audiences: vec!["api".to_owned()],
            lifetime: Duration::from_secs(seconds),
            bound: Bound { namespace: "ns".to_owned(), serviceaccount, ..Bound::default() },
            id: "id".to_owned(),
        }
    }

    #[test]
    fn tokens_in_secrets_hold_as_long_as_these() {
        let directory = tempfile::tempdir().unwrap();
        let authority = authority(directory.path());
        let mut bound = grant(0).bound;
        bound.secret = Some(Reference { name: "s".to_owned(), uid: "x".to_owned() });
        let claims = LegacyClaims::of(&bound).unwrap();
        let token = authority.sign_legacy(&claims).unwrap();
        let later = Time::from_secs(9_000_000_000);
        let check = |uid: &str, held: Option<&str>, deleted: &str, audience: &str, good: bool| {
            let mut window = window(uid);
            if let Some(held) = held {
                let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata":
                    {"name": "s", "namespace": "ns", "uid": "x", "deletionTimestamp":
                        Some(deleted).filter(|d| !d.is_empty())},
                    "data": {"token": k8s_openapi::ByteString(held.as_bytes().to_vec())}});
                let value =
                    api::codec::encode(&api::codec::decode_value(Kind::Secret, &secret).unwrap());
                let change = registry::memory::Change {
                    key: "/registry/secrets/ns/s".into(),
                    value: Some(value.into()),
                    revision: Revision(4),
                };
                window.apply(&change).unwrap();
            }
            let audiences = [audience.to_owned()];
            let found = authority.authenticate(&token, &audiences, &window, later).accepted;
            assert_eq!(found.is_some(), good, "{uid} {held:?} {deleted} {audience}");
            found
        };
        let found = check("u1", Some(&token), "", "api", true);
        let (caller, audiences) = found.unwrap();
        assert_eq!(caller.name, "system:serviceaccount:ns:sa");
        assert_eq!((caller.uid.as_str(), caller.extra.len()), ("u1", 0));
        assert_eq!(audiences, ["api"]);
        check("u2", Some(&token), "", "api", false);
        check("u1", Some("another"), "", "api", false);
        check("u1", None, "", "api", false);
        check("u1", Some(&token), "2026-01-01T00:00:00Z", "api", false);
        check("u1", Some(&token), "", "other", false);
    }

    #[test]
    fn the_use_of_tokens_in_secrets_is_noted_once_a_day() {
        let directory = tempfile::tempdir().unwrap();
        let authority = authority(directory.path());
        let mut bound = grant(0).bound;
        bound.secret = Some(Reference { name: "s".to_owned(), uid: "x".to_owned() });
        let token = authority.sign_legacy(&LegacyClaims::of(&bound).unwrap()).unwrap();
        let check = |labels: Value, held: &str, accepted: bool, noted: bool| {
            let mut window = window("u1");
            let secret = json!({"apiVersion": "v1", "kind": "Secret",
                "metadata": {"name": "s", "namespace": "ns", "uid": "x", "labels": labels},
                "data": {"token": k8s_openapi::ByteString(held.as_bytes().to_vec())}});
            let value =
                api::codec::encode(&api::codec::decode_value(Kind::Secret, &secret).unwrap());
            let change = registry::memory::Change {
                key: "/registry/secrets/ns/s".into(),
                value: Some(value.into()),
                revision: Revision(4),
            };
            window.apply(&change).unwrap();
            // 2001-09-09.
            let found =
                authority.authenticate(&token, &[], &window, Time::from_secs(1_000_000_000));
            assert_eq!(found.accepted.is_some(), accepted, "{labels}");
            let key = Key::new(Kind::Secret, "ns", "s");
            assert_eq!(found.unnoted, (!noted).then_some(key), "{labels}");
        };
        check(json!({}), &token, true, false);
        check(json!({LAST_USED: "2001-09-08"}), &token, true, false);
        check(json!({LAST_USED: "2001-09-09"}), &token, true, true);
        check(json!({LAST_USED: "2001-09-10"}), &token, true, true);
        check(json!({INVALID_SINCE: "2001-09-01"}), &token, false, false);
        check(json!({INVALID_SINCE: "x", LAST_USED: "2001-09-09"}), &token, false, true);
        // Nobody but the token itself makes anything be written.
        check(json!({}), "another", false, true);
    }

    #[test]
    fn tokens_hold_until_they_end_or_their_account_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let authority = authority(directory.path());
        assert_eq!(authority.keys.len(), 1, "the public key is the signing key's");
        let start = Time::from_secs(1_700_000_000);
        let (token, end) = authority.sign(grant(600), start).unwrap();
        assert_eq!(end, Time::from_secs(1_700_000_600));
        let check = |uid: &str, audience: &str, seconds: u64, expected: bool| {
            let audiences = [audience.to_owned()];
            let now = start + Duration::from_secs(seconds);
            let found = authority.authenticate(&token, &audiences, &window(uid), now).accepted;
            assert_eq!(found.is_some(), expected, "{uid} {audience} {seconds}");
        };
        check("u1", "api", 0, true);
        check("u1", "api", 599, true);
        check("u1", "api", 620, false);
        check("u1", "other", 0, false);
        check("u2", "api", 0, false);
        let found = authority.authenticate(&token, &[], &window("u1"), start);
        assert_eq!(found.unnoted, None, "only tokens in secrets are noted");
        let (caller, _) = found.accepted.unwrap();
        assert_eq!(caller.name, "system:serviceaccount:ns:sa");
        assert_eq!(caller.groups, ["system:serviceaccounts", "system:serviceaccounts:ns"]);
        let mut forged = token.into_bytes();
        let middle = forged.len() / 2;
        forged[middle] ^= 1;
        let forged = String::from_utf8(forged).unwrap();
        let found = authority.authenticate(&forged, &[], &window("u1"), start);
        assert!(found.accepted.is_none());
    }
}
