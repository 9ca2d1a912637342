//! The order of batches over hosts: quorum first.

use std::collections::BTreeMap;

use serde::Serialize;

use super::HostPlan;
use crate::state::Stage;

/// Batches of one stage that run at the same time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Wave {
    /// The stage.
    pub stage: Stage,
    /// The hosts, in inventory order.
    pub hosts: Vec<String>,
}

/// Orders the batches of all hosts.
///
/// The hosts of an etcd or control-plane stage where nothing that runs is interrupted go at once:
/// a new cluster, and members that are down (bringing those up can only help the quorum). Then
/// those that are interrupted go one host at a time, each behind its health gate.
#[must_use]
pub fn waves(hosts: &[HostPlan]) -> Vec<Wave> {
    let mut waves = Vec::new();
    for stage in Stage::ALL {
        let mut by_interruption: BTreeMap<bool, Vec<String>> = BTreeMap::new();
        for host in hosts {
            if let Some(batch) = host.batches.get(&stage) {
                let one_by_one = batch.interrupts && stage != Stage::HostPrep;
                let one_by_one = one_by_one && stage != Stage::Node;
                by_interruption.entry(one_by_one).or_default().push(host.host.clone());
            }
        }
        for (one_by_one, hosts) in by_interruption {
            if one_by_one {
                let single = |host| Wave { stage, hosts: vec![host] };
                waves.extend(hosts.into_iter().map(single));
            } else {
                waves.push(Wave { stage, hosts });
            }
        }
    }
    waves
}
