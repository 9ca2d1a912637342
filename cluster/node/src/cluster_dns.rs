//! The cluster's DNS on a node: sockets, upstream resolvers, and the watches that answers come from.
//!
//! [`run`] answers as [`network::dns`] decides. Other names are asked of the host's own resolvers, with
//! bounds on time, number and memory.

use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use api::{Kind, Object};
use client::{Client, WatchSpec};
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use machine::WatchEvent;
use network::dns::{Answer, Code, Directory, Known, Question, Zone};
use simple_dns::RCODE;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::timeout;

mod upstream;
mod wire;

#[cfg(test)]
mod tests;

use crate::accept::accept;

use upstream::Upstream;
use wire::{Received, Request};

/// Questions over UDP that wait for other resolvers at a time. Further ones are told to come again.
const WAITING_MAX: usize = 256;
/// Connections at a time.
const CONNECTIONS_MAX: usize = 64;
/// A connection that is silent for so long ends.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// Questions are short; what is longer is none.
const QUESTION_MAX: usize = 4_096;
const KINDS: [Kind; 3] = [Kind::Namespace, Kind::Service, Kind::EndpointSlice];

/// What the server is told by its operator.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it listens, over UDP and TCP.
    pub listen: SocketAddr,
    /// The cluster's own names.
    pub zone: Zone,
    /// Who may ask, besides this host: addresses of pods.
    pub clients: Vec<Ipv4Net>,
    /// Addresses that lead back here. They are no upstream resolvers, whatever the host's file says.
    pub own: Vec<IpAddr>,
    /// The host's list of resolvers.
    pub resolv_conf: PathBuf,
}

/// Why the server does not run.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}; is another DNS server there?")]
pub struct ListenError {
    /// The address.
    address: SocketAddr,
    /// Why.
    #[source]
    source: io::Error,
}

/// What the server tells of itself.
#[derive(Debug, Default)]
pub struct Vitals {
    synced: AtomicBool,
    services: AtomicUsize,
    over_udp: AtomicU64,
    over_tcp: AtomicU64,
    refused: AtomicU64,
    malformed: AtomicU64,
    missing: AtomicU64,
    failed: AtomicU64,
    forwarded: AtomicU64,
    from_cache: AtomicU64,
    upstream_failures: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Vitals {
    /// Whether it answers.
    ///
    /// # Errors
    /// What it waits for.
    pub fn check(&self) -> Result<(), String> {
        match self.synced.load(Ordering::Relaxed) {
            true => Ok(()),
            false => Err("waiting for services, endpoints and namespaces".to_owned()),
        }
    }

    /// Metrics in Prometheus' text format.
    #[must_use]
    pub fn metrics(&self) -> String {
        let mut out = String::from("# TYPE cluster_dns_requests_total counter\n");
        for (protocol, requests) in [("udp", &self.over_udp), ("tcp", &self.over_tcp)] {
            let requests = requests.load(Ordering::Relaxed);
            let _ =
                writeln!(out, "cluster_dns_requests_total{{protocol=\"{protocol}\"}} {requests}");
        }
        for (name, counter) in [
            ("requests_refused", &self.refused),
            ("requests_malformed", &self.malformed),
            ("responses_no_such_name", &self.missing),
            ("responses_failed", &self.failed),
            ("forwarded_requests", &self.forwarded),
            ("forwarded_cache_hits", &self.from_cache),
            ("forwarded_failures", &self.upstream_failures),
        ] {
            let value = counter.load(Ordering::Relaxed);
            let _ = writeln!(
                out,
                "# TYPE cluster_dns_{name}_total counter\ncluster_dns_{name}_total {value}"
            );
        }
        let services = self.services.load(Ordering::Relaxed);
        let _ = writeln!(out, "# TYPE cluster_dns_services gauge\ncluster_dns_services {services}");
        out
    }
}

/// Everything that answers need.
struct Server {
    directory: RwLock<Directory>,
    clients: Vec<Ipv4Net>,
    listen: IpAddr,
    upstream: Upstream,
    vitals: Arc<Vitals>,
    turn: AtomicUsize,
}

/// Answers until `shutdown` turns true. Calls `on_synced` once, when it begins to, with the address it
/// listens on (port 0 asks for a free one).
///
/// # Errors
/// The address cannot be listened on.
pub async fn run(
    client: Client,
    settings: Settings,
    vitals: Arc<Vitals>,
    on_synced: impl FnOnce(SocketAddr) + Send,
    mut shutdown: watch::Receiver<bool>,
) -> Result<(), ListenError> {
    let address = settings.listen;
    let listen = |source| ListenError { address, source };
    let tcp = TcpListener::bind(address).await.map_err(listen)?;
    let bound = tcp.local_addr().map_err(listen)?;
    let udp = UdpSocket::bind(bound).await.map_err(listen)?;
    let (sink, mut news) = mpsc::channel::<WatchEvent>(256);
    let watches: Vec<_> = KINDS
        .map(|kind| tokio::spawn(client::watch(client.clone(), WatchSpec::all(kind), sink.clone())))
        .into();
    let server = Arc::new(Server::new(settings, vitals));
    let mut on_synced = Some(on_synced);
    let mut listed = [false; KINDS.len()];
    let mut sockets = Some((udp, tcp));
    let mut loops = Vec::new();
    loop {
        tokio::select! {
            biased;
            _ = shutdown.wait_for(|stop| *stop) => break,
            Some(event) = news.recv() => {
                if let WatchEvent::Replaced { kind, .. } = &event
                    && let Some(at) = KINDS.iter().position(|k| k == kind)
                {
                    listed[at] = true;
                }
                server.learn(event);
                // Before everything is known, it would deny names that exist.
                if listed == [true; KINDS.len()]
                    && let Some((udp, tcp)) = sockets.take()
                {
                    server.vitals.synced.store(true, Ordering::Relaxed);
                    loops.push(tokio::spawn(answer_datagrams(Arc::clone(&server), udp)));
                    loops.push(tokio::spawn(answer_connections(Arc::clone(&server), tcp)));
                    if let Some(on_synced) = on_synced.take() {
                        on_synced(bound);
                    }
                }
            }
        }
    }
    watches.into_iter().chain(loops).for_each(|task| task.abort());
    Ok(())
}

impl Server {
    fn new(settings: Settings, vitals: Arc<Vitals>) -> Self {
        Self {
            directory: RwLock::new(Directory::new(settings.zone)),
            clients: settings.clients,
            listen: settings.listen.ip(),
            upstream: Upstream::new(settings.resolv_conf, settings.own, Arc::clone(&vitals)),
            vitals,
            turn: AtomicUsize::new(0),
        }
    }

