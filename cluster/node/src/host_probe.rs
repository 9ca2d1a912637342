//! What kprov measures on hosts before a cluster is there: the disk of etcd, and whether ports of
//! other hosts can be reached with packets as long as the pod network's.
//!
//! Each measurement is bounded in time and count, and leaves nothing behind.

use std::fmt;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, sockopt};
use serde::Serialize;

/// What precedes the payload of a datagram: headers of IPv4 and UDP.
const HEADERS_LEN: u16 = 28;
/// Longest datagram.
const DATAGRAM_LEN_MAX: usize = 65_507;
/// How often a datagram is sent whose echo does not come.
const TRIES: u32 = 3;
/// Peers that are asked at the same time.
const AT_ONCE: usize = 64;
/// Longest time that the disk is written to.
const DISK_TIME_MAX: Duration = Duration::from_secs(10);

/// A port of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    udp: bool,
    address: SocketAddrV4,
}

impl FromStr for Endpoint {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let usual = "tcp:ADDRESS:PORT or udp:ADDRESS:PORT";
        let (protocol, address) = text.split_once(':').ok_or(usual)?;
        let address = address.parse().map_err(|_| usual)?;
        match protocol {
            "tcp" => Ok(Self { udp: false, address }),
            "udp" => Ok(Self { udp: true, address }),
            _ => Err(usual),
        }
    }
}

/// As it is read.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", if self.udp { "udp" } else { "tcp" }, self.address)
    }
}

/// How long writes took, in microseconds.
#[derive(Debug, Serialize)]
pub struct Disk {
    /// How many were measured.
    pub writes: usize,
    /// Half of them took no longer.
    pub p50_us: u128,
    /// 99 of 100 took no longer.
    pub p99_us: u128,
    /// None took longer.
    pub max_us: u128,
}

/// Appends to a file in `directory` so many times `len` bytes, each with `fdatasync`, as etcd does.
///
/// # Errors
/// When the file cannot be made or written.
pub fn disk(directory: &Path, writes: u32, len: u32) -> io::Result<Disk> {
    // Without a name: it goes with this process, however that ends.
    let path = directory.join(format!(".kprov-probe-{}", std::process::id()));
    let file = File::options().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    let piece = vec![0x5a; usize::try_from(len).unwrap_or(usize::MAX)];
    let began = Instant::now();
    let mut times = Vec::new();
    for number in 0..u64::from(writes) {
        let write = Instant::now();
        file.write_all_at(&piece, number * u64::from(len))?;
        file.sync_data()?;
        times.push(write.elapsed().as_micros());
        if began.elapsed() > DISK_TIME_MAX {
            break;
        }
    }
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    Ok(Disk { writes: times.len(), p50_us: at(50), p99_us: at(99), max_us: at(100) })
}

/// What is listened on, and what others listen on already.
#[derive(Debug, Default, Serialize)]
pub struct Listening {
    /// Endpoints, as they are read.
    pub listening: Vec<String>,
    /// Those that cannot be listened on.
    pub taken: Vec<String>,
}

/// Sockets that wait for others.
#[derive(Debug, Default)]
pub struct Listeners {
    tcp: Vec<TcpListener>,
    udp: Vec<UdpSocket>,
}

/// Listens on all endpoints that are free.
#[must_use]
pub fn listen(endpoints: &[Endpoint]) -> (Listeners, Listening) {
    let (mut listeners, mut said) = (Listeners::default(), Listening::default());
    for endpoint in endpoints {
        let bound = match endpoint.udp {
            true => UdpSocket::bind(endpoint.address).map(|socket| listeners.udp.push(socket)),
            false => TcpListener::bind(endpoint.address).map(|socket| listeners.tcp.push(socket)),
        };
        let list = if bound.is_ok() { &mut said.listening } else { &mut said.taken };
        list.push(endpoint.to_string());
    }
    (listeners, said)
}

impl Listeners {
    /// Until `until`, connections are made by the kernel and not taken, and datagrams that begin
    /// with `token` are answered with it.
    pub fn serve(self, token: &[u8], until: Instant) {
        thread::scope(|scope| {
            for socket in &self.udp {
                scope.spawn(move || echo(socket, token, until));
            }
            thread::sleep(until.saturating_duration_since(Instant::now()));
        });
    }
}

fn echo(socket: &UdpSocket, token: &[u8], until: Instant) {
    let mut datagram = vec![0; DATAGRAM_LEN_MAX];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || socket.set_read_timeout(Some(left)).is_err() {
            return;
        }
        // An error is the end of the time, or of a datagram before.
        let Ok((len, from)) = socket.recv_from(&mut datagram) else { continue };
        if datagram[..len].starts_with(token) {
            // Short, so that only the way here has to have room.
            let _ = socket.send_to(token, from);
        }
    }
}

/// What came of asking one endpoint.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Reached {
    /// The endpoint, as it is read.
    pub endpoint: String,
    /// `open`, `refused`, `timeout`, `too-long` (short packets arrive, those of the wanted length do
    /// not) or `failed`.
    pub result: &'static str,
    /// Where packets have to be shorter, how long they may be.
    pub mtu: Option<i32>,
    /// Why it failed.
    pub error: Option<String>,
}

/// Asks all endpoints, many at the same time, and waits up to `timeout` for each answer. Datagrams
/// begin with `token` and are as long as makes a packet of `mtu` bytes.
#[must_use]
pub fn reach(endpoints: &[Endpoint], token: &[u8], mtu: u16, timeout: Duration) -> Vec<Reached> {
    let found = Mutex::new(Vec::new());
    let queue = Mutex::new(endpoints.iter());
    let worker = || {
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(endpoint) = next else { return };
            let reached = match endpoint.udp {
                true => datagram(endpoint, token, mtu, timeout),
                false => connection(endpoint, timeout),
            };
            found.lock().unwrap_or_else(PoisonError::into_inner).push(reached);
        }
    };
    thread::scope(|scope| {
        for _ in 0..endpoints.len().min(AT_ONCE) {
            scope.spawn(worker);
        }
    });
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.sort_by(|a, b| a.endpoint.cmp(&b.endpoint));
    found
}

