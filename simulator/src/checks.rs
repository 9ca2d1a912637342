//! The properties that hold in every run, one struct each, with the honest caveats of each at its
//! definition. Numbers are those of the catalogue of properties in `docs/simulating.md`.
//!
//! What runs of one plan have in common (P47 to P49: duplicates, crashes and skipped events change
//! nothing at the end; P51 to P53: equal hashes, split runs, shrinking) is no property of one run:
//! property tests compare runs, by [`crate::end_state`].
//!
//! Left out, for there is nothing yet that could break them:
//! - P12, P13, P15: the scheduler has no affinity between pods and no spreading that it must
//!   honour; P16: no gangs; P17, P18, P24: no preemption.
//! - P21, P26: what the scheduler would choose in other clusters.
//! - P37: no daemon sets; P38, P39: no jobs; P44: no disruption budgets; P45: no autoscaling.
//! - P50: part of P27 here: a run comes to rest only by writing nothing.

mod brood;
mod capacity;
mod decisions;
mod endpoints;
mod leadership;
mod lifecycle;
mod node_loss;
mod ownership;
mod placement;
mod replication;
mod rollout;
mod store;
mod waiting;
mod watches;

#[cfg(test)]
pub(crate) mod made_up;

use std::num::NonZeroU32;

use crate::check::Check;
use crate::plan::{Operation, Plan};

/// In plans with more nodes than this the checks that remember what was delivered to whom, or
/// every pod, are left out: they cost time and memory for each delivery.
const NODES_MAX: usize = 20_000;
/// The same for pods that the plan asks for.
const PODS_MAX: u64 = 300_000;

/// Every check that fits the plan, but for those that its settings name.
pub fn all(plan: &Plan) -> Vec<Box<dyn Check>> {
    let mut all = cheap(plan);
    if plan.nodes.len() <= NODES_MAX && pods(plan) <= PODS_MAX {
        all.extend(thorough(plan));
    }
    if plan.templates.iter().any(|t| t.host_port != 0) {
        all.push(Box::new(capacity::PortsExclusive::new(plan)));
    }
    all.retain(|check| !plan.settings.unchecked.iter().any(|p| p == check.property()));
    all
}

/// One decision in how many the schedulers have to compare with the reference for these checks;
/// `None` if none of them asks for it.
pub(crate) fn one_compared_in(plan: &Plan, checks: &[Box<dyn Check>]) -> Option<NonZeroU32> {
    let asked = checks.iter().any(|check| check.property() == decisions::PROPERTY);
    asked.then(|| decisions::one_compared_in(plan.nodes.len()))
}

/// Checks that look at one write or call, or at the cluster at rest.
fn cheap(plan: &Plan) -> Vec<Box<dyn Check>> {
    vec![
        Box::new(store::Revisions::default()),
        Box::new(store::CompareAndSwap),
        Box::new(store::Finalizers),
        Box::new(store::OneController),
        Box::new(watches::NeverBack::new(plan)),
        Box::new(placement::BoundOnce),
        Box::new(placement::NodeWasThere::default()),
        Box::new(placement::LabelsHonoured::default()),
        Box::new(placement::AssumedIsReal),
        Box::new(decisions::BestIsChosen::default()),
        Box::new(waiting::WorkConserving),
        Box::new(replication::ComesToRest),
        Box::new(replication::RightNumber),
        Box::new(rollout::OneSetPerTemplate::default()),
        Box::new(rollout::RolloutEnds),
        Box::new(rollout::SharesAddUp::default()),
        Box::new(endpoints::EndpointsAreRight),
        Box::new(node_loss::GivenUpSlowly::new(plan)),
        Box::new(leadership::OneLeader::new(plan)),
        Box::new(lifecycle::Conserved::new(plan)),
    ]
}

/// Checks that remember every pod, or every delivery.
fn thorough(plan: &Plan) -> Vec<Box<dyn Check>> {
    vec![
        Box::new(store::UidsStay::default()),
        Box::new(watches::Replay::default()),
        Box::new(watches::CachesAreRight::default()),
        Box::new(capacity::NoOvercommit::new(plan)),
        Box::new(waiting::Waiting::for_attempt()),
        Box::new(waiting::Waiting::for_node()),
        Box::new(replication::NoOvershoot::default()),
        Box::new(replication::NoUndershoot::new(plan)),
        Box::new(replication::LeastUsefulFirst::default()),
        Box::new(rollout::RolloutBounds::new(plan)),
        Box::new(ownership::Collected::default()),
        Box::new(lifecycle::OneOfAName::default()),
    ]
}

/// How many pods a plan asks for.
fn pods(plan: &Plan) -> u64 {
    let asked = plan.operations.iter().map(|o| match &o.operation {
        Operation::CreatePod { .. } => 1,
        Operation::CreateDeployment { replicas, .. }
        | Operation::CreateReplicaSet { replicas, .. }
        | Operation::CreateReplicationController { replicas, .. }
        | Operation::Scale { replicas, .. } => u64::from(*replicas),
        _ => 0,
    });
    asked.sum()
}

#[cfg(test)]
mod tests;
