//! The programs of a cluster on loopback: real etcd, and hyperkube's components.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use lab::workspace_root;

use crate::certificates::Certificates;

/// A program that runs; it ends when this is dropped.
struct Program {
    name: &'static str,
    child: Child,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All programs, in the order in which they were started. Those started last end first.
pub(crate) struct Programs {
    running: Vec<Program>,
    logs: PathBuf,
    etcd_port: u16,
    api_port: u16,
}

impl Drop for Programs {
    fn drop(&mut self) {
        while self.running.pop().is_some() {}
    }
}

/// CPU and memory that a program has used.
#[derive(Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Seconds of CPU since its start.
    pub(crate) cpu_seconds: f64,
    /// Resident memory, MB.
    pub(crate) resident_mb: f64,
}

impl Programs {
    /// Nothing runs yet; logs go to `logs`.
    pub(crate) fn new(logs: &Path) -> Result<Self> {
        let (etcd_port, api_port) = (free_port()?, free_port()?);
        Ok(Self { running: Vec::new(), logs: logs.to_owned(), etcd_port, api_port })
    }

    /// Where the API is served.
    pub(crate) fn api(&self) -> String {
        format!("https://127.0.0.1:{}", self.api_port)
    }

    /// Starts etcd with its data in `data`.
    pub(crate) fn etcd(&mut self, certificates: &Certificates, data: &Path) -> Result<()> {
        let client = format!("https://127.0.0.1:{}", self.etcd_port);
        let peer = format!("http://127.0.0.1:{}", free_port()?);
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg(data).args([
            "--name=bench",
            "--client-cert-auth",
            "--quota-backend-bytes=8589934592",
            &format!("--trusted-ca-file={}", certificates.file("ca.crt")),
            &format!("--cert-file={}", certificates.file("server.crt")),
            &format!("--key-file={}", certificates.file("server.key")),
            &format!("--listen-client-urls={client}"),
            &format!("--advertise-client-urls={client}"),
            &format!("--listen-peer-urls={peer}"),
            &format!("--initial-advertise-peer-urls={peer}"),
            &format!("--initial-cluster=bench={peer}"),
        ]);
        self.start("etcd", command)
    }

    /// Starts the API server.
    pub(crate) fn api_server(&mut self, certificates: &Certificates) -> Result<()> {
        let file = |name: &str| certificates.file(name);
        let arguments = [
            format!("--etcd-servers=https://127.0.0.1:{}", self.etcd_port),
            format!("--etcd-cafile={}", file("ca.crt")),
            format!("--etcd-certfile={}", file("server.crt")),
            format!("--etcd-keyfile={}", file("server.key")),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={}", self.api_port),
            // Endpoints may not be loopback addresses; nobody follows them here.
            "--advertise-address=192.0.2.7".to_owned(),
            "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
            format!("--tls-cert-file={}", file("server.crt")),
            format!("--tls-private-key-file={}", file("server.key")),
            format!("--client-ca-file={}", file("ca.crt")),
            format!("--service-account-signing-key-file={}", file("sa.key")),
        ];
        self.hyperkube("kube-apiserver", &arguments)
    }

    /// Starts controllers and scheduler, each with the rights that it has in a cluster.
    pub(crate) fn controllers_and_scheduler(&mut self, certificates: &Certificates) -> Result<()> {
        let file = |name: &str| certificates.file(name);
        let serving = |component: &str| -> Result<Vec<String>> {
            Ok(vec![
                format!("--kubeconfig={}", certificates.kubeconfig(component, &self.api())?),
                "--bind-address=127.0.0.1".to_owned(),
                format!("--secure-port={}", free_port()?),
                format!("--tls-cert-file={}", file("server.crt")),
                format!("--tls-private-key-file={}", file("server.key")),
                format!("--client-ca-file={}", file("ca.crt")),
            ])
        };
        let mut arguments = serving("kube-controller-manager")?;
        let scheduler = serving("kube-scheduler")?;
        arguments.extend([
            "--cluster-cidr=10.128.0.0/9".to_owned(),
            format!("--cluster-signing-cert-file={}", file("ca.crt")),
            format!("--cluster-signing-key-file={}", file("ca.key")),
            format!("--root-ca-file={}", file("ca.crt")),
        ]);
        self.hyperkube("kube-controller-manager", &arguments)?;
        self.hyperkube("kube-scheduler", &scheduler)
    }

    /// Starts the nodes.
    pub(crate) fn hollow_nodes(&mut self, kubeconfig: &str, count: u32) -> Result<()> {
        let arguments = [format!("--kubeconfig={kubeconfig}"), format!("--count={count}")];
        self.hyperkube("hollow-nodes", &arguments)
    }

    fn hyperkube(&mut self, component: &'static str, arguments: &[String]) -> Result<()> {
        let mut command = Command::new(workspace_root().join("target/release/hyperkube"));
        command.arg(component).args(arguments);
        self.start(component, command)
    }

    fn start(&mut self, name: &'static str, mut command: Command) -> Result<()> {
        let log = File::create(self.logs.join(format!("{name}.log")))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        self.running.push(Program { name, child });
        Ok(())
    }

    /// Fails with the last words of a program that has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        for program in &mut self.running {
            if let Some(status) = program.child.try_wait()? {
                let log = self.logs.join(format!("{}.log", program.name));
                let text = std::fs::read_to_string(log).unwrap_or_default();
                let last: Vec<&str> = text.lines().rev().take(5).collect();
                anyhow::bail!("{} ended with {status}: {}", program.name, last.join(" | "));
            }
        }
        Ok(())
    }

    /// What each program has used so far, by name.
    pub(crate) fn usage(&self) -> Vec<(&'static str, Usage)> {
        self.running.iter().map(|p| (p.name, usage(p.child.id()).unwrap_or_default())).collect()
    }
}

/// Hundredths of a second: what Linux counts CPU time in on all its platforms.
const TICKS_PER_SECOND: f64 = 100.0;

fn usage(pid: u32) -> Option<Usage> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold spaces; behind it, user and system time are the 12th and 13th fields.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let resident = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    let kib: f64 = resident.trim().trim_end_matches(" kB").parse().ok()?;
    Some(Usage {
        cpu_seconds: (ticks(11)? + ticks(12)?) / TICKS_PER_SECOND,
        resident_mb: kib * 1024.0 / 1e6,
    })
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