fn connection(endpoint: &Endpoint, timeout: Duration) -> Reached {
    judged(endpoint, TcpStream::connect_timeout(&endpoint.address.into(), timeout).map(|_| None))
}

/// Sends a datagram as long as a packet may be; where its echo does not come, a short one.
fn datagram(endpoint: &Endpoint, token: &[u8], mtu: u16, timeout: Duration) -> Reached {
    let ask = |len: usize| -> io::Result<Option<i32>> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(endpoint.address)?;
        socket.set_read_timeout(Some(timeout))?;
        let mut payload = token.to_vec();
        payload.resize(len.max(token.len()), 0);
        let mut answer = vec![0; token.len()];
        let mut last = io::Error::from(io::ErrorKind::TimedOut);
        for _ in 0..TRIES {
            // A packet that is too long for the way is an error of the next call.
            let asked = socket.send(&payload).and_then(|_| socket.recv(&mut answer));
            match asked {
                Ok(_) if answer == token => {
                    // What the kernel has learnt of the way: after a first packet that was
                    // too long, it cuts those that follow.
                    return Ok(getsockopt(&socket, sockopt::IpMtu).ok());
                }
                Ok(_) => {}
                Err(error) => last = error,
            }
        }
        Err(last)
    };
    let needed = usize::from(mtu.saturating_sub(HEADERS_LEN));
    match ask(needed) {
        Ok(Some(known)) if known < i32::from(mtu) => Reached {
            endpoint: endpoint.to_string(),
            result: "too-long",
            mtu: Some(known),
            error: None,
        },
        Err(_) if ask(token.len()).is_ok() => {
            Reached { endpoint: endpoint.to_string(), result: "too-long", mtu: None, error: None }
        }
        result => judged(endpoint, result.map(|_| None)),
    }
}

fn judged(endpoint: &Endpoint, result: io::Result<Option<i32>>) -> Reached {
    let (result, error) = match result {
        Ok(_) => ("open", None),
        Err(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused => ("refused", None),
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => ("timeout", None),
            _ => ("failed", Some(error.to_string())),
        },
    };
    Reached { endpoint: endpoint.to_string(), result, mtu: None, error }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(text: &str) -> Endpoint {
        text.parse().unwrap()
    }

    #[test]
    fn endpoints_are_read_as_they_are_shown() {
        assert_eq!(endpoint("udp:10.0.0.1:8472").to_string(), "udp:10.0.0.1:8472");
        for bad in ["", "tcp:10.0.0.1", "tls:10.0.0.1:1", "tcp:host:1"] {
            assert!(bad.parse::<Endpoint>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_disk_is_measured_and_left_as_it_was() {
        let directory = std::env::temp_dir();
        let disk = disk(&directory, 5, 100).unwrap();
        assert_eq!(disk.writes, 5);
        assert!(disk.p50_us <= disk.p99_us && disk.p99_us <= disk.max_us);
        let left = directory.join(format!(".kprov-probe-{}", std::process::id()));
        assert!(!left.exists());
    }

    #[test]
    fn listeners_are_reached_and_others_are_told_by_how_they_fail() {
        let any = |udp| {
            let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
            if udp {
                UdpSocket::bind(address).unwrap().local_addr().unwrap().port()
            } else {
                TcpListener::bind(address).unwrap().local_addr().unwrap().port()
            }
        };
        let (tcp, udp, shut) = (any(false), any(true), any(false));
        let at = |protocol: &str, port: u16| endpoint(&format!("{protocol}:127.0.0.1:{port}"));
        let (open, echoed, closed) = (at("tcp", tcp), at("udp", udp), at("tcp", shut));
        let (listeners, said) = listen(&[open, echoed, echoed]);
        assert_eq!(said.listening, [open.to_string(), echoed.to_string()]);
        assert_eq!(said.taken, [echoed.to_string()]);
        // One that hears and does not answer.
        let mute = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let silent = at("udp", mute.local_addr().unwrap().port());
        let timeout = Duration::from_millis(200);
        let until = Instant::now() + Duration::from_secs(3);
        let found = thread::scope(|scope| {
            scope.spawn(|| listeners.serve(b"token", until));
            reach(&[open, echoed, closed, silent], b"token", 1500, timeout)
        });
        let result = |wanted: Endpoint| {
            found.iter().find(|r| r.endpoint == wanted.to_string()).map(|r| r.result)
        };
        assert_eq!(result(open), Some("open"));
        assert_eq!(result(echoed), Some("open"));
        assert_eq!(result(closed), Some("refused"));
        assert_eq!(result(silent), Some("timeout"));
    }

    #[test]
    fn a_way_that_swallows_long_packets_is_told() {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = socket.local_addr().unwrap().port();
        let asked = endpoint(&format!("udp:127.0.0.1:{port}"));
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let found = thread::scope(|scope| {
            scope.spawn(|| {
                let mut datagram = [0; 2000];
                for _ in 0..=TRIES {
                    let Ok((len, from)) = socket.recv_from(&mut datagram) else { return };
                    if len < 100 {
                        socket.send_to(b"token", from).unwrap();
                        return;
                    }
                }
            });
            reach(&[asked], b"token", 1500, Duration::from_millis(100))
        });
        assert_eq!((found[0].result, found[0].mtu), ("too-long", None), "{found:?}");
    }
}
