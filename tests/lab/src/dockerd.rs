//! The outer Docker: one that runs already, else one of ours.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use bollard::{API_DEFAULT_VERSION, Docker};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sha2::{Digest, Sha256};
use thiserror::Error;
use tokio::process::Command;

use crate::options::LabOptions;
use crate::recipe::hex;

/// Longest request, in seconds: loading the hosts' image under load.
const REQUEST_SECONDS_MAX: u64 = 600;
/// Longest wait for a daemon to come up or to leave.
const DAEMON_TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
const SYSTEM_SOCKET: &str = "/var/run/docker.sock";

/// Says why there is no outer Docker to work with.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// A file or a process could not be handled.
    #[error("cannot {act}")]
    Io {
        /// What was tried.
        act: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The daemon refused or did not understand.
    #[error("the Docker at {address} does not answer")]
    Docker {
        /// Its address.
        address: String,
        /// Why.
        #[source]
        source: Box<bollard::errors::Error>,
    },
    /// Our own daemon did not come up or did not leave in time.
    #[error("{what} within {} s; its log is {}", DAEMON_TIMEOUT.as_secs(), log.display())]
    Timeout {
        /// What did not happen.
        what: &'static str,
        /// The daemon's log.
        log: PathBuf,
    },
}

/// A connection to the outer Docker.
#[derive(Debug, Clone)]
pub struct Dockerd {
    /// The client.
    pub docker: Docker,
    /// Its address, for `DOCKER_HOST`.
    pub address: String,
    /// Whether it is the daemon that a lab of this directory started.
    pub ours: bool,
}

/// Where our own daemon lives.
#[derive(Debug)]
struct Paths {
    data: PathBuf,
    run: PathBuf,
    log: PathBuf,
}

impl Paths {
    fn new(dir: &Path) -> Self {
        // Sockets have short paths only, and a checkout may lie deep.
        let digest = Sha256::digest(dir.as_os_str().as_encoded_bytes());
        let run = Path::new("/run/kprov-lab").join(&hex(&digest)[..8]);
        Self { data: dir.join("docker"), run, log: dir.join("dockerd.log") }
    }

    fn address(&self) -> String {
        format!("unix://{}", self.run.join("docker.sock").display())
    }

    /// The process that we started, if it still runs.
    fn pid(&self) -> Option<Pid> {
        let text = std::fs::read_to_string(self.run.join("docker.pid")).ok()?;
        let number: i32 = text.trim().parse().ok()?;
        // A number alone may have been given to another process since.
        let command_line = std::fs::read(format!("/proc/{number}/cmdline")).ok()?;
        let data = self.data.as_os_str().as_encoded_bytes();
        let is_ours = command_line.split(|byte| *byte == 0).any(|argument| argument == data);
        is_ours.then(|| Pid::from_raw(number))
    }
}

impl Dockerd {
    /// Connects to the Docker that `options` name, else to our own, else to the machine's, if
    /// one of them runs.
    ///
    /// # Errors
    /// A named Docker that does not answer.
    pub async fn find(options: &LabOptions) -> Result<Option<Self>, DaemonError> {
        if let Some(address) = &options.docker_host {
            return connect(address, false).await.map(Some);
        }
        let paths = Paths::new(&options.dir);
        if paths.pid().is_some() {
            return connect(&paths.address(), true).await.map(Some);
        }
        if Path::new(SYSTEM_SOCKET).exists() {
            return Ok(connect(&format!("unix://{SYSTEM_SOCKET}"), false).await.ok());
        }
        Ok(None)
    }

    /// As [`find`](Self::find), but starts a daemon where none runs.
    ///
    /// # Errors
    /// A daemon that does not start or does not answer.
    pub async fn ensure(options: &LabOptions) -> Result<Self, DaemonError> {
        match Self::find(options).await? {
            Some(daemon) => Ok(daemon),
            None => start(&Paths::new(&options.dir)).await,
        }
    }

    /// Stops the daemon if it is ours; does nothing to any other.
    ///
    /// # Errors
    /// A daemon that does not leave in time.
    pub async fn stop(&self, options: &LabOptions) -> Result<(), DaemonError> {
        let paths = Paths::new(&options.dir);
        let Some(pid) = paths.pid().filter(|_| self.ours) else { return Ok(()) };
        kill(pid, Signal::SIGTERM).map_err(|errno| DaemonError::Io {
            act: format!("stop the Docker daemon, process {pid}"),
            source: errno.into(),
        })?;
        let deadline = Instant::now() + DAEMON_TIMEOUT;
        while paths.pid().is_some() {
            if Instant::now() >= deadline {
                return Err(DaemonError::Timeout {
                    what: "the Docker daemon did not stop",
                    log: paths.log,
                });
            }
            tokio::time::sleep(POLL).await;
        }
        // The directory is ours alone and holds nothing but sockets.
        let _already_gone = std::fs::remove_dir_all(&paths.run);
        Ok(())
    }
}

async fn connect(address: &str, ours: bool) -> Result<Dockerd, DaemonError> {
    let failed =
        |source| DaemonError::Docker { address: address.to_owned(), source: Box::new(source) };
    let docker = Docker::connect_with_unix(address, REQUEST_SECONDS_MAX, API_DEFAULT_VERSION)
        .map_err(failed)?
        .negotiate_version()
        .await
        .map_err(failed)?;
    Ok(Dockerd { docker, address: address.to_owned(), ours })
}

async fn start(paths: &Paths) -> Result<Dockerd, DaemonError> {
    let io = |act: String| move |source| DaemonError::Io { act, source };
    for dir in [&paths.data, &paths.run] {
        std::fs::create_dir_all(dir).map_err(io(format!("create {}", dir.display())))?;
    }
    let log =
        std::fs::File::create(&paths.log).map_err(io(format!("create {}", paths.log.display())))?;
    let errors = log.try_clone().map_err(io("share the log".to_owned()))?;
    tracing::info!(data = %paths.data.display(), "starting a Docker daemon");
    // A session of its own: it outlives this process and its terminal.
    let status = Command::new("setsid")
        .args(["--fork", "dockerd", "--bridge", "none", "--data-root"])
        .arg(&paths.data)
        .arg("--exec-root")
        .arg(paths.run.join("exec"))
        .arg("--pidfile")
        .arg(paths.run.join("docker.pid"))
        .args(["--host", &paths.address()])
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .status()
        .await
        .map_err(io("run setsid dockerd".to_owned()))?;
    if !status.success() {
        let source = io::Error::other(status.to_string());
        return Err(io("run setsid dockerd".to_owned())(source));
    }
    let deadline = Instant::now() + DAEMON_TIMEOUT;
    loop {
        if let Ok(daemon) = connect(&paths.address(), true).await {
            return Ok(daemon);
        }
        if Instant::now() >= deadline {
            return Err(DaemonError::Timeout {
                what: "the Docker daemon did not answer",
                log: paths.log.clone(),
            });
        }
        tokio::time::sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_directory_has_a_short_socket_of_its_own() {
        let deep = "/a".repeat(200);
        let [one, two] = [deep.as_str(), "/b"].map(|dir| Paths::new(Path::new(dir)));
        assert_ne!(one.address(), two.address());
        assert!(one.run.join("exec/containerd/containerd.sock").as_os_str().len() < 100);
        assert_eq!(one.pid(), None);
    }
}
