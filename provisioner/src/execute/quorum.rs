//! Whether an etcd member may go down for a moment.

use std::time::Duration;

use super::{Hosts, Limits, gate};
use crate::state::{HostState, Stage, UnitState};

/// How long a member may take to show that it is healthy.
const PATIENCE: Duration = Duration::from_secs(5);

/// The members of etcd among `desired`, with their units.
pub(super) fn members(desired: &[HostState]) -> impl Iterator<Item = (&HostState, &UnitState)> {
    desired.iter().filter_map(|state| {
        let unit = state.units.iter().find(|unit| unit.stage == Stage::Etcd)?;
        Some((state, unit))
    })
}

/// Asks the members that stay up while the one on `interrupted` restarts.
///
/// # Errors
/// Why the cluster would lose its quorum.
pub(super) fn check(
    hosts: &mut Hosts,
    desired: &[HostState],
    interrupted: &str,
    limits: Limits,
) -> Result<(), String> {
    let limits = Limits { gate: PATIENCE.min(limits.gate), passes: 1, ..limits };
    let members: Vec<_> = members(desired).collect();
    // One member has no quorum to lose: a restart is a short outage that was asked for.
    if members.len() < 2 {
        return Ok(());
    }
    let quorum = members.len() / 2 + 1;
    let mut unhealthy = Vec::new();
    for (state, unit) in members.iter().filter(|(state, _)| state.host != interrupted) {
        // A member that this run does not work on is asked over the cluster's own network.
        let from = if hosts.contains_key(&state.host) { &state.host } else { interrupted };
        let answer = match hosts.get_mut(from) {
            Some(host) => gate::wait(host.as_mut(), state, &unit.name, &unit.health, limits),
            None => continue,
        };
        if answer.is_err() {
            unhealthy.push(state.host.as_str());
        }
    }
    let left = members.len() - 1 - unhealthy.len();
    // Two members cannot keep a quorum through any restart, but are healthy again after it.
    if left >= quorum || (members.len() == 2 && unhealthy.is_empty()) {
        return Ok(());
    }
    Err(format!(
        "restarting etcd on {interrupted} would leave {left} of {} members, and {quorum} are \
         needed: {} not healthy",
        members.len(),
        match &unhealthy[..] {
            [one] => format!("{one} is"),
            several => format!("{} are", several.join(", ")),
        }
    ))
}
