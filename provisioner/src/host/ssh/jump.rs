//! Connections through jump hosts.
//!
//! A few sessions with a jump host carry the connections to all hosts behind it, so that it sees a
//! few logins and not one a host: `MaxStartups` of its sshd would drop those beyond ten. libssh2
//! allows one thread at a time in a session and opens one channel at a time; a thread a session
//! owns it, opens channels in the order of requests, and carries bytes between each channel and one
//! end of a pair of sockets, whose other end is the host's connection.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as Socket;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc as answers};
use std::time::Duration;

use ssh2::{BlockDirections, Channel, Session};
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::super::HostError;
use super::super::known_hosts::KnownHosts;
use super::login::{self, Passphrases, Peer};
use super::{KEEPALIVE, Timing};
use crate::inventory::{HostKeyPolicy, Jump};
use crate::secret::Secret;

/// Sessions with one jump host. A host that does not answer holds up the one that asks for it, for
/// as long as a connection may take; four keep a few dead hosts from holding up all others.
const SESSIONS_MAX: usize = 4;

/// How often a request is repeated whose session ended before it came to its turn.
const TRIES_MAX: usize = 3;

/// Longest time that a jump host may take no bytes from us.
const STALL: Duration = Duration::from_secs(30);

/// Size of the pieces that are carried; a packet of SSH holds no more.
const PIECE: usize = 32 * 1024;

/// The sessions with jump hosts of one run.
#[derive(Debug, Default)]
pub struct Jumps {
    routes: Mutex<BTreeMap<Vec<Jump>, Arc<Mutex<Route>>>>,
    passphrases: Mutex<Passphrases>,
}

/// The sessions with the last jump host of a chain.
#[derive(Debug, Default)]
struct Route {
    lanes: Vec<Lane>,
    /// Why there never was one.
    failure: Option<Arc<HostError>>,
}

#[derive(Debug, Clone)]
struct Lane {
    requests: mpsc::UnboundedSender<Request>,
    /// Requests that are not answered yet.
    pending: Arc<AtomicUsize>,
}

/// What holds for all of a chain.
#[derive(Debug, Clone, Copy)]
pub(super) struct Conditions<'a> {
    pub(super) known: &'a KnownHosts,
    pub(super) policy: HostKeyPolicy,
    pub(super) timeout: Duration,
}

impl Jumps {
    /// Keeps the passphrase of a key file, of a jump host or of a host.
    pub fn keep_passphrase(&self, key: PathBuf, passphrase: Secret) {
        let mut known = self.passphrases.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(key, passphrase);
    }

    /// The passphrases that are known.
    pub(super) fn passphrases(&self) -> Passphrases {
        self.passphrases.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Those of `keys` that need a passphrase which is not known.
    pub fn locked<'a>(&self, keys: impl Iterator<Item = &'a PathBuf>) -> Vec<PathBuf> {
        let known = self.passphrases();
        login::locked(keys.filter(|key| !known.contains_key(*key)))
    }

    /// A connection to `address` from behind the jump hosts of `chain`.
    pub(super) fn stream(
        &self,
        chain: &[Jump],
        (address, port): (&str, u16),
        conditions: Conditions<'_>,
    ) -> Result<OwnedFd, HostError> {
        let unreachable = |source| HostError::Unreachable {
            address: match chain.last() {
                Some(jump) => format!("{address}:{port} through {}", shown(jump)),
                None => format!("{address}:{port}"),
            },
            source,
        };
        if chain.is_empty() {
            return super::tcp(address, port, conditions.timeout)
                .map(OwnedFd::from)
                .map_err(unreachable);
        }
        for _ in 0..TRIES_MAX {
            let lane = self.lane(chain, conditions)?;
            let (answer, answered) = answers::channel();
            let timeout = conditions.timeout;
            let request = Request { address: address.to_owned(), port, timeout, answer };
            let sent = lane.requests.send(request).is_ok();
            let result = if sent { answered.recv().ok() } else { None };
            lane.pending.fetch_sub(1, Ordering::Relaxed);
            if let Some(result) = result {
                return result.map(OwnedFd::from).map_err(unreachable);
            }
        }
        Err(unreachable(io::Error::new(
            io::ErrorKind::ConnectionAborted,
            "the connection to the jump host broke, several times",
        )))
    }

