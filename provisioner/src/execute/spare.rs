//! Whether an API server may go down for a moment.

use std::time::Duration;

use super::{Hosts, Limits, gate};
use crate::state::{Gate, HostState, UnitState};

/// How long an API server may take to show that it is ready.
const PATIENCE: Duration = Duration::from_secs(5);

const UNIT: &str = "kube-apiserver.service";

/// The hosts with an API server: its unit, or that of the kubelet whose pod it is, and its health
/// alone: what a change makes of it is not asked before the change.
fn servers(desired: &[HostState]) -> impl Iterator<Item = (&HostState, (&str, Gate))> {
    desired.iter().filter_map(|state| {
        let server = |unit: &UnitState| match &unit.health {
            Gate::StaticPods(gate) => Some(Gate::Https(gate.api.clone())),
            gate => (unit.name == UNIT).then(|| gate.clone()),
        };
        let mut units = state.units.iter();
        units.find_map(|unit| Some((state, (unit.name.as_str(), server(unit)?))))
    })
}

/// Asks the API servers that stay up while the one on `interrupted` restarts, as often as a gate
/// must pass: one good answer of a server that comes and goes is not enough.
///
/// # Errors
/// Why the API would be served by nobody. One that serves nobody now can always be restarted: that
/// may be what mends it.
pub(super) fn check(
    hosts: &mut Hosts,
    desired: &[HostState],
    interrupted: &str,
    limits: Limits,
) -> Result<(), String> {
    let limits = Limits { gate: PATIENCE.min(limits.gate), ..limits };
    let mut ready = |state: &HostState, (unit, gate): &(&str, Gate), limits: Limits| {
        // Each is asked on its own host: that is where its gate is.
        let host = hosts.get_mut(&state.host)?;
        Some(gate::wait(host.as_mut(), state, unit, gate, limits).is_ok())
    };
    let own = servers(desired).find(|(state, _)| state.host == interrupted);
    let others: Vec<_> = servers(desired).filter(|(s, _)| s.host != interrupted).collect();
    let (Some((state, unit)), false) = (own, others.is_empty()) else { return Ok(()) };
    let mut unready = Vec::new();
    for (state, unit) in others {
        match ready(state, &unit, limits) {
            Some(true) => return Ok(()),
            Some(false) => unready.push(state.host.as_str()),
            None => {}
        }
    }
    let once = Limits { passes: 1, gate: Duration::ZERO, ..limits };
    if unready.is_empty() || ready(state, &unit, once) != Some(true) {
        return Ok(());
    }
    Err(format!(
        "restarting the API server on {interrupted} would leave none that serves: {} {} not ready \
         (`--hosts` brings {} up first)",
        unready.join(", "),
        if unready.len() == 1 { "is" } else { "are" },
        if unready.len() == 1 { "it" } else { "them" },
    ))
}
