//! The three listeners, a thread for each connection, and the way out.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};

use crate::http::{self, Request};
use crate::identity::{Identity, plain};
use crate::options::Serve;
use crate::routes::Routes;
use crate::say;

/// Connections served at once; more are closed at once.
const CONNECTIONS_MAX: usize = 512;
/// How long a silent connection is kept.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// Longest line echoed over TCP, in bytes.
const LINE_BYTES_MAX: u64 = 64 * 1024;

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// A port that cannot be listened on.
pub(crate) fn run(serve: &Serve) -> io::Result<()> {
    // As the first process of a container nothing but a handled signal ends this program.
    // Blocked before any thread starts, so that only the wait below receives it.
    let mut leave = SigSet::empty();
    leave.add(Signal::SIGTERM);
    leave.add(Signal::SIGINT);
    leave.thread_block().map_err(io::Error::from)?;

    let identity = Identity::from_environment(&|name| std::env::var(name).ok());
    let routes = Arc::new(Routes::new(identity));
    if serve.http != 0 {
        let routes = Arc::clone(&routes);
        accept(listen(serve.http)?, move |stream| serve_http(&routes, stream));
    }
    if serve.tcp != 0 {
        let routes = Arc::clone(&routes);
        accept(listen(serve.tcp)?, move |stream| serve_tcp(&routes.identity, stream));
    }
    if serve.udp != 0 {
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, serve.udp))
            .or_else(|_| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, serve.udp)))?;
        let routes = Arc::clone(&routes);
        std::thread::spawn(move || serve_udp(&routes.identity, &socket));
    }
    say(&format!("listening http={} tcp={} udp={}", serve.http, serve.tcp, serve.udp));
    let signal = leave.wait().map_err(io::Error::from)?;
    say(&format!("leaving on {signal}"));
    std::thread::sleep(serve.term);
    Ok(())
}

/// Listens on both families where there are two.
fn listen(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
        .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))
}

fn accept(
    listener: TcpListener,
    handle: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static,
) {
    let handle = Arc::new(handle);
    let open = Arc::new(AtomicUsize::new(0));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else {
                // Out of descriptors, most likely: give the others time to finish.
                std::thread::sleep(Duration::from_millis(10));
                continue;
            };
            if open.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
                open.fetch_sub(1, Ordering::Relaxed);
                continue;
            }
            let (handle, open) = (Arc::clone(&handle), Arc::clone(&open));
            std::thread::spawn(move || {
                // A peer that went away is its own business.
                let _gone = stream.set_read_timeout(Some(IDLE_MAX)).and_then(|()| handle(stream));
                open.fetch_sub(1, Ordering::Relaxed);
            });
        }
    });
}

fn serve_http(routes: &Routes, mut stream: TcpStream) -> io::Result<()> {
    let own = stream.local_addr()?.ip();
    let peer = stream.peer_addr()?;
    let request = match Request::read(&mut stream) {
        Ok(Some(request)) => request,
        Ok(None) => return Ok(()),
        Err(error) => return http::answer(&mut stream, 400, &format!("{error}\n")),
    };
    let outcome = routes.respond(&request, own, peer.ip());
    log("http", peer, &format!("{} {} {}", request.method, request.target, outcome.status));
    let sent = http::answer(&mut stream, outcome.status, &outcome.body);
    if let Some(code) = outcome.exit {
        leave(code);
    }
    sent
}

#[expect(clippy::exit, reason = "a path whose purpose is to end the process")]
fn leave(code: i32) -> ! {
    std::process::exit(code)
}

fn serve_tcp(identity: &Identity, mut stream: TcpStream) -> io::Result<()> {
    let own = stream.local_addr()?.ip();
    let peer = stream.peer_addr()?;
    let mut lines = BufReader::new(stream.try_clone()?);
    loop {
        let mut line = String::new();
        if (&mut lines).take(LINE_BYTES_MAX).read_line(&mut line)? == 0 {
            return Ok(());
        }
        let data = line.trim_end();
        log("tcp", peer, data);
        writeln!(stream, "{} data={data} client={}", identity.line(own), plain(peer.ip()))?;
    }
}

fn serve_udp(identity: &Identity, socket: &UdpSocket) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Ok((length, peer)) = socket.recv_from(&mut buffer) else { continue };
        let data = String::from_utf8_lossy(&buffer[..length]);
        let data = data.trim_end();
        log("udp", peer, data);
        let line = identity.line(own_address_towards(peer));
        let answer = format!("{line} data={data} client={}\n", plain(peer.ip()));
        // An answer that cannot be sent is a lost datagram, as any other.
        let _lost = socket.send_to(answer.as_bytes(), peer);
    }
}

/// The address that the kernel would use towards `peer`; a datagram does not carry its target.
fn own_address_towards(peer: SocketAddr) -> IpAddr {
    let peer = SocketAddr::new(plain(peer.ip()), peer.port());
    let any = if peer.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    UdpSocket::bind(any)
        .and_then(|probe| probe.connect(peer).and_then(|()| probe.local_addr()))
        .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.ip())
}

fn log(protocol: &str, peer: SocketAddr, what: &str) {
    say(&format!("{protocol} {}:{} {what}", plain(peer.ip()), peer.port()));
}
