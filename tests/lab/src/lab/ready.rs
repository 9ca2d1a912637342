//! Waiting for a host: booted without failed units, and sshd answers.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::{Host, Lab, LabError};
use crate::exec::ExecOptions;

/// Between two looks at a host that does not know its own state yet.
const POLL: Duration = Duration::from_millis(50);
/// Longest single look.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);
const SSH_PORT: u16 = 22;

impl Lab {
    /// Waits until systemd has reached its target on the host and sshd greets.
    ///
    /// # Errors
    /// Failed units, or no end within [`LabOptions::ready_timeout`](crate::LabOptions).
    pub async fn wait_ready(&self, host: &Host) -> Result<(), LabError> {
        let start = Instant::now();
        let mut last = String::from("no answer");
        while start.elapsed() < self.options().ready_timeout {
            match self.look(host).await {
                Look::Ready => return Ok(()),
                Look::Degraded => {
                    let list = ["systemctl", "list-units", "--failed", "--plain", "--no-legend"];
                    let units = self.run(&host.name, &list).await?;
                    return Err(LabError::Degraded { host: host.name.clone(), units });
                }
                Look::NotYet(state) => last = state,
            }
            tokio::time::sleep(POLL).await;
        }
        let waited = start.elapsed();
        Err(LabError::NotReady { host: host.name.clone(), waited, state: last })
    }

    async fn look(&self, host: &Host) -> Look {
        let options = ExecOptions { timeout: LOOK_TIMEOUT, ..ExecOptions::default() };
        // Returns when the state changes, so that no time is lost between looks; without a bus
        // it returns at once.
        let command = ["systemctl", "is-system-running", "--wait"];
        let output = match self.exec_with(&host.name, &command, options).await {
            Ok(output) => output,
            Err(error) => return Look::NotYet(error.to_string()),
        };
        match output.stdout.trim() {
            "running" => {}
            "degraded" => return Look::Degraded,
            state => return Look::NotYet(format!("systemd is {state:?}")),
        }
        match tokio::time::timeout(LOOK_TIMEOUT, greeting(host.address)).await {
            Ok(Ok(greeting)) if &greeting == b"SSH-" => Look::Ready,
            Ok(Ok(_)) => Look::NotYet("the ssh port answers with something else".to_owned()),
            Ok(Err(error)) => Look::NotYet(format!("the ssh port does not answer: {error}")),
            Err(_) => Look::NotYet("the ssh port does not answer".to_owned()),
        }
    }
}

enum Look {
    Ready,
    Degraded,
    NotYet(String),
}

async fn greeting(address: Ipv4Addr) -> io::Result<[u8; 4]> {
    let mut stream = TcpStream::connect(SocketAddrV4::new(address, SSH_PORT)).await?;
    let mut greeting = [0; 4];
    stream.read_exact(&mut greeting).await?;
    Ok(greeting)
}
