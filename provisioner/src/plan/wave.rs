//! The order of batches over hosts: quorum first, a few nodes at a time.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::HostPlan;
use crate::inventory::Rollout;
use crate::state::Stage;

/// Batches of one stage that run at the same time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wave {
    /// The stage.
    pub stage: Stage,
    /// The hosts, in inventory order.
    pub hosts: Vec<String>,
    /// Which part of a rollout over nodes at work this is; none where nothing that runs goes down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<Part>,
}

/// A part of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The nodes that go first.
    Canary,
    /// One of the batches after them.
    Batch {
        /// Its number, from 1.
        number: usize,
        /// How many there are.
        of: usize,
    },
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Canary => f.write_str("canary"),
            Self::Batch { number, of } => write!(f, "batch {number} of {of}"),
        }
    }
}

/// Orders the batches of all hosts.
///
/// The hosts of an etcd or control-plane stage where nothing that runs is interrupted go at once:
/// a new cluster, and members that are down (bringing those up can only help the quorum). Then
/// those that are interrupted go one host at a time, each behind its health gate. Nodes that are
/// at work follow in the parts that `rollout` asks for: a bad change stops at the first of them.
#[must_use]
pub fn waves(hosts: &[HostPlan], rollout: &Rollout) -> Vec<Wave> {
    let in_parts = *rollout != Rollout::AT_ONCE;
    let rolled: BTreeSet<&str> = (hosts.iter())
        .filter(|host| in_parts && is_rolled(host))
        .map(|host| host.host.as_str())
        .collect();
    let mut waves = Vec::new();
    for stage in Stage::ALL {
        let mut by_interruption: BTreeMap<bool, Vec<String>> = BTreeMap::new();
        for host in hosts {
            if let Some(batch) = host.batches.get(&stage) {
                // What a rolled node needs first, it gets in its own turn.
                if stage == Stage::HostPrep && rolled.contains(host.host.as_str()) {
                    continue;
                }
                let interrupts = match stage {
                    Stage::HostPrep => false,
                    Stage::Node => batch.interrupts && in_parts,
                    Stage::Etcd | Stage::ControlPlane => batch.interrupts,
                };
                by_interruption.entry(interrupts).or_default().push(host.host.clone());
            }
        }
        for (interrupts, names) in by_interruption {
            match (interrupts, stage) {
                (true, Stage::Node) => waves.extend(rollout_waves(hosts, &rolled, &names, rollout)),
                (true, _) => {
                    let single = |host| Wave { stage, hosts: vec![host], part: None };
                    waves.extend(names.into_iter().map(single));
                }
                (false, _) => waves.push(Wave { stage, hosts: names, part: None }),
            }
        }
    }
    waves
}

/// Whether the host is a node at work whose turn all of its changes can wait for.
fn is_rolled(host: &HostPlan) -> bool {
    let vital = [Stage::Etcd, Stage::ControlPlane];
    host.batches.get(&Stage::Node).is_some_and(|batch| batch.interrupts)
        && vital.iter().all(|stage| !host.batches.contains_key(stage))
}

fn rollout_waves(
    hosts: &[HostPlan],
    rolled: &BTreeSet<&str>,
    names: &[String],
    rollout: &Rollout,
) -> Vec<Wave> {
    let all = names.len();
    let canary = if rollout.canary < all { rollout.canary } else { 0 };
    let (first, rest) = names.split_at(canary);
    let chunks: Vec<_> = rest.chunks(rollout.batch.of(all)).collect();
    let of = chunks.len();
    let parts = (!first.is_empty()).then_some((Part::Canary, first)).into_iter();
    let parts = parts.chain(
        chunks.into_iter().zip(1..).map(|(chunk, number)| (Part::Batch { number, of }, chunk)),
    );
    let prepared = |name: &&String| {
        let host = hosts.iter().find(|host| host.host == **name);
        rolled.contains(name.as_str())
            && host.is_some_and(|host| host.batches.contains_key(&Stage::HostPrep))
    };
    let mut waves = Vec::new();
    for (part, names) in parts {
        let part = Some(part);
        let prep: Vec<_> = names.iter().filter(prepared).cloned().collect();
        if !prep.is_empty() {
            waves.push(Wave { stage: Stage::HostPrep, hosts: prep, part });
        }
        waves.push(Wave { stage: Stage::Node, hosts: names.to_vec(), part });
    }
    waves
}
