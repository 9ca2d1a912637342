//! Who asks: client certificates, static tokens, bootstrap tokens, service-account tokens.

use std::collections::BTreeMap;
use std::path::Path;

use api::{Key, Kind, Object, Status, Time};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use http::{HeaderMap, header};
use registry::Caller;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::hub::Hub;
use crate::last_use::Uses;
use crate::service_account::{Proof, TokenAuthority};
use crate::start::StartError;

/// The group of everybody who is known.
const BOOTSTRAPPERS: &str = "system:bootstrappers";
const AUTHENTICATED: &str = "system:authenticated";

/// All ways to authenticate but client certificates, which connections carry.
pub(crate) struct Authenticator {
    /// By the hash of the token, so that no comparison tells where tokens differ.
    tokens: BTreeMap<[u8; 32], Caller>,
    bootstrap_tokens: bool,
    authority: TokenAuthority,
    uses: Uses,
}

impl Authenticator {
    /// Whoever holds the other end of `uses` notes which tokens in secrets are used.
    pub(crate) fn new(
        token_file: Option<&Path>,
        bootstrap_tokens: bool,
        authority: TokenAuthority,
        uses: Uses,
    ) -> Result<Self, StartError> {
        let tokens = match token_file {
            Some(path) => parse_tokens(&crate::start::read(path)?)
                .map_err(|why| StartError::Malformed { path: path.to_owned(), why })?,
            None => BTreeMap::new(),
        };
        Ok(Self { tokens, bootstrap_tokens, authority, uses })
    }

    /// The caller of a request, and what the caller should know.
    ///
    /// # Errors
    /// `Unauthorized` when the request proves nobody.
    pub(crate) fn authenticate(
        &self,
        headers: &HeaderMap,
        certificate: Option<&Caller>,
        hub: &Hub,
        now: Time,
    ) -> Result<(Caller, Option<&'static str>), Status> {
        if let Some(caller) = certificate {
            return Ok((caller.clone(), None));
        }
        let token = bearer(headers).ok_or_else(Status::unauthorized)?;
        let Proof { accepted, warning, .. } = self.token(&token, &[], hub, now);
        accepted.map(|(caller, _)| (caller, warning)).ok_or_else(Status::unauthorized)
    }

    /// What a token proves to one of these audiences; to us when there are none.
    pub(crate) fn token(&self, token: &str, audiences: &[String], hub: &Hub, now: Time) -> Proof {
        let accepted = |caller: Caller| Proof {
            accepted: Some((caller, audiences.to_vec())),
            ..Proof::default()
        };
        let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(caller) = self.tokens.get(&hash) {
            return accepted(caller.clone());
        }
        if let Some(caller) = self.bootstrap_token(token, hub, now) {
            return accepted(caller);
        }
        let mut proof = self.authority.authenticate(token, audiences, &hub.read().window, now);
        if let Some(secret) = proof.unnoted.take() {
            self.uses.tell(secret);
        }
        if let Some((caller, _)) = &mut proof.accepted {
            caller.groups.push(AUTHENTICATED.to_owned());
        }
        proof
    }

    /// Makes and checks tokens of service accounts.
    pub(crate) const fn authority(&self) -> &TokenAuthority {
        &self.authority
    }

    /// Source: kubernetes 1.33, `plugin/pkg/auth/authenticator/token/bootstrap`.
    fn bootstrap_token(&self, token: &str, hub: &Hub, now: Time) -> Option<Caller> {
        if !self.bootstrap_tokens {
            return None;
        }
        let (id, secret) = token.split_once('.')?;
        let legal = |s: &str, len| {
            s.len() == len && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        };
        if !legal(id, 6) || !legal(secret, 16) {
            return None;
        }
        let key = Key::new(Kind::Secret, "kube-system", &format!("bootstrap-token-{id}"));
        let object = hub.read().window.get(&key)?.object().ok()?;
        let Object::Secret(found) = object else { return None };
        let field = |name: &str| {
            let value = found.data.as_ref()?.get(name)?;
            std::str::from_utf8(&value.0).ok()
        };
        let valid = found.type_.as_deref() == Some("bootstrap.kubernetes.io/token")
            && found.metadata.deletion_timestamp.is_none()
            && field("token-id") == Some(id)
            && field("usage-bootstrap-authentication") == Some("true")
            && verify_slices_are_equal(field("token-secret")?.as_bytes(), secret.as_bytes())
                .is_ok()
            && field("expiration").is_none_or(|text| {
                text.parse::<jiff::Timestamp>()
                    .is_ok_and(|expires| Time::from_timestamp(expires) > now)
            });
        let extra = field("auth-extra-groups").unwrap_or_default();
        let extra: Vec<&str> = extra.split(',').filter(|_| !extra.is_empty()).collect();
        if !valid || !extra.iter().all(|group| is_bootstrap_group(group)) {
            return None;
        }
        let mut groups = vec![BOOTSTRAPPERS.to_owned()];
        groups.extend(extra.into_iter().map(str::to_owned));
        groups.push(AUTHENTICATED.to_owned());
        Some(Caller { name: format!("system:bootstrap:{id}"), groups, ..Caller::default() })
    }
}