    fn learn(&self, event: WatchEvent) {
        // Nothing is left half done under this lock.
        let mut directory = self.directory.write().unwrap_or_else(PoisonError::into_inner);
        match event {
            WatchEvent::Changed(object) => put(&mut directory, &object),
            WatchEvent::Deleted { key, .. } => match key.kind {
                Kind::Namespace => directory.remove_namespace(&key.name),
                Kind::Service => directory.remove_service(&key.namespace, &key.name),
                Kind::EndpointSlice => directory.remove_slice(&key.namespace, &key.name),
                _ => {}
            },
            WatchEvent::Replaced { kind, objects, .. } => {
                match kind {
                    Kind::Namespace => directory.clear_namespaces(),
                    Kind::Service => directory.clear_services(),
                    Kind::EndpointSlice => directory.clear_slices(),
                    _ => {}
                }
                objects.iter().for_each(|object| put(&mut directory, object));
            }
            _ => {}
        }
        self.vitals.services.store(directory.services(), Ordering::Relaxed);
    }

    /// Only pods and this host ask here: a resolver for everyone serves attacks on others.
    fn may_ask(&self, client: IpAddr) -> bool {
        client.is_loopback()
            || client == self.listen
            || matches!(client, IpAddr::V4(ip) if self.clients.iter().any(|net| net.contains(&ip)))
    }

    /// What is known at once about a message.
    fn decide(&self, message: &[u8], client: IpAddr, limit: Option<usize>) -> Decision {
        let request = match wire::receive(message, limit) {
            Received::Nothing => return Decision::Silence,
            Received::Malformed(reply) => {
                count(&self.vitals.malformed);
                return Decision::Send(reply);
            }
            Received::Request(request) => request,
        };
        if !self.may_ask(client) {
            count(&self.vitals.refused);
            return Decision::Send(request.code(RCODE::Refused));
        }
        let question = Question { name: &request.text, kind: request.kind };
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let answer = {
            let directory = self.directory.read().unwrap_or_else(PoisonError::into_inner);
            directory.answer(&question, turn)
        };
        match answer {
            Answer::Known(known) if known.then.is_some() && request.wants_address() => {
                Decision::Ask(request, Some(known))
            }
            Answer::Known(known) => {
                match known.code {
                    Code::NoError => {}
                    Code::NameError => count(&self.vitals.missing),
                    Code::ServerFailure => count(&self.vitals.failed),
                }
                Decision::Send(request.known(&known))
            }
            Answer::Elsewhere if request.recursion_desired => Decision::Ask(request, None),
            Answer::Elsewhere => {
                count(&self.vitals.refused);
                Decision::Send(request.code(RCODE::Refused))
            }
        }
    }

