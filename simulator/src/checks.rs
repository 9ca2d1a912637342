//! The properties that hold in every run, one struct each, with the honest caveats of each at its
//! definition. Numbers are those of the catalogue of properties in `docs/simulating.md`.
//!
//! What runs of one plan have in common (P47 to P49: duplicates, crashes and skipped events change
//! nothing at the end; P51 to P53: equal hashes, split runs, shrinking) is no property of one run:
//! property tests compare runs, by [`crate::end_state`].
//!
//! Left out:
//! - P21, P26: what the scheduler would choose in other clusters, which tests of the scheduler compare.
//! - P50: part of P27 here: a run comes to rest only by writing nothing.

mod asked;
mod autoscaling;
mod brood;
mod budgets;
mod capacity;
mod clocks;
mod company;
mod cron_jobs;
mod daemons;
mod decisions;
mod endpoints;
mod finished;
mod groups;
mod jobs;
mod leadership;
mod lifecycle;
mod node_loss;
mod of_process;
mod ordinals;
mod ownership;
mod placement;
mod preemption;
mod quotas;
mod replication;
mod rest;
mod rollout;
mod store;
mod volumes;
mod waiting;
mod watches;

#[cfg(test)]
pub(crate) mod made_up;

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use crate::check::Check;
use crate::plan::{Operation, Plan, PodTemplate};

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
        all.extend(thorough_of_operations(plan));
    }
    if plan.templates.iter().any(PodTemplate::minds_others) {
        all.push(Box::new(company::KeepsCompany::apart()));
        all.push(Box::new(company::KeepsCompany::near()));
        all.push(Box::new(company::KeepsCompany::spread()));
    }
    if plan.settings.scheduler.enabled.iter().any(|name| name == "Coscheduling") {
        all.push(Box::new(groups::PlacedTogether::default()));
    }
    if plan.templates.iter().any(|t| t.host_port != 0) {
        all.push(Box::new(capacity::PortsExclusive::new(plan)));
    }
    all.extend(of_operations(plan));
    all.retain(|check| !plan.settings.unchecked.iter().any(|p| p == check.property()));
    all
}

/// Checks of what is there only if the plan asks for it.
fn of_operations(plan: &Plan) -> Vec<Box<dyn Check>> {
    let asks = |is_it: fn(&Operation) -> bool| plan.operations.iter().any(|o| is_it(&o.operation));
    let mut all: Vec<Box<dyn Check>> = Vec::new();
    if asks(|o| matches!(o, Operation::CreateDeployment { .. })) {
        all.push(Box::new(rollout::OneSetPerTemplate::default()));
        all.push(Box::new(rollout::RolloutEnds));
        all.push(Box::new(rollout::SharesAddUp::default()));
    }
    if asks(|o| matches!(o, Operation::CreateBudget(_))) {
        all.push(Box::new(budgets::BudgetsHold::new(plan)));
    }
    let priorities: BTreeSet<i32> = plan.templates.iter().map(|t| t.priority).collect();
    if priorities.len() > 1 {
        all.push(Box::new(preemption::RoomIsKept::default()));
        all.push(Box::new(preemption::PreemptionEnds::default()));
    }
    if asks(|o| matches!(o, Operation::CreateCronJob(_))) {
        all.push(Box::new(cron_jobs::OnSchedule::default()));
    }
    if asks(|o| matches!(o, Operation::CreateAutoscaler(_))) {
        all.push(Box::new(autoscaling::ScalesAsUsed::new(plan)));
    }
    if asks(|o| matches!(o, Operation::CreateQuota(_))) {
        all.push(Box::new(quotas::WithinQuotas));
    }
    if asks(|o| matches!(o, Operation::CreateLimitRange(_))) {
        all.push(Box::new(quotas::WithinRanges));
    }
    if plan.templates.iter().any(|t| t.storage > 0) {
        all.push(Box::new(volumes::OneVolumeEach));
    }
    if asks(|o| match o {
        Operation::CreateJob { ttl_seconds, .. } => ttl_seconds.is_some(),
        Operation::CreateCronJob(cron) => cron.ttl_seconds.is_some(),
        _ => false,
    }) {
        all.push(Box::new(finished::KeptAsLong::default()));
    }
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
        Box::new(rest::ComesToRest),
        Box::new(rest::RightNumber),
        Box::new(endpoints::EndpointsAreRight),
        Box::new(node_loss::GivenUpSlowly::new(plan)),
        Box::new(leadership::OneLeader::new(plan)),
        Box::new(lifecycle::Conserved::new(plan)),
        Box::new(preemption::GivesWay::new(plan)),
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
        Box::new(lifecycle::OneOfAName::default()),
    ]
}

/// Those among them of what is there only if the plan asks for it.
fn thorough_of_operations(plan: &Plan) -> Vec<Box<dyn Check>> {
    let asks = |is_it: fn(&Operation) -> bool| plan.operations.iter().any(|o| is_it(&o.operation));
    let mut all: Vec<Box<dyn Check>> = Vec::new();
    let owners = |o: &Operation| o.creates() && !matches!(o, Operation::CreatePod { .. });
    if asks(owners) || plan.templates.iter().any(|t| t.storage > 0) {
        all.push(Box::new(replication::NoOvershoot::default()));
        all.push(Box::new(replication::NoUndershoot::new(plan)));
        all.push(Box::new(replication::LeastUsefulFirst::default()));
        all.push(Box::new(ownership::Collected::default()));
    }
    if asks(|o| matches!(o, Operation::CreateDeployment { .. })) {
        all.push(Box::new(rollout::RolloutBounds::new(plan)));
    }
    if asks(|o| matches!(o, Operation::CreateDaemonSet { .. })) {
        all.push(Box::new(daemons::OneOnEachNode::default()));
    }
    if asks(|o| matches!(o, Operation::CreateJob { .. } | Operation::CreateCronJob(_))) {
        all.push(Box::new(jobs::CountsOnce::default()));
    }
    all
}

/// How many pods a plan asks for.
fn pods(plan: &Plan) -> u64 {
    let asked = plan.operations.iter().map(|o| match &o.operation {
        Operation::CreatePod { .. } => 1,
        Operation::CreateDaemonSet { .. } => u64::try_from(plan.nodes.len()).unwrap_or(u64::MAX),
        operation => operation.replicas().map_or(0, u64::from),
    });
    asked.sum()
}

#[cfg(test)]
mod tests;
