//! Signs the kubeconfig in `kube-public/cluster-info` with each bootstrap token that may: who knows
//! a token can tell that it is the cluster's.
//!
//! Source: kubernetes 1.33, `pkg/controller/bootstrap/bootstrapsigner.go`; RFC 7515, appendix F.

use std::collections::BTreeMap;

use api::{ApiObject, Key, Kind, Object, Request, Time};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use machine::{Cache, Delta, Plan, Reconciler};
use sha2::{Digest, Sha256};

use crate::bootstrap_tokens::{self, is_token};

const NAMESPACE: &str = "kube-public";
const NAME: &str = "cluster-info";
/// The key of what is signed.
pub const SIGNED: &str = "kubeconfig";
/// What the keys of signatures start with; the identifier of the token follows.
pub const SIGNATURE: &str = "jws-kubeconfig-";
/// The bytes of a block of SHA-256.
const BLOCK: usize = 64;

/// Keeps the signatures.
pub struct BootstrapSigner;

impl Reconciler for BootstrapSigner {
    fn name(&self) -> &'static str {
        "bootstrap-signer-controller"
    }

    fn kinds(&self) -> &'static [Kind] {
        &[Kind::ConfigMap, Kind::Secret]
    }

    fn keys_for(&self, _cache: &Cache, delta: &Delta) -> Vec<Key> {
        let ours = [&delta.old, &delta.new].into_iter().flatten().any(|object| match object {
            Object::Secret(secret) => is_token(secret),
            _ => delta.key == key(),
        });
        if ours { vec![key()] } else { Vec::new() }
    }

    fn reconcile(&self, cache: &Cache, key: &Key, now: Time) -> Plan {
        let mut plan = Plan::nothing();
        let Some(info) = cache.object(key).and_then(Object::get::<ConfigMap>) else { return plan };
        let Some(data) = &info.data else { return plan };
        let Some(content) = data.get(SIGNED) else { return plan };
        let mut wanted: BTreeMap<String, String> = data
            .iter()
            .filter(|(key, _)| !key.starts_with(SIGNATURE))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        for secret in cache.list_in::<Secret>(bootstrap_tokens::NAMESPACE).filter(|s| is_token(s)) {
            let Some((id, token)) = bootstrap_tokens::signing(secret, now) else { continue };
            wanted.insert(format!("{SIGNATURE}{id}"), sign(content, id, token));
            if let Some(end) = bootstrap_tokens::ends(secret) {
                plan.revisit_in(end.since(now));
            }
        }
        if *data != wanted {
            let mut info = info.clone();
            info.data = Some(wanted);
            plan.request(Request::Update { object: info.into_object(), subresource: None });
        }
        plan
    }
}

fn key() -> Key {
    Key::new(Kind::ConfigMap, NAMESPACE, NAME)
}

/// The signature of the content without the content, by the token of that identifier and secret:
/// HMAC with SHA-256, in the compact form.
pub fn sign(content: &str, id: &str, token: &str) -> String {
    let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"HS256","kid":"{id}"}}"#));
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(content));
    let signature = hmac(token.as_bytes(), signed.as_bytes());
    format!("{header}..{}", URL_SAFE_NO_PAD.encode(signature))
}

/// Source: RFC 2104.
fn hmac(secret: &[u8], message: &[u8]) -> [u8; 32] {
    let mut block = [0_u8; BLOCK];
    if secret.len() > BLOCK {
        block[..32].copy_from_slice(&Sha256::digest(secret));
    } else {
        block[..secret.len()].copy_from_slice(secret);
    }
    let inner = Sha256::new().chain_update(block.map(|b| b ^ 0x36)).chain_update(message);
    let outer = Sha256::new().chain_update(block.map(|b| b ^ 0x5c)).chain_update(inner.finalize());
    outer.finalize().into()
}

#[cfg(test)]
#[expect(clippy::needless_pass_by_value, reason = "rows of tables read better without borrows")]
mod tests {
    use std::time::Duration;

    use k8s_openapi::ByteString;
    use serde_json::{Value, json};

