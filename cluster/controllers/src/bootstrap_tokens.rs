//! What the secrets of bootstrap tokens say.
//!
//! Source: kubernetes 1.33, `k8s.io/cluster-bootstrap/token`.

use api::Time;
use k8s_openapi::api::core::v1::Secret;

/// Where the tokens are.
pub(crate) const NAMESPACE: &str = "kube-system";
/// The type of their secrets.
const TYPE: &str = "bootstrap.kubernetes.io/token";
/// What the names of their secrets start with; the identifier follows.
const PREFIX: &str = "bootstrap-token-";
const ID_CHARS: usize = 6;

/// The secret of a token in the namespace of tokens.
pub(crate) fn is_token(secret: &Secret) -> bool {
    secret.metadata.namespace.as_deref() == Some(NAMESPACE) && secret.type_.as_deref() == Some(TYPE)
}

/// One value of the token, as text; `None` when it is empty or no text.
pub(crate) fn field<'a>(secret: &'a Secret, name: &str) -> Option<&'a str> {
    let value = secret.data.as_ref()?.get(name)?;
    std::str::from_utf8(&value.0).ok().filter(|text| !text.is_empty())
}

/// When the token ends; `None` when never. A time that nobody understands has passed.
pub(crate) fn ends(secret: &Secret) -> Option<Time> {
    let text = field(secret, "expiration")?;
    Some(text.parse().map_or(Time::ZERO, Time::from_timestamp))
}

/// Whether the token has ended.
pub(crate) fn has_ended(secret: &Secret, now: Time) -> bool {
    ends(secret).is_some_and(|end| end <= now)
}

/// The identifier and the secret part of a token that signs.
pub(crate) fn signing(secret: &Secret, now: Time) -> Option<(&str, &str)> {
    let name = secret.metadata.name.as_deref()?;
    let named = name.strip_prefix(PREFIX)?;
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let id = field(secret, "token-id")?;
    let key = field(secret, "token-secret")?;
    let signs = named.len() == ID_CHARS
        && named.bytes().all(legal)
        && id == named
        && !has_ended(secret, now)
        && field(secret, "usage-bootstrap-signing") == Some("true");
    signs.then_some((id, key))
}