    /// A session with the last of `chain`, counted as asked once more. Sessions with one jump host
    /// are begun one after the other.
    fn lane(&self, chain: &[Jump], conditions: Conditions<'_>) -> Result<Lane, HostError> {
        let route = {
            let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
            routes.entry(chain.to_vec()).or_default().clone()
        };
        let mut route = route.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((jump, before)) = chain.split_last() else { unreachable!("chains are not empty") };
        let named = |source| HostError::Jump { jump: shown(jump), source };
        if let Some(failure) = &route.failure {
            return Err(named(failure.clone()));
        }
        route.lanes.retain(|lane| !lane.requests.is_closed());
        let pending = |lane: &Lane| lane.pending.load(Ordering::Relaxed);
        let idlest = route.lanes.iter().min_by_key(|lane| pending(lane)).cloned();
        let wanted = idlest.as_ref().is_none_or(|lane| pending(lane) > 0);
        let mut chosen = idlest;
        if wanted && route.lanes.len() < SESSIONS_MAX {
            match self.begin(jump, before, conditions) {
                Ok(lane) => {
                    route.lanes.push(lane.clone());
                    chosen = Some(lane);
                }
                Err(error) if chosen.is_some() => {
                    // Those that are there will do, only slower.
                    tracing::debug!(jump = shown(jump), %error, "no further session");
                }
                Err(HostError::Jump { jump, source }) => {
                    // One before it: that is the one to name.
                    return Err(HostError::Jump { jump, source });
                }
                Err(error) => {
                    let failure = Arc::new(error);
                    route.failure = Some(failure.clone());
                    return Err(named(failure));
                }
            }
        }
        let Some(lane) = chosen else { unreachable!("there is one, or it failed") };
        lane.pending.fetch_add(1, Ordering::Relaxed);
        Ok(lane)
    }

    fn begin(
        &self,
        jump: &Jump,
        before: &[Jump],
        conditions: Conditions<'_>,
    ) -> Result<Lane, HostError> {
        let address = (jump.address.as_str(), jump.port);
        let stream = self.stream(before, address, conditions)?;
        let here = HostError::Local;
        let socket = stream.try_clone().map_err(here)?;
        let peer = Peer {
            address: &jump.address,
            port: jump.port,
            user: &jump.user,
            keys: &jump.keys,
            agent: jump.agent,
            host_key: None,
            policy: conditions.policy,
            timeout: conditions.timeout,
        };
        let mut timing = Timing::default();
        let session =
            login::log_in(stream, &peer, conditions.known, &self.passphrases(), &mut timing)?;
        tracing::debug!(jump = shown(jump), ?timing, "logged in at a jump host");
        let interval_s = u32::try_from(KEEPALIVE.as_secs()).unwrap_or(u32::MAX);
        session.set_keepalive(true, interval_s);
        session.set_blocking(false);
        let (requests, asked) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(here)?;
        let (name, direct) = (shown(jump), before.is_empty());
        let work = move || {
            let ended = runtime.block_on(async {
                let socket = Wire::of(socket, direct)?;
                Carrier { session, socket }.serve(asked).await
            });
            if let Err(error) = ended {
                tracing::debug!(jump = name, %error, "the session with a jump host ended");
            }
        };
        std::thread::Builder::new().name("jump".to_owned()).spawn(work).map_err(here)?;
        Ok(Lane { requests, pending: Arc::default() })
    }
}

fn shown(jump: &Jump) -> String {
    format!("{}@{}:{}", jump.user, jump.address, jump.port)
}

/// A wish for a connection.
#[derive(Debug)]
struct Request {
    address: String,
    port: u16,
    timeout: Duration,
    answer: answers::Sender<io::Result<Socket>>,
}

/// `LIBSSH2_ERROR_CHANNEL_FAILURE`: the jump host answers, and opens no such connection.
const CHANNEL_FAILURE: ssh2::ErrorCode = ssh2::ErrorCode::Session(-21);

/// Why there is no connection.
enum OpenError {
    /// This one cannot be had.
    Channel(io::Error),
    /// The session is over.
    Session(io::Error),
}

/// The one who works with a session.
struct Carrier {
    session: Session,
    /// The session's socket, to wait for.
    socket: Wire,
}

/// A session's socket, to wait for; the library reads and writes.
enum Wire {
    Tcp(TcpStream),
    /// The far end of a tunnel through the jump host before.
    Tunnel(UnixStream),
}

impl Wire {
    fn of(socket: OwnedFd, direct: bool) -> io::Result<Self> {
        Ok(if direct {
            Self::Tcp(TcpStream::from_std(socket.into())?)
        } else {
            Self::Tunnel(UnixStream::from_std(socket.into())?)
        })
    }

