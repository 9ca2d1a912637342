//! Hosts over SSH: one connection and one session a host, maybe through jump hosts.
//!
//! libssh2 allows one thread at a time in a session; a host value is used by one thread at a time,
//! so that holds by construction.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};
use ssh2::{Channel, ExtendedData, Session};

use super::known_hosts::KnownHosts;
use super::shell::{Process, ShellHost, Stream, Sudo, Transport};
use super::{Host, HostError};
use crate::host_key::HostKey;
use crate::inventory::{HostKeyPolicy, Jump};
use crate::secret::Secret;

mod jump;
mod login;
mod slow;

pub use jump::Jumps;
pub use slow::{Timing, remarks};

use jump::Conditions;
use login::Peer;

/// How long a connection may be silent before it is asked whether it is still there. Firewalls and
/// address translators forget one after a minute at the earliest, and a host may have to wait for
/// its turn for much longer.
const KEEPALIVE: Duration = Duration::from_secs(15);

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
    /// Whether commands go through sudo.
    pub sudo: bool,
    /// What sudo is told when it asks for a password; without it, it must not ask.
    pub sudo_password: Option<Secret>,
    /// What to do about an unknown host key.
    pub policy: HostKeyPolicy,
    /// The only key that the host may show.
    pub host_key: Option<HostKey>,
    /// The hosts to go through, from this machine on.
    pub jumps: Vec<Jump>,
    /// Longest wait for the connection, and again for each answer of the handshake.
    pub connect_timeout: Duration,
}

/// Connects, checks the host's key and logs in; tells how long that took.
///
/// # Errors
/// When any of that fails.
pub fn connect(
    target: &Target,
    known: &KnownHosts,
    jumps: &Arc<Jumps>,
) -> Result<(Box<dyn Host>, Timing), HostError> {
    let mut timing = Timing::default();
    let ssh = open(target, known, jumps, &mut timing)?;
    tracing::debug!(host = target.name, ?timing, "connected");
    Ok((Box::new(ShellHost::new(target.name.clone(), ssh)), timing))
}

fn open(
    target: &Target,
    known: &KnownHosts,
    jumps: &Arc<Jumps>,
    timing: &mut Timing,
) -> Result<Ssh, HostError> {
    let conditions = Conditions { known, policy: target.policy, timeout: target.connect_timeout };
    let began = Instant::now();
    let stream = jumps.stream(&target.jumps, (&target.address, target.port), conditions)?;
    timing.connect = began.elapsed();
    let peer = Peer {
        address: &target.address,
        port: target.port,
        user: &target.user,
        keys: &target.keys,
        agent: target.agent,
        host_key: target.host_key.as_ref(),
        policy: target.policy,
        timeout: target.connect_timeout,
    };
    let session = login::log_in(stream, &peer, known, &jumps.passphrases(), timing)?;
    let (target, known, jumps) = (target.clone(), known.file().to_owned(), jumps.clone());
    Ok(Ssh { session, target, known, jumps })
}

fn tcp(address: &str, port: u16, timeout: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in (address, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                let alive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
                SockRef::from(&stream).set_tcp_keepalive(&alive)?;
                return Ok(stream);
            }
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
    jumps: Arc<Jumps>,
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
            Err(error) if forwarding_is_off(&error) && self.target.jumps.is_empty() => {
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
        let known = KnownHosts::open(&self.known)?;
        open(&target, &known, &self.jumps, &mut Timing::default())
    }

    fn sudo(&self) -> Option<Sudo<'_>> {
        let Target { sudo, user, sudo_password, .. } = &self.target;
        sudo.then_some(Sudo { user, password: sudo_password.as_ref() })
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
