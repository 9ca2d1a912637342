//! A network namespace with a thread in it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace; it ends with the value.
pub(crate) struct Namespace {
    jobs: mpsc::Sender<Job>,
    thread_id: i32,
}

impl Namespace {
    pub(crate) fn new() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "network namespaces need root");
        let (jobs, work) = mpsc::channel::<Job>();
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a new network namespace");
            tell.send(nix::unistd::gettid().as_raw()).unwrap();
            for job in work {
                job();
            }
        });
        let namespace = Self { jobs, thread_id: told.recv().unwrap() };
        namespace.ip("link set lo up");
        namespace
    }

    /// Does something inside.
    pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = mpsc::channel();
        let job = move || drop(tell.send(job()));
        self.jobs.send(Box::new(job)).unwrap();
        told.recv().expect("the job panicked")
    }

    /// Runs a program inside and returns what it prints; it must succeed.
    pub(crate) fn command(&self, line: &str, input: &str) -> String {
        let (line, input) = (line.to_owned(), input.to_owned());
        self.run(move || {
            let mut words = line.split_whitespace();
            let mut child = Command::new(words.next().unwrap())
                .args(words)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect(&line);
            child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{line}\n{input}");
            String::from_utf8(output.stdout).unwrap()
        })
    }

    pub(crate) fn ip(&self, arguments: &str) -> String {
        self.command(&format!("ip {arguments}"), "")
    }

    pub(crate) fn set(&self, setting: &str, value: &str) {
        let (path, value) = (format!("/proc/sys/{setting}"), value.to_owned());
        self.run(move || std::fs::write(&path, value).expect(&path));
    }

    /// Makes a cable: `name` here, `eth0` with `address` there, routed through `gateway`.
    pub(crate) fn cable(&self, name: &str, other: &Self, address: &str, gateway: &str) {
        self.ip(&format!("link add {name} type veth peer name x{name}"));
        self.ip(&format!("link set x{name} netns {}", other.thread_id));
        self.ip(&format!("link set {name} up"));
        other.ip(&format!("link set x{name} name eth0"));
        other.ip(&format!("address add {address} dev eth0"));
        other.ip("link set eth0 up");
        if !gateway.is_empty() {
            other.ip(&format!("route add default via {gateway}"));
        }
    }

    /// Serves `name` and the client's address over TCP and UDP until the test ends.
    pub(crate) fn serve(&self, name: &'static str, port: u16) {
        self.run(move || {
            let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
            let (tcp, udp) = (TcpListener::bind(any).unwrap(), UdpSocket::bind(any).unwrap());
            // New threads stay in the namespace of the one that makes them.
            std::thread::spawn(move || {
                for stream in tcp.incoming() {
                    let mut stream = stream.unwrap();
                    let peer = stream.peer_addr().unwrap().ip();
                    let _ = stream.write_all(format!("{name} {peer}").as_bytes());
                }
            });
            std::thread::spawn(move || {
                let mut buffer = [0; 64];
                while let Ok((_, peer)) = udp.recv_from(&mut buffer) {
                    let _ = udp.send_to(format!("{name} {}", peer.ip()).as_bytes(), peer);
                }
            });
        });
    }

    /// Connects to `address` and returns what it says, or the kind of failure.
    pub(crate) fn ask(&self, address: &str) -> String {
        let address: SocketAddr = address.parse().unwrap();
        self.run(move || {
            let ask = || {
                let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
                stream.set_read_timeout(Some(Duration::from_secs(1)))?;
                let mut answer = String::new();
                stream.read_to_string(&mut answer)?;
                Ok::<_, std::io::Error>(answer)
            };
            ask().unwrap_or_else(|error| format!("{:?}", error.kind()))
        })
    }

    /// The same over UDP, from a port of its own.
    pub(crate) fn ask_udp(&self, address: &str) -> String {
        let address: SocketAddr = address.parse().unwrap();
        self.run(move || {
            let ask = || {
                let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
                socket.connect(address)?;
                socket.set_read_timeout(Some(Duration::from_secs(1)))?;
                socket.send(b"?")?;
                let mut buffer = [0; 64];
                let length = socket.recv(&mut buffer)?;
                Ok::<_, std::io::Error>(String::from_utf8_lossy(&buffer[..length]).into_owned())
            };
            ask().unwrap_or_else(|error| format!("{:?}", error.kind()))
        })
    }
}