    /// Waits until something may have happened since the last time.
    async fn wait(&self, interest: Interest) -> io::Result<()> {
        // Readiness is an edge: it is forgotten before the library uses it up.
        let forget = || Err::<(), _>(io::Error::from(io::ErrorKind::WouldBlock));
        match self {
            Self::Tcp(stream) => {
                stream.ready(interest).await?;
                let _ = stream.try_io(interest, forget);
            }
            Self::Tunnel(stream) => {
                stream.ready(interest).await?;
                let _ = stream.try_io(interest, forget);
            }
        }
        Ok(())
    }
}

impl Carrier {
    async fn serve(self, mut asked: mpsc::UnboundedReceiver<Request>) -> io::Result<()> {
        let mut tunnels: Vec<Tunnel> = Vec::new();
        let mut opening: Option<(Request, Instant)> = None;
        let mut keepalive = tokio::time::interval(KEEPALIVE);
        let mut more = true;
        while more || opening.is_some() || !tunnels.is_empty() {
            let mut moved = false;
            if let Some((request, deadline)) = &opening {
                match self.open(request).await {
                    Ok(None) if Instant::now() < *deadline => {}
                    Ok(None) => {
                        // The library cannot give up a channel that is being opened, nor open
                        // another one meanwhile: this session carries what it has, and no more.
                        let error = io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
                        let _ = request.answer.send(Err(error));
                        (opening, more) = (None, false);
                        asked.close();
                        while asked.try_recv().is_ok() {}
                    }
                    Ok(Some((tunnel, end))) => {
                        let _ = request.answer.send(Ok(end));
                        tunnels.push(tunnel);
                        (opening, moved) = (None, true);
                    }
                    Err(OpenError::Session(error)) => return Err(error),
                    Err(OpenError::Channel(error)) => {
                        let _ = request.answer.send(Err(error));
                        (opening, moved) = (None, true);
                    }
                }
            }
            let mut index = 0;
            while let Some(tunnel) = tunnels.get_mut(index) {
                match tunnel.turn(&self).await {
                    Ok(Turn::Moved) => (moved, index) = (true, index + 1),
                    Ok(Turn::Idle) => index += 1,
                    Ok(Turn::Over) | Err(_) => drop(tunnels.swap_remove(index)),
                }
            }
            if moved {
                // Others of this thread are only timers.
                tokio::task::yield_now().await;
                continue;
            }
            let deadline = opening.as_ref().map(|(_, deadline)| *deadline);
            tokio::select! {
                ready = self.socket.wait(Interest::READABLE) => ready?,
                () = any_ready(&tunnels) => {}
                request = asked.recv(), if opening.is_none() && more => match request {
                    Some(request) => {
                        let deadline = Instant::now() + request.timeout;
                        opening = Some((request, deadline));
                    }
                    None => more = false,
                },
                () = tokio::time::sleep_until(deadline.unwrap_or_else(Instant::now)),
                    if deadline.is_some() => {}
                _ = keepalive.tick() => {
                    self.whole(|| self.session.keepalive_send().map_err(Into::into)).await?;
                }
            }
        }
        Ok(())
    }

    async fn open(&self, request: &Request) -> Result<Option<(Tunnel, Socket)>, OpenError> {
        let (address, port) = (request.address.as_str(), request.port);
        let mut refused = false;
        let call = || {
            let opened = self.session.channel_direct_tcpip(address, port, None);
            refused = matches!(&opened, Err(error) if error.code() == CHANNEL_FAILURE);
            opened.map_err(Into::into)
        };
        let channel = match self.whole(call).await {
            Ok(Some(channel)) => channel,
            Ok(None) => return Ok(None),
            Err(error) if refused => return Err(OpenError::Channel(error)),
            Err(error) => return Err(OpenError::Session(error)),
        };
        let (near, far) = Self::pair().map_err(OpenError::Channel)?;
        Ok(Some((Tunnel::new(channel, near), far)))
    }

    fn pair() -> io::Result<(UnixStream, Socket)> {
        let (near, far) = UnixStream::pair()?;
        let far = far.into_std()?;
        far.set_nonblocking(false)?;
        Ok((near, far))
    }

    /// Makes a call of the library, again and again while a packet of its is half sent: the
    /// library takes no other one until then. `None` when it waits for the other side.
    async fn whole<T>(&self, mut call: impl FnMut() -> io::Result<T>) -> io::Result<Option<T>> {
        loop {
            match call() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result.map(Some),
            }
            match self.session.block_directions() {
                BlockDirections::Outbound | BlockDirections::Both => {}
                BlockDirections::None | BlockDirections::Inbound => return Ok(None),
            }
            let ready = tokio::time::timeout(STALL, self.socket.wait(Interest::WRITABLE)).await;
            let stalled = |_| io::Error::new(io::ErrorKind::TimedOut, "it takes no bytes");
            ready.map_err(stalled)??;
        }
    }
}

