//! Hosts over SSH: one connection and one session a host.
//!
//! libssh2 allows one thread at a time in a session; a host value is used by one thread at a time,
//! so that holds by construction.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use ssh2::{Channel, ExtendedData, MethodType, Session};

use super::known_hosts::KnownHosts;
use super::shell::{Process, ShellHost, Stream, Transport};
use super::{Host, HostError};
use crate::inventory::HostKeyPolicy;

/// How to reach a host and prove who we are.
#[derive(Debug, Clone)]
pub struct Target {
    /// The host's name in the inventory.
    pub name: String,
    /// Address or DNS name.
    pub address: String,
    /// Port of its SSH server.
    pub port: u16,
    /// The user to log in as.
    pub user: String,
    /// Private key files to try, in order.
    pub keys: Vec<PathBuf>,
    /// Whether to try the keys of the SSH agent.
    pub agent: bool,
    /// Whether commands go through `sudo -n`.
    pub sudo: bool,
    /// What to do about an unknown host key.
    pub policy: HostKeyPolicy,
    /// Longest wait for the connection, and again for each answer of the handshake.
    pub connect_timeout: Duration,
}

/// Connects, checks the host's key and logs in.
///
/// # Errors
/// When any of that fails.
pub fn connect(target: &Target, known: &KnownHosts) -> Result<Box<dyn Host>, HostError> {
    Ok(Box::new(ShellHost::new(target.name.clone(), open(target, known)?)))
}

fn open(target: &Target, known: &KnownHosts) -> Result<Ssh, HostError> {
    let address = format!("{}:{}", target.address, target.port);
    let stream = tcp(target)
        .map_err(|source| HostError::Unreachable { address: address.clone(), source })?;
    let handshake = |source| HostError::Handshake { address: address.clone(), source };
    let mut session = Session::new().map_err(handshake)?;
    session.set_timeout(milliseconds(target.connect_timeout));
    prefer_known_algorithms(&session, known, target);
    session.set_tcp_stream(stream);
    session.handshake().map_err(handshake)?;
    let key = session.host_key().map(|(key, _)| key.to_vec()).unwrap_or_default();
    known.check(&target.address, target.port, &key, target.policy)?;
    authenticate(&session, target, &address)?;
    Ok(Ssh { session, target: target.clone(), known: known.file().to_owned() })
}

fn tcp(target: &Target) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in (target.address.as_str(), target.port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, target.connect_timeout) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// A server shows the key of the algorithm that the client likes best; liking a known one best
/// keeps its other keys from looking like a changed one.
fn prefer_known_algorithms(session: &Session, known: &KnownHosts, target: &Target) {
    let known = known.algorithms(&target.address, target.port);
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

fn authenticate(session: &Session, target: &Target, address: &str) -> Result<(), HostError> {
    let mut tried = Vec::new();
    for key in &target.keys {
        match session.userauth_pubkey_file(&target.user, None, key, None) {
            Ok(()) => return Ok(()),
            Err(error) => tried.push(format!("{} ({})", key.display(), error.message())),
        }
    }
    if target.agent {
        match agent(session, &target.user) {
            Ok(()) => return Ok(()),
            Err(error) => tried.push(format!("the SSH agent ({})", error.message())),
        }
    }
    if tried.is_empty() {
        tried.push("nothing: no key file is named and the agent is off".to_owned());
    }
    Err(HostError::Authentication {
        user: target.user.clone(),
        address: address.to_owned(),
        tried: tried.join(", "),
    })
}

fn agent(session: &Session, user: &str) -> Result<(), ssh2::Error> {
    let mut agent = session.agent()?;
    agent.connect()?;
    agent.list_identities()?;
    let mut last = ssh2::Error::new(ssh2::ErrorCode::Session(-33), "it holds no keys");
    for identity in agent.identities()? {
        match agent.userauth(user, &identity) {
            Ok(()) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn milliseconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

struct Ssh {
    session: Session,
    target: Target,
    /// The file of known keys.
    known: PathBuf,
}

impl Transport for Ssh {
    fn exec(&mut self, command: &str, silence_max: Duration) -> io::Result<Box<dyn Process>> {
        self.session.set_timeout(milliseconds(silence_max));
        let mut channel = self.session.channel_session()?;
        channel.handle_extended_data(ExtendedData::Merge)?;
        channel.exec(command)?;
        Ok(Box::new(SshChannel(channel)))
    }

    fn connect(
        &mut self,
        address: &str,
        port: u16,
        silence_max: Duration,
    ) -> io::Result<Box<dyn Stream>> {
        self.session.set_timeout(milliseconds(silence_max));
        match self.session.channel_direct_tcpip(address, port, None) {
            Ok(channel) => Ok(Box::new(SshChannel(channel))),
            Err(error) if forwarding_is_off(&error) => {
                // Some servers allow no forwarding: then the port must be reachable from here.
                let stream = TcpStream::connect((address, port))?;
                stream.set_read_timeout(Some(silence_max))?;
                Ok(Box::new(stream))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The host's key is known by now, whatever the policy was.
    fn again(&self) -> Result<Self, HostError> {
        let target = Target { policy: HostKeyPolicy::Strict, ..self.target.clone() };
        open(&target, &KnownHosts::open(&self.known)?)
    }

    fn sudo_user(&self) -> Option<&str> {
        self.target.sudo.then_some(self.target.user.as_str())
    }
}

/// `LIBSSH2_ERROR_CHANNEL_FAILURE`; a refused connection gives the same code with other words.
fn forwarding_is_off(error: &ssh2::Error) -> bool {
    error.message().contains("prohibited")
}

struct SshChannel(Channel);

impl Read for SshChannel {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for SshChannel {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    /// Nothing waits to be sent. The library's own flush is for the other direction: it throws away
    /// what has arrived and was not read yet.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Process for SshChannel {
    fn end_input(&mut self) -> io::Result<()> {
        self.0.send_eof().map_err(Into::into)
    }

    fn wait(&mut self) -> io::Result<i32> {
        self.0.wait_close()?;
        let signal = self.0.exit_signal()?.exit_signal;
        if signal.is_some() {
            return Ok(-1);
        }
        self.0.exit_status().map_err(Into::into)
    }
}

#[cfg(test)]
mod tests;
