//! What can happen to a host.

use std::path::Path;
use std::process::Stdio;

use bollard::query_parameters::{
    KillContainerOptionsBuilder, StartContainerOptions, StopContainerOptionsBuilder,
};
use tokio::process::Command;

use crate::lab::{Host, Lab, LabError};

/// Longest orderly shutdown of a host, in seconds; after it the host is killed.
const STOP_SECONDS_MAX: i32 = 30;

/// A fault, or its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Fault {
    /// All processes stop where they are; connections hang, but the kernel answers pings.
    Pause,
    /// Ends [`Pause`](Self::Pause).
    Unpause,
    /// The power fails.
    Kill,
    /// An orderly shutdown.
    Stop,
    /// Power on, after [`Kill`](Self::Kill) or [`Stop`](Self::Stop); returns when the host is
    /// ready.
    Start,
    /// The network cable is pulled; the host's own link stays up.
    Cut,
    /// Ends [`Cut`](Self::Cut).
    Heal,
}

impl Lab {
    /// Makes a fault happen to a host, or ends it.
    ///
    /// # Errors
    /// An unknown host, a fault that does not fit the host's state, or a host that is not ready
    /// in time after [`Fault::Start`].
    pub async fn fault(&self, host: &str, fault: Fault) -> Result<(), LabError> {
        let host = self.host(host)?;
        let docker = &self.daemon().docker;
        let container = host.container.as_str();
        tracing::info!(host = host.name, ?fault, "making a fault");
        let done = match fault {
            Fault::Pause => docker.pause_container(container).await,
            Fault::Unpause => docker.unpause_container(container).await,
            Fault::Kill => {
                let options = KillContainerOptionsBuilder::new().signal("SIGKILL").build();
                docker.kill_container(container, Some(options)).await
            }
            Fault::Stop => {
                let options = StopContainerOptionsBuilder::new().t(STOP_SECONDS_MAX).build();
                docker.stop_container(container, Some(options)).await
            }
            Fault::Start => {
                let started = docker.start_container(container, None::<StartContainerOptions>);
                started.await.map_err(|source| {
                    LabError::docker(format!("{fault:?} {}", host.name).to_lowercase(), source)
                })?;
                return self.wait_ready(host).await;
            }
            Fault::Cut => return self.set_cable(host, None).await,
            Fault::Heal => return self.set_cable(host, Some(&self.bridge())).await,
        };
        done.map_err(|source| {
            LabError::docker(format!("{fault:?} {}", host.name).to_lowercase(), source)
        })
    }

    /// Puts the outer end of the host's link into a bridge, or takes it out of any.
    async fn set_cable(&self, host: &Host, bridge: Option<&str>) -> Result<(), LabError> {
        let cable = self.cable(host).await?;
        let mut ip = Command::new("ip");
        ip.args(["link", "set", &cable]).stdin(Stdio::null());
        match bridge {
            Some(bridge) => ip.args(["master", bridge]),
            None => ip.arg("nomaster"),
        };
        let act = format!("plug {cable} of {}", host.name);
        let output = ip.output().await.map_err(|source| LabError::io(act.clone(), source))?;
        if !output.status.success() {
            let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(LabError::io(act, std::io::Error::other(message)));
        }
        Ok(())
    }

    /// The name of the outer end of the host's link.
    async fn cable(&self, host: &Host) -> Result<String, LabError> {
        let index = self.run(&host.name, &["cat", "/sys/class/net/eth0/iflink"]).await?;
        let act = format!("find the cable of {}", host.name);
        find_link(Path::new("/sys/class/net"), index.trim())
            .map_err(|source| LabError::io(act, source))
    }
}

/// Finds a link by its index in a directory of links.
fn find_link(links: &Path, index: &str) -> std::io::Result<String> {
    for link in std::fs::read_dir(links)? {
        let link = link?;
        let found = std::fs::read_to_string(link.path().join("ifindex"));
        if found.is_ok_and(|text| text.trim() == index) {
            return Ok(link.file_name().to_string_lossy().into_owned());
        }
    }
    Err(std::io::Error::other(format!("this machine has no link with index {index}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_found_by_its_index() {
        let dir = tempfile::tempdir().unwrap();
        for (name, index) in [("veth1", "7\n"), ("veth2", "17\n")] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
            std::fs::write(dir.path().join(name).join("ifindex"), index).unwrap();
        }
        assert_eq!(find_link(dir.path(), "17").unwrap(), "veth2");
        assert!(find_link(dir.path(), "1").is_err());
    }
}