    use super::*;
    use crate::fixture::{Fixture, summary};

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// The vectors of RFC 4231.
    #[test]
    fn hmac_is_that_of_the_standard() {
        assert_eq!(
            hex(&hmac(b"Jefe", b"what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        let long = b"Test Using Larger Than Block-Size Key - Hash Key First";
        assert_eq!(
            hex(&hmac(&[0xaa; 131], long)),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
    }

    #[test]
    fn signatures_are_detached() {
        let signature = sign("content", "abcdef", "0123456789abcdef");
        let parts: Vec<&str> = signature.split('.').collect();
        let [header, content, _] = parts.as_slice() else { panic!("{signature}") };
        let header = URL_SAFE_NO_PAD.decode(header).unwrap();
        assert_eq!(header, br#"{"alg":"HS256","kid":"abcdef"}"#);
        assert_eq!(*content, "");
        assert_ne!(sign("Content", "abcdef", "0123456789abcdef"), signature);
        assert_ne!(sign("content", "abcdef", "0123456789abcdee"), signature);
    }

    fn token(id: &str, fields: &[(&str, &str)]) -> Value {
        let mut data = BTreeMap::from([("token-id", id), ("token-secret", "0123456789abcdef")]);
        data.insert("usage-bootstrap-signing", "true");
        data.extend(fields.iter().copied());
        let data: BTreeMap<&str, ByteString> =
            data.into_iter().map(|(k, v)| (k, ByteString(v.as_bytes().to_vec()))).collect();
        json!({"apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
            "metadata": {"name": format!("bootstrap-token-{id}"), "namespace": "kube-system"},
            "data": data})
    }

    fn info(data: Value) -> Value {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "data": data,
            "metadata": {"name": "cluster-info", "namespace": "kube-public"}})
    }

    fn signers(fixture: &Fixture<BootstrapSigner>) -> Vec<String> {
        let info = fixture.cache.get::<ConfigMap>(NAMESPACE, NAME).unwrap();
        let keys = info.data.iter().flatten().map(|(key, _)| key);
        keys.filter_map(|key| key.strip_prefix(SIGNATURE).map(str::to_owned)).collect()
    }

    #[test]
    fn the_kubeconfig_is_signed_with_each_token_that_may() {
        let mut fixture = Fixture::new(BootstrapSigner);
        assert_eq!(fixture.put(token("aaaaaa", &[])), [key()]);
        fixture.put(token("bbbbbb", &[("usage-bootstrap-signing", "false")]));
        fixture.put(token("cccccc", &[("expiration", "2001-09-09T01:46:41Z")]));
        fixture.put(token("dddddd", &[("expiration", "2001-09-09T01:46:40Z")]));
        fixture.put(token("eeeeee", &[("token-id", "ffffff")]));
        fixture.put(token("GGGGGG", &[]));
        fixture.put(token("hhhhhh", &[("token-secret", "")]));
        assert_eq!(
            fixture.put(info(json!({"kubeconfig": "x", "other": "y",
            "jws-kubeconfig-zzzzzz": "stale"}))),
            [key()]
        );
        fixture.settle(&key());
        assert_eq!(signers(&fixture), ["aaaaaa", "cccccc"]);
        let info = fixture.cache.get::<ConfigMap>(NAMESPACE, NAME).unwrap();
        let data = info.data.as_ref().unwrap();
        assert_eq!(data["jws-kubeconfig-aaaaaa"], sign("x", "aaaaaa", "0123456789abcdef"));
        assert_eq!(data["other"], "y");
        let plan = fixture.reconcile(&key());
        assert_eq!((plan.requests.len(), plan.revisit), (0, Some(Duration::from_secs(1))));
        fixture.advance(Duration::from_secs(1));
        fixture.settle(&key());
        assert_eq!(signers(&fixture), ["aaaaaa"]);
        fixture.remove(&Key::new(Kind::Secret, "kube-system", "bootstrap-token-aaaaaa"));
        fixture.settle(&key());
        assert!(signers(&fixture).is_empty());
    }

    #[test]
    fn without_a_kubeconfig_nothing_is_signed() {
        let mut fixture = Fixture::new(BootstrapSigner);
        fixture.put(token("aaaaaa", &[]));
        assert_eq!(fixture.reconcile(&key()), Plan::nothing());
        fixture.put(info(json!({"other": "y"})));
        assert_eq!(summary(&fixture.reconcile(&key())), Vec::<String>::new());
        let mut elsewhere = info(json!({"kubeconfig": "x"}));
        elsewhere["metadata"]["namespace"] = "default".into();
        assert!(fixture.put(elsewhere).is_empty());
    }
}
