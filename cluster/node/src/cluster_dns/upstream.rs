//! Other resolvers: those of the host.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, Question, RCODE, ResourceRecord};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout};

use super::wire::{self, DATAGRAM_MAX, Message, Reply};
use super::{Vitals, count};

/// Resolvers of a file that are used, as the C library does.
const SERVERS_MAX: usize = 3;
/// How often each of them is asked.
const ROUNDS: usize = 2;
/// How long one may take.
const ATTEMPT_MAX: Duration = Duration::from_secs(1);
/// How long all may take: an asker waits five seconds, and gets an answer before.
const TOTAL_MAX: Duration = Duration::from_secs(4);
/// Datagrams that are looked at in one attempt: others may send what was not asked for.
const DATAGRAMS_MAX: usize = 16;
/// How long an answer is kept at most. It saves the questions of a burst; who wants more asks a
/// resolver of the host that keeps them.
const KEPT_MAX: Duration = Duration::from_secs(30);
/// Answers that are kept.
const ANSWERS_MAX: usize = 1_024;
/// Longest answer that is kept.
const ANSWER_MAX: usize = 4_096;
/// How old the list of resolvers may be.
const LIST_AGE_MAX: Duration = Duration::from_secs(5);

/// Name and type of a question.
type Key = (String, u16);

/// What others answered.
#[derive(Debug)]
pub(super) struct Found {
    reply: Reply,
    at: Instant,
    kept: Duration,
}

impl Found {
    /// The answer as it is now: what is kept grows old.
    pub(super) fn reply(&self) -> Reply {
        let mut reply = self.reply.clone();
        let age = u32::try_from(self.at.elapsed().as_secs()).unwrap_or(u32::MAX);
        for record in reply.answers.iter_mut().chain(&mut reply.authority) {
            record.ttl = record.ttl.saturating_sub(age);
        }
        reply
    }

    fn is_fresh(&self) -> bool {
        self.at.elapsed() < self.kept
    }
}

type Shared = Arc<OnceCell<Option<Arc<Found>>>>;

#[derive(Default)]
struct State {
    servers: Vec<SocketAddr>,
    read_at: Option<Instant>,
    kept: BTreeMap<Key, Arc<Found>>,
    /// The keys of what is kept, the oldest first.
    order: VecDeque<Key>,
    /// Questions that are under way.
    pending: BTreeMap<Key, Shared>,
}

/// The resolvers of the host, and what they answered lately.
pub(super) struct Upstream {
    file: PathBuf,
    own: Vec<IpAddr>,
    vitals: Arc<Vitals>,
    state: Mutex<State>,
}

impl Upstream {
    pub(super) fn new(file: PathBuf, own: Vec<IpAddr>, vitals: Arc<Vitals>) -> Self {
        Self { file, own, vitals, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing is left half done under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks, or waits for the answer to the same question. A question that comes back here in a circle
    /// waits for itself, and ends with it: it never grows to more than one.
    pub(super) async fn lookup(
        &self,
        name: Name<'static>,
        text: String,
        asked: QTYPE,
    ) -> Option<Arc<Found>> {
        let key = (text, u16::from(asked));
        let cell = {
            let mut state = self.state();
            if let Some(found) = state.kept.get(&key).filter(|found| found.is_fresh()) {
                count(&self.vitals.from_cache);
                return Some(Arc::clone(found));
            }
            Arc::clone(state.pending.entry(key.clone()).or_default())
        };
        // The end of the one who asks is the end of all who wait: none of them begins anew, or a
        // circle would never end.
        let ask = async || timeout(TOTAL_MAX, self.ask_all(name, asked)).await.ok().flatten();
        let found = cell.get_or_init(ask).await.clone();
        let mut state = self.state();
        // Another one of the same name may have begun since.
        if state.pending.get(&key).is_some_and(|pending| Arc::ptr_eq(pending, &cell)) {
            state.pending.remove(&key);
            match &found {
                Some(found) => state.keep(key, found),
                None => count(&self.vitals.upstream_failures),
            }
        }
        found
    }

    async fn ask_all(&self, name: Name<'static>, asked: QTYPE) -> Option<Arc<Found>> {
        count(&self.vitals.forwarded);
        let servers = self.servers().await;
        let mut refusal = None;
        for server in (0..ROUNDS).flat_map(|_| &servers) {
            match timeout(ATTEMPT_MAX, ask(*server, &name, asked)).await {
                Ok(Ok(found)) if matches!(found.reply.code, RCODE::NoError | RCODE::NameError) => {
                    return Some(Arc::new(found));
                }
                Ok(Ok(found)) => refusal = Some(Arc::new(found)),
                Ok(Err(error)) => tracing::debug!(%server, %error, "an upstream resolver failed"),
                Err(_) => tracing::debug!(%server, "an upstream resolver is silent"),
            }
        }
        refusal
    }

    /// The host's list, read again when it may have changed.
    async fn servers(&self) -> Vec<SocketAddr> {
        {
            let state = self.state();
            if state.read_at.is_some_and(|at| at.elapsed() < LIST_AGE_MAX) {
                return state.servers.clone();
            }
        }
        let text = match tokio::fs::read_to_string(&self.file).await {
            Ok(text) => text,
            Err(error) => {
                tracing::warn!(%error, file = %self.file.display(), "no list of upstream resolvers");
                String::new()
            }
        };
        let servers = servers(&text, &self.own);
        let mut state = self.state();
        if state.read_at.is_none() || state.servers != servers {
            tracing::info!(?servers, "upstream resolvers");
        }
        state.servers.clone_from(&servers);
        state.read_at = Some(Instant::now());
        servers
    }
}

impl State {
    fn keep(&mut self, key: Key, found: &Arc<Found>) {
        if found.kept.is_zero() {
            return;
        }
        if self.kept.insert(key.clone(), Arc::clone(found)).is_none() {
            self.order.push_back(key);
        }
        while self.order.len() > ANSWERS_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.kept.remove(&oldest);
            }
        }
    }
}

