//! Speaks to Open vSwitch by its own programs: its database takes all changes in one transaction.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use network::switch::{self, Datapath, INNER_GATEWAY, Switch, UPLINK};

use crate::program::{ProgramError, run};

/// Why the switch is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// One of its programs failed.
    #[error("Open vSwitch (package openvswitch-switch or openvswitch) does not do its work")]
    Program(#[from] ProgramError),
    /// Its database holds what cannot be ours.
    #[error(transparent)]
    Database(#[from] switch::ReadError),
    /// It took the changes and could not carry them out.
    #[error("Open vSwitch could not set up {0}; see /var/log/openvswitch/ovs-vswitchd.log")]
    Troubles(String),
}

/// Longest wait of a program for the switch, in seconds; it would wait without end.
const PATIENCE: &str = "--timeout=10";

/// Whether the kernel can forward for the switch, which has tried to load the module at its start.
///
/// # Errors
/// The program is not there.
pub(super) async fn datapath() -> Result<Datapath, SwitchError> {
    match run("ovs-dpctl", &[PATIENCE, "dump-dps"], None).await {
        Ok(_) => Ok(Datapath::System),
        Err(ProgramError::Failed { message, .. }) => {
            tracing::warn!(
                message,
                "the kernel has no openvswitch: the switch forwards by itself, which is slow"
            );
            Ok(Datapath::Netdev)
        }
        Err(error) => Err(error.into()),
    }
}

/// Gives the switch a tunnel to each of `peers`. Its ports are there when this returns.
pub(super) async fn ensure(
    datapath: Datapath,
    own: Ipv4Addr,
    peers: &BTreeSet<Ipv4Addr>,
) -> Result<Switch, SwitchError> {
    let there = read().await?;
    let desired = there.desired(datapath, own, peers);
    let changes = there.transaction(&desired);
    if changes.is_empty() {
        return Ok(there);
    }
    tracing::info!(changes = changes.join(" "), "tunnels change");
    let changes = changes.iter().map(String::as_str);
    let arguments: Vec<&str> = [PATIENCE, "--"].into_iter().chain(changes).collect();
    run("ovs-vsctl", &arguments, None).await?;
    read().await
}

async fn read() -> Result<Switch, SwitchError> {
    let arguments = [&[PATIENCE][..], &switch::QUESTION].concat();
    Ok(Switch::read(&run("ovs-vsctl", &arguments, None).await?)?)
}

/// Lets it forward between its tunnels and this host. What is there already is not touched.
pub(super) async fn forward(switch: &Switch) -> Result<(), SwitchError> {
    let arguments = [PATIENCE, "replace-flows", switch::BRIDGE, "-"];
    run("ovs-ofctl", &arguments, Some(&switch.flows())).await?;
    if switch.uplink {
        lead_out(&switch.remotes()).await?;
    }
    match switch.troubles.is_empty() {
        true => Ok(()),
        false => Err(SwitchError::Troubles(switch.troubles.join("; "))),
    }
}

/// Sends the packets of tunnels to the kernel, instead of where the kernel's own routes lead: that
/// device is none of the switch's. The switch forgets this when it is started again.
async fn lead_out(remotes: &BTreeSet<Ipv4Addr>) -> Result<(), SwitchError> {
    let there = switch::routed(&run("ovs-appctl", &[PATIENCE, "ovs/route/show"], None).await?);
    let via = INNER_GATEWAY.to_string();
    for remote in remotes.difference(&there) {
        let (add, host) = ("ovs/route/add", format!("{remote}/32"));
        run("ovs-appctl", &[PATIENCE, add, &host, UPLINK, &via], None).await?;
    }
    for remote in there.difference(remotes) {
        let (del, host) = ("ovs/route/del", format!("{remote}/32"));
        run("ovs-appctl", &[PATIENCE, del, &host], None).await?;
    }
    Ok(())
}

/// Removes our bridges and their tunnels from the database; the switch follows.
///
/// # Errors
/// They are there and cannot be removed.
pub(super) async fn remove() -> Result<(), SwitchError> {
    let arguments = [&[PATIENCE, "--"][..], &switch::REMOVAL].concat();
    match run("ovs-vsctl", &arguments, None).await {
        // A program that is not there cannot have made anything.
        Err(ProgramError::Run { .. }) => Ok(()),
        result => Ok(result.map(drop)?),
    }
}
