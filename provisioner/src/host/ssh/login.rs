//! From a connection to a session that is logged in: the handshake, the server's key, our key.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ssh2::{Agent, MethodType, PublicKey, Session};

use super::super::HostError;
use super::super::key_file::KeyFile;
use super::super::known_hosts::KnownHosts;
use super::Timing;
use crate::host_key::HostKey;
use crate::inventory::HostKeyPolicy;
use crate::secret::Secret;

/// Passphrases of private key files.
pub(super) type Passphrases = BTreeMap<PathBuf, Secret>;

/// A server to log in at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer<'a> {
    pub(super) address: &'a str,
    pub(super) port: u16,
    pub(super) user: &'a str,
    pub(super) keys: &'a [PathBuf],
    pub(super) agent: bool,
    /// The only key that it may show; then no other is known.
    pub(super) host_key: Option<&'a HostKey>,
    pub(super) policy: HostKeyPolicy,
    /// Longest wait for each answer.
    pub(super) timeout: Duration,
}

impl Peer<'_> {
    pub(super) fn endpoint(&self) -> String {
        format!("{}:{}", self.address, self.port)
    }
}

/// Logs in over `stream`, and adds to `timing` how long each part took.
///
/// # Errors
/// When the handshake fails, the server shows a key that it may not show, or takes none of ours.
pub(super) fn log_in(
    stream: OwnedFd,
    peer: &Peer<'_>,
    known: &KnownHosts,
    passphrases: &Passphrases,
    timing: &mut Timing,
) -> Result<Session, HostError> {
    let handshake = |source| HostError::Handshake { address: peer.endpoint(), source };
    let began = Instant::now();
    let mut session = Session::new().map_err(handshake)?;
    session.set_timeout(super::milliseconds(peer.timeout));
    prefer_known_algorithms(&session, known, peer);
    session.set_tcp_stream(stream);
    session.handshake().map_err(handshake)?;
    timing.handshake = began.elapsed();
    let key = session.host_key().map(|(key, _)| key.to_vec()).unwrap_or_default();
    let key = HostKey::of_wire(key);
    match peer.host_key {
        Some(pinned) if *pinned == key => {}
        Some(pinned) => {
            return Err(HostError::HostKeyNotPinned {
                address: peer.endpoint(),
                pinned: pinned.fingerprint(),
                shown: key.fingerprint(),
            });
        }
        None => known.check(peer.address, peer.port, &key, peer.policy)?,
    }
    let began = Instant::now();
    authenticate(&session, peer, passphrases)?;
    timing.login = began.elapsed();
    Ok(session)
}

/// A server shows the key of the algorithm that the client likes best; liking a known one best
/// keeps its other keys from looking like a changed one.
fn prefer_known_algorithms(session: &Session, known: &KnownHosts, peer: &Peer<'_>) {
    let known = match peer.host_key {
        Some(key) => key.algorithm().map(str::to_owned).into_iter().collect(),
        None => known.algorithms(peer.address, peer.port),
    };
    let Ok(supported) = session.supported_algs(MethodType::HostKey) else { return };
    let matches = |supported: &&&str| {
        // An RSA key signs with newer hashes under other algorithm names.
        known.iter().any(|k| k == *supported || (k == "ssh-rsa" && supported.starts_with("rsa-")))
    };
    let preferred: Vec<_> = supported.iter().filter(matches).copied().collect();
    if !preferred.is_empty() {
        // A server that has none of them any more must fail the check, not the negotiation.
        let others = supported.iter().filter(|name| !preferred.contains(name)).copied();
        let all: Vec<_> = preferred.iter().copied().chain(others).collect();
        let _ = session.method_pref(MethodType::HostKey, &all.join(","));
    }
}

fn authenticate(
    session: &Session,
    peer: &Peer<'_>,
    passphrases: &Passphrases,
) -> Result<(), HostError> {
    let mut tried = Vec::new();
    for path in peer.keys {
        let file = KeyFile::look(path);
        // Whoever has given a key with a passphrase to the agent need not give it to us.
        let identity = file.public.as_deref().filter(|_| file.encrypted);
        if let Some(public) = identity
            && let Ok((agent, held)) = identities(session)
            && let Some(identity) = held.iter().find(|identity| identity.blob() == public)
        {
            match agent.userauth(peer.user, identity) {
                Ok(()) => return Ok(()),
                Err(error) => tried.push(format!(
                    "{} from the SSH agent ({})",
                    path.display(),
                    error.message()
                )),
            }
            continue;
        }
        let passphrase = passphrases.get(path);
        if file.encrypted && passphrase.is_none() {
            tried.push(format!(
                "{} (it has a passphrase, and none was given: see KPROV_SSH_PASSPHRASE)",
                path.display()
            ));
            continue;
        }
        let passphrase = passphrase.map(Secret::expose);
        match session.userauth_pubkey_file(peer.user, None, path, passphrase) {
            Ok(()) => return Ok(()),
            Err(error) if file.encrypted && error.code() == FILE => {
                return Err(HostError::Passphrase { path: path.clone() });
            }
            Err(error) => tried.push(format!("{} ({})", path.display(), error.message())),
        }
    }
    if peer.agent {
        match agent(session, peer.user) {
            Ok(()) => return Ok(()),
            Err(error) => tried.push(format!("the SSH agent ({})", error.message())),
        }
    }
    if tried.is_empty() {
        tried.push("nothing: no key file is named and the agent is off".to_owned());
    }
    Err(HostError::Authentication {
        user: peer.user.to_owned(),
        address: peer.endpoint(),
        tried: tried.join(", "),
    })
}

/// `LIBSSH2_ERROR_FILE`: of a file that is there, that it cannot be decrypted.
const FILE: ssh2::ErrorCode = ssh2::ErrorCode::Session(-16);

fn agent(session: &Session, user: &str) -> Result<(), ssh2::Error> {
    let (agent, identities) = identities(session)?;
    let mut last = ssh2::Error::new(ssh2::ErrorCode::Session(-33), "it holds no keys");
    for identity in identities {
        match agent.userauth(user, &identity) {
            Ok(()) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn identities(session: &Session) -> Result<(Agent, Vec<PublicKey>), ssh2::Error> {
    let mut agent = session.agent()?;
    agent.connect()?;
    agent.list_identities()?;
    let identities = agent.identities()?;
    Ok((agent, identities))
}

/// The key files of `keys` that need a passphrase because the SSH agent does not hold them, each
/// once, in order.
pub(super) fn locked<'a>(keys: impl Iterator<Item = &'a PathBuf>) -> Vec<PathBuf> {
    let mut locked: Vec<(PathBuf, Option<Vec<u8>>)> = Vec::new();
    for path in keys {
        if locked.iter().any(|(seen, _)| seen == path) {
            continue;
        }
        let file = KeyFile::look(path);
        if file.encrypted {
            locked.push((path.clone(), file.public));
        }
    }
    if locked.is_empty() {
        return Vec::new();
    }
    let held = Session::new().and_then(|session| identities(&session));
    let held = held.map(|(_, held)| held).unwrap_or_default();
    let is_held = |public: &Option<Vec<u8>>| {
        public.as_deref().is_some_and(|public| held.iter().any(|held| held.blob() == public))
    };
    locked.into_iter().filter(|(_, public)| !is_held(public)).map(|(path, _)| path).collect()
}