/// Whether a bootstrap token may put its holder into the group: such tokens are no way to become
/// somebody else.
fn is_bootstrap_group(group: &str) -> bool {
    const CHARS_MAX: usize = 256;
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let name = group.strip_prefix(BOOTSTRAPPERS).and_then(|rest| rest.strip_prefix(':'));
    name.is_some_and(|name| {
        name.len() <= CHARS_MAX
            && name.bytes().all(|b| alphanumeric(b) || matches!(b, b':' | b'-'))
            && name.bytes().last().is_some_and(alphanumeric)
    })
}

fn bearer(headers: &HeaderMap) -> Option<String> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let (scheme, token) = value.to_str().ok()?.trim().split_once(' ')?;
        let token = token.trim();
        return (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty())
            .then(|| token.to_owned());
    }
    None
}

/// The caller that a verified client certificate stands for: its common name, and a group for
/// each of its organizations.
pub(crate) fn caller_of_certificate(der: &[u8]) -> Option<Caller> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let mut groups: Vec<String> =
        subject.iter_organization().filter_map(|o| o.as_str().ok().map(str::to_owned)).collect();
    groups.push(AUTHENTICATED.to_owned());
    Some(Caller { name, groups, ..Caller::default() })
}

/// Parses lines of `token,user,uid,"group1,group2"`.
fn parse_tokens(bytes: &[u8]) -> Result<BTreeMap<[u8; 32], Caller>, String> {
    let text = std::str::from_utf8(bytes).map_err(|e| e.to_string())?;
    let mut tokens = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let fields = csv_fields(line);
        let [token, name, uid, rest @ ..] = fields.as_slice() else {
            return Err(format!("line {} has fewer than three fields", number + 1));
        };
        if token.is_empty() || name.is_empty() {
            return Err(format!("line {} has an empty token or user", number + 1));
        }
        let groups = rest.first().map(String::as_str).unwrap_or_default();
        let mut groups: Vec<String> =
            groups.split(',').map(str::trim).filter(|g| !g.is_empty()).map(str::to_owned).collect();
        groups.push(AUTHENTICATED.to_owned());
        let caller = Caller { name: name.clone(), uid: uid.clone(), groups, ..Caller::default() };
        tokens.insert(Sha256::digest(token.as_bytes()).into(), caller);
    }
    Ok(tokens)
}

/// The fields of one line of comma-separated values; quotes protect commas, two quotes are one.
fn csv_fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        let field = fields.last_mut().expect("there is always a field");
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            _ => field.push(c),
        }
    }
    fields.into_iter().map(|f| f.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_files() {
        let tokens = parse_tokens(b"# comment\nabc,alice,7,\"dev, ops\"\n\nxyz,bob,8\n").unwrap();
        let of = |token: &str| {
            let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
            tokens.get(&hash).unwrap().clone()
        };
        assert_eq!(of("abc").name, "alice");
        assert_eq!(of("abc").groups, ["dev", "ops", "system:authenticated"]);
        assert_eq!(of("xyz").groups, ["system:authenticated"]);
        assert!(parse_tokens(b"only,two").unwrap_err().contains("line 1"));
    }

    #[test]
    fn bootstrap_groups() {
        let check = |group: &str, expected: bool| {
            assert_eq!(is_bootstrap_group(group), expected, "{group}");
        };
        check("system:bootstrappers:a", true);
        check("system:bootstrappers:kubeadm:default-node-token", true);
        check("system:bootstrappers", false);
        check("system:bootstrappers:", false);
        check("system:bootstrappers:a-", false);
        check("system:bootstrappers:A", false);
        check("system:masters", false);
        check(" system:bootstrappers:a", false);
        check("system:bootstrappersx:a", false);
        check(&format!("system:bootstrappers:{}", "a".repeat(256)), true);
        check(&format!("system:bootstrappers:{}", "a".repeat(257)), false);
    }

    #[test]
    fn bearer_tokens() {
        let check = |value: &'static str, expected: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, http::HeaderValue::from_static(value));
            assert_eq!(bearer(&headers).as_deref(), expected, "{value}");
        };
        check("Bearer abc", Some("abc"));
        check("bearer  abc ", Some("abc"));
        check("Basic abc", None);
        check("Bearer ", None);
    }
}