    /// Asks others for what is not known here.
    async fn ask(&self, request: &Request, known: Option<&Known>) -> Vec<u8> {
        let target = known.and_then(|known| known.then.as_deref());
        let text = target.unwrap_or(&request.text).to_owned();
        // In lower case, as the answer is kept for all who ask.
        let name = match text.as_str() {
            "" => Ok(request.question.qname.clone()),
            text => simple_dns::Name::new(text).map(simple_dns::Name::into_owned),
        };
        let Ok(name) = name else {
            count(&self.vitals.failed);
            return request.code(RCODE::ServerFailure);
        };
        match self.upstream.lookup(name, text, request.question.qtype).await {
            Some(found) => {
                let mut reply = found.reply();
                if let Some(known) = known {
                    reply.prepend(known);
                }
                request.finish(reply)
            }
            None => {
                count(&self.vitals.failed);
                request.code(RCODE::ServerFailure)
            }
        }
    }
}

fn put(directory: &mut Directory, object: &Object) {
    match object.kind() {
        Kind::Namespace => directory.put_namespace(&object.key().name),
        Kind::Service => {
            if let Some(service) = object.get::<Service>() {
                directory.put_service(service);
            }
        }
        Kind::EndpointSlice => {
            if let Some(slice) = object.get::<EndpointSlice>() {
                directory.put_slice(slice);
            }
        }
        _ => {}
    }
}

/// What to do about a message.
enum Decision {
    /// It is no question.
    Silence,
    /// This is the answer.
    Send(Vec<u8>),
    /// Others know; what is known here comes first.
    Ask(Request, Option<Known>),
}

async fn answer_datagrams(server: Arc<Server>, socket: UdpSocket) {
    let socket = Arc::new(socket);
    let waiting = Arc::new(Semaphore::new(WAITING_MAX));
    let mut buffer = vec![0; QUESTION_MAX];
    loop {
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                // The host is short of something; asking again at once would spin.
                tracing::warn!(%error, "no question was received");
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            }
        };
        count(&server.vitals.over_udp);
        match server.decide(&buffer[..length], client.ip(), Some(wire::DATAGRAM_MAX)) {
            Decision::Silence => {}
            Decision::Send(reply) => send(&socket, &reply, client).await,
            Decision::Ask(request, known) => {
                let Ok(slot) = Arc::clone(&waiting).try_acquire_owned() else {
                    count(&server.vitals.failed);
                    send(&socket, &request.code(RCODE::ServerFailure), client).await;
                    continue;
                };
                let (server, socket) = (Arc::clone(&server), Arc::clone(&socket));
                tokio::spawn(async move {
                    let _slot = slot;
                    let reply = server.ask(&request, known.as_ref()).await;
                    send(&socket, &reply, client).await;
                });
            }
        }
    }
}

async fn send(socket: &UdpSocket, reply: &[u8], client: SocketAddr) {
    if let Err(error) = socket.send_to(reply, client).await {
        tracing::debug!(%error, %client, "an answer was not sent");
    }
}

async fn answer_connections(server: Arc<Server>, listener: TcpListener) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Some((stream, client, slot)) = accept(&listener, &slots).await else { continue };
        let server = Arc::clone(&server);
        tokio::spawn(async move {
            let _slot = slot;
            if let Err(error) = converse(&server, stream, client.ip()).await {
                tracing::debug!(%error, %client, "a connection ended early");
            }
        });
    }
}

/// Answers the questions of a connection one after the other.
async fn converse(server: &Server, mut stream: TcpStream, client: IpAddr) -> io::Result<()> {
    let mut buffer = vec![0; QUESTION_MAX];
    loop {
        let length = match timeout(IDLE_MAX, stream.read_u16()).await {
            Ok(Ok(length)) => usize::from(length),
            // It is done, or silent.
            Ok(Err(_)) | Err(_) => return Ok(()),
        };
        let Some(message) = buffer.get_mut(..length) else { return Ok(()) };
        timeout(IDLE_MAX, stream.read_exact(message)).await??;
        count(&server.vitals.over_tcp);
        let reply = match server.decide(message, client, None) {
            Decision::Silence => return Ok(()),
            Decision::Send(reply) => reply,
            Decision::Ask(request, known) => server.ask(&request, known.as_ref()).await,
        };
        let mut framed = u16::try_from(reply.len()).unwrap_or(0).to_be_bytes().to_vec();
        framed.extend(reply);
        timeout(IDLE_MAX, stream.write_all(&framed)).await??;
    }
}