/// The resolvers that a file lists, but for those that lead back here.
pub(super) fn servers(text: &str, own: &[IpAddr]) -> Vec<SocketAddr> {
    let addresses = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let word = (words.next() == Some("nameserver")).then(|| words.next()).flatten()?;
        // With a port in a file that is made for this server.
        word.parse().ok().or_else(|| Some(SocketAddr::new(word.parse().ok()?, 53)))
    });
    addresses.filter(|server| !own.contains(&server.ip())).take(SERVERS_MAX).collect()
}

fn malformed(why: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_string())
}

/// Asks one resolver, over a connection where a datagram is too short. The port is a fresh one for each
/// question, and the number a random one, so that nobody can guess what a false answer must look like.
async fn ask(server: SocketAddr, name: &Name<'static>, asked: QTYPE) -> io::Result<Found> {
    let mut id = [0; 2];
    aws_lc_rs::rand::fill(&mut id).map_err(|_| io::Error::other("the system has no randomness"))?;
    let id = u16::from_be_bytes(id);
    let question = Question::new(name.clone(), asked, CLASS::IN.into(), false);
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    packet.questions.push(question);
    *packet.opt_mut() = Some(wire::extension());
    let query = packet.build_bytes_vec().map_err(malformed)?;
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(&query).await?;
    let mut buffer = vec![0; DATAGRAM_MAX];
    for _ in 0..DATAGRAMS_MAX {
        let length = socket.recv(&mut buffer).await?;
        // One with another number is an answer to somebody else's question, or a false one.
        let message = Message::of(&buffer[..length]);
        let Some(reply) = understand(&message, id, name, asked) else { continue };
        if reply.has_flags(PacketFlag::TRUNCATION) {
            return ask_connected(server, &query, id, name, asked).await;
        }
        return Ok(found(reply, length));
    }
    Err(malformed("none of its datagrams is an answer"))
}

async fn ask_connected(
    server: SocketAddr,
    query: &[u8],
    id: u16,
    name: &Name<'static>,
    asked: QTYPE,
) -> io::Result<Found> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(query.len()).map_err(malformed)?;
    stream.write_all(&[&length.to_be_bytes(), query].concat()).await?;
    let length = usize::from(stream.read_u16().await?);
    let mut buffer = vec![0; length];
    stream.read_exact(&mut buffer).await?;
    match understand(&Message::of(&buffer), id, name, asked) {
        Some(reply) => Ok(found(reply, length)),
        None => Err(malformed("what it sent is no answer")),
    }
}

/// The message, if it answers this question.
fn understand<'a>(
    message: &'a Message<'_>,
    id: u16,
    name: &Name<'static>,
    asked: QTYPE,
) -> Option<Packet<'a>> {
    let packet = message.packet()?;
    let question = packet.questions.first()?;
    let answers = packet.id() == id
        && packet.has_flags(PacketFlag::RESPONSE)
        && question.qtype == asked
        && wire::text(&question.qname) == wire::text(name);
    answers.then_some(packet)
}

fn found(packet: Packet<'_>, length: usize) -> Found {
    let code = packet.rcode();
    let owned = |records: Vec<ResourceRecord<'_>>| -> Vec<ResourceRecord<'static>> {
        records.into_iter().map(ResourceRecord::into_owned).collect()
    };
    let answers = owned(packet.answers);
    let authority = owned(packet.name_servers);
    let kept = if length > ANSWER_MAX { 0 } else { kept_s(code, &answers, &authority) };
    let (authoritative, additional) = (false, Vec::new());
    let reply = Reply { code, authoritative, answers, authority, additional };
    let kept = Duration::from_secs(kept.into()).min(KEPT_MAX);
    Found { reply, at: Instant::now(), kept }
}

/// How long an answer may be kept, in seconds. Source: RFC 2308, section 5.
fn kept_s(code: RCODE, answers: &[ResourceRecord<'_>], authority: &[ResourceRecord<'_>]) -> u32 {
    match code {
        RCODE::NoError if !answers.is_empty() => answers.iter().map(|r| r.ttl).min().unwrap_or(0),
        RCODE::NoError | RCODE::NameError => {
            let terms = authority.iter().filter_map(|record| match &record.rdata {
                RData::SOA(soa) => Some(record.ttl.min(soa.minimum)),
                _ => None,
            });
            terms.min().unwrap_or(0)
        }
        _ => 0,
    }
}
