//! The balancer on a host, in front of all API servers.

use super::{
    ComposeError,
    builder::{Builder, Component, port},
};
use crate::{
    inventory::{API_PROXY_PORT, LoadBalancer},
    state::{Gate, Stage},
};

/// The list of API servers. The balancer reads it again and again, so that no change of the masters
/// restarts it: it is no input of the unit.
const UPSTREAMS: &str = "apiserver-proxy.upstreams";

/// Adds it once, in the stage of the first role that needs it: before the components that ask
/// through it.
pub(super) fn add(builder: &mut Builder<'_>, stage: Stage) -> Result<(), ComposeError> {
    let upstreams = format!("{}/{UPSTREAMS}", builder.layout().settings());
    let there = builder.state.file(&upstreams).is_some();
    if there || builder.inventory.load_balancer != LoadBalancer::Local {
        return Ok(());
    }
    let lines = builder.masters().map(|master| format!("{master}\n")).collect::<String>();
    let head = "# Made by kprov; changes made here are overwritten.\n";
    builder.text(&upstreams, format!("{head}{lines}"));
    let ca = builder.trust("ca", &builder.pki.cluster_trust);
    let mut inputs = vec![ca];
    inputs.extend(builder.hyperkube("apiserver-proxy"));
    builder.component(Component {
        name: "apiserver-proxy",
        stage,
        health: Gate::Active,
        ports: &[API_PROXY_PORT, port::API_PROXY_METRICS],
        inputs,
    })
}
