//! Against a real OpenSSH server on loopback, started by each test on a port of its own.

use std::collections::BTreeMap;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command};

use super::*;
use crate::digest::Digest;
use crate::facts::{FactsQuery, PathFact};
use crate::host::Probe;
use crate::plan::Upload;
use crate::state::{Blob, Content};

const SSHD: &str = "/usr/sbin/sshd";

/// A server with keys and a directory of its own; it ends with the value.
struct Server {
    directory: tempfile::TempDir,
    port: u16,
    child: Child,
}

impl Server {
    fn start() -> Self {
        Self::with("")
    }

    /// With `more` lines in the server's configuration.
    fn with(more: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        keygen(&directory.path().join("host"));
        keygen(&directory.path().join("user"));
        fs::copy(directory.path().join("user.pub"), directory.path().join("authorized")).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Self::run(directory.path(), port, more);
        let server = Self { directory, port, child };
        server.wait();
        server
    }

    fn run(directory: &Path, port: u16, more: &str) -> Child {
        let at = directory.display();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {at}/host\nPidFile none\n\
             AuthorizedKeysFile {at}/authorized\nStrictModes no\nUsePAM no\nUseDNS no\n\
             PasswordAuthentication no\nPermitRootLogin yes\nLogLevel VERBOSE\n{more}"
        );
        fs::write(directory.join("config"), config).unwrap();
        // The server gives up its rights in this directory, which its package makes at boot.
        let _ = fs::create_dir_all("/run/sshd");
        let log = fs::File::options().create(true).append(true).open(directory.join("log"));
        Command::new(SSHD)
            .args(["-D", "-e", "-f"])
            .arg(directory.join("config"))
            .stderr(log.unwrap())
            .spawn()
            .unwrap_or_else(|error| panic!("{SSHD} (package openssh-server): {error}"))
    }

    fn wait(&self) {
        let until = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < until, "the server does not listen");
            std::thread::yield_now();
        }
    }

    /// The same machine, as far as a client can tell, with another key.
    fn reinstall(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        fs::remove_file(self.directory.path().join("host")).unwrap();
        keygen(&self.directory.path().join("host"));
        self.child = Self::run(self.directory.path(), self.port, "");
        self.wait();
    }

    fn target(&self) -> Target {
        let user = Command::new("id").arg("-un").output().unwrap();
        Target {
            name: "n1".to_owned(),
            address: "127.0.0.1".to_owned(),
            port: self.port,
            user: String::from_utf8(user.stdout).unwrap().trim().to_owned(),
            keys: vec![self.directory.path().join("user")],
            agent: false,
            sudo: false,
            sudo_password: None,
            policy: HostKeyPolicy::AcceptNew,
            host_key: None,
            jumps: Vec::new(),
            connect_timeout: Duration::from_secs(10),
        }
    }

    /// The server as a host to go through.
    fn jump(&self) -> Jump {
        let target = self.target();
        Jump {
            address: target.address,
            port: target.port,
            user: target.user,
            keys: target.keys,
            agent: false,
        }
    }

    /// Lets the key of another server's user in, too.
    fn admit(&self, other: &Self) {
        let mut keys = fs::read_to_string(self.directory.path().join("authorized")).unwrap();
        keys += &fs::read_to_string(other.directory.path().join("user.pub")).unwrap();
        fs::write(self.directory.path().join("authorized"), keys).unwrap();
    }

    fn known(&self) -> KnownHosts {
        KnownHosts::open(&self.directory.path().join("known_hosts")).unwrap()
    }

    fn host_key(&self) -> String {
        let output = Command::new("ssh-keygen")
            .arg("-lf")
            .arg(self.directory.path().join("host.pub"))
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.split(' ').nth(1).unwrap().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn keygen(path: &Path) {
    let status = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(path)
        .status()
        .unwrap();
    assert!(status.success());
}

fn link(target: &Target, known: &KnownHosts) -> Result<Box<dyn Host>, HostError> {
    connect(target, known, &Arc::default()).map(|(host, _)| host)
}

fn failure(result: Result<Box<dyn Host>, HostError>) -> HostError {
    match result {
        Ok(_) => panic!("the connection was accepted"),
        Err(error) => error,
    }
}

#[test]
fn a_flush_loses_nothing_that_has_arrived() {
    let server = Server::start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let greeter = std::thread::spawn(move || listener.accept().unwrap().0.write_all(b"hello"));
    let mut ssh =
        open(&server.target(), &server.known(), &Arc::default(), &mut Timing::default()).unwrap();
    let mut tunnel = ssh.connect("127.0.0.1", port, Duration::from_secs(10)).unwrap();
    let mut text = vec![0];
    tunnel.read_exact(&mut text).unwrap();
    tunnel.flush().unwrap();
    tunnel.read_to_end(&mut text).unwrap();
    assert_eq!(text, b"hello");
    greeter.join().unwrap().unwrap();
}

#[test]
fn facts_and_files_come_over_one_connection() {
    let server = Server::start();
    let mut host = link(&server.target(), &server.known()).unwrap();
    let file = server.directory.path().join("a file");
    fs::write(&file, "line\n=end\nno end of line").unwrap();
    let path = file.to_str().unwrap().to_owned();
    let mut query = FactsQuery::default();
    query.paths.insert(path.clone());
    query.hashed.insert(path.clone());
    let facts = host.facts(&query, None).unwrap();
    let digest = Digest::of(b"line\n=end\nno end of line");
    assert!(matches!(&facts.paths[&path], PathFact::File { sha256, .. }
        if *sha256 == Some(digest)));
    assert!(facts.clock_skew_ms.abs() < 5_000, "{}", facts.clock_skew_ms);
    let texts = host.read(&[path.clone(), "/does/not/exist".to_owned()]).unwrap();
    assert_eq!(texts, BTreeMap::from([(path, "line\n=end\nno end of line".to_owned())]));
}

#[test]
fn a_changed_host_key_is_refused_with_both_fingerprints() {
    let mut server = Server::start();
    let known = server.known();
    let first = server.host_key();
    drop(link(&server.target(), &known).unwrap());
    drop(link(&server.target(), &server.known()).unwrap());
    server.reinstall();
    let error = failure(link(&server.target(), &server.known()));
    let second = server.host_key();
    let HostError::HostKeyChanged { known, shown, .. } = &error else { panic!("{error}") };
    assert_eq!((known, shown), (&first, &second));
    assert!(error.advice().contains("known_hosts"), "{}", error.advice());
}

#[test]
fn the_strict_policy_accepts_only_known_keys() {
    let server = Server::start();
    let target = Target { policy: HostKeyPolicy::Strict, ..server.target() };
    let error = failure(link(&target, &server.known()));
    let HostError::HostKeyUnknown { shown, .. } = &error else { panic!("{error}") };
    assert_eq!(*shown, server.host_key());
    drop(link(&server.target(), &server.known()).unwrap());
    link(&target, &server.known()).unwrap();
}

#[test]
fn a_key_that_is_not_authorized_is_named() {
    let server = Server::start();
    let other = server.directory.path().join("other");
    keygen(&other);
    let target = Target { keys: vec![other.clone()], ..server.target() };
    let error = failure(link(&target, &server.known()));
    let text = error.to_string();
    assert!(matches!(error, HostError::Authentication { .. }), "{text}");
    assert!(text.contains(other.to_str().unwrap()), "{text}");
}

#[test]
fn a_port_without_a_server_is_unreachable() {
    let server = Server::start();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let target = Target { port, ..server.target() };
    let error = failure(link(&target, &server.known()));
    assert!(matches!(error, HostError::Unreachable { .. }), "{error}");
}

#[test]
fn a_server_that_never_speaks_is_given_up() {
    let server = Server::start();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let connect_timeout = Duration::from_millis(300);
    let target = Target { port, connect_timeout, ..server.target() };
    let error = failure(link(&target, &server.known()));
    assert!(matches!(error, HostError::Handshake { .. }), "{error}");
}

#[test]
fn nothing_is_sent_or_run_without_the_lock() {
    let server = Server::start();
    let mut host = link(&server.target(), &server.known()).unwrap();
    let content = Content::Text("x".to_owned());
    let uploads = BTreeMap::from([(content.digest(), Upload::Content(content))]);
    let error = host.push(&uploads, &mut |_| {}).unwrap_err();
    assert!(matches!(error, HostError::LockLost), "{error}");
    let error = host.run(&[crate::step::Step::Reload], &mut |_| {}).unwrap_err();
    assert!(matches!(error, HostError::LockLost), "{error}");
}

#[test]
fn a_measurement_brings_its_program_and_takes_it_away() {
    let server = Server::start();
    let (mut host, _) = connect(&server.target(), &server.known(), &Arc::default()).unwrap();
    let source = server.directory.path().join("program");
    let text = "#!/bin/sh\necho \"$*\"\n[ \"$2\" != listen ] || exec sleep 60\n";
    fs::write(&source, text).unwrap();
    let (sha256, len) = (Digest::of(text.as_bytes()), text.len() as u64);
    let program = Blob { sha256, len, source, architecture: None, version: None };
    let mut probe = |words: &[&str], stays| {
        let arguments: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
        host.probe(&Probe { program: &program, arguments: &arguments, stays })
    };
    assert_eq!(probe(&["disk", "it's"], false).unwrap(), "host-probe disk it's\n");
    assert_eq!(probe(&["listen", "x"], true).unwrap(), "host-probe listen x\n");
    let folder = Path::new("/var/tmp/kprov-probe");
    let listener = fs::read_to_string(folder.join("pid")).unwrap();
    let listener = Path::new("/proc").join(listener.trim());
    assert!(listener.exists());
    host.end_probe().unwrap();
    assert!(!folder.exists());
    let until = Instant::now() + Duration::from_secs(10);
    // A process that has ended and was not waited for yet has no files of its own.
    while fs::read_link(listener.join("exe")).is_ok() {
        assert!(Instant::now() < until, "the listener goes on");
        std::thread::yield_now();
    }
    // Bytes that are not what they should be are not run.
    let other = Blob { sha256: Digest::of(b"other"), ..program.clone() };
    let arguments = ["disk".to_owned()];
    let error = host.probe(&Probe { program: &other, arguments: &arguments, stays: false });
    assert!(matches!(error.unwrap_err(), HostError::Step { .. }));
    host.end_probe().unwrap();
}

mod jumps;
mod keys;
