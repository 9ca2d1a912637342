//! A real etcd of one member, on loopback, with its data in a temporary directory.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use store::{Etcd, EtcdOptions, EtcdTls, Store};

/// Certificates for a member and its clients, in files.
#[derive(Clone)]
pub(crate) struct Certificates {
    pub(crate) ca: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

pub(crate) struct EtcdProcess {
    child: Child,
    command: Command,
    _directory: tempfile::TempDir,
    client_port: u16,
    tls: Option<Certificates>,
}

impl EtcdProcess {
    pub(crate) async fn start() -> Self {
        Self::start_with(None).await
    }

    pub(crate) async fn start_with(tls: Option<Certificates>) -> Self {
        let (client_port, peer_port) = (free_port(), free_port());
        let cluster = format!("m0=http://127.0.0.1:{peer_port}");
        let etcd = Self::launch("m0", client_port, peer_port, tls, &cluster);
        etcd.ready().await;
        etcd
    }

    pub(crate) fn launch(
        name: &'static str,
        client_port: u16,
        peer_port: u16,
        tls: Option<Certificates>,
        cluster: &str,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let cluster = cluster.to_owned();
        let mut command = Command::new("etcd");
        let client =
            format!("{}://127.0.0.1:{client_port}", if tls.is_some() { "https" } else { "http" });
        let peer = format!("http://127.0.0.1:{peer_port}");
        command
            .arg("--data-dir")
            .arg(directory.path())
            .args(["--name", name, "--listen-client-urls", &client])
            .args(["--advertise-client-urls", &client, "--listen-peer-urls", &peer])
            .args(["--initial-advertise-peer-urls", &peer, "--initial-cluster", &cluster])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Some(tls) = &tls {
            command.arg("--client-cert-auth").arg("--trusted-ca-file").arg(&tls.ca);
            command.arg("--cert-file").arg(&tls.certificate).arg("--key-file").arg(&tls.key);
        }
        let child = command.spawn().expect("etcd is on the PATH");
        Self { child, command, _directory: directory, client_port, tls }
    }

    pub(crate) fn endpoint(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.client_port)
    }

    pub(crate) async fn store(&self) -> Etcd {
        // A member that is dead must not be noticed.
        let endpoints =
            vec![self.endpoint().replace(&self.client_port.to_string(), "1"), self.endpoint()];
        let read = |path: &PathBuf| std::fs::read(path).unwrap();
        let tls = self.tls.as_ref().map(|tls| EtcdTls {
            ca: read(&tls.ca),
            certificate: read(&tls.certificate),
            key: read(&tls.key),
        });
        Etcd::connect(EtcdOptions { endpoints, tls }).await.unwrap()
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) async fn restart(&mut self) {
        self.child = self.command.spawn().unwrap();
        self.ready().await;
    }

    pub(crate) async fn ready(&self) {
        let store = self.store().await;
        for _ in 0..200 {
            if store.current_revision().await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("etcd does not answer");
    }
}

impl Drop for EtcdProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