/// Waits until one of the tunnels' near ends has bytes, or room for those that wait.
async fn any_ready(tunnels: &[Tunnel]) {
    let waiting: Vec<_> = tunnels
        .iter()
        .filter_map(|tunnel| Some((tunnel, tunnel.interest()?)))
        .map(|(tunnel, interest)| Box::pin(tunnel.near.ready(interest)))
        .collect();
    if waiting.is_empty() {
        return std::future::pending().await;
    }
    let _ = futures::future::select_all(waiting).await;
}

/// One channel, and the near end of the host's connection.
struct Tunnel {
    channel: Channel,
    near: UnixStream,
    /// From the host, not yet taken from us.
    inward: Vec<u8>,
    /// To the host, not yet sent.
    outward: Vec<u8>,
    /// Whether the host sends no more, and whether that was handed on.
    host_ended: bool,
    end_told: bool,
    /// Whether the near end was closed.
    near_ended: bool,
}

/// What came of a look at a tunnel.
enum Turn {
    Moved,
    Idle,
    Over,
}

impl Tunnel {
    fn new(channel: Channel, near: UnixStream) -> Self {
        Self {
            channel,
            near,
            inward: Vec::new(),
            outward: Vec::new(),
            host_ended: false,
            end_told: false,
            near_ended: false,
        }
    }

    fn interest(&self) -> Option<Interest> {
        let reads = (self.outward.is_empty() && !self.near_ended).then_some(Interest::READABLE);
        let writes = (!self.inward.is_empty()).then_some(Interest::WRITABLE);
        match (reads, writes) {
            (Some(reads), Some(writes)) => Some(reads | writes),
            (reads, writes) => reads.or(writes),
        }
    }

    async fn turn(&mut self, carrier: &Carrier) -> io::Result<Turn> {
        let inward = self.carry_inward(carrier).await?;
        let outward = self.carry_outward(carrier).await?;
        if self.near_ended && self.outward.is_empty() {
            let channel = &mut self.channel;
            let closed = carrier.whole(|| channel.close().map_err(Into::into)).await?;
            return Ok(if closed.is_some() { Turn::Over } else { Turn::Idle });
        }
        Ok(if inward || outward { Turn::Moved } else { Turn::Idle })
    }

    async fn carry_inward(&mut self, carrier: &Carrier) -> io::Result<bool> {
        let mut moved = false;
        if self.inward.is_empty() && !self.host_ended {
            let mut piece = vec![0; PIECE];
            let channel = &mut self.channel;
            if let Some(count) = carrier.whole(|| channel.read(&mut piece)).await? {
                self.host_ended = count == 0;
                piece.truncate(count);
                (self.inward, moved) = (piece, true);
            }
        }
        if !self.inward.is_empty() {
            match self.near.try_write(&self.inward) {
                Ok(count) => {
                    self.inward.drain(..count);
                    moved |= count > 0;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Nobody is there to take it: what is left to do is to close the channel.
                Err(_) => {
                    self.inward.clear();
                    self.near_ended = true;
                }
            }
        }
        if self.host_ended && self.inward.is_empty() && !self.end_told {
            socket2::SockRef::from(&self.near).shutdown(Shutdown::Write)?;
            self.end_told = true;
        }
        Ok(moved)
    }

    async fn carry_outward(&mut self, carrier: &Carrier) -> io::Result<bool> {
        let mut moved = false;
        if self.outward.is_empty() && !self.near_ended {
            let mut piece = vec![0; PIECE];
            match self.near.try_read(&mut piece) {
                Ok(count) => {
                    self.near_ended = count == 0;
                    piece.truncate(count);
                    (self.outward, moved) = (piece, true);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => self.near_ended = true,
            }
        }
        let room = usize::try_from(self.channel.write_window().remaining).unwrap_or(usize::MAX);
        let len = self.outward.len().min(room);
        if len > 0 {
            let (channel, bytes) = (&mut self.channel, &self.outward[..len]);
            if let Some(count) = carrier.whole(|| channel.write(bytes)).await? {
                self.outward.drain(..count);
                moved |= count > 0;
            }
        }
        Ok(moved)
    }
}
